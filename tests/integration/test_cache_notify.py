"""Changes by other processes: heard, bypassed while nothing is heard, checked with the server on demand."""

from __future__ import annotations

import asyncio
import json
import time

import asyncpg
import pytest

from magnus import ConfigError, Database, DatabaseConfig, cached
from magnus._clock import MonotonicClock
from magnus.cache import Watcher, install, remove
from magnus.cache._watcher import BOUND
from magnus.cli import main
from magnus.testing import FaultProxy
from tests.facade_fakes import until

SCHEMA = "CREATE TABLE item (id int PRIMARY KEY, price int NOT NULL); INSERT INTO item VALUES (1, 10), (2, 20);"
RAISE = "UPDATE item SET price = price + 1 WHERE id = 1"


@cached(ttl=600.0, tags=["item"])
async def price(db, id):
    return await db.fetchval("SELECT price FROM item WHERE id = $1", id)


@pytest.fixture
async def other(dsn):
    """Another process, as far as the cache can tell."""
    con = await asyncpg.connect(dsn)
    await con.execute(SCHEMA + install(["item"]))
    yield con
    await con.close()


def config(dsn, **more):
    return DatabaseConfig(dsn=dsn, min_pool_size=1, max_pool_size=3, slow_log="off", **more)


def notified(db):
    return db.get_stats()["cache"]["notify"]


async def current(db):
    """Ask until the cache answers by itself."""

    async def is_so():
        await price(db, 1)
        return notified(db)["state"] == "current"

    await until(is_so)
    await price(db, 1)


async def test_a_change_elsewhere_is_heard(dsn, other):
    async with Database(config(dsn, cache_notify=True)) as db:
        await current(db)
        for now in range(11, 16):
            await other.execute(RAISE)

            async def is_seen(now=now):
                return await price(db, 1) == now

            await until(is_seen)
        assert notified(db)["notifications"] + notified(db)["found_by_reading"] >= 5


@pytest.mark.one_version
async def test_the_listening_connection_is_opened_on_demand_and_named(dsn, other):
    """Nobody who caches nothing pays for one, and it is the only one."""
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '%(cache)'"
    async with Database(config(dsn, cache_notify=True)) as db:
        await db.fetchval("SELECT 1")
        assert await other.fetchval(sessions) == 0
        await current(db)
        assert await other.fetchval(sessions) == 1

    async def is_gone():
        return await other.fetchval(sessions) == 0

    await until(is_gone)


async def test_what_no_notification_told_is_found_by_reading(dsn, other):
    async with Database(config(dsn, cache_notify=True)) as db:
        await current(db)
        await other.execute("UPDATE item SET price = 99; ALTER TABLE item DISABLE TRIGGER magnus_cache")
        await until(lambda: _is(db, 99))
        await other.execute("UPDATE item SET price = 7; UPDATE magnus_cache SET version = version + 1")
        await until(lambda: _is(db, 7))
        assert notified(db)["found_by_reading"] == 1


async def _is(db, wanted):
    return await price(db, 1) == wanted


@pytest.mark.one_version
@pytest.mark.parametrize("how", ["terminated", "silent"])
async def test_a_lost_connection_makes_no_answer_older_than_the_bound(dsn, tcp_dsn, other, how):
    """A cut that is heard ends the cache's answers at once, one that is not after the bound; then it starts anew."""
    async with FaultProxy(_address(tcp_dsn)) as proxy, Database(config(dsn, cache_notify=True)) as db:
        db.cache.watcher = Watcher(
            config(proxy.dsn(tcp_dsn)), changed=db.cache.changed, lost=db.cache.clear, clock=MonotonicClock()
        )
        await current(db)
        assert await price(db, 1) == 10
        if how == "terminated":
            await proxy.refuse()
            proxy.cut()
        else:
            proxy.hold()
        await other.execute(RAISE)
        acknowledged = time.monotonic()
        oldest = 0.0
        while (begun := time.monotonic()) < acknowledged + BOUND + 0.5:
            if await price(db, 1) == 10:
                oldest = begun - acknowledged
            await asyncio.sleep(0.005)
        assert oldest <= BOUND
        assert notified(db)["state"] == "bypassed"
        await other.execute(RAISE)
        assert await price(db, 1) == 12
        await proxy.accept()
        proxy.release()
        await current(db)
        assert await price(db, 1) == 12
        assert notified(db)["losses"] >= 1


def _address(dsn):
    from urllib.parse import urlsplit

    parts = urlsplit(dsn)
    return parts.hostname, parts.port


