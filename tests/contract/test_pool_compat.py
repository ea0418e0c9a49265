"""One set of cases for two pools, asyncpg's own and `magnus.create_pool`: what holds for the first holds for ours.

The cases at the end are of ours alone: there it differs on purpose, as docs/switch-from-asyncpg.md says.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import json

import asyncpg
import pytest

import magnus

pytestmark = pytest.mark.one_version

MAKERS = {"asyncpg": asyncpg.create_pool, "magnus": magnus.create_pool}
FLOOR = tuple(map(int, asyncpg.__version__.split(".")[:2])) >= (0, 32)


@pytest.fixture(params=MAKERS)
def make(request, dsn):
    """Make a pool of two connections on the test's database, with the function under test."""

    def made(**options):
        given = {"dsn": dsn, "min_size": 1, "max_size": 2} | options
        return MAKERS[request.param](**given)

    return made


@pytest.fixture
def mended(request):
    """Skip asyncpg's own pool where its version still gets this wrong."""
    if not FLOOR and request.node.callspec.params["make"] == "asyncpg":
        pytest.skip("mended in asyncpg 0.32")


@pytest.fixture
async def pool(make):
    async with make() as found:
        yield found


@pytest.fixture
async def admin(dsn):
    con = await asyncpg.connect(dsn)
    yield con
    await con.close()


