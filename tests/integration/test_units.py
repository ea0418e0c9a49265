"""Units of work on a real server: what is run again, what is not, and that reads cannot write."""

import asyncio
import contextlib
from functools import partial

import asyncpg
import pytest

from magnus import (
    CommitRolledBack,
    Database,
    DatabaseConfig,
    OutcomeUnknown,
    QueryPriority,
    QueryTimeout,
    TransactionEnded,
    idempotent,
)
from magnus import _commit as commit_module
from tests.facade_fakes import until

WAIT = "SELECT pg_advisory_xact_lock_shared(1)"


@pytest.fixture
async def db(target):
    """One connection, so that every statement meets the session that the last one left; two in reserve for tests."""
    async with Database(DatabaseConfig(**target, min_pool_size=1, max_pool_size=3, retry_delay=0.01)) as found:
        await found.execute("CREATE TABLE t (a int UNIQUE)")
        await found.execute("CREATE TABLE account (id int PRIMARY KEY, cash int)")
        await found.execute("INSERT INTO account VALUES (1, 100), (2, 100)")
        await until(lambda: knows_the_schema(found))  # else every session is reset after every lease
        found.seen = []
        found.add_observer(found.seen.append)
        yield found


@pytest.fixture
async def other(dsn, db):
    """Somebody else's connection."""
    con = await asyncpg.connect(dsn)
    yield con
    await con.close()


def retries(db):
    return [event.error_type for event in db.seen if event.name == "database_retry"]


async def terminate_waiting(other):
    """End the session that waits for advisory lock 1."""
    query = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    await until(lambda: other.fetchval(f"SELECT EXISTS ({query})"))
    await other.execute(f"SELECT pg_terminate_backend(pid) FROM ({query}) AS waiting")


async def cut(db, other, work):
    """Run `work`, whose statement waits for lock 1, end its session, and let the next one through."""
    await other.execute("SELECT pg_advisory_lock(1)")
    task = asyncio.create_task(work())
    await terminate_waiting(other)
    await other.execute("SELECT pg_advisory_unlock(1)")
    return await asyncio.wait_for(task, 20)


# --- reads


async def test_a_read_whose_connection_is_lost_is_sent_again(db, other):
    """`read=True` says that twice is as good as once."""
    assert await cut(db, other, lambda: db.fetchval("SELECT 42 FROM pg_advisory_xact_lock_shared(1)", read=True)) == 42
    assert len(retries(db)) == 1


async def test_a_statement_that_declares_nothing_is_not_sent_again(db, other):
    """A SELECT may write, whatever its first word and its method; the error says that it may have been carried out."""
    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, ConnectionError)) as caught:
        await cut(db, other, lambda: db.fetchval(WAIT))

    assert retries(db) == []
    assert any("may have been carried out" in note for note in caught.value.__notes__)


async def test_an_idempotent_write_is_sent_again(db, other):
    """By the statement, or by the function around it."""
    text = "UPDATE account SET cash = 7 FROM pg_advisory_xact_lock_shared(1) WHERE id = 1"
    assert await cut(db, other, lambda: db.execute(text, idempotent=True)) == "UPDATE 1"

    @idempotent
    async def work():
        return await db.execute(text)

    assert await cut(db, other, work) == "UPDATE 1"
    assert len(retries(db)) == 2


async def test_a_read_cannot_write(db):
    """The server refuses, whatever is hidden in the query; nobody tries again, and the pool keeps its connections."""
    await db.execute("CREATE FUNCTION sneak() RETURNS int LANGUAGE sql AS $$ INSERT INTO t VALUES (1) RETURNING 1 $$")
    before = await db.fetchval("SELECT pg_backend_pid()")

    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await db.fetch("SELECT sneak()", read=True)

    assert retries(db) == []
    assert await db.fetchval("SELECT count(*) FROM t") == 0
    assert await db.fetchval("SELECT pg_backend_pid()") == before


