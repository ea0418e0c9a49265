"""Units of work that happen once, on a real server: the first answer, the same answer, and every way to lose it."""

import asyncio
from dataclasses import dataclass
from decimal import Decimal

import asyncpg
import pytest

from magnus import (
    AlreadyExecuted,
    ConfigError,
    Database,
    DatabaseConfig,
    DatabaseError,
    InProgress,
    KeyReused,
    Once,
    OutcomeUnknown,
    Refused,
    once,
)
from magnus import _commit as commit_module
from tests.facade_fakes import until


@dataclass(frozen=True)
class Order:
    """What is asked."""

    symbol: str
    quantity: Decimal


@dataclass(frozen=True)
class Trade:
    """What comes of it."""

    id: int
    symbol: str
    quantity: Decimal


ORDER = Order("AAAA", Decimal("10.50"))


@pytest.fixture
async def db(target):
    """A database with the table of keys, and one of trades."""
    async with Database(DatabaseConfig(**target, min_pool_size=1, max_pool_size=4, retry_delay=0.01)) as found:
        await once.install(found)
        await found.execute("CREATE TABLE trade (id int GENERATED ALWAYS AS IDENTITY, symbol text, quantity numeric)")
        found.runs = 0
        found.seen = []
        found.add_observer(found.seen.append)
        yield found


def book(db, order=ORDER):
    """Return a unit that books an order, and counts how often it runs."""

    async def booking(tx):
        db.runs += 1
        number = await tx.fetchval(
            "INSERT INTO trade (symbol, quantity) VALUES ($1, $2) RETURNING id", order.symbol, order.quantity
        )
        return Trade(number, order.symbol, order.quantity)

    return booking


async def run(db, fn=None, *, key="k", request=ORDER, scope="account:1", **options):
    options = {"result": Trade, "operation": "trade"} | options
    return await db.run_once(fn or book(db), key=key, scope=scope, request=request, **options)


async def trades(db):
    return await db.fetchval("SELECT count(*) FROM trade")


# --- the first answer, and the same again


async def test_a_unit_runs_once_and_a_repeat_gets_its_answer(db):
    """To the last digit, and without running."""
    first = await run(db)
    again = await run(db)

    assert first == Once(Trade(1, "AAAA", Decimal("10.50")), replayed=False)
    assert again == Once(first.value, replayed=True)
    assert str(again.value.quantity) == "10.50"
    assert (db.runs, await trades(db)) == (1, 1)


@pytest.mark.one_version
async def test_a_key_is_one_scopes_and_one_operations(db):
    """Another account's key, and that of another kind of unit, are their own."""
    await run(db)

    for other in ({"scope": "account:2"}, {"operation": "import"}, {"key": "l"}):
        assert not (await run(db, **other)).replayed
    assert await trades(db) == 4


@pytest.mark.one_version
async def test_a_key_with_another_request_is_refused(db):
    """Nothing is done, and the first answer stays. What is written differently is no other request."""
    await run(db)

    with pytest.raises(KeyReused) as caught:
        await run(db, request=Order("AAAA", Decimal("10.51")))
    assert caught.value.key == "k"
    assert (await run(db, request=Order("AAAA", Decimal("10.5000")))).replayed
    assert await trades(db) == 1


@pytest.mark.one_version
async def test_what_a_unit_raises_is_not_stored(db):
    """The key is free again, and nothing of the first try is left."""

    async def fail(tx):
        await book(db)(tx)
        raise LookupError

    with pytest.raises(LookupError):
        await run(db, fail)

    assert await trades(db) == 0
    assert not (await run(db)).replayed


async def test_a_refusal_is_final_and_takes_its_effects_back(db):
    """Raised again for a repeat, although the unit would be carried out by now."""

    async def refuse(tx):
        await book(db)(tx)
        raise Refused({"reason": "insufficient-cash"})

    with pytest.raises(Refused) as first:
        await run(db, refuse)
    with pytest.raises(Refused) as again:
        await run(db)

    assert (first.value.is_replayed, again.value.is_replayed) == (False, True)
    assert again.value.value == {"reason": "insufficient-cash"}
    assert await trades(db) == 0


async def test_a_conflict_runs_the_unit_again(db):
    """The whole of it, under the same key."""

    async def conflict_once(tx):
        found = await book(db)(tx)
        if db.runs == 1:
            await tx.execute("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")
        return found

    assert not (await run(db, conflict_once)).replayed
    assert (db.runs, await trades(db)) == (2, 1)


