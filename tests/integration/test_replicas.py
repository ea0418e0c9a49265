"""Reads on real streaming standbys: what was written is seen, whoever lags, is lost or is promoted."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI

from magnus import ConfigError, Database, DatabaseConfig, MagnusError, cached
from magnus.embedded import throwaway
from magnus.fastapi import ReadTokenMiddleware
from magnus.testing import frozen, kill, promote, standby_of, until_replayed
from tests.facade_fakes import until
from tests.servers import binaries_or_skip

READERS = 20
ROUNDS = 25


@pytest.fixture(scope="module")
def trio(pg_version, background_loop):
    """A primary, and two standbys of which one lags more."""

    async def enter(stack):
        primary = await stack.enter_async_context(throwaway(binaries_or_skip(pg_version)))
        async with primary.connect() as con:
            await con.execute("CREATE TABLE counter (id int PRIMARY KEY, value int)")
            await con.execute("INSERT INTO counter SELECT id, 0 FROM generate_series(0, 99) id")
        delays = ("20ms", "60ms")
        standbys = [
            await stack.enter_async_context(standby_of(primary, settings={"recovery_min_apply_delay": delay}))
            for delay in delays
        ]
        for standby in standbys:
            await until_replayed(primary, standby)
        return primary, standbys

    stack = AsyncExitStack()
    yield background_loop.run(enter(stack))
    background_loop.run(stack.aclose())


@asynccontextmanager
async def connected(primary, standbys, **settings):
    seen = []
    config = DatabaseConfig(dsn=primary.dsn(), min_pool_size=2, max_pool_size=10, slow_log="off", **settings)
    targets = [standby.dsn() for standby in standbys]
    async with Database(config, observers=[seen.append], replicas=targets) as db:
        db.seen = seen
        yield db


@pytest.fixture
async def db(trio):
    """Connected to all three."""
    async with connected(*trio) as found:
        yield found


def reads(db):
    return [member["reads"] for member in db.get_stats()["replicas"]["members"]]


IS_STANDBY = "SELECT pg_is_in_recovery()"


async def usable(db, count):
    async def is_so():
        return sum(member["usable"] for member in db.get_stats()["replicas"]["members"]) == count

    await until(is_so)


async def test_a_read_goes_to_a_standby_and_everything_else_to_the_primary(db):
    """Marked reads only, and transactions that are READ ONLY."""
    assert await db.fetchval(IS_STANDBY, read=True)
    assert not await db.fetchval(IS_STANDBY)
    with db.reads_after():
        async with db.transaction(readonly=True) as tx:
            assert await tx.fetchval(IS_STANDBY)
        assert await db.run_in_transaction(lambda tx: tx.fetchval(IS_STANDBY), readonly=True)
    async with db.transaction(readonly=True, isolation="serializable") as tx:
        assert not await tx.fetchval(IS_STANDBY)
    async with db.transaction() as tx:
        assert not await tx.fetchval(IS_STANDBY)
    async with db.acquire() as con:
        assert not await con.fetchval(IS_STANDBY)


async def test_inside_a_transaction_that_may_write_every_read_goes_to_the_primary(db):
    """Also one that goes by the database and not by the transaction, from a task that was begun inside, too."""
    async with db.transaction():
        assert not await db.fetchval(IS_STANDBY, read=True)
        assert not await asyncio.create_task(db.fetchval(IS_STANDBY, read=True))
    async with db.acquire() as con, con.transaction():
        assert not await db.fetchval(IS_STANDBY, read=True)
    with db.reads_after():
        async with db.transaction(readonly=True):
            assert await db.fetchval(IS_STANDBY, read=True)


@pytest.mark.one_version
async def test_a_primary_among_the_replicas_is_passed_over(trio):
    """So a service may name all members, whatever they are at the moment."""
    primary, standbys = trio
    async with connected(primary, [primary, *standbys]) as db:
        await usable(db, 2)
        with db.reads_after():
            for _ in range(20):
                assert await db.fetchval(IS_STANDBY, read=True)
        assert reads(db)[0] == 0
        assert [event.name for event in db.seen].count("database_replica_ready") == 2


async def test_what_was_written_is_seen_by_the_next_read(db):
    """By statements, transactions and leases; each reader's own, over two standbys that lag."""

    async def reader(number):
        with db.reads_after(f"account:{number}"):
            for value in range(1, ROUNDS + 1):
                change = "UPDATE counter SET value = $2 WHERE id = $1"
                if value % 3 == 0:
                    await db.execute(change, number, value)
                elif value % 3 == 1:
                    async with db.transaction() as tx:
                        await tx.execute(change, number, value)
                else:
                    async with db.acquire() as con:
                        await con.execute(change, number, value)
                found = await db.fetchval("SELECT value FROM counter WHERE id = $1", number, read=True)
                assert found == value

    await asyncio.gather(*(reader(number) for number in range(READERS)))
    assert sum(reads(db)) > 0