async def test_fresh_misses_nothing_that_was_committed(dsn, other):
    """Without any listening: one more query, and the answer is as if it were read now."""

    @cached(ttl=600.0, tags=["item"], fresh=True)
    async def strict(db):
        return await db.fetchval("SELECT price FROM item WHERE id = 1")

    async with Database(config(dsn)) as db:
        for wanted in range(11, 61):
            await other.execute(RAISE)
            assert await strict(db) == wanted
            assert await price.fresh(db, 1) == wanted
            assert await strict(db) == wanted
        figures = db.get_stats()["cache"]
        assert (figures["misses"], figures["hits"]) == (100, 50)


@pytest.mark.one_version
async def test_fresh_needs_a_trigger_for_every_tag(dsn, other):
    @cached(ttl=1.0, tags=["item", "unknown"], fresh=True)
    async def strict(db):
        return 1

    async with Database(config(dsn)) as db:
        with pytest.raises(ConfigError, match="magnus cache install"):
            await strict(db)
        await other.execute(remove([]))
        with pytest.raises(ConfigError, match="magnus cache install"):
            await price.fresh(db, 1)


async def test_whoever_may_write_need_not_be_allowed_to_raise_versions(other):
    await other.execute("CREATE ROLE cache_writer; GRANT UPDATE, SELECT ON item TO cache_writer; SET ROLE cache_writer")
    try:
        await other.execute(RAISE)
        assert await other.fetchval("SELECT version FROM magnus_cache") == 1
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await other.execute("UPDATE magnus_cache SET version = 0")
    finally:
        await other.execute("RESET ROLE; DROP OWNED BY cache_writer; DROP ROLE cache_writer")


async def test_every_kind_of_change_raises_the_version_once(other):
    await other.execute(install(["item"]))  # again
    statements = ("INSERT INTO item VALUES (3, 3), (4, 4)", RAISE, "DELETE FROM item WHERE id > 2", "TRUNCATE item")
    for statement in statements:
        before = await other.fetchval("SELECT version FROM magnus_cache")
        await other.execute(statement)
        assert await other.fetchval("SELECT version FROM magnus_cache") == before + 1


async def test_a_table_with_a_trigger_costs_no_reset(dsn, other):
    """What the trigger does leaves nothing in the session of who fires it."""
    async with Database(config(dsn)) as db:
        await db.warmup_pool(1)

        async def is_known():
            return db._learner.knowledge.catalogue is not None

        await until(is_known)
        assert db._learner.knowledge.catalogue.danger is None


def _run(*arguments, capsys):
    code = main([*arguments, "--output-format", "json"])
    return code, json.loads(capsys.readouterr().out)


def test_the_command_prints_makes_and_removes(dsn, capsys, background_loop):
    async def execute(text):
        con = await asyncpg.connect(dsn)
        try:
            return await con.fetchval(text)
        finally:
            await con.close()

    background_loop.run(execute("CREATE TABLE item (id int)"))
    triggers = "SELECT count(*)::int FROM pg_trigger WHERE tgname = 'magnus_cache'"
    code, found = _run("-d", dsn, "cache", "install", "item=things", "--print", capsys=capsys)
    assert (code, background_loop.run(execute(triggers))) == (0, 0)
    assert "magnus_cache_changed('things')" in json.dumps(found)
    code, _ = _run("-d", dsn, "cache", "install", "item", capsys=capsys)
    assert (code, background_loop.run(execute(triggers))) == (0, 1)
    code, _ = _run("-d", dsn, "cache", "install", "nowhere", capsys=capsys)
    assert code == 2
    code, _ = _run("-d", dsn, "cache", "remove", capsys=capsys)
    assert (code, background_loop.run(execute(triggers))) == (0, 0)


def test_a_table_that_is_written_all_the_time_gets_no_trigger(dsn, capsys, background_loop):
    async def fill():
        con = await asyncpg.connect(dsn)
        await con.execute("CREATE TABLE busy (id int); INSERT INTO busy SELECT generate_series(1, 20000)")
        await con.execute("SELECT pg_stat_force_next_flush()")
        await con.close()

    background_loop.run(fill())
    code, _ = _run("-d", dsn, "cache", "install", "busy", capsys=capsys)
    assert code == 4


@pytest.mark.parametrize("name", ["", "a.b.c", "a.", "x=", "t=" + "x" * 300])
def test_impossible_names_are_refused(name):
    with pytest.raises(ConfigError):
        install([name])


def test_names_are_quoted():
    assert '"we""ird"."Table"' in install(["we\"ird.Table=it's"])
    assert "'it''s'" in install(["t=it's"])