async def settle(condition):
    """Yield to the loop until something has happened that it is about to do; fail after ten seconds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # the pool sends no event
            await asyncio.sleep(0.005)


async def turns():
    """Let everything that is ready run."""
    for _ in range(20):
        await asyncio.sleep(0)


async def all_gone(admin):
    """Wait until the server has no session of the name "leaver"; fail after ten seconds."""
    async with asyncio.timeout(10):
        asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'leaver'"
        while await admin.fetchval(asked):  # noqa: ASYNC110  # the server sends no event
            await asyncio.sleep(0.01)


async def kill(admin, pid):
    assert await admin.fetchval("SELECT pg_terminate_backend($1, 5000)", pid)


# --- making one


async def test_awaiting_gives_the_pool_itself(make):
    """`pool = await create_pool(…)`."""
    made = make()
    assert await made is made
    assert await made is made
    await made.close()


async def test_entering_gives_the_pool_and_leaving_closes_it(make):
    """`async with create_pool(…) as pool`."""
    made = make()
    async with made as entered:
        assert entered is made
        assert not made.is_closing()
    assert made.is_closing()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_size": 0}, "max_size is expected to be greater than zero"),
        ({"min_size": -1}, "min_size is expected to be greater or equal to zero"),
        ({"min_size": 3}, "min_size is greater than max_size"),
        ({"max_queries": 0}, "max_queries is expected to be greater than zero"),
        (
            {"max_inactive_connection_lifetime": -1},
            "max_inactive_connection_lifetime is expected to be greater or equal",
        ),
        *(
            [
                ({"init_size": -1}, "init_size is expected to be greater or equal to zero"),
                ({"init_size": 3}, "init_size is greater than max_size"),
                ({"init_size": 0}, "init_size is smaller than min_size"),
            ]
            if FLOOR
            else []
        ),
    ],
)
async def test_impossible_numbers_are_refused_when_it_is_made(make, options, message):
    """ValueError, in the same words."""
    with pytest.raises(ValueError, match=message):
        make(**options)


@pytest.mark.parametrize("option", ["connection_class", "record_class"])
async def test_foreign_classes_are_refused_when_it_is_made(make, option):
    """TypeError, in the same words."""
    with pytest.raises(TypeError, match=f"{option} is expected to be a subclass of asyncpg"):
        make(**{option: dict})


async def test_nothing_works_before_it_is_initialized(make):
    """Not even the end."""
    made = make()
    for call in (made.acquire, made.close, lambda: made.fetch("SELECT 1")):
        with pytest.raises(asyncpg.InterfaceError, match="pool is not initialized"):
            await call()
    with pytest.raises(asyncpg.InterfaceError, match="pool is not initialized"):
        made.terminate()
    assert made.get_size() == made.get_idle_size() == 0


async def test_use_while_it_is_being_initialized_is_named_as_that(make):
    """The race of a service that starts."""
    entered, gate = asyncio.Event(), asyncio.Event()

    async def init(_con):
        entered.set()
        await gate.wait()

    made = make(init=init)
    start = asyncio.ensure_future(made.__aenter__())
    await entered.wait()
    with pytest.raises(asyncpg.InterfaceError, match="pool is being initialized, but not yet ready"):
        await made.fetch("SELECT 1")
    with pytest.raises(asyncpg.InterfaceError, match="pool is being initialized in another task"):
        await made
    gate.set()
    await start
    await made.close()


async def test_min_size_is_open_when_it_is_ready(make):
    """And idle."""
    async with make(min_size=3, max_size=5) as made:
        assert (made.get_size(), made.get_idle_size()) == (3, 3)
        assert (made.get_min_size(), made.get_max_size()) == (3, 5)


@pytest.mark.skipif(not FLOOR, reason="this driver has no init_size")
async def test_init_size_is_open_when_it_is_ready(make):
    """Above the floor."""
    async with make(min_size=1, init_size=3, max_size=5) as made:
        assert made.get_size() == 3
        assert (made.get_init_size(), made.get_min_size()) == (3, 1)


async def test_a_pool_without_floor_opens_nothing(make):
    """Until it is asked."""
    async with make(min_size=0) as made:
        assert made.get_size() == 0
        assert await made.fetchval("SELECT 1") == 1
        assert made.get_size() == 1


@pytest.mark.usefixtures("mended")
async def test_a_server_that_is_not_there_is_the_drivers_error(make, tmp_path):
    """Raised by the start, which leaves a closed pool."""
    made = make(dsn=None, host=str(tmp_path), user="nobody", database="none")
    with pytest.raises(OSError):  # noqa: PT011  # which one depends on the socket
        await made
    with pytest.raises(asyncpg.InterfaceError, match="pool is closed"):
        await made.fetch("SELECT 1")


async def test_a_database_that_is_not_there_is_the_servers_error(make):
    """With its SQLSTATE, not wrapped."""
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await make(database="no_such_database")


async def test_a_failed_connect_is_raised_by_the_caller_who_waits_for_it(make):
    """Also long after the start."""
    async with make(min_size=0) as made:
        made.set_connect_args(database="no_such_database", host="/nowhere")
        with pytest.raises(OSError):  # noqa: PT011  # which one depends on the socket
            await made.acquire()


async def test_a_failed_connect_is_raised_by_each_of_many_callers(make):
    """Nobody hangs."""
    async with make(min_size=0, max_size=3) as made:
        made.set_connect_args(host="/nowhere", user="nobody", database="none")
        async with asyncio.timeout(20):
            found = await asyncio.gather(*(made.fetch("SELECT 1") for _ in range(8)), return_exceptions=True)
        assert all(isinstance(error, OSError) for error in found)


async def test_an_unknown_argument_is_the_drivers_error(make):
    """TypeError from `connect`."""
    with pytest.raises(TypeError, match="no_such_argument"):
        await make(no_such_argument=1)


async def test_the_settings_of_a_connection_go_to_the_driver(make):
    """server_settings, command_timeout, statement_cache_size."""
    async with make(server_settings={"application_name": "mine"}, command_timeout=0.2, statement_cache_size=0) as made:
        assert await made.fetchval("SHOW application_name") == "mine"
        with pytest.raises(TimeoutError):
            await made.fetch("SELECT pg_sleep(5)")


async def test_several_hosts_are_tried_in_turn(make, server, database, tmp_path):
    """A multi-host DSN."""
    own = server.dsn(database=database)
    socket = own.split("host=")[1].split("&")[0]
    async with make(dsn=own.replace(f"host={socket}", f"host={tmp_path},{socket}")) as made:
        assert await made.fetchval("SELECT current_database()") == database


async def test_a_password_comes_from_a_passfile(make, server, database, tcp_dsn, tmp_path):
    """`passfile=`."""
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(tcp_dsn)
    passfile = tmp_path / "pass"
    passfile.write_text(f"*:*:*:*:{unquote(parts.password)}\n")
    passfile.chmod(0o600)
    async with make(
        dsn=None, host=parts.hostname, port=parts.port, user=parts.username, database=database, passfile=str(passfile)
    ) as made:
        assert await made.fetchval("SELECT 1") == 1


async def test_ssl_that_the_server_does_not_speak_is_an_error(make, tcp_dsn):
    """`ssl="require"` is not forgotten on the way."""
    with pytest.raises(ConnectionError, match="SSL"):
        await make(dsn=tcp_dsn, ssl="require")


# --- connect, init, setup, reset


async def test_init_is_called_once_for_each_connection(make):
    """With the bare connection."""
    seen = []

    async def init(con):
        seen.append(type(con))

    async with make(min_size=2, init=init) as made:
        for _ in range(5):
            await made.fetch("SELECT 1")
    assert seen == [asyncpg.Connection] * 2


async def test_codecs_of_init_last(make):
    """A release does not undo them."""

    async def init(con):
        await con.set_type_codec("json", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")

    async with make(max_size=1, init=init) as made:
        for _ in range(3):
            assert await made.fetchval("SELECT $1::json", {"a": 1}) == {"a": 1}


async def test_an_init_that_fails_fails_the_start(make):
    """With its own error."""

    async def init(_con):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        await make(init=init)


async def test_an_init_that_fails_later_fails_the_caller(make):
    """And the next one is served when it works again."""
    failures = [ZeroDivisionError("mine")]

    async def init(_con):
        if failures:
            raise failures.pop()

    async with make(min_size=0, init=init) as made:
        with pytest.raises(ZeroDivisionError, match="mine"):
            await made.acquire()
        assert await made.fetchval("SELECT 1") == 1


@pytest.mark.usefixtures("mended")
async def test_an_init_that_closes_the_connection_is_noticed(make):
    """It is no connection then."""

    async def init(con):
        await con.close()

    with pytest.raises(asyncpg.ConnectionDoesNotExistError, match="closed during pool initialization"):
        await make(init=init)


async def test_what_init_sets_in_the_session_is_reset(make):
    """RESET ALL undoes it at the first release."""

    async def init(con):
        await con.execute("SET work_mem = '1234kB'")

    async with make(max_size=1, init=init) as made:
        assert [await made.fetchval("SHOW work_mem") for _ in range(2)] == ["1234kB", "4MB"]


async def test_setup_is_called_at_every_acquire(make):
    """With what the caller gets."""
    seen = []

    async def setup(con):
        seen.append(con)
        await con.execute("SET work_mem = '1234kB'")

    async with make(max_size=1, setup=setup) as made:
        for _ in range(2):
            async with made.acquire() as con:
                assert seen[-1] is con
                assert await con.fetchval("SHOW work_mem") == "1234kB"
    assert len(seen) == 2


async def test_a_setup_that_fails_fails_the_caller_and_closes_the_connection(make):
    """The next one gets another."""
    failures, pids = [ZeroDivisionError("mine")], []

    async def setup(con):
        pids.append(con.get_server_pid())
        if failures:
            raise failures.pop()

    async with make(max_size=1, setup=setup) as made:
        with pytest.raises(ZeroDivisionError, match="mine"):
            await made.acquire()
        assert await made.fetchval("SELECT 1") == 1
    assert pids[0] != pids[1]


async def test_a_setup_that_takes_too_long_is_covered_by_the_timeout(make):
    """And its slot comes back."""
    gates = [asyncio.Event()]

    async def setup(_con):
        if gates:
            await gates.pop().wait()

    async with make(max_size=1, setup=setup) as made:
        with pytest.raises(TimeoutError):
            await made.acquire(timeout=0.1)
        assert await made.fetchval("SELECT 1") == 1


async def test_reset_takes_the_place_of_the_reset_query(make):
    """It is called with the bare connection; a transaction is rolled back before."""
    seen = []

    async def reset(con):
        seen.append((type(con), con.is_in_transaction()))

    async with make(max_size=1, reset=reset) as made:
        async with made.acquire() as con:
            await con.execute("SET work_mem = '1234kB'")
        assert await made.fetchval("SHOW work_mem") == "1234kB"
    assert seen == [(asyncpg.Connection, False)] * 2


async def test_a_reset_that_fails_is_raised_and_ends_the_connection(make):
    """The slot is free."""
    failures = [ZeroDivisionError("mine")]

    async def reset(_con):
        if failures:
            raise failures.pop()

    async with make(max_size=1, reset=reset) as made:
        con = await made.acquire()
        first = con.get_server_pid()
        with pytest.raises(ZeroDivisionError, match="mine"):
            await made.release(con)
        assert await made.fetchval("SELECT pg_backend_pid()") != first


async def test_a_reset_that_takes_longer_than_the_timeout_is_cut_off(make):
    """The timeout of `release`, or, without one, that of `acquire`."""

    async def reset(_con):
        await asyncio.Event().wait()

    async with make(min_size=0, max_size=1, reset=reset) as made:
        con = await made.acquire()
        with pytest.raises(TimeoutError):
            await made.release(con, timeout=0.05)
        con = await made.acquire(timeout=0.1)
        with pytest.raises(TimeoutError):
            await made.release(con)
        assert made.get_size() == 0


async def test_connect_is_called_in_place_of_the_drivers(make, dsn):
    """With the same arguments."""
    seen = []

    async def connect(*args, **options):
        seen.append((args, options))
        return await asyncpg.connect(*args, **options)

    async with make(connect=connect, command_timeout=7) as made:
        assert await made.fetchval("SELECT 1") == 1
    ((args, options),) = seen
    assert args == (dsn,)
    assert set(options) == {"loop", "connection_class", "record_class", "command_timeout"}
    assert options["loop"] is asyncio.get_running_loop()


async def test_a_connect_that_returns_something_else_is_refused(make):
    """In the same words."""

    async def connect(*_args, **_options):
        return 1

    with pytest.raises(asyncpg.InterfaceError, match=r"an instance of 'asyncpg.connection.Connection', got 'int'"):
        await make(connect=connect)


async def test_connections_are_of_the_class_asked_for(make):
    """Its methods are there on what is acquired."""

    class Mine(asyncpg.Connection):
        def answer(self):
            return 42

    async with make(connection_class=Mine) as made, made.acquire() as con:
        assert con.answer() == 42


async def test_records_are_of_the_class_asked_for(make):
    """By the pool, or for one query."""

    class Mine(asyncpg.Record):
        pass

    async with make(record_class=Mine) as made:
        assert type(await made.fetchrow("SELECT 1")) is Mine
        assert type((await made.fetch("SELECT 1", record_class=asyncpg.Record))[0]) is asyncpg.Record


# --- acquire and release


async def test_a_lease_is_a_connection(pool):
    """For isinstance, and by its methods."""
    async with pool.acquire() as con:
        assert isinstance(con, asyncpg.Connection)
        assert isinstance(con, asyncpg.pool.PoolConnectionProxy)
        assert con.get_server_version().major >= 15


async def test_a_lease_names_its_connection_until_it_is_released(pool, dsn):
    """And shows no secret."""
    async with pool.acquire() as con:
        assert repr(con).startswith("<PoolConnectionProxy <asyncpg.connection.Connection")
        assert dsn not in repr(con)
    assert repr(con).startswith("<PoolConnectionProxy [released]")
    assert dsn not in repr(pool)


async def test_acquire_can_be_awaited(pool):
    """And is released by hand."""
    con = await pool.acquire()
    assert pool.get_idle_size() == 0
    await pool.release(con)
    assert pool.get_idle_size() == 1


async def test_a_context_is_entered_once(pool):
    """Neither twice, nor after it was awaited."""
    context = pool.acquire()
    async with context:
        with pytest.raises(asyncpg.InterfaceError, match="a connection is already acquired"):
            await context.__aenter__()
    with pytest.raises(asyncpg.InterfaceError, match="a connection is already acquired"):
        await context.__aenter__()


async def test_releasing_twice_does_nothing(pool):
    """Neither in turn nor at once, nor by hand inside the block."""
    async with pool.acquire() as con:
        await pool.release(con)
        await pool.release(con)
    assert pool.get_idle_size() == pool.get_size()


async def test_a_bare_connection_is_refused(pool, admin):
    """It was never the pool's."""
    with pytest.raises(asyncpg.InterfaceError, match=r"Pool.release\(\) received invalid connection.*not a member"):
        await pool.release(admin)


