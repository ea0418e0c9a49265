"""The generated trading: three years of buys, sales, deposits and withdrawals, day by day, as lines for COPY.

It knows the tables' columns and no connection. All accounts trade on the same days, so trades of many accounts lie
side by side, as in a real ledger, and ids grow with time. Money follows `ava.money` (in whole numbers, see `fixed`): no
account ever owes cash or sells what it does not hold, and no trade is worth less than a cent.
"""

from __future__ import annotations

from bisect import bisect
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ava.data.customers import activity
from ava.data.fixed import GRAINS, Holding, amount_of, cents_text, grains_text
from ava.data.market import draws

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ava.data.customers import Customer
    from ava.data.market import Market

COLUMNS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({
    "trades": (
        "id", "account_id", "instrument_id", "side", "quantity", "price", "amount", "fee", "realised_pnl",
        "executed_at", "source",
    ),
    "lots": ("trade_id", "account_id", "instrument_id", "quantity_open", "cost_open"),
    "positions": ("account_id", "instrument_id", "quantity", "cost_basis", "realised_pnl", "updated_at"),
    "cash": ("account_id", "balance", "updated_at"),
    "cash_movements": ("account_id", "amount", "kind", "created_at"),
})  # fmt: skip
"""What the fields of a line are, by table."""

_OPEN: Final = 7 * 3600 * 1_000_000
_SESSION: Final = 14 * 3600 * 1_000_000
"""Trading goes on from 07:00 to 21:00 UTC; in microseconds."""
_SALE: Final = 0.48
_CENT: Final = GRAINS * GRAINS // 100
_SELL_OUT: Final = 0.4
_FRACTION: Final = 0.15
_MOST_FEE: Final = 999
_OPENING_BUYS: Final = 5
_RICH_BUYS: Final = 10
"""Cash is paid in for so many of the account's largest buys, and paid out above so many."""


class Account:
    """
    State of one account while it trades; cash in cents, times as COPY reads them.
    """

    __slots__ = ("budget", "cash", "favourites", "holdings", "id", "touched", "traded")

    def __init__(self, customer: Customer) -> None:
        self.id = customer.id
        self.budget = customer.budget * 100
        self.favourites = customer.favourites
        self.holdings: dict[int, Holding] = {}
        self.traded: dict[int, str] = {}
        self.cash = 0
        self.touched = f"{customer.created_at:%Y-%m-%d %H:%M:%S}+00"


