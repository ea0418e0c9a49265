"""What the slow-query log costs when every statement is slow: threshold 0 beside the log off, and its memory.

32 workers read one row by primary key over 10 connections. The log has its default rate, so nearly all is over it.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _rounds
from _peers import READ, keys
from _report import Column, Report, Row, arguments, environment, run
from _rounds import Case
from _server import accounts

from magnus.config import DatabaseConfig
from magnus.database import Database

if TYPE_CHECKING:
    import argparse

WORKERS = 32


class Logged:
    """
    A database with its own settings of the log.
    """

    def __init__(self, dsn: str, connections: int, **changes: Any) -> None:
        self._db = Database(DatabaseConfig(dsn=dsn, min_pool_size=connections, max_pool_size=connections, **changes))
        self._key = keys()
        self._count = itertools.count()

    async def setup(self) -> None:
        await self._db.connect()

    async def teardown(self) -> None:
        await self._db.close()

    async def read(self, _: int) -> object:
        return await self._db.fetchrow(READ, self._key())

    async def read_literal(self, _: int) -> object:
        """
        A text of its own for every statement: nothing can be looked up, and everything is parsed.
        """
        return await self._db.fetchval(f"select {next(self._count)}")

    @property
    def figures(self) -> dict[str, Any]:
        found: dict[str, Any] = self._db.get_stats().get("slow_log", {})
        return found


def resident() -> float:
    """
    Return this process's resident memory in megabytes.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


async def throughput(dsn: str, options: argparse.Namespace, report: Report) -> None:
    off = Logged(dsn, options.connections, slow_log="off")
    default = Logged(dsn, options.connections)
    logged = Logged(dsn, options.connections, slow_query_threshold=0.0)
    async with _rounds.opened([off, default, logged]) as absent:
        cases = [
            Case("off", off, off.read, WORKERS),
            Case("off again (A/A)", off, off.read, WORKERS),
            Case("on, nothing is slow", default, default.read, WORKERS),
            Case("threshold 0", logged, logged.read, WORKERS),
        ]
        await _rounds.measure(cases, rounds=options.rounds, seconds=options.seconds, seed=options.seed, absent=absent)
        base = cases[0]
        report.table("one row by primary key", _rounds.columns([base]), _rounds.rows(cases, [base], absent))
        figures = logged.figures
    report.note(f"threshold 0: {figures}")
    report.goal("threshold 0 beside the log off", _rounds.ratio(cases[3], base), least=0.85)
    report.goal("the log on, nothing slow, beside the log off", _rounds.ratio(cases[2], base), least=0.95)
    report.goal("rows lost below the rate", float(figures["dropped"]), most=0)


async def memory(dsn: str, options: argparse.Namespace, report: Report) -> None:
    subject = Logged(dsn, options.connections, slow_query_threshold=0.0)
    await subject.setup()
    rows: list[Row] = []
    try:
        done = 0
        for share in (0.1, 0.25, 0.5, 0.75, 1.0):
            wanted = int(options.statements * share)
            while done < wanted:
                await asyncio.gather(*(subject.read(0) for _ in range(WORKERS)), subject.read_literal(0))
                done += WORKERS + 1
            gc.collect()
            figures = subject.figures
            rows.append(Row(f"after {done:,} statements", (resident(), figures["written"], figures["capped"])))
    finally:
        await subject.teardown()
    report.table("memory, threshold 0", [Column("MB"), Column("written"), Column("capped", ",d")], rows)
    grown = float(rows[-1].cells[0]) - float(rows[0].cells[0])  # type: ignore[arg-type]
    report.goal("megabytes more at the end than after a tenth", grown, most=5)


async def measure(dsn: str, options: argparse.Namespace) -> None:
    report = Report("bench_slow_log", options, await environment(dsn))
    await throughput(dsn, options, report)
    await memory(dsn, options, report)
    report.save()


def main() -> None:
    options = arguments(
        __doc__ or "", rounds=25, quick_rounds=2, seconds=0.3, quick_seconds=0.05, connections=10,
        statements=1_000_000, quick_statements=2_000,
    )  # fmt: skip
    with accounts() as dsn:
        run(measure(dsn, options))


if __name__ == "__main__":
    main()
