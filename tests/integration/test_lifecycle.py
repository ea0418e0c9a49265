"""Leaks, forks, rotation and operations on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import gc
import os
import warnings

import asyncpg
import pytest

from magnus import Database, DatabaseConfig, LeaseReclaimed, NestedAcquire, WrongProcess
from magnus.observe import LeakReclaimed, LeakReturned, LeakSuspected
from tests.facade_fakes import until

pytestmark = pytest.mark.one_version

NAME = "life under test"


@pytest.fixture
async def told():
    return []


def database(dsn, told, **config):
    given = {"min_pool_size": 0, "max_pool_size": 2, "application_name": NAME} | config
    return Database(DatabaseConfig(dsn=dsn, **given), observers=[told.append])


async def backends(con):
    rows = await con.fetch("SELECT pid FROM pg_stat_activity WHERE application_name = $1", NAME)
    return {row["pid"] for row in rows}


async def test_a_leaked_connection_is_reported_then_taken_back(dsn, told):
    """Later use, the end of its block included, says what happened; the pool serves others meanwhile."""
    async with database(dsn, told, max_pool_size=1, leak_threshold=0.1, leak_limit=0.3) as db:
        con = await db.acquire()
        assert await con.fetchval("SELECT 41 + 1") == 42
        pid = con.get_server_pid()

        other = await asyncio.create_task(db.fetchval("SELECT pg_backend_pid()", timeout=10.0))

        assert other != pid
        with pytest.raises(LeaseReclaimed, match="test_a_leaked_connection") as caught:
            await con.fetchval("SELECT 1")
        assert isinstance(caught.value, asyncpg.InterfaceError)
        await con.give_back()
        kinds = [type(event) for event in told if "leak" in event.name]
        assert kinds == [LeakSuspected, LeakReclaimed, LeakReturned]
        assert told[[type(event) for event in told].index(LeakReclaimed)].query == "SELECT $1 + $2"


async def test_a_leaked_transaction_stores_nothing(dsn, told):
    """Its COMMIT is not sent: the error is the pool's."""
    async with database(dsn, told, leak_threshold=0.05, leak_limit=0.1) as db:
        await db.execute("CREATE TABLE kept (id int)")

        async def is_taken_back():
            return any(isinstance(event, LeakReclaimed) for event in told)

        async def forget():
            async with db.transaction() as tx:
                await tx.execute("INSERT INTO kept VALUES (1)")
                await until(is_taken_back)

        with pytest.raises(LeaseReclaimed):
            await forget()

        assert await db.fetchval("SELECT count(*) FROM kept") == 0


async def test_long_statements_copies_and_commits_are_no_leaks(dsn, told):
    """They are bounded by limits of their own."""
    async with database(dsn, told, leak_threshold=0.05, leak_limit=0.1) as db:
        async with db.transaction() as tx:
            await tx.execute("CREATE TABLE kept (id int)")
            await tx.execute(
                "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN PERFORM pg_sleep(0.3); RETURN NULL; END $$"
            )
            await tx.execute(
                "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON kept DEFERRABLE INITIALLY DEFERRED "
                "FOR EACH ROW EXECUTE FUNCTION slow()"
            )
        async with db.acquire() as con:
            await con.execute("SELECT pg_sleep(0.3)")

            async def rows():
                for number in range(3):
                    await asyncio.sleep(0.1)
                    yield (number,)

            await con.copy_records_to_table("kept", records=rows(), columns=["id"])
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO kept VALUES (9)")

        assert await db.fetchval("SELECT count(*) FROM kept") == 4
        assert not [event for event in told if isinstance(event, LeakReclaimed)]


async def test_a_query_inside_a_transaction_on_a_pool_of_one_fails_at_once(dsn, told):
    """Instead of after the limit of its lane; the transaction is unharmed."""
    async with database(dsn, told, max_pool_size=1) as db, db.transaction() as tx:
        with pytest.raises(NestedAcquire, match="test_a_query_inside_a_transaction"):
            await db.fetchval("SELECT 1")
        assert await tx.fetchval("SELECT 1") == 1


async def test_a_block_inside_a_block_on_a_pool_of_one_fails_at_once(dsn, told):
    """As in a transaction."""
    async with database(dsn, told, max_pool_size=1) as db, db.acquire():
        with pytest.raises(NestedAcquire):
            await db.acquire()


async def test_a_fork_leaves_the_parents_connections_alone(dsn, told):
    """The child is refused at once and ends, unwinding its blocks; the parent's sessions go on."""
    async with database(dsn, told, min_pool_size=2) as db:
        admin = await asyncpg.connect(dsn)
        await db.warmup_pool(2)
        before = await backends(admin)
        async with db.transaction() as tx:
            mine = await tx.fetchval("SELECT pg_backend_pid()")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                child = os.fork()
            if child == 0:
                status = 1
                try:
                    status = step_through(db.fetchval("SELECT 1")) + step_through(db.close()) + step_through(unwind(tx))
                    gc.collect()
                finally:
                    os._exit(status)
            _, status = await asyncio.to_thread(os.waitpid, child, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            assert await tx.fetchval("SELECT pg_backend_pid()") == mine
        assert await db.fetchval("SELECT 1") == 1
        assert await backends(admin) == before
        await admin.close()


def step_through(coroutine):
    """
    Run a coroutine in the child without an event loop: it must not wait for anything. 0: refused, or done.
    """
    try:
        coroutine.send(None)
    except (WrongProcess, asyncpg.InterfaceError, StopIteration):
        return 0
    return 1


async def unwind(tx):
    await tx.__aexit__(KeyboardInterrupt, KeyboardInterrupt(), None)


async def test_connections_are_replaced_under_load_without_an_error(dsn, told):
    """Spread expiry: new sessions before long, every statement served."""
    async with database(dsn, told, min_pool_size=3, max_pool_size=5) as db:
        first = {await db.fetchval("SELECT pg_backend_pid()") for _ in range(3)}
        admin = await asyncpg.connect(dsn)
        before = await backends(admin) | first
        db.expire(within=0.3)

        async def is_replaced():
            await db.fetchval("SELECT 1")
            present = await backends(admin)
            return len(present & before) <= 1  # the control connection stays

        await until(is_replaced)
        assert db.get_stats()["pool_stats"]["size"] <= 5
        await admin.close()


async def test_sizes_and_pauses_are_changed_while_it_works(dsn, told):
    """No caller fails."""
    async with database(dsn, told, max_pool_size=8) as db:
        done = asyncio.Event()

        async def work():
            count = 0
            while not done.is_set():
                assert await db.fetchval("SELECT 1") == 1
                count += 1
            return count

        workers = [asyncio.create_task(work()) for _ in range(8)]
        for size in (1, 6, 2, 8):
            db.resize(0, size)
            await db.fetchval("SELECT 1")
            assert await db.pause(5.0)
            assert db.get_stats()["pool_stats"]["used"] == 0
            db.resume()
        done.set()
        assert all(await asyncio.gather(*workers))
