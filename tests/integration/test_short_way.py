"""Statements that leave nothing behind, on a real server: no reset, limits all the same, nothing crosses."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from magnus._driver import PooledConnection
from magnus.config import DatabaseConfig
from magnus.database import Database
from magnus.errors import QueryTimeout
from magnus.lanes import QueryPriority
from tests.facade_fakes import until

CRITICAL = QueryPriority.CRITICAL
SHOW = "SHOW statement_timeout"


async def opened(dsn, **changes):
    found = Database(DatabaseConfig(dsn=dsn, min_pool_size=1, max_pool_size=1, **changes))
    await found.connect()
    knowledge = found._terms.knowledge
    if knowledge is not None:
        await until(lambda: asyncio.sleep(0, knowledge.catalogue is not None))
    return found


@pytest.fixture
async def db(dsn):
    found = await opened(dsn)
    yield found
    await found.close()


@pytest.fixture
async def resets(monkeypatch):
    """What was sent between leases."""
    seen = []
    plain = PooledConnection.execute

    async def execute(self, query, *args, timeout=None):
        if "RESET" in query:
            seen.append(query)
        return await plain(self, query, *args, timeout=timeout)

    monkeypatch.setattr(PooledConnection, "execute", execute)
    return seen


async def test_neutral_work_is_not_reset(db, resets):
    """Statements, transactions, errors of the server: none costs a round trip afterwards."""
    assert await db.fetchval("SELECT 1") == 1
    async with db.transaction() as tx:
        await tx.fetchval("SELECT 2")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await db.fetchval("SELECT 1/0")
    assert resets == []
    assert db.get_stats()["pool_stats"]["free"] == 1


@pytest.mark.one_version
async def test_always_is_always(dsn, resets):
    """As configured."""
    db = await opened(dsn, reset="always")
    await db.fetchval("SELECT 1")
    await db.close()
    assert len(resets) == 1


async def test_what_a_statement_leaves_is_taken_back(db, resets):
    """A setting by an exact reset, an open transaction by a full one; the next caller sees neither."""
    await db.execute("SET work_mem = '7MB'")
    assert resets == ["RESET ALL"]
    assert await db.fetchval("SHOW work_mem") != "7MB"
    with Quiet():
        await db.execute("BEGIN")
    assert len(resets) == 2
    async with db.acquire() as con:
        assert not con.is_in_transaction()


class Quiet:
    """The driver tells the loop of an open transaction at a reset."""

    def __enter__(self):
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)

    def __exit__(self, *_):
        asyncio.get_running_loop().set_exception_handler(None)


async def test_the_servers_limit_follows_the_lane_across_leases(db, resets):
    """SET when the lane changes, nothing when it does not, and no reset."""
    assert await db.fetchval(SHOW, priority=CRITICAL) == "6s"
    assert await db.fetchval(SHOW, priority=CRITICAL) == "6s"
    assert await db.fetchval(SHOW) == "30s"
    assert resets == []


@pytest.mark.one_version
async def test_a_limit_ends_the_statement_on_both_sides(db):
    """The caller at once, the server by a cancel; the connection comes back clean."""
    with pytest.raises(QueryTimeout) as caught:
        await db.fetchval("SELECT pg_sleep(60)", timeout=0.1)

    assert caught.value.timeout == 0.1
    assert asyncio.current_task().cancelling() == 0
    assert await db.fetchval("SELECT 3") == 3
    assert db.get_stats()["query_stats"]["timeouts"] == 1


@pytest.mark.one_version
async def test_a_cancelled_statement_frees_its_slot(db):
    """And the cancellation is the caller's own."""
    task = asyncio.create_task(db.fetchval("SELECT pg_sleep(60)"))
    await until(lambda: asyncio.sleep(0, db.get_stats()["pool_stats"]["used"] == 1))
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert await db.fetchval("SELECT 4") == 4


@pytest.mark.one_version
async def test_many_limits_at_once_leave_no_slot_and_no_cancellation_behind(dsn):
    """Statements that take about as long as they may: answers, limits and hand-offs in every order."""
    db = Database(DatabaseConfig(dsn=dsn, min_pool_size=4, max_pool_size=4))
    await db.connect()

    async def worker(number):
        ended = 0
        for turn in range(12):
            try:
                await db.fetchval("SELECT pg_sleep($1)", 0.003, timeout=0.002 + (number + turn) % 5 * 0.002)
            except TimeoutError:
                ended += 1
            assert asyncio.current_task().cancelling() == 0
        return ended

    ended = await asyncio.gather(*map(worker, range(8)))
    assert sum(ended) > 0
    await until(lambda: asyncio.sleep(0, db.get_stats()["pool_stats"]["used"] == 0))
    assert await db.fetchval("SELECT 5") == 5
    await db.close()


async def test_a_schema_that_changes_meanwhile_costs_a_full_reset(db, resets):
    """What was judged by knowledge that did not hold to the end is not believed."""
    task = asyncio.create_task(db.fetchval("SELECT pg_sleep(0.2)"))
    await until(lambda: asyncio.sleep(0, db.get_stats()["pool_stats"]["used"] == 1))
    db._terms.knowledge.doubted()
    await task

    assert len(resets) == 1
