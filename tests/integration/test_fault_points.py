from __future__ import annotations

import asyncio

import asyncpg
import pytest

from magnus import ConnectError, Database, DatabaseConfig
from magnus.testing import Point, RefusingServer, fault_at
from magnus.testing._points import _SEAMS

pytestmark = pytest.mark.one_version


@pytest.fixture
def config(dsn):
    return DatabaseConfig(dsn=dsn, min_pool_size=1, max_pool_size=2)


async def work(db) -> None:
    """
    Everything that has a fault point: a new connection, a lease, a commit, a reset.
    """
    async with db.transaction() as tx:
        await tx.execute("SET LOCAL work_mem = '5MB'")
    async with db.acquire() as con:
        await con.execute("SET work_mem = '5MB'")


@pytest.mark.parametrize("point", list(Point))
async def test_the_layer_passes_every_fault_point(config, point):
    async def pause() -> None:
        await asyncio.sleep(0)

    with fault_at(point, before=pause, after=pause) as step:
        async with Database(config) as db:
            await work(db)
    assert step.hits > 0


@pytest.mark.parametrize("point", list(Point))
async def test_a_fault_point_is_gone_with_its_block(point):
    owner, name = _SEAMS[point]
    was = getattr(owner, name)
    with fault_at(point):
        assert getattr(owner, name) is not was
    assert getattr(owner, name) is was


async def test_a_step_may_be_prevented_or_its_answer_lost(config):
    async def fail() -> None:
        raise LookupError

    async with Database(config) as db:
        await db.execute("CREATE TABLE t (n int)")
        for moment, stored in (("before", 0), ("after", 1)):

            async def insert() -> None:
                async with db.transaction() as tx:
                    await tx.execute("INSERT INTO t VALUES (1)")

            with fault_at(Point.COMMIT, **{moment: fail}), pytest.raises(LookupError):
                await insert()
            assert await db.fetchval("SELECT count(*) FROM t") == stored


@pytest.mark.parametrize(
    ("sqlstate", "reason"), [("57P03", "starting"), ("53300", "too_many"), ("28P01", "credentials")]
)
async def test_a_refusing_server_refuses_with_its_code(sqlstate, reason):
    async with RefusingServer(sqlstate) as server:
        dsn = f"postgresql://me:secret@127.0.0.1:{server.port}/db"
        with pytest.raises(asyncpg.PostgresError) as refused:
            await asyncpg.connect(dsn, ssl="prefer")
        assert refused.value.sqlstate == sqlstate
        with pytest.raises(ConnectError) as named:
            await Database(DatabaseConfig(dsn=f"{dsn}?sslmode=disable")).connect()
        assert named.value.reason == reason
        assert server.asked >= 2


async def test_a_refusing_server_needs_a_code():
    with pytest.raises(ValueError, match="five characters"):
        RefusingServer("5")
