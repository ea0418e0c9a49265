"""What is known of a database, and what follows for a statement."""

import pytest

from magnus._catalogue import CLEAN, Catalogue, catalogue_of, danger_of, dangers, verdict
from magnus._effects import effect_of

UNSAFE = frozenset({"set_config", "pg_advisory_lock", "query_to_xml", "setseed"})
HARMLESS = """
    UPDATE t SET a = 1 WHERE b = NEW.c; | BEGIN UPDATE t u SET a = 1; RETURN NEW; END |
    BEGIN INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET b = 2; END | SELECT 2 * $1 |
    BEGIN PERFORM set_config('a', 'b', true); END | BEGIN SET LOCAL work_mem = 1; SET CONSTRAINTS ALL DEFERRED; END |
    BEGIN FOR r IN SELECT * FROM t FOR UPDATE LOOP UPDATE t SET a = 1; END LOOP; END | SELECT other(1) |
    BEGIN MERGE INTO t USING u ON a = b WHEN MATCHED THEN UPDATE SET a = 1; END |
    BEGIN RAISE NOTICE 'SET a = %', 1; END |
    BEGIN -- SET a = 1
        RETURN 1; END | DECLARE c CURSOR FOR SELECT 1; BEGIN OPEN c; CLOSE c; END | BEGIN NOTIFY a; CALL p(); END |
    BEGIN PERFORM pg_advisory_xact_lock(1); END | BEGIN FOR i IN 1..10 LOOP DELETE FROM t; END LOOP; END
"""
DANGEROUS = """
    BEGIN SET a = 1; END | SET a = 1 | BEGIN SET ROLE x; END | BEGIN IF a THEN SET b = 1; END IF; END |
    BEGIN SET local.x = 1; END |
    BEGIN FOR r IN SELECT 1 FROM t FOR UPDATE LOOP SET a = 1; END LOOP; END | BEGIN <<x>> SET a = 1; END |
    BEGIN SET LOCAL seed = 1; END |
    BEGIN PERFORM set_config('a', 'b', false); END | BEGIN PERFORM "set_config"('a', 'b', x); END |
    BEGIN EXECUTE a; END |
    BEGIN RETURN QUERY EXECUTE 'x'; END | BEGIN OPEN c FOR EXECUTE x; END | SELECT pg_catalog.pg_advisory_lock(1) |
    BEGIN CREATE TEMP TABLE t (); END | BEGIN CREATE TABLE t (); END | SELECT 1; DROP TABLE t |
    BEGIN SELECT 1 INTO TEMP t; END |
    BEGIN RESET ALL; END | BEGIN /* x */ LISTEN a; END | BEGIN UNLISTEN *; END | BEGIN LOAD 'x'; END |
    BEGIN DISCARD TEMP; END |
    BEGIN UPDATE pg_settings SET setting = 1; END | BEGIN INSERT INTO pg_temp.t VALUES (1); END |
    BEGIN PREPARE p AS SELECT 1; END |
    BEGIN DO $a$BEGIN END$a$; END | BEGIN x := query_to_xml('SELECT 1', true, true, ''); END | SELECT 'open |
    SELECT '\\' |
    BEGIN IF a THEN NULL; ELSE SET b = 1; END IF; END | BEGIN NULL; EXCEPTION WHEN OTHERS THEN SET a = 1; END
"""


def listed(text):
    return [part.strip() for part in text.split("|") if part.strip()]


@pytest.mark.parametrize("source", listed(HARMLESS))
def test_harmless_bodies_are_told(source):
    """Assignments of UPDATE, local settings and transaction locks change no session."""
    assert danger_of(source, UNSAFE) is None


@pytest.mark.parametrize("source", listed(DANGEROUS))
def test_dangerous_bodies_are_told(source):
    """Whatever could outlive the transaction, or cannot be read."""
    assert danger_of(source, UNSAFE)


def test_a_body_too_long_is_dangerous():
    """It is not read."""
    assert danger_of("x" * 100_001, UNSAFE) == "it is too long to be read"


def row(**others):
    return {
        "safe_functions": ["now"], "unsafe_functions": sorted(UNSAFE), "unreadable": [], "bodies": [], "places": [],
        "silent": [], "relations": [["public", "t", "true"], ["public", "v", "false"], ["a", "t2", "true"],
                                    ["b", "t2", "false"]],
    } | others  # fmt: skip


def test_dangers_are_named():
    """Functions that cannot be read, kept expressions, and bodies, in that order; None for what is harmless."""
    found = list(
        dangers(row(unreadable=["a.c"], places=["view x"], bodies=[["a.f", "SELECT 1"], ["a.g", "SET a = 1"]]))
    )
    assert found == [
        "function a.c can change the session: its language cannot be read",
        "view x can change the session",
        None,
        "function a.g can change the session: SET",
    ]


def test_a_name_is_safe_when_all_that_have_it_are():
    """Which of them is meant depends on search_path."""
    found = catalogue_of(row(), None)
    assert found.safe == {"t", "public.t", "a.t2"}
    assert found.relations == {"t", "public.t", "v", "public.v", "t2", "a.t2", "b.t2"}


def test_nothing_is_safe_where_functions_run_unnamed():
    """An operator or a cast of the users' can be anywhere."""
    assert catalogue_of(row(silent=["public.f"]), "x").safe == frozenset()


CALM = catalogue_of(row(), None)
WILD = catalogue_of(row(), "function a.f can change the session: SET")


@pytest.mark.parametrize(
    ("sql", "calm", "wild"),
    [
        ("SELECT * FROM t", True, True), ("SELECT * FROM public.t", True, True), ("SELECT * FROM v", True, False),
        ("SELECT * FROM t2", True, False), ("SELECT * FROM a.t2", True, True), ("SELECT * FROM new", True, False),
        ("WITH x AS (SELECT * FROM t) SELECT * FROM x", True, True), ("INSERT INTO t VALUES (1)", True, False),
        ("WITH v AS (SELECT * FROM t) SELECT * FROM v", True, False), ("SELECT now()", True, True),
        ("BEGIN", True, True),
        ("SELECT f()", False, False), ("SET a = 1", False, False), ("CREATE TABLE x ()", False, False),
        ("COMMIT", True, True),
    ],
)  # fmt: skip
def test_verdicts_follow_text_and_catalogue(sql, calm, wild):
    """Where a function is dangerous, only reads of safe relations are clean; without knowledge nothing is."""
    effect = effect_of(sql, CALM.functions)
    assert (verdict(effect, CALM) is CLEAN, verdict(effect, WILD) is CLEAN) == (calm, wild)
    assert "unknown" in verdict(effect, None).dirties


def test_the_reason_is_the_function():
    """What makes a harmless insert dirty is said."""
    found = verdict(effect_of("INSERT INTO t VALUES (1)", CALM.functions), WILD)
    assert found.reason == "function a.f can change the session: SET"
    assert verdict(effect_of("SELECT 1", CALM.functions), None).reason == "the catalogue is not known yet"
    assert Catalogue(frozenset()).danger is None
