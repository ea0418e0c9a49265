"""How long does `magnus check` take on a large schema, and what does it lock? 10,000 tables, 30,000 indexes by default.

The schema holds identity columns, foreign keys and partitions. While the snapshot is read, another session looks every
few milliseconds at the locks of the reading one, and every statement is timed.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time

import asyncpg
from _report import Column, Report, Row, arguments, environment, run
from _server import accounts

from magnus.tuning import collect, reading
from magnus.tuning.checks import CHECKS
from magnus.tuning.checks import run as judge

LIMIT = 10.0
STATEMENT = 2.0
BATCH = 50
COLUMNS = (
    Column("whole s", ",.2f"),
    Column("judging s", ",.2f"),
    Column("slowest statement s", ",.3f"),
    Column("statements", ",.0f"),
    Column("most locks", ",.0f"),
    Column("above AccessShare", ",.0f"),
)


async def build(dsn: str, tables: int) -> None:
    """
    Make the schema: three indexes a table, a foreign key to the first, every tenth table a partition.
    """
    con = await asyncpg.connect(dsn)
    try:
        await con.execute(
            "create table parent (id bigint generated always as identity, at int) partition by range (id)"
        )
        for start in range(0, tables, BATCH):
            await con.execute(";".join(_table(number) for number in range(start, min(start + BATCH, tables))))
    finally:
        await con.close()


def _table(number: int) -> str:
    if number % 10 == 9:
        return (
            f"create table t{number} partition of parent for values from ({number}) to ({number + 1});"
            f"create index on t{number} (id); create index on t{number} (at); create index on t{number} (at, id)"
        )
    reference = "references t0 " if number else ""
    return (
        f"create table t{number} (id bigint generated always as identity primary key, at timestamptz, "
        f"other bigint {reference}, name text); create index on t{number} (at); create index on t{number} (other, at)"
    )


async def measure(dsn: str, rounds: int) -> dict[str, float]:
    """
    Read and judge some times; times are medians, locks and the slowest statement are the worst of all rounds.
    """
    whole: list[float] = []
    judging: list[float] = []
    statements: list[float] = []
    most = above = 0
    for _ in range(rounds):
        con = await asyncpg.connect(dsn, statement_cache_size=0)
        try:
            statements_before = len(statements)
            con.add_query_logger(lambda query: statements.append(query.elapsed))
            watch = asyncio.create_task(_watch(dsn, con.get_server_pid()))
            begin = time.perf_counter()
            snapshot = await reading.read(con)
            await collect.read_server(con)
            read = time.perf_counter()
            for check in CHECKS:
                judge(check, snapshot)
            whole.append(time.perf_counter() - begin)
            judging.append(time.perf_counter() - read)
            watch.cancel()
            locks: tuple[int, int] = (0, 0)
            with contextlib.suppress(asyncio.CancelledError):
                locks = await watch
            most, above = max(most, locks[0]), max(above, locks[1])
        finally:
            await con.close()
    return {
        "whole s": statistics.median(whole),
        "judging s": statistics.median(judging),
        "slowest statement s": max(statements),
        "statements": len(statements) - statements_before,
        "most locks": most,
        "above AccessShare": above,
    }


async def _watch(dsn: str, pid: int) -> tuple[int, int]:
    """
    Return the most locks on relations that a session held at once, and how many of them were above AccessShare.
    """
    sql = (
        "select count(*), count(*) filter (where mode <> 'AccessShareLock') from pg_locks "
        "where pid = $1 and locktype = 'relation'"
    )
    con = await asyncpg.connect(dsn)
    most = above = 0
    try:
        while True:
            row = await con.fetchrow(sql, pid)
            most, above = max(most, row[0]), max(above, row[1])
            await asyncio.sleep(0.002)
    except asyncio.CancelledError:
        return most, above
    finally:
        con.terminate()


def main() -> None:
    options = arguments(__doc__ or "", tables=10_000, quick_tables=100, rounds=5, quick_rounds=1)
    with accounts() as dsn:
        report = Report("bench_check", options, run(environment(dsn)))
        run(build(dsn, options.tables))
        found = run(measure(dsn, options.rounds))
    cells = tuple(found[column.heading] for column in COLUMNS)
    report.table(f"{options.rounds} rounds, medians; the slowest and the most are of all", COLUMNS, [
        Row(f"{options.tables:,} tables, {3 * options.tables:,} indexes", cells)
    ])  # fmt: skip
    report.goal("seconds for all checks", found["whole s"], most=LIMIT)
    report.goal("seconds for one statement", found["slowest statement s"], most=STATEMENT)
    report.goal("locks above AccessShare", found["above AccessShare"], most=0)
    report.save()


if __name__ == "__main__":
    main()
