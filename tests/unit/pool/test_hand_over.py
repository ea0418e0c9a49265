"""A slot that stays inside its lane: given on without bookkeeping, and only when the bookkeeping would say the same."""

from __future__ import annotations

import pytest

from magnus.pool._lanes import Waiter
from magnus.pool._limits import Limits
from magnus.pool._slots import HandOff, State
from magnus.pool._state import PoolState

CRITICAL, NORMAL, LOW = 0, 2, 3


class Signal:
    def __init__(self):
        self.is_done = False

    def done(self):
        return self.is_done

    def set_result(self, _result):
        self.is_done = True


def waiter(state, rank, deadline=None):
    found = Waiter(rank, 0.0, deadline, Signal())
    state.wait(found, 0.0)
    return found


class Held(PoolState):
    """A state that remembers who holds what."""


@pytest.fixture
def state():
    """Two slots, one held by NORMAL and one by CRITICAL: nothing is idle."""
    found = Held(Limits(min_size=2, max_size=2), uniform=lambda _low, high: high)
    for action in found.warm(2, 0.0):
        found.opened(action.slot, object(), 0.0)
    found.normal, found.critical = found.take(NORMAL, 0.0), found.take(CRITICAL, 0.0)
    found.check()
    return found


def test_the_next_of_the_lane_inherits_it(state):
    """In order; usage stays as it is."""
    first, second = waiter(state, NORMAL), waiter(state, NORMAL)

    assert state.hand_over(state.normal, 1.0) is first
    assert first.slot is state.normal
    state.check()
    assert state.hand_over(state.normal, 1.0) is second
    assert state.hand_over(state.normal, 1.0) is None
    state.check()


@pytest.mark.parametrize("other", [CRITICAL, LOW])
def test_with_waiters_in_another_lane_the_shares_decide(state, other):
    """Nothing is changed; `release` finds everyone still there."""
    waiters = [waiter(state, NORMAL), waiter(state, other)]

    assert state.hand_over(state.normal, 1.0) is None
    assert all(found.slot is None for found in waiters)
    assert state.lanes.total_waiting == 2
    assert any(isinstance(action, HandOff) for action in state.release(state.normal, 1.0))
    state.check()


def test_those_who_went_away_are_passed_over_and_those_too_late_are_left_to_release(state):
    """Only `release` may tell a waiter that its time is over."""
    gone, late, last = waiter(state, NORMAL), waiter(state, NORMAL, 0.5), waiter(state, NORMAL)
    gone.signal.is_done = True

    assert state.hand_over(state.normal, 1.0) is None
    assert late.slot is last.slot is None
    state.check()
    assert [type(action).__name__ for action in state.release(state.normal, 1.0)] == ["Expire", "HandOff"]
    assert last.slot is state.normal


@pytest.mark.parametrize("why", ["dead", "old", "expired", "closing", "not acquired"])
def test_a_slot_that_may_have_to_be_closed_is_not_given_on(state, why):
    """`release` looks closer."""
    waiting = waiter(state, NORMAL)
    match why:
        case "dead":
            state.lost(state.normal, 0.5)
        case "old":
            state.normal.expires = 0.5
        case "expired":
            state.expire(0.5)
        case "closing":
            state.is_closing = True
        case "not acquired":
            state.normal.state = State.IDLE

    assert state.hand_over(state.normal, 1.0) is None
    assert waiting.slot is None
