"""What an outage of the database costs with the slow-query log on, beside the same with it off, at the same time.

Two databases in one process, 8 workers each, a request every 20 ms a worker, each with a second's time. The server is
stopped for 30 s and started again. In the log's database every statement counts as slow; while the server is away no
statement can be slow on it, so 500 a second are made up, which is more than its queue holds. Every statement that the
log was told of must be written, capped or dropped in the end: nothing is lost without being counted.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from _peers import READ, keys
from _report import Column, Report, Row, arguments, environment, quantile, run
from _server import _fill

from magnus.config import DatabaseConfig
from magnus.database import Database
from magnus.embedded import Binaries, throwaway

if TYPE_CHECKING:
    import argparse

WORKERS = 8
EVERY = 0.02
QUEUE = 2_000
FED = 500  # a second
RETURN = 3.0  # each pool finds the server by its own attempts, which half a minute has put two seconds apart


@dataclass
class Client:
    """
    A service on one database: who was served when, and after how long.
    """

    name: str
    db: Database
    served: list[tuple[float, float]] = field(default_factory=list)
    failed: list[tuple[float, float]] = field(default_factory=list)

    async def work(self, until: asyncio.Event) -> None:
        key = keys()
        while not until.is_set():
            began = time.monotonic()
            try:
                await self.db.fetchrow(READ, key(), timeout=1.0)
            except Exception:
                self.failed.append((began, time.monotonic() - began))
            else:
                self.served.append((began, time.monotonic() - began))
            await asyncio.sleep(max(0.0, began + EVERY - time.monotonic()))

    def within(self, begin: float, end: float) -> tuple[int, int, float, float]:
        """
        Served, failed, the p99 and the longest of either, milliseconds, of what began between two moments.
        """
        served = [took for at, took in self.served if begin <= at < end]
        failed = [took for at, took in self.failed if begin <= at < end]
        times = [1000 * took for took in served + failed] or [0.0]
        return len(served), len(failed), quantile(times, 0.99), max(times)


async def feed(db: Database, until: asyncio.Event) -> int:
    """
    Tell the log of statements that were slow, `FED` a second; return how many.
    """
    count = 0
    while not until.is_set():
        for _ in range(FED // 50):
            db._slow_log.saw("SELECT 1 AS made_up", 1.0, "fetch", [], "normal", 0.0, 1, (), None)  # type: ignore[union-attr]  # noqa: SLF001
            count += 1
        await asyncio.sleep(0.02)
    return count


async def measure(options: argparse.Namespace) -> None:
    async with throwaway(Binaries.bundled(), max_connections=100) as cluster:
        dsn = cluster.dsn()
        await _fill(dsn)
        report = Report("bench_outage", options, await environment(dsn))
        settings: dict[str, Any] = {"dsn": dsn, "min_pool_size": 4, "max_pool_size": 8, "connect_timeout": 1.0}
        on = DatabaseConfig(**settings, slow_query_threshold=0.0, slow_log_rate=0.0, slow_log_queue=QUEUE)
        async with Database(DatabaseConfig(**settings, slow_log="off")) as without, Database(on) as logged:
            clients = [Client("log off", without), Client("log on, threshold 0", logged)]
            over, is_back = asyncio.Event(), asyncio.Event()
            tasks = [asyncio.create_task(each.work(over)) for each in clients for _ in range(WORKERS)]
            began = time.monotonic()
            await asyncio.sleep(options.calm)
            stopped = time.monotonic()
            await cluster.stop()
            feeding = asyncio.create_task(feed(logged, is_back))
            await asyncio.sleep(options.outage)
            is_back.set()
            fed = await feeding
            await cluster.start()
            started = time.monotonic()
            dropped = logged.get_stats()["slow_log"]["dropped"]
            written = logged.get_stats()["slow_log"]["written"]
            await asyncio.sleep(RETURN + options.calm)
            over.set()
            await asyncio.gather(*tasks)
            ended = time.monotonic()
        figures = logged.get_stats()["slow_log"]
        told = logged.get_stats()["query_stats"]["slow_queries"] + fed

        columns = [Column("served", ",d"), Column("failed", ",d"), Column("p99 ms"), Column("longest ms")]
        settled = started + RETURN
        phases = (
            ("before", began, stopped), ("outage", stopped, started), ("return", started, settled),
            ("after", settled, ended),
        )  # fmt: skip
        rows = [
            Row(f"{phase}: {each.name}", each.within(begin, end)) for phase, begin, end in phases for each in clients
        ]
        report.table(f"{options.outage} s without a server", columns, rows)
        firsts = [min((at for at, _ in each.served if at >= started), default=ended) - started for each in clients]
        report.note(f"first served after the restart: {firsts[0]:.2f} s without the log, {firsts[1]:.2f} s with it")
        report.note(
            f"told of {told:,}: {figures['written']:,} written, {figures['capped']:,} capped, {figures['dropped']:,} "
            f"dropped ({dropped:,} during the outage, {fed:,} were made up)"
        )
        served = [each.within(began, stopped)[0] + each.within(settled, ended)[0] for each in clients]
        report.goal("served before and after, with the log beside without", served[1] / served[0], least=0.95)
        lost = told - sum(figures[name] for name in ("written", "capped", "dropped"))
        report.goal("statements that nothing was said of", lost, most=0)
        report.goal("rows written after the restart", figures["written"] - written, least=1)
        report.goal("rows dropped and counted", figures["dropped"], least=1 if fed > QUEUE else 0)
        report.save()


def main() -> None:
    options = arguments(__doc__ or "", calm=5.0, quick_calm=1.0, outage=30.0, quick_outage=2.0)
    run(measure(options))


if __name__ == "__main__":
    main()
