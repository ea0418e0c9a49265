"""`magnus indexes` on real servers: what it proposes is built, used by the planner, and taken back."""

from __future__ import annotations

import json

import asyncpg
import pytest

from magnus.tuning.plan import Plan
from tests.integration.test_check import connected, settle
from tests.integration.test_cli import magnus

SCHEMA = """
CREATE TABLE trades (id bigint PRIMARY KEY, account int, "At" timestamptz, name varchar(30), side int);
INSERT INTO trades SELECT i, i % 2000, now() - i * interval '1 min', 'n' || i, i % 3 FROM generate_series(1, 60000) i;
CREATE TABLE ev (id bigint, at date, k int) PARTITION BY RANGE (at);
CREATE TABLE ev1 PARTITION OF ev FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE ev2 PARTITION OF ev DEFAULT;
INSERT INTO ev SELECT i, date '2020-01-01' + (i % 700), i % 4000 FROM generate_series(1, 40000) i;
CREATE TABLE known (id bigint PRIMARY KEY, a int);
CREATE INDEX known_a ON known (a);
INSERT INTO known SELECT i, i FROM generate_series(1, 20000) i;
"""
PAGE = 'SELECT * FROM trades WHERE account = $1 ORDER BY "At" DESC LIMIT 10'
WORK = (
    (PAGE, (7,)),
    ('SELECT count(*) FROM trades WHERE "At" > now() AND account = $1', (7,)),
    ("UPDATE trades SET side = side WHERE name = $1", ("n5",)),
    ("SELECT * FROM trades WHERE side = $1", (1,)),
    ("SELECT * FROM ev WHERE k = $1", (9,)),
    ("SELECT * FROM known WHERE a = $1", (9,)),
)


async def prepared(con: asyncpg.Connection) -> None:
    await con.execute(SCHEMA)
    await con.execute("VACUUM ANALYZE")
    for text, arguments in WORK:
        await con.fetch(text, *arguments)
    await settle(con)


async def test_missing_indexes_are_found_built_used_and_taken_back(dsn, tmp_path):
    """
    Equality before the sort; a partitioned table by its partitions; nothing for a third of a table, or beside an index.
    """
    path = tmp_path / "plan.json"
    async with connected(dsn) as con:
        await prepared(con)
        found = magnus("-d", dsn, "indexes", "--out", str(path))
        assert (found.returncode, found.stderr) == (0, "")
        plan = Plan.loads(path.read_text())
        by_name = {change.name: change for change in plan.changes}
        assert by_name.keys() == {
            'public."magnus_trades_account_At"',
            "public.magnus_trades_name",
            "public.magnus_ev_k",
        }
        assert by_name['public."magnus_trades_account_At"'].after == '"public"."trades" ("account", "At")'
        assert len(by_name["public.magnus_ev_k"].sql) == 3
        assert "rows are wanted: reading all of it is right" in found.stdout
        assert "without HypoPG (it is not installed)" in found.stdout
        assert not await con.fetchval("SELECT count(*) FROM pg_class WHERE relname LIKE 'magnus%'")
        for change in plan.changes:
            for statement in change.sql:
                await con.execute(statement)
        names = [change.name for change in plan.changes]
        valid = "SELECT bool_and(indisvalid) FROM pg_index WHERE indexrelid = ANY ($1::text[]::regclass[])"
        assert await con.fetchval(valid, names)
        assert "magnus_trades_account_At" in str(await con.fetch(f"EXPLAIN {PAGE.replace('$1', '7')}"))
        again = json.loads(magnus("-d", dsn, "indexes", "--output-format", "json").stdout)
        assert again["changes"] == []
        for change in plan.changes:
            for statement in change.undo:
                await con.execute(statement)
        assert not await con.fetchval("SELECT count(*) FROM pg_class WHERE relname LIKE 'magnus%'")


async def test_with_hypopg_the_planner_is_asked(dsn):
    """Where the server has it, its costs are shown, and it leaves nothing behind; where not, the answer says so."""
    async with connected(dsn) as con:
        has_it = await con.fetchval("SELECT count(*) FROM pg_available_extensions WHERE name = 'hypopg'")
        if has_it:
            await con.execute("CREATE SCHEMA extra; CREATE EXTENSION hypopg SCHEMA extra")
        await prepared(con)
    found = json.loads(magnus("-d", dsn, "indexes", "--output-format", "json").stdout)
    assert found["hypopg"] is bool(has_it)
    trades = [change for change in found["changes"] if "trades" in change["name"]]
    wanted = "the planner's cost falls from" if has_it else "without HypoPG (it is not installed)"
    assert [wanted in change["source"] for change in trades] == [True, True]


async def test_only_an_index_of_ours_is_proposed_to_be_dropped(dsn):
    """Two builds failed: the one with a name of ours goes into the plan, the other is for a person to decide."""
    async with connected(dsn) as con:
        await con.execute("CREATE TABLE t (id bigint PRIMARY KEY, a int); INSERT INTO t VALUES (1, 1), (2, 1)")
        for name in ("magnus_t_a", "theirs"):
            with pytest.raises(asyncpg.UniqueViolationError):
                await con.execute(f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON t (a)")
        found = magnus("-d", dsn, "indexes", "--output-format", "json")
        (change,) = json.loads(found.stdout)["changes"]
        assert (change["name"], change["after"]) == ("public.magnus_t_a", None)
        assert "public.theirs" in magnus("-d", dsn, "indexes").stdout
        await con.execute(change["sql"][0])
        await con.execute("DELETE FROM t WHERE id = 2")
        await con.execute(change["undo"][0])
        assert await con.fetchval("SELECT indisvalid FROM pg_index WHERE indexrelid = 'magnus_t_a'::regclass")


async def test_without_the_library_or_the_right_it_says_what_is_missing(dsn, server, database):
    """The other checks of indexes go on."""
    async with connected(dsn) as con:
        await con.execute("CREATE TABLE t (id bigint PRIMARY KEY, a int)")
        await con.fetch("SELECT * FROM t WHERE a = 1")
        await server.create_role("reader")
        mine = magnus("-d", server.dsn(user="reader", database=database, is_tcp=True), "indexes")
        assert (mine.returncode, mine.stderr) == (0, "")
        assert 'unknown: texts of other roles are hidden: GRANT pg_monitor TO "reader"' in mine.stdout
        await con.execute("DROP EXTENSION pg_stat_statements")
        gone = magnus("-d", dsn, "indexes")
    assert gone.returncode == 0
    assert "unknown: pg_stat_statements is not in this database: magnus plan --only quick-win-1" in gone.stdout
    assert "invalid       ok" in gone.stdout


def test_mistakes_are_one_line():
    """Exit codes 2 and 3."""
    assert magnus("indexes", "--statements", "0").returncode == 2
    gone = magnus("indexes", "-d", "postgresql://127.0.0.1:1/none")
    assert (gone.returncode, gone.stderr.count("\n")) == (3, 1)
