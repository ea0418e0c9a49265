"""The pool on a real PostgreSQL: kills, restarts, crowds, session state, transactions left open."""

from __future__ import annotations

import asyncio
import random
import time

import asyncpg
import pytest

from magnus._driver import PooledConnection, is_connection_lost
from magnus._effects import NO_RESET
from magnus.config import DatabaseConfig
from magnus.errors import PoolTimeout
from magnus.lanes import LANES, QueryPriority
from magnus.observe import ConnectFailed, ConnectRecovered
from magnus.pool import Pool
from magnus.pool._lease import EVERYTHING

CRITICAL, NORMAL = QueryPriority.CRITICAL, QueryPriority.NORMAL


class Open:
    """
    An open pool and a connection beside it; afterwards no connection and no task is left.
    """

    def __init__(self, dsn: str, **config) -> None:
        self.dsn = dsn
        self.events = []
        given = {"min_pool_size": 0, "max_pool_size": 4, "application_name": "pool under test"} | config
        self.pool = Pool(DatabaseConfig(dsn=dsn, **given), notify=self.events.append, is_checked=True)

    async def __aenter__(self):
        self.admin = await asyncpg.connect(self.dsn)
        await self.pool.open()
        return self

    async def __aexit__(self, *_exc):
        await self.pool.close(5.0)
        await self.admin.close()
        assert self.pool.snapshot().size == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def backends(self, what: str = "*") -> list[asyncpg.Record]:
        return await self.admin.fetch(f"SELECT {what} FROM pg_stat_activity WHERE application_name = 'pool under test'")

    async def lease(self, lane=CRITICAL, within=10.0):
        return await self.pool.acquire(lane, time.monotonic() + within)

    async def once(self, sql="SELECT 1", lane=CRITICAL):
        lease = await self.lease(lane)
        try:
            return await lease.con.fetchval(sql)
        finally:
            await self.pool.release(lease)


@pytest.fixture
async def bench(dsn):
    async with Open(dsn) as made:
        yield made


async def test_warm_connections_are_proven_idle_and_hold_nothing(bench):
    """No open transaction and no lock, although every type in use was introspected."""
    await bench.admin.execute(
        "CREATE TYPE mood AS ENUM ('calm', 'tense'); CREATE TYPE spot AS (x int, y mood);"
        "CREATE TABLE diary (feeling mood, places spot[])"
    )

    assert await bench.pool.warmup(4) == 4

    states = await bench.backends("state, pid")
    assert [row["state"] for row in states] == ["idle"] * 4
    pids = [row["pid"] for row in states]
    assert await bench.admin.fetchval("SELECT count(*) FROM pg_locks WHERE pid = ANY($1)", pids) == 0


async def test_the_first_query_on_a_warm_connection_asks_the_catalogue_nothing(bench, monkeypatch):
    """The types in use, arrays of them included, are known before the connection is served."""
    await bench.admin.execute("CREATE TYPE mood AS ENUM ('calm'); CREATE TABLE diary (feeling mood, feelings mood[])")
    await bench.admin.execute("INSERT INTO diary VALUES ('calm', '{calm}')")
    await bench.pool.warmup(1)
    asked = []
    monkeypatch.setattr(PooledConnection, "_introspect_types", lambda *_args: asked.append(_args))
    lease = await bench.lease()

    row = await lease.con.fetchrow("SELECT feeling, feelings FROM diary")

    assert dict(row) == {"feeling": "calm", "feelings": ["calm"]}
    assert asked == []
    await bench.pool.release(lease)


async def test_a_type_dropped_after_it_was_learned_does_not_stop_connects(bench):
    """The next connection asks again."""
    await bench.admin.execute("CREATE TYPE mood AS ENUM ('calm'); CREATE TABLE diary (feeling mood)")
    await bench.pool.warmup(1)
    await bench.admin.execute("DROP TABLE diary; DROP TYPE mood")

    assert await bench.pool.warmup(4) == 4
    assert await bench.once() == 1
    assert bench.events == []


@pytest.mark.one_version
async def test_killed_idle_connections_are_never_handed_out(bench):
    """The server's farewell has arrived: not one caller meets a dead connection."""
    for _ in range(5):
        await bench.pool.warmup(4)
        killed = await bench.backends("pg_terminate_backend(pid, 5000)")
        assert len(killed) == 4

        assert [await bench.once() for _ in range(4)] == [1] * 4


@pytest.mark.one_version
async def test_a_connection_killed_while_held_is_replaced(bench):
    """Its holder sees the error; its slot is free again after the release."""
    lease = await bench.lease()
    await bench.backends("pg_terminate_backend(pid, 5000)")

    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)) as caught:
        await lease.con.fetchval("SELECT 1")
    assert is_connection_lost(caught.value)
    await bench.pool.release(lease)

    assert await bench.once() == 1
    assert bench.pool.snapshot().acquired == 0