async def test_a_lease_of_another_pool_is_refused(make, pool):
    """And stays what it is."""
    async with make() as other, other.acquire() as con:
        with pytest.raises(asyncpg.InterfaceError, match="is not a member of this pool"):
            await pool.release(con)
        assert await con.fetchval("SELECT 1") == 1


@pytest.mark.parametrize(
    ("method", "args"),
    [
        ("fetch", ("SELECT 1",)),
        ("fetchval", ("SELECT 1",)),
        ("fetchrow", ("SELECT 1",)),
        ("fetchmany", ("SELECT $1::int", [(1,)])),
        ("execute", ("SELECT 1",)),
        ("executemany", ("SELECT $1::int", [(1,)])),
        ("prepare", ("SELECT 1",)),
        ("cursor", ("SELECT 1",)),
        ("transaction", ()),
        ("is_closed", ()),
        ("is_in_transaction", ()),
        ("get_server_pid", ()),
        ("get_settings", ()),
        ("add_listener", ("channel", print)),
        ("add_log_listener", (print,)),
        ("set_type_codec", ("json",)),
        ("reload_schema_state", ()),
        ("reset", ()),
        ("close", ()),
        ("terminate", ()),
    ],
)
async def test_a_released_connection_refuses_every_method(pool, method, args):
    """In the same words."""
    async with pool.acquire() as con:
        pass
    message = rf"cannot call Connection\.{method}\(\): connection has been released back to the pool"
    with pytest.raises(asyncpg.InterfaceError, match=message):
        await getattr(con, method)(*args)


