"""Connections that open late, die early or never answer, against whoever needs them. Made with events, no sleeps."""

from __future__ import annotations

import asyncio
import contextlib

import asyncpg
import pytest

from magnus._effects import NO_RESET
from magnus.errors import PoolTimeout
from magnus.lanes import QueryPriority
from magnus.observe import ConnectFailed, ConnectRecovered
from tests.unit.pool.fake_driver import Bench, FakeConnection, turns

CRITICAL, NORMAL, LOW = QueryPriority.CRITICAL, QueryPriority.NORMAL, QueryPriority.LOW


@pytest.fixture
async def bench():
    async with Bench() as made:
        yield made


# --- connects


async def test_a_connect_outlives_the_caller_that_caused_it(bench):
    """The caller is cancelled; the connection opens and is there for the next."""
    bench.driver.gate.clear()
    (waiter,) = await bench.waiting(1)
    waiter.cancel()
    await turns()

    bench.driver.gate.set()
    await turns()

    assert bench.pool.snapshot().idle == 1
    assert bench.driver.cancelled == 0
    lease = await bench.pool.acquire(CRITICAL, None)
    assert bench.driver.attempts == 1
    await bench.pool.release(lease)


async def test_a_released_connection_beats_a_slow_connect():
    """The waiter takes what comes first; the slow one goes idle."""
    async with Bench(max_pool_size=2) as bench:
        lease = await bench.pool.acquire(CRITICAL, None)
        bench.driver.gate.clear()
        (waiter,) = await bench.waiting(1)
        await bench.pool.release(lease)

        taken = await waiter

        assert taken.con is lease.con
        bench.driver.gate.set()
        await turns()
        assert bench.pool.snapshot().idle == 1
        await bench.pool.release(taken)


async def test_a_burst_of_callers_is_no_burst_of_connects():
    """At most four at once, and never more than there are slots."""
    async with Bench(max_pool_size=10) as bench:
        bench.driver.gate.clear()
        waiters = await bench.waiting(50)
        assert bench.pool.snapshot().connecting == 4

        bench.driver.gate.set()
        for waiter in waiters:
            await bench.pool.release(await waiter)

        assert bench.driver.attempts <= 10


async def test_a_connect_that_hangs_is_bounded_and_replaced():
    """The bound covers the whole set-up."""
    async with Bench(connect_timeout=0.02, retry_delay=0.0) as bench:
        bench.driver.gate.clear()
        waiter = bench.acquire()
        await bench.driver.given_up.wait()
        await turns()
        bench.driver.gate.set()

        bench.clock.time += 2.0
        bench.pool._keeper._on_retry()
        lease = await waiter

        assert bench.driver.cancelled >= 1
        assert bench.events[0].reason == "timeout"
        await bench.pool.release(lease)


async def test_callers_are_told_why_there_is_no_connection(bench):
    """The last connect failure is the cause of the time-out."""
    bench.driver.error = ConnectionRefusedError("refused")
    waiter = bench.acquire(timeout=3.0)
    await turns()

    bench.clock.time += 3.02
    bench.pool._on_deadlines()

    with pytest.raises(PoolTimeout) as caught:
        await waiter
    assert caught.value.phase == "connect"
    assert caught.value.__cause__ is bench.pool.last_connect_error
    assert bench.pool.last_connect_error.reason == "unreachable"


async def test_the_pool_recovers_by_itself(bench):
    """One prober during the outage; the waiter is served when the server is back."""
    bench.driver.error = ConnectionRefusedError("refused")
    waiter = bench.acquire()
    for _ in range(5):
        await turns()
        bench.clock.time += 1.0
        bench.pool._keeper._on_retry()
    await turns()
    assert 2 <= bench.driver.attempts <= 6

    bench.driver.error = None
    bench.clock.time += 1.0
    bench.pool._keeper._on_retry()
    lease = await waiter

    await turns()
    assert [type(event) for event in bench.events] == [ConnectFailed, ConnectRecovered]
    assert [event.failures for event in bench.events] == [1, bench.driver.attempts - 1]
    await bench.pool.release(lease)


