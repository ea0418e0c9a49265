"""Whatever a lease ran, and whichever reset was decided on: the next one finds the session of a new connection."""

import random

import asyncpg
import pytest

from magnus import _catalogue, _effects, _trace
from magnus._effects import Action, Effect, Kind
from magnus._learning import Learner
from magnus._trace import SessionTrace

COMMON = """
    CREATE ROLE {role} ; GRANT {role} TO CURRENT_USER; GRANT ALL ON SCHEMA public TO {role};
    CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int, b text);
    CREATE TABLE marked (a int); CREATE TABLE guarded (a int);
    INSERT INTO t (a, b) SELECT n, 'x' FROM generate_series(1, 5) n; INSERT INTO guarded VALUES (1);
    CREATE VIEW plain AS SELECT a, count(*) AS n FROM t GROUP BY a;
    CREATE FUNCTION twice(a int) RETURNS int LANGUAGE sql AS 'SELECT 2 * a';
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN UPDATE t SET a = a + 1 WHERE id = NEW.a; PERFORM set_config('app.note', 'x', true); RETURN NEW; END $$;
    CREATE TRIGGER note BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION note();
    GRANT ALL ON ALL TABLES IN SCHEMA public TO {role};
"""
WILD = """
    CREATE FUNCTION sneaks() RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS
        $$ BEGIN PERFORM set_config('work_mem', '77MB', false); RETURN 1; END $$;
    CREATE FUNCTION locks() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_advisory_lock(4711); RETURN NEW; END $$;
    CREATE FUNCTION runs(what text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN EXECUTE what; RETURN 1; END $$;
    CREATE PROCEDURE calls(what text) LANGUAGE plpgsql AS $$ BEGIN EXECUTE what; END $$;
    CREATE TRIGGER locks BEFORE INSERT ON marked FOR EACH ROW EXECUTE FUNCTION locks();
    CREATE VIEW sneaky AS SELECT a, sneaks() AS s FROM t;
    CREATE VIEW twofold AS SELECT * FROM sneaky;
    ALTER TABLE guarded ENABLE ROW LEVEL SECURITY; ALTER TABLE guarded FORCE ROW LEVEL SECURITY;
    CREATE POLICY p ON guarded USING (sneaks() = 1);
"""
BOTH = [
    "SELECT 1", "SELECT * FROM t", "SELECT n FROM plain", "TABLE t", "WITH x (y) AS (SELECT a FROM t) SELECT * FROM x",
    "SELECT lower(b), now(), count(*) OVER (PARTITION BY a) FROM t", "INSERT INTO t (a, b) VALUES (1, 'y')",
    "UPDATE t SET a = 3 WHERE id = 1", "DELETE FROM t WHERE id = 4", "INSERT INTO marked VALUES (1)",
    "SELECT * FROM guarded", "SELECT twice(2)", "BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT s",
    "SET LOCAL work_mem = '9MB'",
    "SET work_mem = '8MB'", "SET local.x = 1", "SELECT set_config('work_mem', '7MB', false)", "RESET work_mem",
    "SELECT set_config('work_mem', '7MB', true)", "SELECT set_config('role', '{role}', false)",
    "UPDATE pg_settings SET setting = '2100' WHERE name = 'work_mem'", "SET search_path = pg_temp, public",
    "SELECT pg_advisory_lock(1)", "SELECT pg_try_advisory_lock_shared(2)", "SELECT pg_advisory_xact_lock(3)",
    "CREATE TEMP TABLE tmp (a int)", "SELECT * INTO TEMP tmp2 FROM t", "CREATE TEMP VIEW tv AS SELECT 1 AS a",
    "LISTEN bell", "UNLISTEN *", "NOTIFY bell", "SET ROLE {role}", "SET LOCAL ROLE {role}", 'SET "role" TO {role}',
    "SET SESSION AUTHORIZATION {role}", "RESET ROLE", "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    "DECLARE d CURSOR FOR SELECT 1", "FETCH ALL FROM c", "PREPARE p AS SELECT 1", "EXECUTE p", "DEALLOCATE p",
    "DO $$ BEGIN SET work_mem = '6MB'; END $$", "DO $$ BEGIN EXECUTE 'PREPARE q AS SELECT 1'; END $$",
    "EXPLAIN SELECT * FROM t", "EXPLAIN ANALYZE SELECT set_config('work_mem', '20MB', false)", "LOCK TABLE t",
    "SELECT ts_rewrite('a'::tsquery, 'SELECT ''a''::tsquery, ''b''::tsquery WHERE pg_try_advisory_lock(9)')",
    "SELECT query_to_xml('SELECT pg_advisory_lock(8)', true, true, '')", "SELECT '\\'; SET work_mem = '3MB'",
    "SELECT DISTINCT ON (a) set_config('work_mem', '11MB', false) FROM t", "SELECT 1/0", "no sql at all",
    "SELECT 1 OPERATOR(pg_catalog.+) length(set_config('work_mem', '12MB', false))",
    'SELECT "set_config"(\'work_mem\', \'13MB\', false)', "SELECT U&\"\\0073et_config\"('work_mem', '14MB', false)",
    "/* SELECT 1 */ SET work_mem = '15MB' -- SELECT", "SELECT 1; SELECT $a$;$a$; SET work_mem = '16MB'",
    "SELECT '" + "x" * 11_000 + "', set_config('work_mem', '17MB', false)",
    "CREATE TABLE made AS SELECT set_config('work_mem', '18MB', false) AS c",
]  # fmt: skip
ONLY_WILD = [
    "SELECT * FROM sneaky", "SELECT * FROM twofold", "SELECT sneaks()", "SELECT runs('LISTEN bell')",
    "SELECT runs('CREATE TEMP TABLE made_there (a int)')", "SELECT runs('SET ROLE {role}')",
    "SELECT runs('PREPARE r AS SELECT 1')", "CALL calls('SET work_mem = ''19MB''')",
    "INSERT INTO t (a, b) SELECT sneaks(), 'x'", "SELECT a FROM t WHERE a = runs('SELECT pg_advisory_lock(5)')",
]  # fmt: skip
STATE = """
    SELECT array(SELECT name || '=' || setting FROM pg_settings WHERE setting IS DISTINCT FROM reset_val
                    AND name !~ '^transaction_') AS settings,
           coalesce(current_setting('local.x', true), '') AS custom,
           (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) AS locks,
           array(SELECT relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()) AS temp,
           array(SELECT pg_listening_channels()) AS channels,
           array(SELECT name FROM pg_prepared_statements WHERE from_sql) AS statements,
           array(SELECT name FROM pg_cursors WHERE name <> '') AS cursors, current_user::text, session_user::text
"""


