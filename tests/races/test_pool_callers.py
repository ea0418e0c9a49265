"""Callers against each other: cancels, deadlines, closing, at the worst moments. Every race is made with events."""

from __future__ import annotations

import asyncio
import random

import pytest

from magnus._driver import AlreadyReleased, PoolClosed
from magnus._effects import NO_RESET
from magnus.config import DatabaseConfig
from magnus.errors import ConnectError, Overloaded, PoolTimeout
from magnus.lanes import LANES, QueryPriority
from magnus.pool import Pool
from magnus.pool._lease import EVERYTHING
from tests.unit.pool.fake_driver import Bench, FakeDriver, turns

CRITICAL, NORMAL, BACKGROUND = QueryPriority.CRITICAL, QueryPriority.NORMAL, QueryPriority.BACKGROUND


@pytest.fixture
async def bench():
    async with Bench() as made:
        yield made


async def test_callers_are_served_in_order(bench):
    """Nobody overtakes, newcomers included."""
    lease = await bench.pool.acquire(CRITICAL, None)
    waiters = await bench.waiting(3)
    order = []
    for number, waiter in enumerate(waiters):
        waiter.add_done_callback(lambda _task, number=number: order.append(number))

    await bench.pool.release(lease)
    newcomer = bench.acquire()
    for waiter in waiters:
        await bench.pool.release(await waiter)
    await bench.pool.release(await newcomer)

    assert order == [0, 1, 2]
    assert len(bench.driver.opened) == 1


async def test_a_waiter_cancelled_after_its_hand_off_passes_the_slot_on(bench):
    """The slot was assigned, the caller never ran: the next one has it."""
    lease = await bench.pool.acquire(CRITICAL, None)
    first, second = await bench.waiting(2)

    await bench.pool.release(lease)
    first.cancel()
    taken = await second

    assert taken.con is lease.con
    with pytest.raises(asyncio.CancelledError):
        await first
    await bench.pool.release(taken)


async def test_a_waiter_cancelled_before_its_hand_off_is_passed_over(bench):
    """Cancelled, not yet run, still in the queue: the slot goes to the next at once."""
    lease = await bench.pool.acquire(CRITICAL, None)
    first, second = await bench.waiting(2)

    first.cancel()
    await bench.pool.release(lease)
    taken = await second

    with pytest.raises(asyncio.CancelledError):
        await first
    await bench.pool.release(taken)


async def test_the_last_waiter_cancelled_after_its_hand_off_leaves_the_slot_idle(bench):
    """Nobody is left to pass it to."""
    lease = await bench.pool.acquire(CRITICAL, None)
    (only,) = await bench.waiting(1)

    await bench.pool.release(lease)
    only.cancel()
    await turns()

    assert (bench.pool.snapshot().idle, bench.pool.snapshot().acquired) == (1, 0)


async def test_thousands_of_cancelled_waiters_are_no_recursion(bench):
    """All of them cancelled while the slot is on its way to the first."""
    lease = await bench.pool.acquire(CRITICAL, None)
    waiters = await bench.waiting(2_000)

    await bench.pool.release(lease)
    for waiter in waiters:
        waiter.cancel()
    await asyncio.gather(*waiters, return_exceptions=True)

    assert (bench.pool.snapshot().idle, bench.pool.snapshot().waiting) == (1, 0)


async def test_a_deadline_ends_the_waiting(bench):
    """With the figures that explain it."""
    await bench.pool.acquire(CRITICAL, None)
    waiter = bench.acquire(timeout=5.0)
    await turns()

    bench.clock.time += 5.02
    bench.pool._on_deadlines()

    with pytest.raises(PoolTimeout, match="1 acquired, 0 idle, 0 connecting of 1, 0 waiting") as caught:
        await waiter
    assert caught.value.phase == "wait"
    assert caught.value.waited == pytest.approx(5.02)
    assert caught.value.__cause__ is None
    assert bench.pool.snapshot().lanes[0].timeouts == 1


