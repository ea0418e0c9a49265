"""Instances on one server see each other, warn and share; a fleet of real processes starts, dies and restarts."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from magnus import Database, DatabaseConfig
from magnus.cache import install
from magnus.embedded import throwaway
from magnus.observe import FleetOverBudget
from tests.facade_fakes import until
from tests.fleet import SETTINGS, Fleet
from tests.servers import binaries_or_skip

RESERVED = 3
MOST = 60 - RESERVED
ROLES = """
CREATE ROLE fleet LOGIN; CREATE ROLE few LOGIN CONNECTION LIMIT 20; CREATE ROLE blind LOGIN;
GRANT CREATE ON SCHEMA public TO fleet;
GRANT SELECT ON magnus_cache TO fleet
"""
BESIDE = """
SELECT count(*) FROM pg_stat_activity WHERE application_name IN ('shop (slow log)', 'shop (catalogue)')
"""


@pytest.fixture(scope="module")
def small(pg_version, background_loop):
    """
    A server of these tests' own that takes few connections and says who came.
    """
    with throwaway(binaries_or_skip(pg_version), max_connections=60, settings=SETTINGS) as cluster:
        background_loop.run(prepare(cluster))
        yield cluster


async def prepare(cluster):
    async with cluster.connect() as con:
        await con.execute(install([]) + ROLES)


def instance(cluster, seen=None, *, user="fleet", **changes):
    given = {"application_name": "shop", "min_pool_size": 0, "health_check_interval": 0.05} | changes
    config = DatabaseConfig(dsn=cluster.dsn(user=user), **given)
    return Database(config, observers=[] if seen is None else [seen.append])


async def figure(db, name, expected):
    await until(lambda: asyncio.sleep(0, db.get_stats()["fleet"][name] == expected))


async def test_instances_see_each_other_without_any_right_to_look(small):
    """Of whatever role; who has left is not there any more, and sessions of others are counted."""
    async with small.connect(), instance(small) as one:
        async with instance(small, user="few", max_pool_size=7, slow_log="off", reset="always"):
            await figure(one, "instances", 2)
            found = one.get_stats()["fleet"]
            assert found["connections"] == 30 + 2 + 7 + 1
            assert (found["max_connections"], found["reserved"]) == (60, RESERVED)
            assert found["others"] >= 1
            assert found["budget"] == MOST - found["others"]
        await figure(one, "instances", 1)


async def test_too_many_connections_are_told_with_the_numbers(small):
    """Once, by each that sees it, before anybody is refused."""
    seen = []
    async with instance(small, seen), instance(small, seen):
        await until(lambda: asyncio.sleep(0, len(seen) == 2))
        assert {type(event) for event in seen} == {FleetOverBudget}
        event = seen[0]
        assert (event.instances, event.connections, event.limit) == (2, 64, "max_connections")
        assert event.budget == MOST - event.others
        assert event.advice.startswith(f"set max_pool_size to {event.budget // 2 - 2} at most")


async def test_instances_that_share_make_room_for_each_other_and_take_it_back(small):
    """More came than were expected: all shrink, the warning is none, and who is left grows again."""
    one = instance(small, fleet_size=1, max_pool_size=40)
    async with one:
        await until(lambda: asyncio.sleep(0, one.get_stats()["pool_stats"]["max_size"] == 40))
        others = [instance(small, fleet_size=1, max_pool_size=40) for _ in range(3)]
        await asyncio.gather(*(each.connect() for each in others))
        for each in (one, *others):
            await until(lambda each=each: asyncio.sleep(0, each.get_stats()["pool_stats"]["max_size"] <= 12))
            await figure(each, "state", "within")
        await asyncio.gather(*(each.close() for each in others))
        await until(lambda: asyncio.sleep(0, one.get_stats()["pool_stats"]["max_size"] == 40))


async def test_the_limit_of_a_role_is_a_budget_too(small):
    """20 for the role, one of them kept back, two instances: 9 each, 2 of them beside the pool."""
    async with instance(small, user="few", fleet_size=2) as db:
        await figure(db, "limit", "role")
        assert db.get_stats()["pool_stats"]["max_size"] == 7


async def test_who_must_not_look_works_as_it_would_alone(small):
    """The right to look can be taken away; the service does not feel it."""
    public = "FUNCTION pg_catalog.pg_stat_get_activity(integer)"
    async with small.connect() as con:
        await con.execute(f"REVOKE EXECUTE ON {public} FROM PUBLIC")
        try:
            seen = []
            async with instance(small, seen, user="blind", fleet_size=10, max_pool_size=3) as db:
                assert await db.fetchval("SELECT 1") == 1
                assert await db.health_check()
                assert db.get_stats()["pool_stats"]["max_size"] == 3
                assert db.get_stats()["fleet"]["reason"] == "InsufficientPrivilegeError"
            assert [event.name for event in seen].count("database_fleet_unseen") == 1
        finally:
            await con.execute(f"GRANT EXECUTE ON {public} TO PUBLIC")


async def test_until_the_server_was_seen_one_connection_must_do():
    """Who cannot know its share takes the least."""
    db = Database(DatabaseConfig(dsn="postgresql://postgres@127.0.0.1:1/postgres?sslmode=disable", fleet_size=4))
    await db.connect(wait=False)
    try:
        assert db.get_stats()["pool_stats"]["max_size"] == 1
    finally:
        await db.close()


@pytest.mark.one_version
async def test_the_slow_log_and_the_catalogue_use_one_connection_by_turns(small):
    """Who waits for the turn gets it, although the log keeps its connection for a minute."""
    async with small.connect() as con, instance(small, slow_query_threshold=0.0) as db:
        await db.fetchval("SELECT 1")
        await until(lambda: asyncio.sleep(0, db.get_stats()["slow_log"]["written"] > 0))
        most = 0

        async def watch():
            nonlocal most
            while True:
                most = max(most, await con.fetchval(BESIDE))

        watching = asyncio.create_task(watch())
        for _ in range(3):
            await db.fetchval("SELECT 1")
            async with asyncio.timeout(20.0):
                assert (await db._questions.ask("SELECT 2 AS two"))["two"] == 2
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        written = db.get_stats()["slow_log"]["written"]
        await db.fetchval("SELECT 1")
        await until(lambda: asyncio.sleep(0, db.get_stats()["slow_log"]["written"] > written))
        assert most == 1


@pytest.mark.one_version
async def test_a_fleet_of_processes_never_meets_a_full_server(small):
    """
    Eight processes at once, two killed, all restarted beside the old ones: everything that they open is in the budget.
    """
    fleet = Fleet(small, small.dsn(user="fleet"), fleet_size=10, listen=True)
    before = fleet.refused()
    async with fleet.watched():
        await fleet.start(8)
        assert fleet.most >= 8
        await fleet.kill(fleet.instances[:2])
        await fleet.start(2)
        await fleet.replace_all(2)
        await fleet.stop()
    total = fleet.total()
    assert (fleet.refused() - before, fleet.late) == (0, 0)
    assert fleet.most <= MOST - 1, "its watcher has one"
    assert total.pop("ok") > 0
    assert not total, "statements failed"
    assert all(said["pool"]["connect_failures"] == 0 for said in fleet.said)
    assert all(max(said["sizes"]) <= 2 for said in fleet.said)


@pytest.mark.one_version
async def test_a_fleet_that_is_larger_than_expected_finds_its_size(small):
    """Who finds no room is let in a moment later: what is kept back lets it be seen, and the others shrink."""
    fleet = Fleet(small, small.dsn(user="fleet"), fleet_size=2, interval=0.2)
    async with fleet.watched():
        await fleet.start(6)
        assert fleet.late == 0
        con = await asyncpg.connect(small.dsn())
        sharing = "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ $1"
        # 57 less 1 other and 3 kept back, by six: 8 each, 2 of them beside the pool.
        await until(lambda: is_six(con, sharing), 40.0)
        await con.close()
        await fleet.stop()
    assert fleet.total()["ok"] > 0


async def is_six(con, sharing):
    return await con.fetchval(sharing, r"^fleet \(magnus [1-6]/30\+2\)$") == 6
