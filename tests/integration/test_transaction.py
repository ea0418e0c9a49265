"""Transactions on a real server: what is stored is what was said to be stored."""

import asyncio
import random
import string

import asyncpg
import pytest

from magnus import (
    CommitRolledBack,
    Database,
    DatabaseConfig,
    DatabaseError,
    OutcomeUnknown,
    QueryPriority,
    QueryTimeout,
)
from magnus import _commit as commit_module
from tests.facade_fakes import until

COUNT = "SELECT count(*) FROM t"
SLOW_COMMIT = """
    CREATE TABLE t (a int UNIQUE DEFERRABLE INITIALLY DEFERRED);
    CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION wait();
"""
"""COMMIT of an insert waits for advisory lock 1."""


@pytest.fixture
async def db(target):
    """A database with a table `t` whose COMMIT can be made to wait."""
    async with Database(DatabaseConfig(**target, min_pool_size=1, max_pool_size=4)) as found:
        await found.execute(SLOW_COMMIT)
        yield found


@pytest.fixture
async def gate(dsn, db):
    """A connection of somebody else's that holds advisory lock 1."""
    con = await asyncpg.connect(dsn)
    await con.execute("SELECT pg_advisory_lock(1)")
    yield con
    await con.close()


async def open_transactions(db):
    return await db.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND datname = current_database()"
    )


async def is_committing(gate):
    """Somebody waits for lock 1: its COMMIT is under way."""
    return await gate.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") == 1


# --- what is stored


async def test_a_block_that_ends_is_stored_and_one_that_raises_is_not(db):
    """The two ends of a transaction."""

    async def work(number, divisor):
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES ($1)", number)
            return 1 / divisor

    await work(1, 1)
    with pytest.raises(ZeroDivisionError):
        await work(2, 0)

    assert await db.fetchval("SELECT array_agg(a) FROM t") == [1]


@pytest.mark.parametrize("way", ["database", "connection"])
async def test_a_swallowed_error_makes_the_commit_raise(db, way):
    """The server answers COMMIT with ROLLBACK: the caller hears of it, whichever way the transaction was begun."""

    async def trade(con):
        await con.execute("INSERT INTO t VALUES (42)")
        try:
            await con.execute("SELECT 1/0")
        except asyncpg.DivisionByZeroError:
            return

    async def work():
        if way == "database":
            async with db.transaction() as tx:
                await trade(tx)
        else:
            async with db.acquire() as con, con.transaction():
                await trade(con)

    with pytest.raises(CommitRolledBack):
        await work()

    assert await db.fetchval(COUNT) == 0


async def test_the_drivers_execute_shows_the_tag_of_a_failed_commit(dsn):
    """What the check stands on: COMMIT in a failed transaction is answered, without an error, with ROLLBACK."""
    con = await asyncpg.connect(dsn)
    await con.execute("BEGIN")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await con.execute("SELECT 1/0")

    assert await con.execute("COMMIT") == "ROLLBACK"
    await con.close()


async def test_a_block_that_ended_its_transaction_by_hand_is_an_error(db):
    """After ROLLBACK by hand, COMMIT would be answered with COMMIT."""

    async def work():
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (1)")
            await tx.execute("ROLLBACK")

    with pytest.raises(DatabaseError, match="ended inside its block"):
        await work()

    assert await db.fetchval(COUNT) == 0


async def test_a_refusal_at_commit_is_the_servers_own_error(db):
    """A deferred constraint: the driver's exception, nothing stored, the connection good again."""

    async def work():
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (1), (1)")

    with pytest.raises(asyncpg.UniqueViolationError):
        await work()

    assert await db.fetchval(COUNT) == 0
    assert db.get_stats()["pool_stats"]["used"] == 0


async def test_savepoints_nest(db):
    """What an inner block undid is gone, the rest is stored; by the transaction and by a leased connection."""
    async with db.transaction() as tx:
        await tx.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(asyncpg.DivisionByZeroError):
            async with tx.transaction():
                await tx.execute("INSERT INTO t VALUES (2); SELECT 1/0")
        async with tx.transaction() as inner, inner.transaction():
            await inner.execute("INSERT INTO t VALUES (3)")

    async with db.acquire() as con, con.transaction():
        await con.execute("INSERT INTO t VALUES (4)")
        savepoint = con.transaction()
        await savepoint.start()
        await con.execute("INSERT INTO t VALUES (5)")
        await savepoint.rollback()

    assert [row["a"] for row in await db.fetch("SELECT a FROM t ORDER BY a")] == [1, 3, 4]


async def test_a_transaction_begins_as_it_was_asked_to(db):
    """Isolation, READ ONLY, DEFERRABLE reach the server."""
    async with db.transaction(isolation="serializable", readonly=True, deferrable=True) as tx:
        shown = [await tx.fetchval(f"SHOW transaction_{name}") for name in ("isolation", "read_only", "deferrable")]
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            async with tx.transaction():
                await tx.execute("INSERT INTO t VALUES (1)")

    assert shown == ["serializable", "on", "on"]