async def test_what_a_lease_wrote_is_seen_while_it_is_held(db):
    """By reads that go by the database; and after a read-only transaction on it too."""
    async with db.acquire() as con:
        for value in range(300, 310):
            await con.execute("UPDATE counter SET value = $1 WHERE id = 95", value)
            assert await db.fetchval("SELECT value FROM counter WHERE id = 95", read=True) == value
    with db.reads_after():
        async with db.acquire() as con:
            await con.execute("UPDATE counter SET value = 1 WHERE id = 95")
            async with con.transaction(readonly=True):
                await con.fetchval("SELECT 1")
        assert await db.fetchval("SELECT value FROM counter WHERE id = 95", read=True) == 1


@pytest.mark.one_version
async def test_without_a_scope_a_read_sees_all_that_this_process_wrote(db):
    """Whichever task wrote it."""
    for value in range(100, 110):
        await asyncio.create_task(db.execute("UPDATE counter SET value = $1 WHERE id = 99", value))
        assert await db.fetchval("SELECT value FROM counter WHERE id = 99", read=True) == value


async def test_a_token_carries_it_to_another_process(trio, db):
    """What the other one is shown it must see; what is no token is ignored."""
    async with connected(*trio) as other:
        for value in range(200, 210):
            with db.reads_after():
                await db.execute("UPDATE counter SET value = $1 WHERE id = 98", value)
                token = await db.read_token()
            with other.reads_after(token=token):
                assert await other.fetchval("SELECT value FROM counter WHERE id = 98", read=True) == value
    with db.reads_after(token="nonsense"):
        assert await db.read_token() is None
        assert await db.fetchval(IS_STANDBY, read=True)


@pytest.mark.one_version
async def test_what_is_written_in_a_scope_is_seen_by_those_around_it_and_by_those_without_one(trio):
    """Scopes nest, by key or without one."""
    change, look = "UPDATE counter SET value = $1 WHERE id = 94", "SELECT value FROM counter WHERE id = 94"
    async with connected(*trio) as db:
        for value in range(400, 405):
            with db.reads_after():
                with db.reads_after("account:94"):
                    await db.execute(change, value)
                assert await db.fetchval(look, read=True) == value
            with db.reads_after("account:94"):
                await db.execute(change, value + 100)
            assert await db.fetchval(look, read=True) == value + 100
        with db.reads_after():
            await db.execute(change, 7)
            with db.reads_after("account:93"):
                assert await db.fetchval(look, read=True) == 7
        assert sum(reads(db)) > 0


@pytest.mark.one_version
async def test_a_key_that_may_have_been_forgotten_sees_what_was_written_under_it(trio, monkeypatch):
    """Of many keys the oldest are let go."""
    monkeypatch.setattr("magnus.replicas._KEYS", 1)
    async with connected(*trio) as db:
        for value in range(500, 505):
            with db.reads_after("a"):
                await db.execute("UPDATE counter SET value = $1 WHERE id = 92", value)
            with db.reads_after("b"):
                pass
            with db.reads_after("a"):
                assert await db.fetchval("SELECT value FROM counter WHERE id = 92", read=True) == value


@pytest.mark.one_version
async def test_what_is_no_token_is_told_once_and_what_was_made_up_waits_for_nobody(db):
    """A place that nobody wrote: the primary answers at once, and with it comes a token that is one."""
    for _ in range(3):
        with db.reads_after(token="'; --"):
            assert await db.fetchval(IS_STANDBY, read=True)
    assert [event.count for event in db.seen if event.name == "database_read_token_ignored"] == [1]
    assert db.get_stats()["replicas"]["ignored_tokens"] == 3
    for token in ("1-ffffffffffffffff", "0-0", "ffffffff-0"):
        with db.reads_after(token=token):
            assert not await db.fetchval(IS_STANDBY, read=True)
            found = await db.read_token()
        if not token.startswith("1"):
            with db.reads_after(token=found):
                assert await db.fetchval(IS_STANDBY, read=True)
    assert db.get_stats()["replicas"]["waits"] <= 2  # for the tokens that are some


def service(db):
    """A counter over HTTP."""
    app = FastAPI()

    @app.post("/{value}")
    async def write(value: int) -> None:
        await db.execute("UPDATE counter SET value = $1 WHERE id = 91", value)

    @app.get("/")
    async def read() -> list[int | bool]:
        found = await db.fetchrow(f"SELECT value, ({IS_STANDBY}) FROM counter WHERE id = 91", read=True)
        return list(found)

    async def database(_scope):
        return db

    app.add_middleware(ReadTokenMiddleware, cookie=True, database=database)
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://test")


