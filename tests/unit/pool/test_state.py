"""The state machine of the pool: tables, events, invariants under random programs."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from magnus.lanes import LANES
from magnus.pool._lanes import Waiter
from magnus.pool._limits import Limits, probe_delay
from magnus.pool._slots import (
    TABLE,
    Close,
    Connect,
    Event,
    Expire,
    HandOff,
    IllegalEvent,
    Refuse,
    Retry,
    Slot,
    State,
)
from magnus.pool._state import PoolState

NORMAL = 2


class Signal:
    def __init__(self) -> None:
        self.is_done = False

    def done(self) -> bool:
        return self.is_done

    def set_result(self, _result: None, /) -> None:
        self.is_done = True


def middle(low: float, high: float) -> float:
    return (low + high) / 2


def make(*, ready: int = 0, now: float = 0.0, **limits) -> PoolState:
    """
    A state with `ready` idle connections.
    """
    given = {"min_size": 0, "max_size": 10} | limits
    state = PoolState(Limits(**given), uniform=middle)
    pending = state.warm(ready, now)
    while pending:
        action = pending.pop()
        assert isinstance(action, Connect)
        pending += state.opened(action.slot, object(), now)
    state.warm(0, now)
    state.check()
    return state


def take(state: PoolState, rank: int = NORMAL, now: float = 0.0) -> Slot:
    slot = state.take(rank, now)
    assert slot is not None
    return slot


def queue(state: PoolState, rank: int = NORMAL, now: float = 0.0, deadline: float | None = None):
    waiter = Waiter(rank, now, deadline, Signal())
    return waiter, state.wait(waiter, now)


# --- whose session has the limit that is wanted


def with_limits(*limits: float | None) -> tuple[PoolState, list[Slot]]:
    """
    A state with an idle connection for each of these limits, in the order in which they were used.
    """
    state = make(ready=len(limits), max_size=len(limits))
    slots = [take(state, rank=0) for _ in limits]
    for slot, limit in zip(slots, limits, strict=True):
        slot.session.changed(limit, is_in_transaction=False)
        state.release(slot, 0.0)
    state.check()
    return state, slots


def test_an_idle_session_that_has_the_limit_goes_first():
    """The one used last of those; when none has it, the one used last of all."""
    state, slots = with_limits(61.0, None, 61.0, 6.0)

    assert state.take(0, 1.0, 61.0) is slots[2]
    assert state.take(0, 1.0, 61.0) is slots[0]
    assert state.take(0, 1.0, 61.0) is slots[3]
    state.check()
    assert state.take(0, 1.0) is slots[1]
    assert state.take(0, 1.0) is None
    state.check()


def test_a_session_is_filed_by_the_limit_that_it_came_back_with():
    """Whatever it had before."""
    state, slots = with_limits(None, None)
    slot = take(state, rank=0)
    slot.session.changed(61.0, is_in_transaction=False)
    state.release(slot, 1.0)

    assert state.take(0, 1.0, 61.0) is slot is slots[1]
    state.check()


def test_many_different_limits_are_not_remembered_for_ever():
    """A caller may choose any timeout, so a session may have any limit."""
    state, _ = with_limits(None)
    for number in range(1000):
        slot = take(state, rank=0)
        slot.session.changed(float(number), is_in_transaction=False)
        state.release(slot, 1.0)
        state.check()

    assert len(state._idle_by) < 50


def test_a_waiter_gets_the_idle_session_that_has_its_limit_and_the_released_one_takes_its_place():
    """NORMAL is at its cap, the reserve is idle: which of its connections serves LOW makes no difference to a cap."""
    state = make(ready=4, max_size=4)
    held = [take(state) for _ in range(3)]
    (idle,) = state.idle_slots
    idle.session.changed(61.0, is_in_transaction=False)
    state._list_idle([idle])
    waiter = Waiter(3, 0.0, None, Signal())
    waiter.wanted = 61.0
    assert state.wait(waiter, 0.0) == []

    (action,) = state.release(held[0], 1.0)

    assert isinstance(action, HandOff)
    assert waiter.slot is idle
    assert waiter.was_idle
    assert list(state.idle_slots) == [held[0]]
    assert held[0].idle_since == 1.0
    state.check()


def test_a_waiter_gets_the_released_one_when_no_idle_session_has_its_limit():
    """Nothing would be gained."""
    state = make(ready=4, max_size=4)
    held = [take(state) for _ in range(3)]
    waiter = Waiter(3, 0.0, None, Signal())
    waiter.wanted = 61.0
    state.wait(waiter, 0.0)

    state.release(held[0], 1.0)

    assert waiter.slot is held[0]
    assert not waiter.was_idle
    state.check()


# --- the table


@pytest.mark.parametrize(
    ("state", "event"),
    [pair for pair in itertools.product(State, Event) if pair not in TABLE],
    ids=lambda each: each.name,
)
def test_an_event_outside_the_table_raises_and_changes_nothing(state, event):
    """Whatever the slot's state, counts and sets stay as they were."""
    pool = make(ready=2)
    slot = Slot(0)
    slot.state = state
    before = (state, pool.size, [pool.count(each) for each in State])

    with pytest.raises(IllegalEvent, match=event.name):
        pool._move(slot, event)

    assert (slot.state, pool.size, [pool.count(each) for each in State]) == before