async def test_the_session_that_ran_a_read_can_write_again(db, way):
    """
    For a statement, a transaction, a leased connection, a manual BEGIN and every lane: nobody inherits READ ONLY.
    Behind a pooler a text that can only read is sent as it is.
    """
    read_only = "on" if way == "direct" else "off"
    for lane in (QueryPriority.NORMAL, QueryPriority.CRITICAL):
        assert await db.fetchval("SHOW transaction_read_only", read=True, priority=lane) == read_only
        await db.execute("INSERT INTO t VALUES (1)", priority=lane)
        assert await db.fetchval("SHOW transaction_read_only", read=True, priority=lane) == read_only
        async with db.transaction(priority=lane) as tx:
            await tx.execute("INSERT INTO t VALUES (2)")
            assert await tx.fetchval("SHOW statement_timeout") == (
                NORMAL[way] if lane is QueryPriority.NORMAL else "6s"
            )
        assert await db.fetchval("SHOW transaction_read_only", read=True, priority=lane) == read_only
        async with db.acquire(priority=lane) as con:
            await con.execute("BEGIN")
            await con.execute("INSERT INTO t VALUES (3)")
            await con.execute("COMMIT")
        assert await db.fetchval("SHOW transaction_read_only", read=True, priority=lane) == read_only
        await db.copy_records_to_table("t", records=[(4,)], priority=lane)
        assert await db.execute("DELETE FROM t", priority=lane) == "DELETE 4"


NORMAL = {"direct": "30s", "pooler": "31s"}  # what a transaction's statements have; the client's limit is 30 s
BEGIN = {
    "direct": ("BEGIN READ WRITE", "; SET LOCAL transaction_timeout TO 60000"),
    "pooler": (
        "BEGIN; SET LOCAL statement_timeout TO 31000",
        "; SET LOCAL transaction_timeout TO 60000",
        "; SET LOCAL idle_in_transaction_session_timeout TO 60000",
    ),
}


async def test_reads_and_writes_in_turn_cost_no_more_than_their_own(db, other, way, pg_version):
    """A read after a read sends nothing else, nor does a transaction after a read."""
    await until(lambda: knows_the_schema(db))
    pid = await db.fetchval("SELECT pg_backend_pid()", read=True)
    last = "SELECT query FROM pg_stat_activity WHERE pid = $1"
    await db.fetch("SELECT 1 AS mine", read=True)
    assert await other.fetchval(last, pid) == "SELECT 1 AS mine"

    async with db.transaction() as tx:
        parts = [part for part in BEGIN[way] if pg_version >= 17 or not part.startswith("; SET LOCAL tr")]
        assert await other.fetchval(last, pid) == "".join(parts)
        await tx.execute("INSERT INTO t VALUES (1)")


@pytest.mark.behind_pooler(
    refuses="server_settings[default_transaction_read_only]", because="a pooler's client cannot set it: ALTER ROLE does"
)
async def test_a_session_that_is_read_only_by_its_own_settings_stays_so(target, db):
    """Somebody's guard: a transaction after a read does not ask for more than one before it."""
    settings = {"default_transaction_read_only": "on"}
    async with Database(
        DatabaseConfig(**target, min_pool_size=1, max_pool_size=1, server_settings=settings)
    ) as guarded:
        await until(lambda: knows_the_schema(guarded))
        await guarded.fetch("SELECT 1", read=True)
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            async with guarded.transaction() as tx:
                await tx.execute("INSERT INTO t VALUES (1)")


# --- functions in transactions


async def transfer(tx, source, target):
    """Moves money; run again it moves nothing twice, for the first time was rolled back."""
    await tx.execute("UPDATE account SET cash = cash - 10 WHERE id = $1", source)
    await tx.execute("UPDATE account SET cash = cash + 10 WHERE id = $1", target)


async def test_a_deadlock_runs_the_loser_again(db):
    """Two transfers against each other: both are carried out, and the sum is what it was."""
    met = asyncio.Barrier(2)
    runs = 0

    async def work(source, target):
        async def both(tx):
            nonlocal runs
            runs += 1
            await tx.execute("UPDATE account SET cash = cash - 10 WHERE id = $1", source)
            if runs <= 2:
                await met.wait()
            await tx.execute("UPDATE account SET cash = cash + 10 WHERE id = $1", target)

        await db.run_in_transaction(both)

    await asyncio.gather(work(1, 2), work(2, 1))

    assert runs == 3
    assert retries(db) == ["DeadlockDetectedError"]
    assert [row["cash"] for row in await db.fetch("SELECT cash FROM account ORDER BY id")] == [100, 100]