async def test_closing_cancels_connects_even_before_their_first_step():
    """A task cancelled before it ran has no `finally`; its slot is freed all the same, at once."""
    async with Bench(max_pool_size=4) as bench:
        bench.driver.gate.clear()
        waiters = await bench.waiting(2)
        late = bench.acquire()
        await asyncio.sleep(0)

        await asyncio.wait_for(bench.pool.close(60.0), 5.0)

        assert bench.pool.snapshot().size == 0
        await asyncio.gather(*waiters, late, return_exceptions=True)


async def test_a_connect_that_ends_as_the_pool_closes_leaves_no_connection(bench):
    """Opened and closing in the same turn."""
    bench.driver.gate.clear()
    (waiter,) = await bench.waiting(1)
    bench.driver.gate.set()
    await asyncio.sleep(0)

    await bench.pool.close(0.0)
    await asyncio.gather(waiter, return_exceptions=True)
    await turns()

    assert all(con.is_closed() for con in bench.driver.opened)


async def test_a_connection_that_opens_in_spite_of_being_cancelled_is_terminated():
    """The driver swallowed the cancel; the slot is gone already."""
    bench = Bench()
    made, begun = FakeConnection(), asyncio.Event()

    async def stubborn(**_arguments):
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return made

    bench.pool._keeper.opener._connect = stubborn
    async with bench:
        waiter = bench.acquire()
        await begun.wait()
        bench.pool._keeper._terminate_all()
        await turns()

        assert made.is_closed()
        waiter.cancel()


async def test_a_failing_observer_frees_the_slot_and_is_reported():
    """`notify` must not raise; when it does, the pool lives on."""
    async with Bench(retry_delay=0.0) as bench:
        reports = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reports.append(context))
        bench.pool._keeper._notify = lambda _event: 1 / 0
        bench.driver.errors = [OSError("no")]
        waiter = bench.acquire()
        await turns(10)

        bench.clock.time += 2.0
        bench.pool._keeper._on_retry()
        lease = await waiter

        assert [type(context["exception"]) for context in reports] == [ZeroDivisionError] * 2  # outage, recovery
        await bench.pool.release(lease)


# --- warm-up


async def test_warm_up_opens_what_is_asked_and_never_more_than_the_pool():
    """Each connection proven by a query."""
    async with Bench(max_pool_size=6) as bench:
        assert await bench.pool.warmup(3) == 3
        assert await bench.pool.warmup(99) == 6

        assert bench.pool.snapshot().idle == 6
        assert [con.executed for con in bench.driver.opened] == [["SELECT 1"]] * 6


async def test_warm_up_of_a_dead_server_returns_the_count_and_the_reason():
    """No exception; what opened counts."""
    async with Bench(max_pool_size=6) as bench:
        bench.driver.error = asyncpg.InvalidPasswordError("for user x with password y")

        assert await bench.pool.warmup(5) == 0

        assert bench.pool.last_connect_error.reason == "credentials"
        assert "password y" not in str(bench.pool.last_connect_error)


async def test_warm_up_counts_what_opened_beside_a_failure():
    """The server has three slots left: three are ready."""
    async with Bench(max_pool_size=6) as bench:
        bench.driver.room = 3

        assert await bench.pool.warmup(6) == 3

        assert bench.pool.last_connect_error.reason == "too_many"


async def test_warm_up_gets_over_a_single_failure():
    """One connect of four fails, the others succeed: the pool goes on."""
    async with Bench(max_pool_size=6) as bench:
        bench.driver.gate.clear()
        bench.driver.errors = [ConnectionResetError()]
        warming = asyncio.create_task(bench.pool.warmup(6))
        await turns()
        bench.driver.gate.set()

        assert await warming == 6


async def test_a_cancelled_warm_up_leaves_the_pool_in_order():
    """What was begun goes on in the background."""
    async with Bench(max_pool_size=6) as bench:
        bench.driver.gate.clear()
        warming = asyncio.create_task(bench.pool.warmup(6))
        await turns()

        warming.cancel()
        await turns()
        bench.driver.gate.set()
        await turns()

        assert bench.pool.snapshot().idle == 4


