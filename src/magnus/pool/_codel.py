"""Which waiters of a lane to give up on, and when to come back: pure arithmetic on waits, no clock, no queue.

Theory of operation. A queue is good when it absorbs a burst and bad when it stands. CoDel tells them apart by the
*shortest* wait within an interval: a burst has runs empty and with it short waits, a standing queue has none. While
the last interval's shortest wait was above the target, whoever waited more than twice the target is shed when its
turn comes, so that those behind it are served fresh. A queue that runs empty is never standing.

Waits are counted from `restart` at the earliest, which the pool calls when it has a server again: what nobody could
serve says nothing about load, so an outage sheds nobody.
"""

from __future__ import annotations

from typing import Final

_TOO_OLD: Final = 2.0  # times the target
_INTERVALS: Final = 10.0  # times the target
_ENOUGH: Final = 16  # services seen before their median is believed
_STEP: Final = 0.05  # of the estimate, by which one observation moves it
_SMOOTH: Final = 0.125
_SOONEST: Final = 0.1
_LATEST: Final = 30.0
_UNKNOWN: Final = 1.0


class Codel:
    """
    What one lane's waits say. Seconds throughout; `target` None: nobody is ever shed.
    """

    __slots__ = ("_began", "_ends", "_gap", "_last", "_least", "_service", "_services", "is_overloaded", "target")

    def __init__(self, target: float | None) -> None:
        self.target = target
        self.is_overloaded = False
        self._began = 0.0
        self._ends = 0.0
        self._least = 0.0
        self._gap: float | None = None
        self._last: float | None = None
        self._service = 0.0
        self._services = 0

    def restart(self, now: float) -> None:
        """
        Forget all waits up to now: there was no server to shorten them.
        """
        self.is_overloaded = False
        self._began = now
        self._ends = 0.0
        self._last = None

    def is_shed(self, since: float, deadline: float | None, now: float, *, is_last: bool) -> bool:
        """
        Judge the waiter whose turn it is, before it is served; `is_last`: nobody waits behind it.
        """
        if self.target is None:
            return False
        wait = 0.0 if is_last else now - max(since, self._began)
        if since >= self._ends:  # it came after the last interval, so that one says nothing about its queue
            self.is_overloaded = False
            self._begin(wait, now)
        elif now >= self._ends:
            self.is_overloaded = self._least > self.target
            self._begin(wait, now)
        else:
            self._least = min(self._least, wait)
        if is_last:
            self.is_overloaded = False
        return (self.is_overloaded and wait > _TOO_OLD * self.target) or self._is_hopeless(deadline, now)

    def _begin(self, wait: float, now: float) -> None:
        assert self.target is not None
        self._least = wait
        self._ends = now + _INTERVALS * self.target

    def _is_hopeless(self, deadline: float | None, now: float) -> bool:
        return deadline is not None and self._services >= _ENOUGH and deadline - now < self._service

    def served(self, since: float, now: float) -> None:
        """
        Count a hand-off to somebody who waited since `since`.
        """
        last, self._last = self._last, now
        if last is not None and since <= last:  # it was waiting all the time since the last one
            gap = now - last
            self._gap = gap if self._gap is None else self._gap + (gap - self._gap) * _SMOOTH

    def took(self, seconds: float) -> None:
        """
        Count how long somebody kept a slot: the estimate moves towards the median, one step an observation.
        """
        self._services += 1
        if self._services == 1:
            self._service = seconds
        elif seconds != self._service:
            self._service *= 1.0 + _STEP if seconds > self._service else 1.0 - _STEP

    def retry_after(self, waiting: int) -> float:
        """
        Return in how many seconds `waiting` callers will have been served, 0.1 to 30; 1 when nobody was served yet.
        """
        if self._gap is None:
            return _UNKNOWN
        return min(max(self._gap * (waiting + 1), _SOONEST), _LATEST)
