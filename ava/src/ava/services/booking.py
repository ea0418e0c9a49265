"""Books one order exactly once: claim the key, lock, read, decide, write, in one transaction of five round trips.

It knows no HTTP. That it happens once is the layer's part (`Database.run_once`); a key that an older version of AVA
booked under is found in `orders`. What is decided is the affair of `rules`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime  # noqa: TC003  # read by magnus when a stored answer is
from decimal import Decimal  # noqa: TC003  # as above
from typing import TYPE_CHECKING, Final

from ava.money import ZERO, Lot, plain
from ava.services import account
from ava.services.rules import EMPTY, Fill, Holding, Instrument, Reason, Side, State, admit, execution_price, fill
from ava.sql import statement
from magnus import KeyReused

if TYPE_CHECKING:
    from asyncpg import Record

    from magnus import Database, Transaction


_LOTS: Final = 50
"""How many lots are read with an order; a sale that needs more of them reads once more."""


@dataclass(frozen=True, slots=True)
class Order:
    """
    An order as it was asked, already within the limits of the columns.
    """

    symbol: str
    side: Side
    quantity: Decimal
    limit_price: Decimal | None = None

    def digest(self) -> bytes:
        """
        Return the SHA-256 of what is asked, not of how it is written: "10" and "10.0" are the same quantity.
        """
        limit = None if self.limit_price is None else plain(self.limit_price)
        asked = [self.symbol, self.side.value, plain(self.quantity), limit]
        return hashlib.sha256(json.dumps(asked, separators=(",", ":")).encode()).digest()


@dataclass(frozen=True, slots=True)
class Booked:
    """
    The trade of a filled order.
    """

    id: int
    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal
    amount: Decimal
    fee: Decimal
    realised_pnl: Decimal | None
    currency: str
    executed_at: datetime


@dataclass(frozen=True, slots=True)
class Answer:
    """
    The final answer to an order; `is_replayed` when it was given before.
    """

    outcome: Booked | Reason
    is_replayed: bool


@dataclass(frozen=True, slots=True)
class _Stored:
    """
    What is kept of an answer.
    """

    outcome: Booked | Reason

    def trade_id(self) -> int | None:
        """
        What is left of it when the answer has expired.
        """
        return self.outcome.id if isinstance(self.outcome, Booked) else None


@dataclass(frozen=True, slots=True)
class _Asked:
    account_id: int
    key: str
    order: Order
    digest: bytes


@dataclass(frozen=True, slots=True)
class _Decided:
    instrument: Instrument
    price: Decimal
    fill: Fill


async def book(db: Database, account_id: int, key: str, order: Order) -> Answer:
    """
    Execute an order at the quote, or refuse it; the same key always gets the same answer.

    Repeating it after any error is safe, an unknown outcome included.

    Raises:
        KeyReused: the key was used for another order.
        InProgress: the same order is being booked by another process.
        AlreadyExecuted: it was booked so long ago that the answer is not kept; `reference` is the trade's id.
        OutcomeUnknown: nobody could say in time whether it was booked; repeat it with the same key.
        AccountMissing: the account is not open.
    """
    asked = _Asked(account_id, key, order, order.digest())
    was_booked = False

    async def execute(tx: Transaction) -> _Stored:
        nonlocal was_booked
        was_booked, outcome = await _execute(tx, asked)
        return _Stored(outcome)

    once = await db.run_once(
        execute,
        key=key,
        scope=account.scope_of(account_id),
        operation="trade",
        request=asked.digest,
        result=_Stored,
        reference=_Stored.trade_id,
        settings=account.settings_of(account_id),
    )
    return Answer(once.value.outcome, is_replayed=once.replayed or was_booked)


async def _execute(tx: Transaction, asked: _Asked) -> tuple[bool, Booked | Reason]:
    """
    Return the answer, and whether an older version of AVA gave it, which knew only the keys in `orders`.
    """
    order = asked.order
    balance, currency = await account.lock(tx, asked.account_id)
    found = await tx.fetchrow(
        statement("queries/read_order"), asked.account_id, asked.key, order.symbol, order.side.value, _LOTS
    )
    assert found is not None
    if found["request_hash"] is not None:
        return True, _answered(found, asked)
    lots = await _lots(tx, asked, found)
    decided = _decide(order, found, State(balance, _holding(found), lots), currency)
    if isinstance(decided, Reason):
        await _refuse(tx, asked, found["instrument_id"], decided)
        return False, decided
    return False, await _fill(tx, asked, decided)


def _answered(found: Record, asked: _Asked) -> Booked | Reason:
    """
    The stored answer. The order's own words are those of the first request, for the digests are equal.
    """
    if found["request_hash"] != asked.digest:
        raise KeyReused(asked.key)
    if found["reason"] is not None:
        return Reason(found["reason"])
    columns = ("id", "quantity", "price", "amount", "fee", "realised_pnl", "currency", "executed_at")
    return Booked(symbol=asked.order.symbol, side=asked.order.side, **{name: found[name] for name in columns})


def _decide(order: Order, found: Record, state: State, currency: str) -> _Decided | Reason:
    instrument = _instrument(found)
    refused = admit(instrument, currency)
    if instrument is None or refused is not None:
        return refused or Reason.UNKNOWN_INSTRUMENT
    price = execution_price(instrument, order.side, order.limit_price)
    if isinstance(price, Reason):
        return price
    filled = fill(order.side, order.quantity, price, state)
    return filled if isinstance(filled, Reason) else _Decided(instrument, price, filled)


def _instrument(found: Record) -> Instrument | None:
    if found["instrument_id"] is None:
        return None
    return Instrument(found["instrument_id"], found["currency"], found["is_tradable"], found["quote"])


def _holding(found: Record) -> Holding:
    if found["held"] is None:
        return EMPTY
    return Holding(found["held"], found["cost_basis"], found["realised_before"])


async def _lots(tx: Transaction, asked: _Asked, found: Record) -> list[Lot]:
    """
    The lots that a sale can use: those that were read with the order, or all of them when these are not enough.
    """
    if found["trade_ids"] is None:
        return []
    lots = [Lot(*lot) for lot in zip(found["trade_ids"], found["quantities"], found["costs"], strict=True)]
    if len(lots) < _LOTS or sum(lot.quantity for lot in lots) >= asked.order.quantity:
        return lots
    rows = await tx.fetch(statement("queries/lots"), asked.account_id, [found["instrument_id"]])
    return [Lot(row["trade_id"], row["quantity_open"], row["cost_open"]) for row in rows]


async def _refuse(tx: Transaction, asked: _Asked, instrument_id: int | None, reason: Reason) -> None:
    order = asked.order
    await tx.execute(
        statement("queries/refuse_order"),
        asked.account_id, asked.key, asked.digest, instrument_id,
        order.symbol, order.side.value, order.quantity, order.limit_price, reason.value,
    )  # fmt: skip


async def _fill(tx: Transaction, asked: _Asked, decided: _Decided) -> Booked:
    order, filled, taken = asked.order, decided.fill, decided.fill.taken
    rest = None if taken is None else taken.rest
    row = await tx.fetchrow(
        statement("queries/book_trade"),
        asked.account_id, decided.instrument.id, order.side.value, order.quantity, decided.price, filled.amount,
        filled.realised_pnl, asked.key, asked.digest, order.symbol, order.limit_price, filled.cost,
        () if taken is None else taken.spent,
        *((None, None, None) if rest is None else (rest.trade_id, rest.quantity, rest.cost)),
        filled.holding.quantity, filled.holding.cost_basis, filled.holding.realised_pnl, filled.balance,
    )  # fmt: skip
    assert row is not None
    return Booked(
        id=row["id"],
        symbol=order.symbol,
        side=order.side,
        quantity=order.quantity,
        price=decided.price,
        amount=filled.amount,
        fee=ZERO,
        realised_pnl=filled.realised_pnl,
        currency=decided.instrument.currency,
        executed_at=row["executed_at"],
    )