async def test_warm_up_ends_when_the_pool_closes():
    """It does not wait for connections that will never come."""
    async with Bench(max_pool_size=6) as bench:
        bench.driver.gate.clear()
        warming = asyncio.create_task(bench.pool.warmup(6))
        await turns()

        await bench.pool.close(0.0)

        assert await warming == 0


# --- death


async def test_an_idle_connection_that_dies_is_not_given_to_anybody():
    """The listener marks it before the next caller comes."""
    async with Bench(max_pool_size=2) as bench:
        await bench.pool.warmup(2)
        top = bench.driver.opened[1]

        top.terminate()
        lease = await bench.pool.acquire(CRITICAL, None)

        assert lease.con is not top
        await bench.pool.release(lease)


async def test_an_idle_connection_that_died_this_very_moment_is_skipped():
    """Before the listener has run."""
    async with Bench(max_pool_size=2) as bench:
        await bench.pool.warmup(2)
        for con in bench.driver.opened:
            con.is_lost = True

        lease = await bench.pool.acquire(CRITICAL, None)

        assert not lease.con.is_closed()
        assert len(bench.driver.opened) == 3
        await bench.pool.release(lease)


async def test_a_farewell_that_waits_in_the_socket_is_read_before_the_hand_off():
    """Unread bytes: the loop gets its turns, the connection turns out to be dead."""
    async with Bench(max_pool_size=2) as bench:
        await bench.pool.warmup(2)
        dying = bench.driver.opened[1]
        reads = []

        def unread():
            reads.append(None)
            asyncio.get_running_loop().call_soon(dying.terminate)
            return True

        bench.pool._state.idle_slots[-1].probe = unread
        bench.clock.time += 1.0
        lease = await bench.pool.acquire(CRITICAL, None)

        assert reads
        assert lease.con is bench.driver.opened[0]
        await bench.pool.release(lease)


async def test_a_waiter_that_is_given_an_idle_connection_looks_at_it_first():
    """It has the right limit and was idle for long: what waits in its socket is read before it is used."""
    async with Bench(max_pool_size=4) as bench:
        await bench.pool.warmup(4)
        held = [await bench.pool.acquire(NORMAL, None) for _ in range(3)]
        (idle,) = bench.pool._state.idle_slots
        idle.session.changed(61.0, is_in_transaction=False)
        bench.pool._state._list_idle([idle])
        dying = idle.con
        idle.probe = lambda: bool(asyncio.get_running_loop().call_soon(dying.terminate))
        waiter = asyncio.create_task(bench.pool.acquire(LOW, None, wanted=61.0))
        await turns()
        bench.clock.time += 1.0
        held[0].reset = NO_RESET
        await bench.pool.release(held[0])

        lease = await waiter

        assert dying.is_closed()
        assert not lease.con.is_closed()
        for each in (lease, *held[1:]):
            await bench.pool.release(each)


async def test_bytes_that_stay_unexplained_are_settled_by_a_query():
    """Not a reason to throw a connection away."""
    async with Bench() as bench:
        await bench.pool.warmup(1)
        bench.pool._state.idle_slots[0].probe = lambda: True
        bench.clock.time += 1.0

        lease = await bench.pool.acquire(CRITICAL, None)

        assert lease.con is bench.driver.opened[0]
        assert lease.con.executed == ["SELECT 1"] * 2
        await bench.pool.release(lease)


async def test_a_connection_long_idle_is_asked_for_a_sign_of_life():
    """Once; a fresh one is not asked."""
    async with Bench() as bench:
        await bench.pool.warmup(1)
        con = bench.driver.opened[0]

        await bench.pool.release(await bench.pool.acquire(CRITICAL, None))
        assert con.executed == ["SELECT 1"]
        bench.clock.time += 31.0
        await bench.pool.release(await bench.pool.acquire(CRITICAL, None))

        assert con.executed == ["SELECT 1"] * 2