def test_every_state_can_end():
    """From each state some events lead to GONE, and nothing leads out of it."""
    reach = {State.GONE}
    for _ in State:
        reach |= {state for (state, _), after in TABLE.items() if after in reach}

    assert reach == set(State)
    assert {after for (state, _), after in TABLE.items() if state is State.GONE} == {State.GONE}


def test_releasing_an_idle_slot_is_illegal():
    """An ownership bug of the caller is loud and harmless."""
    state = make(ready=1)
    slot = state.idle_slots[0]

    with pytest.raises(IllegalEvent, match="IDLE"):
        state.release(slot, 0.0)

    state.check()
    assert state.count(State.IDLE) == 1


def test_discarding_an_idle_slot_is_illegal():
    """As releasing it."""
    state = make(ready=1)

    with pytest.raises(IllegalEvent, match="IDLE"):
        state.discard(state.idle_slots[0], 0.0)

    state.check()


def test_opening_a_slot_twice_is_illegal():
    """A connect reports once."""
    state = make(ready=1)

    with pytest.raises(IllegalEvent, match="IDLE"):
        state.opened(state.idle_slots[0], object(), 0.0)

    state.check()


def test_freeing_a_slot_twice_changes_nothing():
    """Whoever comes second: holder, listener, close or connect."""
    state = make(ready=1)
    slot = take(state)
    state.discard(slot, 0.0)

    answers = [
        state.discard(slot, 0.0), state.release(slot, 0.0), state.lost(slot, 0.0), state.closed(slot, 0.0),
        state.connect_failed(slot, 0.0),
    ]  # fmt: skip

    assert answers == [[]] * 5
    assert state.size == 0
    assert state.connect_failures == 0
    state.check()


# --- acquire and release


def test_the_connection_used_last_is_used_first():
    """The rest may shrink away."""
    state = make(ready=3)
    a, b = take(state), take(state)
    state.release(a, 1.0)
    state.release(b, 2.0)

    assert take(state) is b


def test_a_caller_without_a_connection_makes_the_pool_connect():
    """One connect for one waiter."""
    state = make()

    _, actions = queue(state)

    assert [type(action) for action in actions] == [Connect]
    state.check()


def test_connects_under_way_are_limited():
    """A burst of callers is no burst of connects."""
    state = make(max_size=30, connect_limit=4)

    started = [action for _ in range(20) for action in queue(state)[1]]

    assert [type(action) for action in started] == [Connect] * 4
    assert state.count(State.CONNECTING) == 4


