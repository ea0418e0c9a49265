"""Servers that are a standby, full, or away: where connections go, what is repeated, and what is said of it."""

import asyncio
import socket

import asyncpg
import pytest

from magnus import ConnectError, Database, DatabaseConfig, health
from magnus.embedded import throwaway
from tests.facade_fakes import until
from tests.servers import binaries_or_skip


@pytest.fixture
async def standby(pg_version):
    """A server of one's own that has been made a standby, with a table `t`."""
    cluster = throwaway(binaries_or_skip(pg_version))
    await cluster.start()
    try:
        con = await asyncpg.connect(cluster.dsn())
        await con.execute("CREATE TABLE t (a int)")
        await con.close()
        await cluster.stop()
        (cluster.data / "standby.signal").touch()
        await cluster.start()
        yield cluster
    finally:
        await cluster.discard()


def both(standby, server, attributes=""):
    """A connection string with two hosts, the standby first."""
    hosts, ports = zip(*((each.socket_folder, each.port) for each in (standby, server)), strict=True)
    named = f"host={','.join(map(str, hosts))} port={','.join(map(str, ports))}"
    return f"{named} user=postgres dbname=postgres {attributes}"


async def test_of_several_hosts_the_one_that_takes_writes_serves(standby, server):
    """Whatever the order; a standby when that is asked for. The control connection goes the same way."""
    for attributes, is_standby in (("", False), ("target_session_attrs=standby", True)):
        config = DatabaseConfig(dsn=both(standby, server, attributes), min_pool_size=2, max_pool_size=2)
        async with Database(config) as db:
            assert await db.fetchval("SELECT pg_is_in_recovery()") is is_standby
            assert db.health.is_ok


async def test_without_a_primary_the_reason_is_read_only(standby):
    """At the start, in the event, in readiness: not "down"."""
    seen = []
    config = DatabaseConfig(dsn=both(standby, standby), min_pool_size=1)
    with pytest.raises(ConnectError) as caught:
        await Database(config).connect()
    assert caught.value.reason == "read_only"
    db = Database(config, observers=[seen.append])
    await db.connect(wait=False)
    report = health.readiness(db, now=0.0)
    await until(lambda: is_told(seen, "database_connect_failed"))
    await db.close()

    assert (report.reason, report.cause) == ("database_check_failed", "read_only")
    assert {event.reason for event in seen if hasattr(event, "reason")} == {"read_only"}


async def test_a_write_that_meets_a_standby_is_repeated_until_it_is_the_primary(standby):
    """25006 is no answer to the caller: connections are replaced, and the server is promoted meanwhile."""
    seen, promoting = [], []

    def promote(event):
        seen.append(event.name)
        if event.name == "database_standby_evicted":
            promoting.append(asyncio.create_task(run("SELECT pg_promote()")))

    async def run(sql):
        con = await asyncpg.connect(standby.dsn())
        await con.execute(sql)
        await con.close()

    config = DatabaseConfig(dsn=standby.dsn(), min_pool_size=1, max_pool_size=2, max_retries=20, retry_delay=1.0)
    async with Database(config, observers=[promote]) as db:
        assert await db.fetchval("SELECT pg_is_in_recovery()", read=True) is True
        assert await db.execute("INSERT INTO t VALUES (1)") == "INSERT 0 1"

        async def book(tx):
            await tx.execute("INSERT INTO t VALUES (2)")

        await db.run_in_transaction(book)
        assert await db.fetchval("SELECT count(*) FROM t", read=True) == 2
    await asyncio.gather(*promoting)
    assert "database_retry" in seen


@pytest.mark.one_version
async def test_a_restart_loses_no_read_and_no_unit_in_a_transaction(pg_version):
    """Ten workers while the server is stopped and started: every read and every function ends well, one row each."""
    cluster = throwaway(binaries_or_skip(pg_version))
    await cluster.start()
    seen = []
    config = DatabaseConfig(dsn=cluster.dsn(), min_pool_size=4, max_pool_size=4)
    try:
        async with Database(config, observers=[seen.append]) as db:
            await db.execute("CREATE TABLE t (a int PRIMARY KEY)")
            down = asyncio.Event()

            async def work(number):
                async def book(tx):
                    await tx.execute("INSERT INTO t VALUES ($1)", number)

                assert await db.fetchval("SELECT 1", read=True) == 1
                await down.wait()
                assert await db.fetchval("SELECT 1", read=True) == 1
                await db.run_in_transaction(book)

            tasks = [asyncio.create_task(work(number)) for number in range(10)]
            await cluster.stop()
            down.set()
            await until(lambda: is_told(seen, "database_connect_failed"))
            await cluster.start()
            await asyncio.gather(*tasks)
            assert await db.fetchval("SELECT count(*) FROM t", read=True) == 10
    finally:
        await cluster.discard()
    told = {event.reason for event in seen if event.name in {"database_connect_failed", "database_health_check_failed"}}
    assert told <= {"unreachable", "starting"}


@pytest.mark.one_version
async def test_sockets_are_guarded(tcp_dsn):
    """Keepalive and the bound on unacknowledged data are set on every connection, the control connection's too."""
    async with Database(DatabaseConfig(dsn=tcp_dsn, min_pool_size=1)) as db, db.acquire() as con:
        for raw in (con._execution.raw, db._control._con):
            sock = raw._transport.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2000
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 1
        assert await con.fetchval("SHOW client_connection_check_interval") == "500ms"


async def is_told(seen, name):
    return any(event.name == name for event in seen)
