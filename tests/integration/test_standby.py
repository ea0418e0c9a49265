"""A pool whose connections sit on a real streaming standby: writes find the primary again, by themselves."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import pytest

from magnus import Database, DatabaseConfig
from magnus.embedded import throwaway
from tests.facade_fakes import until
from tests.servers import binaries_or_skip, standby_of

SIZE = 4
WRITE = "INSERT INTO written VALUES ($1)"


class Address:
    """
    A socket that leads to one server, then to another, as a name or a virtual address does in a failover.
    """

    def __init__(self, folder):
        self.folder = folder
        self.dsn = f"postgresql://postgres@/postgres?host={folder}"

    def lead_to(self, cluster):
        link = self.folder / ".s.PGSQL.5432"
        link.unlink(missing_ok=True)
        link.symlink_to(f"{cluster.socket_folder}/.s.PGSQL.{cluster.port}")


@pytest.fixture(scope="module")
def pair(pg_version, background_loop):
    """A primary with a table, and its standby, which has it too."""

    async def enter(stack):
        primary = await stack.enter_async_context(throwaway(binaries_or_skip(pg_version)))
        async with primary.connect() as con:
            await con.execute("CREATE TABLE written (number int)")
        return primary, await stack.enter_async_context(standby_of(primary))

    stack = AsyncExitStack()
    yield background_loop.run(enter(stack))
    background_loop.run(stack.aclose())


@pytest.fixture
async def primary(pair):
    """With an empty table."""
    async with pair[0].connect() as con:
        await con.execute("TRUNCATE written")
    return pair[0]


@pytest.fixture
async def db(tmp_path, pair, primary):
    """Warm connections, all to the standby."""
    async with on(tmp_path, pair[1]) as found:
        yield found


@asynccontextmanager
async def on(folder, cluster):
    address = Address(folder)
    address.lead_to(cluster)
    seen = []
    config = DatabaseConfig(dsn=address.dsn, min_pool_size=SIZE, max_pool_size=SIZE)
    async with Database(config, observers=[seen.append]) as found:
        assert await found.warmup_pool(SIZE) == SIZE
        found.address, found.seen = address, seen
        yield found


async def refusals(db, numbers):
    """
    Write at the same time; how many were refused as read-only.
    """
    answers = await asyncio.gather(*(db.execute(WRITE, number) for number in numbers), return_exceptions=True)
    found = [answer for answer in answers if isinstance(answer, BaseException)]
    assert all(isinstance(answer, asyncpg.ReadOnlySQLTransactionError) for answer in found), found
    return len(found)


def evictions(db):
    return sum(event.name == "database_standby_evicted" for event in db.seen)


async def test_after_the_address_moved_one_write_is_refused_and_no_other(db, primary):
    """The connections to the standby live on, and are replaced at the first refusal, though only one was used."""
    db.address.lead_to(primary)

    assert sum([await refusals(db, [number]) for number in range(10)]) <= 1
    assert await refusals(db, range(100)) == 0

    assert evictions(db) == 1
    async with primary.connect() as con:
        assert await con.fetchval("SELECT count(*) FROM written") >= 109


async def test_writes_at_the_same_time_are_refused_once_a_connection_at_most(db, primary):
    """Whoever waits for a connection meanwhile gets one to the primary."""
    db.address.lead_to(primary)

    assert await refusals(db, range(100)) <= SIZE
    assert await refusals(db, range(100)) == 0
    assert evictions(db) == 1


async def test_while_the_address_leads_to_the_standby_connections_are_not_replaced_at_every_refusal(db, primary):
    """And when it leads to the primary at last, they are once more."""
    assert await refusals(db, range(20)) >= 1
    assert evictions(db) == 1
    db.address.lead_to(primary)

    async def is_written():
        return await refusals(db, [1]) == 0

    await until(is_written)
    assert evictions(db) <= 2
    assert await refusals(db, range(100)) == 0


async def test_a_promotion_in_place_ends_the_refusals(primary, tmp_path):
    """The same connections write from then on: what the server says of itself is asked anew."""
    async with standby_of(primary) as standby, on(tmp_path, standby) as db:
        assert await refusals(db, [1]) == 1
        async with standby.connect() as con:
            assert await con.fetchval("SELECT pg_promote(true, 60)")

        assert await refusals(db, range(100)) == 0
        assert evictions(db) == 1


async def test_reading_on_a_standby_is_no_reason_to_leave_it(db):
    """Nor is a transaction that said that it would not write."""
    assert await db.fetchval("SELECT count(*) FROM written") == 0
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        async with db.transaction(readonly=True) as tx:
            await tx.execute(WRITE, 1)

    assert evictions(db) == 0
