"""A file of trades becomes rows, or why not; an unreadable file is told before anything of it is used."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ava.services.import_file import BadRow, FileInvalid, Row, TooManyRows, count_rows, read_rows
from ava.services.rules import Side

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HEADER = "external_id,symbol,side,quantity,price,fee,executed_at\n"
GOOD = "T1,AAAA,buy,10,1.5,0.25,2026-11-20T09:30:00+01:00\n"


def read(text: str | bytes) -> list[Row | BadRow]:
    data = text if isinstance(text, bytes) else text.encode()
    file = io.BytesIO(data)
    count = count_rows(file, limit=10_000)
    rows = list(read_rows(file, now=NOW))
    assert len(rows) == count
    return rows


def test_a_row_becomes_figures_that_fit_the_columns():
    """Times are turned to UTC, decimals keep their digits."""
    moment = datetime(2026, 11, 20, 8, 30, tzinfo=UTC)
    assert read(HEADER + GOOD) == [Row(2, "T1", "AAAA", Side.BUY, Decimal(10), Decimal("1.5"), Decimal("0.25"), moment)]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + HEADER + GOOD,
        HEADER.replace("\n", "\r\n") + GOOD.replace("\n", "\r\n"),
        HEADER + "\n\n" + GOOD + "\n",
        HEADER + '"T1","AAAA","buy","10","1.5","0.25","2026-11-20T09:30:00+01:00"',
        "symbol , side,quantity,price,executed_at,external_id\nAAAA,buy,10,1.5,2026-11-20T08:30:00Z,T1\n",
        HEADER + GOOD.replace("0.25", ""),
    ],
    ids=["bom", "crlf", "blank lines", "quoted, no line end", "other order, no fee", "empty fee"],
)
def test_what_spreadsheets_write_is_read(text):
    """A byte order mark, other line ends, blank lines, quotes and columns in another order are no errors."""
    (row,) = read(text)
    assert isinstance(row, Row)
    assert (row.external_id, row.quantity, row.executed_at.hour) == ("T1", 10, 8)


@pytest.mark.parametrize(
    ("column", "value", "detail"),
    [
        ("T1", "", "external_id"),
        ("T1", "x" * 256, "external_id"),
        ("T1", "a\x00b", "external_id"),
        ("T1", "a\u200bb", "external_id"),
        ("AAAA", "", "symbol"),
        ("AAAA", "A\x00", "symbol"),
        ("buy", "BUY", "side"),
        ("10", "-1", "quantity"),
        ("10", "0", "quantity"),
        ("10", "1e3", "quantity"),
        ("10", "NaN", "quantity"),
        ("10", "Infinity", "quantity"),
        ("10", "1_000", "quantity"),
        ("10", "\uff11", "quantity"),
        ("10", " 1", "quantity"),
        ("10", "1234567890123", "quantity"),
        ("10", "0.123456789", "quantity"),
        ("1.5", "1,5", "cells"),
        ("1.5", "", "price"),
        ("0.25", "0.001", "fee"),
        ("0.25", "-1", "fee"),
        ("2026-11-20T09:30:00+01:00", "2026-11-20T09:30:00", "executed_at"),
        ("2026-11-20T09:30:00+01:00", "2026-11-20T12:00:00.000001Z", "executed_at"),
        ("2026-11-20T09:30:00+01:00", "9999-12-31T23:59:59-23:59", "executed_at"),
        ("2026-11-20T09:30:00+01:00", "0001-01-01T00:00:00+23:59", "executed_at"),
        ("2026-11-20T09:30:00+01:00", "1969-12-31T23:59:59Z", "executed_at"),
        ("2026-11-20T09:30:00+01:00", "yesterday", "executed_at"),
    ],
)
def test_a_wrong_cell_names_its_column_and_not_its_value(column, value, detail):
    """The row is rejected with its line; other rows are read."""
    bad, good = read(HEADER + GOOD.replace(column, value, 1) + GOOD.replace("T1", "T2"))
    assert isinstance(bad, BadRow)
    assert isinstance(good, Row)
    assert bad.line == 2
    assert bad.reason == "invalid-row"
    assert detail in bad.detail
    assert len(value) < 4 or value not in bad.detail


def test_a_bad_external_id_is_not_repeated():
    """What cannot be stored is not echoed either."""
    (bad,) = read(HEADER + GOOD.replace("T1", "a\x00b"))
    assert isinstance(bad, BadRow)
    assert bad.external_id is None


def test_lines_are_those_of_the_file():
    """A quoted line break and a blank line count."""
    rows = read(HEADER + "\n" + '"a\nb",AAAA,buy,1,1,,2026-11-20T08:30:00Z\n' + GOOD)
    assert [row.line for row in rows] == [3, 5]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"a,b\n",
        HEADER.replace("symbol", "external_id").encode(),
        HEADER.replace("fee", "comment").encode(),
        HEADER.replace("price,", "").encode(),
        HEADER.encode() + b'"T1,AAAA',
        HEADER.encode() + b'"T1"x,AAAA\n',
        HEADER.encode() + GOOD.encode() + b"\xff\xfe\n",
        HEADER.encode("utf-16"),
        b"\x00" * 1000,
        HEADER.encode() + b"x" * 200_000 + b"\n",
        HEADER.encode() + b"a\rb,c\n" * 3 + b'"',
    ],
)
def test_an_unreadable_file_is_refused_as_a_whole(data):
    """Before the first row is used, and without repeating anything of it."""
    with pytest.raises(FileInvalid):
        count_rows(io.BytesIO(data), limit=10_000)


def test_a_file_of_too_many_rows_is_refused():
    """The limit itself is allowed."""
    file = io.BytesIO((HEADER + GOOD * 3).encode())
    assert count_rows(file, limit=3) == 3
    with pytest.raises(TooManyRows):
        count_rows(file, limit=2)


@given(data=st.binary(max_size=300) | st.text(max_size=300).map(lambda text: (HEADER + text).encode(errors="ignore")))
def test_any_bytes_are_rows_or_a_refusal(data):
    """Nothing else is raised, whatever is sent."""
    try:
        rows = read(data)
    except FileInvalid:
        return
    assert all(isinstance(row, (Row, BadRow)) for row in rows)


@given(data=st.data())
def test_any_cells_are_a_row_or_a_bad_row(data):
    """Arbitrary text in any column never breaks the file."""
    cell = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).map(lambda text: text.replace('"', '""'))
    line = ",".join(f'"{data.draw(cell)}"' for _ in range(7))
    assert len(read(HEADER + line + "\n" + GOOD)) == 2
