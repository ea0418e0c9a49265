"""Delays between attempts, and how many of them there may be: pure arithmetic, no clock, no asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable


def full_jitter(
    attempt: int, *, base: float, factor: float, cap: float, uniform: Callable[[float, float], float]
) -> float:
    """
    Seconds to wait before attempt number `attempt + 1`; `attempt` starts at 1 after the first failure.

    Full jitter, uniform(0, min(cap, base * factor ** (attempt - 1))): a jitter that only adds keeps a herd together
    and merely delays it (AWS Architecture Blog, "Exponential Backoff And Jitter").
    """
    ceiling = cap if attempt > _OVERFLOW else min(cap, base * factor ** (attempt - 1))
    return uniform(0.0, ceiling)


_OVERFLOW = 64


class Budget:
    """
    Bounds what repeats add to the load: one for ten units, and as many a second as the pool has slots.

    When everything fails, repeats multiply the load just when the server can bear it least; a tenth more it can bear
    (Google SRE Book, "Handling Overload"). The slots are the floor because a restart of the server takes that many
    units at once, and each of them deserves its repeat. No more than that is saved up.
    """

    __slots__ = ("_at", "_tokens", "_units")

    RATIO: Final = 0.1

    def __init__(self) -> None:
        self._tokens = 0.0
        self._at = float("-inf")
        self._units = 0

    def take(self, now: float, *, units: int, size: int) -> bool:
        """
        Ask for one repeat. `units` have been begun so far, the pool has `size` slots.
        """
        earned = self.RATIO * max(units - self._units, 0) + size * min(now - self._at, 1.0)
        self._tokens = min(self._tokens + earned, float(size))
        self._at, self._units = now, units
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
