"""Replays the ledger's trades in booking order and compares the outcome with the books; pure, knows no database.

Figures are whole numbers (cents, and grains of 1e-8) or, as the columns are read, their text. Each trade is checked
against what the trades before it allow; where a stored figure is wrong it is reported and the right one carried on, so
one fault is one finding and does not colour everything after it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ava.data.fixed import Holding, Shortage, amount_of, cents_text, grains_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    TradeRow = tuple[int, int, int, str, str, str, str, str, str | None]
    """id, account, instrument, side, quantity, price, amount, fee, realised profit."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """
    One thing that is not as it must be.

    Attributes:
        check: Which rule: "currency", "amount", "holding", "realised_pnl", "lot", "position", "cash", "order_trade",
            "trade_order" or "unique_key".
        account_id: Whose.
        subject: What of theirs: "trade 17".
        expected: What the trades and movements say.
        found: What the tables say.
    """

    check: str
    account_id: int
    subject: str
    expected: str
    found: str


@dataclass(slots=True)
class Findings:
    """
    Counts all mismatches and keeps the first `limit`.
    """

    limit: int
    count: int = 0
    kept: list[Mismatch] = field(default_factory=list)

    def add(self, check: str, account_id: int, subject: str, expected: str, found: str) -> None:
        self.count += 1
        if len(self.kept) < self.limit:
            self.kept.append(Mismatch(check, account_id, subject, expected, found))


class Replay:
    """
    Feed it all trades in order of id, then the lots, the positions and the accounts, each with its own end.

    Attributes:
        trades, lots, positions, accounts, movements: How many were compared.
    """

    def __init__(self, instruments: Mapping[int, str], findings: Findings) -> None:
        self.trades = self.lots = self.positions = self.accounts = self.movements = 0
        self._found = findings
        self._instruments = instruments
        self._holdings: dict[tuple[int, int], Holding] = {}
        self._flow: defaultdict[int, int] = defaultdict(int)
        self._traded_in: dict[tuple[int, str], int] = {}
        self._lots: dict[int, tuple[int, int, int, int]] = {}

    def feed_trades(self, rows: Sequence[TradeRow]) -> None:
        """
        Book the rows, which follow those fed before.
        """
        self.trades += len(rows)
        for trade_id, account, instrument, side, quantity_text, price_text, amount_text, fee_text, realised in rows:
            quantity, fee = whole(quantity_text), whole(fee_text)
            amount = amount_of(quantity, whole(price_text))
            if amount != whole(amount_text):
                self._found.add("amount", account, f"trade {trade_id}", cents_text(amount), amount_text)
            key = (account, instrument)
            holding = self._holdings.get(key)
            if holding is None:
                holding = self._holdings[key] = Holding()
                self._traded_in.setdefault((account, self._instruments[instrument]), trade_id)
            if side == "buy":
                holding.buy(trade_id, quantity, amount + fee)
                self._flow[account] -= amount + fee
                if realised is not None:
                    self._found.add("realised_pnl", account, f"trade {trade_id}", "none", realised)
            else:
                self._flow[account] += amount - fee
                try:
                    expected = cents_text(holding.sell(quantity, amount - fee))
                except Shortage:
                    held = f"at most {grains_text(holding.quantity)} sold"
                    self._found.add("holding", account, f"trade {trade_id}", held, grains_text(quantity))
                else:
                    if expected != realised:
                        self._found.add("realised_pnl", account, f"trade {trade_id}", expected, realised or "none")

    def end_trades(self) -> None:
        """
        Say that all trades were fed; what is still open becomes the expected lots.
        """
        for (account, instrument), holding in self._holdings.items():
            for trade_id, quantity, cost in holding.lots:
                self._lots[trade_id] = (account, instrument, quantity, cost)

    def feed_lots(self, rows: Sequence[tuple[int, int, int, str, str]]) -> None:
        self.lots += len(rows)
        for trade_id, account, instrument, quantity, cost in rows:
            expected = self._lots.pop(trade_id, None)
            found = (account, instrument, whole(quantity), whole(cost))
            if expected != found:
                owner = account if expected is None else expected[0]
                self._found.add("lot", owner, f"lot of trade {trade_id}", _lot(expected), _lot(found))

    def end_lots(self) -> None:
        for trade_id, expected in self._lots.items():
            self._found.add("lot", expected[0], f"lot of trade {trade_id}", _lot(expected), "none")
        self._lots.clear()

    def feed_positions(self, rows: Sequence[tuple[int, int, str, str, str]]) -> None:
        self.positions += len(rows)
        for account, instrument, *figures in rows:
            holding = self._holdings.pop((account, instrument), None)
            expected = "none" if holding is None else _position(holding)
            found = _figures(*figures)
            if expected != found:
                self._found.add("position", account, f"position in instrument {instrument}", expected, found)

    def end_positions(self) -> None:
        for (account, instrument), holding in self._holdings.items():
            self._found.add("position", account, f"position in instrument {instrument}", _position(holding), "none")
        self._holdings.clear()

    def feed_accounts(self, rows: Sequence[tuple[int, str, str | None, str, int]]) -> None:
        """
        Compare cash with movements and trades, and the currency traded in with the account's.
        """
        self.accounts += len(rows)
        for account, currency, balance, moved, movements in rows:
            self.movements += movements
            expected = whole(moved) + self._flow.pop(account, 0)
            if balance is None or whole(balance) != expected:
                self._found.add("cash", account, "cash", cents_text(expected), "none" if balance is None else balance)
            if expected < 0:
                self._found.add("cash", account, "cash", "0.00 or more", cents_text(expected))
            self._traded_in.pop((account, currency), None)

    def end_accounts(self) -> None:
        for (account, currency), trade_id in self._traded_in.items():
            self._found.add("currency", account, f"trade {trade_id}", "the account's currency", currency)


def whole(text: str) -> int:
    """
    Return a numeric column's text as cents or grains: the column's scale is fixed, so the point can go.
    """
    return int(text.replace(".", ""))


def _position(holding: Holding) -> str:
    return _figures(grains_text(holding.quantity), cents_text(holding.cost), cents_text(holding.realised))


def _figures(quantity: str, cost: str, realised: str) -> str:
    return f"quantity {quantity}, cost {cost}, realised {realised}"


def _lot(lot: tuple[int, int, int, int] | None) -> str:
    if lot is None:
        return "none"
    account, instrument, quantity, cost = lot
    return f"quantity {grains_text(quantity)}, cost {cents_text(cost)}, account {account}, instrument {instrument}"
