"""Rotation, keepalive, sizes and pauses of the pool's state: cases, and random programs with all of them."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import precondition, rule

from magnus.pool._life import RETIRED, PoolLife
from magnus.pool._limits import Limits
from magnus.pool._slots import Close, Connect, Retry, State
from tests.unit.pool.test_state import NORMAL, Program, middle, queue, take


def make(*, ready: int, **limits) -> PoolLife:
    """
    A state with `ready` idle connections, opened at 0.
    """
    given = {"min_size": ready, "max_size": 10, "max_lifetime": 1000.0} | limits
    state = PoolLife(Limits(**given), uniform=middle)
    pending = state.tick(0.0)
    while pending:
        action = pending.pop()
        assert isinstance(action, Connect)
        pending += state.opened(action.slot, object(), 0.0)
    state.check()
    return state


def test_the_replacement_is_there_before_the_old_one_goes():
    """One at a time; while it connects, the old one serves."""
    state = make(ready=2)
    old = min(state.idle_slots, key=lambda slot: slot.expires)

    (connect,) = state.tick(old.expires)
    assert isinstance(connect, Connect)
    assert state.tick(old.expires + 500.0) == []
    assert state.count(State.IDLE) == 2

    assert state.opened(connect.slot, object(), old.expires + 1.0) == [Close(old)]
    assert state.count(State.IDLE) == 2
    state.check()


def test_an_old_connection_in_use_goes_when_it_comes_back():
    """Its replacement is there by then; nobody is disturbed."""
    state = make(ready=1)
    slot = take(state)
    (connect,) = state.tick(slot.expires)
    assert state.release(slot, slot.expires) == []
    slot = take(state)
    assert state.opened(connect.slot, object(), slot.expires + 1.0) == []

    assert slot.generation == RETIRED
    assert state.release(slot, slot.expires + 2.0) == [Close(slot)]


def test_a_full_pool_breaks_first_and_never_grows():
    """Idle ones at the tick, acquired ones when they come back; paced."""
    state = make(ready=2, max_size=2)
    held = take(state)

    actions = state.tick(2000.0)

    assert [type(action) for action in actions] == [Close]
    assert state.release(held, 2001.0) == []
    assert state.size == 2
    state.check()


def test_without_a_server_nothing_is_given_up():
    """An old connection is worth more than none."""
    state = make(ready=2)
    (connect,) = state.tick(2000.0)
    state.connect_failed(connect.slot, 2000.0)

    assert all(isinstance(action, Retry) for action in state.tick(2000.1))
    assert state.count(State.IDLE) == 2
    slot = take(state)
    assert state.release(slot, 2000.2) == []
    (again,) = state.tick(2100.0)  # a replacement is a probe as good as any
    assert isinstance(again, Connect)
    assert state.count(State.IDLE) == 2


def test_a_full_pool_gives_nothing_up_while_connects_fail():
    """Neither at the tick nor at a release."""
    state = make(ready=2, max_size=2)
    state._failures = 1
    slot = take(state)

    assert state.tick(2000.0) == []
    assert state.release(slot, 2000.0) == []


def test_replacements_are_paced_even_when_all_are_overdue():
    """After a long pause of the process, say: one in each two fifths of lifetime/size."""
    state = make(ready=5, max_size=10)
    times = []
    now = 5000.0
    while now < 5400.0:
        for action in state.tick(now):
            if isinstance(action, Connect):
                times.append(now)
                closing = state.opened(action.slot, object(), now)
                for close in closing:
                    if isinstance(close, Close):
                        state.closed(close.slot, now)
        now += 1.0

    assert len(times) == 5
    assert all(after - before >= 40.0 for before, after in itertools.pairwise(times))


def test_expiry_can_be_spread():
    """Every connection within the time, one after the other."""
    state = make(ready=4)
    first = set(state.slots)
    actions, now = state.expire_within(20.0, 0.0), 0.0
    while now < 25.0:
        for action in actions:
            if isinstance(action, Connect):
                actions += state.opened(action.slot, object(), now)
            elif isinstance(action, Close):
                state.closed(action.slot, now)
        now += 0.5
        actions = state.tick(now)

    assert not first & state.slots
    assert state.count(State.IDLE) == 4


def test_the_connection_that_is_silent_longest_is_asked():
    """When it is time, and only while nothing else needs it."""
    state = make(ready=2)
    assert state.reserve(60.0, 40.0) is None

    slot = state.reserve(60.0, 60.0)
    assert slot is not None
    assert state.count(State.ACQUIRED) == 1
    state.check()
    assert state.restore(slot, 60.1) == []
    assert slot.idle_since == 0.0
    other = state.reserve(60.0, 60.2)
    assert other is not slot
    waiter, _ = queue(state, NORMAL, 60.3)
    state.take(NORMAL, 60.3)
    assert waiter.slot is None


class Life(Program):
    """
    The programs of the plain state, with everything of a pool's life among their steps.
    """

    def __init__(self) -> None:
        super().__init__()
        self.connecting.clear()
        self.known.clear()
        self.pinged = []
        self.state = PoolLife(self.limits, uniform=middle)
        self.did(self.state.tick(0.0))

    @rule(low=st.integers(0, 3), more=st.integers(0, 5))
    def resize(self, low, more):
        self.limits = Limits(low, max(low + more, 1), max_idle=50.0, max_lifetime=200.0)
        self.did(self.state.resize(self.limits, self.now))

    @rule()
    def pause(self):
        self.state.pause()

    @rule()
    def resume(self):
        self.did(self.state.resume(self.now))

    @rule(seconds=st.floats(0.0, 100.0))
    def expire_within(self, seconds):
        self.did(self.state.expire_within(seconds, self.now))

    @rule()
    def ask(self):
        slot = self.state.reserve(10.0, self.now)
        if slot is not None:
            self.held.append(slot)
            self.pinged.append(slot)

    @precondition(lambda self: any(slot in self.held for slot in self.pinged))
    @rule()
    def answered(self):
        slot = next(slot for slot in self.pinged if slot in self.held)
        self.pinged.remove(slot)
        self.held.remove(slot)
        self.did(self.state.restore(slot, self.now))

    @rule()
    def mend(self):
        """
        Right books are left alone.
        """
        found, orphans, actions = self.state.mend({*self.connecting, *self.closing}, self.now)
        assert (found, orphans, actions) == ([], [], [])

    def teardown(self):
        self.did(self.state.resume(self.now))
        super().teardown()


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
