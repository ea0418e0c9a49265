"""Through a real PgBouncer in transaction mode: nothing leaks, nothing is lost, a wrong setting is named."""

import asyncio
import json
import random
from contextlib import asynccontextmanager

import asyncpg
import pytest

from magnus import (
    ConfigError,
    ConnectError,
    Database,
    DatabaseConfig,
    NeedsSession,
    OutcomeUnknown,
    PoolTimeout,
    QueryPriority,
    QueryTimeout,
)
from magnus.metrics import DatabaseCollector, EventCounts
from tests.facade_fakes import until
from tests.pgbouncer import pgbouncer

CLIENTS = 200
BACKENDS = 5
LEFT = """
SELECT count(*) FROM pg_settings WHERE source = 'session' AND name NOT IN ('application_name', 'client_encoding',
       'DateStyle', 'TimeZone', 'standard_conforming_strings')
"""


@pytest.fixture
async def pooler(server, database):
    """With five connections to the server, and a role whose sessions begin with guards."""
    async with server.connect(database=database) as con:
        await con.execute(f"ALTER DATABASE {database} SET statement_timeout = '31s'")
        await con.execute(f"ALTER DATABASE {database} SET idle_in_transaction_session_timeout = '60s'")
    async with pgbouncer(server, default_pool_size=BACKENDS) as found:
        yield found


@pytest.fixture
def config(pooler, dsn, database):
    """Everything through the pooler but what needs a session."""
    return DatabaseConfig(
        dsn=pooler.dsn(database), pooler="transaction", direct_dsn=dsn, min_pool_size=2, max_pool_size=20
    )


@asynccontextmanager
async def connected(config):
    seen = []
    async with Database(config, observers=[seen.append]) as db:
        db.seen = seen
        yield db


@pytest.fixture
async def db(config):
    """A connected database; its events are in `db.seen`."""
    async with connected(config) as found:
        yield found


async def left_in_sessions(pooler, database):
    """
    Settings that any of the server's sessions was left with, as its next client finds them.
    """
    cons = [await asyncpg.connect(pooler.dsn(database), statement_cache_size=0) for _ in range(BACKENDS)]
    try:
        for con in cons:  # each holds a session, so all are met
            await con.execute("BEGIN")
        return [await con.fetchval(LEFT) for con in cons]
    finally:
        for con in cons:
            con.terminate()


async def test_statements_transactions_cursors_and_copy_work(db):
    """Whatever needs no session of its own."""
    assert await db.fetchval("SELECT $1::int", 5, read=True) == 5
    await db.execute("CREATE TABLE t (a int)")
    await db.executemany("INSERT INTO t VALUES ($1)", [(number,) for number in range(10)])
    await db.copy_records_to_table("t", records=[(number,) for number in range(10, 20)])
    async with db.transaction() as tx:
        assert await tx.fetchval("SELECT count(*) FROM t WHERE a < $1", 15) == 15
        async with tx.transaction():
            await tx.execute("DELETE FROM t WHERE a = 1")
    async with db.cursor("SELECT a FROM t", prefetch=3) as rows:
        assert len([row async for row in rows]) == 19
    async with db.acquire() as con:
        statement = await con.prepare("SELECT $1::int + 1")
        assert await statement.fetchval(1) == 2
        assert await statement.fetchval(2) == 3


@pytest.mark.one_version
async def test_many_clients_on_few_sessions_meet_no_statement_of_others_and_leave_no_setting(config, pooler, database):
    """No 26000, no 42P05, no setting in a session that belongs to everybody; enum types are learned on the way."""
    async with connected(config.replace(max_pool_size=CLIENTS)) as db:
        await db.execute("CREATE TYPE side AS ENUM ('buy', 'sell')")
        await db.execute("CREATE TABLE t (a int, s side)")
        assert await db.warmup_pool(CLIENTS) == CLIENTS

        async def work(number):
            lane = random.choice(list(QueryPriority))
            await db.execute("INSERT INTO t VALUES ($1, 'buy')", number, priority=lane)
            async with db.transaction(priority=lane, settings={"work_mem": "1MB"}) as tx:
                assert await tx.fetchval("SHOW work_mem") == "1MB"
                assert await tx.fetchval("SELECT s FROM t WHERE a = $1", number) == "buy"
            assert await db.fetchval("SELECT count(*) FROM t WHERE a = $1", number, priority=lane, read=True) == 1

        await asyncio.gather(*(work(number) for number in range(CLIENTS * 3)))
        assert db.get_stats()["query_stats"]["failed"] == 0
    assert await left_in_sessions(pooler, database) == [0] * BACKENDS


