"""What a text leaves behind: a table of statements, each with the words for it, and the reset that follows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnus._effects import (
    FULL_RESET,
    LONGEST,
    NO_RESET,
    Action,
    Kind,
    effect_of,
    reset_for,
)

SAFE = frozenset([
    "now",
    "count",
    "sum",
    "lower",
    "max",
    "generate_series",
    "current_setting",
    "nextval",
    "pg_advisory_xact_lock",
    "unnest",
])
NEUTRAL = {
    Kind.CONTROL: """
        BEGIN | begin isolation level serializable read only | START TRANSACTION | COMMIT | END | ROLLBACK | ABORT |
        SAVEPOINT a | RELEASE SAVEPOINT a | ROLLBACK TO a | COMMIT AND CHAIN | COMMIT PREPARED 'x' |
        PREPARE TRANSACTION 'x' | SET LOCAL a = 1 | set local role x | SET LOCAL SESSION AUTHORIZATION x |
        SET TRANSACTION READ ONLY | SET CONSTRAINTS ALL DEFERRED | SET LOCAL a.b TO 'x' | NOTIFY a, 'b' |
        LOCK TABLE t IN SHARE MODE | FETCH ALL FROM c | MOVE c | CLOSE c | CLOSE ALL | CHECKPOINT | -- SET a = 1 |
        /* SET a = 1 */ BEGIN
    """,
    Kind.READ: """
        SELECT 1 | (SELECT 1) UNION (SELECT 2) | VALUES (1, 'SET a = 1') | TABLE t | SHOW a | SELECT now(),
        "lower"('x') |
        SELECT pg_catalog.now() | WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t) SELECT * FROM t |
        SELECT sum(a) FILTER (WHERE b) OVER (w) FROM t WINDOW w AS (PARTITION BY c) | SELECT $$SET a = 1$$ |
        SELECT * FROM generate_series(1, 2) g(n) | SELECT * FROM unnest($1::int[]) WITH ORDINALITY AS u (a, b) |
        EXPLAIN SELECT 1 | EXPLAIN (ANALYZE, BUFFERS) SELECT now() | EXPLAIN ANALYZE VERBOSE TABLE t |
        EXPLAIN (SELECT 1) | SELECT set_config('a', 'b', true) | DECLARE c CURSOR FOR SELECT now() |
        DECLARE c SCROLL CURSOR WITHOUT HOLD FOR TABLE t | SELECT * FROM pg_settings | SELECT 'a' "temp" |
        SELECT pg_advisory_xact_lock(1) | SELECT * FROM t FOR SHARE | SELECT a::numeric(10, 2),
        b::character varying(3) |
        SELECT coalesce(a, 1), CASE WHEN (b) THEN (1) ELSE (2) END, cast(c AS int), ARRAY(SELECT 1), ROW(1),
        xmlelement(name a)
    """,
    Kind.WRITE: """
        INSERT INTO t VALUES (1) | INSERT INTO s.t (a, b) VALUES (1, 2) ON CONFLICT (a) DO UPDATE SET b = excluded.b |
        UPDATE t SET a = 1 WHERE b IN (1) RETURNING c | UPDATE t SET (a, b) = (1, 2) | DELETE FROM t USING u |
        MERGE INTO t USING u ON a = b WHEN MATCHED THEN DELETE | TRUNCATE t | COPY t FROM STDIN |
        COPY t (a, b) TO STDOUT |
        COPY (SELECT now()) TO STDOUT | WITH x AS (DELETE FROM t RETURNING *) SELECT count(*) FROM x |
        VACUUM (ANALYZE) t |
        ANALYZE t (a) | REINDEX TABLE t | GRANT EXECUTE ON FUNCTION f(int) TO x | COMMENT ON TABLE t IS 'x' |
        DROP TABLE t |
        REFRESH MATERIALIZED VIEW v | SELECT * FROM t FOR UPDATE | EXPLAIN ANALYZE DELETE FROM t |
        BEGIN; INSERT INTO t SELECT 1; COMMIT
    """,
    Kind.SCHEMA: """
        CREATE TABLE t (a int DEFAULT f()) | ALTER TABLE t ADD b int | CREATE INDEX ON t (lower(a)) |
        CREATE VIEW v AS SELECT 1 |
        CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SET a = 1' | SELECT * INTO u FROM t | ALTER ROLE x SET a = 1 |
        CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END |
        IMPORT FOREIGN SCHEMA a FROM SERVER b INTO c |
        CREATE TRIGGER a BEFORE INSERT ON t EXECUTE FUNCTION f() | SECURITY LABEL ON TABLE t IS 'x' |
        INSERT INTO t SELECT 1; CREATE TABLE v ()
    """,
}  # fmt: skip
DIRTY = {
    "settings": """
        SET a = 1 | set a.b to 'c' | SET SESSION a = 1 | SET TIME ZONE 'UTC' | SET NAMES 'UTF8' |
        SET search_path = pg_catalog |
        SET local.x = 1 | SET transaction.x = 1 | SET constraints.x TO 1 | SET LOCAL = 1 | SET "local" TO 1 |
        SET local TO DEFAULT |
        SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY | SELECT 1; SET a = 1 | /* x */ SET a = 1 | SET/**/a = 1 |
        SET default_transaction_read_only = on
    """,
    "settings role": """
        SET ROLE a | SET SESSION ROLE a | SET SESSION AUTHORIZATION a | SET "role" TO a | SET role = 'a' |
        RESET ROLE | RESET ALL |
        RESET a | SET session_authorization TO a | SELECT set_config('a', 'b', false) | SELECT set_config($1, $2, $3) |
        SELECT pg_catalog.set_config('a', 'b', is_local => false) | select "set_config"('a', 'b', 'f') |
        UPDATE pg_settings SET setting = 1 | UPDATE pg_catalog.pg_settings SET setting = 1 |
        WITH x AS (SELECT 1) UPDATE "pg_settings" SET a = 1 |
        SELECT set_config('a', 'b', x.true) FROM x | SELECT DISTINCT ON (a) set_config('a', 'b', false) FROM t |
        SELECT 1 OPERATOR(pg_catalog.=) set_config('a', 'b', false) |
        EXPLAIN ANALYZE SELECT set_config('a', 'b', false) |
        COPY (SELECT set_config('a', 'b', false)) TO STDOUT | COPY t FROM STDIN WHERE set_config('a', 'b', false) = '' |
        DECLARE c CURSOR FOR SELECT set_config('a', 'b', false) | INSERT INTO t VALUES (set_config('a', 'b', false)) |
        UPDATE t SET a = set_config('a', 'b', false) | SELECT * FROM t, set_config('a', 'b', false) AS s (x) |
        DELETE FROM t RETURNING set_config('a', 'b', false) | SELECT set_config (VARIADIC array['a', 'b', 'c'], true)
    """,
    "locks": """
        SELECT pg_advisory_lock(1) | SELECT pg_try_advisory_lock_shared(1, 2) | SELECT pg_advisory_unlock(1) |
        SELECT pg_catalog.pg_advisory_lock_shared(1) | SELECT pg_advisory_unlock_all() | SELECT PG_Advisory_Lock (1)
    """,
    "temp": """
        SELECT * INTO TEMP t FROM u | SELECT * INTO LOCAL TEMPORARY TABLE t FROM u | DISCARD TEMP | DISCARD PLANS |
        INSERT INTO pg_temp.t VALUES (1) | SELECT * INTO pg_temp.t FROM u
    """,
    "temp unknown": """
        CREATE TEMP TABLE t (a int) | CREATE LOCAL TEMPORARY TABLE t (a int) |
        CREATE OR REPLACE TEMP VIEW v AS SELECT 1 |
        CREATE TEMP SEQUENCE s | create global temp table t (a int) | CREATE TEMP TABLE t AS SELECT 1
    """,
    "listen": "LISTEN a | UNLISTEN a | UNLISTEN *",
    "cursor": "DECLARE c CURSOR WITH HOLD FOR SELECT 1 | declare c binary scroll cursor with hold for table t",
    "prepared": "DISCARD ALL",
    "prepared unknown": """
        PREPARE p AS SELECT 1 | EXECUTE p | EXECUTE p (1) | DEALLOCATE p | DEALLOCATE ALL | EXPLAIN EXECUTE p
    """,
    "lasting": """
        LOAD 'x' | SELECT setseed(0.5) | SET seed TO 0.5 | SET LOCAL seed = 0.5 |
        SELECT pg_create_physical_replication_slot('a', true, true) |
        SELECT pg_backup_start('x') | SELECT dblink('x', 'y') | SELECT pg_replication_origin_session_setup('x')
    """,
    "unknown": """
        DO $$BEGIN END$$ | CALL f() | SELECT f(1) | SELECT public.now() | SELECT lo_create(0) |
        SELECT ts_stat('SELECT 1') |
        SELECT query_to_xml('SELECT 1', true, true, '') | frobnicate | 1 | "SELECT" 1 | SELECT a.lower('x') |
        WAIT FOR x |
        SELECT '\\' | INSERT INTO t SELECT f() | SELECT ts_rewrite(a, 'SELECT 1') | SELECT 'unfinished
    """,
}  # fmt: skip


def listed(text):
    return [part.strip() for part in text.strip().split("|")] if "|" in text else [text.strip()]


@pytest.mark.parametrize(("kind", "sql"), [(kind, sql) for kind, text in NEUTRAL.items() for sql in listed(text)])
def test_neutral_statements_leave_nothing(kind, sql):
    """They are told from the others, and by what they do."""
    found = effect_of(sql, SAFE)
    assert (found.is_neutral, found.dirties, found.kind) == (True, frozenset(), kind), found.reason
    assert found.is_plain_read == (kind in {Kind.CONTROL, Kind.READ})
    assert found.changes_catalogue == (kind is Kind.SCHEMA)
    assert reset_for(found.dirties) == NO_RESET


@pytest.mark.parametrize(("words", "sql"), [(words, sql) for words, text in DIRTY.items() for sql in listed(text)])
def test_dirty_statements_are_named(words, sql):
    """In the words of what they leave, with a reason."""
    found = effect_of(sql, SAFE)
    assert found.dirties == frozenset(words.split())
    assert found.reason
    assert not found.is_neutral
    assert not found.is_plain_read


EVERY = [sql for text in (*NEUTRAL.values(), *DIRTY.values()) for sql in listed(text)]


@given(st.lists(st.sampled_from([sql for sql in EVERY if "unfinished" not in sql and "--" not in sql]), max_size=4))
def test_a_text_of_several_leaves_what_each_leaves(parts):
    """Nothing is lost between statements; what cannot be read makes the whole unknown."""
    found = effect_of("; ".join(parts), SAFE)
    if not any("\\" in part for part in parts):
        assert found.dirties == frozenset().union(*(effect_of(part, SAFE).dirties for part in parts))
        assert found.kind == max((effect_of(part, SAFE).kind for part in parts), default=Kind.CONTROL)
    else:
        assert "unknown" in found.dirties


@given(st.text() | st.text(st.sampled_from("SETsetlcL =.();,'$\"")) | st.lists(st.sampled_from(EVERY)).map(" ".join))
def test_every_text_has_an_effect(sql):
    """Nothing raises, and a reason stands beside whatever is dirty."""
    found = effect_of(sql, SAFE)
    assert bool(found.dirties) == (found.reason is not None)
    assert reset_for(found.dirties).action in Action


def test_reasons_hold_no_constants():
    """What a statement carries is nobody's business in a log."""
    for sql in EVERY:
        reason = effect_of(sql.replace("'", "'s3cret-"), SAFE).reason
        assert reason is None or "s3cret" not in reason


