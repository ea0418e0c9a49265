"""The arithmetic of money: amounts, first-in-first-out lots and their cost, exact in Decimal.

It knows no database and no account. Rounding is half-even to cents and happens in two places only: the amount of a
trade, and the cost of a part of a lot. Every result is exact: the contexts below are wide enough for all inputs that
the columns can hold, and anything wider is refused, never rounded to fit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal, DivisionByZero, InvalidOperation, Overflow
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

CENT: Final = Decimal("0.01")
STEP: Final = Decimal("0.00000001")
ZERO: Final = Decimal("0.00")
MAX_CASH: Final = Decimal("999999999999999999.99")
"""The largest value of NUMERIC(20,2)."""
MAX_QUANTITY: Final = Decimal("999999999999.99999999")
"""The largest value of NUMERIC(20,8): quantities and prices."""

_PLAIN: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,8})?")
_PLAIN_CENTS: Final = re.compile(r"[0-9]{1,18}(\.[0-9]{1,2})?")

# Two factors of 20 digits make 40. A quotient of theirs by 20 digits lies at least 1e-24 away from any half cent that
# it does not equal, so rounding it to 90 digits first cannot move it across one: the second rounding is the only one.
_WIDE: Final = Context(prec=90, rounding=ROUND_HALF_EVEN, traps=[DivisionByZero, InvalidOperation, Overflow])


class MoneyError(ValueError):
    """
    A figure does not fit the columns, or lots do not hold what is taken from them.
    """


@dataclass(frozen=True, slots=True)
class Lot:
    """
    What is still open of one buy: the quantity left, and the part of the cost (amount and fee) that belongs to it.
    """

    trade_id: int
    quantity: Decimal
    cost: Decimal


@dataclass(frozen=True, slots=True)
class Consumed:
    """
    What a sale takes from the lots.

    Attributes:
        cost: Sum of the cost of all parts taken.
        spent: Trade ids of the lots that are used up, in order.
        rest: The lot that is partly used, with what stays of it; None when the sale ends at a lot's end.
    """

    cost: Decimal
    spent: tuple[int, ...]
    rest: Lot | None


def parse_positive(text: str) -> Decimal:
    """
    Return a quantity or a price that is written plainly (no sign, no exponent) and fits NUMERIC(20,8).

    Raises:
        MoneyError: it is not; the error's text says how to write it and does not repeat what was given.
    """
    if not _PLAIN.fullmatch(text):
        raise MoneyError("write a plain decimal: at most 12 digits before the point and 8 after it")
    value = Decimal(text)
    if not value:
        raise MoneyError("must be above zero")
    return value


def parse_cents(text: str) -> Decimal:
    """
    Return a fee that is written plainly and fits NUMERIC(20,2).

    Raises:
        MoneyError: it is not.
    """
    if not _PLAIN_CENTS.fullmatch(text):
        raise MoneyError("write a plain decimal: at most 18 digits before the point and 2 after it")
    return Decimal(text)


def plain(value: Decimal) -> str:
    """
    Return the shortest plain decimal of a value: no exponent, no zeros at the end.
    """
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def value_of(quantity: Decimal, price: Decimal) -> Decimal:
    """
    Return quantity times price in cents, half-even, however large: what a holding is worth, not what can be booked.
    """
    return _WIDE.quantize(_WIDE.multiply(quantity, price), CENT)


def amount_of(quantity: Decimal, price: Decimal) -> Decimal:
    """
    Return quantity times price in cents, half-even: the amount of a trade.

    Raises:
        MoneyError: the product is over NUMERIC(20,2).
    """
    amount = value_of(quantity, price)
    if not -MAX_CASH <= amount <= MAX_CASH:
        raise MoneyError("amount is over NUMERIC(20,2)")
    return amount


def cost_part(cost: Decimal, quantity: Decimal, used: Decimal) -> Decimal:
    """
    Return the cost of `used` units out of a lot of `quantity` units that cost `cost`; the whole lot costs all of it.

    Raises:
        MoneyError: `used` is not within (0, quantity].
    """
    if not 0 < used <= quantity:
        raise MoneyError("the part taken is not within the lot")
    if used == quantity:
        return cost
    return _WIDE.quantize(_WIDE.divide(_WIDE.multiply(cost, used), quantity), CENT)


def consume(lots: Iterable[Lot], quantity: Decimal) -> Consumed:
    """
    Take `quantity` from `lots` in the order given, which is the order they were bought in.

    Lots past the last one needed are not looked at, so an iterator over many lots costs only what is taken.

    Raises:
        MoneyError: `quantity` is not positive, or the lots hold less.
    """
    if not quantity > 0:
        raise MoneyError("nothing is taken")
    cost, wanted = ZERO, quantity
    spent: list[int] = []
    for lot in lots:
        if lot.quantity > wanted:
            part = cost_part(lot.cost, lot.quantity, wanted)
            rest = Lot(lot.trade_id, _WIDE.subtract(lot.quantity, wanted), _WIDE.subtract(lot.cost, part))
            return Consumed(_WIDE.add(cost, part), tuple(spent), rest)
        cost = _WIDE.add(cost, lot.cost)
        wanted = _WIDE.subtract(wanted, lot.quantity)
        spent.append(lot.trade_id)
        if not wanted:
            return Consumed(cost, tuple(spent), None)
    raise MoneyError("the lots hold less than is taken")