async def test_a_serialization_failure_at_commit_runs_the_whole_function_again(db):
    """Write skew under SERIALIZABLE: one of the two fails at COMMIT or before it, and its second run sees the first."""
    met = asyncio.Barrier(2)
    runs = []

    async def work(mine):
        async def take(tx):
            total = await tx.fetchval("SELECT sum(cash) FROM account")
            runs.append(total)
            if len(runs) <= 2:
                await met.wait()
            if total >= 150:
                await tx.execute("UPDATE account SET cash = cash - 100 WHERE id = $1", mine)
            return total

        return await db.run_in_transaction(take, isolation="serializable")

    found = await asyncio.gather(work(1), work(2))

    assert sorted(found) == [100, 200]
    assert await db.fetchval("SELECT sum(cash) FROM account") == 100
    assert retries(db) == ["SerializationError"]


async def test_a_connection_lost_before_commit_runs_the_function_again(db, other):
    """The server rolled the first run back: the row is there once."""

    async def work():
        async def book(tx):
            await tx.execute("INSERT INTO t VALUES (1)")
            await tx.execute(WAIT)

        await db.run_in_transaction(book)

    await cut(db, other, work)

    assert await db.fetchval("SELECT count(*) FROM t") == 1
    assert len(retries(db)) == 1


@pytest.mark.one_version
async def test_an_error_of_the_functions_own_is_raised_at_once(db):
    """Nothing is stored, nothing is repeated; a swallowed error of the server's is no success."""
    runs = 0

    async def fail(tx):
        nonlocal runs
        runs += 1
        await tx.execute("INSERT INTO t VALUES (1)")
        raise LookupError

    async def swallow(tx):
        await tx.execute("INSERT INTO t VALUES (1)")
        try:
            await tx.execute("SELECT 1/0")
        except asyncpg.DivisionByZeroError:
            return "booked"

    with pytest.raises(LookupError):
        await db.run_in_transaction(fail)
    with pytest.raises(CommitRolledBack):
        await db.run_in_transaction(swallow)

    assert runs == 1
    assert await db.fetchval("SELECT count(*) FROM t") == 0


@pytest.mark.one_version
async def test_attempts_end_with_the_servers_own_error_and_a_note(db):
    """Not a wrapper, not None."""

    async def conflict(tx):
        await tx.execute("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")

    with pytest.raises(asyncpg.SerializationError) as caught:
        await db.run_in_transaction(conflict)

    assert caught.value.__notes__ == ["magnus: failed in 3 attempts"]
    assert len(retries(db)) == 2


@pytest.mark.one_version
async def test_a_text_of_several_statements_is_not_repeated_after_an_error(db):
    """Its first half may be committed."""
    with pytest.raises(asyncpg.SerializationError):
        await db.execute("INSERT INTO t VALUES (1); COMMIT; DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")

    assert retries(db) == []


async def hold_commit(monkeypatch, *, outcome):
    """Make the first COMMIT sent be carried out, or not, and its answer be lost."""
    calls = 0
    commit = commit_module.commit

    async def lose(con, **options):
        nonlocal calls
        calls += 1
        if calls > 1:
            return await commit(con, **options)
        if outcome == "stored":
            await commit(con, **options)
        con.terminate()
        raise OutcomeUnknown

    monkeypatch.setattr(commit_module, "commit", lose)


@pytest.mark.parametrize("outcome", ["stored", "lost"])
async def test_an_unknown_commit_runs_again_only_what_was_declared_idempotent(db, monkeypatch, outcome):
    """A trade would be booked twice; setting a value is the same twice."""

    async def book(tx):
        await tx.execute("UPDATE account SET cash = 7 WHERE id = 1")

    await hold_commit(monkeypatch, outcome=outcome)
    with pytest.raises(OutcomeUnknown):
        await db.run_in_transaction(book)
    await hold_commit(monkeypatch, outcome=outcome)
    await db.run_in_transaction(idempotent(book))

    assert await db.fetchval("SELECT cash FROM account WHERE id = 1") == 7
    assert retries(db) == ["OutcomeUnknown"]


