"""What is loaded and what is asked for: sizes, identity, and whether what is there will do; pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from ava.data.market import MOST_INSTRUMENTS

if TYPE_CHECKING:
    from datetime import date, datetime

SMALLEST: Final = 0.001
LARGEST: Final = 100.0
_FEWEST_ACCOUNTS: Final = 5
_FEWEST_INSTRUMENTS: Final = 40


class LoadError(Exception):
    """
    The data cannot be loaded; the text says why and what to do. Nothing was changed.
    """


@dataclass(frozen=True, slots=True)
class Size:
    """
    How much a scale stands for: scale 1 is 1,000 accounts, 1,000,000 trades and 200 instruments.
    """

    accounts: int
    trades: int
    instruments: int


@dataclass(frozen=True, slots=True)
class Dataset:
    """
    The row of `ava_dataset`.
    """

    scale: Decimal
    seed: int
    as_of: date
    accounts: int
    trades: int
    loaded_at: datetime

    def __str__(self) -> str:
        return f"scale {self.scale.normalize():f}, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    What is asked for. `as_of` None: today if it has to be generated, any day if it is there.

    Raises:
        LoadError: scale or seed is out of range.
    """

    scale: float
    seed: int
    as_of: date | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and SMALLEST <= self.scale <= LARGEST):
            raise LoadError(f"scale must be from {SMALLEST:g} to {LARGEST:g}, not {self.scale:g}")
        if not 0 <= self.seed < 2**63:
            raise LoadError(f"seed must be from 0 to 9223372036854775807, not {self.seed}")
        if self.as_of is not None and not 1970 <= self.as_of.year <= 9000:
            raise LoadError(f"the reference date must lie in the years 1970 to 9000, not {self.as_of}")

    @property
    def exact_scale(self) -> Decimal:
        return Decimal(repr(float(self.scale)))

    @property
    def size(self) -> Size:
        return Size(
            accounts=max(round(1000 * self.scale), _FEWEST_ACCOUNTS),
            trades=round(1_000_000 * self.scale),
            instruments=min(max(round(200 * self.scale), _FEWEST_INSTRUMENTS), MOST_INSTRUMENTS),
        )

    def is_met_by(self, found: Dataset) -> bool:
        same_day = self.as_of is None or self.as_of == found.as_of
        return same_day and (self.exact_scale, self.seed) == (found.scale, found.seed)
