"""An account's state during an import: rows are applied to it in memory, and the difference is written in batches.

Theory of operation. The account is locked for as long as a book lives, so what was read stays true. `apply` decides
with the same rules as an order. A lot of a buy that is not written yet has a provisional id, the negative of its
place in the batch; `take_changes` hands the difference since the last time to whoever writes it, and `settle` puts
the real ids in. Lots of an instrument are only known when a sale needed them; buys of others need no look at them.

Invariants: lots are oldest first; a lot with a provisional id is in `created` exactly when some of it is left.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ava.money import Lot
from ava.services.rules import EMPTY, Fill, Holding, Instrument, Reason, Side, State, admit, fill

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from decimal import Decimal

    from ava.services.import_file import Row


@dataclass(frozen=True, slots=True)
class Booking:
    """
    A row that was accepted, with what follows from it.
    """

    row: Row
    instrument_id: int
    fill: Fill


@dataclass(slots=True)
class Changes:
    """
    What is to be written: trades in booking order, lots made, changed and used up, and positions.
    """

    trades: list[Booking] = field(default_factory=list)
    created: dict[int, tuple[int, Lot]] = field(default_factory=dict)
    changed: dict[int, Lot] = field(default_factory=dict)
    spent: list[int] = field(default_factory=list)
    touched: set[int] = field(default_factory=set)


class Book:
    """
    One locked account: cash, and those instruments, positions and lots that were loaded.
    """

    def __init__(self, balance: Decimal, currency: str) -> None:
        self.balance = balance
        self.currency = currency
        self.holdings: dict[int, Holding] = {}
        self._instruments: dict[str, Instrument | None] = {}
        self._lots: dict[int, deque[Lot]] = {}
        self._changes = Changes()

    def unknown_symbols(self, rows: Iterable[Row]) -> list[str]:
        """
        Return the symbols that must be loaded before `rows` can be applied.
        """
        return sorted({row.symbol for row in rows} - self._instruments.keys())

    def load_instrument(self, symbol: str, instrument: Instrument | None, holding: Holding | None) -> None:
        """
        Take in an instrument (None: there is no such symbol) with the account's position in it.
        """
        self._instruments[symbol] = instrument
        if instrument is not None:
            self.holdings[instrument.id] = EMPTY if holding is None else holding

    def unknown_lots(self, rows: Iterable[Row]) -> list[int]:
        """
        Return the instruments whose lots must be loaded before `rows` can be applied: those that are sold.
        """
        sold = {row.symbol for row in rows if row.side is Side.SELL}
        found = {instrument.id for symbol in sold if (instrument := self._instruments[symbol]) is not None}
        return sorted(found - self._lots.keys())

    def load_lots(self, lots: Mapping[int, Sequence[Lot]]) -> None:
        """
        Take in all open lots of some instruments, oldest first.
        """
        self._lots.update((instrument_id, deque(found)) for instrument_id, found in lots.items())

    def instrument_id(self, symbol: str) -> int | None:
        """
        Return the id behind a loaded symbol.
        """
        instrument = self._instruments[symbol]
        return None if instrument is None else instrument.id

    def apply(self, row: Row) -> Reason | None:
        """
        Book a row in memory, or return why not. That it may not be traded now is no reason: it was traded then.
        """
        instrument = self._instruments[row.symbol]
        refused = admit(instrument, self.currency)
        if instrument is None or refused not in {None, Reason.NOT_TRADABLE}:
            return refused
        state = State(self.balance, self.holdings[instrument.id], self._lots.get(instrument.id, ()))
        found = fill(row.side, row.quantity, row.price, state, fee=row.fee)
        if isinstance(found, Reason):
            return found
        self._book(row, instrument.id, found)
        return None

    def _book(self, row: Row, instrument_id: int, found: Fill) -> None:
        self.balance = found.balance
        self.holdings[instrument_id] = found.holding
        self._changes.touched.add(instrument_id)
        self._changes.trades.append(Booking(row, instrument_id, found))
        if found.taken is None:
            self._create(instrument_id, Lot(-len(self._changes.trades), row.quantity, found.cost))
            return
        lots = self._lots[instrument_id]
        for _ in found.taken.spent:
            self._use_up(lots.popleft().trade_id)
        if found.taken.rest is not None:
            lots[0] = found.taken.rest
            self._use_partly(instrument_id, found.taken.rest)

    def _create(self, instrument_id: int, lot: Lot) -> None:
        self._changes.created[lot.trade_id] = instrument_id, lot
        if instrument_id in self._lots:
            self._lots[instrument_id].append(lot)

    def _use_up(self, trade_id: int) -> None:
        if trade_id < 0:
            del self._changes.created[trade_id]
            return
        self._changes.changed.pop(trade_id, None)
        self._changes.spent.append(trade_id)

    def _use_partly(self, instrument_id: int, rest: Lot) -> None:
        if rest.trade_id < 0:
            self._changes.created[rest.trade_id] = instrument_id, rest
        else:
            self._changes.changed[rest.trade_id] = rest

    def take_changes(self) -> Changes:
        """
        Return what was changed since the last time, to be written now.
        """
        changes, self._changes = self._changes, Changes()
        return changes

    def settle(self, changes: Changes, trade_ids: Sequence[int]) -> None:
        """
        Replace provisional ids by those that the trades of `changes` were given, in their order.
        """
        for instrument_id in changes.touched & self._lots.keys():
            self._lots[instrument_id] = deque(
                Lot(real_id(lot.trade_id, trade_ids), lot.quantity, lot.cost) for lot in self._lots[instrument_id]
            )


def real_id(trade_id: int, trade_ids: Sequence[int]) -> int:
    """
    Return the id itself, or the one that the trade at its place was given when it is provisional.
    """
    return trade_ids[-trade_id - 1] if trade_id < 0 else trade_id
