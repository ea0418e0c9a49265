"""Leases that are kept, tasks that ask twice, operators who intervene: made with events and a hand-moved clock."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from magnus._driver import AlreadyReleased, LeaseReclaimed, PoolClosed
from magnus.config import LaneSettings
from magnus.errors import NestedAcquire, WrongLoop, WrongProcess
from magnus.lanes import QueryPriority
from magnus.observe import (
    LeakReclaimed,
    LeakReturned,
    LeakSuspected,
    NestedAcquireRisk,
    PoolMended,
    PoolPaused,
    PoolResized,
    PoolResumed,
    StandbyEvicted,
)
from magnus.pool._slots import State
from tests.unit.pool.fake_driver import Bench, turns

CRITICAL, BACKGROUND = QueryPriority.CRITICAL, QueryPriority.BACKGROUND


@pytest.fixture
async def bench():
    async with Bench(leak_threshold=30.0, leak_limit=600.0) as made:
        yield made


async def hold(bench, lane=CRITICAL):
    lease = await bench.pool.acquire(lane, None)
    bench.pool.hold(lease)
    lease.holding.is_scoped = True
    return lease


def sweep(bench, seconds):
    bench.clock.time += seconds
    bench.pool._custody.sweep()


# --- leaks


async def test_a_silent_lease_is_reported_once_and_its_return_too(bench):
    """With its task, its place, its last statement without literals, and the seconds."""
    lease = await hold(bench)
    lease.text = "SELECT 'secret'"
    sweep(bench, 29.0)
    assert bench.events == []

    sweep(bench, 1.0)
    sweep(bench, 60.0)

    (told,) = bench.events
    assert isinstance(told, LeakSuspected)
    assert (told.lane, told.held, told.silent, told.query) == ("critical", 30.0, 30.0, "SELECT $1")
    assert told.task == asyncio.current_task().get_name()
    assert "hold" in told.acquired_at[0]
    assert "test_a_silent_lease_is_reported_once" in told.acquired_at[1]
    await bench.pool.release(lease)
    assert bench.events[1:] == [LeakReturned(told.task, "critical", 90.0, was_reclaimed=False)]
    assert not bench.pool._custody.holdings


async def test_a_lease_that_works_is_no_leak(bench):
    """Neither while a statement, a COPY or a COMMIT runs on it, however long, nor when it has just ended."""
    lease = await hold(bench)
    lease.steps += 1
    for _ in range(10):
        sweep(bench, 1000.0)
    lease.steps += 1
    sweep(bench, 10.0)
    sweep(bench, 29.0)

    assert bench.events == []
    assert not lease.con.is_closed()
    await bench.pool.release(lease)


async def test_a_lease_on_which_somebody_listens_is_silent_by_trade(bench):
    """It is neither reported nor taken back."""
    lease = await hold(bench)
    lease.con._listeners = {"channel": {print}}
    sweep(bench, 5000.0)

    assert bench.events == []
    lease.con._listeners = {}
    await bench.pool.release(lease)


async def test_a_leaked_connection_is_taken_back_and_serves_the_next(bench):
    """Terminated, the slot free at once; its holder is told so when it comes back, and nothing breaks."""
    lease = await hold(bench)
    waiter = bench.acquire()
    await turns()

    sweep(bench, 600.0)
    served = await waiter

    assert lease.con.is_lost
    assert served.con is not lease.con
    assert isinstance(lease.reclaimed, LeaseReclaimed)
    assert isinstance(lease.reclaimed, asyncpg.InterfaceError)
    assert [type(event) for event in bench.events] == [LeakReclaimed]
    await bench.pool.release(lease)
    assert [type(event) for event in bench.events] == [LeakReclaimed, LeakReturned]
    assert bench.events[1].was_reclaimed
    with pytest.raises(AlreadyReleased):
        await bench.pool.release(lease)
    await bench.pool.release(served)


async def test_the_stack_is_where_the_task_is_now(bench):
    """Not only where it acquired."""
    gate, is_held = asyncio.Event(), asyncio.Event()

    async def forget_to_release():
        lease = await hold(bench)
        is_held.set()
        await gate.wait()
        await bench.pool.release(lease)

    task = asyncio.create_task(forget_to_release(), name="forgetful")
    await is_held.wait()

    sweep(bench, 30.0)

    (told,) = bench.events
    assert told.task == "forgetful"
    assert any("forget_to_release" in frame for frame in told.stack)
    gate.set()
    await task


async def test_one_timer_watches_all_leases_and_none_when_nothing_is_held(bench):
    """It is armed with the first lease and left alone after the last."""
    timers = bench.pool._keeper.timers
    assert bench.pool._custody.sweep not in timers._armed
    lease = await hold(bench)
    assert bench.pool._custody.sweep in timers._armed
    await bench.pool.release(lease)

    timers._armed.pop(bench.pool._custody.sweep)[1].cancel()
    bench.pool._custody.sweep()

    assert bench.pool._custody.sweep not in timers._armed


# --- nested acquires


async def test_a_task_that_would_wait_for_itself_is_told_at_once(bench):
    """Both places are named; it is a TimeoutError; the connection it has is unharmed."""
    lease = await hold(bench)

    with pytest.raises(NestedAcquire) as caught:
        await bench.pool.acquire(CRITICAL, bench.clock.now() + 1000.0)

    assert isinstance(caught.value, TimeoutError)
    assert any("test_a_task_that_would_wait_for_itself" in place for place in caught.value.asked_at)
    assert any("hold" in place for place in caught.value.held_at)
    assert bench.pool.snapshot().waiting == 0
    await bench.pool.release(lease)


async def test_a_lease_that_no_block_gives_back_may_come_back_from_anywhere(bench):
    """The task waits: another one may release what it holds."""
    lease = await hold(bench)
    lease.holding.is_scoped = False
    returns = set()
    asyncio.get_running_loop().call_soon(lambda: returns.add(asyncio.ensure_future(bench.pool.release(lease))))

    inner = await bench.pool.acquire(CRITICAL, None)

    assert [type(event) for event in bench.events] == [NestedAcquireRisk]
    await bench.pool.release(inner)


async def test_waiting_for_a_connect_or_a_pause_is_no_risk():
    """Nobody has to give anything back for it."""
    async with Bench(max_pool_size=2) as bench:
        lease = await hold(bench)
        inner = await hold(bench)
        await bench.pool.release(inner)
        await bench.pool.pause(0.0)
        waiting = asyncio.get_running_loop().call_soon(bench.pool.resume)
        inner = await bench.pool.acquire(CRITICAL, None)

        assert not waiting.cancelled()
        assert NestedAcquireRisk not in map(type, bench.events)
        await bench.pool.release(inner)
        await bench.pool.release(lease)


async def test_of_tasks_that_lock_each_other_out_the_last_is_told():
    """The first ones only waited; they are served when it gives up what it has."""
    async with Bench(max_pool_size=2) as bench:
        first_holds, second_holds, first_waits = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def first():
            lease = await hold(bench)
            first_holds.set()
            await second_holds.wait()
            asyncio.get_running_loop().call_soon(first_waits.set)
            inner = await bench.pool.acquire(CRITICAL, None)
            await bench.pool.release(inner)
            await bench.pool.release(lease)

        async def second():
            await first_holds.wait()
            lease = await hold(bench)
            second_holds.set()
            await first_waits.wait()
            await turns()
            try:
                await bench.pool.acquire(CRITICAL, None)
            finally:
                await bench.pool.release(lease)

        results = await asyncio.gather(first(), second(), return_exceptions=True)

        assert results[0] is None
        assert isinstance(results[1], NestedAcquire)
        assert [type(event) for event in bench.events] == [NestedAcquireRisk]


async def test_a_risky_nested_acquire_waits_and_is_told_once():
    """Somebody who is free holds the other slot."""
    async with Bench(max_pool_size=2) as bench:
        other = await bench.pool.acquire(CRITICAL, None)
        lease = await hold(bench)
        returns = set()

        async def ask_while_it_comes_back(other):
            waiting = bench.pool.acquire(CRITICAL, None)
            asyncio.get_running_loop().call_soon(lambda: returns.add(asyncio.ensure_future(bench.pool.release(other))))
            return await waiting

        for _ in range(2):
            other = await ask_while_it_comes_back(other)

        assert [type(event) for event in bench.events] == [NestedAcquireRisk]
        await bench.pool.release(other)
        await bench.pool.release(lease)


async def test_a_waiting_holder_whose_connection_somebody_uses_is_not_counted_out():
    """A lease that was passed on and works may be given back by who works on it."""
    async with Bench(max_pool_size=2) as bench:
        passed = asyncio.Event()
        leases = []

        async def first():
            leases.append(await hold(bench))
            passed.set()
            inner = await bench.pool.acquire(CRITICAL, None)
            await bench.pool.release(inner)

        own = await hold(bench)
        task = asyncio.create_task(first())
        await passed.wait()
        await turns()
        leases[0].steps += 1
        returns = set()
        asyncio.get_running_loop().call_soon(lambda: returns.add(asyncio.ensure_future(bench.pool.release(leases[0]))))

        inner = await bench.pool.acquire(CRITICAL, None)
        await task

        await bench.pool.release(inner)
        await bench.pool.release(own)


async def test_a_nested_acquire_with_a_slot_to_spare_is_nobodys_business():
    """No event, no error."""
    async with Bench(max_pool_size=3) as bench:
        await bench.pool.warmup(3)
        lease, inner = await hold(bench), await hold(bench)

        assert bench.events == []
        await bench.pool.release(lease)
        await bench.pool.release(inner)


# --- elsewhere


async def test_another_loop_is_refused_at_once(bench):
    """Not with a connection that would hang there."""
    await bench.pool.warmup(1)

    def elsewhere():
        return asyncio.run(bench.pool.acquire(CRITICAL, None))

    with pytest.raises(WrongLoop):
        await asyncio.to_thread(elsewhere)
    assert bench.pool.snapshot().idle == 1


async def test_a_child_process_touches_nothing():
    """Every call is refused; closing is silent; no connection is spoken to or closed."""
    bench = Bench(max_pool_size=2)
    await bench.pool.open()
    await bench.pool.warmup(2)
    lease = await hold(bench)
    cons = list(bench.driver.opened)

    bench.pool.forked()

    with pytest.raises(WrongProcess):
        await bench.pool.acquire(CRITICAL, None)
    with pytest.raises(WrongProcess):
        await bench.pool.warmup(1)
    await bench.pool.release(lease)
    await bench.pool.close(0.0)
    assert all(con._aborted and not con.is_lost and not con.resets for con in cons)
    bench.pool._keeper.timers.drop_all()


async def test_a_closed_pool_says_so_first(bench):
    """Not that the loop is another one."""
    await bench.pool.close(0.0)
    with pytest.raises(PoolClosed):
        await bench.pool.acquire(CRITICAL, None)


# --- operators


async def test_a_pause_lets_nobody_in_and_waits_for_who_is_out():
    """Callers queue; resume serves them in order; connections stay."""
    async with Bench(max_pool_size=2) as bench:
        await bench.pool.warmup(2)
        lease = await bench.pool.acquire(CRITICAL, None)
        pausing = asyncio.create_task(bench.pool.pause(60.0))
        await turns()
        waiters = await bench.waiting(2)
        assert not pausing.done()

        await bench.pool.release(lease)
        assert await pausing
        assert bench.pool.snapshot().waiting == 2
        assert bench.pool.snapshot().idle == 2

        bench.pool.resume()
        bench.pool.resume()
        for waiter in waiters:
            await bench.pool.release(await waiter)
        assert bench.events == [PoolPaused(1), PoolResumed(2)]


async def test_a_pause_that_runs_out_says_that_leases_are_out(bench):
    """It stays paused all the same."""
    lease = await bench.pool.acquire(CRITICAL, None)

    assert not await bench.pool.pause(0.0)

    waiter = bench.acquire()
    await bench.pool.release(lease)
    await turns()
    assert not waiter.done()
    bench.pool.resume()
    await bench.pool.release(await waiter)


async def test_a_larger_pool_serves_who_waits(bench):
    """At once, as far as connects go."""
    lease = await bench.pool.acquire(CRITICAL, None)
    waiters = await bench.waiting(2)

    bench.pool.resize(0, 3)

    for waiter in waiters:
        await bench.pool.release(await waiter)
    await bench.pool.release(lease)
    assert bench.pool.snapshot().max == 3
    assert bench.events == [PoolResized(0, 3)]


async def test_a_smaller_pool_closes_what_is_too_much():
    """Idle ones now, the others when they come back; nobody new gets in meanwhile."""
    async with Bench(max_pool_size=4, min_pool_size=0) as bench:
        await bench.pool.warmup(4)
        leases = [await bench.pool.acquire(CRITICAL, None) for _ in range(3)]

        bench.pool.resize(0, 1)
        await turns()
        assert bench.pool.snapshot().size == 3
        waiter = bench.acquire()
        await turns()
        for lease in leases[:2]:
            await bench.pool.release(lease)
        await turns()
        assert not waiter.done() or bench.pool.snapshot().acquired <= 1
        await bench.pool.release(leases[2])
        served = await waiter

        await turns()
        assert bench.pool.snapshot().size == 1
        await bench.pool.release(served)


async def test_a_limit_holds_whatever_size_was_asked_for():
    """It is beside the sizes: who asks for others is still limited, and gets them when the limit allows it."""
    cap = LaneSettings(cap=5)
    async with Bench(max_pool_size=6, min_pool_size=3, lanes={QueryPriority.HIGH: cap}) as bench:
        await bench.pool.warmup(6)

        bench.pool.limit(2)
        await turns()
        assert bench.pool.snapshot().size == 2
        assert (bench.pool.snapshot().min, bench.pool.snapshot().max) == (2, 2)
        assert bench.pool.sizes == (2, 6)

        bench.pool.resize(1, 8)
        assert bench.pool.snapshot().max == 2
        bench.pool.limit(2)
        bench.pool.limit(7)
        assert (bench.pool.sizes, bench.pool.snapshot().min) == ((7, 8), 1)
        assert [lane.cap for lane in bench.pool.snapshot().lanes][:2] == [7, 5]
        bench.pool.limit(100)
        assert bench.pool.sizes == (8, 8)
        assert bench.events == [PoolResized(2, 2), PoolResized(1, 2), PoolResized(1, 7), PoolResized(1, 8)]


async def test_a_limit_set_before_the_pool_is_open_holds_from_the_first_connect():
    """Not one connection more is ever begun."""
    bench = Bench(max_pool_size=6, min_pool_size=3)
    bench.pool.limit(1)
    async with bench:
        assert await bench.pool.warmup(6) == 1
        await turns()
        assert len(bench.driver.opened) == 1


# --- keepalive and mending


async def test_idle_connections_are_asked_for_a_sign_of_life():
    """One after the other; where they stand among the idle, and how long they are idle, does not change."""
    async with Bench(max_pool_size=3, min_pool_size=3, keepalive_interval=60.0) as bench:
        await bench.pool.warmup(3)
        before = [(slot.con, slot.idle_since) for slot in bench.pool._state.idle_slots]

        bench.clock.time += 60.0
        bench.pool._keeper._on_tick()
        assert bench.pool.snapshot().acquired == 1
        await turns(20)

        assert [(slot.con, slot.idle_since) for slot in bench.pool._state.idle_slots] == before
        assert [con.executed for con in bench.driver.opened] == [["SELECT 1"] * 2] * 3
        bench.pool._keeper._on_tick()
        await turns()
        assert [con.executed for con in bench.driver.opened] == [["SELECT 1"] * 2] * 3


async def test_a_connection_without_a_sign_of_life_is_replaced():
    """Before any caller meets it."""
    async with Bench(max_pool_size=1, min_pool_size=1, keepalive_interval=60.0) as bench:
        await bench.pool.warmup(1)
        (old,) = bench.driver.opened

        async def fail():
            raise ConnectionResetError

        old.on_execute = fail
        bench.clock.time += 60.0
        bench.pool._keeper._on_tick()
        await turns(20)
        bench.pool._keeper._on_tick()
        await turns(20)

        assert old.is_lost
        assert bench.pool.snapshot().idle == 1


async def test_a_caller_is_served_while_a_connection_is_being_asked():
    """It waits for the answer at most, and gets that very connection."""
    async with Bench(keepalive_interval=60.0, min_pool_size=1) as bench:
        await bench.pool.warmup(1)
        answer = asyncio.Event()
        bench.driver.opened[0].on_execute = answer.wait
        bench.clock.time += 60.0
        bench.pool._keeper._on_tick()
        waiter = bench.acquire()
        await turns()
        assert not waiter.done()

        answer.set()
        lease = await waiter

        assert lease.con is bench.driver.opened[0]
        assert bench.driver.attempts == 1
        await bench.pool.release(lease)


async def test_wrong_books_are_put_right_and_told(bench):
    """Counts, the idle list, the lanes, slots that nobody works on."""
    await bench.pool.warmup(1)
    state = bench.pool._state
    state._count[State.IDLE] += 1
    state.lanes._used[0] += 1
    bench.driver.gate.clear()
    bench.pool._keeper._is_checked = False
    bench.pool.resize(0, 2)
    bench.events.clear()

    bench.pool._keeper.reconcile()

    (told,) = bench.events
    assert isinstance(told, PoolMended)
    assert len(told.found) == 2
    state.check()
    bench.pool._keeper.reconcile()
    assert len(bench.events) == 1
    bench.driver.gate.set()


async def test_a_slot_that_nobody_works_on_is_freed(bench):
    """Its task is gone without a trace; a caller is served again."""
    bench.driver.gate.clear()
    waiter = bench.acquire()
    await turns()
    (task,) = bench.pool._keeper._tasks
    del bench.pool._keeper._tasks[task]
    task.remove_done_callback(bench.pool._keeper._on_task_done)
    task.cancel()
    await turns()
    bench.driver.gate.set()

    bench.pool._keeper.reconcile()
    bench.clock.time += 2.0
    bench.pool._keeper._on_retry()

    await bench.pool.release(await waiter)
    assert [type(event) for event in bench.events] == [PoolMended]


# --- standby


async def test_a_write_that_a_standby_refuses_replaces_every_connection(bench):
    """Once in a while: when the address still leads there, new connections are no better."""
    lease = await bench.pool.acquire(CRITICAL, None)
    bench.pool.refused_write(lease)
    assert bench.events == []

    class Settings:
        in_hot_standby = "on"

    lease.con.get_settings = Settings
    bench.pool.refused_write(lease)
    bench.pool.refused_write(lease)
    await bench.pool.release(lease)
    await turns()

    assert bench.events == [StandbyEvicted(1)]
    assert lease.con.is_lost
