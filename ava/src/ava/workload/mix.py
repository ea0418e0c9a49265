"""Which operation, for which account: seeded choices, no I/O."""

from __future__ import annotations

import enum
import itertools
from bisect import bisect_left
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence

T = TypeVar("T")


class Operation(enum.StrEnum):
    """
    What a client can ask for.
    """

    BUY = "buy"
    SELL = "sell"
    POSITIONS = "positions"
    TRADES = "trades"
    REPORT = "report"
    IMPORT = "import"


MIX: Final[Mapping[Operation, int]] = MappingProxyType({
    Operation.BUY: 20,
    Operation.SELL: 20,
    Operation.POSITIONS: 30,
    Operation.TRADES: 20,
    Operation.REPORT: 8,
    Operation.IMPORT: 2,
})
"""Parts of a hundred requests."""

ZIPF_EXPONENT: Final = 0.8
"""The hottest of 1,000 accounts gets 6 % of the requests: enough to queue on one row, not all there is."""


class Weighted(Generic[T]):
    """
    Draws items in proportion to their weights.
    """

    def __init__(self, items: Sequence[T], weights: Sequence[float]) -> None:
        self._items = items
        self._cumulated = list(itertools.accumulate(weights))
        if len(items) != len(weights) or not items or self._cumulated[-1] <= 0:
            raise ValueError("a draw needs items, and weights that are not all 0")

    def draw(self, rng: random.Random) -> T:
        """
        Return one item.
        """
        point = rng.random() * self._cumulated[-1]
        return self._items[min(bisect_left(self._cumulated, point), len(self._items) - 1)]


def zipf(items: Sequence[T], exponent: float = ZIPF_EXPONENT) -> Weighted[T]:
    """
    Return a draw in which the n-th item's weight is 1 / n ** exponent.
    """
    return Weighted(items, [1 / rank**exponent for rank in range(1, len(items) + 1)])
