"""What the pool says to those who wait when a connect failed, and the table of lanes that is given to it."""

from __future__ import annotations

from magnus.lanes import LANES
from magnus.pool._lanes import LaneLimits, Waiter
from magnus.pool._limits import Limits
from magnus.pool._slots import Connect, Refuse
from magnus.pool._state import PoolState


class Signal:
    """A waiter that is there."""

    def done(self) -> bool:
        return False

    def set_result(self, _result: None, /) -> None:
        """Nobody waits."""


def make(waiters: int, **limits):
    """A state with waiters in the first lane, oldest first, and the connects that it asked for."""
    state = PoolState(Limits(**({"min_size": 0, "max_size": 2} | limits)), uniform=lambda low, high: (low + high) / 2)
    queued = [Waiter(0, 0.0, None, Signal()) for _ in range(waiters)]
    asked = [action for waiter in queued for action in state.wait(waiter, 0.0)]
    return state, queued, asked


def test_all_are_told_when_there_is_no_connection_to_wait_for():
    """The last connect under way failed."""
    state, waiters, (connect, *others) = make(3, max_size=1)
    assert others == []
    state.connect_failed(connect.slot, 1.0)
    error = OSError()

    assert state.refuse(error) == [Refuse(waiter) for waiter in waiters]
    assert [waiter.error for waiter in waiters] == [error] * 3
    assert state.lanes.total_waiting == 0


def test_only_the_oldest_is_told_while_another_connect_is_under_way():
    """The others may be served by it."""
    state, waiters, connects = make(3)
    assert [type(action) for action in connects] == [Connect, Connect]
    state.connect_failed(connects[0].slot, 1.0)

    assert state.refuse(OSError()) == [Refuse(waiters[0])]
    assert waiters[1].error is None
    assert state.lanes.total_waiting == 2


def test_only_the_oldest_is_told_while_somebody_holds_a_connection():
    """It may come back."""
    state, waiters, connects = make(3)
    state.opened(connects[0].slot, object(), 1.0)
    state.connect_failed(connects[1].slot, 1.0)

    assert state.refuse(OSError()) == [Refuse(waiters[1])]
    assert state.lanes.total_waiting == 1


def test_nobody_waits_nobody_is_told():
    """A connect for the floor may fail without anyone."""
    state, _, _ = make(0)

    assert state.refuse(OSError()) == []


def test_the_lanes_can_be_given():
    """In place of those computed from the size."""
    table = tuple(LaneLimits(lane, 2, 1, 5) for lane in LANES)

    assert Limits(0, 2, table=table).lanes() == table
    assert Limits(0, 2).lanes() != table
