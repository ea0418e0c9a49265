"""A model of a pool whose server stood still: callers come at a steady rate, each with the same patience."""

from __future__ import annotations

import heapq
from itertools import count

import pytest

from magnus.lanes import LANES
from magnus.pool._lanes import Waiter
from magnus.pool._limits import Limits
from magnus.pool._slots import HandOff
from magnus.pool._state import PoolState

NORMAL, PATIENCE, SERVICE, STILL, SECONDS = 2, 0.5, 0.01, 2.0, 8
CAPACITY = 3 / SERVICE  # NORMAL may have three of four slots


class Signal:
    def done(self) -> bool:
        return False

    def set_result(self, _result: None, /) -> None:
        """Nobody waits for it."""


class Model:
    """
    Until `STILL` the server answers nobody. Giving up on a statement takes `penalty` seconds of its slot.
    """

    def __init__(self, rate: float, penalty: float, *, may_be_shed: bool = True) -> None:
        targets = dict.fromkeys(LANES[NORMAL:], PATIENCE / 100)
        self.state = PoolState(Limits(4, 4, wait_targets=targets), uniform=lambda low, _high: low)
        for connect in self.state.tick(0.0):
            self.state.opened(connect.slot, object(), 0.0)
        self.penalty = penalty
        self.served = [0] * (SECONDS + 1)
        self._order = count()
        self._events: list[tuple[float, int, str, Waiter]] = []
        for number in range(int(SECONDS * rate)):
            at = number / rate
            caller = Waiter(NORMAL, at, at + PATIENCE, Signal())
            caller.may_be_shed = may_be_shed
            self._push(at, "arrives", caller)

    def run(self) -> list[int]:
        """
        Return how many were served in each second.
        """
        while self._events:
            now, _, event, caller = heapq.heappop(self._events)
            if event == "arrives":
                caller.slot = self.state.take(NORMAL, now)
                if caller.slot is not None:
                    self._begin(caller, now)
                else:
                    self._apply(self.state.wait(caller, now), now)
            else:
                self._end(caller, now, is_late=event == "gives up")
        return self.served

    def _end(self, caller: Waiter, now: float, *, is_late: bool) -> None:
        if is_late:
            self.state.wasted(caller.slot, now)
        else:
            self.served[min(int(now), SECONDS)] += 1
        successor = self.state.hand_over(caller.slot, now)
        if successor is not None:
            self._begin(successor, now)
        else:
            self._apply(self.state.release(caller.slot, now), now)
        self.state.check()

    def _begin(self, caller: Waiter, now: float) -> None:
        assert caller.deadline is not None
        if now >= STILL and now + SERVICE <= caller.deadline:
            self._push(now + SERVICE, "is served", caller)
        else:
            self._push(caller.deadline + self.penalty, "gives up", caller)

    def _apply(self, actions, now: float) -> None:
        for action in actions:
            if isinstance(action, HandOff):
                self._begin(action.waiter, now)

    def _push(self, at: float, event: str, caller: Waiter) -> None:
        heapq.heappush(self._events, (at, next(self._order), event, caller))


@pytest.mark.parametrize("may_be_shed", [True, False])
@pytest.mark.parametrize("load", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("penalty", [0.0, 0.01, 0.02, 0.05])
def test_service_is_back_within_two_seconds_of_a_brown_out(load, penalty, may_be_shed):
    """A queue in which everybody is served at the last moment would move as fast as callers come, and serve nobody."""
    served = Model(load * CAPACITY, penalty, may_be_shed=may_be_shed).run()

    assert served[:2] == [0, 0]
    assert all(count >= 0.95 * load * CAPACITY for count in served[4:SECONDS])


@pytest.mark.parametrize("penalty", [0.0, 0.01, 0.02, 0.05])
def test_too_much_work_does_not_keep_the_pool_from_working(penalty):
    """Ten percent more than can be done: most of what can be done is done, in every second."""
    served = Model(1.1 * CAPACITY, penalty).run()

    assert all(count >= 0.7 * CAPACITY for count in served[4:SECONDS])