def test_a_released_connection_reaches_the_waiter_before_its_connect_does():
    """Whichever comes first; the late connection goes idle."""
    state = make(ready=1)
    slot = take(state)
    waiter, (connect,) = queue(state)

    assert state.release(slot, 1.0) == [HandOff(waiter)]
    assert waiter.slot is slot
    assert state.opened(connect.slot, object(), 2.0) == []
    assert list(state.idle_slots) == [connect.slot]
    state.check()


def test_a_waiter_cancelled_after_its_hand_off_passes_the_slot_on():
    """The slot has one owner at every moment."""
    state = make(ready=1, max_size=1)
    slot = take(state)
    (first, _), (second, _) = queue(state), queue(state)
    state.release(slot, 1.0)

    assert state.withdraw(first, 2.0) == [HandOff(second)]
    assert first.slot is None
    assert second.slot is slot
    state.check()


def test_a_waiter_cancelled_in_the_queue_leaves_no_trace():
    """The next release serves the next one."""
    state = make(ready=1, max_size=1)
    slot = take(state)
    (first, _), (second, _) = queue(state), queue(state)

    assert state.withdraw(first, 1.0) == []
    assert state.release(slot, 2.0) == [HandOff(second)]
    assert state.lanes.total_waiting == 0


def test_a_waiter_past_its_deadline_is_told_so_and_the_next_served():
    """Work that is too late is dropped, not done."""
    state = make(ready=1, max_size=1)
    slot = take(state)
    (late, _), (good, _) = queue(state, deadline=5.0), queue(state, deadline=50.0)

    assert state.release(slot, 10.0) == [Expire(late), HandOff(good)]
    assert late.slot is None


def test_a_discarded_slot_is_replaced_for_the_waiter():
    """The connection is gone, the demand is not."""
    state = make(ready=1, max_size=1)
    slot = take(state)
    queue(state)

    (connect,) = state.discard(slot, 1.0)

    assert isinstance(connect, Connect)
    assert connect.slot is not slot
    assert state.discarded == 1


def test_a_reserved_idle_slot_serves_a_lane_that_gets_room_by_a_discard():
    """Room in the lane is what the waiter missed, not a connection."""
    state = make(ready=4, max_size=4)
    held = [take(state) for _ in range(3)]
    waiter, actions = queue(state)
    assert actions == []

    assert state.discard(held[0], 1.0) == [HandOff(waiter)]
    state.check()


# --- connections that die


def test_an_idle_connection_that_dies_is_freed_at_once():
    """Nobody will be given it."""
    state = make(ready=2)
    top = state.idle_slots[-1]

    state.lost(top, 1.0)

    assert take(state) is not top
    assert state.size == 1
    state.check()


def test_an_acquired_connection_that_dies_is_freed_when_it_comes_back():
    """Its holder owns the slot until then; the next waiter does not get it."""
    state = make(ready=1, max_size=1)
    slot = take(state)
    waiter, _ = queue(state)
    assert state.lost(slot, 1.0) == []
    assert state.count(State.ACQUIRED) == 1

    actions = state.release(slot, 2.0)

    assert [type(action) for action in actions] == [Connect]
    assert waiter.slot is None
    state.check()


# --- failing connects


def test_after_a_failure_one_prober_is_left():
    """Four connects fail together: one failure, one retry, one connect when it is due."""
    state = make(max_size=30)
    connects = [action for _ in range(10) for action in queue(state)[1]]
    assert len(connects) == 4

    for connect in connects:
        state.connect_failed(connect.slot, 1.0)
    waiting = queue(state, now=1.0)[1]

    assert state.failures == 1
    (retry,) = waiting
    assert isinstance(retry, Retry)
    assert retry.at > 1.0
    assert [type(action) for action in state.tick(retry.at)] == [Connect]
    state.check()


def test_after_an_outage_connects_start_slowly():
    """1, 2, 4, and never above the limit."""
    state = make(max_size=30)
    for _ in range(25):
        queue(state)
    under_way = [slot for slot in state.slots if slot.state is State.CONNECTING]
    for slot in under_way:
        state.connect_failed(slot, 1.0)
    actions = state.tick(100.0)
    windows = [len(actions)]
    for _ in range(6):
        slot = actions[0].slot
        actions = actions[1:] + [each for each in state.opened(slot, object(), 100.0) if isinstance(each, Connect)]
        windows.append(len(actions))

    assert windows == [1, 2, 4, 4, 4, 4, 4]
    assert state.failures == 0


