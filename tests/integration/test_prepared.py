"""Hot statements are prepared before a connection is handed out, and nothing of that stays open on the server."""

from __future__ import annotations

import asyncpg
import pytest

from magnus import ConfigError, Database, DatabaseConfig

SCHEMA = "CREATE TABLE item (id int PRIMARY KEY, n int); INSERT INTO item SELECT g, g FROM generate_series(1, 9) g"
READ = "SELECT n FROM item WHERE id = $1"
WRITE = "UPDATE item SET n = n + $2 WHERE id = $1"
PREPARED = "SELECT statement FROM pg_prepared_statements"


@pytest.fixture
async def other(dsn):
    con = await asyncpg.connect(dsn)
    await con.execute(SCHEMA)
    yield con
    await con.close()


def config(dsn, **more):
    return DatabaseConfig(dsn=dsn, min_pool_size=2, max_pool_size=2, slow_log="off", **more)


async def prepared_on(db):
    async with db.acquire() as con:
        return {row["statement"] for row in await con.fetch(PREPARED)}


async def test_configured_statements_are_there_before_the_first_use(dsn, other):
    """On the server and in the driver's cache, so the first use takes one round trip."""
    async with Database(config(dsn, prepare=[READ, WRITE])) as db:
        assert {READ, WRITE} <= await prepared_on(db)
        async with db.acquire() as con:
            raw = con._execution.raw
            assert raw._cached(READ) is not None
        assert await db.fetchval(READ, 3) == 3
        stats = db.get_stats()["prepared_statements"]
        assert (stats["hot"], stats["prepared"], stats["refused"], stats["is_full"]) == (2, 4, [], False)


async def test_preparing_leaves_no_transaction_and_no_lock(dsn, other):
    """The driver sends no Sync after it: the table could not be changed, and no limit would end that."""
    async with Database(config(dsn, prepare=[READ, WRITE], application_name="warm")):
        states = "SELECT state FROM pg_stat_activity WHERE application_name = 'warm'"
        assert {row["state"] for row in await other.fetch(states)} == {"idle"}
        locks = "SELECT count(*) FROM pg_locks WHERE relation = 'item'::regclass AND pid <> pg_backend_pid()"
        assert await other.fetchval(locks) == 0
        async with other.transaction():
            await other.execute("SET LOCAL lock_timeout = '2s'; ALTER TABLE item ADD COLUMN more int")


async def test_they_are_planned_where_the_server_can_and_not_run(dsn, other):
    """Planning is what finds that a table must not be read; a CALL has no plan, and is no less prepared."""
    await other.execute("CREATE PROCEDURE nothing(a int) LANGUAGE sql AS 'UPDATE item SET n = a'")
    async with Database(config(dsn, prepare=[WRITE, "CALL nothing($1)"])) as db:
        assert db.get_stats()["prepared_statements"]["refused"] == []
        assert await other.fetchval("SELECT sum(n) FROM item") == 45
    async with Database(config(dsn, prepare=[READ], server_settings={"role": "pg_signal_backend"})) as db:
        refused = db.get_stats()["prepared_statements"]["refused"]
    assert refused == (["InsufficientPrivilegeError"] if other.get_server_version().major >= 16 else [])


async def test_what_the_server_refuses_is_left_out_and_told(dsn, other):
    async with Database(config(dsn, prepare=["SELECT * FROM nowhere WHERE id = $1", READ])) as db:
        assert await db.fetchval(READ, 3) == 3
        assert READ in await prepared_on(db)
        assert db.get_stats()["prepared_statements"]["refused"] == ["UndefinedTableError"]


async def test_a_table_that_is_locked_keeps_no_connection_from_opening(dsn, other):
    async with other.transaction():
        await other.execute("LOCK TABLE item IN ACCESS EXCLUSIVE MODE")
        async with Database(config(dsn, prepare=[READ], connect_timeout=20.0)) as db:
            assert await db.fetchval("SELECT 1") == 1
            assert db.get_stats()["prepared_statements"]["refused"] == ["TimeoutError"]


async def test_the_most_called_are_learned(dsn, other):
    """By this role, in this database, in the words in which they were sent: the server keeps no constants."""
    await other.execute("SELECT pg_stat_statements_reset()")
    async with Database(config(dsn)) as db:
        for _ in range(20):
            await db.fetchval(READ, 1)
        for _ in range(10):
            await db.execute(WRITE, 1, 1)
        await db.fetchval("SELECT n + 1 FROM item WHERE id = $1", 1)
    async with Database(config(dsn, prepare_learned=2)) as db:
        assert db._pool._keeper.opener.hot.texts == (READ, WRITE)
        assert await prepared_on(db) >= {READ, WRITE}
        assert db.get_stats()["prepared_statements"]["hot"] == 2


async def test_without_the_extension_nothing_is_learned(dsn, other):
    await other.execute("DROP EXTENSION pg_stat_statements")
    async with Database(config(dsn, prepare_learned=5, prepare=[READ])) as db:
        assert READ in await prepared_on(db)
        assert db.get_stats()["prepared_statements"]["hot"] == 1


async def test_a_full_cache_is_told(dsn, other):
    """Then every new statement costs the next one a round trip to close it: the size is too small."""
    async with Database(config(dsn, statement_cache_size=3)) as db:
        for number in range(5):
            await db.fetchval(f"SELECT {number} + $1::int", 1)
        stats = db.get_stats()["prepared_statements"]
        assert (stats["cache_size"], stats["is_full"]) == (3, True)


@pytest.mark.parametrize(
    "wrong", [{"prepare": "SELECT 1"}, {"prepare": [1]}, {"prepare_learned": -1}, {"prepare_learned": 300}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        DatabaseConfig(dsn="postgresql://localhost/x", **wrong)