async def test_prepared_statements_end_with_the_lease(pool):
    """Used or asked."""
    async with pool.acquire() as con:
        statement = await con.prepare("SELECT 1")
        assert await statement.fetchval() == 1
    for call in (statement.fetchval, statement.get_query):
        with pytest.raises(
            asyncpg.InterfaceError, match="the underlying connection has been released back to the pool"
        ):
            await call()


async def test_cursors_end_with_the_lease(pool):
    """Those that were opened."""
    async with pool.acquire() as con:
        transaction = con.transaction()
        await transaction.start()
        cursor = await con.cursor("SELECT generate_series(1, 3)")
        assert (await cursor.fetchrow())[0] == 1
        await transaction.rollback()
    with pytest.raises(asyncpg.InterfaceError, match="released back to the pool"):
        await cursor.fetchrow()


async def test_transactions_end_with_the_lease(pool):
    """They cannot be begun afterwards."""
    async with pool.acquire() as con:
        transaction = con.transaction()
    with pytest.raises(asyncpg.InterfaceError, match="released back to the pool"):
        await transaction.start()


async def test_an_open_transaction_is_rolled_back_at_release(make, admin):
    """With a word to the loop, because nobody ended it."""
    said = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: said.append(context["message"]))
    await admin.execute("CREATE TABLE note (text text)")
    async with make(max_size=1) as made:
        async with made.acquire() as con:
            await con.execute("BEGIN; INSERT INTO note VALUES ('lost')")
        assert await made.fetchval("SELECT count(*) FROM note") == 0
    assert len(said) == 1
    assert said[0].startswith("Resetting connection with an active transaction")


async def test_transactions_nest(pool, admin):
    """The inner one is a savepoint."""
    await admin.execute("CREATE TABLE note (text text)")
    async with pool.acquire() as con, con.transaction():
        await con.execute("INSERT INTO note VALUES ('outer')")
        with contextlib.suppress(ZeroDivisionError):
            async with con.transaction():
                await con.execute("INSERT INTO note VALUES ('inner')")
                raise ZeroDivisionError
    assert await admin.fetch("SELECT * FROM note") == [("outer",)]