async def test_types_are_learned_without_compiling_and_jit_is_as_it_was(db, pooler, database):
    """At the first sight of a type, outside a transaction and inside one."""
    await db.execute("CREATE TYPE side AS ENUM ('buy', 'sell')")
    await db.execute("CREATE TYPE deal AS (side side, size int)")
    before = await db.fetchval("SHOW jit")
    assert await db.fetchval("SELECT $1::side", "buy") == "buy"
    async with db.transaction() as tx:
        assert tuple(await tx.fetchval("SELECT ('sell', 5)::deal")) == ("sell", 5)
    assert await db.fetchval("SHOW jit") == before
    assert await left_in_sessions(pooler, database) == [0] * BACKENDS


async def test_limits_and_guards_go_with_begin(db):
    """A transaction has its lane's limit and the guard of an idle one, whatever the role has."""
    async with db.transaction(priority=QueryPriority.CRITICAL) as tx:
        assert await tx.fetchval("SHOW statement_timeout") == "6s"
        assert await tx.fetchval("SHOW idle_in_transaction_session_timeout") == "1min"


async def test_a_statement_has_the_roles_limit_and_a_longer_one_where_its_lane_needs_it(db):
    """The longer one in a transaction of its own; afterwards the session is as it was."""
    assert await db.fetchval("SHOW statement_timeout") == "31s"
    assert await db.fetchval("SHOW statement_timeout", priority=QueryPriority.LOW) == "61s"
    async with db.acquire(priority=QueryPriority.BACKGROUND) as con:
        assert await con.fetchval("SHOW statement_timeout") == "121s"
    assert await db.fetchval("SHOW statement_timeout") == "31s"


async def test_a_write_in_a_long_lane_is_committed(db):
    """The transaction around it ends with COMMIT, and with ROLLBACK when it fails."""
    await db.execute("CREATE TABLE t (a int CHECK (a > 0))")
    await db.execute("INSERT INTO t VALUES (1)", priority=QueryPriority.LOW)
    with pytest.raises(asyncpg.CheckViolationError):
        await db.execute("INSERT INTO t VALUES (-1)", priority=QueryPriority.LOW)
    assert await db.fetchval("SELECT count(*) FROM t") == 1
    await db.execute("VACUUM t", priority=QueryPriority.LOW)


@pytest.mark.one_version
@pytest.mark.parametrize(
    "text", ["SET work_mem = '1MB'", "LISTEN x", "SELECT pg_advisory_lock(1)", "PREPARE p AS SELECT 1"]
)
async def test_what_needs_a_session_is_refused_and_nothing_is_sent(db, pooler, database, text):
    """By every way to run it; the connection is as good as before."""
    with pytest.raises(NeedsSession):
        await db.execute(text)
    with pytest.raises(NeedsSession):
        await db.execute(text, priority=QueryPriority.LOW)
    async with db.acquire() as con:
        with pytest.raises(NeedsSession):
            await con.execute(text)
        assert await con.fetchval("SELECT 1") == 1
    async with db.transaction() as tx:
        with pytest.raises(NeedsSession):
            await tx.execute(text)
        assert await tx.fetchval("SELECT 1") == 1
    assert await left_in_sessions(pooler, database) == [0] * BACKENDS


@pytest.mark.one_version
async def test_listeners_and_named_statements_of_the_driver_are_refused(db):
    """Codecs are the driver's own, and end with the connection."""
    async with db.acquire() as con:
        with pytest.raises(NeedsSession):
            await con.add_listener("x", print)
        with pytest.raises(NeedsSession):
            await con.prepare("SELECT 1", name="mine")
    assert await db.fetchval("SELECT count(*) FROM pg_prepared_statements") == 0