def test_nobody_waits_and_nothing_is_missing_no_connect_is_retried():
    """The prober works for someone."""
    state = make()
    waiter, (connect,) = queue(state)
    state.withdraw(waiter, 1.0)

    assert state.connect_failed(connect.slot, 1.0) == []
    assert state.tick(100.0) == []


@given(st.integers(1, 500), st.floats(0.0, 5.0), st.floats(1.0, 10.0), st.floats(0.0, 1.0), st.floats(0.0, 1e6))
def test_pauses_between_probes_are_bounded(failures, delay, backoff, fraction, lasted):
    """A server that is back waits less than a second for the next one; in a long outage up to six times that."""
    limits = Limits(0, 1, retry_delay=delay, retry_backoff=backoff)

    pause = probe_delay(failures, limits, lambda low, high: low + (high - low) * fraction, lasted=lasted)

    assert 0.2 <= pause <= (0.91 if lasted <= 10.0 else 5.5)
    assert lasted <= 60.0 or failures == 1 or pause >= 3.29


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_no_second_of_an_outage_has_more_than_two_attempts(fraction):
    """Wherever the second begins, and whatever chance does."""
    attempts = outage(10.0, lambda low, high: low + (high - low) * fraction)

    assert len(attempts) >= 14
    assert all(later - at >= 1.0 for at, later in zip(attempts, attempts[2:], strict=False))


def outage(seconds, uniform):
    """
    The moments at which a pool without a server tried to connect.
    """
    state = PoolState(Limits(5, 30, connect_limit=1), uniform=uniform)
    now, attempts = 0.0, []
    actions = state.tick(now)
    while now < seconds:
        connects = [action for action in actions if isinstance(action, Connect)]
        attempts += [now] * len(connects)
        actions = [each for connect in connects for each in state.connect_failed(connect.slot, now)]
        now = actions[-1].at
        actions = state.tick(now)
    return attempts


def test_a_long_outage_is_probed_less_often():
    """In the minute after the first ten minutes: one attempt in three seconds at most."""
    attempts = outage(660.0, lambda low, _high: low)

    assert 10 <= sum(at > 600.0 for at in attempts) <= 20


def test_a_lost_connection_is_replaced_by_one_connect_whoever_waits():
    """A server that restarts loses them all at once, and is not asked by four at once whether it is back."""
    state = PoolState(Limits(4, 8), uniform=lambda _low, high: high)
    for connect in state.tick(0.0):
        state.opened(connect.slot, object(), 0.0)
    lost = list(state.idle_slots)

    connects = [action for slot in lost for action in state.lost(slot, 1.0) if isinstance(action, Connect)]

    assert len(lost) == 4
    assert len(connects) == 1


# --- age, floor, expiry, close


def test_the_floor_is_kept():
    """A connection that dies is replaced without anybody asking."""
    state = make(min_size=3, ready=3)

    (connect,) = state.lost(state.idle_slots[0], 1.0)

    assert isinstance(connect, Connect)


def test_idle_connections_above_the_floor_are_closed_in_time():
    """The ones that were idle longest."""
    state = make(min_size=2, ready=5, max_idle=600.0)
    oldest = list(state.idle_slots)[:3]

    assert state.tick(599.0) == []
    assert state.tick(600.0) == [Close(slot) for slot in oldest]
    assert state.count(State.IDLE) == 2
    state.check()


def test_old_connections_are_replaced_one_by_one():
    """The same age does not mean the same moment."""
    state = make(min_size=4, ready=4, max_size=4, max_lifetime=1600.0)
    closed = []
    for now in range(1400, 1801):
        for slot in [slot for slot in state.slots if slot.state is State.CLOSING]:
            state.closed(slot, float(now))
        closed += [now for action in state.tick(float(now)) if isinstance(action, Close)]

    assert len(closed) == 4
    assert all(later - earlier >= 100 for earlier, later in itertools.pairwise(closed))


