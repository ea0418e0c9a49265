"""The generated customers: who they are, how busy, and what they like to trade; knows no trade and no table."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final

from ava.data.market import draws

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ava.data.market import Instrument

_ZIPF_SHIFT: Final = 2.0
"""Zipf-Mandelbrot: weight 1/(rank + 2). The busiest of 1,000 accounts does 5 % of the trades, the last 0.02 %."""

_GIVEN: Final = (
    "Ada", "Ben", "Carla", "Dario", "Edda", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Kira", "Liam", "Mona", "Nils",
    "Olga", "Pablo", "Quinn", "Rosa", "Sven", "Tara", "Umar", "Vera", "Wim", "Xenia", "Yusuf", "Zoe",
)  # fmt: skip
_FAMILY: Final = (
    "Adler", "Brandt", "Castro", "Dubois", "Eklund", "Fischer", "Garcia", "Hansen", "Ito", "Jansen", "Kovacs", "Lopez",
    "Meyer", "Novak", "Okafor", "Petit", "Quist", "Rossi", "Silva", "Turner", "Ueda", "Varga", "Weber", "Xu", "Yilmaz",
    "Zeman",
)  # fmt: skip
_HOMES: Final = (
    ("USD", "America/New_York"), ("EUR", "Europe/Berlin"), ("GBP", "Europe/London"), ("USD", "America/Chicago"),
    ("EUR", "Europe/Paris"), ("USD", "America/Los_Angeles"), ("EUR", "Europe/Helsinki"),
)  # fmt: skip
# Three tiers, as TPC-E has them: what a customer spends on a buy, at most, in units of the currency.
_BUDGETS: Final = (2_000, 8_000, 8_000, 8_000, 40_000)


@dataclass(frozen=True, slots=True)
class Customer:
    """
    One account holder; `id` counts from 1 and is the rank in activity: account 1 is the busiest.

    Attributes:
        budget: The most that one buy costs, in units of the currency.
        favourites: Numbers (from 0) of the instruments traded; all in the account's currency.
    """

    id: int
    owner_name: str
    currency: str
    time_zone: str
    created_at: datetime
    budget: int
    favourites: tuple[int, ...]


def make_customers(seed: int, count: int, instruments: Sequence[Instrument], opening: date) -> tuple[Customer, ...]:
    """
    Generate `count` customers whose accounts were opened in the two years before `opening`.
    """
    draw = draws(seed, "customers")
    by_currency: dict[str, list[int]] = {}
    for number, instrument in enumerate(instruments):
        by_currency.setdefault(instrument.currency, []).append(number)
    midnight = datetime(opening.year, opening.month, opening.day, tzinfo=UTC)
    found = []
    for account_id in range(1, count + 1):
        currency, time_zone = _HOMES[int(draw() * len(_HOMES))]
        name = f"{_GIVEN[int(draw() * len(_GIVEN))]} {_FAMILY[int(draw() * len(_FAMILY))]}"
        opened = midnight - timedelta(seconds=1 + int(draw() * 730 * 86_400))
        budget = _BUDGETS[int(draw() * len(_BUDGETS))]
        liked = _sample(by_currency[currency], 4 + int(draw() * 17), draw)
        found.append(Customer(account_id, name, currency, time_zone, opened, budget, liked))
    return tuple(found)


def activity(count: int) -> list[float]:
    """
    Return the running sum of the customers' Zipf weights, busiest first.
    """
    total, sums = 0.0, []
    for rank in range(1, count + 1):
        total += 1.0 / (rank + _ZIPF_SHIFT)
        sums.append(total)
    return sums


def _sample(numbers: Sequence[int], count: int, draw: Callable[[], float]) -> tuple[int, ...]:
    rest = list(numbers)
    return tuple(rest.pop(int(draw() * len(rest))) for _ in range(min(count, len(rest))))
