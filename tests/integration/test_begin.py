"""A BEGIN that goes with the first statement of its transaction, on a real server: nothing ever runs outside of it."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess

import asyncpg
import pytest

from magnus import CommitRolledBack, Database, DatabaseConfig, QueryPriority, QueryTimeout
from magnus._commit import commit, rollback
from magnus._driver import begin_with_next, driver_connect
from magnus._driver_fast import DOUBT, unanswered
from magnus.embedded import throwaway
from tests.facade_fakes import until
from tests.servers import binaries_or_skip

INSERT = "INSERT INTO t VALUES ($1) RETURNING a"
COUNT = "SELECT count(*)::int FROM t"
ID = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL"


@pytest.fixture
async def db(dsn):
    """A database with one connection, a table `t`, and `INSERT` in the cache of that connection."""
    config = DatabaseConfig(dsn=dsn, min_pool_size=1, max_pool_size=1)
    async with Database(config) as found:
        await found.execute("CREATE TABLE t (a int UNIQUE)")
        await warm(found)
        yield found


@pytest.fixture
async def other(dsn, db):
    """Somebody else, who sees what is committed."""
    con = await asyncpg.connect(dsn)
    yield con
    await con.close()


@pytest.fixture
async def con(dsn, db):
    """A bare connection, with `INSERT` in its cache."""
    found = await driver_connect(dsn=dsn)
    await found.fetchval(INSERT, -1)
    await found.execute("TRUNCATE t")
    yield found
    await found.close()


async def warm(db):
    await db.fetchval(INSERT, 0)
    await db.fetchval(COUNT)
    await db.execute("TRUNCATE t")


async def is_outside(db):
    """The connection of the pool is in no transaction, as its server says."""
    async with db.acquire() as con:
        await con.fetchval("SELECT 1")
        return not con.is_in_transaction()


FIRST = {
    "fetchval, in the cache": lambda tx: tx.fetchval(INSERT, 1),
    "fetchrow, in the cache": lambda tx: tx.fetchrow(INSERT, 1),
    "fetch, in the cache": lambda tx: tx.fetch(INSERT, 1),
    "execute, in the cache": lambda tx: tx.execute(INSERT, 1),
    "fetchval, not in the cache": lambda tx: tx.fetchval(INSERT + " AS b", 1),
    "execute, not in the cache": lambda tx: tx.execute("INSERT INTO t VALUES ($1)", 1),
    "execute without arguments": lambda tx: tx.execute("INSERT INTO t VALUES (1)"),
    "executemany": lambda tx: tx.executemany("INSERT INTO t VALUES ($1)", [(1,)]),
    "fetchmany": lambda tx: tx.fetchmany(INSERT, [(1,)]),
    "COPY of records": lambda tx: tx.copy_records_to_table("t", records=[(1,)]),
    "COPY of bytes": lambda tx: tx.copy_to_table("t", source=io.BytesIO(b"1\n")),
}


async def prepared(tx):
    await (await tx.prepare(INSERT)).fetchval(1)


async def read_by_cursor(tx):
    assert [row["a"] async for row in tx.cursor(INSERT, 1)] == [1]


async def saved(tx):
    async with tx.transaction() as inner:
        await inner.fetchval(INSERT, 1)


FIRST |= {"a prepared statement": prepared, "a cursor": read_by_cursor, "a savepoint": saved}


@pytest.mark.parametrize("first", FIRST)
async def test_whatever_comes_first_is_in_the_transaction(db, other, first):
    """It is seen by nobody before COMMIT, is gone after ROLLBACK, and stays after COMMIT."""

    async def work():
        async with db.transaction() as tx:
            await FIRST[first](tx)
            assert await tx.fetchval(ID)
            assert await other.fetchval(COUNT) == 0
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work()
    assert await other.fetchval(COUNT) == 0
    await warm(db)
    async with db.transaction() as tx:
        await FIRST[first](tx)
        assert await other.fetchval(COUNT) == 0
    assert await other.fetchval(COUNT) == 1
    assert await db.fetchval("SELECT pg_current_xact_id_if_assigned() IS NULL")


async def test_a_copy_out_is_in_the_transaction(db):
    """It sees what the transaction is under: its isolation."""
    found = io.BytesIO()
    async with db.transaction(isolation="repeatable_read") as tx:
        await tx.copy_from_query("SELECT current_setting('transaction_isolation')", output=found)
    assert found.getvalue() == b"repeatable read\n"


async def test_an_empty_transaction_asks_the_server_for_nothing_to_roll_back(db, other):
    """Left by an error it costs no round trip; ended, it is committed; the connection is as it was."""
    pid = await db.fetchval("SELECT pg_backend_pid()")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            async with db.transaction():
                raise ZeroDivisionError
        async with db.transaction():
            pass
    said = await other.fetchval("SELECT query FROM pg_stat_activity WHERE pid = $1", pid)
    assert said == "COMMIT"
    assert await db.fetchval("SELECT pg_backend_pid()") == pid
    assert await is_outside(db)


async def test_it_counts_as_open_from_the_beginning(db):
    """Before anything was sent, as everywhere."""
    async with db.transaction() as tx:
        assert tx.is_in_transaction()
    tx = db.transaction()
    await tx.start()
    assert tx.is_in_transaction()
    await tx.rollback()
    assert await db.fetchval("SELECT 1") == 1


async def test_limits_and_modes_go_with_it(db):
    """Those of the lane, and isolation and READ ONLY, are in force in the first statement."""
    ask = (
        "SELECT current_setting('statement_timeout') || current_setting('transaction_isolation')"
        " || current_setting('transaction_read_only')"
    )
    for _ in range(2):  # the second time it comes from the cache
        async with db.transaction(priority=QueryPriority.CRITICAL, isolation="serializable", readonly=True) as tx:
            assert (await tx.fetchval(ask)).endswith("serializableon")
        async with db.transaction(priority=QueryPriority.BACKGROUND) as tx:
            limited = await tx.fetchval(ask)
        assert limited.endswith("read committedoff")
        assert limited != await db.fetchval(ask)


async def test_an_argument_that_does_not_fit_leaves_the_transaction_open(db, other):
    """The statement was not sent; what comes next is in the transaction, on the same connection, and is committed."""
    pid = await db.fetchval("SELECT pg_backend_pid()")
    for wrong in (("one",), (1, 2)):
        async with db.transaction() as tx:
            with pytest.raises((asyncpg.DataError, asyncpg.InterfaceError)):
                await tx.fetchval(INSERT, *wrong)
            assert tx.is_in_transaction()
            await tx.fetchval(INSERT, len(wrong))
            assert await other.fetchval(COUNT) == len(wrong) - 1
        assert await other.fetchval(COUNT) == len(wrong)
    assert await db.fetchval("SELECT pg_backend_pid()") == pid


async def test_an_argument_that_does_not_fit_and_nothing_else_commits_nothing(db):
    """The empty transaction ends well."""
    async with db.transaction() as tx:
        with pytest.raises(asyncpg.DataError):
            await tx.fetchval(INSERT, "one")
    with pytest.raises(asyncpg.DataError):
        async with db.transaction() as tx:
            await tx.fetchval(INSERT, "one")
    assert await db.fetchval(COUNT) == 0


async def test_an_error_of_the_first_statement_fails_the_transaction(db):
    """As in the middle of one: it cannot be committed."""
    await db.fetchval(INSERT, 1)
    with pytest.raises(asyncpg.UniqueViolationError):
        async with db.transaction() as tx:
            await tx.fetchval(INSERT, 1)
    tx = db.transaction()
    await tx.start()
    with pytest.raises(asyncpg.UniqueViolationError):
        await tx.fetchval(INSERT, 1)
    with pytest.raises(asyncpg.InFailedSQLTransactionError):
        await tx.fetchval(INSERT, 2)
    await tx.rollback()
    assert await db.fetch("SELECT a FROM t") == [(1,)]


async def test_a_first_statement_whose_plan_is_outdated_is_planned_anew(db, other):
    """Nothing had happened: the transaction begins again, and its caller sees the new row."""
    read = "SELECT * FROM t WHERE a = $1"
    await db.fetchval(INSERT, 1)
    await db.fetchrow(read, 1)
    await other.execute("ALTER TABLE t ADD b int DEFAULT 7")
    async with db.transaction() as tx:
        assert await tx.fetchrow(read, 1) == (1, 7)
        assert await tx.execute("UPDATE t SET b = 8") == "UPDATE 1"
        assert await other.fetchval("SELECT b FROM t") == 7
    assert await other.fetchval("SELECT b FROM t") == 8


async def test_a_begin_that_is_refused_takes_its_statement_with_it(con, other):
    """The statement did not run, and nobody goes on outside a transaction: the connection is closed."""
    assert begin_with_next(con, ("BEGIN NONSENSE",))
    with pytest.raises(asyncpg.PostgresSyntaxError):
        await con.fetchval(INSERT, 1)
    assert con.is_closed()
    assert await other.fetchval(COUNT) == 0


async def test_a_begin_that_is_refused_on_its_own_closes_the_connection(con, other):
    """The same where it goes alone."""
    assert begin_with_next(con, ("BEGIN NONSENSE",))
    with pytest.raises(asyncpg.PostgresSyntaxError):
        await con.execute("INSERT INTO t VALUES (1)")
    assert con.is_closed()
    assert await other.fetchval(COUNT) == 0


@pytest.mark.parametrize("settings", [{"role": "nobody"}, {"work_mem": "many"}, {"no.such": "x", "work_mem": "64MB"}])
async def test_settings_go_with_it_and_one_that_is_refused_takes_the_statement_with_it(db, other, settings):
    """The block fails as it would of a statement, and nothing ran in or outside it."""
    pid = await db.fetchval("SELECT pg_backend_pid()")
    ask = "SELECT current_setting('work_mem')"
    await db.fetchval(ask)
    if "no.such" in settings:
        async with db.transaction(settings=settings) as tx:
            assert await tx.fetchval(ask) == "64MB"
        return
    with pytest.raises(asyncpg.PostgresError):
        async with db.transaction(settings=settings) as tx:
            await tx.fetchval(INSERT, 1)
    assert await other.fetchval(COUNT) == 0
    assert await is_outside(db)
    assert await db.fetchval("SELECT pg_backend_pid()") == pid


async def test_settings_hold_from_the_first_statement_on(db):
    """Whatever is in their values, and lists too, which go in a round trip of their own."""
    ask = "SELECT current_setting('my.note') || current_setting('search_path')"
    odd = "a; b 'c' \\ d"
    await db.execute("SET my.note = ''")
    for path in ("public", "public, pg_catalog"):
        for _ in range(2):
            async with db.transaction(settings={"my.note": odd, "search_path": path}) as tx:
                assert await tx.fetchval(ask) == odd + path
    ask = "SELECT current_setting('my.note')"
    for _ in range(2):
        async with db.transaction(settings={"my.note": odd}) as tx:
            assert await tx.fetchval(ask) == odd


async def test_a_reset_forgets_it(con):
    """What begins there is not what comes next."""
    assert begin_with_next(con, ("BEGIN",))
    await con.reset()
    assert not con.is_in_transaction()
    await con.fetchval(INSERT, 1)
    assert not con.is_in_transaction()


async def test_a_backend_killed_before_the_first_statement(db, other):
    """The unit is run again, and stored once."""
    tries = 0
    pid = await db.fetchval("SELECT pg_backend_pid()")

    async def unit(tx):
        nonlocal tries
        tries += 1
        if tries == 1:
            await other.execute("SELECT pg_terminate_backend($1)", pid)
        return await tx.fetchval(INSERT, 5)

    assert await db.run_in_transaction(unit) == 5
    assert tries == 2
    assert await other.fetchval(COUNT) == 1


async def test_a_statement_that_is_cancelled_with_its_begin_leaves_nothing(db, other):
    """Nothing is stored, no lock stays, and the next one gets a connection outside of any transaction."""
    slow = "INSERT INTO t SELECT $1::int FROM pg_sleep($2) RETURNING a"
    await db.fetchval(slow, 9, 0)
    await db.execute("TRUNCATE t")

    async def work():
        async with db.transaction() as tx:
            await tx.fetchval(slow, 1, 30)

    task = asyncio.create_task(work())

    async def is_asleep():
        return await other.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == 1

    await until(is_asleep)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await is_outside(db)
    assert await other.fetchval(COUNT) == 0


async def test_after_a_statement_that_was_cut_short_with_its_begin_nothing_runs_outside(db, other):
    """Who goes on in the block is refused; who leaves it has the same connection again."""
    slow = "INSERT INTO t SELECT $1::int FROM pg_sleep($2) RETURNING a"
    await db.fetchval(slow, 9, 0)
    await db.execute("TRUNCATE t")
    pid = await db.fetchval("SELECT pg_backend_pid()")
    for last in (lambda tx: tx.fetchval(INSERT, 2), lambda tx: tx.execute("INSERT INTO t VALUES (2)")):
        tx = db.transaction()
        await tx.start()
        with pytest.raises(QueryTimeout):
            await tx.fetchval(slow, 1, 30, timeout=0.05)
        with pytest.raises(asyncpg.InFailedSQLTransactionError):
            await last(tx)
        await tx.rollback()
    tx = db.transaction()
    await tx.start()
    with pytest.raises(QueryTimeout):
        await tx.fetchval(slow, 1, 30, timeout=0.05)
    with pytest.raises(CommitRolledBack):
        await tx.commit()
    assert await other.fetchval(COUNT) == 0
    assert await db.fetchval("SELECT pg_backend_pid()") == pid


@pytest.mark.parametrize("is_cached", [True, False])
async def test_a_begin_that_was_cut_short_itself_lets_nothing_through(con, other, is_cached):
    """The server is in no transaction: what comes next is refused, and the connection closed."""
    con.ahead = DOUBT
    assert con.is_in_transaction()
    with pytest.raises(asyncpg.NoActiveSQLTransactionError):
        await (con.fetchval(INSERT, 1) if is_cached else con.fetchval("INSERT INTO t VALUES (1) RETURNING a"))
    assert con.is_closed()
    assert await other.fetchval(COUNT) == 0


async def test_a_begin_that_was_cut_short_has_nothing_to_commit_or_roll_back(con):
    """Both ends go through, on the connection that there is."""
    con.ahead = DOUBT
    await commit(con, limit=5)
    con.ahead = DOUBT
    assert await rollback(con)
    assert not con.is_closed()
    assert await con.fetchval("SELECT 1") == 1


@pytest.fixture(scope="module")
def encrypted():
    """A server that speaks TLS, as the bundled one cannot."""
    with throwaway(binaries_or_skip(15)) as cluster:
        key, certificate = cluster.data / "server.key", cluster.data / "server.crt"
        names = ("-subj", "/CN=localhost", "-keyout", key, "-out", certificate)
        subprocess.run(["openssl", "req", "-new", "-x509", "-nodes", *names], check=True, capture_output=True)
        owner = cluster.data.stat()
        for file in (key, certificate):
            os.chown(file, owner.st_uid, owner.st_gid)
            file.chmod(0o600)
        settings = cluster.data / "postgresql.auto.conf"
        settings.write_text("ssl = on\n")
        cluster.restart_blocking()
        yield cluster


@pytest.mark.parametrize("sslmode", ["require", "prefer", "disable"])
async def test_it_goes_with_the_first_statement_on_every_kind_of_connection(encrypted, sslmode):
    """TCP and TLS; what is told of the connection is told as without it."""
    config = DatabaseConfig(
        dsn=f"{encrypted.dsn(is_tcp=True)}?sslmode={sslmode}", min_pool_size=1, max_pool_size=1, slow_log="off"
    )
    async with Database(config) as db:
        ask = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        await db.fetchval(ask)
        async with db.transaction() as tx:
            assert tx._execution.raw.ahead == ("BEGIN",)
            assert await tx.fetchval(ask) is (sslmode != "disable")
            assert tx._execution.raw._protocol.is_in_transaction()
        async with db.acquire() as con:
            assert con._execution.raw._loop is asyncio.get_running_loop()


def test_the_messages_are_those_of_the_protocol():
    """Parse, Bind, Execute of each statement, without a Sync (PostgreSQL documentation, 54.7 Message Formats)."""
    assert unanswered("BEGIN") + unanswered("SET LOCAL a TO 1") == b"".join((
        b"P" + (4 + 1 + 6 + 2).to_bytes(4, "big") + b"\0BEGIN\0\0\0",
        b"B" + (4 + 2 + 6).to_bytes(4, "big") + bytes(8),
        b"E" + (4 + 1 + 4).to_bytes(4, "big") + bytes(5),
        b"P" + (4 + 1 + 17 + 2).to_bytes(4, "big") + b"\0SET LOCAL a TO 1\0\0\0",
        b"B" + (4 + 2 + 6).to_bytes(4, "big") + bytes(8),
        b"E" + (4 + 1 + 4).to_bytes(4, "big") + bytes(5),
    ))
