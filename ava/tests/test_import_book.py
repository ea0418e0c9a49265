"""The book of an import does, batch by batch, what booking row by row does."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from ava.money import ZERO, Lot
from ava.services.import_book import Book, real_id
from ava.services.import_file import Row
from ava.services.rules import EMPTY, Holding, Instrument, Reason, Side, State, fill

SYMBOLS = {"AAAA": Instrument(1, "EUR", is_tradable=True), "BBBB": Instrument(2, "EUR", is_tradable=False)}
MOMENT = datetime(2026, 1, 5, tzinfo=UTC)


def row(number: int, symbol: str, side: Side, quantity: Decimal, price: Decimal) -> Row:
    return Row(number, f"T{number}", symbol, side, quantity, price, Decimal("0.01"), MOMENT)


class Ledger:
    """
    A database in memory: what `import_store` reads and writes.
    """

    def __init__(self) -> None:
        self.trades = 0
        self.lots: dict[int, dict[int, Lot]] = {1: {}, 2: {}}
        self.holdings: dict[int, Holding] = {}

    def load(self, book: Book, rows: list[Row]) -> None:
        for symbol in book.unknown_symbols(rows):
            instrument = SYMBOLS.get(symbol)
            book.load_instrument(symbol, instrument, self.holdings.get(instrument.id) if instrument else None)
        book.load_lots({key: [*self.lots[key].values()] for key in book.unknown_lots(rows)})

    def write(self, book: Book) -> None:
        changes = book.take_changes()
        ids = [self.trades + place for place in range(1, len(changes.trades) + 1)]
        self.trades += len(ids)
        for key in changes.spent:
            assert any(lots.pop(key, None) for lots in self.lots.values())
        for lots in self.lots.values():
            lots.update({key: lot for key, lot in changes.changed.items() if key in lots})
        for instrument, lot in changes.created.values():
            key = real_id(lot.trade_id, ids)
            assert key not in self.lots[instrument]
            self.lots[instrument][key] = Lot(key, lot.quantity, lot.cost)
        self.holdings.update({key: book.holdings[key] for key in changes.touched})
        book.settle(changes, ids)


figures = st.integers(1, 500).map(lambda units: Decimal(units).scaleb(-1))
orders = st.lists(
    st.tuples(st.sampled_from(["AAAA", "BBBB", "XXXX"]), st.sampled_from(Side), figures, figures), max_size=40
)


@given(orders=orders, cuts=st.lists(st.integers(1, 7), min_size=1, max_size=10), is_fresh=st.booleans())
def test_batches_of_any_size_are_as_booking_one_by_one(orders, cuts, is_fresh):
    """Same refusals, same lots in the same order, same sums: with one book, or with a new one each batch."""
    rows = [row(number, *order) for number, order in enumerate(orders, 1)]
    ledger, book, found = Ledger(), Book(Decimal("3000.00"), "EUR"), []
    rest = rows
    for place in range(len(rows)):
        batch, rest = rest[: cuts[place % len(cuts)]], rest[cuts[place % len(cuts)] :]
        book = Book(book.balance, "EUR") if is_fresh else book
        ledger.load(book, batch)
        found += [book.apply(one) for one in batch]
        ledger.write(book)
    balance, lots, holdings, expected = one_by_one(rows)
    assert found == expected
    assert book.balance == balance
    assert {key: [*ledger.lots[key].values()] for key in (1, 2)} == lots
    assert ledger.holdings == holdings


def one_by_one(rows):
    """Book with the rules alone, every lot known all the time."""
    balance, lots, holdings, answers, booked = Decimal("3000.00"), {1: [], 2: []}, {}, [], 0
    for one in rows:
        instrument = SYMBOLS.get(one.symbol)
        if instrument is None:
            answers.append(Reason.UNKNOWN_INSTRUMENT)
            continue
        key = instrument.id
        now = State(balance, holdings.get(key, EMPTY), lots[key])
        result = fill(one.side, one.quantity, one.price, now, fee=one.fee)
        answers.append(result if isinstance(result, Reason) else None)
        if isinstance(result, Reason):
            continue
        booked += 1
        balance, holdings[key] = result.balance, result.holding
        if result.taken is None:
            lots[key] = [*lots[key], Lot(booked, one.quantity, result.cost)]
        else:
            rest = [] if result.taken.rest is None else [result.taken.rest]
            lots[key] = rest + lots[key][len(result.taken.spent) + len(rest) :]
    return balance, lots, holdings, answers


def test_an_account_of_another_currency_is_refused():
    """The currency is looked at for imports too; that an instrument is not tradable now is not."""
    book = Book(Decimal(1000), "USD")
    book.load_instrument("AAAA", SYMBOLS["AAAA"], None)
    assert book.apply(row(1, "AAAA", Side.BUY, Decimal(1), Decimal(1))) is Reason.CURRENCY_MISMATCH
    assert not book.take_changes().trades


def test_lots_are_only_asked_for_when_something_is_sold():
    """An account with a long history pays for what it sells, not for what it holds."""
    book = Book(Decimal(1000), "EUR")
    buys = [row(1, "AAAA", Side.BUY, Decimal(1), Decimal(1))]
    book.load_instrument("AAAA", SYMBOLS["AAAA"], Holding(Decimal(5), ZERO, ZERO))
    assert book.unknown_lots(buys) == []
    assert book.unknown_lots([*buys, row(2, "AAAA", Side.SELL, Decimal(1), Decimal(1))]) == [1]