@pytest.mark.parametrize(
    ("extra", "kind", "words"),
    [
        ("", Kind.WRITE, {"unknown"}),
        ("; CREATE TABLE t ()", Kind.SCHEMA, {"unknown"}),
        ("; DISCARD ALL", Kind.WRITE, {"unknown", "lasting"}),
    ],
)
def test_long_texts_are_unknown(extra, kind, words):
    """They are not read, but what no reset takes back and what changes the schema is looked for."""
    found = effect_of("SELECT '" + "x" * LONGEST + "'" + extra, SAFE)
    assert (found.kind, found.dirties) == (kind, words)


@pytest.mark.parametrize(
    ("words", "action", "sql"),
    [
        ((), Action.NONE, ""),
        (("settings",), Action.EXACT, "RESET ALL"),
        (("locks",), Action.EXACT, "SELECT pg_catalog.pg_advisory_unlock_all()"),
        (("temp", "settings"), Action.EXACT, "RESET ALL; DISCARD TEMP"),
        (("role",), Action.EXACT, "RESET SESSION AUTHORIZATION; RESET ROLE"),
        (("listen", "cursor"), Action.EXACT, "CLOSE ALL; UNLISTEN *"),
        (("settings", "unknown"), Action.FULL, FULL_RESET),
        (("transaction",), Action.FULL, FULL_RESET),
        (("prepared", "unknown"), Action.CLOSE, ""),
        (("lasting", "settings"), Action.CLOSE, ""),
    ],
)
def test_a_reset_is_no_more_than_is_needed(words, action, sql):
    """Exact where that is known, full where it is not, and the end where nothing helps."""
    found = reset_for(words, "why")
    assert (found.action, found.sql) == (action, sql)
