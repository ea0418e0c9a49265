"""Storms: tens of thousands of random acquires, queries, cancels and kills; every slot is accounted for at each step."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import random
import time
from collections import Counter

import asyncpg
import pytest

from magnus.config import DatabaseConfig
from magnus.errors import Overloaded, PoolError, PoolTimeout
from magnus.lanes import LANES
from magnus.pool import Pool
from tests.simloop import SimLoop, Stuck, simulate
from tests.unit.pool.fake_driver import FakeDriver

SIZE = 6
CALLERS = 40


class LoopClock:
    def __init__(self, loop) -> None:
        self.now = loop.time
        self.sleep = asyncio.sleep


def is_conserved(pool: Pool) -> bool:
    """
    Every slot is in exactly one state, none is above the size, and lanes hold what is acquired.
    """
    found = pool.snapshot()
    parts = found.idle + found.acquired + found.connecting + found.closing
    return parts == found.size <= found.max and sum(lane.acquired for lane in found.lanes) == found.acquired


class Storm:
    """
    `steps` random operations of many callers on one pool; `story` is everything that happened, in order.
    """

    def __init__(self, pool: Pool, chance: random.Random, steps: int, now) -> None:
        self.pool = pool
        self.chance = chance
        self.left = steps
        self.now = now
        self.story = hashlib.sha256()
        self.seen: Counter[str] = Counter()
        self.callers: list[asyncio.Task[None]] = []

    def tell(self, what: str) -> None:
        """
        One operation is over: write it down, and look whether all slots are accounted for.
        """
        self.left -= 1
        self.seen[what] += 1
        found = self.pool.snapshot()
        self.story.update(f"{what} {self.now():.6f} {found.idle} {found.acquired} {found.connecting};".encode())
        assert is_conserved(self.pool), found

    async def caller(self) -> None:
        while self.left > 0:
            lane = self.chance.choice(LANES)
            patience = self.chance.choice([None, 0.0, 0.001, 0.01, 0.1, 1.0])
            try:
                lease = await self.pool.acquire(
                    lane, None if patience is None else self.now() + patience, is_named=self.chance.random() < 0.5
                )
            except (PoolTimeout, Overloaded) as error:
                self.tell(type(error).__name__)
                await self.pause()
                continue
            self.tell("acquire")
            await self.use(lease)

    async def use(self, lease) -> None:
        """
        Query, perhaps leave a mess, and give the connection back, whatever happens on the way.
        """
        try:
            for _ in range(self.chance.randrange(3)):
                await self.query(lease)
            lease.needs_reset = self.chance.random() < 0.5
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            self.tell(type(error).__name__)
        finally:
            give_back = self.pool.discard if self.chance.random() < 0.1 else self.pool.release
            await give_back(lease)
            self.tell("release")

    async def query(self, lease) -> None:
        await lease.con.execute("SELECT pg_sleep(0.0005)" if self.chance.random() < 0.3 else "SELECT 1")
        self.tell("query")

    async def pause(self) -> None:
        await asyncio.sleep(self.chance.choice([0.0, 0.001, 0.05]))

    async def run(self, disturb) -> None:
        """
        Let callers go on, cancel and replace them, and `disturb`, until all steps are done. Nobody may hang.
        """
        self.callers = [asyncio.create_task(self.caller()) for _ in range(CALLERS)]
        async with asyncio.timeout(300):
            while self.left > 0:
                await self.pause()
                for _ in range(self.chance.randrange(4)):
                    await self.cancel_one()
                await disturb()
            for task in self.callers:
                await self.end(task)
        found = self.pool.snapshot()
        assert (found.acquired, found.waiting) == (0, 0), found

    async def cancel_one(self) -> None:
        index = self.chance.randrange(CALLERS)
        task = self.callers[index]
        task.cancel()
        if self.chance.random() < 0.5:  # else its cancel and its successor run into each other
            await self.end(task)
        else:
            self.callers.append(task)
        self.callers[index] = asyncio.create_task(self.caller())
        self.callers[CALLERS:] = [late for late in self.callers[CALLERS:] if not late.done() or late.exception_or_none()]
        self.tell("cancel")

    async def end(self, task) -> None:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled() and task.exception() is not None:
            raise task.exception()
