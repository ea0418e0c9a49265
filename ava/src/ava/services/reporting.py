"""Reads of one account: trades page by page, positions at the quote, the monthly report. It changes nothing.

Each read is one statement in a read-only transaction that is bound to the account, and is repeated when its connection
was lost.
"""

from __future__ import annotations

import base64
import binascii
import struct
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from ava import models
from ava.money import ZERO, value_of
from ava.services.account import AccountMissing, settings_of
from ava.sql import statement
from magnus import cached

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncpg import Record

    from ava.services.rules import Side
    from magnus import Database, Transaction

BEGINNING: Final = datetime(1, 1, 2, tzinfo=UTC)
END: Final = datetime(9999, 12, 30, tzinfo=UTC)
_SETTLED: Final = timedelta(days=2)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_CURSOR: Final = struct.Struct(">qq")


class CursorInvalid(ValueError):
    """
    The text is no cursor that a page was given with.
    """


@dataclass(frozen=True, slots=True)
class Cursor:
    """
    The place after one trade in the order of pages: its time and its id.
    """

    executed_at: datetime
    trade_id: int

    def encode(self) -> str:
        """
        Return the cursor as text that fits a URL.
        """
        packed = _CURSOR.pack((self.executed_at - _EPOCH) // _MICROSECOND, self.trade_id)
        return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()

    @classmethod
    def decode(cls, text: str) -> Cursor:
        """
        Return the cursor that a text stands for.

        Raises:
            CursorInvalid: it stands for none.
        """
        try:
            packed = base64.b64decode(text + "==", altchars=b"-_", validate=True)
            microseconds, trade_id = _CURSOR.unpack(packed)
            found = cls(_EPOCH + timedelta(microseconds=microseconds), trade_id)
        except (ValueError, binascii.Error, struct.error, OverflowError):
            raise CursorInvalid from None
        if found.encode() != text:
            raise CursorInvalid
        return found


FIRST: Final = Cursor(END, 2**63 - 1)


@dataclass(frozen=True, slots=True)
class TradeFilter:
    """
    Which trades: of a symbol, of a side, executed from `since` on and before `until`.
    """

    symbol: str | None = None
    side: Side | None = None
    since: datetime | None = None
    until: datetime | None = None


async def trades(
    db: Database, account_id: int, wanted: TradeFilter, *, after: Cursor | None, limit: int
) -> tuple[list[models.Trade], Cursor | None]:
    """
    Return one page of trades, newest first, and the cursor of the next; None when this is the last.

    Pages are stable: a trade booked meanwhile never moves another one to a different page.
    """
    begin = _begin(wanted, after)
    since = BEGINNING if wanted.since is None else _clamped(wanted.since)
    asked = (begin.executed_at, begin.trade_id, since, wanted.symbol, wanted.side, limit + 1)
    rows = await _rows(db, account_id, "trades", *asked)
    found = [models.Trade.model_validate(dict(row)) for row in rows[:limit]]
    if len(rows) <= limit:
        return found, None
    return found, Cursor(found[-1].executed_at, found[-1].id)


def _begin(wanted: TradeFilter, after: Cursor | None) -> Cursor:
    """
    Where the page begins: at the earlier of the cursor and the filter's end, which no trade of id 0 or less is at.
    """
    begin = FIRST if after is None else after
    if wanted.until is not None:
        until = Cursor(_clamped(wanted.until), 0)
        if (until.executed_at, until.trade_id) < (begin.executed_at, begin.trade_id):
            return until
    return Cursor(_clamped(begin.executed_at), begin.trade_id)


def _clamped(moment: datetime) -> datetime:
    return min(max(moment, BEGINNING), END)


async def trade(db: Database, account_id: int, trade_id: int) -> models.Trade | None:
    """
    Return one trade of the account, or None; also when it belongs to another.
    """
    rows = await _rows(db, account_id, "trade", trade_id)
    return models.Trade.model_validate(dict(rows[0])) if rows else None


async def account(db: Database, account_id: int) -> models.Account:
    """
    Return the account.

    Raises:
        AccountMissing: there is none.
    """
    rows = await _read(db, account_id, "account")
    return models.Account.model_validate(dict(rows[0]))


async def positions(db: Database, account_id: int, *, with_closed: bool = False) -> models.Positions:
    """
    Return the open positions by symbol, valued at the quotes; `with_closed` adds those that were sold out.

    Raises:
        AccountMissing: there is no such account.
    """
    rows = await _read(db, account_id, "positions")
    found = [row for row in rows if row["symbol"] is not None]
    items = [_position(row) for row in found if row["quantity"] or with_closed]
    return models.Positions(
        currency=rows[0]["currency"],
        cash=rows[0]["cash"],
        cost_basis=_total(item.cost_basis for item in items),
        market_value=_total(item.market_value for item in items),
        unrealised_pnl=_total(item.unrealised_pnl for item in items),
        realised_pnl=_total(row["realised_pnl"] for row in found),
        items=items,
    )


def _position(row: Record) -> models.Position:
    value = None if row["price"] is None else value_of(row["quantity"], row["price"])
    return models.Position(
        symbol=row["symbol"],
        name=row["name"],
        quantity=row["quantity"],
        cost_basis=row["cost_basis"],
        price=row["price"],
        priced_at=row["priced_at"],
        market_value=value,
        unrealised_pnl=None if value is None else value - row["cost_basis"],
        realised_pnl=row["realised_pnl"],
    )


async def monthly(db: Database, account_id: int, first: date, last: date) -> models.MonthlyReport:
    """
    Return what the months from that of `first` to that of `last` realised, in the account's time zone.

    Raises:
        AccountMissing: there is no such account.
    """
    begin, end = _month(first), _month(_month(last) + timedelta(days=31))
    edge = min(max(begin, _first_open(datetime.now(UTC))), end)
    parts = [await finished_months(db, account_id, begin, edge)] if begin < edge else []
    if edge < end:
        parts.append(await _months(db, account_id, edge, end))
    items = [item for part in parts for item in part.items]
    return models.MonthlyReport(
        currency=parts[0].currency,
        time_zone=parts[0].time_zone,
        realised_pnl=_total(item.realised_pnl for item in items),
        items=items,
    )


@dataclass(frozen=True, slots=True)
class _Months:
    """
    What some months realised, for whoever asks.
    """

    currency: str
    time_zone: str
    items: tuple[models.MonthResult, ...]


def tag_of(account_id: int) -> str:
    """
    Return what the finished months of an account are kept under: a writer of trades of the past names it.
    """
    return f"report:{account_id}"


@cached(
    ttl=60.0,
    tags=lambda account_id, *_: [tag_of(account_id), "imports"],
    settings=lambda account_id, *_: settings_of(account_id),
)
async def finished_months(db: Database, account_id: int, begin: datetime, end: datetime) -> _Months:
    """
    Return months that are over; only an import adds to them.

    Raises:
        AccountMissing: there is no such account.
    """
    return await _months(db, account_id, begin, end)


async def _months(db: Database, account_id: int, begin: datetime, end: datetime) -> _Months:
    rows = await _read(db, account_id, "monthly", begin, end)
    items = (
        models.MonthResult.model_validate({**row, "month": f"{row['month']:%Y-%m}"})
        for row in rows
        if row["month"] is not None
    )
    return _Months(rows[0]["currency"], rows[0]["time_zone"], tuple(items))


def _first_open(now: datetime) -> datetime:
    """
    Return the first month that may still get trades by orders: it is not over in every time zone, or was a day ago.
    """
    return _month((now - _SETTLED).date())


def _month(day: date) -> datetime:
    return datetime(day.year, day.month, 1)  # noqa: DTZ001  # local to the account, the server adds the zone


async def _rows(db: Database, account_id: int, name: str, *args: Any) -> Sequence[Record]:
    async def read(tx: Transaction) -> Sequence[Record]:
        return await tx.fetch(statement(f"queries/{name}"), account_id, *args)

    return await db.run_in_transaction(read, readonly=True, settings=settings_of(account_id))


async def _read(db: Database, account_id: int, name: str, *args: Any) -> Sequence[Record]:
    rows = await _rows(db, account_id, name, *args)
    if not rows:
        raise AccountMissing
    return rows


def _total(figures: Iterable[Any]) -> Any:
    return sum((figure for figure in figures if figure is not None), ZERO)