async def test_a_write_declared_a_read_is_refused(db):
    """It gets a READ ONLY transaction, as its text is no query, or calls what nobody knows."""
    await db.execute("CREATE TABLE t (a int)")
    await db.execute("CREATE FUNCTION sneak() RETURNS int LANGUAGE sql AS 'INSERT INTO t VALUES (1) RETURNING 1'")
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await db.fetchval("SELECT sneak()", read=True)
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await db.fetchval("INSERT INTO t VALUES (1) RETURNING a", read=True)
    assert await db.fetchval("SELECT count(*) FROM t") == 0


async def test_a_transaction_left_open_on_a_lease_is_rolled_back(db, pooler, database):
    """Before the next client has its session."""
    await db.execute("CREATE TABLE t (a int)")
    async with db.acquire() as con:
        await con.execute("BEGIN")
        await con.execute("INSERT INTO t VALUES (1)")
    assert await db.fetchval("SELECT count(*) FROM t") == 0
    assert await left_in_sessions(pooler, database) == [0] * BACKENDS


@pytest.mark.one_version
async def test_a_cancel_meets_nobody_elses_statement(config):
    """Statements that run into their limit, beside others on the same sessions that must not notice."""
    async with connected(config.replace(max_pool_size=60)) as db:
        assert await db.warmup_pool(60) == 60

        async def hasty():
            with pytest.raises((QueryTimeout, PoolTimeout)):
                await db.execute("SELECT pg_sleep(5)", timeout=random.uniform(0.01, 0.05))

        async def calm():
            for _ in range(20):
                assert await db.execute("SELECT pg_sleep(0.005)") == "SELECT 1"

        await asyncio.gather(*(hasty() for _ in range(40)), *(calm() for _ in range(20)))
        assert db.get_stats()["query_stats"]["successful"] == 20 * 20


async def test_a_pooler_that_nobody_named_is_noticed_by_what_it_refuses(pooler, database):
    """The error says the setting."""
    with pytest.raises(ConnectError, match='pooler="transaction"') as caught:
        await Database(DatabaseConfig(dsn=pooler.dsn(database))).connect()
    assert caught.value.reason == "pooler"


async def test_a_pooler_that_drops_what_it_does_not_know_is_noticed_by_its_sessions(server, database):
    """It would serve, without any guard, and fail at the second statement."""
    names = "statement_timeout, idle_in_transaction_session_timeout, client_connection_check_interval"
    async with pgbouncer(server, ignore_startup_parameters=names) as pooler:
        with pytest.raises(ConfigError, match='pooler="transaction"'):
            await Database(DatabaseConfig(dsn=pooler.dsn(database))).connect()


async def test_a_pooler_that_is_none_or_keeps_sessions_is_noticed(server, database, dsn):
    """With the fix for each."""
    with pytest.raises(ConfigError, match='pooler="none"'):
        await Database(DatabaseConfig(dsn=dsn, pooler="transaction")).connect()
    async with pgbouncer(server, pool_mode="session") as pooler:
        with pytest.raises(ConfigError, match="pool_mode = transaction"):
            await Database(DatabaseConfig(dsn=pooler.dsn(database), pooler="transaction")).connect()


async def test_a_pooler_in_session_mode_needs_no_setting(server, database):
    """As long as it lets the guards through."""
    names = "statement_timeout, idle_in_transaction_session_timeout, client_connection_check_interval"
    async with (
        pgbouncer(server, pool_mode="session", ignore_startup_parameters=names) as pooler,
        Database(DatabaseConfig(dsn=pooler.dsn(database), min_pool_size=1, max_pool_size=2)) as db,
    ):
        assert await db.fetchval("SELECT 1") == 1


async def test_sessions_without_guards_are_told_of(server, database, dsn):
    """Once, with the SQL that gives them."""
    async with pgbouncer(server) as pooler:
        config = DatabaseConfig(dsn=pooler.dsn(database), pooler="transaction", direct_dsn=dsn, max_pool_size=5)
        async with connected(config) as db:
            told = [event for event in db.seen if event.name == "database_guards_missing"]
    assert len(told) == 1
    assert "ALTER ROLE" in told[0].advice


@pytest.mark.one_version
async def test_a_pooler_that_restarts_is_found_again(db, pooler):
    """What was under way fails or is repeated; the next statements run."""
    assert await db.fetchval("SELECT 1") == 1
    pooler.stop()
    await pooler.start()

    async def is_back():
        try:
            return await db.fetchval("SELECT 1", read=True, timeout=1.0) == 1
        except (ConnectError, TimeoutError, OSError, asyncpg.PostgresError, OutcomeUnknown):
            return False

    await until(is_back)


