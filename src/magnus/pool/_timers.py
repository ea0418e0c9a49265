"""One timer for each callback, on the event loop; knows nothing of what the callbacks do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Timers:
    """
    Calls that are due at a time of the given clock. A callback is armed once: for the earliest time asked for.
    """

    __slots__ = ("_armed", "_now")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._armed: dict[Callable[[], None], tuple[float, asyncio.TimerHandle]] = {}

    def arm(self, callback: Callable[[], None], at: float) -> None:
        """
        Call `callback` at `at`, unless it is to be called earlier anyway.
        """
        armed = self._armed.get(callback)
        if armed is not None:
            if armed[0] <= at:
                return
            armed[1].cancel()
        delay = max(at - self._now(), 0.0)
        self._armed[callback] = (at, asyncio.get_running_loop().call_later(delay, self._fire, callback))

    def _fire(self, callback: Callable[[], None]) -> None:
        del self._armed[callback]
        callback()

    def drop_all(self) -> None:
        """
        Call nobody any more.
        """
        for _, handle in self._armed.values():
            handle.cancel()
        self._armed.clear()
