"""The rules of `ava.money` in whole numbers: cents, and hundred-millionths of a unit ("grains"); knows no table.

A million trades are generated and audited with these; they are about ten times as fast as Decimal. A property test
holds them to `ava.money`, digit by digit.
"""

from __future__ import annotations

from collections import deque
from typing import Final

GRAINS: Final = 10**8
"""Grains in one unit of a quantity or a price."""
_GRAINS_SQUARED_PER_CENT: Final = GRAINS * GRAINS // 100
_HALF: Final = _GRAINS_SQUARED_PER_CENT // 2


class Shortage(Exception):
    """
    More is to be taken from the lots than they hold.
    """


def amount_of(quantity: int, price: int) -> int:
    """
    Return quantity times price (both in grains) in cents, half-even.
    """
    cents, rest = divmod(quantity * price, _GRAINS_SQUARED_PER_CENT)
    if rest > _HALF or (rest == _HALF and cents & 1):
        return cents + 1
    return cents


def share_of(cost: int, used: int, quantity: int) -> int:
    """
    Return the part of `cost` (cents) that belongs to `used` of `quantity`, half-even.
    """
    cents, rest = divmod(cost * used, quantity)
    rest += rest
    if rest > quantity or (rest == quantity and cents & 1):
        return cents + 1
    return cents


class Holding:
    """
    What an account holds of one instrument: its open lots in booking order, and what sales have realised.

    Attributes:
        lots: `[trade id, quantity in grains, cost in cents]`, oldest first.
        quantity: Sum over the lots, in grains.
        realised: Sum over the sales, in cents.
    """

    __slots__ = ("lots", "quantity", "realised")

    def __init__(self) -> None:
        self.lots: deque[list[int]] = deque()
        self.quantity = 0
        self.realised = 0

    @property
    def cost(self) -> int:
        return sum(lot[2] for lot in self.lots)

    def buy(self, trade_id: int, quantity: int, cost: int) -> None:
        """
        Open a lot; `cost` is amount and fee.
        """
        self.lots.append([trade_id, quantity, cost])
        self.quantity += quantity

    def sell(self, quantity: int, proceeds: int) -> int:
        """
        Take `quantity` first-in-first-out and return what is realised; `proceeds` is amount less fee.

        Raises:
            Shortage: the lots hold less; nothing was taken.
        """
        if quantity > self.quantity:
            raise Shortage
        self.quantity -= quantity
        lots, cost = self.lots, 0
        while quantity:
            lot = lots[0]
            if lot[1] <= quantity:
                quantity -= lot[1]
                cost += lot[2]
                lots.popleft()
            else:
                part = share_of(lot[2], quantity, lot[1])
                lot[1] -= quantity
                lot[2] -= part
                cost += part
                quantity = 0
        self.realised += proceeds - cost
        return proceeds - cost


def cents_text(cents: int) -> str:
    """
    Write cents as NUMERIC(20,2) does.
    """
    return f"{cents // 100}.{cents % 100:02}" if cents >= 0 else f"-{-cents // 100}.{-cents % 100:02}"


def grains_text(grains: int) -> str:
    """
    Write grains, which are not negative, as NUMERIC(20,8) does.
    """
    return f"{grains // GRAINS}.{grains % GRAINS:08}"