# --- the pooler's own figures


async def figures(db, wanted):
    async def is_so():
        return wanted(db.get_stats()["pooler"])

    await until(is_so)
    return db.get_stats()["pooler"]


@pytest.mark.one_version
async def test_the_poolers_own_figures_are_in_the_stats(config, pooler):
    """Of this database alone, asked on its console: who works, who waits, and for how long."""
    config = config.replace(pooler_admin_dsn=pooler.dsn("pgbouncer"), health_check_interval=0.05, min_pool_size=8)
    async with connected(config) as db:

        def is_full(found):
            return any((p["servers_active"], p["clients_waiting"]) == (BACKENDS, 2) for p in found.get("pools", ()))

        tasks = [asyncio.create_task(db.execute("SELECT pg_sleep(30)")) for _ in range(BACKENDS + 2)]
        found = await figures(db, is_full)
        assert found["version"].startswith("1.")
        (pool,) = found["pools"]
        assert (pool["user"], pool["mode"]) == ("postgres", "transaction")
        assert pool["max_wait_ms"] > 0
        assert json.loads(json.dumps(found)) == found
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def metrics(db):
    """
    The pooler's, by name, role and state.
    """
    samples = [sample for family in DatabaseCollector(lambda: db, EventCounts()).collect() for sample in family.samples]
    return {
        (sample.name, sample.labels.get("role"), sample.labels.get("state")): sample.value
        for sample in samples
        if sample.name.startswith("magnus_pooler_")
    }


async def test_the_poolers_own_figures_are_metrics(config, pooler):
    """As many as SHOW POOLS has; a console that does not answer leaves none, and that is a metric too."""
    asked = config.replace(pooler_admin_dsn=pooler.dsn("pgbouncer"), health_check_interval=0.05, min_pool_size=8)
    full = {
        ("magnus_pooler_up", None, None): 1,
        ("magnus_pooler_clients", "postgres", "waiting"): 2,
        ("magnus_pooler_servers", "postgres", "active"): BACKENDS,
        ("magnus_pooler_servers", "postgres", "idle"): 0,
        ("magnus_pooler_servers", "postgres", "connecting"): 0,
    }
    served = ("magnus_pooler_clients", "postgres", "active")  # idle ones too
    waited = ("magnus_pooler_max_wait_seconds", "postgres", None)
    async with connected(asked) as db:
        tasks = [asyncio.create_task(db.execute("SELECT pg_sleep(30)")) for _ in range(BACKENDS + 2)]
        await until(lambda: asyncio.sleep(0, metrics(db).items() >= full.items()))
        assert metrics(db).keys() == full.keys() | {served, waited}
        assert metrics(db)[served] >= BACKENDS
        await until(lambda: asyncio.sleep(0, 0 < metrics(db)[waited] < 60))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        pooler.stop()
        await until(lambda: asyncio.sleep(0, metrics(db) == {("magnus_pooler_up", None, None): 0}))
        await pooler.start()
    async with connected(config) as db:
        assert metrics(db) == {}


@pytest.mark.one_version
async def test_figures_that_cannot_be_had_are_said_to_be_so_and_disturb_nothing(config, pooler, dsn, database):
    """No console named, something else in its place, a pooler that goes away and comes back."""
    config = config.replace(health_check_interval=0.05)
    async with connected(config) as db:
        assert "pooler_admin_dsn" in db.get_stats()["pooler"]["unavailable"]
    async with connected(config.replace(pooler_admin_dsn=dsn)) as db:
        await figures(db, lambda found: "is pooler_admin_dsn that of" in found.get("unavailable", ""))
        assert await db.fetchval("SELECT 1") == 1
    async with connected(config.replace(pooler_admin_dsn=pooler.dsn("pgbouncer"))) as db:
        await figures(db, lambda found: "pools" in found)
        pooler.stop()
        await figures(db, lambda found: "cannot be asked" in found.get("unavailable", ""))
        await pooler.start()
        await figures(db, lambda found: "pools" in found)
    async with Database(config.replace(pooler="none", dsn=dsn, direct_dsn="")) as direct:
        assert "pooler" not in direct.get_stats()
