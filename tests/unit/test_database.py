"""The facade over a pool that does what the test says."""

import asyncio
import dataclasses
import json

import asyncpg
import pytest

from magnus import database, lanes
from magnus._control import Verdicts
from magnus._driver import PoolClosed
from magnus.database import Database
from magnus.errors import ConfigError, ConnectError, PoolTimeout
from magnus.lanes import QueryPriority
from magnus.observe import PoolWarmed, Retry, WarmupFailed
from tests.facade_fakes import FakeConnection, FakePool, config, figures

LOST = asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")


class FakeControl:
    """Answers probes with `is_up`; `error` is why not."""

    is_up = True
    error = None

    def __init__(self, _config, **_):
        self.is_closed = False
        self.verdicts = Verdicts()

    @property
    def last_error(self):
        return self.error

    async def check(self):
        if self.is_up:
            self.verdicts.succeeded(1.0)
        else:
            self.verdicts.failed(1.0, "ConnectError")
        return self.is_up

    async def has_own_session(self):
        return True

    async def look_around(self):
        """Nobody else is there."""

    def start(self):
        return None

    async def close(self):
        self.is_closed = True


@pytest.fixture
def fake(monkeypatch):
    """Connections to hand out are appended to `fake.connections`."""
    pool = FakePool()
    monkeypatch.setattr(database, "Pool", lambda *_, **__: pool)
    monkeypatch.setattr(database, "Control", type("Fresh", (FakeControl,), {}))
    return pool


@pytest.fixture
async def db(fake):
    """A connected database; its events are in `db.seen`."""
    found = Database(config(retry_delay=0.0))
    found.seen = []
    found.add_observer(found.seen.append)
    await found.connect()
    yield found
    await found.close()


# --- one statement


async def test_a_statement_is_acquired_for_run_and_released(db, fake):
    """One lease a call, in its lane, gone afterwards."""
    con = FakeConnection()
    fake.connections.append(con)

    assert await db.execute("UPDATE x", priority=QueryPriority.HIGH) == "UPDATE"

    assert con.sent == ["SET statement_timeout TO 11000", "UPDATE x"]
    assert fake.acquired[0][0] is QueryPriority.HIGH
    assert fake.released == [con]


async def test_the_lane_is_that_of_the_scope_and_a_call_can_only_lower_it(db, fake):
    """A route's priority holds for every call in it."""
    fake.connections += [FakeConnection() for _ in range(3)]

    with lanes.scope(QueryPriority.LOW):
        await db.execute("SELECT 1")
        await db.execute("SELECT 1", priority=QueryPriority.CRITICAL)
        await db.execute("SELECT 1", priority=QueryPriority.BACKGROUND)

    assert [lane.value for lane, _ in fake.acquired] == ["low", "low", "background"]


async def test_a_failed_statement_releases_too_and_is_counted(db, fake):
    """Whatever happens, the connection goes back."""
    con = FakeConnection()
    con.replies["INSERT"] = asyncpg.UniqueViolationError("duplicate")
    fake.connections.append(con)

    with pytest.raises(asyncpg.UniqueViolationError):
        await db.execute("INSERT")

    assert fake.released == [con]
    assert db.get_stats()["query_stats"]["failed"] == 1


async def test_a_call_that_got_no_connection_is_counted_as_failed(db, fake):
    """It never ran, so it has no duration; it failed all the same."""
    fake.connections.append(PoolTimeout("", phase="wait", waited=1.0))

    with pytest.raises(PoolTimeout):
        await db.fetch("SELECT 1")

    found = db.get_stats()["query_stats"]
    assert (found["total"], found["failed"], found["avg_time_ms"]) == (1, 1, 0.0)


async def test_a_connection_found_dead_before_the_statement_is_replaced(db, fake):
    """The limit could not be set because the connection was gone: nothing was sent, another one serves."""
    dead, alive = FakeConnection(), FakeConnection()
    dead.replies["SET statement_timeout TO 6000"] = LOST
    fake.connections += [dead, alive]

    assert await db.execute("UPDATE x", priority=QueryPriority.CRITICAL) == "UPDATE"

    assert fake.released == [dead, alive]
    assert [type(event) for event in db.seen] == [Retry]
    assert db.get_stats()["query_stats"]["retries"] == 1


async def test_a_statement_that_was_sent_is_never_repeated(db, fake):
    """The server may have done it."""
    con = FakeConnection()
    con.replies["UPDATE x"] = LOST
    fake.connections += [con, FakeConnection()]

    with pytest.raises(asyncpg.ConnectionDoesNotExistError):
        await db.execute("UPDATE x")

    assert len(fake.connections) == 1


async def test_a_consumed_source_is_never_read_twice(db, fake):
    """`executemany` has taken rows from its iterator: even an unsent attempt is the last."""
    con = FakeConnection()
    con.executemany = con.execute
    con.replies["INSERT"] = asyncpg.InterfaceError("connection is closed")
    fake.connections += [con, FakeConnection()]

    with pytest.raises(asyncpg.InterfaceError):
        await db.executemany("INSERT", iter([(1,)]))

    assert len(fake.connections) == 1


