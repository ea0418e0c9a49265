"""Values for a statement's parameters: drawn as a column's statistics say they are spread, or made up by type; pure.

A column's values are in two parts, as pg_stats has them: the most common ones with their shares, and the bounds of a
histogram of the rest, each step of which holds as many rows.
"""

from __future__ import annotations

import math
import uuid
from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from random import Random

    Draw = Callable[[Random], Any]

_PREFIX: Final = 3
_MONTH: Final = 30 * 86_400.0
_FRESH: Final[Mapping[str, tuple[int, int]]] = {
    "int2": (1, 2**15 - 1), "int4": (1, 2**31 - 1), "int8": (1, 2**62),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Spread:
    """
    The values of a column.

    Attributes:
        common: The most common ones.
        shares: What part of the rows each of them has.
        bounds: Of the others, in order; each step has as many rows.
    """

    common: Sequence[Any]
    shares: Sequence[float]
    bounds: Sequence[Any]

    def __bool__(self) -> bool:
        return bool(self.common or self.bounds)

    def draw(self, *, is_between: bool) -> Draw:
        """
        Return a draw as the rows are spread. `is_between`: any value within a step, not its ends alone.
        """
        common, bounds = list(self.common), list(self.bounds)
        cumulated = list(accumulate(self.shares))
        rest = max(0.0, 1 - cumulated[-1]) if cumulated else 1.0
        whole = (cumulated[-1] if cumulated else 0.0) + (rest if bounds else 0.0)

        def drawn(rng: Random) -> Any:
            point = rng.random() * whole
            if cumulated and (point < cumulated[-1] or not bounds):
                return common[min(bisect_right(cumulated, point), len(common) - 1)]
            step = rng.randrange(max(1, len(bounds) - 1))
            return _within(bounds[step], bounds[step + 1], rng) if is_between and len(bounds) > 1 else bounds[step]

        return drawn

    def step(self) -> Draw | None:
        """
        Return a draw of the ends of one step of the histogram: a range of a small part of the rows; None without any.
        """
        ends = list(self.bounds or self.common)
        try:
            ends.sort()
        except TypeError:  # not every type has an order here
            return None
        if len(ends) < 2:
            return None

        def drawn(rng: Random) -> tuple[Any, Any]:
            place = rng.randrange(len(ends) - 1)
            return ends[place], ends[place + 1]

        return drawn


def _within(low: Any, high: Any, rng: Random) -> Any:
    """
    Return a value from `low` to `high`, where the type has values between two others; else `low`.
    """
    if isinstance(low, bool):
        return low
    if isinstance(low, int) and isinstance(high, int):
        return rng.randint(low, high)
    if isinstance(low, float) and isinstance(high, float):
        return rng.uniform(low, high) if math.isfinite(low) and math.isfinite(high) else low
    if isinstance(low, Decimal) and isinstance(high, Decimal) and low.is_finite() and high.is_finite():
        found = low + (high - low) * Decimal(rng.random())
        return found.quantize(min(low, high, key=lambda value: value.as_tuple().exponent))
    try:
        return low + timedelta(seconds=rng.random() * (high - low).total_seconds())
    except (TypeError, AttributeError, OverflowError):
        return low


def fresh(kind: str, spread: Spread) -> Draw | None:
    """
    Return a draw of values that a unique column hardly has yet, beyond those that it has; None where none can be made.
    """
    if kind == "uuid":
        return lambda rng: uuid.UUID(int=rng.getrandbits(128), version=4)
    if kind in {"text", "varchar", "bpchar"}:
        return lambda rng: f"{rng.getrandbits(64):016x}"
    if kind in _FRESH:
        low, high = _FRESH[kind]
        known = [*spread.bounds, *spread.common]
        low = min(max([low, *(value + 1 for value in known)]), high)
        return lambda rng: rng.randint(low, high)
    return None


def prefix(draw: Draw) -> Draw:
    """
    Return a draw of patterns for LIKE: the first letters of a value.
    """
    return lambda rng: str(draw(rng))[:_PREFIX] + "%"


def listed(draw: Draw, size: int) -> Draw:
    """
    Return a draw of `size` values at once.
    """
    return lambda rng: [draw(rng) for _ in range(size)]


def constant(value: Any) -> Draw:
    return lambda _: value


def made_up(kind: str) -> Draw | None:
    """
    Return a draw of a type's values where nothing says which, by the type's name (`int4`, `text[]`); None: no idea.
    """
    if kind.endswith("[]"):
        item = made_up(kind.removesuffix("[]"))
        return None if item is None else listed(item, 1)
    return _MADE_UP.get(kind)


def _moment(rng: Random) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=rng.random() * _MONTH)


def _day(rng: Random) -> date:
    return _moment(rng).date()


def _whole(rng: Random) -> int:
    return rng.randint(1, 100)


def _word(rng: Random) -> str:
    return f"x{rng.randint(1, 100)}"


_MADE_UP: Final[Mapping[str, Draw]] = {
    "int2": _whole, "int4": _whole, "int8": _whole, "oid": _whole,
    "float4": lambda rng: rng.uniform(0, 100), "float8": lambda rng: rng.uniform(0, 100),
    "numeric": lambda rng: Decimal(rng.randint(1, 10_000)) / 100,
    "bool": lambda rng: rng.random() < 0.5,
    "text": _word, "varchar": _word, "bpchar": _word, "name": _word,
    "timestamptz": _moment, "timestamp": lambda rng: _moment(rng).replace(tzinfo=None), "date": _day,
    "time": lambda rng: time(rng.randrange(24), rng.randrange(60)),
    "interval": lambda rng: timedelta(seconds=rng.randint(1, 86_400)),
    "uuid": lambda rng: uuid.UUID(int=rng.getrandbits(128), version=4),
    "json": constant("{}"), "jsonb": constant("{}"), "bytea": constant(b""),
}  # fmt: skip