def unknown(db):
    """What was told of outcomes that nobody knows, and counted of them."""
    found = [event.what for event in db.seen if event.name == "database_outcome_unknown"]
    assert db.get_stats()["query_stats"]["outcome_unknown"] == len(found)
    return found


@pytest.mark.one_version
async def test_an_outcome_that_nobody_knows_is_told_once_and_counted(db, other, monkeypatch):
    """Of a transaction, a unit and a statement that writes; not of a read, nor of what was found out by a repeat."""
    lost = (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, ConnectionError)
    text = "UPDATE account SET cash = 7 FROM pg_advisory_xact_lock_shared(1) WHERE id = 1"
    for statement, options in ((WAIT, {}), (text, {"idempotent": True}), (text, {})):
        with contextlib.nullcontext() if options else pytest.raises(lost):
            await cut(db, other, partial(db.execute, statement, **options))
    assert unknown(db) == ["statement"]

    async def book(tx):
        await tx.execute("UPDATE account SET cash = 8 WHERE id = 1")

    async def block():
        async with db.transaction() as tx:
            await book(tx)

    for work in (block, partial(db.run_in_transaction, book)):
        await hold_commit(monkeypatch, outcome="stored")
        with pytest.raises(OutcomeUnknown):
            await work()
    assert unknown(db) == ["statement", "commit", "unit"]

    await hold_commit(monkeypatch, outcome="stored")
    await db.run_in_transaction(idempotent(book))
    with pytest.raises(QueryTimeout):
        await db.execute("UPDATE account SET cash = 9 FROM pg_sleep(9)", timeout=0.05)
    assert len(unknown(db)) == 3


async def test_the_id_of_a_transaction_is_known_when_it_was_asked_for(db, monkeypatch, other):
    """`OutcomeUnknown.xid` is what the server calls it; without asking there is none, and no round trip for it."""
    wanted = None

    async def book(tx):
        nonlocal wanted
        await tx.execute("UPDATE account SET cash = 7 WHERE id = 1")
        wanted = await tx.fetchval("SELECT pg_current_xact_id()::text")

    for asks in (True, False):
        await hold_commit(monkeypatch, outcome="stored")
        with pytest.raises(OutcomeUnknown) as caught:
            await db.run_in_transaction(book, xid=asks)
        assert caught.value.xid == (wanted if asks else None)


@pytest.mark.one_version
async def test_a_transaction_used_after_its_end_says_so(db):
    """By its own error, whichever way it ended."""
    async with db.transaction() as committed:
        pass
    rolled_back = db.transaction()
    await rolled_back.start()
    await rolled_back.rollback()

    for ended, word in ((committed, "committed"), (rolled_back, "rolled back")):
        with pytest.raises(TransactionEnded, match=word):
            await ended.fetch("SELECT 1")
    with pytest.raises(asyncpg.InterfaceError):
        await committed.commit()


@pytest.mark.one_version
async def test_a_cancelled_function_leaves_no_open_transaction(db, other):
    """Nothing stored, no session idle in a transaction, the slot back."""
    await other.execute("SELECT pg_advisory_lock(1)")

    async def book(tx):
        await tx.execute("INSERT INTO t VALUES (1)")
        await tx.execute(WAIT)

    task = asyncio.create_task(db.run_in_transaction(book))
    await until(lambda: other.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    text = "SELECT count(*) FROM pg_stat_activity WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid()"
    await until(lambda: is_zero(other, text + " AND datname = current_database()"))
    assert await db.fetchval("SELECT count(*) FROM t") == 0
    assert db.get_stats()["pool_stats"]["used"] == 0


async def is_zero(con, text):
    return await con.fetchval(text) == 0


async def knows_the_schema(db):
    return db._learner is None or db._learner.knowledge.catalogue is not None