class Trading:
    """
    Runs the market's days for all customers.

    Iterate `days()` to its end first: `lots()`, `positions()`, `cash()` and `movements()` tell the outcome so far.

    Attributes:
        booked: How many trades were made so far; the last one's id.
    """

    def __init__(self, seed: int, market: Market, customers: Sequence[Customer], trades: int) -> None:
        self._draw = draws(seed, "trading")
        self._market = market
        self._accounts = [Account(customer) for customer in customers]
        self._activity = activity(len(customers))
        self._trades = trades
        self.booked = 0
        self._movements: list[str] = []

    def days(self) -> Iterator[str]:
        """
        Yield, day by day, that day's lines for `trades`.
        """
        for account in self._accounts:
            self._deposit(account, account.budget * _OPENING_BUYS, account.touched)
        month = 0
        for number, until in enumerate(self._closing_counts()):
            day = self._market.days[number]
            if day.month != month:
                month = day.month
                self._pay_out(f"{day} 06:00:00+00")
            yield "".join(self._day(number, until - self.booked))

    def lots(self) -> Iterator[str]:
        """
        Yield the open lots' lines.
        """
        for account in self._accounts:
            for number, holding in sorted(account.holdings.items()):
                for trade_id, quantity, cost in holding.lots:
                    yield f"{trade_id}\t{account.id}\t{number + 1}\t{grains_text(quantity)}\t{cents_text(cost)}\n"

    def positions(self) -> Iterator[str]:
        """
        Yield the positions' lines, the sold-out ones too.
        """
        for account in self._accounts:
            for number, holding in sorted(account.holdings.items()):
                yield (
                    f"{account.id}\t{number + 1}\t{grains_text(holding.quantity)}\t{cents_text(holding.cost)}\t"
                    f"{cents_text(holding.realised)}\t{account.traded[number]}\n"
                )

    def cash(self) -> Iterator[str]:
        """
        Yield the balances' lines.
        """
        for account in self._accounts:
            yield f"{account.id}\t{cents_text(account.cash)}\t{account.touched}\n"

    def movements(self) -> Iterator[str]:
        """
        Yield the deposits' and withdrawals' lines, in order of time within an account.
        """
        yield from self._movements

    def _closing_counts(self) -> list[int]:
        """
        Return how many trades are booked by the end of each day: busy and quiet days, the exact total on the last.
        """
        total, sums = 0.0, []
        for _ in self._market.days:
            total += 0.6 + 0.8 * self._draw()
            sums.append(total)
        return [int(self._trades * (booked / total)) for booked in sums[:-1]] + [self._trades]

    def _day(self, number: int, count: int) -> list[str]:
        draw, accounts, sums = self._draw, self._accounts, self._activity
        closes, total = self._market.closes[number], sums[-1]
        texts = [grains_text(close) for close in closes]
        today = f"{self._market.days[number]} "
        gap = _SESSION // max(count, 1)
        lines = []
        for place in range(count):
            account = accounts[bisect(sums, draw() * total)]
            when = today + _clock(_OPEN + place * gap + int(draw() * gap))
            liked = account.favourites
            instrument = liked[int(draw() * len(liked))]
            lines.append(self._trade(account, instrument, closes[instrument], texts[instrument], when))
        return lines

    def _trade(self, account: Account, instrument: int, price: int, price_text: str, when: str) -> str:
        draw = self._draw
        holding = account.holdings.get(instrument)
        if holding is None:
            holding = account.holdings[instrument] = Holding()
        self.booked = trade_id = self.booked + 1
        account.touched = account.traded[instrument] = when
        if holding.quantity * price >= _CENT and draw() < _SALE:
            quantity = self._sale_size(holding)
            amount = amount_of(quantity, price)
            fee = min(amount // 1000, _MOST_FEE)
            account.cash += amount - fee
            side, realised = "sell", cents_text(holding.sell(quantity, amount - fee))
        else:
            quantity = self._buy_size(account.budget, price)
            amount = amount_of(quantity, price)
            fee = min(amount // 1000, _MOST_FEE)
            if account.cash < amount + fee:
                self._deposit(account, account.budget * _OPENING_BUYS + amount + fee, when)
            account.cash -= amount + fee
            holding.buy(trade_id, quantity, amount + fee)
            side, realised = "buy", "\\N"
        return (
            f"{trade_id}\t{account.id}\t{instrument + 1}\t{side}\t{quantity // GRAINS}.{quantity % GRAINS:08}\t"
            f"{price_text}\t{amount // 100}.{amount % 100:02}\t{fee // 100}.{fee % 100:02}\t{realised}\t{when}\tseed\n"
        )

    def _buy_size(self, budget: int, price: int) -> int:
        most = budget * (GRAINS // 100) / price
        if self._draw() < _FRACTION:
            return int((0.01 + 0.99 * self._draw()) * most * GRAINS)
        return (1 + int(self._draw() * most)) * GRAINS

    def _sale_size(self, holding: Holding) -> int:
        whole = holding.quantity // GRAINS
        if not whole or self._draw() < _SELL_OUT:
            return holding.quantity
        return (1 + int(self._draw() * whole)) * GRAINS

    def _deposit(self, account: Account, cents: int, when: str) -> None:
        account.cash += cents
        self._movements.append(f"{account.id}\t{cents_text(cents)}\tdeposit\t{when}\n")

    def _pay_out(self, when: str) -> None:
        for account in self._accounts:
            spare = account.cash - account.budget * _RICH_BUYS
            if spare > 0:
                account.cash -= spare
                account.touched = when
                self._movements.append(f"{account.id}\t{cents_text(-spare)}\twithdrawal\t{when}\n")


def _clock(microseconds: int) -> str:
    seconds, fraction = divmod(microseconds, 1_000_000)
    minutes, second = divmod(seconds, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{second:02}.{fraction:06}+00"
