"""Reads what a batch of an import needs and writes what it changed; decides nothing."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from ava.money import Lot
from ava.services.import_book import real_id
from ava.services.rules import Holding, Instrument
from ava.sql import statement

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ava.services.import_book import Book, Booking, Changes
    from ava.services.import_file import Content, Row
    from magnus import Transaction


async def known_rows(tx: Transaction, account_id: int, rows: Sequence[Row]) -> dict[str, Content]:
    """
    Return the rows that are trades of the account already, by external_id.
    """
    ids = list({row.external_id for row in rows})
    if not ids:
        return {}
    found = await tx.fetch(statement("queries/import_known"), account_id, ids)
    return {row["external_id"]: tuple(row)[1:] for row in found}


async def load(tx: Transaction, account_id: int, book: Book, rows: Sequence[Row]) -> None:
    """
    Read into the book the instruments, positions and lots that `rows` need and that it does not hold yet.
    """
    symbols = book.unknown_symbols(rows)
    if symbols:
        found = {
            row["symbol"]: row for row in await tx.fetch(statement("queries/import_instruments"), account_id, symbols)
        }
        for symbol in symbols:
            book.load_instrument(symbol, *_instrument(found.get(symbol)))
    wanted = book.unknown_lots(rows)
    if wanted:
        lots: dict[int, list[Lot]] = {instrument_id: [] for instrument_id in wanted}
        for row in await tx.fetch(statement("queries/lots"), account_id, wanted):
            lots[row["instrument_id"]].append(Lot(row["trade_id"], row["quantity_open"], row["cost_open"]))
        book.load_lots(lots)


def _instrument(row: Any) -> tuple[Instrument | None, Holding | None]:
    if row is None:
        return None, None
    instrument = Instrument(row["id"], row["currency"], row["is_tradable"])
    if row["quantity"] is None:
        return instrument, None
    return instrument, Holding(row["quantity"], row["cost_basis"], row["realised_pnl"])


async def write(tx: Transaction, account_id: int, book: Book) -> None:
    """
    Write what the book holds in memory only, in two statements; nothing to write sends nothing.
    """
    changes = book.take_changes()
    if not changes.trades:
        return
    trade_ids = await _write_trades(tx, account_id, changes.trades)
    await tx.execute(
        statement("queries/import_state"), account_id,
        *_lot_columns(changes, trade_ids), *_position_columns(book, changes), book.balance,
    )  # fmt: skip
    book.settle(changes, trade_ids)


async def _write_trades(tx: Transaction, account_id: int, trades: Sequence[Booking]) -> list[int]:
    rows = await tx.fetch(statement("queries/import_trades"), account_id, *_columns(map(_trade, trades), 9))
    ids = {row["external_id"]: row["id"] for row in rows}
    ordered = [ids[booking.row.external_id] for booking in trades]
    # First in, first out goes by these ids, so their order is not left to how the server runs the statement.
    assert all(earlier < later for earlier, later in itertools.pairwise(ordered)), "trade ids are out of order"
    return ordered


def _trade(booking: Booking) -> tuple[object, ...]:
    row, fill = booking.row, booking.fill
    return (
        booking.instrument_id, row.side.value, row.quantity, row.price, fill.amount, row.fee, fill.realised_pnl,
        row.executed_at, row.external_id,
    )  # fmt: skip


def _lot_columns(changes: Changes, trade_ids: Sequence[int]) -> list[list[object]]:
    changed = [(lot.trade_id, lot.quantity, lot.cost) for lot in changes.changed.values()]
    created = [
        (real_id(lot.trade_id, trade_ids), instrument_id, lot.quantity, lot.cost)
        for instrument_id, lot in changes.created.values()
    ]
    return [list(changes.spent), *_columns(changed, 3), *_columns(created, 4)]


def _position_columns(book: Book, changes: Changes) -> list[list[object]]:
    touched = ((instrument_id, book.holdings[instrument_id]) for instrument_id in sorted(changes.touched))
    return _columns(((key, held.quantity, held.cost_basis, held.realised_pnl) for key, held in touched), 4)


def _columns(rows: Iterable[tuple[object, ...]], width: int) -> list[list[object]]:
    """
    Turn rows into `width` columns, also when there is no row.
    """
    columns: list[list[object]] = [[] for _ in range(width)]
    for row in rows:
        for column, value in zip(columns, row, strict=True):
            column.append(value)
    return columns