@pytest.mark.parametrize(
    ("sql", "asked", "clean"),
    [
        ("SET work_mem = '1234kB'", "SHOW work_mem", "4MB"),
        ("SELECT pg_advisory_lock(7)", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'", 0),
        ("LISTEN channel", "SELECT count(*) FROM pg_listening_channels()", 0),
        (
            "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT",
            "SELECT count(*) FROM pg_cursors WHERE name = 'c'",
            0,
        ),
    ],
)
async def test_a_release_resets_the_session(make, sql, asked, clean):
    """On every release."""
    async with make(max_size=1) as made:
        await made.execute(sql)
        assert await made.fetchval(asked) == clean


async def test_temporary_tables_stay(make):
    """The reset query leaves them."""
    async with make(max_size=1) as made:
        await made.execute("CREATE TEMP TABLE kept (n int)")
        assert await made.fetchval("SELECT count(*) FROM kept") == 0


async def test_the_same_connection_comes_back(make):
    """A release does not replace it."""
    async with make(max_size=1) as made:
        assert len({await made.fetchval("SELECT pg_backend_pid()") for _ in range(10)}) == 1


async def test_never_more_connections_than_max_size(make):
    """However many ask."""
    async with make(min_size=0, max_size=3) as made:
        pids = await asyncio.gather(*(made.fetchval("SELECT pg_backend_pid() FROM pg_sleep(0.01)") for _ in range(30)))
        assert len(set(pids)) <= 3
        assert made.get_size() <= 3


async def test_a_timeout_of_acquire(make):
    """TimeoutError; whoever waits on is served."""
    async with make(max_size=1) as made:
        con = await made.acquire()
        patient = asyncio.ensure_future(made.fetchval("SELECT 1"))
        with pytest.raises(TimeoutError):
            await made.acquire(timeout=0.05)
        with pytest.raises(TimeoutError):
            async with made.acquire(timeout=0.05):
                pytest.fail("acquired")
        await made.release(con)
        assert await patient == 1


async def test_a_cancelled_acquire_takes_nothing(make):
    """The slot serves the next."""
    async with make(max_size=1) as made:
        con = await made.acquire()
        gone = asyncio.ensure_future(made.fetchval("SELECT 1"))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        await made.release(con)
        assert gone.cancelled()
        assert await made.fetchval("SELECT 2") == 2


async def test_a_cancelled_query_gives_its_connection_back(make):
    """Over and over."""
    async with make(max_size=2) as made:
        for _ in range(5):
            tasks = [asyncio.ensure_future(made.execute("SELECT pg_sleep(2)")) for _ in range(4)]
            await turns()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert await made.fetchval("SELECT 1") == 1
        await settle(lambda: made.get_idle_size() == made.get_size())


async def test_a_cancelled_release_goes_on_by_itself(make):
    """The reset is not cut short: the very connection comes back."""
    gate = asyncio.Event()

    async def reset(_con):
        await gate.wait()

    async with make(max_size=1, reset=reset) as made:
        con = await made.acquire()
        pid = con.get_server_pid()
        release = asyncio.ensure_future(made.release(con))
        await turns()
        release.cancel()
        with pytest.raises(asyncio.CancelledError):
            await release
        gate.set()
        assert await made.fetchval("SELECT pg_backend_pid()") == pid


async def test_a_query_timeout_leaves_the_pool_whole(make):
    """TimeoutError, and the next query works."""
    async with make(max_size=1) as made:
        with pytest.raises(TimeoutError):
            await made.fetch("SELECT pg_sleep(60)", timeout=0.05)
        assert await made.fetchval("SELECT 1") == 1


async def test_an_error_of_the_server_is_the_drivers(make):
    """And leaves the pool whole."""
    async with make(max_size=1) as made:
        with pytest.raises(asyncpg.UndefinedTableError):
            await made.fetch("SELECT * FROM nowhere")
        with pytest.raises(asyncpg.DataError):
            await made.fetch("SELECT $1::int", "text")
        assert made.get_idle_size() == 1


# --- one statement each


async def test_the_pools_own_methods_do_what_the_connections_do(pool, admin):
    """Each of them."""
    await admin.execute("CREATE TABLE number (n int)")
    assert await pool.execute("INSERT INTO number VALUES (1)") == "INSERT 0 1"
    assert await pool.execute("INSERT INTO number VALUES ($1)", 2, timeout=5) == "INSERT 0 1"
    assert await pool.executemany("INSERT INTO number VALUES ($1)", [(3,), (4,)]) is None
    assert [row["n"] for row in await pool.fetch("SELECT n FROM number ORDER BY n")] == [1, 2, 3, 4]
    assert (await pool.fetchrow("SELECT n, n * 2 AS m FROM number WHERE n = $1", 3))["m"] == 6
    assert await pool.fetchrow("SELECT 1 WHERE false") is None
    assert await pool.fetchval("SELECT 1, 2", column=1) == 2
    found = await pool.fetchmany("INSERT INTO number VALUES ($1) RETURNING n", [(5,), (6,)])
    assert [row["n"] for row in found] == [5, 6]


async def test_the_pools_own_copy_methods(pool, admin, tmp_path):
    """Each of them, with the driver's options."""
    await admin.execute("CREATE TABLE number (n int, t text)")
    assert await pool.copy_records_to_table("number", records=[(1, "a")], columns=["n", "t"]) == "COPY 1"
    assert await pool.copy_to_table("number", source=io.BytesIO(b"2;b\n"), format="csv", delimiter=";") == "COPY 1"
    target = io.BytesIO()
    assert await pool.copy_from_table("number", output=target, format="csv", columns=["t"]) == "COPY 2"
    assert target.getvalue() == b"a\nb\n"
    target = io.BytesIO()
    assert await pool.copy_from_query("SELECT n FROM number WHERE n > $1", 1, output=target, header=True, format="csv")
    assert target.getvalue() == b"n\n2\n"


# --- listeners


async def test_listeners_get_the_lease(pool, admin):
    """As the connection that they are called with."""
    heard = asyncio.get_running_loop().create_future()
    async with pool.acquire() as con:
        await con.add_listener("channel", lambda *said: heard.set_result(said))
        await admin.execute("NOTIFY channel, 'hello'")
        who, _pid, channel, payload = await heard
        assert (who, channel, payload) == (con, "channel", "hello")
        await con.remove_listener("channel", print)
        await con.reset()


@pytest.mark.parametrize("kind", ["notification", "log"])
async def test_a_listener_left_behind_is_warned_of_and_removed(make, kind):
    """InterfaceWarning at the release."""
    async with make(max_size=1) as made:
        con = await made.acquire()
        if kind == "log":
            con.add_log_listener(print)
        else:
            await con.add_listener("channel", print)
        with pytest.warns(asyncpg.InterfaceWarning, match=f"has 1 active {kind} listener"):
            await made.release(con)
        async with made.acquire():
            pass  # the second release has nothing to warn of


async def test_query_loggers_hear_the_queries(make):
    """Those set in init last."""
    heard = []

    async def init(con):
        con.add_query_logger(lambda record: heard.append(record.query))

    async with make(max_size=1, init=init) as made:
        await made.fetch("SELECT 1")
        await made.fetch("SELECT 2")
    assert [text for text in heard if text.startswith("SELECT ") and "unlock" not in text] == ["SELECT 1", "SELECT 2"]


async def test_log_listeners_get_the_lease(pool):
    """As the connection that they are called with."""
    heard = asyncio.get_running_loop().create_future()
    async with pool.acquire() as con:

        def listen(who, message):
            heard.set_result((who, message.message))

        con.add_log_listener(listen)
        await con.execute("DO $$ BEGIN RAISE NOTICE 'hello'; END $$")
        assert await heard == (con, "hello")
        con.remove_log_listener(listen)


# --- connections that end


async def test_a_connection_that_is_closed_in_hand_is_replaced(make):
    """It counts as released."""
    async with make(max_size=1) as made:
        async with made.acquire() as con:
            await con.close()
            with pytest.raises(asyncpg.InterfaceError, match="released back to the pool"):
                con.is_closed()
        assert await made.fetchval("SELECT 1") == 1


async def test_a_connection_that_is_terminated_in_hand_is_replaced(make):
    """It counts as released."""
    async with make(max_size=1) as made:
        async with made.acquire() as con:
            con.terminate()
            with pytest.raises(asyncpg.InterfaceError, match="released back to the pool"):
                con.is_closed()
        assert await made.fetchval("SELECT 1") == 1


async def test_a_connection_that_is_killed_in_hand_is_replaced(make, admin):
    """Its holder's query fails, its release does not."""
    async with make(max_size=1) as made:
        async with made.acquire() as con:
            await kill(admin, con.get_server_pid())
            with pytest.raises((
                asyncpg.PostgresError,
                asyncpg.InterfaceError,
                asyncpg.InternalClientError,
                ConnectionError,
            )):
                await con.fetchval("SELECT 1")
        assert await made.fetchval("SELECT 1") == 1
        assert made.get_size() == 1


async def test_a_connection_that_is_killed_during_a_query_fails_it(make, admin):
    """With the driver's error."""
    async with make(max_size=1) as made:
        con = await made.acquire()
        query = asyncio.ensure_future(con.fetchval("SELECT pg_sleep(60)"))
        await turns()
        await kill(admin, con.get_server_pid())
        with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError, ConnectionError)):
            await query
        await made.release(con)
        assert await made.fetchval("SELECT 1") == 1


