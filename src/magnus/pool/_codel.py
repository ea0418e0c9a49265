"""Which waiters of a lane to give up on, and when to come back: pure arithmetic on waits, no clock, no queue.

Theory of operation. A queue is good when it absorbs a burst and bad when it stands. CoDel tells them apart by the
*shortest* wait within an interval: a burst has runs empty and with it short waits, a standing queue has none. While
the last interval's shortest wait was above the target, the queue is overloaded.

That alone refuses callers that would have been served: a thousand clients that wait for each other's connections
stand for ever and are all served in time. So somebody must be lost anyway before anybody is shed: the newest waiter,
served after all before it, would come too late even at the best rate of the last intervals. Slots that went to callers
who ran out of time on them do not count: a queue whose every waiter gets a slot at the last moment moves fast and
serves nobody, for ever. Then whoever has waited
more than twice the target, or is hopeless (see below), is shed when its turn comes, which
brings the newest one forward; as soon as that one will be served in time, nobody is shed any more. A lane that is
`eager` sheds without that second condition: its target was set by somebody who knows that a longer wait is worthless.

Who must not be shed may still be hopeless: what it has left is less than nine of ten services took lately, or than
what was not enough for the last one that ran out of time, and no more than half of what it came with. A slot spent on
it is lost to one who could use it; in a queue where everybody waits to the last moment that would be every slot, long
after the server is well again. It is told that its time is over while a little of it is left.

Waits are counted from `restart` at the earliest, which the pool calls when it has a server again: what nobody could
serve says nothing about load, so an outage sheds nobody.
"""

from __future__ import annotations

from typing import Final

_TOO_OLD: Final = 2.0  # times the target
_INTERVALS: Final = 10.0  # times the target
_ENOUGH: Final = 16  # services seen before the estimate is believed
_UP: Final = 1.09  # by which a longer service moves the estimate, ...
_DOWN: Final = 0.99  # ... and a shorter one: they balance where one of ten is longer
_MORE: Final = 1.5  # times what was not enough
_MOST: Final = 0.5  # of a caller's patience: who has more left is never hopeless
_SMOOTH: Final = 0.125
_SOONEST: Final = 0.1
_LATEST: Final = 30.0
_UNKNOWN: Final = 1.0


class Codel:
    """
    What one lane's waits say. Seconds throughout; `target` None: nobody is ever shed.
    """

    __slots__ = (
        "_began", "_ends", "_gap", "_handed", "_last", "_least", "_needed", "_rates", "_services", "_starts",
        "is_eager", "is_overloaded", "target",
    )  # fmt: skip

    def __init__(self, target: float | None, *, is_eager: bool = False) -> None:
        self.target = target
        self.is_eager = is_eager
        self.is_overloaded = False
        self._ends = 0.0
        self._began = 0.0
        self._starts = 0.0
        self._least = 0.0
        self._handed = 0
        self._rates = (0.0, 0.0)  # of the last interval and the one before
        self._gap: float | None = None
        self._last: float | None = None
        self._needed = 0.0
        self._services = 0

    def restart(self, now: float) -> None:
        """
        Forget all waits up to now: there was no server to shorten them.
        """
        self.is_overloaded = False
        self._began = now
        self._ends = 0.0
        self._last = None

    def look(self, since: float, now: float, *, is_last: bool) -> None:
        """
        Take note of the wait of the one whose turn it is; `is_last`: nobody waits behind it.
        """
        if self.target is None:
            return
        wait = 0.0 if is_last else now - max(since, self._began)
        if now < self._ends:
            self._least = min(self._least, wait)
        else:
            # One that came after the last interval says that the interval knows nothing of its queue.
            self.is_overloaded = since < self._ends and self._least > self.target
            self._begin(wait, now)
        if is_last:
            self.is_overloaded = False

    def _begin(self, wait: float, now: float) -> None:
        assert self.target is not None
        self._rates = (self._rate(now), self._rates[0]) if self.is_overloaded else (0.0, 0.0)
        self._handed = 0
        self._starts = now
        self._least = wait
        self._ends = now + _INTERVALS * self.target

    def _rate(self, now: float) -> float:
        """
        Hand-offs a second since the interval began; one more than there were, for the one that is about to be.
        """
        return (self._handed + 1) / max(now - self._starts, 1e-9)

    def is_shed(self, since: float, deadline: float | None, now: float, *, behind: int, left: float | None) -> bool:
        """
        Judge the waiter that was looked at, before it is served; `behind` it wait so many, the newest has `left`.
        """
        if self.target is None or not self.is_overloaded:
            return False
        is_old = now - max(since, self._began) > _TOO_OLD * self.target
        if not is_old and not self._is_short(since, deadline, now):
            return False
        return self.is_eager or self._is_somebody_lost(behind, left, now)

    def is_hopeless(self, since: float, deadline: float | None, now: float, *, behind: int, left: float | None) -> bool:
        """
        Say whether a slot would be wasted on the waiter that was looked at, which must not be shed.
        """
        if self.target is None or not self.is_overloaded:
            return False
        return self._is_short(since, deadline, now) and self._is_somebody_lost(behind, left, now)

    def _is_somebody_lost(self, behind: int, left: float | None, now: float) -> bool:
        return left is not None and behind > left * max(*self._rates, self._rate(now))

    def _is_short(self, since: float, deadline: float | None, now: float) -> bool:
        if deadline is None or self._services < _ENOUGH:
            return False
        return deadline - now < min(self._needed, _MOST * (deadline - since))

    def served(self, since: float, now: float) -> None:
        """
        Count a hand-off to somebody who waited since `since`.
        """
        self._handed += 1
        last, self._last = self._last, now
        if last is not None and since <= last:  # it was waiting all the time since the last one
            gap = now - last
            self._gap = gap if self._gap is None else self._gap + (gap - self._gap) * _SMOOTH

    def wasted(self, seconds: float | None) -> None:
        """
        Take a hand-off back: its caller ran out of time, after `seconds`, before its work was done.
        """
        self._handed = max(self._handed - 1, 0)
        if seconds is not None:
            self._services += 1
            self._needed = max(self._needed, _MORE * seconds)

    def took(self, seconds: float) -> None:
        """
        Count how long somebody kept a slot, its work done: the estimate moves one step towards nine of ten.
        """
        self._services += 1
        if self._services == 1:
            self._needed = seconds
        elif seconds != self._needed:
            self._needed *= _UP if seconds > self._needed else _DOWN

    def retry_after(self, waiting: int) -> float:
        """
        Return in how many seconds `waiting` callers will have been served, 0.1 to 30; 1 when nobody was served yet.
        """
        if self._gap is None:
            return _UNKNOWN
        return min(max(self._gap * (waiting + 1), _SOONEST), _LATEST)
