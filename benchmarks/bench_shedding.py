"""What shedding costs and gains: a burst, clients that ask again and again, and twice what the lane can serve.

The first rows are a model: the pool's own lanes in virtual time. The others are a real server and a real pool.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from _report import Column, Report, Row, arguments, environment, run
from _server import accounts

from magnus import Database, DatabaseConfig, LaneSettings, Overloaded, QueryPriority
from magnus.pool import lane_table
from magnus.pool._lanes import Lanes, Waiter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

MODES: Final[Mapping[str, dict[str, Any]]] = {"off": {"shedding": False}, "on": {}, "wait_target": {"is_eager": True}}
COLUMNS: Final = [
    Column("asked"),
    Column("in time"),
    Column("refused"),
    Column("too late"),
    Column("wait p50 s", ".2f"),
]
SLOTS: Final = 10
SERVICE: Final = 0.01
LIMIT: Final = 30.0
RANK: Final = 2


@dataclass
class Outcome:
    """
    What became of everybody who asked.
    """

    in_time: int = 0
    refused: int = 0
    late: int = 0
    waits: list[float] = field(default_factory=list)

    def row(self, name: str) -> Row:
        wait = statistics.median(self.waits) if self.waits else None
        asked = self.in_time + self.refused + self.late
        return Row(name, (asked, self.in_time, self.refused, self.late, wait))


def config(mode: str, limit: float, dsn: str = "postgresql://u@/d", **changes: Any) -> DatabaseConfig:
    """
    As a service would configure it: shedding off, on (the default), or with a target of the lane's own.
    """
    options = dict(MODES[mode])
    if options.pop("is_eager", False):
        options["lanes"] = {QueryPriority.NORMAL: LaneSettings(wait_target=limit / 100)}
    return DatabaseConfig(dsn=dsn, command_timeout=limit, max_pool_size=SLOTS, min_pool_size=0, **options, **changes)


# --- the model


class Signal:
    """
    Nobody waits on it here.
    """

    def done(self) -> bool:
        return False

    def set_result(self, _result: None, /) -> None: ...


class Model:
    """
    One lane in virtual time: arrivals in, an `Outcome` out.
    """

    def __init__(self, mode: str, seed: int, again_until: float = 0.0) -> None:
        found = config(mode, LIMIT)
        self._lanes = Lanes(lane_table(SLOTS, settings=found.lanes, wait_targets=found.wait_targets()))
        self._lanes.set_caps([SLOTS] * 5)
        self._again_until = again_until
        self._chance = random.Random(seed)
        self._events: list[tuple[float, int, Waiter | None]] = []
        self._free = SLOTS
        self._count = 0
        self.outcome = Outcome()

    def run(self, arrivals: Iterable[float]) -> Outcome:
        for arrival in arrivals:
            self._at(arrival, None)
        while self._events:
            now, _, waiter = heapq.heappop(self._events)
            if waiter is None:
                self._lanes.join(asked := Waiter(RANK, now, now + LIMIT, Signal()))
                asked.may_be_shed = True
            else:
                self._end(waiter, now)
            self._serve(now)
        return self.outcome

    def _at(self, when: float, waiter: Waiter | None) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, waiter))

    def _ask_again(self, now: float) -> None:
        if now < self._again_until:
            self._at(now + 0.001, None)

    def _end(self, waiter: Waiter, now: float) -> None:
        self._free += 1
        self._lanes.leave(RANK)
        if now <= waiter.since + LIMIT:
            self.outcome.in_time += 1
        else:
            self.outcome.late += 1
        self._ask_again(now)

    def _serve(self, now: float) -> None:
        while self._free:
            dropped: list[Waiter] = []
            found = self._lanes.next(now, dropped)
            for each in dropped:
                if each.is_shed:
                    self.outcome.refused += 1
                else:
                    self.outcome.late += 1
                self._ask_again(now)
            if found is None:
                return
            self._free -= 1
            self.outcome.waits.append(now - found.since)
            service = self._chance.expovariate(1 / SERVICE)
            self._lanes.codels[RANK].took(service)
            self._at(now + service, found)


def open_load(share: float, seconds: float, seed: int) -> list[float]:
    """
    Random arrivals of `share` times what the slots can serve.
    """
    chance, now, found = random.Random(seed), 0.0, []
    while now < seconds:
        now += chance.expovariate(share * SLOTS / SERVICE)
        found.append(now)
    return found


def modelled(options: Any) -> dict[tuple[str, str], Outcome]:
    scale = options.scale
    loads: dict[str, tuple[Callable[[], Iterable[float]], float]] = {
        "10,000 at once": (lambda: [0.0] * int(10_000 * scale), 0.0),
        "2,000 clients in a loop": (lambda: [0.0] * int(2000 * scale), 60.0 * scale),
        "0.95 x for 60 s": (lambda: open_load(0.95, 60.0 * scale, options.seed), 0.0),
        "2 x for 120 s": (lambda: open_load(2.0, 120.0 * scale, options.seed), 0.0),
    }
    return {
        (name, mode): Model(mode, options.seed, again_until).run(arrivals())
        for name, (arrivals, again_until) in loads.items()
        for mode in MODES
    }


# --- a real pool


async def ask(db: Database, seconds: float, outcome: Outcome) -> None:
    begin = time.perf_counter()
    try:
        await db.fetchval("SELECT pg_sleep($1)", seconds, priority=QueryPriority.NORMAL)
    except Overloaded:
        outcome.refused += 1
    except TimeoutError:
        outcome.late += 1
    else:
        outcome.in_time += 1
        outcome.waits.append(time.perf_counter() - begin - seconds)


async def burst(db: Database, number: int, outcome: Outcome) -> None:
    await asyncio.gather(*(ask(db, 0.002, outcome) for _ in range(number)))


async def twice(db: Database, rate: float, seconds: float, outcome: Outcome) -> None:
    """
    Ask twice as often as was measured that the lane can serve, whatever becomes of it.
    """
    tasks, begin = set(), time.perf_counter()
    while (now := time.perf_counter() - begin) < seconds:
        while len(tasks) < 2 * rate * now:
            tasks.add(asyncio.create_task(ask(db, 0.02, outcome)))
        await asyncio.sleep(0.005)
    await asyncio.gather(*tasks)


async def capacity(db: Database, seconds: float) -> float:
    outcome, begin = Outcome(), time.perf_counter()

    async def work() -> None:
        while time.perf_counter() < begin + seconds:
            await ask(db, 0.02, outcome)

    await asyncio.gather(*(work() for _ in range(2 * SLOTS)))
    return outcome.in_time / (time.perf_counter() - begin)


async def measured(dsn: str, options: Any) -> dict[tuple[str, str], Outcome]:
    found = {}
    for mode in MODES:
        outcome = found["burst, limit 30 s", mode] = Outcome()
        async with Database(config(mode, LIMIT, dsn, max_waiting=100_000)) as db:
            await db.warmup_pool(SLOTS)
            await burst(db, options.burst, outcome)
    async with Database(config("off", 3.0, dsn)) as db:
        await db.warmup_pool(SLOTS)
        rate = await capacity(db, options.seconds / 10)
    for mode in MODES:
        outcome = found["2 x capacity, limit 3 s", mode] = Outcome()
        async with Database(config(mode, 3.0, dsn)) as db:
            await db.warmup_pool(SLOTS)
            await twice(db, rate, options.seconds, outcome)
    return found


async def bench(dsn: str, options: Any) -> None:
    report = Report("shedding", options, await environment(dsn))
    model = modelled(options)
    found = {**model, **await measured(dsn, options)}
    title = f"in a model (limit {LIMIT:g} s, {SLOTS} slots of {SERVICE * 1000:g} ms), then on a real server"
    report.table(title, COLUMNS, [outcome.row(f"{load}: {mode}") for (load, mode), outcome in found.items()])
    for load in dict.fromkeys(load for load, _ in found):
        share = found[load, "on"].in_time / max(1, found[load, "off"].in_time)
        report.goal(f"{load}: served in time, on / off", share, least=0.99)
    served = (outcome.refused for (load, mode), outcome in model.items() if mode == "on" and "2 x" not in load)
    report.goal("refused where all can be served", sum(served), most=0)
    report.save()


if __name__ == "__main__":
    chosen = arguments(
        "What shedding costs and gains.",
        scale=1.0, quick_scale=0.05, burst=10_000, quick_burst=300, seconds=20.0, quick_seconds=1.0,
    )  # fmt: skip
    with accounts() as server:
        run(bench(server, chosen))
