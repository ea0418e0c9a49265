"""Changes of a hot table under load: who asks by statements and units notices nothing."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import asyncpg
import pytest

from magnus import Database, DatabaseConfig
from tests.facade_fakes import until

SCHEMA = """
CREATE TABLE hot (id int PRIMARY KEY, n int NOT NULL, note text);
INSERT INTO hot SELECT g, 0, 'x' FROM generate_series(1, 20) g
"""
READ = "SELECT * FROM hot WHERE id = $1"
ROW = "SELECT hot AS whole, n FROM hot WHERE id = $1"
WRITE = "UPDATE hot SET n = n + 1 WHERE id = $1 RETURNING *"
CHANGES = (
    "ALTER TABLE hot ADD COLUMN more int DEFAULT 7",
    "ALTER TABLE hot ALTER COLUMN note TYPE varchar(20)",
    "ALTER TABLE hot DROP COLUMN more",
    "ALTER TABLE hot ALTER COLUMN note TYPE text",
)


async def under_load(target, calls, *, changes=12, size=6, **more):
    """
    Run `calls` on a pool all the time, 20 of them at once, while the table is changed; return what failed, and how many
    writes were told and are there.
    """
    config = DatabaseConfig(**target, min_pool_size=size, max_pool_size=size, slow_log="off", **more)
    failed, written = Counter(), [0]
    is_over = asyncio.Event()

    async def work(db, seed):
        chance = random.Random(seed)
        while not is_over.is_set():
            name = chance.choice(tuple(calls))
            try:
                count = await calls[name](db, chance.randrange(1, 21))
                written[0] += count
            except Exception as error:  # noqa: BLE001  # whatever it is, it is counted
                failed[name, type(error).__name__] += 1
            await asyncio.sleep(0)

    other = await asyncpg.connect(target.get("direct_dsn", target["dsn"]))
    async with Database(config) as db:
        await other.execute(SCHEMA)
        for call in calls.values():
            await call(db, 1)
        before = await other.fetchval("SELECT sum(n) FROM hot")
        tasks = [asyncio.create_task(work(db, seed)) for seed in range(20)]
        for change in range(changes):
            await some(db)
            await other.execute(CHANGES[change % len(CHANGES)])
        await some(db)
        is_over.set()
        await asyncio.gather(*tasks)
    total = await other.fetchval("SELECT sum(n) FROM hot") - before
    await other.close()
    return failed, written[0], total


async def some(db):
    """
    Wait until 200 more statements have run.
    """

    def total():
        return db.get_stats()["query_stats"]["total"]

    begun = total()

    async def is_done():
        return total() >= begun + 200

    await until(is_done)


async def read(db, id):
    assert (await db.fetchrow(READ, id))["id"] == id
    return 0


async def declared_read(db, id):
    assert len(await db.fetch(READ, id, read=True)) == 1
    return 0


async def write(db, id):
    assert (await db.fetchrow(WRITE, id))["id"] == id
    return 1


async def plain_write(db, id):
    assert await db.execute("UPDATE hot SET n = n + 1 WHERE id = $1", id) == "UPDATE 1"
    return 1


async def unit(db, id):
    async def work(tx):
        await tx.fetchrow(READ + " FOR UPDATE", id)
        await tx.fetchrow(WRITE, id)

    await db.run_in_transaction(work)
    return 1


async def block(db, id):
    async with db.transaction() as tx:
        assert await tx.fetchval("SELECT $1::int", id) == id
        await tx.fetchrow(READ, id)
        await tx.fetchrow(WRITE, id)
    return 1


async def one_write(db, id):
    async with db.transaction() as tx:
        await tx.fetchrow(WRITE, id)
    return 1


async def test_statements_and_units_notice_nothing(target):
    """Reads, writes and functions in a transaction, each carried out exactly once."""
    calls = {f.__name__: f for f in (read, declared_read, write, plain_write, unit)}
    failed, written, total = await under_load(target, calls)
    assert not failed
    assert written == total


@pytest.mark.one_version
async def test_without_repeats_of_units_the_statements_still_notice_nothing(target):
    calls = {f.__name__: f for f in (read, write, plain_write)}
    failed, written, total = await under_load(target, calls, max_retries=1)
    assert not failed
    assert written == total


async def test_a_plain_block_fails_at_most_once_a_connection_and_change(target, way):
    """
    The server has ended its transaction, and only the caller knows what was in it. Behind a pooler no statement is
    kept, so none fails.
    """
    changes, size = 12, 6
    failed, written, total = await under_load(target, {"block": block}, changes=changes, size=size)
    assert set(failed) <= {("block", "InvalidCachedStatementError")}
    assert (sum(failed.values()) > 0) is (way == "direct")
    assert sum(failed.values()) <= changes * size
    assert written == total


async def test_a_plain_block_notices_nothing_of_a_change_before_its_first_statement(dsn):
    """Nothing was in it yet: it begins again. What changes between its statements, another one fails of."""
    failed, written, total = await under_load({"dsn": dsn}, {"block": one_write})
    assert not failed
    assert written == total


async def whole(db, id):
    assert (await db.fetchrow(ROW, id, read=True))["whole"] is not None
    return 0


@pytest.mark.one_version
async def test_a_read_of_whole_rows_notices_nothing_either(target):
    """There the driver finds out when it decodes, after the server has answered."""
    failed, *_ = await under_load(target, {"whole": whole, "read": read})
    assert not failed
