"""The seams of the pool that `create_pool` stands on: told failures, retiring, terminating, closing without end."""

from __future__ import annotations

import asyncio

import pytest

from magnus._driver import AlreadyReleased, PoolClosed
from magnus.config import DatabaseConfig
from magnus.lanes import QueryPriority
from magnus.pool import Pool
from magnus.pool._limits import Limits
from tests.unit.pool.fake_driver import Bench, FakeDriver, turns


@pytest.fixture
async def bench():
    async with Bench(max_pool_size=2) as made:
        yield made


async def test_a_retired_connection_is_closed_in_order(bench):
    """And the next caller gets another."""
    lease = await bench.pool.acquire(QueryPriority.CRITICAL, None)
    ended = asyncio.Event()

    async def farewell():
        ended.set()

    lease.con.on_close = farewell
    bench.pool.retire(lease)
    with pytest.raises(AlreadyReleased):
        bench.pool.retire(lease)
    await turns()

    assert ended.is_set()
    assert (await bench.pool.acquire(QueryPriority.CRITICAL, None)).con is not lease.con


async def test_a_retired_connection_that_is_gone_frees_its_slot(bench):
    """There is nothing to close."""
    lease = await bench.pool.acquire(QueryPriority.CRITICAL, None)
    lease.con.terminate()
    bench.pool.retire(lease)

    assert bench.pool.snapshot().size == 0


async def test_terminating_takes_the_connections_out_of_their_holders_hands(bench):
    """At once; who waits is refused."""
    leases = [await bench.pool.acquire(QueryPriority.CRITICAL, None) for _ in range(2)]
    waiting = bench.acquire()
    await turns()
    bench.pool.terminate()

    assert [lease.con.is_closed() for lease in leases] == [True, True]
    assert bench.pool.snapshot().size == 0
    with pytest.raises(PoolClosed):
        await waiting


async def test_closing_without_a_limit_waits_for_the_last_lease(bench):
    """And ends with it."""
    lease = await bench.pool.acquire(QueryPriority.CRITICAL, None)
    closing = asyncio.create_task(bench.pool.close(None))
    await turns(20)
    assert not closing.done()
    await bench.pool.release(lease)

    await closing


async def test_a_lease_is_current_until_the_pool_expires_its_connections(bench):
    """The next one is again."""
    lease = await bench.pool.acquire(QueryPriority.CRITICAL, None)
    assert bench.pool.is_current(lease)
    bench.pool.expire()
    assert not bench.pool.is_current(lease)
    assert bench.pool.is_current(await bench.pool.acquire(QueryPriority.CRITICAL, None))


async def test_a_failed_connect_is_raised_by_who_waited_for_it():
    """The very exception of the connect; the pool goes on."""
    driver = FakeDriver()
    driver.error = ZeroDivisionError("mine")
    pool = Pool(
        DatabaseConfig(min_pool_size=0, max_pool_size=1),
        notify=lambda _event: None,
        connect=driver,
        is_checked=True,
        is_telling=True,
        limits=Limits(0, 1),
    )
    await pool.open()
    found = await asyncio.gather(*(pool.acquire(QueryPriority.LOW, None) for _ in range(3)), return_exceptions=True)
    assert found == [driver.error] * 3

    driver.error = None
    lease = await pool.acquire(QueryPriority.LOW, None)
    await pool.release(lease)
    await pool.close(0.0)
