"""The cache on a real server: transactions and their invalidations, settings, random histories."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from magnus import ConfigError, Database, DatabaseConfig, OutcomeUnknown, TransactionEnded, cached
from magnus.testing import Point, fault_at
from tests import cache_histories

pytestmark = pytest.mark.one_version

SCHEMA = "CREATE TABLE item (id int PRIMARY KEY, price int NOT NULL); INSERT INTO item VALUES (1, 10), (2, 20)"
RAISE = "UPDATE item SET price = price + 1 WHERE id = $1"


@cached(ttl=60.0, tags=["item"])
async def price(db, id):
    return await db.fetchval("SELECT price FROM item WHERE id = $1", id)


@pytest.fixture
async def db(target):
    async with Database(DatabaseConfig(**target, min_pool_size=1, max_pool_size=5, slow_log="off")) as found:
        await found.execute(SCHEMA)
        yield found


async def test_invalidate_takes_effect_after_commit_and_not_before(db):
    """Others go on with what is committed; the transaction itself sees its own change, on `tx` and past the cache."""
    assert await price(db, 1) == 10
    async with db.transaction() as tx:
        await tx.execute(RAISE, 1)
        tx.invalidate("item")
        assert await price(tx, 1) == 11
        assert await price(db, 1) == 10
        task = asyncio.create_task(price(db, 1), context=contextvars.Context())
        assert await task == 10
    assert await price(db, 1) == 11


async def rolled_back(transaction):
    """
    A block that invalidates, and then fails.
    """
    async with transaction as tx:
        tx.invalidate("item")
        raise ZeroDivisionError


async def raised(db):
    """
    A block that changes an item, and says so.
    """
    async with db.transaction() as tx:
        await tx.execute(RAISE, 1)
        tx.invalidate("item")


async def test_what_is_rolled_back_invalidates_nothing(db):
    await price(db, 1)
    with pytest.raises(ZeroDivisionError):
        await rolled_back(db.transaction())
    async with db.transaction() as tx:
        with pytest.raises(ZeroDivisionError):
            await rolled_back(tx.transaction())
    await price(db, 1)
    assert db.get_stats()["cache"]["hits"] == 1


async def test_a_savepoints_invalidation_waits_for_the_outermost_commit(db):
    await price(db, 1)
    async with db.transaction() as tx:
        async with tx.transaction() as inner:
            await inner.execute(RAISE, 1)
            inner.invalidate("item")
        assert db.get_stats()["cache"]["invalidations"] == 0
    assert await price(db, 1) == 11


async def test_a_savepoint_that_is_never_released_is_committed_all_the_same(db):
    await price(db, 1)
    async with db.transaction() as tx:
        inner = tx.transaction()
        await inner.start()
        await inner.execute(RAISE, 1)
        inner.invalidate("item")
    assert await price(db, 1) == 11


async def test_units_invalidate_too(db):
    async def unit(tx):
        await tx.execute(RAISE, 1)
        tx.invalidate("item")

    await price(db, 1)
    await db.run_in_transaction(unit)
    assert await price(db, 1) == 11
    await db.execute(RAISE, 1)
    db.invalidate("item")
    assert await price(db, 1) == 12


async def test_an_ended_transaction_takes_no_invalidation(db):
    async with db.transaction() as tx:
        pass
    with pytest.raises(TransactionEnded):
        tx.invalidate("item")


@pytest.mark.parametrize("begun", ["transaction", "lease", "hand", "gathered", "unit"])
async def test_nothing_is_served_inside_a_transaction_that_writes(db, begun):
    """However it was begun, and in tasks that it starts."""
    await price(db, 1)
    async with Database(db.config) as other:
        await other.execute(RAISE, 1)

    async def look():
        return await price(db, 1)

    if begun == "transaction":
        async with db.transaction():
            found = await look()
    elif begun == "lease":
        async with db.acquire() as con, con.transaction():
            found = await look()
    elif begun == "hand":
        async with db.acquire() as con:
            await con.execute("BEGIN")
            found = await look()
    elif begun == "gathered":
        async with db.transaction():
            (found,) = await asyncio.gather(look())
    else:
        found = await db.run_in_transaction(lambda tx: look())
    assert found == 11
    assert await look() == 10, "outside it is served again"


async def test_a_transaction_that_only_reads_is_served(db):
    await price(db, 1)
    async with db.transaction(readonly=True):
        assert await price(db, 1) == 10
    assert db.get_stats()["cache"]["hits"] == 1


async def test_a_transaction_on_another_database_is_none_on_this_one(db):
    await price(db, 1)
    async with Database(db.config) as other, other.transaction(), db.transaction(readonly=True):
        await price(db, 1)
    assert db.get_stats()["cache"]["hits"] == 1


async def test_after_an_unanswered_commit_nothing_is_kept_for_a_while(db):
    await price(db, 1)

    async def lose():
        raise OutcomeUnknown

    with fault_at(Point.COMMIT, after=lose), pytest.raises(OutcomeUnknown):
        await raised(db)
    await price(db, 1)
    await price(db, 1)
    assert db.get_stats()["cache"]["hits"] == 0


# --- settings

ROWS = """
CREATE TABLE owned (tenant text, n int); INSERT INTO owned VALUES ('a', 1), ('b', 2);
ALTER TABLE owned ENABLE ROW LEVEL SECURITY; ALTER TABLE owned FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON owned USING (tenant = current_setting('app.tenant'));
GRANT SELECT ON owned TO PUBLIC;
"""


async def seen(db, settings):
    async def read(tx):
        return await tx.fetchval("SELECT sum(n)::int FROM owned")

    return await db.run_in_transaction(read, readonly=True, settings=settings)


async def test_settings_are_part_of_the_key(db):
    """Whoever asks as one tenant never gets what another was told."""
    await db.execute(ROWS)

    @cached(ttl=60.0, settings=lambda tenant: {"role": "pg_monitor", "App.Tenant": tenant})
    async def total(db, tenant):
        return await seen(db, {"role": "pg_monitor", "app.tenant": tenant, "statement_timeout": "5000"})

    assert [await total(db, "a"), await total(db, "b"), await total(db, "a")] == [1, 2, 1]
    assert db.get_stats()["cache"]["hits"] == 1


async def test_settings_that_the_key_does_not_have_are_refused(db):
    """Where the tenant comes from elsewhere, one tenant's answer would be everybody's."""
    await db.execute(ROWS)
    tenant = "a"

    @cached(ttl=60.0)
    async def total(db):
        return await seen(db, {"role": "pg_monitor", "app.tenant": tenant})

    with pytest.raises(ConfigError, match="settings=") as found:
        await total(db)
    assert found.value.field == "cached"

    @cached(ttl=60.0, settings=lambda: {"role": "pg_monitor", "app.tenant": "b"})
    async def wrong(db):
        return await seen(db, {"role": "pg_monitor", "app.tenant": tenant})

    with pytest.raises(ConfigError):
        await wrong(db)
    async with db.transaction(settings={"role": "pg_monitor", "app.tenant": tenant}) as tx:
        assert await tx.fetchval("SELECT sum(n)::int FROM owned") == 1, "no load, no check"


@pytest.mark.parametrize(
    "text",
    [
        "SET app.tenant = 'a'", "SET LOCAL app.tenant = 'a'", "SET ROLE pg_monitor", "RESET app.tenant",
        "SELECT set_config('app.tenant', 'a', true)", "SELECT 1; SET LOCAL ROLE pg_monitor",
        "SELECT pg_catalog.set_config('app.tenant', 'a', true)",
    ],
)  # fmt: skip
@pytest.mark.parametrize("reset", ["smart", "always"])
async def test_settings_by_text_are_refused_while_loading(db, text, reset):
    @cached(ttl=60.0)
    async def changing(db):
        async with db.transaction() as tx:
            await tx.execute(text)
            return 1

    async with Database(db.config.replace(reset=reset)) as other:
        with pytest.raises(ConfigError, match="changes what"):
            await changing(other)

        @cached(ttl=60.0)
        async def harmless(db):
            async with db.transaction(isolation="serializable") as tx:
                await tx.execute("SET TRANSACTION READ ONLY")
                return await tx.fetchval("SELECT price FROM item WHERE id = 1")

        assert await harmless(other) == 10


async def test_no_settings_by_text_in_a_savepoint_either(db):
    @cached(ttl=60.0)
    async def changing(db):
        async with db.transaction() as tx, tx.transaction(settings={"app.tenant": "a"}):
            return 1

    with pytest.raises(ConfigError):
        await changing(db)


# --- histories


async def test_no_read_is_older_than_what_was_acknowledged(dsn):
    """The long form is `make histories`."""
    found, figures = await cache_histories.on_a_server(dsn, 1_000, 1)
    assert not found.stale
    assert found.reads > 4_000
    assert figures["hits"] > 500
    assert figures["invalidations"] > 1_000


def test_no_simulated_read_is_older_than_what_was_acknowledged():
    found = cache_histories.simulated(1_500, 1)
    assert not found.stale
    assert found.reads > 8_000
