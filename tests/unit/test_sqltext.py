"""The scanner: it reads text as the server does, and never fails on any."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnus._sqltext import calls, common_tables, parentheses, relations, scan, split

QUOTED = [
    "'a;b'", "'it''s;'", "E'\\';'", "e'\\\\'", "$$;'$$", "$tag$;$$;$tag$", '"a;""b"', "U&'\\0061;'", "B'01'", "/* ; */",
    "/* /* ; */ ' */", "-- ;'\n", "(;)", "$1", "1.5e3", "x'1F'", "n';'", "a$b", "_e", "::int", "1..2", "é;".rstrip(";"),
]  # fmt: skip


@given(st.lists(st.lists(st.sampled_from(QUOTED), min_size=1, max_size=4), min_size=1, max_size=5))
def test_semicolons_in_quotes_and_comments_split_nothing(parts):
    """A text is split exactly where it was joined."""
    statements = ["select " + " ".join(part) for part in parts]
    found = scan(";".join(statements))
    assert found.doubt is None
    assert list(split(found.tokens)) == [scan(statement).tokens for statement in statements]


@given(st.text(st.sampled_from("'\"$/*-;()aAeEuU&\\ \n.,1_:<é\u212a\u00a0")) | st.text())
def test_no_text_is_refused(text):
    """Scanning, splitting and reading end, whatever the text."""
    found = scan(text)
    pieces = 0
    for statement in split(found.tokens):
        pieces += len(statement)
        assert all(0 < call.opening < call.closing for call in calls(statement))
        assert all(isinstance(name, str) for name in relations(statement) | common_tables(statement))
    assert pieces <= len(found.tokens) <= len(text)
    assert all(found.tokens)


@pytest.mark.parametrize(
    "text", ["'", '"', "$$", "$a$ $b$", "/* /* */", "E'\\'", "select 'a", 'U&"d', 'select "', "$a$a$"]
)
def test_a_quotation_that_does_not_end_is_doubted(text):
    """What follows it could be anything."""
    assert scan(text).doubt is not None


@pytest.mark.parametrize("text", ['U&"\\0073et"(1)', "'\\'", "'a\\'';'", "N'\\''"])
def test_what_depends_on_settings_or_codes_is_doubted(text):
    """Its meaning is not in the text alone."""
    assert scan(text).doubt is not None


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("SELECT A", ["select", "a"]),
        ('"A" "b""c"', ['"A', '"b"c']),
        ("1e5 1.5 .5 1..2", ["0", "0", "0", "0", "0"]),
        ("a+--x\nb", ["a", "+", "b"]),
        ("a*/*x*/b", ["a", "*", "b"]),
        ("abce'x'", ["abce", "'"]),
        ("loc\u212a", ["loc\u212a"]),
        ("a\u00a0b", ["a\u00a0b"]),
        ("$1a", ["$", "a"]),
        ("x::int[]", ["x", "::", "int", "[", "]"]),
        ("'a'\n'b'", ["'", "'"]),
        ("$é$ x $é$", ["'"]),
        ("1select", ["0", "select"]),
    ],
)
def test_tokens_are_those_of_the_server(text, tokens):
    """Words fold in ASCII alone; comments begin inside operators."""
    assert scan(text).tokens == tokens


CALLS = [
    ("f(1)", ["f"]), ("pg_catalog . f (1)", ["pg_catalog.f"]), ('"F"(1)', ["F"]), ('"select"(1)', ["select"]),
    ("a.b.c(1)", ["a.b.c"]), ("x::f(1)", []), ("cast(x as f(1))", []), ("a in (1)", []),
    ("count(*) filter (where a)", ["count"]),
    ("sum(a) over (partition by b)", ["sum"]), ("insert into t (a) values (f(1))", ["f"]),
    ("insert into s.t (a) select 1", []), ("insert into t as u (a) values (1)", []), ("copy t (a) from stdin", []),
    ("with t (n) as (select 1), u (m) as not materialized (values (2)) select 1", []),
    ("select 1 from g(1) as (select_ int)", ["g"]), ("select 1 from g(1) a(b)", ["g"]), ("from (select 1) a(b)", []),
    ("select a, f(x) as (select 1)", []), ("from a, (select 1) b(c)", []), ("join lateral (select 1) b(c) on true", []),
    ("select distinct on (a) f(x)", ["f"]), ("select 1 operator(pg_catalog.+) f(x)", ["f"]),
    ("returning with (old as o) f(o.a)", ["f"]), ("g(f(1), (h(2)))", ["g", "f", "h"]),
    ("update t set (a, b) = (1, 2)", []),
    ("select coalesce(a, nullif(b, greatest(c)))", []), ("extract(year from f(x))", ["extract", "f"]),
    ("f /* x */ (1)", ["f"]),
    ("public.coalesce(1)", ["public.coalesce"]), ("f(", ["f"]), ("f)", []), ("'f'(1)", []), ("(f)(1)", []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), CALLS)
def test_calls_are_found(text, expected):
    """Names before a parenthesis, but not types, aliases, targets and the words of the grammar."""
    assert [str(call) for call in calls(scan(text).tokens)] == expected


RELATIONS = [
    ("select 1", []), ("select * from a", ["a"]), ("select * from a, b as c, d.e", ["a", "b", "d.e"]),
    ('select * from "A b".c', ["A b.c"]), ("select * from a join b using (x), c", ["a", "b", "c"]),
    ("select * from a join b on a.where = 1, c", ["a", "b", "c"]), ("select * from only (a)", ["a"]),
    ("select * from (a cross join b) j, c", ["a", "b", "c"]),
    ("select * from (select * from a where b in (table c)) d", ["a", "c"]),
    ("table a", ["a"]), ("select extract(year from b) from a", ["a"]),
    ("select a is not distinct from b from c", ["c"]),
    ("select a is distinct from b from c", ["c"]), ("select a as distinct from t", ["t"]),
    ("select t.is distinct from u", ["u"]),
    ("select trim(both from x), substring(a from 1 for 2) from t", ["t"]), ("select * from f(a, b), c", ["c"]),
    ("select * from a where x in (1, 2) union select 1, 2 from b order by 1, 2", ["a", "b"]),
    ("select * from lateral (select * from a) b, c", ["a", "c"]), ("select * from values", ["values"]),
    ("select * from (values (1, 2)) v, a", ["a"]), ("select * from a.b.c", ["a.b.c"]), ('select * from "a.b"', ["?"]),
    ("select exists (select from a)", ["a"]),
    ("select * from a join b on collation for (a.x) = 'C', c", ["a", "b", "c"]),
    ("explain select * from a", ["a"]), ("with x as (select * from a) select * from x", ["a", "x"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), RELATIONS)
def test_relations_are_found(text, expected):
    """Every table that a query reads from, through subqueries and joins."""
    assert sorted(relations(scan(text).tokens)) == sorted(expected)


def test_common_tables_are_found():
    """With and without columns."""
    text = "with a as (select 1), b (x) as materialized (select 2), c as (f(1)) select 1 from d as (e int)"
    assert common_tables(scan(text).tokens) == {"a", "b"}


def test_parentheses_are_paired_also_when_they_do_not_match():
    """One that is left open ends at the end."""
    assert parentheses(["(", ")", ")", "("]) == {0: 1, 1: 0, 3: 4}


@pytest.mark.parametrize(
    "part", ["(", ")", "a(", "f(,", "with a(", ") f(", "a.", "a as ", "from a,", "'", "$a$", "/*", "--"]
)
def test_work_grows_with_the_length_alone(part):
    """The number of tokens looked at is linear: a long text of one awkward part is read to its end."""
    tokens = scan(part * 2_000).tokens
    assert len(tokens) <= 4 * 2_000
    assert len(list(calls(tokens))) <= 2_000
    assert len(relations(tokens)) <= 2_000
