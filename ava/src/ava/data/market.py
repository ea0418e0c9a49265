"""The generated market: instruments, trading days and closing prices; knows no account and no table.

Reproducible by construction: of the random generator only `random()` is used, whose sequence Python promises to keep,
and of floating point only the four operations that IEEE 754 fixes to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from random import Random
from typing import TYPE_CHECKING, Final

from ava.data.fixed import GRAINS

if TYPE_CHECKING:
    from collections.abc import Callable

MONTHS: Final = 36
"""Full months of history before the month of the reference date."""

_HOUSES: Final = (
    "Alder", "Birch", "Cedar", "Dorn", "Elm", "Fjord", "Garnet", "Harbor", "Indigo", "Jasper",
    "Kestrel", "Linden", "Maple", "Nordic", "Onyx", "Pine", "Quartz", "Raven", "Sable", "Tern",
)  # fmt: skip
_TRADES: Final = (
    "Aerospace", "Biotech", "Capital", "Devices", "Energy", "Foods", "Grid", "Health", "Insurance", "Logistics",
)  # fmt: skip
MOST_INSTRUMENTS: Final = len(_HOUSES) * len(_TRADES)
# Two letters of each word are a symbol, so no two words of a list begin with the same two.

_PLACES: Final = (("USD", "XNAS", "Inc."), ("EUR", "XETR", "SE"), ("USD", "XNYS", "Corp."), ("GBP", "XLON", "plc"),
                  ("EUR", "XPAR", "SA"))  # fmt: skip
_TICK: Final = GRAINS // 10_000
_FLOOR: Final = GRAINS // 2
_SWING: Final = 0.03
"""Three uniform draws of this width make a day's change with a standard deviation of 1.5 %."""
_DRIFT: Final = 0.0003


@dataclass(frozen=True, slots=True)
class Instrument:
    """
    One instrument; `id` counts from 1.
    """

    id: int
    symbol: str
    name: str
    market: str
    currency: str


@dataclass(frozen=True, slots=True)
class Market:
    """
    Instruments, days, and `closes[day][instrument]` in grains.
    """

    instruments: tuple[Instrument, ...]
    days: tuple[date, ...]
    closes: tuple[tuple[int, ...], ...]


def draws(seed: int, purpose: str) -> Callable[[], float]:
    """
    Return an endless sequence of floats in [0, 1), its own for each purpose.
    """
    return Random(f"{seed} {purpose}").random  # noqa: S311  # repeatable, not secret


def trading_days(as_of: date) -> tuple[date, ...]:
    """
    Return the weekdays from the first of the month 36 months before `as_of`'s up to the day before `as_of`.
    """
    years, month = divmod(as_of.year * 12 + as_of.month - 1 - MONTHS, 12)
    first = date(years, month + 1, 1)
    span = (first + timedelta(days=n) for n in range((as_of - first).days))
    return tuple(day for day in span if day.weekday() < 5)


def make_market(seed: int, instruments: int, as_of: date) -> Market:
    """
    Generate `instruments` (at most MOST_INSTRUMENTS) random walks that end on the last trading day before `as_of`.
    """
    draw = draws(seed, "market")
    days = trading_days(as_of)
    close = [(500 + int(draw() * 49_500)) * (GRAINS // 100) for _ in range(instruments)]
    closes = [tuple(close)]
    for _ in days[1:]:
        close = [_step(value, draw() + draw() + draw() - 1.5) for value in close]
        closes.append(tuple(close))
    return Market(tuple(_instrument(n) for n in range(instruments)), days, tuple(closes))


def _step(close: int, change: float) -> int:
    moved = int(close * (1.0 + _DRIFT + _SWING * change))
    return max(moved - moved % _TICK, _FLOOR)


def _instrument(number: int) -> Instrument:
    house, trade = _HOUSES[number // len(_TRADES)], _TRADES[number % len(_TRADES)]
    currency, market, form = _PLACES[number % len(_PLACES)]
    return Instrument(number + 1, (house[:2] + trade[:2]).upper(), f"{house} {trade} {form}", market, currency)