@pytest.mark.one_version
@pytest.mark.parametrize("way", ["header", "cookie"])
async def test_a_token_goes_with_the_response_and_comes_with_the_next_request(trio, db, way):
    """To another process, over standbys that lag; without it that one need not see the write."""
    async with connected(*trio) as elsewhere, service(db) as one, service(elsewhere) as other:
        for value in range(600, 610):
            written = await one.post(f"/{value}")
            token = written.headers["Magnus-Read-Token"]
            assert written.headers["Set-Cookie"].startswith(f"magnus_read_token={token}; Path=/; Max-Age=11; HttpOnly")
            carried = {"Magnus-Read-Token": token} if way == "header" else {"Cookie": f"a=b; magnus_read_token={token}"}
            other.cookies.clear()
            found = await other.get("/", headers=carried)
            assert found.json()[0] == value
            assert "Magnus-Read-Token" not in found.headers
        assert sum(reads(elsewhere)) > 0
        unread = await other.get("/", headers={"Magnus-Read-Token": "no token"})
        assert unread.json()[1]


@pytest.mark.one_version
async def test_a_response_whose_token_nobody_knows_sends_the_next_request_to_the_primary(db, monkeypatch):
    """The write is done, and its response is not lost."""

    async def silent():
        raise TimeoutError

    async with service(db) as one:
        with monkeypatch.context() as patch:
            patch.setattr(db._replicas, "ask", silent)
            written = await one.post("/700")
        assert written.status_code == 200
        assert written.headers["Magnus-Read-Token"] == "0-0"
        found = await one.get("/", headers={"Magnus-Read-Token": "0-0"})
        assert found.json() == [700, False]
        assert found.headers["Magnus-Read-Token"] != "0-0"


@pytest.mark.one_version
async def test_who_wrote_nothing_does_not_wait(db):
    """In a scope of its own."""
    await db.execute("UPDATE counter SET value = 1 WHERE id = 97")
    before = db.get_stats()["replicas"]["waits"]
    with db.reads_after():
        assert await db.fetchval(IS_STANDBY, read=True)
    assert db.get_stats()["replicas"]["waits"] == before


async def test_a_standby_that_is_too_far_behind_is_not_waited_for_beyond_the_bound(trio):
    """Then the primary answers."""
    async with connected(*trio, replica_wait=0.001) as db:
        with db.reads_after():
            await db.execute("UPDATE counter SET value = 7 WHERE id = 96")
            assert await db.fetchval("SELECT value FROM counter WHERE id = 96", read=True) == 7
        assert db.get_stats()["replicas"]["primary_reads"] == 1


async def test_what_the_standby_refuses_the_primary_answers_and_a_wrong_value_nobody(db):
    """A temporary or unlogged table exists there only by name."""
    await db.execute("CREATE UNLOGGED TABLE IF NOT EXISTS unlogged (a int)")
    with db.reads_after():
        assert await db.fetchval("SELECT count(*) FROM unlogged", read=True) == 0
        with pytest.raises(asyncpg.DivisionByZeroError):
            await db.fetchval("SELECT 1 / $1::int", 0, read=True)


async def test_a_standby_that_stands_still_is_passed_over_within_its_callers_deadlines(trio, db):
    """Reads under way there are asked of another server; when it goes on it is used again."""
    with frozen(trio[1][0]), db.reads_after():
        answers = await asyncio.gather(*(db.fetchval("SELECT 1", read=True, timeout=5.0) for _ in range(50)))
        assert answers == [1] * 50
        await usable(db, 1)
    await usable(db, 2)
    lost = [event.reason for event in db.seen if event.name == "database_replica_lost"]
    assert lost == ["TimeoutError"]


