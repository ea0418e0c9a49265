"""The first requests of a service: right after warm-up, beside the same process's steady state, and cold pools.

Every start is a fresh interpreter. 10 tasks send 100 requests the moment the pool says that it is ready; later the
same 10 tasks send 100 more, and those are the steady state that the first ones are compared with, start by start.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg
from _peers import READ, keys
from _report import Column, Report, Row, arguments, environment, quantile, run
from _server import accounts

from magnus.config import DatabaseConfig
from magnus.database import Database

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable

REQUESTS = 100
TASKS = 10
SETTLE = 2_000
CHILD = "--one-start"

COLUMNS = (
    Column("first p50 ms", ".2f"),
    Column("first p99 ms", ".2f"),
    Column("steady p50", ".2f"),
    Column("steady p99", ".2f"),
    Column("p50 ratio", ".2f"),
    Column("p99 ratio", ".2f"),
    Column("ready after ms", ",.0f"),
)


async def magnus_warm(dsn: str, prepare: tuple[str, ...] = ()) -> Any:
    database = await magnus_cold(dsn, least=TASKS, prepare=prepare)
    await database.warmup_pool(TASKS)
    return database


async def magnus_hot(dsn: str) -> Any:
    return await magnus_warm(dsn, (READ,))


async def magnus_cold(dsn: str, least: int = 1, prepare: tuple[str, ...] = ()) -> Any:
    database = Database(DatabaseConfig(dsn=dsn, min_pool_size=least, max_pool_size=2 * TASKS, prepare=prepare))
    await database.connect()
    return database


async def asyncpg_filled(dsn: str) -> Any:
    return await asyncpg.create_pool(dsn, min_size=TASKS, max_size=2 * TASKS)


async def asyncpg_cold(dsn: str) -> Any:
    return await asyncpg.create_pool(dsn, min_size=0, max_size=2 * TASKS)


STARTS: dict[str, Callable[[str], Awaitable[Any]]] = {
    "magnus.Database, warmed": magnus_warm,
    "magnus.Database, warmed, prepared": magnus_hot,
    "magnus.Database, cold": magnus_cold,
    "asyncpg.Pool, filled": asyncpg_filled,
    "asyncpg.Pool, cold": asyncpg_cold,
}


async def send(pool: Any, count: int) -> list[float]:
    """
    Return the times of `count` requests, sent by `TASKS` tasks.
    """
    key, clock = keys(), time.perf_counter
    found: list[float] = []

    async def work() -> None:
        for _ in range(count // TASKS):
            begin = clock()
            await pool.fetchrow(READ, key())
            found.append(clock() - begin)

    await asyncio.gather(*(work() for _ in range(TASKS)))
    return found


async def one_start(name: str, dsn: str) -> dict[str, Any]:
    begin = time.perf_counter()
    pool = await STARTS[name](dsn)
    ready = time.perf_counter() - begin
    first = await send(pool, REQUESTS)
    await send(pool, SETTLE)
    steady = [await send(pool, REQUESTS) for _ in range(5)]
    await pool.close()
    return {
        "ready": ready,
        "first": [quantile(first, 0.5), quantile(first, 0.99)],
        # One batch's p99 is its second slowest request: the median of five batches is what it usually is.
        "steady": [statistics.median(quantile(batch, share) for batch in steady) for share in (0.5, 0.99)],
    }


@dataclass
class Start:
    """
    All starts of one kind; the pairs are p50 and p99.
    """

    name: str
    first: list[list[float]] = field(default_factory=list)
    steady: list[list[float]] = field(default_factory=list)
    ready: list[float] = field(default_factory=list)

    def run(self, dsn: str) -> None:
        command = [sys.executable, __file__, CHILD, self.name, dsn]
        answer = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        self.first.append(answer["first"])
        self.steady.append(answer["steady"])
        self.ready.append(answer["ready"])

    def middle(self, which: int, values: list[list[float]]) -> float:
        return statistics.median(pair[which] for pair in values)

    def ratio(self, which: int) -> float:
        return statistics.median(a[which] / b[which] for a, b in zip(self.first, self.steady, strict=True))

    def row(self) -> Row:
        times = [self.middle(which, values) for values in (self.first, self.steady) for which in (0, 1)]
        cells = (
            *(1000 * value for value in times), self.ratio(0), self.ratio(1), 1000 * statistics.median(self.ready),
        )  # fmt: skip
        return Row(self.name, cells, raw={"first": self.first, "steady": self.steady, "ready": self.ready})


def compare(dsn: str, options: argparse.Namespace) -> None:
    report = Report("bench_warm", options, run(environment(dsn)))
    starts = [Start(name) for name in STARTS]
    order = random.Random(options.seed)
    for _ in range(options.starts):
        for start in order.sample(starts, len(starts)):
            start.run(dsn)
    title = f"First {REQUESTS} requests by {TASKS} tasks, {options.starts} starts, medians over the starts"
    report.table(title, COLUMNS, [start.row() for start in starts])
    for start in starts[:2]:
        report.goal(f"{start.name}, first p50 beside steady p50", start.ratio(0), most=1.2)
        report.goal(f"{start.name}, first p99 beside steady p99", start.ratio(1), most=2.0)
    report.save()


def main() -> None:
    if sys.argv[1:2] == [CHILD]:
        print(json.dumps(run(one_start(*sys.argv[2:4]))))
        return
    options = arguments(__doc__ or "", starts=20, quick_starts=1)
    with accounts() as dsn:
        compare(dsn, options)


if __name__ == "__main__":
    main()
