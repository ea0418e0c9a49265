"""A statement of pg_stat_statements, read: only a read or not, what it calls, what each parameter is for."""

from __future__ import annotations

import pytest

from magnus.loadtest._statements import Unreadable, Use, read

T = (("", "t"),)


@pytest.mark.parametrize(
    ("text", "uses"),
    [
        ("SELECT * FROM t WHERE a = $1", {1: Use("equal", T, "a")}),
        ("SELECT * FROM t WHERE $1 < a", {1: Use("low", T, "a")}),
        ("SELECT * FROM t WHERE a <= $1::bigint", {1: Use("high", T, "a")}),
        ("SELECT * FROM t WHERE a IN ($1 /*, ... */)", {1: Use("equal", T, "a")}),
        ("SELECT * FROM t WHERE a = ANY ($1::int[])", {1: Use("equal", T, "a", is_list=True)}),
        ("SELECT * FROM t WHERE a LIKE $1", {1: Use("like", T, "a")}),
        ("SELECT * FROM t WHERE (a, b) > ($1, $2)", {1: Use("low", T, "a"), 2: Use("low", T, "b")}),
        ("SELECT * FROM t LIMIT $1 OFFSET $2", {1: Use("limit"), 2: Use("offset")}),
        ("SELECT * FROM t WHERE lower(a) = $1 AND b > now() - interval $2", {1: Use(), 2: Use()}),
        ("SELECT * FROM s.t AS x, u WHERE x.a = $1", {1: Use("equal", (("s", "t"),), "a")}),
        ("SELECT * FROM t, u WHERE a = $1", {1: Use("equal", (("", "t"), ("", "u")), "a")}),
        ("SELECT * FROM t WHERE EXISTS (SELECT FROM u WHERE b = $1)", {1: Use("equal", (("", "u"), ("", "t")), "b")}),
        ("SELECT a FROM t WHERE a = $1 UNION SELECT b FROM u WHERE b = $2",
         {1: Use("equal", T, "a"), 2: Use("equal", (("", "u"),), "b")}),
        ("WITH c AS (SELECT * FROM t WHERE a = $1) SELECT * FROM c WHERE b = $2", {1: Use("equal", T, "a"), 2: Use()}),
        ("INSERT INTO t (a, b) VALUES ($1, $2)", {1: Use("stored", T, "a"), 2: Use("stored", T, "b")}),
        ("INSERT INTO t (a) SELECT $1", {1: Use("stored", T, "a")}),
        ("UPDATE t SET a = $1, b = b + $2 WHERE c = $3", {1: Use("stored", T, "a"), 2: Use(), 3: Use("equal", T, "c")}),
        ("UPDATE t SET (a, b) = ($1, $2)", {1: Use("stored", T, "a"), 2: Use("stored", T, "b")}),
        ("DELETE FROM t AS x WHERE x.a = $1", {1: Use("equal", T, "a")}),
        ("INSERT INTO t (a) VALUES ($1) ON CONFLICT (a) DO UPDATE SET b = $2",
         {1: Use("stored", T, "a"), 2: Use("stored", T, "b")}),
    ],
)  # fmt: skip
def test_a_parameter_has_the_column_that_it_is_compared_with_or_stored_in(text, uses):
    """Through aliases, casts, rows and queries inside; what nothing says is free."""
    assert read(text).uses == uses


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("SELECT 1", ""),
        ("SELECT * FROM t FOR SHARE", "locks rows"),
        ("SELECT * INTO u FROM t", "makes a table"),
        ("UPDATE t SET a = $1", "changes data"),
        ("WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d", "changes data"),
        ("SELECT * FROM (SELECT * FROM t FOR UPDATE) AS x", "locks rows"),
        ("MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN DELETE", "changes data"),
    ],
)
def test_what_is_not_only_a_read_is_told_with_the_reason(text, reason):
    """However deep it hides."""
    assert read(text).writes == reason


@pytest.mark.parametrize("text", ["VACUUM t", "SELECT 1; SELECT 2", "SELEC", "", "COPY t FROM STDIN", "SET a = 1"])
def test_what_is_no_query_is_refused(text):
    """It cannot be sent with arguments."""
    with pytest.raises(Unreadable):
        read(text)


def test_two_ends_of_a_range_belong_together():
    """Drawn apart they would be half of the table, or nothing."""
    assert read("SELECT * FROM t WHERE a BETWEEN $1 AND $2").ranges == ((1, 2),)
    assert read("SELECT * FROM t WHERE a < $1 AND a >= $2").ranges == ((2, 1),)
    assert read("SELECT * FROM t WHERE a > $1 AND b < $2").ranges == ()


def test_functions_and_typed_literals():
    """What is called is named, wherever; `interval $1` is no SQL, and was `interval '1 day'`."""
    found = read("SELECT s.f(g($1)) FROM h($2) WHERE at > now() - interval $3")
    assert found.functions == {"f", "g", "h", "now"}
    assert "$3::interval" in found.text


def test_arguments_that_must_be_a_word_of_few_get_one():
    """A unit, a zone, a format; `extract($1 FROM …)` is no SQL, and was `extract(year FROM …)`."""
    found = read("SELECT date_trunc($1, at), extract($2 FROM at), at AT TIME ZONE $3, to_char(at, $4) FROM t")
    assert [found.uses[number].word for number in (1, 2, 3, 4)] == ["day", "day", "UTC", "YYYY-MM-DD"]
    assert 'pg_catalog."extract"($2, at)' in found.text