async def test_a_termination_listener_hears_of_the_end(make):
    """The user's own."""
    heard = asyncio.Event()
    async with make(max_size=1) as made:
        async with made.acquire() as con:
            con.add_termination_listener(lambda _con: heard.set())
            await con.close()
        await asyncio.wait_for(heard.wait(), 5)


@pytest.mark.skipif(not FLOOR, reason="this driver does not keep a floor")
async def test_the_floor_is_restored_in_the_background(make, admin):
    """After a connection was lost."""
    async with make(min_size=2, max_size=2) as made:
        async with made.acquire() as con:
            await con.close()
        await settle(lambda: made.get_size() == 2)


async def test_a_connection_is_replaced_after_max_queries(make):
    """At its release."""
    async with make(max_size=1, max_queries=2) as made:
        pids = [await made.fetchval("SELECT pg_backend_pid()") for _ in range(4)]
    assert len(set(pids)) > 1


async def test_idle_connections_above_the_floor_are_closed(make):
    """After max_inactive_connection_lifetime."""
    async with make(min_size=0, max_size=3, max_inactive_connection_lifetime=0.1) as made:
        await asyncio.gather(*(made.fetchval("SELECT 1 FROM pg_sleep(0.01)") for _ in range(3)))
        assert made.get_size() >= 1
        await settle(lambda: made.get_size() == 0)
        assert await made.fetchval("SELECT 1") == 1


