"""Storms: tens of thousands of random acquires, queries, cancels and kills; every slot accounted for at each step."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import random
import time
from collections import Counter

import asyncpg
import pytest

from magnus._effects import NO_RESET
from magnus.config import DatabaseConfig
from magnus.errors import Overloaded, PoolTimeout
from magnus.lanes import LANES
from magnus.pool import Pool
from magnus.testing import SimLoop, Stuck, simulate
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
        self.all: list[asyncio.Task[None]] = []

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
            if self.chance.random() < 0.5:
                lease.reset = NO_RESET
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            self.tell(type(error).__name__)
        except asyncpg.InternalClientError as error:  # the driver lost track, as it does when a backend is killed
            lease.con.terminate()
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
        async with asyncio.timeout(600):
            self.callers = [self.start() for _ in range(CALLERS)]
            while self.left > 0:
                await self.pause()
                for _ in range(self.chance.randrange(4)):
                    await self.cancel_one()
                await disturb()
            for task in self.all:
                task.cancel()
            ended = await asyncio.gather(*self.all, return_exceptions=True)
            while self.pool.snapshot().acquired:  # resets whose caller was cancelled, within their own bound
                await self.pause()
        assert {type(each) for each in ended} <= {type(None), asyncio.CancelledError}, ended
        found = self.pool.snapshot()
        assert (found.acquired, found.waiting) == (0, 0), found

    def start(self) -> asyncio.Task[None]:
        task = asyncio.create_task(self.caller())
        self.all.append(task)
        return task

    async def cancel_one(self) -> None:
        index = self.chance.randrange(CALLERS)
        self.callers[index].cancel()
        if self.chance.random() < 0.5:  # else the one that leaves and its successor run beside each other
            await asyncio.wait({self.callers[index]})
        self.callers[index] = self.start()
        self.tell("cancel")


class FakeStorm(Storm):
    """
    On the fake driver: queries take time, connections die, resets hang, the server goes away for a while.
    """

    def __init__(self, seed: int, steps: int, loop: SimLoop) -> None:
        self.driver = FakeDriver()
        config = DatabaseConfig(
            min_pool_size=2, max_pool_size=SIZE, max_waiting=12, connect_timeout=0.5, shed_unset=True,
            lane_timeouts=dict.fromkeys(LANES, 2.0),
        )  # fmt: skip
        pool = Pool(config, notify=[].append, clock=LoopClock(loop), connect=self.driver, is_checked=True)
        super().__init__(pool, random.Random(seed), steps, loop.time)
        pool._state._uniform = self.chance.uniform  # else jitter would differ from run to run

    async def query(self, lease) -> None:
        await asyncio.sleep(self.chance.choice([0.0, 0.0005, 0.02]))
        await super().query(lease)
        lease.con.is_in_block = self.chance.random() < 0.1

    async def disturb(self) -> None:
        """
        Something goes wrong, or is put right.
        """
        living = [con for con in self.driver.opened if not con.is_lost]
        self.driver.opened[:] = living
        roll = self.chance.random()
        if roll < 0.1 and living:
            self.chance.choice(living).terminate()
            self.tell("kill")
        elif roll < 0.13 and living:
            con = self.chance.choice(living)
            con.on_reset = con.on_execute = con.on_close = lambda: asyncio.sleep(30.0)
            self.tell("hang")
        elif roll < 0.15:
            self.driver.error = ConnectionRefusedError("gone")
            for con in living:
                con.terminate()
            self.tell("outage")
        elif roll < 0.3:
            self.driver.error = None
        elif roll < 0.32:
            self.pool.expire()
            self.tell("expire")


def storm_of(seed: int, steps: int) -> tuple[str, Counter[str]]:
    """
    Run one storm on a loop of its own; return the hash of its story, and what happened how often.
    """
    loop = SimLoop(seed)

    async def program() -> Storm:
        storm = FakeStorm(seed, steps, loop)
        await storm.pool.open()
        await storm.run(storm.disturb)
        storm.driver.error = None
        await storm.pool.close(60.0)
        assert storm.pool.snapshot().size == 0
        assert all(con.is_lost for con in storm.driver.opened)
        return storm

    storm = simulate(program(), loop)
    gc.collect()  # a future whose error nobody took says so when it is collected
    assert not loop.complaints, loop.complaints
    return storm.story.hexdigest(), storm.seen


@pytest.mark.slow
def test_fifty_thousand_operations_under_a_seeded_schedule_conserve_every_slot():
    """All kinds of operation were among them; nothing leaked, hung, or raised where nobody looked."""
    _, seen = storm_of(seed=1, steps=50_000)

    assert seen.total() >= 50_000
    assert set(seen) >= {
        "acquire", "query", "release", "cancel", "kill", "hang", "outage", "expire", "PoolTimeout", "Overloaded",
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(2, 10))
def test_storms_of_many_seeds_conserve_every_slot(seed):
    """Shorter ones, each in another order."""
    _, seen = storm_of(seed, steps=2_000)

    assert seen["acquire"] > 200


def test_the_same_seed_tells_the_same_story():
    """A storm that fails can be looked at again."""
    assert storm_of(77, 2_000) == storm_of(77, 2_000)
    assert storm_of(77, 2_000) != storm_of(78, 2_000)


def test_a_program_that_waits_for_nothing_is_stuck():
    """The loop says so instead of waiting for ever."""
    with pytest.raises(Stuck):
        simulate(asyncio.Event().wait(), SimLoop(0))


@pytest.mark.slow
async def test_a_storm_on_a_real_server_conserves_every_slot(dsn):
    """Five thousand operations, with backends that are terminated in the middle of them."""
    loop = asyncio.get_running_loop()
    complaints = []
    loop.set_exception_handler(lambda _loop, context: complaints.append(context))
    config = DatabaseConfig(dsn=dsn, min_pool_size=2, max_pool_size=SIZE, max_waiting=12, application_name="storm")
    pool = Pool(config, notify=[].append, is_checked=True)
    chance = random.Random(11)
    storm = Storm(pool, chance, 5_000, time.monotonic)
    admin = await asyncpg.connect(dsn)

    async def disturb() -> None:
        if chance.random() < 0.2:
            await admin.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'storm' LIMIT $1",
                chance.randrange(1, 4),
            )
            storm.tell("kill")

    await pool.open()
    try:
        await storm.run(disturb)
    finally:
        await pool.close(10.0)
        left = await admin.fetchval("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'storm'")
        await admin.close()
    gc.collect()

    assert pool.snapshot().size == 0
    assert left <= SIZE  # the server may still be at its farewells
    assert set(storm.seen) >= {"acquire", "query", "release", "cancel", "kill"}
    assert not complaints, complaints
