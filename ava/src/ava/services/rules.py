"""Whether a trade can be booked, and what it does to cash, lots and position; pure, exact, no I/O.

Orders of the API and rows of an import go through the same `fill`. A refusal is a value, not an exception: it is a
final answer, which is stored and repeated. No figure of the result can be over what its column holds.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ava.money import MAX_CASH, MAX_QUANTITY, ZERO, Consumed, Lot, MoneyError, amount_of, consume

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from decimal import Decimal


class Side(enum.StrEnum):
    """
    The two sides of a trade, as the account sees it.
    """

    BUY = "buy"
    SELL = "sell"


class Reason(enum.StrEnum):
    """
    Why a trade is refused, for good; the word is stored and is the last part of the problem's type.
    """

    UNKNOWN_INSTRUMENT = "unknown-instrument"
    CURRENCY_MISMATCH = "currency-mismatch"
    NOT_TRADABLE = "instrument-not-tradable"
    NO_PRICE = "no-price"
    LIMIT_NOT_MET = "limit-not-met"
    AMOUNT_TOO_SMALL = "amount-too-small"
    AMOUNT_TOO_LARGE = "amount-too-large"
    INSUFFICIENT_CASH = "insufficient-cash"
    INSUFFICIENT_HOLDINGS = "insufficient-holdings"


DETAILS: Final[Mapping[Reason, str]] = MappingProxyType({
    Reason.UNKNOWN_INSTRUMENT: "There is no instrument with this symbol.",
    Reason.CURRENCY_MISMATCH: "The instrument is not traded in the currency of the account.",
    Reason.NOT_TRADABLE: "The instrument cannot be traded now.",
    Reason.NO_PRICE: "The instrument has no quote to execute at.",
    Reason.LIMIT_NOT_MET: "The quote is worse than the limit of the order.",
    Reason.AMOUNT_TOO_SMALL: "Quantity times price is less than one cent.",
    Reason.AMOUNT_TOO_LARGE: "A figure of the account would not fit its column.",
    Reason.INSUFFICIENT_CASH: "The cash of the account does not cover the trade.",
    Reason.INSUFFICIENT_HOLDINGS: "The position is smaller than the sale.",
})
"""What each reason means, in a sentence without figures."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """
    What can be traded; `price` is the quote an order executes at, None when there is none.
    """

    id: int
    currency: str
    is_tradable: bool
    price: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Holding:
    """
    The position's sums: quantity and cost of the open lots, and what all sales so far realised.
    """

    quantity: Decimal
    cost_basis: Decimal
    realised_pnl: Decimal


EMPTY: Final = Holding(ZERO, ZERO, ZERO)


@dataclass(frozen=True, slots=True)
class State:
    """
    What an account has when a trade is looked at. `lots` are the open ones of the instrument, oldest first; a sale
    reads only those it uses.
    """

    balance: Decimal
    holding: Holding
    lots: Iterable[Lot]


@dataclass(frozen=True, slots=True)
class Fill:
    """
    A trade that can be booked, and the state of the account after it.

    Attributes:
        amount: Quantity times price, cents, without sign and fee.
        realised_pnl: Of a sale; None for a buy.
        taken: The lots a sale uses; None for a buy.
        cost: What the new lot of a buy costs; zero for a sale.
        balance: Cash after the trade.
        holding: The position after the trade.
    """

    amount: Decimal
    realised_pnl: Decimal | None
    taken: Consumed | None
    cost: Decimal
    balance: Decimal
    holding: Holding


def admit(instrument: Instrument | None, currency: str) -> Reason | None:
    """
    Return why an account of this currency cannot trade the instrument, or None.
    """
    if instrument is None:
        return Reason.UNKNOWN_INSTRUMENT
    if instrument.currency != currency:
        return Reason.CURRENCY_MISMATCH
    return None if instrument.is_tradable else Reason.NOT_TRADABLE


def execution_price(instrument: Instrument, side: Side, limit: Decimal | None) -> Decimal | Reason:
    """
    Return the price an order executes at now: the quote, unless it is worse than the order's limit.
    """
    price = instrument.price
    if price is None:
        return Reason.NO_PRICE
    if limit is not None and (price > limit if side is Side.BUY else price < limit):
        return Reason.LIMIT_NOT_MET
    return price


def fill(side: Side, quantity: Decimal, price: Decimal, state: State, *, fee: Decimal = ZERO) -> Fill | Reason:
    """
    Return the trade's effect on the account, or why it is refused.
    """
    try:
        amount = amount_of(quantity, price)
    except MoneyError:
        return Reason.AMOUNT_TOO_LARGE
    if not amount:  # else dust could be collected for nothing
        return Reason.AMOUNT_TOO_SMALL
    return (_buy if side is Side.BUY else _sell)(quantity, amount, fee, state)


def _buy(quantity: Decimal, amount: Decimal, fee: Decimal, state: State) -> Fill | Reason:
    cost, before = amount + fee, state.holding
    if cost > state.balance:
        return Reason.INSUFFICIENT_CASH
    after = Holding(before.quantity + quantity, before.cost_basis + cost, before.realised_pnl)
    if after.quantity > MAX_QUANTITY or after.cost_basis > MAX_CASH:
        return Reason.AMOUNT_TOO_LARGE
    return Fill(amount, None, None, cost, state.balance - cost, after)


def _sell(quantity: Decimal, amount: Decimal, fee: Decimal, state: State) -> Fill | Reason:
    before, balance = state.holding, state.balance + amount - fee
    if quantity > before.quantity:
        return Reason.INSUFFICIENT_HOLDINGS
    if balance < 0:
        return Reason.INSUFFICIENT_CASH
    taken = consume(state.lots, quantity)
    realised = amount - fee - taken.cost
    after = Holding(before.quantity - quantity, before.cost_basis - taken.cost, before.realised_pnl + realised)
    if max(balance, abs(realised), abs(after.realised_pnl)) > MAX_CASH:
        return Reason.AMOUNT_TOO_LARGE
    return Fill(amount, realised, taken, ZERO, balance, after)