async def test_guards_hold_after_a_thousand_rounds(bench):
    """They are startup settings: no reset undoes them, no user's SET outlives its lease."""
    for turn in range(1000):
        lease = await bench.lease()
        if turn % 50 == 0:
            await lease.con.execute("SET statement_timeout = 7; SET application_name = 'somebody'")
        await bench.pool.release(lease)

    lease = await bench.lease()
    assert await lease.con.fetchval("SHOW statement_timeout") == "30s"
    assert await lease.con.fetchval("SHOW application_name") == "pool under test"
    assert await lease.con.fetchval("SHOW idle_in_transaction_session_timeout") == "1min"
    assert await lease.con.fetchval("SHOW client_connection_check_interval") == "500ms"
    await bench.pool.release(lease)


async def test_no_session_state_crosses_to_the_next_lease(dsn):
    """Role, session user, temporary table, advisory lock, parameter, cursor, listener, sequence, open transaction."""
    async with Open(dsn, max_pool_size=1) as bench:
        await bench.admin.execute("CREATE ROLE pool_other; CREATE SEQUENCE numbers")
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        lease = await bench.lease()
        pid = lease.con.get_server_pid()
        await lease.con.execute(
            "SET SESSION AUTHORIZATION pool_other; RESET SESSION AUTHORIZATION; SET ROLE pool_other; RESET ROLE;"
            "CREATE TEMP TABLE mine (a int); SELECT pg_advisory_lock(42); SET work_mem = '64kB'; LISTEN news;"
            "SELECT nextval('numbers'); SET SESSION AUTHORIZATION pool_other"
        )
        await lease.con.execute("BEGIN")
        await lease.con.execute("DECLARE c CURSOR WITH HOLD FOR SELECT 1")
        await bench.pool.release(lease)

        lease = await bench.lease()
        row = await lease.con.fetchrow(
            "SELECT current_user AS me, session_user AS login, to_regclass('pg_temp.mine') AS temp,"
            " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') AS locks,"
            " (SELECT count(*) FROM pg_cursors WHERE name = 'c') AS cursors,"
            " (SELECT count(*) FROM pg_listening_channels()) AS channels, current_setting('work_mem') AS work_mem"
        )
        with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError):
            await lease.con.fetchval("SELECT lastval()")

        assert lease.con.get_server_pid() == pid
        assert row["me"] == row["login"] != "pool_other"
        assert (row["temp"], row["locks"], row["cursors"], row["channels"]) == (None, 0, 0, 0)
        assert row["work_mem"] != "64kB"
        await bench.pool.release(lease)
        await bench.admin.execute("DROP ROLE pool_other")


async def test_statements_prepared_before_a_reset_go_on_working(dsn):
    """The driver's cache and the server agree."""
    async with Open(dsn, max_pool_size=1) as bench:
        assert [await bench.once("SELECT 41 + 1") for _ in range(3)] == [42] * 3


async def test_ddl_is_noticed_by_every_connection(dsn):
    """A changed result type: the first connection that meets it tells its siblings, outside a transaction unseen."""
    async with Open(dsn, max_pool_size=3) as bench:
        await bench.admin.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
        leases = [await bench.lease() for _ in range(3)]
        for lease in leases:
            await lease.con.fetchrow("SELECT * FROM t")
        await bench.admin.execute("ALTER TABLE t ADD COLUMN b text DEFAULT 'new'")

        assert dict(await leases[0].con.fetchrow("SELECT * FROM t")) == {"a": 1, "b": "new"}
        async with leases[1].con.transaction():
            assert dict(await leases[1].con.fetchrow("SELECT * FROM t")) == {"a": 1, "b": "new"}

        for lease in leases:
            await bench.pool.release(lease)


@pytest.mark.one_version
async def test_two_thousand_callers_share_ten_connections(dsn):
    """All are served, in every lane, and no slot is lost."""
    async with Open(dsn, max_pool_size=10) as bench:
        asked = [bench.once("SELECT 7", LANES[number % 5]) for number in range(2000)]

        assert await asyncio.gather(*asked) == [7] * 2000

        found = bench.pool.snapshot()
        assert sum(lane.acquired_total for lane in found.lanes) == 2000
        assert (found.acquired, found.waiting) == (0, 0)
        assert found.connects <= 10


@pytest.mark.one_version
async def test_the_server_stopped_and_started_again(dsn, server):
    """The pool says why, costs the server little, and recovers by itself."""
    async with Open(dsn, min_pool_size=2) as bench:
        await bench.pool.warmup(2)
        await bench.admin.close()
        await server.stop()
        with pytest.raises(PoolTimeout) as caught:
            await bench.lease(within=1.2)
        failures = bench.pool.snapshot().connect_failures

        await server.start()
        bench.admin = await asyncpg.connect(dsn)
        value = await bench.once()

        assert value == 1
        assert caught.value.phase == "connect"
        assert caught.value.__cause__.reason in {"unreachable", "starting"}
        assert 1 <= failures <= 8
        assert [type(event) for event in bench.events] == [ConnectFailed, ConnectRecovered]
        assert await bench.pool.warmup(2) == 2


