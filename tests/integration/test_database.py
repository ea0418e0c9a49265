"""The facade on a real server: queries, COPY, cursors, starts and outages."""

import asyncio
import dataclasses
import io
import json
import subprocess
import sys
import textwrap
from datetime import date
from decimal import Decimal
from functools import partial

import asyncpg
import pydantic
import pytest

import magnus
from magnus import (
    ConnectError,
    Database,
    DatabaseConfig,
    PoolClosed,
    PoolTimeout,
    QueryPriority,
    QueryTimeout,
    get_database,
    set_database,
)
from magnus.embedded import throwaway
from tests.facade_fakes import until
from tests.servers import binaries_or_skip

PRICES = "SELECT * FROM (VALUES (1, 10.5::numeric), (2, NULL)) AS prices (id, price) ORDER BY id"


@dataclasses.dataclass(frozen=True)
class Price:
    """A row, as a dataclass."""

    id: int
    price: Decimal | None


class PriceModel(pydantic.BaseModel):
    """A row, as a model."""

    id: int
    price: Decimal | None


@pytest.fixture
def config(target):
    """Few connections, quick probes."""
    return DatabaseConfig(**target, min_pool_size=2, max_pool_size=4, health_check_interval=0.1)


@pytest.fixture
async def db(config):
    """A connected database; its events are in `db.seen`."""
    seen = []
    async with Database(config, observers=[seen.append]) as found:
        found.seen = seen
        yield found


# --- queries


async def test_rows_are_records_dataclasses_models_or_what_a_callable_makes(db):
    """`row=` on fetch and fetchrow, on the database, a connection and a transaction."""
    expected = [Price(1, Decimal("10.5")), Price(2, None)]

    assert [tuple(record) for record in await db.fetch(PRICES)] == [(1, Decimal("10.5")), (2, None)]
    assert await db.fetch(PRICES, row=Price) == expected
    assert [found.model_dump() for found in await db.fetch(PRICES, row=PriceModel)] == [
        dataclasses.asdict(price) for price in expected
    ]
    assert await db.fetch(PRICES, row=dict) == [dataclasses.asdict(price) for price in expected]
    assert await db.fetchrow(PRICES, row=lambda record: record["id"]) == 1
    assert await db.fetchrow(f"{PRICES} OFFSET 9", row=Price) is None
    async with db.acquire() as con:
        assert await con.fetchrow(PRICES, row=Price) == expected[0]
    async with db.transaction() as tx:
        assert await tx.fetch(PRICES, row=Price) == expected


@pytest.mark.one_version
async def test_a_row_that_does_not_fit_is_the_types_own_error(db):
    """Nothing is guessed or dropped; the connection is back already."""
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        await db.fetch("SELECT 1 AS id, 2 AS price, 3 AS extra", row=Price)

    assert db.get_stats()["pool_stats"]["used"] == 0


async def test_values_go_in_and_out(db):
    """execute, executemany, fetchval, the status words."""
    assert await db.execute("CREATE TABLE t (a int, b text)") == "CREATE TABLE"
    assert await db.execute("INSERT INTO t VALUES ($1, $2)", 1, "x") == "INSERT 0 1"
    await db.executemany("INSERT INTO t VALUES ($1, $2)", [(2, "y"), (3, "z")])

    assert await db.fetchval("SELECT b FROM t WHERE a = $1", 3) == "z"
    assert await db.fetchval("SELECT a, b FROM t WHERE a = 2", column=1) == "y"
    assert await db.fetchval("SELECT a FROM t WHERE a = 99") is None
    with pytest.raises(asyncpg.UndefinedTableError):
        await db.fetch("SELECT * FROM nothing")


async def test_executemany_is_all_or_nothing(db):
    """The second row fails: the first is not there either."""
    await db.execute("CREATE TABLE t (a int CHECK (a > 0))")

    with pytest.raises(asyncpg.CheckViolationError):
        await db.executemany("INSERT INTO t VALUES ($1)", [(1,), (-1,)])

    assert await db.fetchval("SELECT count(*) FROM t") == 0