class Driver(asyncpg.Connection):
    def get_reset_query(self):
        return _effects.FULL_RESET


async def state(con):
    found = await con.fetchrow(STATE)
    return con.is_in_transaction(), *found.values()


async def run(con, knowledge, program):
    """Run a program as one lease; return the decision."""
    trace = SessionTrace(knowledge)
    for sql in program:
        trace.saw(sql)
        try:
            await con.execute(sql)
        except asyncpg.PostgresError:
            continue
    return trace.end(is_in_transaction=con.is_in_transaction())


async def clean(con, decision):
    """Do what was decided; return whether the connection may be used again."""
    try:
        if decision.action is Action.EXACT and decision.sql:  # a mutant may have taken its only step away
            await con.execute(decision.sql)
        elif decision.action is Action.FULL:
            await con.reset()
    except asyncpg.PostgresError:
        return False
    return decision.action is not Action.CLOSE


class Bench:
    """One database, one connection at a time, and what a new session looks like."""

    def __init__(self, dsn, role):
        self.dsn, self.role = dsn, role
        self.con = self.other = None

    async def open(self, schema):
        self.other = await asyncpg.connect(self.dsn)
        await self.other.execute(schema.replace("{role}", self.role))
        self.learner = Learner(self.other.fetchrow)
        self.con = await asyncpg.connect(self.dsn, connection_class=Driver)
        self.fresh = await state(self.con)
        assert await self.learner.read()

    async def leaves(self, program):
        """Return what a program leaves to the next lease (None: nothing), and the decision."""
        if self.learner.knowledge.catalogue is None:
            assert await self.learner.read()
        program = [sql.replace("{role}", self.role) for sql in program]
        decision = await run(self.con, self.learner.knowledge, program)
        found = None
        if not await clean(self.con, decision):
            self.con.terminate()
            self.con = await asyncpg.connect(self.dsn, connection_class=Driver)
        elif self.con.is_in_transaction() or (found := await state(self.con)) == self.fresh:
            found = "a transaction" if self.con.is_in_transaction() else None
        return found, decision

    async def close(self):
        await self.con.close()
        role = self.role
        await self.other.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
        await self.other.close()


@pytest.fixture
async def bench(dsn, database):
    """A bench that is opened by the test."""
    found = Bench(dsn, f"boss_{database}")
    yield found
    await found.close()


