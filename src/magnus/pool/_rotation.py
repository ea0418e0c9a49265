"""When a connection is to be replaced: pure numbers, no slots, no clock.

Theory of operation. A connection lives for at most `lifetime`. Were all of them to die at that age, a pool warmed at
once would be cold at once, and so would all the pools that one deployment started. So each new connection gets an end
of its own: the latest one within its lifetime (less up to a tenth, by chance, for the pools elsewhere) that is at least
lifetime/size away from every end given before. The first ones die young for that; afterwards the ends stand evenly.
When the ends given before leave no such gap, two fifths of the distance do, and always can.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_CHANCE: Final = 0.1
_LEAST: Final = 0.4
_ROUNDING: Final = 1.0 - 1e-6


def pace(lifetime: float, size: int) -> float:
    """
    Return the seconds that lie between two replacements at least.
    """
    return _LEAST * lifetime / size


def end_of_life(
    now: float, lifetime: float, size: int, others: Sequence[float], uniform: Callable[[float, float], float]
) -> float:
    """
    Return when a connection that opens at `now` is to be replaced. `others` are the ends of the rest, fewer than
    `size`, in any order.
    """
    latest = now + lifetime * uniform(1.0 - _CHANCE, 1.0)
    gap = lifetime / size
    found = _latest_free(latest, gap, others)
    return found if found >= now + gap / 2 else _latest_free(latest, _LEAST * gap, others)


def _latest_free(latest: float, gap: float, others: Sequence[float]) -> float:
    ends, end = sorted(others), latest
    while True:
        at = bisect_left(ends, end)
        near = [other for other in ends[max(at - 1, 0) : at + 1] if abs(other - end) < gap * _ROUNDING]
        if not near:
            return end
        end = min(near) - gap