def test_an_old_connection_is_closed_when_it_is_released():
    """Also when it is never idle."""
    state = make(ready=1, max_lifetime=100.0)
    slot = take(state)

    assert state.release(slot, 1000.0) == [Close(slot)]


def test_expire_closes_idle_ones_now_and_others_on_release():
    """Also those that were connecting meanwhile."""
    state = make(ready=2)
    held = take(state)
    waiters = [queue(state) for _ in range(2)]
    late = [slot for slot in state.slots if slot.state is State.CONNECTING]
    assert waiters[0][0].slot is None or late

    idle = list(state.idle_slots)
    actions = state.expire(1.0)

    assert [action for action in actions if isinstance(action, Close)] == [Close(slot) for slot in idle]
    assert Close(held) in state.release(held, 2.0)
    assert all(Close(slot) in state.opened(slot, object(), 3.0) for slot in late)
    state.check()


def test_close_refuses_waiters_and_closes_what_comes_back():
    """Nothing new is begun."""
    state = make(ready=2, max_size=2)
    held, idle = take(state, 0), state.idle_slots[0]
    waiter, _ = queue(state, 2)
    other = take(state, 0)
    waiters = [waiter, queue(state, 0)[0]]
    state.release(other, 0.5)
    waiting = [each for each in waiters if each.slot is None]

    actions = state.close(1.0)

    assert {action.waiter for action in actions if isinstance(action, Refuse)} == set(waiting)
    assert state.release(held, 2.0) == [Close(held)]
    assert all(isinstance(action, Refuse | Close) for action in actions)
    assert idle.state in {State.ACQUIRED, State.CLOSING}
    state.check()


def test_full_since_tells_how_long_nobody_was_served():
    """From the first caller that had to wait to the next hand-off."""
    state = make(ready=1, max_size=1)
    slot = take(state)
    assert state.full_since is None

    first, _ = queue(state, now=5.0)
    queue(state, now=6.0)
    state.withdraw(first, 7.0)
    assert state.full_since == 5.0

    state.release(slot, 8.0)
    assert state.full_since is None
    assert state.last_handoff == 8.0


# --- random programs


LIMITS = st.sampled_from((None, 6.0, 61.0))