@pytest.mark.parametrize("flavour", ["calm", "wild"])
async def test_no_program_leaves_anything_to_the_next_lease(bench, flavour):
    """Random programs of one to five statements, with and without functions that change the session unseen."""
    await bench.open(COMMON + (WILD if flavour == "wild" else ""))
    assert (bench.learner.knowledge.catalogue.danger is None) == (flavour == "calm")
    statements = BOTH + (ONLY_WILD if flavour == "wild" else [])
    chance = random.Random(20_261_121)
    seen = set()
    programs = [[sql] for sql in statements] + [chance.choices(statements, k=chance.randint(1, 5)) for _ in range(250)]
    for program in programs:
        found, decision = await bench.leaves(program)
        assert found is None, (program, decision)
        seen.add(decision.action)
    assert seen == set(Action) - ({Action.EXACT} if flavour == "wild" else set())


NEUTRAL = [
    "SELECT 1", "SELECT * FROM t", "SELECT n FROM plain", "WITH x (y) AS (SELECT a FROM t) SELECT * FROM x",
    "SELECT lower(b), now(), count(*) OVER (PARTITION BY a) FROM t", "SET LOCAL work_mem = '9MB'", "BEGIN; COMMIT",
    "SELECT coalesce(sum(a), 0) FILTER (WHERE a > 1) FROM t, generate_series(1, 2) AS g (n) WHERE b LIKE 'x%'",
    "SELECT relname FROM pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace",
]  # fmt: skip
WRITES = ["INSERT INTO t (a, b) VALUES (1, 'y') RETURNING id", "UPDATE t SET a = a + 1", "DELETE FROM t WHERE id = 4"]


@pytest.mark.parametrize("flavour", ["calm", "wild"])
async def test_plain_work_needs_no_reset(bench, flavour):
    """Reads always; writes too while nothing in the database can change a session unseen."""
    await bench.open(COMMON + (WILD if flavour == "wild" else ""))
    for sql in NEUTRAL:
        assert (await bench.leaves([sql]))[1].action is Action.NONE, sql
    for sql in WRITES:
        _, decision = await bench.leaves([sql])
        assert decision.action is (Action.NONE if flavour == "calm" else Action.FULL)
        assert flavour == "calm" or "can change the session" in decision.reason


async def test_what_is_made_later_is_found(bench):
    """A trigger that takes a lock, made by a lease, is known to the leases after it."""
    await bench.open(COMMON)
    assert (await bench.leaves(["INSERT INTO marked VALUES (1)"]))[1].action is Action.NONE
    _, decision = await bench.leaves([WILD])
    assert decision.action is Action.FULL
    assert bench.learner.knowledge.catalogue is None
    found, decision = await bench.leaves(["INSERT INTO marked VALUES (1)"])
    assert (found, decision.action) == (None, Action.FULL)


CONTROL = Effect(Kind.CONTROL)


def special(word, effect=CONTROL):
    return lambda patch: patch.setitem(_effects._SPECIAL, word, lambda tokens, functions: effect)


def call_is_safe(name):
    real = _effects._words_of
    return lambda patch: patch.setattr(
        _effects, "_words_of", lambda call, *rest: () if call.name == name else real(call, *rest)
    )


def without(module, name, value):
    return lambda patch: patch.setattr(module, name, value)


def read_is_safe(patch):
    patch.setattr(_catalogue, "_is_safe_read", lambda effect, catalogue: effect.is_plain_read)


def no_danger(patch):
    patch.setattr("magnus._learning.dangers", lambda row: iter(()))


def no_step(word):
    steps = tuple(step for step in _effects._STEPS if step[0] != word)
    return lambda patch: patch.setattr(_effects, "_STEPS", steps)


NOTHING = frozenset()


def create_is_harmless(patch):
    patch.setattr(_effects, "_OPENING_SCHEMA", NOTHING)
    patch.setattr(_effects, "_OPENING_WRITE", frozenset({"create"}))
    patch.setattr(_effects, "_temp", lambda tokens, kind: Effect(kind))


def temp_is_not_seen(patch):
    patch.setattr(_effects, "_writing_query", lambda tokens, functions: Effect(Kind.WRITE))