async def test_a_lifetime_of_zero_keeps_idle_connections(make):
    """It switches the mechanism off."""
    async with (
        make(min_size=0, max_inactive_connection_lifetime=0) as made,
        make(min_size=0, max_inactive_connection_lifetime=0.01) as other,
    ):
        first = await made.fetchval("SELECT pg_backend_pid()")
        await other.fetchval("SELECT 1")
        await settle(lambda: other.get_size() == 0)
        assert await made.fetchval("SELECT pg_backend_pid()") == first


async def test_expired_connections_are_replaced(make):
    """Idle ones before they are used again, held ones after their release."""
    async with make(min_size=1, max_size=2) as made:
        held = await made.acquire()
        old = {held.get_server_pid(), await made.fetchval("SELECT pg_backend_pid()")}
        await made.expire_connections()
        assert await held.fetchval("SELECT 1") == 1
        await made.release(held)
        new = await asyncio.gather(*(made.fetchval("SELECT pg_backend_pid() FROM pg_sleep(0.05)") for _ in range(2)))
        assert not old & set(new)


async def test_new_connect_arguments_hold_for_new_connections(make, dsn):
    """Present ones stay until they expire."""
    async with make(max_size=1, server_settings={"application_name": "old"}) as made:
        made.set_connect_args(dsn, server_settings={"application_name": "new"})
        assert await made.fetchval("SHOW application_name") == "old"
        await made.expire_connections()
        assert await made.fetchval("SHOW application_name") == "new"


async def test_ddl_drops_the_statements_of_all_connections(make, admin):
    """Only one query meets the changed table."""
    await admin.execute("CREATE TABLE changing (a int); INSERT INTO changing VALUES (1)")
    async with make(min_size=3, max_size=3) as made:
        cons = [await made.acquire() for _ in range(3)]
        for con in cons:
            await con.fetch("SELECT * FROM changing")
        await admin.execute("ALTER TABLE changing ALTER a TYPE text")
        failed = 0
        for con in cons:
            try:
                async with con.transaction():
                    await con.fetch("SELECT * FROM changing")
            except asyncpg.InvalidCachedStatementError:
                failed += 1
        assert failed == 1
        for con in cons:
            await made.release(con)


# --- the end


async def test_close_waits_for_leases(make):
    """Held connections work until they are released."""
    made = await make()
    con = await made.acquire()
    closing = asyncio.ensure_future(made.close())
    await turns()
    assert made.is_closing()
    assert not closing.done()
    assert await con.fetchval("SELECT 1") == 1
    with pytest.raises(asyncpg.InterfaceError, match="pool is closing"):
        await made.acquire()
    await made.release(con)
    await closing
    with pytest.raises(asyncpg.InterfaceError, match="pool is closed"):
        await made.acquire()


async def test_a_closed_pool_stays_closed(make):
    """Closing and terminating again is harmless, opening is not possible."""
    made = await make()
    await made.close()
    await made.close()
    made.terminate()
    assert made.is_closing()
    assert made.get_size() == 0
    with pytest.raises(asyncpg.InterfaceError, match="pool is closed"):
        await made.fetch("SELECT 1")


async def test_a_cancelled_close_terminates(make):
    """Held connections are gone."""
    made = await make()
    con = await made.acquire()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(made.close(), 0.05)
    with pytest.raises(asyncpg.InterfaceError, match="released back to the pool"):
        await con.fetch("SELECT 1")
    assert made.get_size() == 0
    assert made.is_closing()


async def test_terminate_ends_what_is_held(make):
    """At once."""
    made = await make()
    con = await made.acquire()
    made.terminate()
    with pytest.raises(asyncpg.InterfaceError, match="released back to the pool"):
        await con.fetch("SELECT 1")
    assert made.get_size() == 0
    with pytest.raises(asyncpg.InterfaceError, match="pool is closed"):
        await made.acquire()
    await made.release(con)


async def test_no_backend_is_left_after_close(make, admin):
    """The server sees them all gone."""
    async with make(min_size=2, server_settings={"application_name": "leaver"}) as made:
        await made.fetch("SELECT 1")
    await all_gone(admin)


@pytest.mark.usefixtures("mended")
async def test_a_failed_start_leaves_no_backend(make, admin):
    """Those that were opened are ended."""
    left = [None, None]

    async def init(_con):
        if not left:
            raise ZeroDivisionError
        left.pop()

    with pytest.raises(ZeroDivisionError):
        await make(min_size=3, max_size=3, init=init, server_settings={"application_name": "leaver"})
    await all_gone(admin)


