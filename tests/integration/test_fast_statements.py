"""Statements that go straight from the cache to the protocol, on a real server: as the driver's own."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from magnus import _driver_fast
from magnus._driver import PooledConnection, driver_connect

ROWS = "SELECT n, n * 2 AS twice FROM generate_series(1, $1::int) AS n"


@pytest.fixture
async def con(dsn):
    found = await driver_connect(dsn=dsn)
    yield found
    await found.close()


@pytest.fixture
async def other(dsn):
    found = await asyncpg.connect(dsn)
    yield found
    await found.close()


def test_this_driver_is_as_known():
    """The fast way is taken with every driver that is supported, and with no other."""
    assert _driver_fast.is_as_known()
    assert issubclass(PooledConnection, _driver_fast._Direct)
    assert not _driver_fast.is_as_known(type("Other", (), {}))


async def test_answers_are_the_drivers_own(con, other):
    """All four methods, first time and from the cache, with rows and without."""
    for _ in range(2):
        for args in ((3,), (0,)):
            assert await con.fetch(ROWS, *args) == await other.fetch(ROWS, *args)
            assert await con.fetchrow(ROWS, *args) == await other.fetchrow(ROWS, *args)
            assert await con.fetchval(ROWS, *args) == await other.fetchval(ROWS, *args)
            assert await con.fetchval(ROWS, *args, column=1) == await other.fetchval(ROWS, *args, column=1)
            assert await con.fetchval(ROWS, *args, column="twice") == await other.fetchval(ROWS, *args, column="twice")
            assert await con.execute(ROWS, *args) == await other.execute(ROWS, *args)
        assert await con.execute("SELECT 1; SELECT 2") == "SELECT 1"


async def test_errors_are_the_drivers_own(con):
    """Of the server, of an argument, of a connection in use and of one that is closed; it is fit for use afterwards."""
    division = "SELECT 1 / $1::int"
    assert await con.fetchval(division, 1) == 1
    with pytest.raises(asyncpg.DivisionByZeroError):
        await con.fetchval(division, 0)
    with pytest.raises(asyncpg.DataError):
        await con.fetchval(division, "one")
    with pytest.raises(asyncpg.InterfaceError):
        await con.fetchval(division, 1, 2)
    results = await asyncio.gather(con.fetchval(division, 1), con.fetchval(division, 1), return_exceptions=True)
    assert results[0] == 1
    assert isinstance(results[1], asyncpg.InterfaceError)
    assert await con.fetchval(division, 1) == 1
    await con.close()
    for call in (con.fetch, con.fetchrow, con.fetchval, con.execute):
        with pytest.raises(asyncpg.InterfaceError, match="closed"):
            await call(division, 1)
    with pytest.raises(asyncpg.InterfaceError, match="closed"):
        await con.execute("SELECT 1")


@pytest.mark.parametrize("method", ["fetch", "fetchrow", "fetchval", "execute"])
async def test_a_changed_table_is_prepared_anew(con, other, method):
    """Outside a transaction nobody notices; inside one the server has ended it, and the next use is right."""
    await other.execute("CREATE TABLE changing (a int); INSERT INTO changing VALUES (1)")
    call, sql = getattr(con, method), "SELECT * FROM changing WHERE a = $1"
    await call(sql, 1)

    await other.execute("ALTER TABLE changing ADD COLUMN b int DEFAULT 7")
    await call(sql, 1)
    assert await con.fetchrow(sql, 1) == (1, 7)

    await other.execute("ALTER TABLE changing ADD COLUMN c int DEFAULT 8")
    await con.execute("BEGIN")
    with pytest.raises(asyncpg.InvalidCachedStatementError):
        await call(sql, 1)
    await con.execute("ROLLBACK")
    assert await con.fetchrow(sql, 1) == (1, 7, 8)


async def test_a_changed_table_is_prepared_anew_on_the_siblings_too(dsn, other):
    """One connection meets the change, all of its pool learn of it: inside their transactions nothing fails."""
    await other.execute("CREATE TABLE shared (a int); INSERT INTO shared VALUES (1)")
    one, two = await driver_connect(dsn=dsn), await driver_connect(dsn=dsn)
    try:
        one.siblings = two.siblings = lambda: (one, two)
        for con in (one, two):
            await con.fetchrow("SELECT * FROM shared WHERE a = $1", 1)
        await other.execute("ALTER TABLE shared ADD COLUMN b int DEFAULT 7")
        await one.fetchrow("SELECT * FROM shared WHERE a = $1", 1)

        await two.execute("BEGIN")
        assert await two.fetchrow("SELECT * FROM shared WHERE a = $1", 1) == (1, 7)
        await two.execute("COMMIT")
    finally:
        await one.close()
        await two.close()


async def test_a_changed_type_is_read_anew(con, other):
    """The statement that finds out is lost, as with the driver: the server has run it. The next is right."""
    await other.execute("CREATE TYPE pair AS (a int); CREATE TABLE pairs (p pair); INSERT INTO pairs VALUES (ROW(1))")
    sql = "SELECT p FROM pairs WHERE $1"
    assert await con.fetchval(sql, True) == (1,)

    await other.execute("ALTER TYPE pair ADD ATTRIBUTE b int")
    with pytest.raises(asyncpg.OutdatedSchemaCacheError):
        await con.fetchval(sql, True)
    assert await con.fetchval(sql, True) == (1, None)


async def test_codecs_and_loggers_are_heeded(con):
    """What the user sets on a connection holds for statements that are in the cache already."""
    sql = "SELECT $1::int4"
    assert await con.fetchval(sql, 5) == 5
    await con.set_type_codec("int4", encoder=str, decoder=lambda text: f"<{text}>", schema="pg_catalog")
    assert await con.fetchval(sql, 5) == "<5>"
    assert await con.fetchval(sql, 5) == "<5>"

    seen = []
    with con.query_logger(lambda record: seen.append(record.query)):
        assert await con.fetchval(sql, 5) == "<5>"
        await con.execute("SELECT 1")
        await asyncio.sleep(0)
    assert seen == [sql, "SELECT 1"]


async def test_a_cancelled_statement_leaves_the_connection_in_order(con):
    """The driver's cancel is waited for by the next statement, as ever."""
    sql = "SELECT pg_sleep($1::float8)"
    await con.fetchval(sql, 0.0)
    task = asyncio.create_task(con.fetchval(sql, 3.0))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await con.fetchval("SELECT $1::int", 1) == 1
    assert await con.fetchval(sql, 0.0) is None