async def test_a_wrong_password_is_named_and_not_told(tcp_dsn):
    """The reason is `credentials`; the password is in no text."""
    pool = Pool(DatabaseConfig(dsn=tcp_dsn, password="s3cret-and-wrong"), notify=[].append)
    await pool.open()

    assert await pool.warmup(1) == 0

    error = pool.last_connect_error
    assert error.reason == "credentials"
    assert "s3cret" not in f"{error} {error.__cause__}"
    await pool.close(1.0)


async def test_an_unknown_database_is_named(dsn):
    """The reason is `database`."""
    pool = Pool(DatabaseConfig(dsn=dsn.replace("/test_", "/missing_")), notify=[].append)
    await pool.open()

    assert await pool.warmup(1) == 0

    assert pool.last_connect_error.reason == "database"
    await pool.close(1.0)


@pytest.mark.one_version
async def test_connections_over_tcp_are_guarded(tcp_dsn):
    """Keepalive and the bound on unacknowledged data are on the real socket."""
    async with Open(tcp_dsn) as bench:
        lease = await bench.lease()
        sock = lease.con._transport.get_extra_info("socket")

        assert sock.getsockopt(1, 9) == 1  # SOL_SOCKET, SO_KEEPALIVE
        assert sock.getsockopt(6, 18) == 2000  # IPPROTO_TCP, TCP_USER_TIMEOUT
        await bench.pool.release(lease)


@pytest.mark.one_version
async def test_a_caller_cancelled_in_a_query_gives_back_a_working_connection(dsn):
    """The driver's cancel request is awaited by the reset, within its bound."""
    async with Open(dsn, max_pool_size=1) as bench:
        begun = asyncio.Event()

        async def slow():
            lease = await bench.lease()
            try:
                begun.set()
                await lease.con.execute("SELECT pg_sleep(60)")
            finally:
                await bench.pool.release(lease)

        task = asyncio.create_task(slow())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert await bench.once() == 1


@pytest.mark.one_version
async def test_a_release_cancelled_on_the_way_comes_back_clean(dsn):
    """The reset is finished in the background; the same connection serves the next caller."""
    async with Open(dsn, max_pool_size=1) as bench:
        lease = await bench.lease()
        await lease.con.execute("SET work_mem = '64kB'")
        releasing = asyncio.create_task(bench.pool.release(lease))
        await asyncio.sleep(0)
        releasing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await releasing

        assert await bench.once("SHOW work_mem") != "64kB"


@pytest.mark.one_version
async def test_expire_replaces_every_connection(bench):
    """Idle ones now, held ones when they come back."""
    await bench.pool.warmup(3)
    lease = await bench.lease()
    before = {row["pid"] for row in await bench.backends("pid")}

    bench.pool.expire()
    await bench.pool.release(lease)
    await bench.pool.warmup(3)

    after = {row["pid"] for row in await bench.backends("pid")}
    assert len(before) == 3
    assert len(after & before) == 0
    assert len(after) == 3


@pytest.mark.one_version
@pytest.mark.slow
async def test_random_work_cancels_and_kills_conserve_every_slot(dsn):
    """A seeded storm on a real server; every invariant is checked after every event."""
    chance = random.Random(20)
    errors = []
    async with Open(dsn, max_pool_size=6, min_pool_size=2, retry_delay=0.01) as bench:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))

        async def caller():
            for _ in range(20):
                lease = await bench.lease(chance.choice(LANES), within=60.0)
                try:
                    lease.reset = NO_RESET if chance.random() < 0.5 else EVERYTHING
                    await lease.con.fetchval("SELECT pg_sleep($1)", chance.choice([0.0, 0.0, 0.002]))
                finally:
                    await (bench.pool.discard(lease) if chance.random() < 0.05 else bench.pool.release(lease))

        callers = [asyncio.create_task(caller()) for _ in range(60)]
        for _ in range(40):
            await bench.backends("pg_terminate_backend(pid)" if chance.random() < 0.2 else "pid")
            chance.choice(callers).cancel()
        done = await asyncio.gather(*callers, return_exceptions=True)
        await bench.pool.warmup(6)

        found = bench.pool.snapshot()
        unexpected = [
            each for each in done
            if not isinstance(each, type(None) | asyncio.CancelledError | asyncpg.PostgresError
                              | asyncpg.InterfaceError | asyncpg.InternalClientError | OSError)
        ]  # fmt: skip
        assert unexpected == []
        assert (found.acquired, found.waiting, found.idle) == (0, 0, 6)
        assert [context for context in errors if "never retrieved" in context["message"]] == []
