"""Waiting: hand-offs a second with 100 and with 10,000 tasks in the queue, and how fair the queue is.

Every task acquires, lets the loop turn once, releases, and queues again; no statement is run, so that only the queue
is seen. Fairness is counted in turns, which no other program on the machine can disturb: how many others were served
while a task waited. Under perfect FIFO that is everybody else once.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar

import _rounds
from _peers import AsyncpgPool, AsyncpgPoolWithoutReset, FifoHandOff, LifoQueue, MagnusDatabase, MagnusPool, Peer
from _report import Column, Report, Row, arguments, environment, run
from _server import accounts

if TYPE_CHECKING:
    import argparse
    from contextlib import AbstractAsyncContextManager

COLUMNS = (
    Column("hand-offs/s"),
    Column("worst"),
    Column("client cpu us", ",.1f"),
    Column("longest wait ms", ",.1f"),
    Column("longest turns", ",.0f"),
    Column("turns / ideal", ",.2f"),
    Column("p50 / ideal", ",.2f"),
)


class WaitingLifoQueue(LifoQueue):
    def lease(self) -> AbstractAsyncContextManager[Any]:
        return _Queued(self.queue)


class _Queued:
    def __init__(self, queue: asyncio.LifoQueue[Any]) -> None:
        self._queue = queue

    async def __aenter__(self) -> None:
        self._con = await self._queue.get()

    async def __aexit__(self, *error: object) -> None:
        self._queue.put_nowait(self._con)


class WaitingFifoHandOff(FifoHandOff):
    def lease(self) -> AbstractAsyncContextManager[Any]:
        return _HandedOff(self)


class _HandedOff:
    def __init__(self, fifo: FifoHandOff) -> None:
        self._fifo = fifo

    async def __aenter__(self) -> None:
        self._con = await self._fifo.acquire()

    async def __aexit__(self, *error: object) -> None:
        self._fifo.release(self._con)


class WaitingAsyncpgPool(AsyncpgPool):
    def lease(self) -> AbstractAsyncContextManager[Any]:
        found: AbstractAsyncContextManager[Any] = self.pool.acquire()
        return found


class WaitingAsyncpgPoolWithoutReset(AsyncpgPoolWithoutReset, WaitingAsyncpgPool):
    pass


class WaitingMagnusPool(MagnusPool, WaitingAsyncpgPool):
    pass


class WaitingMagnusDatabase(MagnusDatabase):
    settings: ClassVar[dict[str, Any]] = {"max_waiting": 20_000}

    def lease(self) -> AbstractAsyncContextManager[Any]:
        found: AbstractAsyncContextManager[Any] = self.database.acquire()
        return found


PEERS: dict[str, type[Any]] = {
    "LIFO": WaitingLifoQueue,
    "FIFO hand-off": WaitingFifoHandOff,
    "asyncpg.Pool": WaitingAsyncpgPool,
    "asyncpg.Pool, reset=noop": WaitingAsyncpgPoolWithoutReset,
    "magnus.Database": WaitingMagnusDatabase,
    "magnus.create_pool": WaitingMagnusPool,
}


@dataclass
class Crowd:
    """
    One peer with so many tasks.
    """

    name: str
    peer: Any
    tasks: int
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    longest_seconds: list[float] = field(default_factory=list)
    longest_turns: list[int] = field(default_factory=list)
    median_turns: list[float] = field(default_factory=list)

    async def measure(self, seconds: float) -> None:
        """
        Take one measurement: at least `seconds`, and at least three turns of the whole queue.
        """
        clock = time.perf_counter
        turns: list[int] = []
        waits: list[float] = []
        asked = [(0.0, 0)] * self.tasks
        served = 0
        is_running = True
        is_counted = False

        async def work(number: int) -> None:
            nonlocal served
            while is_running:
                asked[number] = since, before = clock(), served
                async with self.peer.lease():
                    if is_counted:
                        turns.append(served - before)
                        waits.append(clock() - since)
                    served += 1
                    await asyncio.sleep(0)

        tasks = [asyncio.ensure_future(work(number)) for number in range(self.tasks)]
        try:
            await asyncio.sleep(seconds / 4)
            is_counted, begin, cpu = True, clock(), time.process_time()
            while clock() < begin + seconds or len(turns) < 3 * self.tasks:  # noqa: ASYNC110  # time is what it waits for
                await asyncio.sleep(seconds / 10)
            end, count = clock(), len(turns)
            self.cpu.append((time.process_time() - cpu) / count)
            # Whoever is starved has not been served yet and still waits.
            self.longest_seconds.append(max(*waits, end - min(since for since, _ in asked)))
            self.longest_turns.append(max(*turns, served - min(before for _, before in asked)))
            self.median_turns.append(statistics.median(turns))
            self.rates.append(count / (end - begin))
        finally:
            is_running = False
            await asyncio.gather(*tasks)

    @property
    def unfairness(self) -> float:
        return statistics.median(self.longest_turns) / self.tasks

    def row(self, missing: str | None) -> Row:
        name = f"{self.name}, {self.tasks:,} tasks"
        if missing is not None:
            return Row(name, note=f"not measured: {missing}")
        cells = (
            statistics.median(self.rates),
            min(self.rates),
            1e6 * statistics.median(self.cpu),
            1000 * statistics.median(self.longest_seconds),
            statistics.median(self.longest_turns),
            self.unfairness,
            statistics.median(self.median_turns) / self.tasks,
        )
        raw = {"per_second": self.rates, "longest": self.longest_seconds, "longest_turns": self.longest_turns}
        return Row(name, cells, raw=raw)


async def compare(dsn: str, options: argparse.Namespace) -> None:
    report = Report("bench_waiters", options, await environment(dsn))
    peers: dict[str, Peer] = {name: kind(dsn, options.connections) for name, kind in PEERS.items()}
    crowds = [Crowd(name, peer, tasks) for name, peer in peers.items() for tasks in (options.few, options.many)]
    async with _rounds.opened(list(peers.values())) as absent:
        present = [crowd for crowd in crowds if crowd.peer not in absent]
        order = Random(options.seed)
        for _ in range(options.rounds):
            for crowd in order.sample(present, len(present)):
                gc.collect()
                await crowd.measure(options.seconds)
        title = f"{options.connections} connections, {options.rounds} rounds of at least {options.seconds:g} s"
        report.table(title, COLUMNS, [crowd.row(absent.get(crowd.peer)) for crowd in crowds])
    verdict(report, [crowd for crowd in present if crowd.name == "magnus.Database"])
    report.save()


def verdict(report: Report, ours: list[Crowd]) -> None:
    kept = fairness = None
    if ours:
        few, many = ours
        kept = statistics.median(b / a for a, b in zip(few.rates, many.rates, strict=True))
        fairness = max(few.unfairness, many.unfairness)
    report.goal("magnus.Database, hand-offs of the long queue beside the short one", kept, least=0.7)
    report.goal("magnus.Database, longest wait beside the ideal, in turns", fairness, most=1.5)


def main() -> None:
    options = arguments(
        __doc__ or "",
        rounds=7, quick_rounds=1, seconds=0.3, quick_seconds=0.05, connections=10, few=100, many=10_000, quick_many=500,
    )  # fmt: skip
    with accounts() as dsn:
        run(compare(dsn, options))


if __name__ == "__main__":
    main()