async def test_it_takes_no_round_trip_more_than_its_transaction(db, target):
    """The key goes with BEGIN and the answer with COMMIT; lock_timeout is the unit's own while it runs."""
    calls = []
    async with Database(DatabaseConfig(**target, min_pool_size=1, max_pool_size=1)) as one:
        async with one.acquire() as con:
            raw = con._execution.raw  # the pool's only connection
        raw.add_query_logger(lambda query: calls.append(query.query))
        one.runs = 0
        seen = []

        async def look(tx):
            seen.append(await tx.fetchval("SHOW lock_timeout"))
            return await book(one)(tx)

        await run(one, look, settings={"lock_timeout": "7s"})

    texts = [text.split(" ", 1)[0] for text in calls]
    assert texts[: texts.index("UPDATE") + 1] == ["BEGIN;", "SHOW", "INSERT", "UPDATE"]
    assert seen == ["7s"]


# --- at the same time


@pytest.mark.one_version
async def test_repeats_at_the_same_time_share_one_flight(db):
    """Fifty callers, one connection in use, one trade, one that is told it was first."""
    gate, used = asyncio.Event(), []

    async def slowly(tx):
        await gate.wait()
        used.append(db.get_stats()["pool_stats"]["used"])
        return await book(db)(tx)

    tasks = [asyncio.create_task(run(db, slowly)) for _ in range(50)]
    await until(lambda: is_used(db, 1))
    gate.set()
    found = await asyncio.gather(*tasks)

    assert used == [1]
    assert {answer.value for answer in found} == {Trade(1, "AAAA", Decimal("10.50"))}
    assert sum(not answer.replayed for answer in found) == 1
    assert (db.runs, await trades(db)) == (1, 1)


@pytest.mark.one_version
async def test_when_the_first_fails_the_next_one_is_the_first(db):
    """Its failure is its own; those who waited try in turn."""
    gate = asyncio.Event()

    async def fail_first(tx):
        if db.runs == 0:
            db.runs += 1
            await gate.wait()
            raise LookupError
        return await book(db)(tx)

    tasks = [asyncio.create_task(run(db, fail_first)) for _ in range(5)]
    await until(lambda: is_used(db, 1))
    gate.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)

    assert sum(isinstance(answer, LookupError) for answer in found) == 1
    assert sum(isinstance(answer, Once) for answer in found) == 4
    assert await trades(db) == 1


@pytest.mark.one_version
async def test_a_waiting_repeat_ends_at_its_own_deadline(db):
    """With `InProgress`, which says when to come again; the first is not disturbed."""
    gate = asyncio.Event()

    async def slowly(tx):
        await gate.wait()
        return await book(db)(tx)

    first = asyncio.create_task(run(db, slowly))
    await until(lambda: is_used(db, 1))
    with pytest.raises(InProgress) as caught:
        await run(db, timeout=0.05)
    gate.set()

    assert caught.value.retry_after > 0
    assert not (await first).replayed


async def test_the_same_key_in_another_process_is_in_progress_after_a_bound(db, target, monkeypatch):
    """The second waits for the first transaction's row, then says so; with the first one's end it finds the answer."""
    monkeypatch.setattr(once, "WAIT", 0.1)
    gate = asyncio.Event()

    async def slowly(tx):
        await gate.wait()
        return await book(db)(tx)

    async with Database(DatabaseConfig(**target, min_pool_size=1)) as elsewhere:
        first = asyncio.create_task(run(db, slowly))
        await until(lambda: is_used(db, 1))
        await until(lambda: is_open(elsewhere))
        with pytest.raises(InProgress):
            await run(elsewhere, book(db))
        gate.set()
        await first
        assert (await run(elsewhere, book(db))).replayed
        assert elsewhere.get_stats()["pool_stats"]["used"] == 0
    assert await trades(db) == 1


# --- an unknown outcome


def lose_commits(monkeypatch, *, stored, times=1):
    """Lose the answer of the next COMMITs, after they were carried out, or before they were sent."""
    commit = commit_module.commit
    left = [times]

    async def lose(con, **options):
        if not left[0]:
            return await commit(con, **options)
        left[0] -= 1
        if stored:
            await commit(con, **options)
        con.terminate()
        raise OutcomeUnknown

    monkeypatch.setattr(commit_module, "commit", lose)


@pytest.mark.parametrize("stored", [True, False])
async def test_a_commit_without_an_answer_is_resolved_by_the_key(db, monkeypatch, stored):
    """Stored: the answer is found. Lost: the unit runs again. The caller sees neither, and it is no repeat to him."""
    lose_commits(monkeypatch, stored=stored)

    found = await run(db)

    assert (found.replayed, db.runs, await trades(db)) == (False, 1 if stored else 2, 1)
    assert [event.error_type for event in db.seen if event.name == "database_retry"] == ["OutcomeUnknown"]


async def test_an_answer_is_given_only_after_a_commit_of_its_own(db, monkeypatch):
    """The first one's wait for the standby was called off: a row that is seen is no proof that the standby has it."""
    lose_commits(monkeypatch, stored=True, times=3)

    found = await run(db)

    assert (found.value.id, db.runs) == (1, 1)
    assert await db.fetchval("SELECT replays FROM magnus_once") == 3


