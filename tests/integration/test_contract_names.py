"""The names that are promised, each used as it is promised. Read it as the contract."""

import dataclasses
import inspect
import json
import time

import asyncpg
import pytest

import magnus
from magnus import QUERY_TIMEOUTS, ConfigError, Database, DatabaseConfig, QueryPriority, get_database, set_database
from magnus.embedded import throwaway
from tests.facade_fakes import until
from tests.servers import binaries_or_skip


@pytest.fixture
async def db(target, monkeypatch):
    """The database as a service gets it: from the environment, by name."""
    for name, value in target.items():
        monkeypatch.setenv("DATABASE_URL" if name == "dsn" else f"MAGNUS_{name.upper()}", value)
    found = await get_database()
    found.seen = []
    found.add_observer(found.seen.append)
    yield found
    set_database(None)
    await found.close()


def events(db, name):
    return [event.fields() for event in db.seen if event.name == name]


@pytest.mark.parametrize("name", ["Database", "DatabaseConfig", "QUERY_TIMEOUTS", "QueryPriority", "get_database"])
def test_all_import_from_magnus(name):
    """One place to import from."""
    assert name in magnus.__all__


async def test_the_database_is_a_context_manager_with_connect_and_close(target):
    """`DatabaseConfig(dsn=…)`, `Database(config)`, `async with`, `connect`, `close`."""
    async with Database(DatabaseConfig(**target, min_pool_size=1)) as db:
        assert db.is_connected
    await db.connect()
    await db.close()
    assert not db.is_connected


async def test_acquire_and_transaction_give_connections(db):
    """`async with db.transaction() as con` and `async with db.acquire() as con`: asyncpg's Connection methods."""
    methods = {
        name for name, method in inspect.getmembers(asyncpg.Connection, inspect.isfunction) if name[0] != "_"
    }  # fmt: skip

    async with db.transaction() as con:
        assert {name for name in methods if not callable(getattr(con, name))} == set()
        assert await con.fetchval("SELECT 1") == 1
    async with db.acquire() as con:
        assert {name for name in methods if not callable(getattr(con, name))} == set()
        assert await con.fetchval("SELECT 1") == 1


@pytest.mark.one_version
async def test_quick_win_2_the_pool_is_warmed(db):
    """`await db.warmup_pool(target_connections=10) -> int`, event `database_pool_warmed` (connections, pool_size)."""
    assert await db.warmup_pool(target_connections=10) == 10
    assert await db.warmup_pool() == 10
    assert await db.warmup_pool(99) == 30, "never over max_pool_size"

    assert events(db, "database_pool_warmed")[0] == {"connections": 10, "pool_size": 10}


async def test_quick_win_2_a_failed_warm_up_is_an_event_and_the_service_starts(tmp_path, monkeypatch):
    """`get_database` and `warmup_pool` do not raise; `database_warmup_failed` says it, and so does health."""
    monkeypatch.setenv("DATABASE_URL", f"postgresql://u@/d?host={tmp_path}")
    db = await get_database()
    db.seen = []
    db.add_observer(db.seen.append)

    assert await db.warmup_pool(target_connections=10) == 0

    (failed,) = events(db, "database_warmup_failed")
    assert set(failed) == {"connections", "wanted", "error_type", "error"}
    assert not db.health.is_ok
    set_database(None)
    await db.close()


async def test_quick_win_3_retries_are_configured_and_told(db):
    """`max_retries`, `retry_delay`, `retry_backoff` = 3, 0.05, 2.0; event `database_retry` and its fields."""
    assert (db.config.max_retries, db.config.retry_delay, db.config.retry_backoff) == (3, 0.05, 2.0)

    fields = {field.name for field in dataclasses.fields(magnus.observe.Retry)}
    assert magnus.observe.Retry.name == "database_retry"
    assert fields == {"attempt", "delay", "error_type", "error"}


async def test_quick_win_4_guards_hold_on_every_connection(db):
    """`statement_timeout`, `idle_in_transaction_session_timeout='60s'`, `application_name='ava_trading_platform'`."""
    async with db.acquire() as one, db.acquire() as other:
        for con in (one, other):
            assert await con.fetchval("SHOW statement_timeout") == "30s"
            assert await con.fetchval("SHOW idle_in_transaction_session_timeout") == "1min"
            assert await con.fetchval("SHOW application_name") == "ava_trading_platform"