# --- settings


async def test_settings_hold_inside_and_are_gone_afterwards(db):
    """A custom setting, a list, a role: transaction-local, on the same connection."""
    await db.execute("CREATE ROLE test_account NOLOGIN")
    settings = {"role": "test_account", "ava.account_id": "7", "search_path": "a, pg_catalog", "work_mem": "3MB"}
    shown = "SELECT current_user::text, current_setting('ava.account_id', true), current_setting('search_path')"
    try:
        async with db.acquire() as con:
            before = tuple(await con.fetchrow(shown))
            async with con.transaction(settings=settings):
                assert tuple(await con.fetchrow(shown)) == ("test_account", "7", "a, pg_catalog")
                assert await con.fetchval("SHOW work_mem") == "3MB"
            after = tuple(await con.fetchrow(shown))
    finally:
        await db.execute("DROP ROLE test_account")

    assert (before[0], before[2]) == (after[0], after[2])
    assert after[1] in {None, ""}


async def test_no_value_of_a_setting_gets_out_of_its_literal(db):
    """Whatever text is given arrives as that text and nothing else happens, standard_conforming_strings off or on."""
    random_ = random.Random(7)
    alphabet = string.printable + "'\\\"$;-—é\u2028😀"
    values = ["", "'", "\\", "\\'", "''; DROP TABLE t; --", "\\'; DROP TABLE t; --", "$$", "E'\\''", "\n"]
    values += ["".join(random_.choices(alphabet, k=random_.randint(1, 40))) for _ in range(200)]

    for conforming in ("on", "off"):
        config = db.config.replace(server_settings={"standard_conforming_strings": conforming})
        async with Database(config) as other, other.acquire() as con:
            for value in values:
                async with con.transaction(settings={"ava.key": value}):
                    assert await con.fetchval("SHOW standard_conforming_strings") == conforming
                    assert await con.fetchval("SELECT current_setting('ava.key')") == value

    assert await db.fetchval(COUNT) == 0


async def test_an_impossible_role_is_the_servers_error_and_costs_no_slot(db):
    """Nothing of the block runs; the next transaction does."""

    async def work(role):
        async with db.transaction(settings={"role": role}) as tx:
            await tx.fetchval(COUNT)
            raise AssertionError("not reached")

    for role in ("nobody_of_this_name", "postgres; DROP TABLE t", "x" * 100, ""):
        with pytest.raises(asyncpg.PostgresError):
            await work(role)

    async with db.transaction() as tx:
        assert await tx.fetchval(COUNT) == 0
    assert db.get_stats()["pool_stats"]["used"] == 0


# --- cancellation and lost connections


@pytest.mark.one_version
async def test_a_cancelled_task_leaves_no_open_transaction(db):
    """Cancelled in the middle of a statement: when the task is done, the transaction is over."""
    is_inside = asyncio.Event()

    async def work():
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (1)")
            is_inside.set()
            await tx.execute("SELECT pg_sleep(60)")

    for _ in range(20):
        is_inside.clear()
        task = asyncio.create_task(work())
        await is_inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    await until(lambda: equals(0, open_transactions, db))
    await until(lambda: asyncio.sleep(0, is_free(db)))
    assert await db.fetchval(COUNT) == 0


@pytest.mark.one_version
async def test_a_cancelled_begin_by_hand_meets_nobody_else(target):
    """The cancel comes too late and the server begins: the next user must not work in that transaction, and lose it."""
    async with Database(DatabaseConfig(**target, min_pool_size=1, max_pool_size=1)) as db:

        async def work():
            async with db.acquire() as con:
                await con.execute("BEGIN")

        for number in range(200):
            task = asyncio.create_task(work())
            for _ in range(3 + number % 9):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            async with db.acquire() as con:
                assert not con.is_in_transaction()


@pytest.mark.one_version
async def test_cancellations_at_any_moment_lose_no_slot_and_leave_nothing_open(db):
    """300 transactions cancelled at random: what was acknowledged is stored, all else is not, all slots are free."""
    await db.execute("DROP TRIGGER wait ON t")
    random_ = random.Random(3)
    acknowledged = []

    async def work(number):
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES ($1)", number)
        acknowledged.append(number)

    for start in range(0, 300, 10):
        tasks = [asyncio.create_task(work(start + offset)) for offset in range(10)]
        for task in tasks:
            asyncio.get_running_loop().call_later(random_.uniform(0, 0.02), task.cancel)
        await asyncio.gather(*tasks, return_exceptions=True)

    await until(lambda: equals(0, open_transactions, db))
    await until(lambda: asyncio.sleep(0, is_free(db)))
    stored = {row["a"] for row in await db.fetch("SELECT a FROM t")}
    assert set(acknowledged) <= stored


@pytest.mark.one_version
async def test_a_cancelled_caller_does_not_cancel_its_commit(db, gate):
    """COMMIT is under way: the cancellation waits, the commit is stored."""

    async def work():
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (1)")

    task = asyncio.create_task(work())
    await until(lambda: is_committing(gate))
    task.cancel()
    task.cancel()
    assert await is_committing(gate)
    assert not task.done()
    await gate.execute("SELECT pg_advisory_unlock(1)")

    with pytest.raises(asyncio.CancelledError):
        await task
    assert await db.fetchval(COUNT) == 1