class Program(RuleBasedStateMachine):
    """
    Any order of any events; the shell's side is a model that keeps what each action entrusted to it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.limits = Limits(2, 5, max_idle=50.0, max_lifetime=200.0)
        self.state = PoolState(self.limits, uniform=middle)
        self.connecting: list[Slot] = []
        self.closing: list[Slot] = []
        self.known: list[Slot] = []
        self.held: list[Slot] = []
        self.queued: list[Waiter] = []
        self.handed: list[Waiter] = []
        self.did(self.state.tick(0.0))

    def did(self, actions) -> None:
        for action in actions:
            match action:
                case HandOff(waiter):
                    assert waiter in self.queued
                    assert waiter.slot not in self.held
                    self.queued.remove(waiter)
                    self.handed.append(waiter)
                    waiter.signal.set_result(None)
                case Expire(waiter) | Refuse(waiter):
                    assert waiter.slot is None
                    self.queued.remove(waiter)
                    waiter.signal.set_result(None)
                case Connect(slot):
                    self.connecting.append(slot)
                    self.known.append(slot)
                case Close(slot):
                    self.closing.append(slot)
                case Retry(at):
                    assert at > self.now

    @rule(rank=st.integers(0, 4), patience=st.none() | st.floats(0.1, 20.0), wanted=LIMITS)
    def acquire(self, rank, patience, wanted):
        if self.state.is_closing:
            return
        has_it = [slot for slot in self.state.idle_slots if slot.session.present == wanted]
        slot = self.state.take(rank, self.now, wanted)
        if slot is not None:
            assert slot not in self.held
            assert slot in has_it or not has_it
            self.held.append(slot)
            return
        waiter = Waiter(rank, self.now, None if patience is None else self.now + patience, Signal())
        waiter.wanted = wanted
        self.queued.append(waiter)
        self.did(self.state.wait(waiter, self.now))

    @precondition(lambda self: self.handed)
    @rule(data=st.data(), is_cancelled=st.booleans())
    def run(self, data, is_cancelled):
        waiter = data.draw(st.sampled_from(self.handed))
        self.handed.remove(waiter)
        if is_cancelled:
            self.did(self.state.withdraw(waiter, self.now))
        else:
            self.held.append(waiter.slot)

    @precondition(lambda self: self.queued)
    @rule(data=st.data())
    def cancel(self, data):
        waiter = data.draw(st.sampled_from(self.queued))
        waiter.signal.set_result(None)
        self.queued.remove(waiter)
        self.did(self.state.withdraw(waiter, self.now))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), is_fit=st.booleans(), limit=LIMITS)
    def give_back(self, data, is_fit, limit):
        slot = data.draw(st.sampled_from(self.held))
        self.held.remove(slot)
        slot.session.changed(limit, is_in_transaction=False)
        self.did(self.state.release(slot, self.now) if is_fit else self.state.discard(slot, self.now))

    @precondition(lambda self: self.connecting)
    @rule(data=st.data(), is_good=st.booleans())
    def connect(self, data, is_good):
        slot = data.draw(st.sampled_from(self.connecting))
        self.connecting.remove(slot)
        if is_good:
            self.did(self.state.opened(slot, object(), self.now))
        else:
            self.did(self.state.connect_failed(slot, self.now))

    @precondition(lambda self: self.closing)
    @rule(data=st.data())
    def closed(self, data):
        slot = data.draw(st.sampled_from(self.closing))
        self.closing.remove(slot)
        self.did(self.state.closed(slot, self.now))

    @precondition(lambda self: any(slot.con is not None for slot in self.known))
    @rule(data=st.data())
    def lose(self, data):
        slots = [slot for slot in self.known if slot.con is not None]
        self.did(self.state.lost(data.draw(st.sampled_from(slots)), self.now))

    @rule(seconds=st.floats(0.01, 60.0))
    def wait(self, seconds):
        self.now += seconds
        self.did(self.state.tick(self.now))

    @rule()
    def expire(self):
        self.did(self.state.expire(self.now))

    @rule(floor=st.integers(0, 9))
    def warm(self, floor):
        self.did(self.state.warm(floor, self.now))

    @invariant()
    def slots_are_conserved(self):
        self.state.check()
        acquired = len(self.held) + len(self.handed)
        assert self.state.count(State.CONNECTING) == len(self.connecting)
        assert self.state.count(State.CLOSING) == len(self.closing)
        assert self.state.count(State.ACQUIRED) == acquired
        assert self.state.lanes.total_waiting == len(self.queued)

    def teardown(self):
        """
        When the world behaves again, everybody who waits is served; then the pool can be emptied.
        """
        for _ in range(100 * (len(self.queued) + 5)):
            self.now += 1.0
            self.did(self.state.tick(self.now))
            while self.connecting:
                self.did(self.state.opened(self.connecting.pop(), object(), self.now))
            while self.handed:
                self.did(self.state.release(self.handed.pop().slot, self.now))
            while self.held:
                self.did(self.state.release(self.held.pop(), self.now))
            while self.closing:
                self.did(self.state.closed(self.closing.pop(), self.now))
            if not (self.queued or self.handed or self.held):
                break
        assert self.queued == []
        self.did(self.state.close(self.now))
        for slot in self.connecting:
            self.did(self.state.connect_failed(slot, self.now))
        for slot in self.closing:
            self.did(self.state.closed(slot, self.now))
        assert self.state.size == 0


TestProgram = Program.TestCase
TestProgram.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)


def test_a_rank_is_a_lane():
    """Ranks count the lanes from the most important one."""
    assert LANES[NORMAL] == "normal"
