"""Delays between attempts: pure arithmetic, no clock, no asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