async def test_a_promotion_in_the_middle_leaves_no_read_stale_and_none_unanswered(pg_version):
    """The primary stops, one standby takes over; the other one, which follows the old timeline, is not asked."""
    async with AsyncExitStack() as stack:
        primary = await stack.enter_async_context(throwaway(binaries_or_skip(pg_version)))
        async with primary.connect() as con:
            await con.execute("CREATE TABLE counter (id int PRIMARY KEY, value int)")
            await con.execute("INSERT INTO counter SELECT id, 0 FROM generate_series(0, 99) id")
        first = await stack.enter_async_context(standby_of(primary, is_synchronous=True))
        second = await stack.enter_async_context(standby_of(primary))
        await until_replayed(primary, first)
        await until_replayed(primary, second)
        hosts = f"host={primary.socket_folder},{first.socket_folder} port={primary.port},{first.port} user=postgres"
        config = DatabaseConfig(
            dsn=f"{hosts} dbname=postgres", min_pool_size=2, max_pool_size=10, slow_log="off", health_check_interval=0.2
        )
        db = await stack.enter_async_context(Database(config, replicas=[first.dsn(), second.dsn()]))
        is_over, is_promoted = False, asyncio.Event()
        rounds = [0] * READERS

        async def reader(number):
            value = 0
            with db.reads_after(f"account:{number}"):
                while not is_over:
                    value += 1
                    try:
                        await db.execute("UPDATE counter SET value = $2 WHERE id = $1", number, value, timeout=2.0)
                    except (asyncpg.PostgresError, asyncpg.InterfaceError, MagnusError, OSError):
                        value -= 1
                        continue  # not acknowledged: the next one has the same value
                    found = await db.fetchval("SELECT value FROM counter WHERE id = $1", number, read=True, timeout=20)
                    assert found >= value
                    rounds[number] += 1

        async def fail_over():
            await asyncio.sleep(0)
            await until_rounds(3)
            await kill(primary)
            await promote(first)
            async with first.connect() as con:
                await con.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
                await con.execute("SELECT pg_reload_conf()")
            is_promoted.set()
            await until_rounds(min(rounds) + 3)

        async def until_rounds(count):
            async def is_so():
                return min(rounds) >= count

            await until(is_so, 40.0)

        readers = [asyncio.create_task(reader(number)) for number in range(READERS)]
        failing = asyncio.create_task(fail_over())
        done, _ = await asyncio.wait({failing, *readers}, return_when=asyncio.FIRST_COMPLETED)
        is_over = True
        await asyncio.gather(failing, *readers) if failing in done else await next(iter(done))
        assert is_promoted.is_set()


async def test_what_decides_about_rights_is_read_on_the_primary_whatever_scopes_are_within(db):
    """And what is written there is seen by the next read outside, which may go to a standby again."""
    with db.reads_after():
        with db.reads_on_primary():
            assert not await db.fetchval(IS_STANDBY, read=True)
            assert not await asyncio.create_task(db.fetchval(IS_STANDBY, read=True))
            async with db.transaction(readonly=True) as tx:
                assert not await tx.fetchval(IS_STANDBY)
            with db.reads_after("account:90", token=await db.read_token()):
                assert not await db.fetchval(IS_STANDBY, read=True)
                await db.execute("UPDATE counter SET value = 5 WHERE id = 90")
                assert not await db.fetchval(IS_STANDBY, read=True)
        assert await db.fetchval("SELECT value FROM counter WHERE id = 90", read=True) == 5
    with db.reads_after():
        assert await db.fetchval(IS_STANDBY, read=True)


async def test_a_token_that_only_the_primary_may_answer_holds_within_other_scopes(db):
    """Somebody wrote and could not say where: no place that an inner scope must see stands for that."""
    with db.reads_after("account:89"):
        await db.execute("UPDATE counter SET value = 1 WHERE id = 89")
        assert await db.fetchval("SELECT value FROM counter WHERE id = 89", read=True) == 1
    with db.reads_after(token="0-0"), db.reads_after("account:89"):
        assert not await db.fetchval(IS_STANDBY, read=True)


@pytest.mark.one_version
async def test_what_is_kept_for_others_is_read_from_the_primary(db):
    """A standby's answer would be kept past the change that it had not seen yet."""

    @cached(ttl=60.0, tags=["counter"])
    async def origin(database: Database) -> bool:
        return await database.fetchval(IS_STANDBY, read=True)

    with db.reads_after():
        assert not await origin(db)
        assert await db.fetchval(IS_STANDBY, read=True)


def test_replicas_come_from_the_environment():
    """As a JSON list; what is in it is shown to nobody."""
    found = DatabaseConfig.from_environ({"MAGNUS_REPLICAS": '["postgresql://a@b/d", "postgresql://a@c/d"]'})
    assert found.replicas == ("postgresql://a@b/d", "postgresql://a@c/d")
    for text in ("postgresql://a:secret@b/d", '{"a": "secret"}', '["postgresql://a:secret@b,c/d"]', "[5]"):
        with pytest.raises(ConfigError, match="MAGNUS_REPLICAS") as caught:
            DatabaseConfig.from_environ({"MAGNUS_REPLICAS": text})
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("hosts", ["postgresql://a@b,c/d", "", "postgresql:///d"])
def test_a_replica_is_one_host(hosts):
    """What is known of one holds for no other."""
    with pytest.raises(ConfigError, match="one host"):
        DatabaseConfig(replicas=(hosts,))


def test_replicas_and_a_pooler_do_not_go_together():
    """Which standby answers would be the pooler's choice."""
    with pytest.raises(ConfigError, match="replicas"):
        DatabaseConfig(pooler="transaction", replicas=("postgresql://a@b/c",))
