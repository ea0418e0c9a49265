"""What is left of a statement when its constants are taken out, and which statements count as the same."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnus import _normalise
from magnus._normalise import HIDDEN, normalised, spelled_out

CANARY = "hunter2canary"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("SELECT  *\n  FROM t -- why\n WHERE a = 1", "SELECT * FROM t WHERE a = $1"),
        ("select $1, 'x', $3, 2", "select $1, $4, $3, $5"),
        ("select E'a\\'b', $$x$$, $tag$y$tag$, U&'z', B'01', x'ff'", "select $1, $2, $3, $4, $5, $6"),
        ("select -1, a - 1, (-1.5e3), 1_000", "select $1, a - $2, ($3), $4"),
        ("select a -1", "select a -$1"),
        ("/* one /* two */ */ select true, null", "select true, null"),
        ('select "Order" from "T"', 'select "Order" from "T"'),
        ("", ""),
    ],
)
def test_constants_become_parameters(text, shown):
    """Behind those that are there; spaces and comments are brought into one form."""
    assert normalised(text).text == shown


@pytest.mark.parametrize(
    "text",
    [
        f"CREATE ROLE r PASSWORD '{CANARY}'",
        f"ALTER USER r WITH PASSWORD '{CANARY}' VALID UNTIL 'infinity'",
        f"CREATE USER MAPPING FOR r SERVER s OPTIONS (user 'x', password '{CANARY}')",
        f"CREATE SUBSCRIPTION s CONNECTION 'host=h password={CANARY}' PUBLICATION p",
        f"COPY t FROM PROGRAM 'curl -u {CANARY}'",
        f"DO $$ BEGIN PERFORM '{CANARY}'; END $$",
        f"SET app.token = {CANARY}",
        f"SET LOCAL app.token TO {CANARY}, {CANARY}",
        f"select 1; SET app.token = {CANARY}",
        f"ALTER ROLE r SET app.token = {CANARY}",
        f"ALTER SYSTEM SET app.token TO {CANARY}",
        f"SELECT set_config('app.token', '{CANARY}', true)",
        f"SELECT 1 -- {CANARY}",
        f"SELECT 1 /* {CANARY} */ FROM t",
        f"SELECT '{CANARY}",
        f"SELECT 'it\\'s {CANARY} '",
        f"SELECT $x$ {CANARY}",
        f"SELECT /* {CANARY}",
        f"SELECT 'a' '{CANARY}'",
        "SELECT '" + "x" * 20_000 + CANARY + "'",
    ],
)
def test_no_secret_is_shown(text):
    """In utility statements, settings, comments, and texts that do not end."""
    assert CANARY not in repr(normalised(text))


def test_what_cannot_be_read_is_not_shown():
    """Nothing behind the place where doubt begins; it is not planned either."""
    found = normalised("SELECT a, 'b FROM t")
    assert found.text == f"SELECT a, {HIDDEN}"
    assert not found.is_plannable


SAME = [
    ["SELECT a FROM t WHERE b = 1", "select a\nfrom T where B=2 -- x", "SELECT a FROM t WHERE b = -7"],
    ["SELECT a FROM t WHERE b IN (1, 2)", "SELECT a FROM t WHERE b IN (1, 2, 3)"],
    ["SELECT a FROM t WHERE b = 1", "SELECT a FROM t WHERE b IN (1)"],
    ["SELECT a FROM t WHERE b IN ($1, $2)", "SELECT a FROM t WHERE b IN ($1, $2, $3)"],
    ["SELECT a FROM t WHERE b <> 'x'", "SELECT a FROM t WHERE b != 'y'"],
    ["SELECT a FROM t INNER JOIN u USING (a)", "SELECT a FROM t JOIN u USING (a)"],
    ['SELECT "a" FROM t', "SELECT a FROM t"],
]
DIFFERENT = [
    ["SELECT a FROM t WHERE b = 1", "SELECT a FROM t WHERE b = $1"],
    ["SELECT a FROM t WHERE b = $1 AND c = $2", "SELECT a FROM t WHERE b = $2 AND c = $1"],
    ["SELECT a FROM t WHERE b IN (1, 2)", "SELECT a FROM t WHERE b IN ($1, $2)"],
    ["SELECT a FROM t", "SELECT b FROM t"],
    ["SELECT 'a", "SELECT 1"],
]


@pytest.fixture(params=["pgparse", "scanner"])
def grammar(request, monkeypatch):
    """With the server's grammar, and without it."""
    if request.param == "scanner":
        monkeypatch.setitem(sys.modules, "pgparse", None)
    _normalise._grammar.cache_clear()
    yield request.param
    _normalise._grammar.cache_clear()


@pytest.mark.parametrize("texts", SAME)
def test_the_same_statement_has_one_fingerprint(grammar, texts):
    """Whatever its constants, spaces, comments, case, and the lengths of its lists."""
    assert len({normalised(text).fingerprint for text in texts}) == 1


@pytest.mark.parametrize("texts", DIFFERENT)
def test_what_the_server_tells_apart_has_two(grammar, texts):
    """Constants and parameters, for one."""
    assert len({normalised(text).fingerprint for text in texts}) == 2
    assert len({normalised(text).shape for text in texts}) == 2


def test_a_shape_knows_the_length_of_a_list():
    """Servers before 18 do too."""
    assert len({normalised(f"SELECT {items}").shape for items in ("1 IN (1, 2)", "1 IN (1, 2, 3)")}) == 2


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("select * from a join s.b using (x), c", "SELECT a s.b c"),
        ("with x as (select * from a) select * from x", "SELECT a"),
        ("insert into trades (a) select b from quotes", "INSERT trades quotes"),
        ("update only s.t set a = 1", "UPDATE s.t"),
        ("with d as (delete from t returning *) insert into u select * from d", "INSERT u t"),
        ("delete from t where a = 1", "DELETE t"),
        ("copy t from stdin", "COPY t"),
        ("create table t (x int)", "CREATE TABLE"),
        ("set a = b", "SET"),
        ("(select 1)", "SELECT"),
        ("'", ""),
        ("", ""),
    ],
)
def test_the_short_name_is_operation_and_tables(text, summary):
    """As span names are made, in the order in which tables are written."""
    assert normalised(text).summary == summary


@given(st.text(alphabet=st.sampled_from("ab '\"$1;-/*()=.,\\E \n"), max_size=60))
def test_every_text_is_normalised(text):
    """Without an exception, and to the same when done again."""
    found = normalised(text)
    assert found == normalised(text)
    assert "'" not in found.text.replace('"', "") or '"' in found.text


@given(st.text(alphabet="abcXYZ0189 _-", min_size=6), st.sampled_from(["'{}'", "E'{}'", "$${}$$", "$q${}$q$"]))
def test_no_literal_survives(secret, quotation):
    """Of whatever kind, in whatever place."""
    secret = f"K{secret}K"
    for template in ("SELECT {} AS x", "INSERT INTO t VALUES ({})", "x {} y", "CALL p({}, {})"):
        literal = quotation.format(secret)
        assert secret not in normalised(template.format(*[literal] * 2)).text


def test_a_plans_expressions_lose_their_constants_and_keep_their_parameters():
    """`$1` is the statement's own there."""
    assert spelled_out("((t.a = 'canary'::text) AND (b = $1) AND (c > '-5'::integer))") == (
        "((t.a = ?::text) AND (b = $1) AND (c > ?::integer))"
    )
