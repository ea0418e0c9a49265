"""Whether an index pays: its statements' gain against its table's writes."""

from __future__ import annotations

import pytest

from magnus.tuning.effect import Counter, Snapshot
from magnus.tuning.payoff import Worth, judge

READ, WRITE = "SELECT * FROM trades WHERE account = $1", "INSERT INTO trades VALUES ($1)"


def counters(calls: int, read: float, write: float, text: str = WRITE) -> Snapshot:
    """
    So many calls of each, with these mean times, which never vary.
    """
    return Snapshot(
        "", (
            Counter("1/1/t/11", calls, calls * read, calls * read * read, READ),
            Counter("1/1/t/22", calls, calls * write, calls * write * write, text),
        ),
    )  # fmt: skip


def after(before: Snapshot, calls: int, read: float, write: float) -> Snapshot:
    more = counters(calls, read, write).counters
    return Snapshot("", tuple(
        Counter(one.key, one.calls + other.calls, one.total + other.total, one.squares + other.squares, one.query)
        for one, other in zip(before.counters, more, strict=True)
    ))  # fmt: skip


@pytest.mark.parametrize(
    ("calls", "read", "write", "worth", "saved"),
    [
        (50, 0.5, 1.0, Worth.PAYS, 475.0),
        (50, 0.5, 5.0, Worth.PAYS, 275.0),
        (50, 0.5, 12.0, Worth.DOES_NOT, -75.0),
        (50, 10.1, 1.0, Worth.DOES_NOT, 0.0),
        (50, 20.0, 1.0, Worth.DOES_NOT, -500.0),
        (5, 0.5, 1.0, Worth.UNKNOWN, 0.0),
    ],
)
def test_what_the_reads_gain_is_weighed_against_what_the_writes_lose(calls, read, write, worth, saved):
    """Faster; slower writes, and too slow ones; within the noise; slower; too few calls for a verdict."""
    before = counters(100, 10.0, 1.0)
    found = judge(
        "x", before, after(before, calls, read, write), queryids=frozenset({"11"}), table=("public", "trades")
    )
    assert (found.worth, round(found.saved, 6)) == (worth, saved)


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("INSERT INTO trades (a) VALUES ($1)", True),
        ('update only "public"."trades" set a = $1', True),
        ("DELETE FROM public . trades WHERE a = $1", True),
        ("COPY trades FROM STDIN", True),
        ("INSERT INTO trades_old VALUES ($1)", False),
        ("INSERT INTO other.trades VALUES ($1)", False),
        ("SELECT * FROM trades", False),
        ("UPDATE other SET a = $1 FROM trades", False),
    ],
)
def test_which_statements_write_the_table(text, counts):
    """By how their text begins, with or without the schema and quotes."""
    before = counters(100, 10.0, 1.0, text)
    found = judge("x", before, after(before, 50, 10.0, 3.0), queryids=frozenset({"11"}), table=("public", "trades"))
    assert (found.writes.calls == 50) is counts


def test_without_a_baseline_there_is_no_verdict():
    """The library was not loaded when the index was made, or somebody reset the statistics."""
    now = counters(100, 1.0, 1.0)
    for before in (None, Snapshot("yesterday", now.counters)):
        found = judge("x", before, now, queryids=frozenset({"11"}), table=("public", "trades"))
        assert found.worth is Worth.UNKNOWN
