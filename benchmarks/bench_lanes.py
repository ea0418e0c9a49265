"""Does CRITICAL wait? Its latency in calm, under 200 BACKGROUND tasks that sleep on the server, and that burn its CPU.

CRITICAL requests come at a fixed rate, whether or not the ones before were answered, so that a stall is seen by every
request that falls into it. A last phase keeps CRITICAL's own queue full, to see that BACKGROUND still gets its share.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import _rounds
from _peers import READ, AsyncpgPool, MagnusDatabase, Peer
from _report import Column, Report, Row, arguments, environment, quantile, run
from _server import accounts

from magnus.lanes import QueryPriority

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Sequence

SLEEP = "select pg_sleep(0.2)"
NAP = 0.2
BURN = "select sum(n) from generate_series(1, 400000) as n"
LIMIT = 5.0
FLOODS = {"calm": None, "flood of pg_sleep(0.2)": SLEEP, "flood that burns CPU": BURN}
LATE = 0.002
RELIEF = 1 / 16
BACKGROUND_SHARE = 1 / 15

COLUMNS = (
    Column("CRITICAL p50 ms", ",.2f"),
    Column("p99 ms", ",.2f"),
    Column("worst ms", ",.1f"),
    Column("served %", ".2f"),
    Column("BACKGROUND/s", ",.1f"),
)


class LanesAsyncpgPool(AsyncpgPool):
    async def critical(self) -> object:
        return await self.pool.fetchrow(READ, self.key())

    async def background(self, sql: str) -> object:
        return await self.pool.execute(sql)


class LanesMagnusDatabase(MagnusDatabase):
    async def critical(self) -> object:
        return await self.database.fetchrow(READ, self.key(), priority=QueryPriority.CRITICAL)

    async def background(self, sql: str) -> object:
        return await self.database.execute(sql, priority=QueryPriority.BACKGROUND)

    def background_cap(self) -> int:
        return int(self.database.get_stats()["pool_stats"]["lanes"]["background"]["cap"])


@dataclass
class Phase:
    """
    What was measured of one pool under one flood, all rounds together.
    """

    latencies: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    asked: int = 0
    background: list[float] = field(default_factory=list)

    def add(self, answers: Sequence[float | None], per_second: float) -> None:
        served = [answer for answer in answers if answer is not None]
        self.asked += len(answers)
        self.latencies += served
        self.background.append(per_second)
        # An answer that never came is as late as can be; it must not flatter the quantiles.
        padded = [answer if answer is not None else LIMIT for answer in answers]
        self.p50.append(quantile(padded, 0.5))
        self.p99.append(quantile(padded, 0.99))

    @property
    def served(self) -> float:
        return 100 * len(self.latencies) / self.asked

    def row(self, name: str) -> Row:
        cells = (
            1000 * statistics.median(self.p50),
            1000 * statistics.median(self.p99),
            1000 * max(self.latencies, default=LIMIT),
            self.served,
            statistics.median(self.background),
        )
        raw = {"p50": self.p50, "p99": self.p99, "background_per_second": self.background}
        return Row(name, cells, raw=raw)


@contextlib.asynccontextmanager
async def flooded(peer: Any, sql: str | None, tasks: int) -> AsyncIterator[list[int]]:
    """
    Keep `tasks` BACKGROUND tasks busy as long as the block lasts; yields the growing list of what they completed.
    """
    done = [0]

    async def work() -> None:
        while True:
            await peer.background(sql)
            done[0] += 1

    crowd = [asyncio.ensure_future(work()) for _ in range(tasks if sql else 0)]
    try:
        if crowd:
            await asyncio.sleep(2 * NAP)
        yield done
    finally:
        for task in crowd:
            task.cancel()
        for outcome in await asyncio.gather(*crowd, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
        if crowd:
            await asyncio.sleep(NAP)  # the server is told to stop what was cancelled; calm comes after that


async def ask(peer: Any, scheduled: float) -> float | None:
    """
    Return how long one CRITICAL request took; None when it was not served.

    The loop's timers have a grain of a millisecond, so a start that is a little late is no delay of the pool's; a
    start that is later than that is a stall of the whole process, and counts.
    """
    now = time.perf_counter()
    begin = now if now - scheduled < LATE else scheduled
    try:
        async with asyncio.timeout(LIMIT):
            await peer.critical()
    except Exception:
        return None
    return time.perf_counter() - begin


async def probe(peer: Any, rate: float, seconds: float) -> list[float | None]:
    """
    Send CRITICAL requests at `rate` for `seconds`, then wait for the last answer.
    """
    begin = time.perf_counter()
    asked: list[asyncio.Task[float | None]] = []
    for number in range(round(rate * seconds)):
        scheduled = begin + number / rate
        await asyncio.sleep(max(0.0, scheduled - time.perf_counter()))
        asked.append(asyncio.ensure_future(ask(peer, scheduled)))
    return list(await asyncio.gather(*asked))


async def observe(peer: Any, sql: str | None, options: argparse.Namespace, phase: Phase) -> None:
    async with flooded(peer, sql, options.flood) as done:
        before, begin = done[0], time.perf_counter()
        answers = await probe(peer, options.rate, options.seconds)
        phase.add(answers, (done[0] - before) / (time.perf_counter() - begin))


async def saturate(peer: Any, options: argparse.Namespace) -> tuple[float, float]:
    """
    Keep CRITICAL's queue full; return CRITICAL's and BACKGROUND's completions a second.
    """
    async with flooded(peer, SLEEP, options.flood) as done:
        count = 0
        begin = time.perf_counter()
        end = begin + max(options.seconds, 5 * NAP)

        async def work() -> None:
            nonlocal count
            while time.perf_counter() < end:
                await peer.critical()
                count += 1

        before = done[0]
        await asyncio.gather(*(work() for _ in range(4 * options.connections)))
        elapsed = time.perf_counter() - begin
        return count / elapsed, (done[0] - before) / elapsed


async def compare(dsn: str, options: argparse.Namespace) -> None:
    report = Report("bench_lanes", options, await environment(dsn))
    kinds: dict[str, type[Peer]] = {"magnus.Database": LanesMagnusDatabase, "asyncpg.Pool": LanesAsyncpgPool}
    peers = {name: kind(dsn, options.connections) for name, kind in kinds.items()}
    phases = {(name, flood): Phase() for name in peers for flood in FLOODS}
    async with _rounds.opened(list(peers.values())) as absent:
        cases = [(name, flood) for name, flood in phases if peers[name] not in absent]
        order = random.Random(options.seed)
        for _ in range(options.rounds):
            for name, flood in order.sample(cases, len(cases)):
                await observe(peers[name], FLOODS[flood], options, phases[name, flood])
        rows = [
            phase.row(f"{name}, {flood}")
            if phase.asked
            else Row(f"{name}, {flood}", note=f"not measured: {absent[peers[name]]}")
            for (name, flood), phase in phases.items()
        ]
        title = (
            f"{options.rate:g} CRITICAL requests a second beside {options.flood} BACKGROUND tasks, "
            f"{options.connections} connections, {options.rounds} rounds of {options.seconds:g} s"
        )
        report.table(title, COLUMNS, rows)
        ours = peers["magnus.Database"]
        mine = {flood: phases["magnus.Database", flood] for flood in FLOODS}
        verdict(report, mine if ours not in absent else None)
        await show_floor(report, ours if ours not in absent else None, mine, options)
    report.save()


def verdict(report: Report, ours: dict[str, Phase] | None) -> None:
    """
    In the sleeping flood a millisecond more is as good as twice: the goal is whichever of both is larger.
    """
    for flood, times, slack in (("flood of pg_sleep(0.2)", 2.0, 0.001), ("flood that burns CPU", 3.0, 0.0)):
        for what in ("p50", "p99"):
            measured = most = None
            if ours is not None:
                calm = statistics.median(getattr(ours["calm"], what))
                measured = 1000 * statistics.median(getattr(ours[flood], what))
                most = 1000 * max(times * calm, calm + slack)
            report.goal(f"CRITICAL {what} in the {flood}, ms", measured, most=most or times)
        report.goal(f"CRITICAL served in the {flood}, %", None if ours is None else ours[flood].served, least=100.0)


async def show_floor(report: Report, peer: Any, ours: dict[str, Phase], options: argparse.Namespace) -> None:
    """
    BACKGROUND's floor: while CRITICAL is not saturated its slots are always busy, else its share of the hand-offs.
    """
    if peer is None:
        report.goal("BACKGROUND beside its floor", None, least=0.9)
        return
    full = peer.background_cap() / NAP
    paced = statistics.median(ours["flood of pg_sleep(0.2)"].background)
    report.note(f"BACKGROUND may hold {peer.background_cap()} of {options.connections} connections: {full:.0f}/s")
    report.goal("BACKGROUND in the flood of pg_sleep(0.2) beside what its slots can do", paced / full, least=0.9)
    critical, background = await saturate(peer, options)
    floor = min(full, critical * RELIEF * BACKGROUND_SHARE)
    report.note(
        f"CRITICAL saturated: CRITICAL {critical:,.0f}/s, BACKGROUND {background:.1f}/s, its floor {floor:.1f}/s"
    )
    report.goal("BACKGROUND beside its floor while CRITICAL is saturated", background / floor, least=0.9)


def main() -> None:
    options = arguments(
        __doc__ or "",
        rounds=5, quick_rounds=1, seconds=2.0, quick_seconds=0.3, rate=100.0, flood=200, quick_flood=30, connections=10,
    )  # fmt: skip
    with accounts() as dsn:
        run(compare(dsn, options))


if __name__ == "__main__":
    main()