def test_quick_win_6_the_environment_and_its_defaults():
    """DB_POOL_MIN=5, DB_POOL_MAX=30, DB_QUERY_TIMEOUT=30, DB_CONNECT_TIMEOUT=5, DB_TRANSACTION_TIMEOUT=60; frozen."""
    names = ("min_pool_size", "max_pool_size", "command_timeout", "connect_timeout", "transaction_timeout")
    variables = ("DB_POOL_MIN", "DB_POOL_MAX", "DB_QUERY_TIMEOUT", "DB_CONNECT_TIMEOUT", "DB_TRANSACTION_TIMEOUT")

    def values(config):
        return tuple(getattr(config, name) for name in names)

    assert values(DatabaseConfig()) == (5, 30, 30.0, 5.0, 60.0)
    environ = dict(zip(variables, ("2", "9", "12", "3", "45"), strict=True))
    assert values(DatabaseConfig.from_environ(environ)) == (2, 9, 12.0, 3.0, 45.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        DatabaseConfig().min_pool_size = 1
    with pytest.raises(ConfigError, match="DB_POOL_MIN"):
        DatabaseConfig.from_environ({"DB_POOL_MIN": "-1"})
    assert {"statement_timeout", "health_check_interval"} <= {
        field.name for field in dataclasses.fields(DatabaseConfig)
    }


async def test_the_checklist_of_figures(db):
    """`db.get_stats()` is synchronous, JSON-ready and holds at least these keys, with true values."""
    await db.warmup_pool(10)
    before = db.get_stats()["query_stats"]
    await db.fetch("SELECT 1")
    await db.fetch("SELECT pg_sleep(0.12)")
    with pytest.raises(asyncpg.PostgresError):
        await db.fetch("SELECT 1/0")

    found = json.loads(json.dumps(db.get_stats()))

    counted = ("total", "successful", "failed", "slow_queries")
    assert [found["query_stats"][name] - before[name] for name in counted] == [3, 2, 1, 1]
    assert found["query_stats"]["avg_time_ms"] > 0
    assert {name: found["pool_stats"][name] for name in ("connected", "size", "free", "used", "max_size")} == {
        "connected": True, "size": 10, "free": 10, "used": 0, "max_size": 30,
    }  # fmt: skip


@pytest.mark.one_version
async def test_quick_win_8_high_utilization_is_told_once_a_state(target):
    """Event `pool_high_utilization` (utilization, used, total, free) above 0.9: when it begins, and when it ends."""
    config = DatabaseConfig(**target, min_pool_size=1, max_pool_size=2, health_check_interval=0.02)
    async with Database(config) as db:
        db.seen = []
        db.add_observer(db.seen.append)
        holders = [await db.acquire(priority=QueryPriority.CRITICAL) for _ in range(2)]
        await until(lambda: grown(db, 1))
        checked = db.health.last_ok
        await until(lambda: probed_since(db, checked, times=5))
        for con in holders:
            await db.release(con)
        await until(lambda: grown(db, 2))

    assert [event.name for event in db.seen] == ["pool_high_utilization", "pool_utilization_normal"]
    assert db.seen[0].fields() == {"utilization": 1.0, "used": 2, "total": 2, "free": 0}


@pytest.mark.one_version
async def test_quick_win_8_a_failed_health_check_is_told_once_a_state(pg_version):
    """Event `database_health_check_failed` (failures): when the state begins; another event when it ends."""
    cluster = throwaway(binaries_or_skip(pg_version))
    await cluster.start()
    config = DatabaseConfig(dsn=cluster.dsn(), min_pool_size=1, health_check_interval=0.02)
    try:
        async with Database(config) as db:
            db.seen = []
            db.add_observer(lambda event: db.seen.append(event) if "health" in event.name else None)
            await cluster.stop()
            await until(lambda: failed(db, times=5))
            await cluster.start()
            await until(lambda: grown(db, 2))
    finally:
        await cluster.discard()

    assert [event.name for event in db.seen] == ["database_health_check_failed", "database_health_check_recovered"]
    assert db.seen[0].failures == 1


def test_quick_win_9_priorities_and_their_limits():
    """CRITICAL, HIGH, NORMAL, LOW, BACKGROUND = "critical" …; 5, 10, 30, 60, 120 s."""
    assert [(lane.name, lane.value, QUERY_TIMEOUTS[lane]) for lane in QueryPriority] == [
        ("CRITICAL", "critical", 5.0), ("HIGH", "high", 10.0), ("NORMAL", "normal", 30.0),
        ("LOW", "low", 60.0), ("BACKGROUND", "background", 120.0),
    ]  # fmt: skip


@pytest.mark.parametrize("lane", list(QueryPriority))
async def test_quick_win_9_the_servers_limit_follows_the_lane(db, way, lane):
    """
    `fetch_with_priority(sql, *args, priority=…)`: statement_timeout is the lane's limit, up to 2 s above; behind a
    pooler a statement of its own has the role's where that is longer, and a transaction the lane's.
    """
    ((milliseconds,),) = await db.fetch_with_priority(
        "SELECT setting::int FROM pg_settings WHERE name = $1", "statement_timeout", priority=lane
    )

    most = QUERY_TIMEOUTS[lane] + 2
    assert QUERY_TIMEOUTS[lane] <= milliseconds / 1000 <= (most if way == "direct" else max(most, 30))
    async with db.transaction(priority=lane) as tx:
        limit = await tx.fetchval("SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout'")
    assert QUERY_TIMEOUTS[lane] <= limit / 1000 <= most


async def test_quick_win_9_a_limit_reached_is_an_event_and_a_timeout_error(target):
    """Event `query_timeout` (priority, timeout, elapsed, query); the client ends first; a TimeoutError."""
    seen = []
    config = DatabaseConfig(**target, min_pool_size=1, lane_timeouts={QueryPriority.HIGH: 0.2})
    async with Database(config, observers=[seen.append]) as db:
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            await db.fetch_with_priority("SELECT pg_sleep($1)", 60, priority=QueryPriority.HIGH)
        assert time.monotonic() - begun < 1.0

    (event,) = [event for event in seen if event.name == "query_timeout"]
    assert (event.priority, event.timeout, event.query) == ("high", 0.2, "SELECT pg_sleep($1)")
    assert event.elapsed >= 0.2


@pytest.mark.parametrize(
    "method", ["fetch", "fetchrow", "fetchval", "execute", "executemany", "copy_records_to_table", "copy_from_query"]
)
def test_quick_win_9_every_query_method_takes_a_priority(method):
    """And a timeout."""
    assert {"priority", "timeout"} <= set(inspect.signature(getattr(Database, method)).parameters)


async def grown(db, count):
    return len(db.seen) >= count


async def probed_since(db, last, *, times):
    return db.health.last_ok > last + times * db.config.health_check_interval


async def failed(db, *, times):
    return db.health.failures >= times
