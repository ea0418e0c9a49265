"""Reads a file of trades: CSV to rows that fit the columns, or to why they do not; pure, streaming, knows no account.

What makes the whole file unreadable (encoding, quoting, header, too many rows) raises; what is wrong in one row is
that row's affair.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Final, TypeVar

from ava.money import ZERO, MoneyError, parse_cents, parse_positive
from ava.services.rules import Side

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from typing_extensions import Buffer

REQUIRED: Final = ("external_id", "symbol", "side", "quantity", "price", "executed_at")
COLUMNS: Final = (*REQUIRED, "fee")
OLDEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
Content = tuple[str, str, Decimal, Decimal, Decimal, datetime]
_LONGEST_ID: Final = 255
_LONGEST_SYMBOL: Final = 32
_Value = TypeVar("_Value")


class FileInvalid(ValueError):
    """
    The file as a whole cannot be read. The text holds nothing of the file.
    """


class TooManyRows(ValueError):
    """
    The file has more rows than one import may have.
    """


@dataclass(frozen=True, slots=True)
class Row:
    """
    One trade of the file. `line` is where the row begins, the header being line 1.
    """

    line: int
    external_id: str
    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal
    fee: Decimal
    executed_at: datetime

    def content(self) -> Content:
        """
        Return what must be equal for two rows of one external_id to be the same trade.
        """
        return self.symbol, self.side.value, self.quantity, self.price, self.fee, self.executed_at


@dataclass(frozen=True, slots=True)
class BadRow:
    """
    A row that is not booked, and why: a fixed word, and a text that holds nothing of the row.
    """

    line: int
    external_id: str | None
    reason: str
    detail: str


class _Wrong(ValueError):
    """
    A column of the row at hand is wrong.
    """


def count_rows(file: IO[bytes], *, limit: int) -> int:
    """
    Read the file from its beginning to its end and return how many rows it has.

    After this `read_rows` cannot fail half-way, so nothing of an unreadable file is ever booked.

    Raises:
        FileInvalid: it is no CSV with the columns of an import.
        TooManyRows: it has more than `limit` rows.
    """
    count = 0
    for count, _ in enumerate(_records(file)[1], 1):
        if count > limit:
            raise TooManyRows
    return count


def read_rows(file: IO[bytes], *, now: datetime) -> Iterator[Row | BadRow]:
    """
    Yield the rows from the beginning of the file; a trade later than `now` is a bad row.

    Raises:
        FileInvalid: as `count_rows`.
    """
    header, records = _records(file)
    for line, cells in records:
        if len(cells) != len(header):
            yield BadRow(line, None, "invalid-row", f"The row has {len(cells)} cells, the header has {len(header)}.")
            continue
        yield _row(line, dict(zip(header, cells, strict=True)), now)


def _records(file: IO[bytes]) -> tuple[Sequence[str], Iterator[tuple[int, list[str]]]]:
    file.seek(0)
    text = io.TextIOWrapper(io.BufferedReader(_Borrowed(file)), encoding="utf-8-sig", errors="strict", newline="")
    records = _numbered(text)
    _, header = next(records, (1, []))
    header = [name.strip() for name in header]
    if len(set(header)) != len(header) or not set(REQUIRED) <= set(header) <= set(COLUMNS):
        raise FileInvalid(f"The first line must name the columns {', '.join(REQUIRED)}, and may name fee.")
    return header, records


def _numbered(text: io.TextIOWrapper) -> Iterator[tuple[int, list[str]]]:
    reader, line = csv.reader(text, strict=True), 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except UnicodeDecodeError:
        raise FileInvalid(f"The file is not UTF-8, at or after line {line}.") from None
    except csv.Error:
        raise FileInvalid(f"The file is no well-formed CSV, at or after line {line}.") from None


class _Borrowed(io.RawIOBase):
    """
    A view of a binary file that leaves it open when the text layer above is thrown away.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer)
        piece = self._file.read(len(view))
        view[: len(piece)] = piece
        return len(piece)


def _row(line: int, cells: Mapping[str, str], now: datetime) -> Row | BadRow:
    external_id = cells["external_id"]
    if not (0 < len(external_id) <= _LONGEST_ID and external_id.isprintable()):
        detail = f"external_id: 1 to {_LONGEST_ID} printable characters"
        return BadRow(line, None, "invalid-row", detail)
    try:
        return Row(
            line=line,
            external_id=external_id,
            symbol=_column("symbol", cells, _symbol),
            side=_column("side", cells, _side),
            quantity=_column("quantity", cells, parse_positive),
            price=_column("price", cells, parse_positive),
            fee=_column("fee", cells, parse_cents) if cells.get("fee") else ZERO,
            executed_at=_column("executed_at", cells, lambda text: _moment(text, now)),
        )
    except _Wrong as wrong:
        return BadRow(line, external_id, "invalid-row", str(wrong))


def _column(name: str, cells: Mapping[str, str], parse: Callable[[str], _Value]) -> _Value:
    try:
        return parse(cells[name])
    except (_Wrong, MoneyError) as wrong:
        raise _Wrong(f"{name}: {wrong}") from None


def _symbol(text: str) -> str:
    if not (0 < len(text) <= _LONGEST_SYMBOL and text.isascii() and text.isprintable()):
        raise _Wrong("not a symbol")
    return text


def _side(text: str) -> Side:
    try:
        return Side(text)
    except ValueError:
        raise _Wrong("buy or sell") from None


def _moment(text: str, now: datetime) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise _Wrong("not an ISO 8601 time") from None
    if found.tzinfo is None:
        raise _Wrong("the offset from UTC is missing, as in 2026-01-31T10:00:00+01:00")
    if found > now:
        raise _Wrong("in the future")
    if found < OLDEST:
        raise _Wrong("before 1970")
    return found.astimezone(UTC)