async def test_a_real_deadline_fires_by_itself():
    """The timer is armed for the earliest of many."""
    pool = Pool(DatabaseConfig(min_pool_size=0, max_pool_size=1), notify=[].append, connect=FakeDriver())
    await pool.open()
    await pool.acquire(CRITICAL, None)
    now = asyncio.get_running_loop().time()
    late = asyncio.create_task(pool.acquire(CRITICAL, now + 500.0))
    await turns()

    with pytest.raises(PoolTimeout):
        await pool.acquire(CRITICAL, now + 0.02)

    assert not late.done()
    await pool.close(0.0)
    with pytest.raises(PoolClosed):
        await late


async def test_a_deadline_in_the_past_fails_at_once_unless_a_slot_is_free(bench):
    """Nothing is queued for somebody who has no time."""
    lease = await bench.pool.acquire(CRITICAL, None)

    with pytest.raises(PoolTimeout):
        await bench.pool.acquire(CRITICAL, bench.clock.now() - 1.0)

    await bench.pool.release(lease)
    await bench.pool.release(await bench.pool.acquire(CRITICAL, bench.clock.now() - 1.0))


async def test_a_full_queue_refuses_at_once():
    """By lane; other lanes still queue."""
    async with Bench(max_waiting=2) as bench:
        await bench.pool.acquire(CRITICAL, None)
        waiters = [bench.acquire(NORMAL) for _ in range(2)]
        await turns()

        with pytest.raises(Overloaded) as caught:
            await bench.pool.acquire(NORMAL, None)
        other = bench.acquire(BACKGROUND)
        await turns()

        assert (caught.value.lane, caught.value.waiting) == ("normal", 2)
        assert caught.value.retry_after > 0
        assert bench.pool.snapshot().lanes[2].rejected == 1
        for task in (*waiters, other):
            task.cancel()


async def test_critical_is_served_while_all_others_are_saturated():
    """The reserve is there; and it is not for the others."""
    async with Bench(max_pool_size=4) as bench:
        held = [await bench.pool.acquire(NORMAL, None) for _ in range(3)]
        waiting = bench.acquire(NORMAL)
        await turns()
        assert not waiting.done()

        lease = await bench.pool.acquire(CRITICAL, None)

        await bench.pool.release(lease)
        await turns()
        assert not waiting.done()
        await bench.pool.release(held[0])
        assert (await waiting).lane is NORMAL


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("lane", LANES)
async def test_every_lane_works_in_the_smallest_pools(size, lane):
    """One slot, two slots."""
    async with Bench(max_pool_size=size) as bench:
        first = await bench.pool.acquire(lane, None)
        second = bench.acquire(lane)
        await turns()
        await bench.pool.release(first)

        await bench.pool.release(await second)

        assert bench.pool.snapshot().lanes[LANES.index(lane)].acquired_total == 2


async def test_closing_fails_those_who_wait(bench):
    """With the pool's own error, which is the driver's InterfaceError too."""
    lease = await bench.pool.acquire(CRITICAL, None)
    waiters = await bench.waiting(3)

    closing = asyncio.create_task(bench.pool.close(60.0))
    results = await asyncio.gather(*waiters, return_exceptions=True)

    assert [type(result) for result in results] == [PoolClosed] * 3
    assert not closing.done()
    await bench.pool.release(lease)
    await closing
    assert lease.con.is_closed()


async def test_closing_waits_for_leases_and_then_terminates(bench):
    """The bound is the caller's; the lease's late release is harmless."""
    lease = await bench.pool.acquire(CRITICAL, None)

    await bench.pool.close(0.0)

    assert lease.con.is_closed()
    assert bench.pool.snapshot().size == 0
    await bench.pool.release(lease)
    with pytest.raises(PoolClosed):
        await bench.pool.acquire(CRITICAL, None)


async def test_closing_between_hand_off_and_run(bench):
    """The caller finds its slot gone and is told that the pool is closed."""
    lease = await bench.pool.acquire(CRITICAL, None)
    (waiter,) = await bench.waiting(1)

    await bench.pool.release(lease)
    bench.pool._is_open = False
    bench.pool._apply(bench.pool._state.close(bench.clock.now()))
    bench.pool._keeper._terminate_all()

    with pytest.raises(PoolClosed):
        await waiter