@pytest.mark.one_version
async def test_a_timeout_of_the_caller_does_not_cancel_its_commit(db, gate):
    """`asyncio.timeout` around the block: TimeoutError, after the answer; the commit is stored."""
    limit = asyncio.timeout(None)

    async def work():
        async with limit, db.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (1)")

    task = asyncio.create_task(work())
    await until(lambda: is_committing(gate))
    limit.reschedule(asyncio.get_running_loop().time())
    assert await is_committing(gate)
    assert limit.expired()
    await gate.execute("SELECT pg_advisory_unlock(1)")

    with pytest.raises(TimeoutError):
        await task
    assert await db.fetchval(COUNT) == 1


async def test_a_connection_lost_during_commit_is_an_unknown_outcome(db, gate):
    """The backend is ended while COMMIT runs: the cause is on the error, the slot is free."""

    async def work():
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (1)")

    task = asyncio.create_task(work())
    await until(lambda: is_committing(gate))
    await gate.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")

    with pytest.raises(OutcomeUnknown) as caught:
        await task
    assert isinstance(caught.value.__cause__, asyncpg.PostgresConnectionError)
    assert db.get_stats()["pool_stats"]["used"] == 0


@pytest.mark.one_version
async def test_a_commit_that_takes_too_long_is_cut_off_and_unknown(db, gate, monkeypatch):
    """Its own limit is over: no CancelRequest, the socket goes, nobody claims an outcome."""
    monkeypatch.setattr(commit_module, "COMMIT_LEAST", 0.0)

    async def work(db):
        async with db.transaction(priority=QueryPriority.CRITICAL) as tx:
            await tx.execute("INSERT INTO t VALUES (1)")

    async with Database(db.config.replace(lane_timeouts={QueryPriority.CRITICAL: 0.5})) as impatient:
        with pytest.raises(OutcomeUnknown):
            await work(impatient)
        assert is_free(impatient)


async def test_a_connection_lost_before_commit_is_rolled_back(db):
    """COMMIT was never sent: an error that says so, not an unknown outcome."""

    async def work():
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (1)")
            await db.execute("SELECT pg_terminate_backend($1)", await tx.fetchval("SELECT pg_backend_pid()"))
            await until(lambda: asyncio.sleep(0, tx.is_closed()))

    with pytest.raises(asyncpg.InterfaceError, match="COMMIT was not sent"):
        await work()
    assert await db.fetchval(COUNT) == 0


async def in_a_transaction(db):
    async with db.transaction() as tx:
        await tx.execute("INSERT INTO t VALUES (1)")


async def by_itself(db):
    await db.execute("INSERT INTO t VALUES ($1)", 1)


async def until_it_waits(db, admin, write, waiting):
    """Write until one write waits: the checkpointer tells the sessions, and it may not have read the setting yet."""
    while True:
        task = asyncio.create_task(write(db))

        async def is_decided(task=task):
            return task.done() or await waiting()

        await until(is_decided)
        if not task.done():
            return task
        await task
        await admin.execute("DELETE FROM t")


@pytest.mark.parametrize("write", [in_a_transaction, by_itself])
async def test_a_write_without_its_standby_is_unknown(db, server, dsn, write):
    """Synchronous replication: an operator calls the wait off, the server reports success; the layer does not."""
    admin = await asyncpg.connect(dsn, server_settings={"synchronous_commit": "off"})
    await admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'ghost'")
    await admin.execute("SELECT pg_reload_conf()")

    async def waiting():
        return await admin.fetchval("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'")

    try:
        await until(lambda: equals("ghost", admin.fetchval, "SHOW synchronous_standby_names"))
        task = await until_it_waits(db, admin, write, waiting)
        if write is in_a_transaction:
            task.cancel()
        await admin.execute("SELECT pg_cancel_backend($1)", await waiting())
        with pytest.raises(OutcomeUnknown):
            await task
        assert await db.fetchval(COUNT) == 1
    finally:
        await admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
        await admin.execute("SELECT pg_reload_conf()")
        await until(lambda: equals("", admin.fetchval, "SHOW synchronous_standby_names"))
        await admin.close()


async def test_the_limit_of_a_transaction_ends_it(db):
    """Its own timeout, over all statements; what was done is undone."""

    async def work():
        async with db.transaction(timeout=0.3) as tx:
            await tx.execute("INSERT INTO t VALUES (1)")
            await tx.execute("SELECT pg_sleep(0.2)")
            await tx.execute("SELECT pg_sleep(0.2)")

    with pytest.raises(QueryTimeout):
        await work()

    assert await db.fetchval(COUNT) == 0


def is_free(db):
    return db.get_stats()["pool_stats"]["used"] == 0


async def equals(expected, call, *args):
    return await call(*args) == expected