@dataclasses.dataclass
class Pair:
    """Two columns."""

    a: int
    b: str


class Model:
    """What a validation library's class looks like."""

    @classmethod
    def model_validate(cls, values):
        assert type(values) is dict
        return ("validated", values)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (None, {"a": 1, "b": "x"}),
        (Pair, Pair(1, "x")),
        (Model, ("validated", {"a": 1, "b": "x"})),
        (lambda record: record["a"], 1),
        (dict, {"a": 1, "b": "x"}),
    ],
    ids=["record", "dataclass", "model", "callable", "dict"],
)
async def test_rows_come_as_what_was_asked_for(db, fake, row, expected):
    """A dataclass, a model with `model_validate`, any callable; without `row` the record itself."""
    many, one = FakeConnection(), FakeConnection()
    many.replies["SELECT"] = [{"a": 1, "b": "x"}]
    one.replies["SELECT"] = {"a": 1, "b": "x"}
    one.fetchrow = one.fetch
    fake.connections += [many, one]

    assert await db.fetch("SELECT", row=row) == [expected]
    assert await db.fetchrow("SELECT", row=row) == expected


async def test_no_row_is_none_whatever_was_asked_for(db, fake):
    """`row` is not called without a record."""
    con = FakeConnection()
    con.replies["SELECT"] = None
    con.fetchrow = con.fetch
    fake.connections.append(con)

    assert await db.fetchrow("SELECT", row=Pair) is None


# --- transactions


async def test_a_begin_that_found_a_dead_connection_is_repeated(db, fake):
    """Nothing of the block has run yet; the block then runs once."""
    dead, alive = FakeConnection(version=15), FakeConnection(version=15)
    dead.replies["BEGIN"] = LOST
    fake.connections += [dead, alive]
    runs = 0

    async with db.transaction() as tx:
        runs += 1
        await tx.execute("UPDATE x")

    assert runs == 1
    assert alive.sent == ["BEGIN", "UPDATE x", "COMMIT"]
    assert fake.released == [dead, alive]


async def test_a_begin_that_the_server_refuses_is_not_repeated(db, fake):
    """An unknown role stays unknown; the connection is given up and the slot freed."""
    con = FakeConnection(version=15)
    con.replies["BEGIN; SET LOCAL ROLE 'nobody'"] = asyncpg.InvalidParameterValueError("role does not exist")
    fake.connections += [con, FakeConnection()]

    with pytest.raises(asyncpg.InvalidParameterValueError):
        async with db.transaction(settings={"role": "nobody"}):
            raise AssertionError("not reached")

    assert fake.released == [con]
    assert len(fake.connections) == 1


async def test_waiting_for_a_transaction_is_bounded_by_the_lane(db, fake):
    """A transaction may run 60 s; nobody waits that long for a CRITICAL one to begin."""
    fake.connections += [FakeConnection(), FakeConnection()]

    async with db.transaction(priority=QueryPriority.CRITICAL):
        pass
    begun = asyncio.get_running_loop().time()
    async with db.transaction(priority=QueryPriority.CRITICAL, timeout=2.0):
        pass

    assert fake.acquired[0][1] - begun <= 5.0
    assert fake.acquired[1][1] - begun <= 2.1


# --- acquire


async def test_a_lease_is_awaited_or_entered(db, fake):
    """As in the driver's pool."""
    first, second = FakeConnection(), FakeConnection()
    fake.connections += [first, second]

    con = await db.acquire()
    await con.execute("SELECT 1")
    await db.release(con)
    await db.release(con)
    async with db.acquire(timeout=1.0) as con:
        await con.execute("SELECT 2")

    assert fake.released == [first, second]
    with pytest.raises(asyncpg.InterfaceError, match="released"):
        await con.execute("SELECT 3")


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
async def test_impossible_timeouts_are_refused_everywhere(db, timeout):
    """And nothing is acquired for them."""
    with pytest.raises(ConfigError):
        await db.fetch("SELECT 1", timeout=timeout)
    with pytest.raises(ConfigError):
        db.acquire(timeout=timeout)
    with pytest.raises(ConfigError):
        db.transaction(timeout=timeout)


# --- life


async def test_before_connect_and_after_close_everything_is_refused_at_once(fake):
    """With an error that is the driver's InterfaceError too."""
    db = Database(config())
    with pytest.raises(PoolClosed, match="not connected"):
        await db.fetch("SELECT 1")

    await db.connect()
    await db.connect()
    assert db.is_connected
    await db.close()
    await db.close()

    assert not db.is_connected
    assert db.is_draining
    for refused in (db.fetch("SELECT 1"), db.acquire(), db.warmup_pool(1)):
        with pytest.raises(asyncpg.InterfaceError, match="not connected"):
            await refused
    with pytest.raises(PoolClosed):
        async with db.transaction():
            raise AssertionError("not reached")


