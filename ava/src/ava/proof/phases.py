"""What is measured of one side, in a process of its own: the first request, a load, an overload, what was slow."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ava.proof.mix import LANES, WEIGHTS, Mix, market
from ava.proof.plain import Plain
from ava.workload.mix import Operation
from magnus import Database, DatabaseConfig, QueryPriority, scope
from magnus.loadtest import Load, Pacer, Target, send

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from ava.workload.requests import Market

_SAMPLED: Final = 0.02  # seconds between two looks at the pool
_WARM_UP: Final = 0.15  # of a load
_FLOOD: Final = 200
_HELD: Final = 0.2  # seconds that one unit of the flood holds its connection
SLOW: Final = 0.15  # seconds that a slow statement takes; the threshold is 0.1
_AT_ONCE: Final = 2000


class Side:
    """
    One side, opened; `kind` is "before" or "after".
    """

    def __init__(self, kind: str, db: Any) -> None:
        self.kind = kind
        self.db = db
        self.market: Market = {}

    def usage(self) -> tuple[int, int, int]:
        if isinstance(self.db, Plain):
            return self.db.usage()
        found = self.db.get_stats()["pool_stats"]
        return found["used"], found["size"], found["max_size"]


@asynccontextmanager
async def opened(kind: str, dsn: str, *, warm: int = 10) -> AsyncIterator[Side]:
    """
    Start a side as its service does: "before" opens nothing until it is asked, "after" is warm.
    """
    if kind == "before":
        plain = Plain(dsn)
        try:
            yield Side(kind, plain)
        finally:
            await plain.close()
    else:
        async with Database(DatabaseConfig(dsn=dsn)) as db:
            await db.warmup_pool(warm)
            yield Side(kind, db)


async def first_request(side: Side) -> dict[str, Any]:
    """
    Send the first request of a process: the positions of an account.
    """
    mix = Mix(side.db, {1: ()})
    began = time.perf_counter()
    import random

    await mix.run(Operation.POSITIONS.value, random.Random(1))  # noqa: S311  # reproducible, not secret
    return {"first_ms": 1000 * (time.perf_counter() - began)}


@dataclass
class _Usage:
    in_use: list[float] = field(default_factory=list)
    open: list[int] = field(default_factory=list)
    of_most: list[float] = field(default_factory=list)

    async def follow(self, side: Side) -> None:
        while True:
            used, size, most = side.usage()
            if size:
                self.in_use.append(used / size)
                self.open.append(size)
                self.of_most.append(used / most)
            await asyncio.sleep(_SAMPLED)

    def as_dict(self) -> dict[str, float]:
        mean = {name: statistics.fmean(getattr(self, name) or [0.0]) for name in ("in_use", "open", "of_most")}
        return {
            "utilisation": mean["in_use"],
            "connections": mean["open"],
            "utilisation_of_max": mean["of_most"],
            "utilisation_peak": max(self.of_most, default=0.0),
        }


async def load(
    side: Side, *, seconds: float, rate: float | None = None, clients: int = 50, think: float = 0.0, seed: int = 1
) -> dict[str, Any]:
    """
    Send AVA's mix, at a rate or from clients that think between an answer and their next request, and say what it took
    by lane, and what the pool did.
    """
    side.market = side.market or await market(side.db)
    mix = Mix(side.db, side.market)
    pacer = None if rate is None else Pacer.constant(rate, seconds)
    wanted = Load("ava", Target(""), seconds, _AT_ONCE if pacer else clients, pacer, seed=seed, think=think)
    usage = _Usage()
    follower = asyncio.create_task(usage.follow(side))
    began = time.monotonic()
    try:
        samples = await send(wanted, mix, WEIGHTS)
    finally:
        follower.cancel()
    found = samples.result(warm_up=_WARM_UP * seconds)
    lanes = {LANES[Operation(row.name)].value: 1000 * row.p99 for row in found.operations if row.name != "sell"}
    return {
        "requests": len(samples.due), "failed": sum(samples.failed.values()), "faults": dict(samples.faults),
        "per_second": found.per_second, "mean_ms": 1000 * found.total.mean, "p50_ms": 1000 * found.total.p50,
        "p99_ms": 1000 * found.total.p99, "p99_by_lane_ms": lanes, "late_p99_ms": 1000 * found.late_p99,
        "operations_ms": {row.name: 1000 * row.mean for row in found.operations},
        "began": began, "answered": [round(at, 4) for at in mix.answered], **usage.as_dict(), "rss_mb": resident(),
    }  # fmt: skip


async def overload(side: Side, *, seconds: float, rate: float, seed: int = 1) -> dict[str, Any]:
    """
    As `load`, while background work asks for more connections than there are, again and again.
    """
    is_over = False

    async def hold() -> None:
        while not is_over:
            try:
                with scope(QueryPriority.BACKGROUND):
                    await side.db.fetchval("select pg_sleep($1)", _HELD)
            except Exception:  # noqa: BLE001  # shed or timed out: it asks again
                await asyncio.sleep(_HELD)

    flood = [asyncio.create_task(hold()) for _ in range(_FLOOD)]
    try:
        return await load(side, seconds=seconds, rate=rate, seed=seed)
    finally:
        is_over = True
        for task in flood:
            task.cancel()
        await asyncio.gather(*flood, return_exceptions=True)


async def slow(side: Side, *, count: int) -> dict[str, Any]:
    """
    Run slow statements, and say how many of them the slow-query log names afterwards.
    """
    mark = f"proof_{time.monotonic_ns()}"
    await asyncio.gather(*(side.db.fetchval(f"select pg_sleep($1) as {mark}", SLOW) for _ in range(count)))
    found = 0
    async with asyncio.timeout(15):
        while side.kind == "after" and found < count:
            found = await side.db.fetchval("select count(*) from slow_query_log where query like $1", f"%{mark}%")
            await asyncio.sleep(0.1)
    if side.kind == "before" and await side.db.fetchval("select to_regclass('slow_query_log') is not null"):
        found = await side.db.fetchval("select count(*) from slow_query_log where query like $1", f"%{mark}%")
    return {"slow": count, "found": found}


def resident() -> float:
    """
    Return this process's memory, MB; 0 where /proc does not tell.
    """
    from pathlib import Path

    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


PHASES: Final[Mapping[str, Any]] = {"first": first_request, "load": load, "overload": overload, "slow": slow}