# --- ours alone: where it differs on purpose


@pytest.fixture
def ours(dsn):
    """Make a pool of ours."""
    return lambda **options: magnus.create_pool(**({"dsn": dsn, "min_size": 1, "max_size": 1} | options))


async def test_callers_are_served_in_the_order_of_their_coming(ours):
    """Also when holders come back for more."""
    served = []

    async def work(number):
        async with made.acquire() as con:
            served.append(number)
            await con.fetchval("SELECT 1")

    async with ours() as made:
        async with made.acquire():
            tasks = [asyncio.ensure_future(work(number)) for number in range(20)]
            await turns()
        await asyncio.gather(*tasks)
    assert served == list(range(20))


async def test_a_released_connection_serves_a_caller_whose_connect_is_still_under_way(ours):
    """Whichever comes first."""
    gate = asyncio.Event()
    first = [True]

    async def init(_con):
        if not first:
            await gate.wait()
        first.clear()

    async with ours(max_size=2, init=init) as made:
        con = await made.acquire()
        waiting = asyncio.ensure_future(made.fetchval("SELECT 1"))
        await turns()
        await made.release(con)
        assert await waiting == 1
        gate.set()


async def test_killed_idle_connections_are_never_handed_out(ours, admin):
    """Not one caller meets a dead one."""
    async with ours(min_size=3, max_size=3) as made:
        for _ in range(3):
            cons = [await made.acquire() for _ in range(3)]
            pids = [con.get_server_pid() for con in cons]
            for con in cons:
                await made.release(con)
            for pid in pids:
                await kill(admin, pid)
            assert [await made.fetchval("SELECT 1") for _ in range(3)] == [1, 1, 1]


async def test_a_connection_killed_in_hand_frees_its_slot_before_it_is_released(ours, admin):
    """Whoever holds it may take his time."""
    async with ours() as made:
        con = await made.acquire()
        await kill(admin, con.get_server_pid())
        async with asyncio.timeout(5):
            assert await made.fetchval("SELECT 1") == 1
        with pytest.raises(asyncpg.InterfaceError, match="released back to the pool"):
            con.is_closed()
        await made.release(con)


async def test_a_release_has_an_end_without_a_timeout(ours, monkeypatch):
    """The slot is free, the caller is told."""
    monkeypatch.setattr("magnus.pool.compat._RELEASE_LIMIT", 0.05)

    async def reset(_con):
        await asyncio.Event().wait()

    async with ours(reset=reset) as made:
        con = await made.acquire()
        with pytest.raises(TimeoutError):
            await made.release(con)
        con = await made.acquire()
        await con.close()


async def test_a_warning_that_is_an_error_costs_no_slot(ours):
    """The listener's warning is raised, the connection comes back."""
    async with ours() as made:
        con = await made.acquire()
        con.add_log_listener(print)
        with pytest.raises(asyncpg.InterfaceWarning):
            await made.release(con)
        assert await made.fetchval("SELECT 1") == 1


async def test_callers_who_wait_when_it_closes_are_refused(ours):
    """None of them gets a connection that is closed under it."""
    made = await ours()
    con = await made.acquire()
    waiting = [asyncio.ensure_future(made.fetchval("SELECT 1")) for _ in range(3)]
    await turns()
    closing = asyncio.ensure_future(made.close())
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [(type(error), str(error)) for error in found] == [(magnus.PoolClosed, "pool is closing")] * 3
    await made.release(con)
    await closing


async def test_another_event_loop_is_refused_at_once(ours):
    """At the start, and at every call."""
    other = asyncio.new_event_loop()
    with pytest.raises(asyncpg.InterfaceError, match="another event loop"):
        await ours(loop=other)
    other.close()
    async with ours() as made:

        def elsewhere():
            with pytest.raises(asyncpg.InterfaceError, match="another event loop"):
                asyncio.run(made.fetch("SELECT 1"))

        await asyncio.to_thread(elsewhere)


async def test_errors_of_ours_are_errors_of_asyncpg_too(ours):
    """What a service catches today, it catches tomorrow."""
    async with ours() as made, made.acquire():
        with pytest.raises(magnus.PoolTimeout) as timeout:
            await made.acquire(timeout=0.01)
        assert isinstance(timeout.value, TimeoutError)
    with pytest.raises(magnus.PoolClosed) as closed:
        await made.acquire()
    assert isinstance(closed.value, asyncpg.InterfaceError)


async def test_a_lease_makes_no_work_for_the_garbage_collector(ours):
    """A released one is freed by its count of references."""
    async with ours() as made:
        await made.fetchval("SELECT 1")
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                await made.fetchval("SELECT 1")
            left = [found for found in gc.get_objects() if isinstance(found, magnus.pool.compat.PoolConnectionProxy)]
        finally:
            gc.enable()
    assert len(left) <= 1


async def test_the_figures_of_the_pool_are_there(ours):
    """`snapshot()`, which asyncpg's has not."""
    async with ours() as made, made.acquire():
        found = made.snapshot()
        assert (found.size, found.acquired, found.max) == (1, 1, 1)
        assert {lane.cap for lane in found.lanes} == {1}