async def test_an_unreachable_server_is_an_error_unless_starting_anyway(fake):
    """`connect()` proves the server; `connect(wait=False)` starts without it, and `health` says so."""
    database.Control.is_up = False
    database.Control.error = ConnectError("the server cannot be reached", reason="unreachable")
    db = Database(config())

    with pytest.raises(ConnectError):
        await db.connect()
    assert not db.is_connected

    await db.connect(wait=False)
    assert db.is_connected
    assert (db.health.is_ok, db.health.failures, db.health.is_warm) == (False, 1, False)
    await db.close()


@pytest.mark.parametrize("reason", ["credentials", "database"])
async def test_what_no_waiting_heals_is_always_an_error(fake, reason):
    """A wrong password or a missing database ends the start, one clear error."""
    database.Control.is_up = False
    database.Control.error = ConnectError("refused", reason=reason)

    with pytest.raises(ConnectError):
        await Database(config()).connect(wait=False)


async def test_warming_up_tells_how_many_are_ready(db, fake):
    """Never more than the pool may have; the event says it."""
    fake.figures = figures(size=30, idle=30)

    assert await db.warmup_pool(10) == 10
    assert await db.warmup_pool(1000) == 30
    assert db.seen == [PoolWarmed(10, 30), PoolWarmed(30, 30)]


async def test_a_warm_up_that_falls_short_is_an_event_and_no_exception(db, fake):
    """The service starts; readiness and the event say what is wrong."""
    fake.ready = 2
    fake.last_connect_error = ConnectError("the server has no connection slot left", reason="too_many")

    assert await db.warmup_pool(10) == 2

    assert db.seen == [WarmupFailed(2, 10, "ConnectError", "the server has no connection slot left")]


@pytest.mark.parametrize("target", [-1, 1.5, True, "10", None])
async def test_an_impossible_warm_up_target_is_refused(db, target):
    """A number of connections is a whole number."""
    with pytest.raises(ConfigError, match="target_connections"):
        await db.warmup_pool(target)


# --- figures and observers


async def test_the_floor_of_the_figures_is_there_in_every_state(fake):
    """The keys that the mission names exist before, while and after; all of it is plain JSON."""
    db = Database(config())
    states = [db.get_stats()]
    await db.connect()
    states.append(db.get_stats())
    await db.close()
    states.append(db.get_stats())

    for found in states:
        assert {"total", "successful", "failed", "avg_time_ms", "slow_queries"} <= set(found["query_stats"])
        assert {"connected", "size", "free", "used", "max_size"} <= set(found["pool_stats"])
        assert json.loads(json.dumps(found)) == found
    assert [found["pool_stats"]["connected"] for found in states] == [False, True, False]


async def test_health_shows_what_the_probes_and_the_pool_know(db, fake):
    """Warm is: the pool has had a connection to give; it stays so when the server goes."""
    assert not db.health.is_warm
    fake.figures = figures(idle=1)
    assert db.health.is_warm
    fake.figures = figures(is_full_since=7.0)

    assert db.health == database.ProbeState(True, 1.0, 0, True, 7.0)


async def test_a_raising_observer_is_reported_once_and_disturbs_nobody(db, fake):
    """The call goes on, the other observers are told, the loop's handler hears of it one time."""
    reports = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))

    def broken(event):
        raise KeyError(event)

    others = []
    db.add_observer(broken)
    db.add_observer(others.append)

    assert await db.warmup_pool(1) == 1
    assert await db.warmup_pool(1) == 1

    assert len(others) == 2
    assert len(reports) == 1
    assert isinstance(reports[0]["exception"], KeyError)
    assert "database_pool_warmed" in reports[0]["message"]


async def test_a_removed_observer_hears_nothing(db, fake):
    """An unknown one is ignored."""
    db.remove_observer(print)
    await db.warmup_pool(1)
    db.remove_observer(db.seen.append)
    await db.warmup_pool(1)

    assert len(db.seen) == 1


# --- the process-wide one


async def test_the_process_wide_database_is_started_once(fake, monkeypatch):
    """A hundred callers at start-up share one."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://user@127.0.0.1:1/nowhere")

    found = await asyncio.gather(*(database.get_database() for _ in range(100)))

    assert len({id(one) for one in found}) == 1
    assert found[0].is_connected
    assert await database.get_database() is found[0]
    database.set_database(None)
    await found[0].close()


async def test_a_start_that_failed_is_tried_again(fake, monkeypatch):
    """The next call does not get the old error."""
    monkeypatch.setenv("DB_POOL_MIN", "many")
    with pytest.raises(ConfigError, match="DB_POOL_MIN"):
        await database.get_database()

    monkeypatch.setenv("DB_POOL_MIN", "1")
    found = await database.get_database()

    assert found.config.min_pool_size == 1
    database.set_database(None)
    await found.close()


async def test_an_installed_database_is_what_everybody_gets(fake):
    """`set_database` is for lifespans and tests; None takes it away."""
    mine = Database(config())
    database.set_database(mine)

    assert await database.get_database() is mine
    database.set_database(None)
    database.set_database(None)


async def test_the_password_is_in_no_text(fake):
    """Not in the repr of the database, nor in its figures."""
    db = Database(config(password="hunter2"))

    assert "hunter2" not in repr(db) + str(db.get_stats())
