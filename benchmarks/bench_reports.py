"""The reports on slow_query_log and pg_stat_statements, word by word, beside what a driven workload measured itself.

Statements of known kinds are run a known number of times. Calls must be exact, times within a tenth of the caller's.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import defaultdict
from typing import TYPE_CHECKING

import asyncpg
from _report import Column, Report, Row, arguments, environment, run
from _server import accounts

from magnus import Database, DatabaseConfig

if TYPE_CHECKING:
    import argparse

TODAY = """
SELECT query, COUNT(*) as occurrences, ROUND(AVG(duration_ms), 2) as avg_ms, ROUND(MAX(duration_ms), 2) as max_ms
FROM slow_query_log WHERE timestamp > NOW() - INTERVAL '1 day'
GROUP BY query ORDER BY occurrences DESC, avg_ms DESC LIMIT 20
"""
THIS_HOUR = """
SELECT query, COUNT(*) as count, ROUND(AVG(duration_ms), 2) as avg_ms
FROM slow_query_log WHERE timestamp > NOW() - INTERVAL '1 hour'
GROUP BY query ORDER BY count DESC
"""
BY_TOTAL = """
SELECT calls, ROUND(total_exec_time::numeric / 1000, 2) AS total_seconds, ROUND(mean_exec_time::numeric, 2) AS avg_ms,
       ROUND(max_exec_time::numeric, 2) AS max_ms, LEFT(query, 100) AS query_preview
FROM pg_stat_statements WHERE calls > 10 ORDER BY total_exec_time DESC LIMIT 10
"""
BY_MEAN = """
SELECT calls, ROUND(mean_exec_time::numeric, 2) AS avg_ms, LEFT(query, 100) AS query_preview
FROM pg_stat_statements WHERE calls > 10 ORDER BY mean_exec_time DESC LIMIT 10
"""
BY_CALLS = """
SELECT calls, ROUND(mean_exec_time::numeric, 2) as avg_ms, LEFT(query, 80) as query
FROM pg_stat_statements ORDER BY calls DESC LIMIT 20
"""
KINDS = {
    "select pg_sleep({0}) as a": 0.12,
    "select pg_sleep({0}), count(*) from account": 0.15,
    "select pg_sleep({0}), owner from account where id = {1}": 0.2,
}


def shown(kind: str) -> str:
    """
    Return the text that both reports show of a kind.
    """
    numbers = iter(range(1, 9))
    return re.sub(r"\{\d\}", lambda _: f"${next(numbers)}", kind)


async def drive(dsn: str, calls: int, seed: int) -> dict[str, list[float]]:
    """
    Run every kind `calls` times, in random order, and return the times by what the reports show of it.
    """
    chance = random.Random(seed)
    order = [kind for kind in KINDS for _ in range(calls)]
    chance.shuffle(order)
    times: dict[str, list[float]] = defaultdict(list)
    config = DatabaseConfig(dsn=dsn, min_pool_size=4, max_pool_size=4)
    async with Database(config) as db:

        async def one(kind: str) -> None:
            async with db.acquire() as con:  # waiting for a connection is no part of a statement's time
                text = kind.format(f"{KINDS[kind] * chance.uniform(0.98, 1.02):.4f}", chance.randrange(1, 1000))
                began = time.perf_counter()
                await con.fetch(text)
                times[shown(kind)].append(1000 * (time.perf_counter() - began))

        await asyncio.gather(*map(one, order))
    return times


async def measure(dsn: str, options: argparse.Namespace) -> None:
    report = Report("bench_reports", options, await environment(dsn))
    con = await asyncpg.connect(dsn)
    await con.execute("create extension if not exists pg_stat_statements; select pg_stat_statements_reset()")
    times = await drive(dsn, options.calls, options.seed)
    found = {
        "slow_query_log, today": {row["query"]: (row["occurrences"], row["avg_ms"]) for row in await con.fetch(TODAY)},
        "slow_query_log, this hour": {
            row["query"]: (row["count"], row["avg_ms"]) for row in await con.fetch(THIS_HOUR)
        },
        "pg_stat_statements, total": {
            row["query_preview"]: (row["calls"], row["avg_ms"]) for row in await con.fetch(BY_TOTAL)
        },
        "pg_stat_statements, mean": {
            row["query_preview"]: (row["calls"], row["avg_ms"]) for row in await con.fetch(BY_MEAN)
        },
        "pg_stat_statements, calls": {row["query"]: (row["calls"], row["avg_ms"]) for row in await con.fetch(BY_CALLS)},
    }
    await con.close()
    worst, missed = 0.0, 0
    for name, rows in found.items():
        table = []
        for query, measured in times.items():
            calls, average = rows.get(query, (0, 0))
            own = sum(measured) / len(measured)
            off = abs(float(average) / own - 1)
            worst, missed = max(worst, off), missed + abs(calls - len(measured))
            table.append(Row(query[:44], (len(measured), calls, own, float(average), 100 * off)))
        columns = (Column("calls"), Column("reported"), Column("own ms", ".2f"), Column("reported ms", ".2f"))
        report.table(name, (*columns, Column("off %", ".1f")), table)
    report.goal("calls that a report has too many or too few", float(missed), most=0)
    report.goal("the largest difference of a time, %", 100 * worst, most=10)
    report.save()


def main() -> None:
    options = arguments(__doc__ or "", calls=60, quick_calls=12)
    with accounts() as dsn:
        run(measure(dsn, options))


if __name__ == "__main__":
    main()
