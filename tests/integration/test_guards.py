"""Limits and guards, as the server shows them."""

import asyncio
import sys
import textwrap

import asyncpg
import pytest

from magnus import Database, DatabaseConfig, QueryPriority, QueryTimeout
from tests.facade_fakes import until

GUARDS = ("statement_timeout", "application_name", "idle_in_transaction_session_timeout")
SHOW_ALL = f"SELECT {', '.join(f'current_setting({name!r}) AS {name}' for name in GUARDS)}"
EXPECTED = {
    "statement_timeout": "30s",
    "application_name": "ava_trading_platform",
    "idle_in_transaction_session_timeout": "1min",
}
SERVER_LIMITS = {"critical": "6s", "high": "11s", "normal": "30s", "low": "61s", "background": "121s"}


@pytest.fixture
async def db(dsn):
    """A database of few connections, so that each is used again and again."""
    async with Database(DatabaseConfig(dsn=dsn, min_pool_size=1, max_pool_size=3)) as found:
        yield found


async def test_guards_hold_after_a_thousand_rounds(db):
    """Every lane, every way of using a connection, in any order: the session's guards are what they were."""
    lanes = list(QueryPriority)
    for number in range(1000):
        async with db.acquire(priority=lanes[number % 5]) as con:
            if number % 7 == 0:
                await con.execute("SET statement_timeout = 0; SET application_name = 'stranger'")
            elif number % 7 == 1:
                await con.fetchval("SELECT 1", timeout=200.0)
            elif number % 7 == 2:
                async with con.transaction(settings={"application_name": "inside"}):
                    await con.fetchval("SELECT 1")

    async with db.acquire() as one, db.acquire() as other:
        assert dict(await one.fetchrow(SHOW_ALL)) == EXPECTED
        assert dict(await other.fetchrow(SHOW_ALL)) == EXPECTED


@pytest.mark.parametrize("lane", list(QueryPriority))
async def test_the_servers_limit_follows_the_lane(db, lane):
    """Whatever runs in a lane: never below the lane's limit, at most two seconds above."""
    expected = SERVER_LIMITS[lane.value]

    assert (await db.fetch_with_priority("SHOW statement_timeout", priority=lane))[0][0] == expected
    assert await db.fetchval("SHOW statement_timeout", priority=lane) == expected
    async with db.transaction(priority=lane) as tx:
        assert await tx.fetchval("SHOW statement_timeout") == expected
    async with db.acquire(priority=lane) as con:
        assert await con.fetchval("SHOW statement_timeout") == expected
        async with con.transaction():
            assert await con.fetchval("SHOW statement_timeout") == expected
        assert await con.fetchval("SHOW statement_timeout") == expected


async def test_a_longer_timeout_lifts_the_servers_limit_and_the_next_statement_brings_it_back(db):
    """Outside and inside a transaction, and across a savepoint that is undone."""
    async with db.acquire(priority=QueryPriority.HIGH) as con:
        assert await con.fetchval("SHOW statement_timeout", timeout=99.0) == "100s"
        assert await con.fetchval("SHOW statement_timeout") == "11s"
        async with con.transaction():
            assert await con.fetchval("SHOW statement_timeout", timeout=99.0) == "100s"
            savepoint = con.transaction()
            await savepoint.start()
            assert await con.fetchval("SHOW statement_timeout") == "11s"
            await savepoint.rollback()
            assert await con.fetchval("SHOW statement_timeout") == "11s"
        assert await con.fetchval("SHOW statement_timeout") == "11s"


async def test_a_transaction_is_guarded_by_the_larger_limit(db, pg_version):
    """PostgreSQL 17 and later: inside the transaction only, so single statements are never killed by it."""
    if pg_version < 17:
        pytest.skip("transaction_timeout came with version 17")

    assert await db.fetchval("SHOW transaction_timeout") == "0"
    for lane, expected in (("critical", "1min"), ("low", "1min"), ("background", "2min")):
        async with db.transaction(priority=QueryPriority(lane)) as tx:
            assert await tx.fetchval("SHOW transaction_timeout") == expected
    async with db.acquire() as con:
        async with con.transaction():
            assert await con.fetchval("SHOW transaction_timeout") == "1min"
        assert await con.fetchval("SHOW transaction_timeout") == "0"


async def test_a_transaction_left_alone_is_ended_by_the_server(dsn):
    """The idle guard: locks go, and the block's end says that nothing was stored."""
    config = DatabaseConfig(dsn=dsn, min_pool_size=1, idle_in_transaction_session_timeout="100ms")
    async with Database(config) as db:
        await db.execute("CREATE TABLE t (a int)")
        tx = db.transaction()
        await tx.start()
        await tx.execute("INSERT INTO t VALUES (1)")
        pid = tx.get_server_pid()
        await until(lambda: gone(db, pid))
        with pytest.raises(asyncpg.InterfaceError, match="COMMIT was not sent"):
            await tx.commit()

        assert await db.fetchval("SELECT count(*) FROM t") == 0


async def test_the_client_ends_first_and_the_server_has_nothing_left(db):
    """At the limit the caller has its error at once, and the statement is cancelled."""
    with pytest.raises(QueryTimeout) as caught:
        await db.fetch("SELECT pg_sleep(60) AS too_long", timeout=0.2)

    assert caught.value.elapsed == pytest.approx(0.2, abs=0.15)
    await until(lambda: nothing_runs(db, "too_long"))


async def test_the_server_ends_a_statement_that_the_client_did_not(dsn):
    """The same error, when the server is first; here the client is given more than the server."""
    async with Database(DatabaseConfig(dsn=dsn, command_timeout=5.0, statement_timeout=0.2)) as db:
        with pytest.raises(QueryTimeout) as caught:
            await db.fetch("SELECT pg_sleep(60)")

    assert isinstance(caught.value.__cause__, asyncpg.QueryCanceledError)


async def test_an_operators_cancel_is_no_timeout(db):
    """Somebody cancelled the statement: the driver's own exception says so."""
    async with db.acquire() as con:
        pid = con.get_server_pid()
        query = asyncio.create_task(con.fetch("SELECT pg_sleep(60)"))
        await until(lambda: runs(db, pid))
        await db.execute("SELECT pg_cancel_backend($1)", pid)

        with pytest.raises(asyncpg.QueryCanceledError):
            await query


async def test_a_dead_client_leaves_no_query_behind(db, dsn):
    """Killed with -9 in the middle of a statement: the server notices within a second or so."""
    script = """
        import asyncio, sys
        from magnus import Database, DatabaseConfig
        async def main():
            async with Database(DatabaseConfig(dsn=sys.argv[1], min_pool_size=1)) as db:
                await db.fetch("SELECT pg_sleep(60) AS of_the_dead")
        asyncio.run(main())
    """
    client = await asyncio.create_subprocess_exec(sys.executable, "-c", textwrap.dedent(script), dsn)
    try:
        await until(lambda: something_runs(db, "of_the_dead"))
    finally:
        client.kill()
        await client.wait()
    killed = asyncio.get_running_loop().time()

    await until(lambda: nothing_runs(db, "of_the_dead"))

    assert asyncio.get_running_loop().time() - killed < 5.0


ACTIVE = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()"


async def runs(db, pid):
    return await db.fetchval(f"{ACTIVE} AND pid = $1 AND query LIKE '%pg_sleep%'", pid) == 1


async def gone(db, pid):
    return await db.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", pid) == 0


async def something_runs(db, word):
    return await db.fetchval(f"{ACTIVE} AND query LIKE '%' || $1", word) > 0


async def nothing_runs(db, word):
    return not await something_runs(db, word)