async def test_a_silent_connection_that_does_not_answer_takes_the_other_silent_ones_along():
    """One caller pays one bound, not one for each dead connection."""
    async with Bench(max_pool_size=3) as bench:
        await bench.pool.warmup(3)
        asked = []

        async def broken():
            asked.append(None)
            raise ConnectionResetError

        for con in bench.driver.opened:
            con.on_execute = broken
        bench.clock.time += 31.0
        lease = await bench.pool.acquire(CRITICAL, None)
        await turns()

        assert len(asked) == 1
        assert lease.con is bench.driver.opened[3]
        assert all(con.is_closed() for con in bench.driver.opened[:3])
        await bench.pool.release(lease)


async def test_a_caller_in_haste_condemns_no_other_connection():
    """No answer within a caller's last moment says little."""
    async with Bench(max_pool_size=3) as bench:
        await bench.pool.warmup(3)
        bench.driver.opened[2].on_execute = asyncio.Event().wait
        bench.clock.time += 31.0

        lease = await bench.pool.acquire(CRITICAL, bench.clock.now() + 0.01)

        assert lease.con is bench.driver.opened[1]
        assert not bench.driver.opened[0].is_closed()
        await bench.pool.release(lease)


async def test_a_caller_cancelled_during_the_sign_of_life_frees_the_slot():
    """The half-asked connection is not used again."""
    async with Bench() as bench:
        await bench.pool.warmup(1)
        con, asked = bench.driver.opened[0], asyncio.Event()

        async def silent():
            asked.set()
            await asyncio.Event().wait()

        con.on_execute = silent
        bench.clock.time += 31.0
        caller = bench.acquire()
        await asked.wait()
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)

        assert con.is_closed()
        assert bench.pool.snapshot().acquired == 0


async def test_a_held_connection_that_dies_is_replaced_for_the_next(bench):
    """Its holder keeps the slot until the release; the waiter gets a new connection."""
    lease = await bench.pool.acquire(CRITICAL, None)
    (waiter,) = await bench.waiting(1)
    lease.con.terminate()
    await turns()
    assert bench.pool.snapshot().acquired == 1

    await bench.pool.release(lease)
    taken = await waiter

    assert taken.con is not lease.con
    await bench.pool.release(taken)


async def test_a_connection_that_dies_between_hand_off_and_run_is_replaced(bench):
    """The waiter goes on waiting for another one."""
    lease = await bench.pool.acquire(CRITICAL, None)
    (waiter,) = await bench.waiting(1)
    await bench.pool.release(lease)
    lease.con.is_lost = True

    taken = await waiter

    assert taken.con is not lease.con
    await bench.pool.release(taken)


async def test_the_floor_is_restored_when_everything_dies():
    """Without any caller."""
    async with Bench(min_pool_size=3, max_pool_size=5) as bench:
        await bench.pool.warmup(3)
        for con in bench.driver.opened:
            con.terminate()

        await turns(10)

        assert bench.pool.snapshot().idle == 3
        assert len(bench.driver.opened) == 6


async def test_a_death_that_no_listener_reported_is_found_by_the_tick():
    """The periodic look catches what slipped through."""
    async with Bench(min_pool_size=1, max_pool_size=2) as bench:
        await bench.pool.warmup(1)
        bench.driver.opened[0].is_lost = True

        bench.pool._keeper.timers.drop_all()
        bench.pool._keeper._on_tick()
        await turns()

        assert bench.pool.snapshot().idle == 1
        assert not bench.pool._state.idle_slots[0].con.is_closed()


# --- release


async def test_a_release_resets_the_session_unless_nothing_needs_it(bench):
    """And always when a transaction is open."""
    lease = await bench.pool.acquire(CRITICAL, None)
    await bench.pool.release(lease)
    assert lease.con.resets == 1

    lease = await bench.pool.acquire(CRITICAL, None)
    lease.reset = NO_RESET
    await bench.pool.release(lease)
    assert lease.con.resets == 1

    lease = await bench.pool.acquire(CRITICAL, None)
    lease.reset, lease.con.is_in_block = NO_RESET, True
    await bench.pool.release(lease)
    assert lease.con.resets == 2