async def test_copy_in_and_out(db):
    """Records in by binary COPY, from a list and from an asynchronous generator; CSV out."""
    await db.execute("CREATE TABLE t (a int, b date)")

    async def more():
        yield (2, date(2024, 2, 29))

    assert await db.copy_records_to_table("t", records=[(1, None)], columns=["a", "b"]) == "COPY 1"
    assert await db.copy_records_to_table("t", records=more(), priority=QueryPriority.BACKGROUND) == "COPY 1"
    output = io.BytesIO()
    status = await db.copy_from_query(
        "SELECT * FROM t ORDER BY a LIMIT $1", 5, output=output, format="csv", header=True
    )

    assert status == "COPY 2"
    assert output.getvalue() == b"a,b\n1,\n2,2024-02-29\n"


async def test_a_copy_whose_source_raises_stores_nothing(db):
    """The source's own exception is seen."""
    await db.execute("CREATE TABLE t (a int)")

    def source():
        yield (1,)
        raise KeyError

    with pytest.raises(KeyError):
        await db.copy_records_to_table("t", records=source())

    assert await db.fetchval("SELECT count(*) FROM t") == 0


async def test_a_cursor_walks_a_large_result_in_batches(db):
    """In a transaction of its own, which ends with the block, also when the block is left early."""
    async with db.cursor("SELECT generate_series(1, $1::int)", 1000, prefetch=64) as rows:
        found = [row[0] async for row in rows]
    async with db.cursor("SELECT generate_series(1, 1000)") as rows:
        async for row in rows:
            first = row[0]
            break

    assert found == list(range(1, 1001))
    assert first == 1
    assert db.get_stats()["pool_stats"]["used"] == 0


async def test_cursors_and_prepared_statements_of_a_connection(db):
    """As the driver's: moved by hand, iterated, and useless without their lease or a transaction."""
    async with db.acquire() as con:
        statement = await con.prepare("SELECT generate_series(1, $1::int) AS n")
        assert await left_open(db) == 0
        assert [row["n"] for row in await statement.fetch(3)] == [1, 2, 3]
        assert await statement.fetchval(3) == 1
        assert (await statement.fetchrow(3))["n"] == 1
        assert statement.get_attributes()[0].name == "n"
        with pytest.raises(asyncpg.NoActiveSQLTransactionError):
            await con.cursor("SELECT 1")
        async with con.transaction():
            cursor = await con.cursor("SELECT generate_series(1, 10)")
            assert [row[0] for row in await cursor.fetch(2)] == [1, 2]
            assert await cursor.forward(3) == 3
            assert (await cursor.fetchrow())[0] == 6
            assert [row["n"] async for row in statement.cursor(5, prefetch=2)] == [1, 2, 3, 4, 5]

    for use in (statement.fetch(3), cursor.fetch(1), statement.executemany([(1,)])):
        with pytest.raises(asyncpg.InterfaceError, match="released"):
            await use
    with pytest.raises(asyncpg.InterfaceError, match="released"):
        statement.get_query()


async def left_open(db):
    """Sessions that are in a transaction, other than the one that asks."""
    mine = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    return await db.fetchval(f"SELECT count(*) {mine} AND xact_start IS NOT NULL AND state <> 'active'")


