from __future__ import annotations

import asyncio
import os
import signal

import asyncpg
import pytest

from magnus.embedded import ClusterError, throwaway
from magnus.testing import (
    brown_out,
    crash,
    frozen,
    kill,
    processes,
    promote,
    release_commits,
    require,
    restart_immediately,
    send,
    standby_name,
    standby_of,
    until_replayed,
)
from tests.servers import binaries_or_skip

BOUND = 30.0


@pytest.fixture(scope="module")
def own(pg_version):
    """
    A server that these tests may break.
    """
    with throwaway(binaries_or_skip(pg_version), max_connections=30) as cluster:
        yield cluster


def kinds(cluster) -> list[str]:
    return [process.kind for process in processes(cluster)]


async def is_answering(con, patience: float = 0.5) -> bool:
    try:
        async with asyncio.timeout(patience):
            await con.fetchval("SELECT 1")
    except TimeoutError:
        return False
    return True


async def test_processes_are_known_by_what_they_do(own):
    own.start_blocking()
    async with own.connect() as con:
        assert kinds(own)[0] == "postmaster"
        found = {process.pid: process.kind for process in processes(own)}
        assert found[await con.fetchval("SELECT pg_backend_pid()")] == "backend"
        assert {"checkpointer", "walwriter"} <= set(found.values())


@pytest.mark.one_version
async def test_a_frozen_server_says_nothing_and_goes_on_afterwards(own):
    own.start_blocking()
    async with own.connect() as con:
        with frozen(own) as pids:
            assert len(pids) == len(processes(own))
            asking = asyncio.create_task(con.fetchval("SELECT 1"))
            done, _ = await asyncio.wait([asking], timeout=0.3)
            assert not done
        async with asyncio.timeout(BOUND):
            assert await asking == 1


async def test_a_part_of_a_server_can_be_frozen(own):
    own.start_blocking()
    async with own.connect() as con:
        with frozen(own, "checkpointer") as pids:
            assert len(pids) == 1
            assert await is_answering(con, BOUND)


@pytest.mark.one_version
async def test_a_frozen_server_is_thawed_whatever_the_block_raises(own):
    own.start_blocking()

    def fail() -> None:
        with frozen(own):
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    async with own.connect() as con:
        assert await is_answering(con, BOUND)


@pytest.mark.one_version
async def test_a_brown_out_ends_by_itself(own):
    own.start_blocking()
    async with own.connect() as con, brown_out(own, 0.5):
        asking = asyncio.create_task(con.fetchval("SELECT 1"))
        done, _ = await asyncio.wait([asking], timeout=0.2)
        assert not done
        async with asyncio.timeout(BOUND):
            assert await asking == 1


@pytest.mark.one_version
async def test_a_fault_without_a_victim_is_an_error(own):
    own.start_blocking()
    with pytest.raises(ClusterError, match="walsender"):
        send(own, signal.SIGSTOP, "walsender")
    with pytest.raises(ClusterError, match="no backend"):
        await crash(own)


@pytest.mark.one_version
async def test_a_killed_server_is_gone_and_recovers_what_was_committed(own):
    own.start_blocking()
    async with own.connect() as con:
        await con.execute("CREATE TABLE kept (n int)")
        await con.execute("INSERT INTO kept VALUES (1)")
        postmaster = own.pid
        await kill(own)
        assert processes(own) == []
        with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
            await con.execute("SELECT 1")
    await own.start()
    assert own.pid != postmaster
    async with own.connect() as con:
        assert await con.fetchval("SELECT count(*) FROM kept") == 1
        await con.execute("DROP TABLE kept")


@pytest.mark.one_version
async def test_an_immediate_restart_ends_every_session(own):
    own.start_blocking()
    async with own.connect() as con:
        postmaster = own.pid
        assert await restart_immediately(own) > 0
        assert own.pid != postmaster
        with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
            await con.execute("SELECT 1")


@pytest.mark.one_version
async def test_the_death_of_one_backend_ends_all_sessions_and_not_the_server(own):
    own.start_blocking()
    async with own.connect() as con:
        postmaster, backend = own.pid, await con.fetchval("SELECT pg_backend_pid()")
        assert await crash(own) == backend
        with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
            await con.execute("SELECT pg_sleep(30)")
    assert own.pid == postmaster
    async with asyncio.timeout(BOUND):
        while not await _accepts(own):  # noqa: ASYNC110  # recovery tells nobody
            await asyncio.sleep(0.02)


async def _accepts(cluster) -> bool:
    try:
        async with cluster.connect():
            return True
    except (OSError, asyncpg.PostgresError):
        return False


async def test_a_standby_streams_and_is_forgotten_afterwards(own):
    own.start_blocking()
    async with own.connect() as con:
        await con.execute("CREATE TABLE IF NOT EXISTS streamed (n int)")
        async with standby_of(own) as standby:
            await con.execute("INSERT INTO streamed VALUES (1)")
            await until_replayed(own, standby)
            async with standby.connect() as other:
                assert await other.fetchval("SELECT count(*) FROM streamed") == 1
                assert await other.fetchval("SELECT pg_is_in_recovery()")
            assert "walsender" in kinds(own)
            assert "walreceiver" in kinds(standby)
            assert await con.fetchval("SELECT sync_state FROM pg_stat_replication") == "async"
            folder = standby.folder
        assert not folder.exists()
        assert await con.fetchval("SELECT count(*) FROM pg_replication_slots") == 0
        await con.execute("DROP TABLE streamed")


async def test_commit_waits_for_a_synchronous_standby_until_released(own):
    own.start_blocking()
    async with standby_of(own, is_synchronous=True) as standby, own.connect() as con, own.connect() as other:
        name = await standby_name(standby)
        assert await con.fetchval("SELECT sync_state FROM pg_stat_replication") == "sync"
        with frozen(own, "walsender"):
            commit = asyncio.create_task(con.execute("CREATE TABLE waited (n int)"))
            waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            async with asyncio.timeout(BOUND):
                while not await other.fetchval(waits):  # noqa: ASYNC110  # the server tells nobody
                    await asyncio.sleep(0.02)
            assert not commit.done()
            await release_commits(own)
            async with asyncio.timeout(BOUND):
                await commit
        await require(own, name)
        await con.execute("DROP TABLE waited")
    async with own.connect() as con:
        assert await con.fetchval("SHOW synchronous_standby_names") == ""


async def test_a_promoted_standby_takes_writes_on_a_new_timeline(own):
    own.start_blocking()
    async with standby_of(own) as standby:
        assert await promote(standby) > 0
        async with standby.connect() as con:
            await con.execute("CREATE TABLE fresh (n int)")
            await con.execute("CHECKPOINT")
            assert await con.fetchval("SELECT timeline_id FROM pg_control_checkpoint()") == 2
        async with own.connect() as con:
            assert await con.fetchval("SELECT to_regclass('fresh')") is None


@pytest.mark.one_version
async def test_signals_reach_only_the_cluster_they_are_meant_for(own, server):
    own.start_blocking()
    with frozen(own) as pids:
        assert not set(pids) & {process.pid for process in processes(server)}
        assert os.getpid() not in pids
        async with server.connect() as con:
            assert await is_answering(con, BOUND)