LATER = """
    CREATE FUNCTION later() RETURNS int LANGUAGE plpgsql AS $$ BEGIN SET work_mem = '22MB'; RETURN 1; END $$;
    CREATE PROCEDURE later_too() LANGUAGE plpgsql AS $$ BEGIN SET work_mem = '23MB'; END $$;
"""
LONG = "SELECT '" + "x" * 11_000 + "', set_config('work_mem', '17MB', false)"
SET_ROLE = "SELECT set_config('role', '{role}', false)"
MUTANTS = {
    "SET is neutral": (special("set"), ["SET work_mem = '8MB'"]),
    "SET LOCAL is read without its name": (without(_effects, "_NAMES_SETTING", NOTHING), ["SET local.x = 1"]),
    "SET ROLE is a setting": (without(_effects, "_ROLES", NOTHING), ["SET ROLE {role}"]),
    "a quoted role is a setting": (without(_effects, "_ROLES", NOTHING), ['SET "role" TO {role}']),
    "authorization is a setting": (without(_effects, "_ROLES", NOTHING), ["SET SESSION AUTHORIZATION {role}"]),
    "set_config is safe": (call_is_safe("set_config"), ["SELECT set_config('work_mem', '7MB', false)"]),
    "set_config is always local": (
        without(_effects, "is_local_setting", lambda *_: True), ["SELECT set_config('work_mem', '7MB', false)"]),
    "set_config changes no role": (no_step("role"), [SET_ROLE]),
    "settings are not reset": (no_step("settings"), ["SET work_mem = '8MB'"]),
    "locks are not released": (no_step("locks"), ["SELECT pg_advisory_lock(1)"]),
    "temporary tables are not dropped": (no_step("temp"), ["SELECT * INTO TEMP tmp2 FROM t"]),
    "channels are not left": (no_step("listen"), ["LISTEN bell"]),
    "cursors are not closed": (no_step("cursor"), ["DECLARE c CURSOR WITH HOLD FOR SELECT 1"]),
    "advisory locks are safe": (call_is_safe("pg_advisory_lock"), ["SELECT pg_advisory_lock(1)"]),
    "CREATE is harmless": (create_is_harmless, ["CREATE TEMP TABLE tmp (a int)"]),
    "SELECT INTO TEMP is not seen": (temp_is_not_seen, ["SELECT * INTO TEMP tmp2 FROM t"]),
    "LISTEN is neutral": (special("listen"), ["LISTEN bell"]),
    "cursors are neutral": (special("declare"), ["DECLARE c CURSOR WITH HOLD FOR SELECT 1"]),
    "PREPARE is neutral": (special("prepare"), ["PREPARE p AS SELECT 1"]),
    "DO is neutral": (special("do"), ["DO $$ BEGIN SET work_mem = '6MB'; END $$"]),
    "CALL is neutral": (special("call"), ["CALL later_too()"]),
    "EXPLAIN runs nothing": (special("explain"), ["EXPLAIN ANALYZE SELECT set_config('work_mem', '20MB', false)"]),
    "functions of the users' are safe": (call_is_safe("later"), ["SELECT later()"]),
    "query_to_xml is safe": (
        call_is_safe("query_to_xml"), ["SELECT query_to_xml('SELECT pg_advisory_lock(8)', true, true, '')"]),
    "pg_settings is a table": (
        without(_effects, "_PG_SETTINGS", NOTHING),
        ["UPDATE pg_settings SET setting = '2100' WHERE name = 'work_mem'"]),
    "an open transaction is a setting": (without(_trace, "TRANSACTION", "settings"), ["BEGIN"]),
    "long texts are neutral": (without(_effects, "_unread", lambda sql, reason: CONTROL), [LONG]),
    "doubt is neutral": (
        without(_effects, "_unread", lambda sql, reason: CONTROL),
        ["SELECT U&\"\\0073et_config\"('work_mem', '14MB', false)"]),
    "the catalogue is not asked (trigger)": (no_danger, ["INSERT INTO marked VALUES (1)"]),
    "the catalogue is not asked (view)": (no_danger, ["SELECT * FROM sneaky"]),
    "every relation is safe (view)": (read_is_safe, ["SELECT * FROM sneaky"]),
    "every relation is safe (view on a view)": (read_is_safe, ["SELECT * FROM twofold"]),
    "every relation is safe (policy)": (
        read_is_safe, ["BEGIN", "SET LOCAL ROLE {role}", "SELECT a FROM guarded", "COMMIT"]),
    "statements are not looked for": (
        without(_effects, "FULL_RESET", "RESET ALL"), ["DO $$ BEGIN EXECUTE 'PREPARE q AS SELECT 1'; END $$"]),
}  # fmt: skip


@pytest.mark.one_version
@pytest.mark.parametrize("name", MUTANTS)
async def test_each_rule_is_needed(bench, name, monkeypatch):
    """With one rule switched off, its program leaves something; with the rule it does not."""
    mutate, program = MUTANTS[name]
    is_wild = "catalogue" in name or "relation" in name
    await bench.open(COMMON + (WILD if is_wild else ""))
    if "later" in program[0]:
        await bench.other.execute(LATER)  # and nobody is told
    found, decision = await bench.leaves(program)
    assert found is None, decision
    mutate(monkeypatch)
    if "later" not in program[0]:
        bench.learner.knowledge.doubted()
    else:
        bench.learner.knowledge._become(bench.learner.knowledge.catalogue)
    found, decision = await bench.leaves(program)
    assert found is not None, decision