async def test_the_drivers_other_methods_are_there(db):
    """Settings, codecs, versions: passed on."""
    async with db.acquire() as con:
        await con.set_type_codec("json", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
        assert await con.fetchval("SELECT '[1]'::json") == [1]
        assert con.get_server_version().major >= 15
        assert con.get_settings().application_name == "ava_trading_platform"
        assert await con.fetchmany("SELECT $1::int", [(1,), (2,)]) == [(1,), (2,)]


@pytest.mark.behind_pooler(refuses="LISTEN", because="messages would come to whichever session is there then")
async def test_listeners_of_a_connection_hear(db):
    """As the driver's."""
    heard = asyncio.get_running_loop().create_future()
    async with db.acquire() as con:
        await con.add_listener("news", lambda *message: heard.set_result(message[-1]))
        await db.execute("NOTIFY news, 'hello'")
        assert await heard == "hello"


@pytest.mark.behind_pooler(refuses="SET", because="it would be left in whichever session it met")
async def test_a_setting_of_the_session_holds_until_it_is_reset(db):
    """By hand, as with the driver."""
    async with db.acquire() as con:
        await con.execute("SET work_mem = '3MB'")
        await con.reset()
        assert await con.fetchval("SHOW work_mem") != "3MB"


# --- deadlines


@pytest.mark.one_version
async def test_one_deadline_covers_waiting_and_running(db):
    """Half the time is spent in the queue: the statement gets the other half."""
    holders = [await db.acquire() for _ in range(3)]
    loop = asyncio.get_running_loop()
    loop.call_later(0.3, lambda: loop.create_task(db.release(holders[0])))
    begun = loop.time()

    with pytest.raises(QueryTimeout) as caught:
        await db.fetch("SELECT pg_sleep(60)", timeout=0.6)

    assert 0.5 < loop.time() - begun < 2.0
    assert caught.value.timeout == 0.6
    for con in holders:
        await db.release(con)


@pytest.mark.one_version
async def test_a_wait_that_takes_all_the_time_is_a_pool_timeout(db):
    """No connection came free: nothing was sent, and the error says which phase it was."""
    holders = [await db.acquire() for _ in range(3)]

    with pytest.raises(PoolTimeout) as caught:
        await db.fetch("SELECT 1", timeout=0.1)
    with pytest.raises(PoolTimeout):
        await db.acquire(timeout=0.1)

    assert caught.value.phase == "wait"
    for con in holders:
        await db.release(con)
    assert await db.fetchval("SELECT 1") == 1


@pytest.mark.one_version
async def test_a_scopes_deadline_bounds_every_call_in_it(db):
    """However many: the whole block has one end."""

    async def work():
        with magnus.scope(timeout=0.5):
            while True:
                await db.fetch("SELECT pg_sleep(0.1)")

    begun = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        await work()

    assert asyncio.get_running_loop().time() - begun < 2.0


# --- starts, outages, ends


@pytest.fixture
async def own_server(pg_version):
    """A server of this test's own, to be stopped and started."""
    cluster = throwaway(binaries_or_skip(pg_version))
    await cluster.start()
    yield cluster
    await cluster.discard()


@pytest.mark.one_version
async def test_an_outage_is_seen_and_survived(own_server):
    """Stopped: probes fail once, callers get errors in time. Back: everything works again by itself."""
    seen = []
    config = DatabaseConfig(dsn=own_server.dsn(), min_pool_size=2, max_pool_size=4, health_check_interval=0.1)
    async with Database(config, observers=[seen.append]) as db:
        assert await db.health_check()
        await own_server.stop()
        await until(lambda: is_ok(db, False))
        assert not await db.health_check()
        with pytest.raises((PoolTimeout, asyncpg.PostgresError, OSError)):
            await db.fetch("SELECT 1", timeout=0.3)

        await own_server.start()
        returned = asyncio.get_running_loop().time()
        await until(lambda: is_ok(db, True))
        assert asyncio.get_running_loop().time() - returned < 5.0
        assert await db.fetchval("SELECT 1") == 1
        assert db.health.is_warm

    names = [event.name for event in seen if event.name.startswith("database_health")]
    assert names == ["database_health_check_failed", "database_health_check_recovered"]


async def is_ok(db, expected):
    return db.health.is_ok is expected


@pytest.mark.one_version
async def test_idle_connections_that_were_killed_are_replaced_unseen(db):
    """The next statement meets a live one: nothing had been sent on the dead."""
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    for _ in range(20):
        async with db.acquire() as con:
            killed = await con.fetchval(f"SELECT array_agg(pid) FILTER (WHERE pg_terminate_backend(pid)) {others}")
            await until(partial(are_gone, con, killed))
        assert await asyncio.gather(*(db.fetchval("SELECT 1") for _ in range(3))) == [1, 1, 1]


async def are_gone(con, pids):
    return await con.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1::int[])", pids) == 0


