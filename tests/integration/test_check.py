"""The checks on real servers: each fires on what it is for, is ok before, and locks nothing above AccessShare."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from magnus.embedded import throwaway
from magnus.tuning import reading
from magnus.tuning.checks import CHECKS, Missing, Result, Snapshot, State, run
from magnus.tuning.checks.vacuum import expected_table_bytes
from magnus.tuning.examine import examine
from tests.integration.test_cli import magnus
from tests.servers import binaries_or_skip
from tests.unit.tuning import snapshots

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from magnus.embedded import Cluster

BY_CODE = {check.code: check for check in CHECKS}
DAY = 86_400.0
GB = 1024**3


async def look(dsn: str) -> Snapshot:
    """
    The server's own rows; host and service are those of a healthy one.
    """
    async with connected(dsn) as con:
        return Snapshot({**snapshots.healthy().parts, **(await reading.read(con)).parts})


def judged(code: str, seen: Snapshot) -> Result:
    return run(BY_CODE[code], seen)


def found(code: str, seen: Snapshot) -> dict[str, str]:
    """
    What a check found: object and fix.
    """
    result = judged(code, seen)
    return {finding.object: finding.fix for finding in result.verdict.findings}


def aged(seen: Snapshot, days: float = 30.0) -> Snapshot:
    """
    The same rows, as if the server had been up and counting for so many days.
    """
    server = {**seen.server, "up_s": days * DAY, "server_stats_age_s": days * DAY}
    return Snapshot({**seen.parts, "server": (server,), "database_age": ({"age_s": days * DAY},)})


def later(seen: Snapshot, part: str, column: str, seconds: float) -> Snapshot:
    """
    The same rows, so many seconds later.
    """
    rows = tuple({**row, column: row[column] and row[column] + seconds} for row in seen.rows(part))
    return Snapshot({**seen.parts, part: rows})


@contextlib.asynccontextmanager
async def connected(dsn: str, **settings: str) -> AsyncIterator[asyncpg.Connection]:
    con = await asyncpg.connect(dsn, server_settings=settings)
    try:
        yield con
    finally:
        await con.close()


async def each(con: asyncpg.Connection, script: str) -> None:
    """
    Run the statements one by one, each in a transaction of its own; what each did is counted before the next.
    """
    for statement in filter(str.strip, script.split(";")):
        await con.execute(statement)
        await settle(con)


async def until(is_true: Callable[[], Awaitable[object]]) -> None:
    """
    Ask the server again and again, for a minute at most: it tells nobody by itself.
    """
    async with asyncio.timeout(60):
        while not await is_true():  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.02)


async def settle(con: asyncpg.Connection) -> None:
    """
    Make what this session did show up in the statistics.
    """
    await con.execute("SELECT pg_stat_force_next_flush()")
    await con.execute("SELECT 1")


# --- one database each -----------------------------------------------------------------------------------------------

FILL = "INSERT INTO t SELECT i, i FROM generate_series(1, 20000) i;"
TABLE = "CREATE TABLE t (id bigint PRIMARY KEY, a int);"
QUIET = "CREATE TABLE t (id bigint PRIMARY KEY, a int) WITH (autovacuum_enabled = off);"

# code: what is ok, what makes it fire, and on which object
CASES = {
    "I002": (TABLE + "CREATE INDEX one ON t (a)", "CREATE INDEX two ON t (a)", "public.two"),
    "I002 expression": (
        TABLE + "CREATE INDEX one ON t (lower(a::text)) WHERE a > 3",
        "CREATE INDEX two ON t (  lower(a::text)) WHERE  a > 3",
        "public.two",
    ),
    "I002 prefix": (TABLE + "CREATE INDEX one ON t (a)", "CREATE INDEX two ON t (a, id)", "public.one"),
    "I004": (  # three texts, the first in two parts
        (f'{TABLE}{FILL} CREATE TABLE c (id bigint PRIMARY KEY, "T id" bigint REFERENCES t); '
        'CREATE INDEX c_t ON c ("T id"); DELETE FROM t WHERE id = 1'),
        "DROP INDEX c_t",
        "public.c.c_T id_fkey",
    ),
    "T001": ("CREATE TABLE t (id serial PRIMARY KEY)", "SELECT setval('t_id_seq', 2000000000)", "public.t.id"),
    "T001 default": (
        "CREATE SEQUENCE s; CREATE TABLE t (id int PRIMARY KEY DEFAULT nextval('s'))",
        "SELECT setval('s', 2000000000)",
        "public.t.id",
    ),
    "T001 key": (
        "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 100); ANALYZE t",
        "UPDATE t SET id = 2147483647 - id; ANALYZE t",
        "public.t.id",
    ),
    "T002": (TABLE, "ALTER TABLE t DROP CONSTRAINT t_pkey", "public.t"),
    "V002": (QUIET + FILL, "DELETE FROM t WHERE id > 5000", "public.t"),
    "V003": (f"{QUIET}{FILL} ANALYZE t", "UPDATE t SET a = 0", "public.t"),
    "V003 never": (QUIET, FILL, "public.t"),
    "V003 partitioned": (
        "CREATE TABLE q (id int PRIMARY KEY) PARTITION BY RANGE (id)",
        "CREATE TABLE q1 PARTITION OF q DEFAULT",
        "public.q",
    ),
    "V006": (TABLE, "ALTER TABLE t SET (autovacuum_enabled = off)", "public.t"),
    "V006 toast": (
        "CREATE TABLE t (id int PRIMARY KEY, a text)",
        "ALTER TABLE t SET (toast.autovacuum_enabled = off)",
        "public.t",
    ),
    "A003": ("REVOKE CREATE ON SCHEMA public FROM PUBLIC", "GRANT CREATE ON SCHEMA public TO PUBLIC", "schema public"),
    "A007": (
        "SELECT 1",
        "DROP EXTENSION pg_stat_statements; CREATE EXTENSION pg_stat_statements VERSION '1.9'",
        "extension pg_stat_statements",
    ),
    "P001": ("SELECT 1", "DROP EXTENSION pg_stat_statements", "pg_stat_statements in "),
    "Q005": (
        ("CREATE TABLE slow_query_log (id bigint PRIMARY KEY, query text, duration_ms numeric, threshold_ms numeric, "
        '"timestamp" timestamptz, query_signature text)'),
        "ALTER TABLE slow_query_log DROP COLUMN query_signature",
        "public.slow_query_log",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
async def test_a_check_is_ok_before_and_fires_after(case, dsn):
    """On a database that was fine and then was not."""
    code = case.partition(" ")[0]
    fine, bad, name = CASES[case]
    async with connected(dsn) as con:
        await each(con, fine)
        await settle(con)
        before = judged(code, await look(dsn))
        assert before.state is State.OK, before.verdict
        await each(con, bad)
        await settle(con)
        after = judged(code, await look(dsn))
    assert after.state is State.FINDING, after.verdict
    assert [finding for finding in after.verdict.findings if finding.object.startswith(name)], after.verdict


@pytest.mark.parametrize("case", ["I002", "I002 expression", "I002 prefix", "I004", "T002", "V002", "V006"])
async def test_the_fix_ends_the_finding_and_the_undo_brings_it_back(case, dsn):
    """As written, statement by statement."""
    code = case.partition(" ")[0]
    async with connected(dsn) as con:
        await each(con, ";".join(CASES[case][:2]))
        await settle(con)
        finding = judged(code, await look(dsn)).verdict.findings[0]
        await con.execute(finding.fix.partition(", or")[0])
        await settle(con)
        assert judged(code, await look(dsn)).state is State.OK
        if code != "V002":  # VACUUM has no way back, and needs none
            await con.execute(finding.undo)
            await settle(con)
            again = judged(code, await look(dsn)).verdict.findings
            assert [one.evidence for one in again] == [finding.evidence]


async def test_an_index_that_a_failed_build_left_is_an_error(dsn):
    """Two equal rows: CREATE UNIQUE INDEX CONCURRENTLY fails and leaves it; its drop ends the finding."""
    async with connected(dsn) as con:
        await con.execute("CREATE TABLE t (id bigint PRIMARY KEY, a int); INSERT INTO t VALUES (1, 1), (2, 1)")
        assert judged("I001", await look(dsn)).state is State.OK
        with pytest.raises(asyncpg.UniqueViolationError):
            await con.execute('CREATE UNIQUE INDEX CONCURRENTLY "Left Over" ON t (a)')
        seen = await look(dsn)
        assert found("I001", seen) == {"public.Left Over": 'DROP INDEX CONCURRENTLY "public"."Left Over"'}
        undo = judged("I001", seen).verdict.findings[0].undo
        assert undo.startswith('CREATE UNIQUE INDEX CONCURRENTLY "Left Over" ON public.t')
        await con.execute(found("I001", seen)["public.Left Over"])
        assert judged("I001", await look(dsn)).state is State.OK


async def test_an_index_that_is_being_built_is_no_finding(dsn):
    """A build that waits for an older transaction has an index that is not valid yet."""
    async with connected(dsn) as old, connected(dsn) as builder:
        await old.execute("CREATE TABLE t (id bigint PRIMARY KEY, a int); INSERT INTO t VALUES (1, 1)")
        transaction = old.transaction()
        await transaction.start()
        await old.execute("UPDATE t SET a = 2")
        build = asyncio.create_task(builder.execute("CREATE INDEX CONCURRENTLY slow ON t (a)"))
        await until(lambda: _invalid(dsn))
        result = judged("I001", await look(dsn))
        assert result.state is State.OK, result.verdict
        await transaction.rollback()
        await build


async def _invalid(dsn: str) -> bool:
    async with connected(dsn) as con:
        return bool(await con.fetchval("SELECT count(*) FROM pg_index WHERE NOT indisvalid"))


async def test_what_holds_and_what_waits_is_seen(dsn):
    """Idle in transaction, a long transaction, and the session that waits for its lock, with who blocks it."""
    async with connected(dsn, application_name="holder") as holder, connected(dsn) as waiter:
        await holder.execute("CREATE TABLE t (id bigint PRIMARY KEY)")
        calm = await look(dsn)
        assert {judged(code, calm).state for code in ("C002", "C003", "C004", "C005")} == {State.OK}
        await holder.execute("BEGIN")
        await holder.execute("LOCK TABLE t")
        blocked = asyncio.create_task(waiter.execute("SELECT * FROM t"))
        await until(lambda: _waits(dsn))
        seen = await look(dsn)
        pid, other = holder.get_server_pid(), waiter.get_server_pid()
        (name,) = found("C002", later(seen, "activity", "state_s", 400.0))
        assert name.startswith(f"pid {pid} (postgres@")
        assert "'holder'" in name
        assert [key.split()[1] for key in found("C003", later(seen, "activity", "transaction_s", 1000.0))] == [
            str(other)
        ]
        waits = later(seen, "blocked", "wait_s", 15.0)
        assert found("C005", waits) == {f"pid {other}": f"SELECT pg_terminate_backend({pid})"}
        assert "public.t" in judged("C005", waits).verdict.findings[0].evidence
        await holder.execute("ROLLBACK")
        await blocked


async def _waits(dsn: str) -> bool:
    return bool((await look(dsn)).rows("blocked"))


async def test_use_is_judged_on_old_statistics_only(dsn):
    """A fresh server says unknown; the same rows, a month old, say which index is idle, which table read whole."""
    async with connected(dsn) as con:
        await con.execute(
            "CREATE TABLE t (id bigint PRIMARY KEY, a int, b text); INSERT INTO t SELECT i, i, repeat('x', 60) FROM "
            "generate_series(1, 120000) i; CREATE INDEX idle ON t (b, id)"
        )
        await con.execute("VACUUM ANALYZE t")
        await con.execute("SET max_parallel_workers_per_gather = 0")
        for _ in range(11):
            await con.fetch("SELECT count(*) FROM t WHERE a = 7")
        await settle(con)
    seen = await look(dsn)
    for code in ("I003", "I005"):
        assert judged(code, seen).state is State.UNKNOWN
    old = aged(seen)
    assert list(found("I003", old)) == ["public.idle"]
    assert "CREATE INDEX CONCURRENTLY idle ON public.t" in judged("I003", old).verdict.findings[0].undo
    assert list(found("I005", old)) == ["public.t"]


async def test_bloat_is_estimated_and_says_what_it_could_not_see(dsn):
    """A table that is three times its rows; after much was changed since ANALYZE, it is unknown."""
    async with connected(dsn) as con:
        await con.execute(
            "CREATE TABLE t (id bigint PRIMARY KEY, a text) WITH (autovacuum_enabled = off);"
            "INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1, 20000) i"
        )
        await settle(con)
        await con.execute("VACUUM ANALYZE t")
        await settle(con)
        await con.execute("SET allow_system_table_mods = on")
        await con.execute("UPDATE pg_class SET relpages = 40000 WHERE relname IN ('t', 't_pkey')")
        seen = await look(dsn)
        assert list(found("V004", seen)) == ["public.t"]
        assert list(found("V005", seen)) == ["public.t_pkey"]
        estimate = expected_table_bytes(seen.rows("table_widths")[0], 8192.0)
        real = await con.fetchval("SELECT pg_relation_size('t')")
        assert 0.9 < estimate / real < 1.1  # the rows' own size is known to a tenth
        await con.execute("UPDATE t SET a = 'y'")
        await settle(con)
        assert {judged(code, await look(dsn)).state for code in ("V004", "V005")} == {State.UNKNOWN}


async def test_connections_of_a_database_have_their_own_limit(dsn, database):
    """Two of two in use."""
    async with connected(dsn) as con:
        assert judged("C001", await look(dsn)).state is State.OK
        await con.execute(f"ALTER DATABASE {database} CONNECTION LIMIT 2")
        assert list(found("C001", await look(dsn))) == [f"database {database}"]


# --- the whole server ------------------------------------------------------------------------------------------------

SERVER_SETTINGS = {
    "max_prepared_transactions": "5",
    "archive_mode": "on",
    "archive_command": "false",
    "pg_stat_statements.max": "100",
    "track_commit_timestamp": "on",
    "log_temp_files": "4MB",
    "log_lock_waits": "on",
    "fsync": "on",
    "full_page_writes": "on",
}


@pytest.fixture(scope="module")
def own(pg_version: int) -> Iterator[Cluster]:
    """
    A server whose settings the tests change.
    """
    with throwaway(binaries_or_skip(pg_version), settings=SERVER_SETTINGS) as cluster:
        yield cluster


@contextlib.asynccontextmanager
async def altered(cluster: Cluster, *statements: str) -> AsyncIterator[None]:
    """
    The server with other settings, for as long as the block lasts.
    """
    async with connected(cluster.dsn()) as con:
        try:
            for statement in statements:
                await con.execute(statement)
            await _reload(con)
            yield
        finally:
            await con.execute("ALTER SYSTEM RESET ALL")
            await _reload(con)


async def _reload(con: asyncpg.Connection) -> None:
    """
    Reload, and wait until the postmaster has done it: a new session tells.
    """
    before = await con.fetchval("SELECT pg_conf_load_time()")
    await con.execute("SELECT pg_reload_conf()")
    await until(lambda: con.fetchval("SELECT pg_conf_load_time() <> $1", before))


SETTINGS = {
    "S002": (["ALTER SYSTEM SET max_connections = 150"], "max_connections"),
    "S005": (["ALTER SYSTEM SET fsync = off", "ALTER SYSTEM SET full_page_writes = off"], "fsync"),
    "S007": (["ALTER SYSTEM SET autovacuum = off"], "autovacuum"),
    "M003": (["ALTER SYSTEM SET effective_cache_size = '1MB'"], "effective_cache_size"),
    "M001": (["ALTER SYSTEM SET work_mem = '64GB'"], "work_mem and max_connections"),
    "A005": (["ALTER SYSTEM SET log_lock_waits = off"], "log_lock_waits"),
}


@pytest.mark.parametrize("code", SETTINGS)
async def test_a_setting_makes_its_check_fire(code, own):
    """And it is ok without."""
    assert judged(code, await look(own.dsn())).state is State.OK
    statements, name = SETTINGS[code]
    async with altered(own, *statements):
        seen = await look(own.dsn())
    assert name in found(code, seen), judged(code, seen).verdict


async def test_an_error_in_a_file_is_found_and_a_setting_that_waits_is_none(own):
    """pg_file_settings lists both with an error; only one of them is one."""
    conf = own.data / "postgresql.conf"
    text = conf.read_text()
    async with altered(own, "ALTER SYSTEM SET max_connections = 150"):
        assert judged("S003", await look(own.dsn())).state is State.OK
        conf.write_text(f"{text}\nwrok_mem = '4MB'\n")
        try:
            (name,) = found("S003", await look(own.dsn()))
        finally:
            conf.write_text(text)
    assert name.startswith(str(conf))


async def test_a_role_that_has_a_value_of_its_own_outranks_the_files(own):
    """The finding names the role; its fix and its undo do what they say."""
    async with altered(own, "ALTER SYSTEM SET work_mem = '8MB'"), connected(own.dsn()) as con:
        assert judged("S004", await look(own.dsn())).state is State.OK
        await con.execute('CREATE ROLE "Odd one"; ALTER ROLE "Odd one" SET work_mem = \'16MB\'')
        try:
            (finding,) = judged("S004", await look(own.dsn())).verdict.findings
            assert (finding.object, finding.undo) == ("work_mem", "ALTER ROLE \"Odd one\" SET work_mem = '16MB'")
            await con.execute(finding.fix)
            assert judged("S004", await look(own.dsn())).state is State.OK
        finally:
            await con.execute('DROP ROLE "Odd one"')


async def test_a_prepared_transaction_is_found_when_it_is_old(own):
    """It holds what it holds across restarts."""
    async with connected(own.dsn()) as con:
        await con.execute("CREATE TABLE held (id int)")
        await con.execute("BEGIN; INSERT INTO held VALUES (1)")
        await con.execute("PREPARE TRANSACTION 'left'")
        try:
            seen = await look(own.dsn())
            assert judged("C006", seen).state is State.OK
            assert list(found("C006", later(seen, "prepared", "age_s", 400.0))) == ["prepared transaction left"]
        finally:
            await con.execute("ROLLBACK PREPARED 'left'")
            await con.execute("DROP TABLE held")


async def test_a_slot_that_nobody_reads_is_found_and_so_is_an_unlogged_table_beside_it(own):
    """Without slot: ok. With one: the slot, the missing limit, and the table that would be empty after a failover."""
    async with connected(own.dsn()) as con:
        await con.execute("CREATE UNLOGGED TABLE cache (id int PRIMARY KEY)")
        calm = await look(own.dsn())
        assert {judged(code, calm).state for code in ("R001", "T003")} == {State.OK}
        await con.execute("SELECT pg_create_physical_replication_slot('gone', true)")
        try:
            seen = await look(own.dsn())
        finally:
            await con.execute("SELECT pg_drop_replication_slot('gone')")
            await con.execute("DROP TABLE cache")
    assert set(found("R001", seen)) == {"slot gone", "max_slot_wal_keep_size"}
    assert list(found("T003", seen)) == ["public.cache"]


async def test_an_archive_command_that_fails_is_an_error(own):
    """As soon as the archiver has failed once."""
    async with connected(own.dsn()) as con:
        await con.execute("CREATE TABLE w (id int)")
        await con.execute("SELECT pg_switch_wal()")
        await until(lambda: con.fetchval("SELECT failed_count FROM pg_stat_archiver"))
        await con.execute("DROP TABLE w")
    assert list(found("R003", await look(own.dsn()))) == ["archive_command"]


async def test_statements_that_do_not_fit_are_found(own):
    """More different statements than pg_stat_statements.max."""
    async with connected(own.dsn()) as con:
        await con.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        for number in range(150):
            await con.execute(f"SELECT 1 AS a{number}, {', '.join('1' for _ in range(number + 1))}")
    assert list(found("P002", await look(own.dsn()))) == ["pg_stat_statements"]


async def test_checkpoints_that_are_asked_for_are_counted(own):
    """Eleven by hand; the fix raises what would have forced them."""
    async with connected(own.dsn()) as con:
        for _ in range(11):
            await con.execute("CHECKPOINT")
    assert "max_wal_size" in found("W001", await look(own.dsn()))["max_wal_size"]


async def test_roles_are_judged(own):
    """An md5 password, a second superuser, and a role with sessions and no limits; each ends with its fix."""
    async with connected(own.dsn()) as con:
        await con.execute("SET password_encryption = 'md5'")
        await con.execute("CREATE ROLE weak LOGIN SUPERUSER PASSWORD 'hunter2'")
        try:
            seen = await look(own.dsn())
            assert list(found("A001", seen)) == list(found("A002", seen)) == ["role weak"]
            await con.execute(found("A002", seen)["role weak"])
            async with connected(own.dsn(user="weak")):
                limits = judged("A006", await look(own.dsn())).verdict.findings
                assert [finding.object for finding in limits] == ["role weak"] * 2
                for finding in limits:
                    await con.execute(finding.fix)
                seen = await look(own.dsn())
            assert {judged(code, seen).state for code in ("A002", "A006")} == {State.OK}
        finally:
            await con.execute("DROP ROLE weak")


# --- rights ----------------------------------------------------------------------------------------------------------

PLAIN_UNKNOWN = {"S002", "S003", "S004", "P001", "C002", "C003", "C004", "V007", "A001", "A008", "Q002", "Q006", "T001"}
MONITOR_UNKNOWN = {"S003", "S004", "A001"}


@pytest.mark.parametrize(("is_monitor", "wanted"), [(False, PLAIN_UNKNOWN), (True, MONITOR_UNKNOWN)])
async def test_a_role_without_rights_gets_unknown_where_it_cannot_see(is_monitor, wanted, server, dsn, database):
    """
    Nothing that it cannot see is ok. Everything that a superuser sees as a finding is a finding or unknown.
    """
    role = "watcher" if is_monitor else "nobody_special"
    await server.create_role(role, member_of=("pg_monitor",) if is_monitor else ())
    async with connected(dsn, application_name="ava_trading_platform") as con:
        await con.execute("CREATE TABLE t (id serial, a int); CREATE INDEX i ON t (a); CREATE INDEX j ON t (a)")
        await con.execute("SELECT nextval('t_id_seq'); BEGIN; SELECT 1")
        seen = later(
            await examine(server.dsn(user=role, database=database, is_tcp=True), {}), "activity", "state_s", 400.0
        )
        full = later(await look(dsn), "activity", "state_s", 400.0)
    for check in CHECKS:
        mine, all_ = run(check, seen), run(check, full)
        if check.code in wanted:
            assert mine.state is State.UNKNOWN, (check.code, mine.verdict)
            assert mine.verdict.missing
        if all_.state is State.FINDING:
            assert mine.state is not State.OK, (check.code, mine.verdict)
    assert judged("C002", full).state is State.FINDING


async def test_a_grant_that_a_message_names_brings_the_check_back(server, dsn, database):
    """GRANT pg_monitor TO …, as printed."""
    await server.create_role("Grant ee")
    mine = server.dsn(user="Grant ee", database=database, is_tcp=True)
    missing = judged("P001", await examine(mine, {})).verdict.missing
    async with connected(dsn) as con:
        await con.execute(missing.partition(": ")[2])
    try:
        assert judged("P001", await examine(mine, {})).state is State.OK
    finally:
        async with connected(dsn) as con:
            await con.execute('REVOKE pg_monitor FROM "Grant ee"')


# --- beside production -----------------------------------------------------------------------------------------------


async def test_the_rows_have_the_shape_that_the_tables_of_tests_use(dsn):
    """Else a test of a pure check would prove nothing."""
    async with connected(dsn) as con:
        await con.execute(
            "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE t (id serial PRIMARY KEY, a int REFERENCES a);"
            "CREATE INDEX i ON t (a); CREATE INDEX j ON t (a)"
        )
        await con.execute("SELECT nextval('t_id_seq')")
    real, made = await examine(dsn, {}), snapshots.healthy()
    assert made.parts.keys() == real.parts.keys()
    compared = set()
    for part, rows in made.parts.items():
        there = real.parts[part]
        if rows and there and not isinstance(there, Missing) and not isinstance(rows, Missing):
            assert there[0].keys() == rows[0].keys(), part
            compared.add(part)
    assert compared >= {"server", "settings", "databases", "activity", "tables", "indexes", "foreign_keys", "sequences"}
    shapes = {"slots": snapshots.slot(), "standbys": snapshots.standby(), "blocked": snapshots.waiting()}
    for part, row in shapes.items():
        async with connected(dsn) as con:
            statement = await con.prepare(reading.text_of(part, con.get_server_version().major))
            assert {attribute.name for attribute in statement.get_attributes()} == row.keys()


async def test_a_locked_table_neither_stops_it_nor_hides_the_rest(dsn):
    """ACCESS EXCLUSIVE on a table, its sequence and its indexes: what can be seen without them is seen."""
    async with connected(dsn) as holder:
        await holder.execute("CREATE TABLE free (id serial); CREATE TABLE t (id serial PRIMARY KEY, a int)")
        await holder.execute("CREATE INDEX i ON t (abs(a)); CREATE INDEX j ON t (abs(a)); SELECT nextval('t_id_seq')")
        await holder.execute("BEGIN; LOCK TABLE t; ALTER SEQUENCE t_id_seq RENAME TO other")
        seen = await look(dsn)
        await holder.execute("ROLLBACK")
    assert list(found("T002", seen)) == ["public.free"]
    duplicate = judged("I002", seen).verdict.findings[0]
    assert "read it first" in duplicate.undo  # to write its expression the server would have locked the table
    assert judged("T001", seen).state is State.UNKNOWN
    assert not [part for part, rows in seen.parts.items() if isinstance(rows, Missing) and "locked" in rows.reason]


async def test_it_changes_nothing_and_locks_nothing_above_access_share(dsn):
    """Another session looks at the locks while it reads; the transaction is read only, in one snapshot, with limits."""
    async with connected(dsn) as con:
        for number in range(40):
            await con.execute(f"CREATE TABLE t{number} (id serial PRIMARY KEY, a int); CREATE INDEX ON t{number} (a)")
        await con.execute("SELECT setval('t0_id_seq', 3)")
    statements: list[str] = []
    modes: set[str] = set()
    async with connected(dsn) as reader, connected(dsn) as watcher:
        reader.add_query_logger(lambda query: statements.append(query.query))
        task = asyncio.create_task(reading.read(reader))
        while not task.done():
            rows = await watcher.fetch(
                "SELECT mode FROM pg_locks WHERE pid = $1 AND locktype <> 'virtualxid'", reader.get_server_pid()
            )
            modes |= {row["mode"] for row in rows}
        await task
        assert await watcher.fetchval("SELECT last_value FROM t0_id_seq") == 3
    assert modes <= {"AccessShareLock"}
    assert "AccessShareLock" in modes
    assert "REPEATABLE READ READ ONLY" in statements[0].upper()
    assert "SET LOCAL statement_timeout = 2000" in statements
    assert "SET LOCAL lock_timeout = 100" in statements


async def test_locks_on_sequences_are_given_back(dsn):
    """As many at once as there are sequences could exhaust the lock table for everybody: a batch at most is held."""
    async with connected(dsn) as con:
        for part in range(10):
            await con.execute(";".join(f"CREATE SEQUENCE s{part}_{number}" for number in range(50)))
    most = 0
    async with connected(dsn) as reader, connected(dsn) as watcher:
        pid = reader.get_server_pid()
        task = asyncio.create_task(reading.read(reader))
        while not task.done():
            count = "SELECT count(*) FROM pg_locks WHERE pid = $1 AND relation > 16383"
            most = max(most, await watcher.fetchval(count, pid))
        seen = await task
    assert len(seen.rows("sequence_values")) == 500
    assert most < 300  # a batch, and a view or two


async def test_a_users_own_functions_and_operators_are_never_called(dsn):
    """A table owner may leave an operator of the same name on the search path; ours is pg_catalog alone."""
    async with connected(dsn) as con:
        await con.execute(
            "CREATE TABLE called (id int);"
            "CREATE FUNCTION public.age(xid) RETURNS int LANGUAGE sql AS 'INSERT INTO called VALUES (1) RETURNING 1';"
            "CREATE FUNCTION public.trap(name, text) RETURNS bool LANGUAGE sql AS "
            "'INSERT INTO called VALUES (1) RETURNING true';"
            "CREATE OPERATOR public.= (LEFTARG = name, RIGHTARG = text, FUNCTION = public.trap)"
        )
        await con.execute("ALTER ROLE postgres SET search_path = public, pg_catalog")
        try:
            seen = await look(dsn)
            assert not await con.fetchval("SELECT count(*) FROM called")
        finally:
            await con.execute("ALTER ROLE postgres RESET search_path")
    assert not [rows.reason for rows in seen.parts.values() if isinstance(rows, Missing) and "SQLSTATE" in rows.reason]


async def test_a_large_mixed_schema_is_read_whole(dsn, database):
    """
    Partitions, inheritance, generated columns, domains, unlogged and foreign-language names: no crash, and each finding
    is one that a person agrees with.
    """
    async with connected(dsn) as con:
        await con.execute(
            """
            CREATE SCHEMA "Großer Schema";
            CREATE TABLE "Großer Schema"."Tabelle mit 'Anführung'" (id bigint PRIMARY KEY, "Größe" int);
            CREATE INDEX "Ü""x" ON "Großer Schema"."Tabelle mit 'Anführung'" ("Größe");
            CREATE INDEX "Ü""y" ON "Großer Schema"."Tabelle mit 'Anführung'" ("Größe");
            CREATE TABLE events (id bigint GENERATED ALWAYS AS IDENTITY, at date NOT NULL, kind text,
                PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
            CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
            CREATE TABLE events_2 PARTITION OF events DEFAULT PARTITION BY HASH (id);
            CREATE TABLE events_2a PARTITION OF events_2 FOR VALUES WITH (MODULUS 1, REMAINDER 0);
            CREATE INDEX events_kind ON events (kind);
            CREATE INDEX events_only ON ONLY events (at, kind);
            CREATE TABLE base (id int PRIMARY KEY, name text);
            CREATE TABLE child (extra text) INHERITS (base);
            CREATE UNLOGGED TABLE cache (k text PRIMARY KEY, v bytea);
            CREATE TABLE made (id int PRIMARY KEY, a int, b int GENERATED ALWAYS AS (a * 2) STORED);
            CREATE INDEX made_b ON made (b) INCLUDE (a);
            CREATE INDEX made_json ON made ((a % 10), id DESC NULLS LAST) WHERE b > 3;
            CREATE DOMAIN money_amount AS numeric(20, 2) CHECK (value >= 0);
            CREATE TABLE refs (id int PRIMARY KEY, m money_amount, base int REFERENCES base, made int REFERENCES made,
                UNIQUE (base, made), EXCLUDE USING btree (m WITH =));
            CREATE MATERIALIZED VIEW mv AS SELECT * FROM base;
            CREATE UNIQUE INDEX mv_id ON mv (id);
            CREATE TEMP TABLE scratch (id int);
            CREATE TYPE mood AS ENUM ('a', 'b');
            CREATE TABLE moods (id smallint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, m mood[]);
            SELECT setval('moods_id_seq', 32000);
            CREATE SEQUENCE lonely CYCLE MAXVALUE 10;
            SELECT setval('lonely', 10);
            """
        )
        await con.execute("ANALYZE")
        seen = await look(dsn)
    states = {check.code: run(check, seen).state for check in CHECKS}
    assert not [part for part, rows in seen.parts.items() if isinstance(rows, Missing) and "SQLSTATE" in rows.reason]
    assert found("I001", seen).keys() == {"public.events_only"}
    assert found("I002", seen) == {'Großer Schema.Ü"y': 'DROP INDEX CONCURRENTLY "Großer Schema"."Ü""y"'}
    assert found("T001", seen).keys() == {"public.moods.id"}
    assert found("T002", seen).keys() == {"public.child"}
    assert states["T003"] is State.OK
    # deletes: none so far, and the statistics are young
    assert states["I004"] is State.UNKNOWN
    assert "refs_made_fkey" in judged("I004", seen).verdict.missing
    assert "refs_base_fkey" not in judged("I004", seen).verdict.missing
    listed = magnus("check", "-d", dsn, "--only", "I,T", "--output-format", "json")
    assert (listed.returncode, listed.stderr) == (1, "")
    assert json.loads(listed.stdout)["database"] == database


# --- the command -----------------------------------------------------------------------------------------------------


async def test_the_command_says_what_the_library_found(dsn, tcp_dsn, tmp_path):
    """Text, JSON and the exit codes, by socket and by TCP; the password is shown nowhere."""
    async with connected(dsn) as con:
        await con.execute("CREATE TABLE t (a int)")
    text = magnus("-d", tcp_dsn, "check", "--only", "T002,S001")
    assert (text.returncode, text.stderr) == (0, "")
    assert "warning T002  Every table has a primary key" in text.stdout
    assert 'help: ALTER TABLE "public"."t" ADD COLUMN id' in text.stdout
    assert text.stdout.endswith("Found 1 problems (0 error, 1 warning, 0 info); 1 checks passed, 0 unknown.\n")
    assert magnus("-d", dsn, "check", "--only", "T002", "--fail-on", "warning").returncode == 1
    assert magnus("-d", dsn, "check", "--only", "T", "--ignore", "T002", "--fail-on", "info").returncode == 0
    path = tmp_path / "found.json"
    assert magnus("check", "-d", dsn, "--output-format", "json", "-o", str(path), "--memory", "8GB").stdout == ""
    found_ = json.loads(path.read_text())
    assert {one["code"] for one in found_["checks"]} == BY_CODE.keys()
    assert ":".join(tcp_dsn.split(":")[2:]).split("@")[0] not in text.stdout


def test_an_unreachable_server_is_exit_code_3():
    """One line, as with every command."""
    gone = magnus("check", "-d", "postgresql://ava:hunter2canary@127.0.0.1:1/ava")
    assert (gone.returncode, gone.stdout) == (3, "")
    assert gone.stderr.count("\n") == 1
    assert "hunter2canary" not in gone.stderr


async def test_a_session_that_ends_in_the_middle_is_exit_code_3_not_a_crash(dsn, monkeypatch):
    """The server goes away while it is read."""
    from magnus.cli.check import Asked, check

    real = reading.read

    async def ended(con: Any) -> Snapshot:
        async with connected(dsn) as other:
            await other.execute("SELECT pg_terminate_backend($1)", con.get_server_pid())
        return await real(con)

    monkeypatch.setattr(reading, "read", ended)
    failure = await check(dsn, {}, Asked())
    assert int(failure.exit_code) == 3
    assert "connection was lost" in failure.error