async def test_closing_twice_at_once_is_harmless(bench):
    """Both return."""
    await bench.pool.acquire(CRITICAL, None)

    await asyncio.gather(bench.pool.close(0.01), bench.pool.close(0.0), bench.pool.close(0.02))

    assert bench.pool.snapshot().size == 0


async def test_a_cancelled_close_terminates_at_once(bench):
    """Nothing stays open behind it."""
    lease = await bench.pool.acquire(CRITICAL, None)
    closing = asyncio.create_task(bench.pool.close(60.0))
    await turns()

    closing.cancel()

    with pytest.raises(asyncio.CancelledError):
        await closing
    assert lease.con.is_closed()
    assert bench.pool.snapshot().size == 0


async def test_a_pool_that_was_never_opened_refuses_and_closes():
    """No attribute errors, no connects."""
    driver = FakeDriver()
    pool = Pool(DatabaseConfig(), notify=[].append, connect=driver)

    with pytest.raises(PoolClosed):
        await pool.acquire(NORMAL, None)
    with pytest.raises(PoolClosed):
        await pool.warmup(3)
    pool.expire()
    await pool.close(1.0)

    assert driver.attempts == 0
    with pytest.raises(PoolClosed):
        await pool.open()


async def test_a_second_release_is_an_error_and_changes_nothing(bench):
    """Somebody else has the connection by now."""
    lease = await bench.pool.acquire(CRITICAL, None)
    await bench.pool.release(lease)
    other = await bench.pool.acquire(CRITICAL, None)

    with pytest.raises(AlreadyReleased):
        await bench.pool.release(lease)
    with pytest.raises(AlreadyReleased):
        await bench.pool.discard(lease)

    assert bench.pool.snapshot().acquired == 1
    assert not other.con.is_closed()


async def test_opening_with_a_wait_fails_when_no_server_answers():
    """With the reason; the pool is closed again."""
    bench = Bench(min_pool_size=1, retry_delay=0.0)
    bench.driver.error = ConnectionRefusedError("no")

    with pytest.raises(ConnectError) as caught:
        await bench.pool.open(wait=0.05)

    assert caught.value.reason == "unreachable"
    with pytest.raises(PoolClosed):
        await bench.pool.acquire(NORMAL, None)


@pytest.mark.parametrize("seed", range(30))
async def test_random_callers_cancels_and_deaths_conserve_every_slot(seed):
    """Acquire, hold, release, discard, kill, cancel, expire in a seeded order; afterwards all slots are free."""
    chance = random.Random(seed)
    async with Bench(max_pool_size=4, min_pool_size=1, retry_delay=0.0) as bench:

        async def caller():
            for _ in range(8):
                lease = await bench.pool.acquire(chance.choice(LANES), None)
                try:
                    lease.reset = NO_RESET if chance.random() < 0.5 else EVERYTHING
                    await turns(chance.randrange(3))
                    if chance.random() < 0.15:
                        lease.con.terminate()
                finally:
                    await (bench.pool.discard(lease) if chance.random() < 0.15 else bench.pool.release(lease))

        callers = [asyncio.create_task(caller()) for _ in range(25)]
        for _ in range(120):
            await turns(chance.randrange(4))
            roll = chance.random()
            if roll < 0.2:
                chance.choice(callers).cancel()
            elif roll < 0.3 and bench.driver.opened:
                chance.choice(bench.driver.opened).terminate()
            elif roll < 0.33:
                bench.pool.expire()
            bench.clock.time += chance.random()
        done = await asyncio.gather(*callers, return_exceptions=True)
        await turns(20)

        found = bench.pool.snapshot()
        assert {type(each) for each in done} <= {type(None), asyncio.CancelledError}
        assert (found.acquired, found.waiting) == (0, 0)
        assert found.size == found.idle + found.connecting