@pytest.mark.one_version
async def test_the_probe_does_not_need_the_pool(db):
    """Every slot is taken, and the health check answers."""
    holders = [await db.acquire(priority=QueryPriority.CRITICAL) for _ in range(4)]

    assert await db.health_check()
    assert db.health.is_ok
    await until(lambda: asyncio.sleep(0, [event.name for event in db.seen] == ["pool_high_utilization"]))
    for con in holders:
        await db.release(con)
    await until(lambda: asyncio.sleep(0, [event.name for event in db.seen][1:] == ["pool_utilization_normal"]))


@pytest.mark.one_version
async def test_a_lost_control_connection_is_noticed_at_once(dsn):
    """The probes are an hour apart; the loss is seen when it happens, and mended."""
    seen = []
    config = DatabaseConfig(dsn=dsn, min_pool_size=0, max_pool_size=1, health_check_interval=3600.0)
    async with Database(config, observers=[seen.append]) as db:
        other = await asyncpg.connect(dsn)
        await other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name LIKE 'ava\\_trading\\_platform (magnus %'"
        )
        await until(lambda: asyncio.sleep(0, len(seen) == 2))
        await other.close()

        assert [event.name for event in seen] == ["database_health_check_failed", "database_health_check_recovered"]
        assert db.health.is_ok


@pytest.mark.one_version
async def test_a_loss_in_the_middle_of_a_reading_of_the_catalogue_is_noticed_at_once(dsn, monkeypatch):
    """The reading has a connection of its own, named so; no probe waits behind it, and its loss is no verdict."""
    slow = "SELECT pg_sleep(60), $1::text[], $2::text[]"
    monkeypatch.setattr("magnus._learning.sql.text", {"session_effects": slow}.__getitem__)
    seen = []
    config = DatabaseConfig(dsn=dsn, min_pool_size=0, max_pool_size=1, health_check_interval=3600.0)
    async with Database(config, observers=[seen.append]) as db:
        other = await asyncpg.connect(dsn)
        running = "FROM pg_stat_activity WHERE state = 'active' AND query = $2 AND application_name = $1"
        reading = (f"SELECT count(*) = 1 {running}", "ava_trading_platform (catalogue)", slow)
        await until(lambda: other.fetchval(*reading))

        await other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name LIKE 'ava\\_trading\\_platform (magnus %'"
        )
        await until(lambda: asyncio.sleep(0, len(seen) == 2))
        assert [event.name for event in seen] == ["database_health_check_failed", "database_health_check_recovered"]
        assert await db.health_check()
        assert await other.fetchval(*reading)

        await other.execute(f"SELECT pg_terminate_backend(pid) {running}", *reading[1:])
        await until(lambda: asyncio.sleep(0, db._learner.failures == 1))
        assert db.health.is_ok
        assert len(seen) == 2
        await other.close()


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"user": "nobody_of_this_name"}, "credentials"), ({"database": "nothing_of_this_name"}, "database")],
    ids=["user", "database"],
)
async def test_a_refused_start_is_one_clear_error(server, change, reason):
    """Whether or not an unreachable server would have been waited for; nothing stays open behind it."""
    db = Database(DatabaseConfig(dsn=server.dsn(**({"user": "postgres"} | change), is_tcp=False)))

    for wait in (True, False):
        with pytest.raises(ConnectError) as caught:
            await db.connect(wait=wait)
        assert caught.value.reason == reason
    assert not db.is_connected


