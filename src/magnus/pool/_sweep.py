"""One timer for the limits of all running statements; knows neither what runs nor on which connection.

Theory of operation. A timer a statement costs more than the rest of the layer. So a statement only notes its task and
its deadline in the `Watch` of its connection; one timer stands at the earliest deadline that was noted, looks at all
watches when it fires, and stands then at the earliest that is left. It ends an overdue statement as `asyncio.timeout`
does: by cancelling its task, which the statement tells from a cancellation of somebody else's by the task's count of
cancellations, and takes back. When both came, somebody else's prevails. What must not be cancelled is cut (`guard`).

A watch is entered and left without an await between it and the statement, so a task is only ever cancelled where it
waits for that statement.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from magnus.pool._slots import Watch

_LEAST: Final = 0.001  # a loop may round a shorter delay down to none, and spin


class Sweep:
    """
    The timer over `watches`, in seconds of the clock `now`.
    """

    __slots__ = ("_handle", "_loop", "_now", "_watches", "next_at")

    def __init__(self, now: Callable[[], float], watches: Callable[[], Iterable[Watch]]) -> None:
        self._now = now
        self._watches = watches
        self._handle: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # the pool's, which takes no callers from another
        self.next_at = math.inf

    def enter(self, watch: Watch, deadline: float) -> bool:
        """
        Watch the statement that the running task is about to await. False: this watch is another task's.

        The caller calls `watch.leave` afterwards, whatever came, before anything else is awaited.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(self._loop)
        if watch.task is not None or task is None:
            return False
        watch.task = task
        watch.deadline = deadline
        watch.cancelling = task.cancelling()
        if deadline < self.next_at:
            self._arm(deadline)
        return True

    def guard(self, watch: Watch, seconds: float, cut: Callable[[], None]) -> bool:
        """
        As `enter`, for what must not be cancelled: `cut` is called when it has not left after so many seconds.
        """
        is_watched = self.enter(watch, self._now() + seconds)
        if is_watched:
            watch.cut = cut
        return is_watched

    def stop(self) -> None:
        """
        Drop the timer; statements that run are not ended any more.
        """
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self.next_at = math.inf

    def _arm(self, at: float) -> None:
        self.stop()
        self.next_at = at
        delay = max(at - self._now(), _LEAST)
        self._handle = asyncio.get_running_loop().call_later(delay, self._fire)

    def _fire(self) -> None:
        self._handle = None
        self.next_at = math.inf
        now, earliest = self._now(), math.inf
        cuts: list[Callable[[], None]] = []
        for watch in self._watches():
            if watch.task is None or watch.is_swept:
                continue
            if watch.deadline <= now:
                watch.is_swept = True
                if watch.cut is None:
                    watch.task.cancel()
                else:
                    cuts.append(watch.cut)
            elif watch.deadline < earliest:
                earliest = watch.deadline
        if earliest < math.inf:
            self._arm(earliest)
        for cut in cuts:  # last: it may free slots, and with them their watches
            cut()
