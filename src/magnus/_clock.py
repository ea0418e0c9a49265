"""Time, passed in wherever it is needed; knows no PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """
    Monotonic seconds and a sleep on them; tests pass one that they move by hand.
    """

    def now(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class MonotonicClock:
    """
    The real one. Never wall-clock time: it may jump.
    """

    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