async def test_an_unreachable_server_ends_a_start_that_waits_and_no_other(tmp_path):
    """`connect()` raises; `connect(wait=False)` runs, not ready, and every call ends in its time."""
    db = Database(DatabaseConfig(dsn=f"postgresql://u@/d?host={tmp_path}", health_check_interval=0.05))
    with pytest.raises(ConnectError) as caught:
        await db.connect()
    assert caught.value.reason == "unreachable"

    await db.connect(wait=False)
    assert not await db.health_check()
    assert await db.warmup_pool(3) == 0
    with pytest.raises(PoolTimeout) as timeout:
        await db.fetch("SELECT 1", timeout=0.1)
    assert timeout.value.phase == "connect"
    assert (db.health.is_ok, db.health.is_warm) == (False, False)
    await db.close()


@pytest.mark.one_version
async def test_a_start_before_the_server_becomes_ready_by_itself(own_server):
    """The service is there first; the database comes, and nothing has to be restarted."""
    await own_server.stop()
    db = Database(DatabaseConfig(dsn=own_server.dsn(), min_pool_size=2, health_check_interval=0.05))
    await db.connect(wait=False)

    await own_server.start()
    await until(lambda: asyncio.sleep(0, db.health.is_ok and db.health.is_warm))

    assert await db.fetchval("SELECT 1") == 1
    await db.close()


@pytest.mark.one_version
async def test_warm_up_opens_and_proves_connections_within_the_size(db):
    """As many as asked, never more than the pool may have; all idle, none in a transaction."""
    assert await db.warmup_pool(3) == 3
    assert await db.warmup_pool(1000) == 4

    figures = db.get_stats()["pool_stats"]
    assert (figures["size"], figures["free"]) == (4, 4)
    assert [event.name for event in db.seen] == ["database_pool_warmed"] * 2
    # The control connection may be reading the catalogue; what the pool opened is idle from the start.
    states = await db.fetch(
        "SELECT DISTINCT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND query NOT LIKE '%pg_proc%'"
    )
    assert [row[0] for row in states] == ["idle"]


async def test_after_a_warm_up_it_is_known_what_needs_a_reset(dsn, monkeypatch):
    """The first requests after it are as quick as all others."""
    monkeypatch.setattr("magnus.database._READING_LIMIT", 60.0)  # on a busy machine
    async with Database(DatabaseConfig(dsn=dsn, min_pool_size=0, max_pool_size=2)) as db:
        assert await db.warmup_pool(1) == 1
        assert db._learner.knowledge.catalogue is not None


async def test_a_warm_up_beyond_the_servers_slots_tells_why(dsn, server):
    """The server has no more connections: how many came, and an event with the reason."""
    admin = await asyncpg.connect(dsn)
    name = await admin.fetchval("SELECT current_database()")
    await admin.execute("CREATE ROLE limited LOGIN CONNECTION LIMIT 3 PASSWORD 'limited'")
    seen = []
    try:
        config = DatabaseConfig(
            dsn=server.dsn(user="limited", database=name), password="limited", min_pool_size=1, max_pool_size=10
        )
        async with Database(config, observers=[seen.append]) as db:
            await until(lambda: knows_the_schema(db))  # it was read on a connection of its own, which is closed now
            assert await db.warmup_pool(10) == 2  # one more is the control connection
    finally:
        await admin.execute("DROP ROLE limited")
        await admin.close()

    (failed,) = [event for event in seen if event.name == "database_warmup_failed"]
    assert (failed.connections, failed.wanted) == (2, 10)
    assert "no connection slot left" in failed.error