async def test_a_release_cancelled_during_the_reset_is_finished_in_the_background(bench):
    """The caller goes, the slot comes back clean."""
    lease = await bench.pool.acquire(CRITICAL, None)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow():
        begun.set()
        await go_on.wait()

    lease.con.on_reset = slow
    releasing = asyncio.create_task(bench.pool.release(lease))
    await begun.wait()
    releasing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await releasing
    assert bench.pool.snapshot().acquired == 1

    go_on.set()
    await turns()

    assert bench.pool.snapshot().idle == 1
    assert lease.con.resets == 1


async def test_a_reset_that_hangs_frees_the_slot_at_its_bound(bench):
    """The connection is terminated, the next caller gets a new one."""
    lease = await bench.pool.acquire(CRITICAL, None)
    lease.con.on_reset = asyncio.Event().wait

    await bench.pool.release(lease, timeout=0.01)

    assert lease.con.is_closed()
    assert (bench.pool.snapshot().size, bench.pool.snapshot().discarded) == (0, 1)


async def test_a_reset_that_fails_frees_the_slot_silently(bench):
    """The caller's own error, if it has one, is not masked."""
    lease = await bench.pool.acquire(CRITICAL, None)

    async def broken():
        raise asyncpg.InternalClientError("cannot switch to state 15")

    lease.con.on_reset = broken
    await bench.pool.release(lease)

    assert lease.con.is_closed()
    assert bench.pool.snapshot().size == 0


async def test_closing_ends_a_background_reset(bench):
    """A reset that its caller left behind does not keep the pool open."""
    lease = await bench.pool.acquire(CRITICAL, None)
    lease.con.on_reset = asyncio.Event().wait
    releasing = asyncio.create_task(bench.pool.release(lease))
    await turns()
    releasing.cancel()
    await turns()

    await bench.pool.close(0.0)

    assert lease.con.is_closed()
    assert bench.pool.snapshot().size == 0
    await asyncio.gather(releasing, return_exceptions=True)


async def test_a_connection_that_does_not_close_is_terminated():
    """The farewell is bounded; cancelled by the pool's close, it is skipped."""
    async with Bench(max_pool_size=2) as bench:
        await bench.pool.warmup(1)
        bench.driver.opened[0].on_close = asyncio.Event().wait

        bench.pool.expire()
        await turns()
        assert bench.pool.snapshot().closing == 1
        await bench.pool.close(0.0)

        assert bench.driver.opened[0].is_closed()


# --- how long they were kept


@pytest.mark.parametrize("end", ["release", "give", "discard", "retire", "dead"])
async def test_however_a_lease_ends_its_use_counts_once_in_its_own_lane(end):
    """From the hand-off, whoever waited before; the next holder's time is its own."""
    async with Bench() as bench:
        lease = await bench.pool.acquire(LOW, None)
        (waiter,) = await bench.waiting(1, NORMAL)
        bench.clock.time += 3.0
        if end == "give":
            lease.reset = NO_RESET
            assert bench.pool.give(lease)
        elif end == "dead":
            lease.con.terminate()
            await bench.pool.release(lease)
        elif end == "retire":
            bench.pool.retire(lease)
        else:
            await getattr(bench.pool, end)(lease)
        following = await waiter
        bench.clock.time += 1.0
        await bench.pool.release(following)

        found = {lane: (use.total, use.seconds) for lane, use in bench.pool.uses((1.0,)).items() if use.total}

        assert found == {LOW: (1, 3.0), NORMAL: (1, 1.0)}


async def test_opening_a_connection_is_timed():
    """From the attempt to the proof."""
    async with Bench() as bench:
        bench.driver.gate.clear()
        (waiter,) = await bench.waiting(1)
        bench.clock.time += 0.25
        bench.driver.gate.set()
        await bench.pool.release(await waiter)

        found = bench.pool.connects((1.0,))

        assert (found.total, found.seconds) == (1, 0.25)