async def test_what_nobody_can_say_until_the_deadline_is_unknown_and_the_key_finds_out(db, monkeypatch):
    """`OutcomeUnknown` carries the key; the repeat after the outage gets the answer."""
    with monkeypatch.context() as patch:
        lose_commits(patch, stored=True, times=10**6)
        with pytest.raises(OutcomeUnknown) as caught:
            await run(db, timeout=0.5)

    assert caught.value.key == "k"
    assert (await run(db)).replayed
    assert (db.runs, await trades(db)) == (1, 1)


@pytest.mark.one_version
async def test_whatever_fails_after_an_unknown_outcome_leaves_it_unknown(db, monkeypatch):
    """The server went away after COMMIT: no connection is to be had, and the error is not about the connection."""
    lose_commits(monkeypatch, stored=True)
    begin = Database._begin_once

    async def no_more(self, *args, **options):
        if db.runs:
            raise ConnectionRefusedError
        return await begin(self, *args, **options)

    monkeypatch.setattr(Database, "_begin_once", no_more)
    with pytest.raises(OutcomeUnknown) as caught:
        await run(db, timeout=0.3)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


# --- retention


async def test_answers_expire_and_keys_do_not(db):
    """A repeat after that is told what was made, and makes nothing."""
    await run(db, reference=lambda trade: trade.id)
    await run(db, key="young")
    await db.execute("UPDATE magnus_once SET created_at = now() - interval '40 days' WHERE key = 'k'")

    assert await once.expire(db, 30 * 86400) == 1
    assert await once.expire(db, 30 * 86400) == 0

    with pytest.raises(AlreadyExecuted) as caught:
        await run(db)
    assert caught.value.reference == "1"
    assert (await run(db, key="young")).replayed
    assert await trades(db) == 2


# --- bad input


@pytest.mark.one_version
@pytest.mark.parametrize("bad", ["", "x" * 256, "a\0b", "\ud800", 5, None])
@pytest.mark.parametrize("name", ["key", "scope", "operation"])
async def test_a_name_that_cannot_be_stored_is_refused_before_anything_is_sent(db, name, bad):
    """By its field, and without repeating it."""
    with pytest.raises(ConfigError) as caught:
        await run(db, **{name: bad})

    assert caught.value.field == name
    assert db.runs == 0


async def test_names_are_data(db):
    """Quotes, backslashes and SQL in a key or an answer stay what they are."""
    for name in ("'", "\\", "a'; DROP TABLE trade; --", "\\'", "$1", "ä€𝄞", "E'\\x00'"):
        assert not (await run(db, key=name, scope=name, operation=name, request=name)).replayed
        assert (await run(db, key=name, scope=name, operation=name, request=name)).replayed

    async def echo(_tx):
        return "it's a \\ 'text' with \x00 in it; DROP TABLE trade"

    first = await run(db, echo, key="echo", result=str)
    assert (await run(db, echo, key="echo", result=str)).value == first.value


@pytest.mark.one_version
async def test_an_answer_that_could_not_be_read_again_is_an_error_at_once(db):
    """Before COMMIT: nothing is stored."""

    async def wrong(tx):
        await book(db)(tx)
        return "no trade"

    with pytest.raises(TypeError, match="cannot be read again"):
        await run(db, wrong)

    assert await trades(db) == 0
    assert await db.fetchval("SELECT count(*) FROM magnus_once") == 0


async def test_without_the_table_the_error_says_how_to_make_it(target):
    """Not a bare "relation does not exist"."""
    async with Database(DatabaseConfig(**target, min_pool_size=1)) as bare:
        bare.runs = 0
        with pytest.raises(DatabaseError, match="magnus once install"):
            await run(bare)


async def test_installing_twice_changes_nothing(db):
    """And keeps what is there."""
    await run(db)
    await once.install(db)
    assert (await run(db)).replayed


@pytest.mark.one_version
async def test_a_cancelled_unit_leaves_the_key_free(db, dsn):
    """No row, no open transaction."""
    gate = asyncio.Event()

    async def wait(tx):
        await book(db)(tx)
        await gate.wait()

    task = asyncio.create_task(run(db, wait))
    await until(lambda: has_run(db))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not (await run(db)).replayed
    con = await asyncpg.connect(dsn)
    assert await con.fetchval("SELECT count(*) FROM trade") == 1
    await con.close()


async def is_used(db, count):
    return db.get_stats()["pool_stats"]["used"] == count


async def has_run(db):
    return db.runs > 0


async def is_open(db):
    """Somebody has claimed a key and not committed: the row's insertion holds its transaction's id."""
    return await db.fetchval(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'transactionid' AND granted AND pid <> pg_backend_pid())"
    )