@pytest.mark.one_version
async def test_closing_waits_for_work_and_refuses_new_work(config):
    """Drain: what runs is finished, what comes is refused at once."""
    db = Database(config)
    await db.connect()
    running = asyncio.create_task(db.fetchval("SELECT 1 FROM pg_sleep(0.3)"))
    await until(lambda: asyncio.sleep(0, db.get_stats()["pool_stats"]["used"] == 1))

    closing = asyncio.create_task(db.close())
    await asyncio.sleep(0)
    assert db.is_draining
    with pytest.raises(PoolClosed):
        await db.fetch("SELECT 2")

    await closing
    assert await running == 1


@pytest.mark.one_version
async def test_closing_ends_what_does_not_end(config):
    """After the drain's time the rest is terminated; its caller sees an error."""
    db = Database(config)
    await db.connect()
    running = asyncio.create_task(db.fetchval("SELECT pg_sleep(60)"))
    await until(lambda: asyncio.sleep(0, db.get_stats()["pool_stats"]["used"] == 1))

    await db.close(timeout=0.1)

    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
        await running


@pytest.mark.one_version
async def test_a_closed_database_can_be_opened_again(config):
    """Also after a drain."""
    db = Database(config)
    for _ in range(2):
        async with db:
            assert not db.is_draining
            assert await db.fetchval("SELECT 1") == 1


# --- the process-wide database


@pytest.mark.one_version
async def test_the_process_wide_database_comes_from_the_environment(dsn, monkeypatch):
    """DATABASE_URL and the DB_* variables; connected; the same object for everybody."""
    monkeypatch.setenv("DATABASE_URL", dsn)
    monkeypatch.setenv("DB_POOL_MIN", "1")
    monkeypatch.setenv("DB_POOL_MAX", "3")

    db, again = await asyncio.gather(get_database(), get_database())

    assert db is again
    assert await db.warmup_pool(target_connections=10) == 3
    assert await db.fetchval("SELECT 1") == 1
    set_database(None)
    await db.close()


@pytest.mark.one_version
def test_every_event_loop_has_its_own(dsn, monkeypatch):
    """Connections belong to one loop."""
    monkeypatch.setenv("DATABASE_URL", dsn)
    monkeypatch.setenv("DB_POOL_MIN", "1")

    async def main():
        db = await get_database()
        try:
            return db, await db.fetchval("SELECT 1")
        finally:
            set_database(None)
            await db.close()

    (first, one), (second, other) = asyncio.run(main()), asyncio.run(main())

    assert first is not second
    assert one == other == 1


@pytest.mark.one_version
def test_it_runs_on_uvloop(dsn):
    """The same on the faster loop: weak references to it, tasks of its making, timers."""
    uvloop = pytest.importorskip("uvloop")

    async def main():
        async with Database(DatabaseConfig(dsn=dsn, min_pool_size=1)) as db:
            set_database(db)
            assert await get_database() is db
            set_database(None)
            with pytest.raises(QueryTimeout):
                await db.fetch("SELECT pg_sleep(60)", timeout=0.1)
            async with db.transaction(priority=QueryPriority.HIGH) as tx:
                return await tx.fetchval("SHOW statement_timeout")

    assert uvloop.run(main()) == "11s"


@pytest.mark.one_version
def test_a_program_that_ends_in_the_middle_ends_cleanly(dsn):
    """The main task fails with work under way: no warning, no unretrieved exception, no hanging process."""
    script = """
        import asyncio, sys
        from magnus import Database, DatabaseConfig
        async def main():
            async with Database(DatabaseConfig(dsn=sys.argv[1], min_pool_size=1)) as db:
                tasks = [asyncio.create_task(db.fetch("SELECT pg_sleep(60)")) for _ in range(3)]
                async with db.transaction() as tx:
                    await tx.execute("CREATE TABLE t (a int)")
                    for task in tasks:
                        task.cancel()
                    raise SystemExit(7)
        asyncio.run(main(), debug=True)
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script), dsn],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 7, done.stderr
    assert "never retrieved" not in done.stderr
    assert "Warning" not in done.stderr


async def knows_the_schema(db):
    return db._learner.knowledge.catalogue is not None
