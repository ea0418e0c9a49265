"""Statement statistics and sessions read from a real server, in every version of the extension that it has."""

import asyncio
import contextlib

import asyncpg
import pytest

from magnus import insight
from magnus.embedded import throwaway
from tests.facade_fakes import until
from tests.servers import binaries_or_skip

TOP_BY_TOTAL = """
SELECT
    calls,
    ROUND(total_exec_time::numeric / 1000, 2) AS total_seconds,
    ROUND(mean_exec_time::numeric, 2) AS avg_ms,
    ROUND(max_exec_time::numeric, 2) AS max_ms,
    LEFT(query, 100) AS query_preview
FROM pg_stat_statements
WHERE calls > 10
ORDER BY total_exec_time DESC
LIMIT 10;
"""
TOP_BY_MEAN = """
SELECT
    calls,
    ROUND(mean_exec_time::numeric, 2) AS avg_ms,
    LEFT(query, 100) AS query_preview
FROM pg_stat_statements
WHERE calls > 10
ORDER BY mean_exec_time DESC
LIMIT 10;
"""
MOST_CALLED = """
SELECT
    calls,
    ROUND(mean_exec_time::numeric, 2) as avg_ms,
    LEFT(query, 80) as query
FROM pg_stat_statements
ORDER BY calls DESC
LIMIT 20;
"""
VERSIONS = ("1.8", "1.9", "1.10", "1.11", "1.12")


@pytest.fixture
async def con(dsn):
    """The one who looks."""
    found = await asyncpg.connect(dsn)
    yield found
    await found.close()


@pytest.fixture
async def worker(dsn):
    """The one who works."""
    found = await asyncpg.connect(dsn)
    yield found
    await found.close()


async def created(con, version):
    """Whether this server can have the extension in that version."""
    await con.execute("DROP EXTENSION pg_stat_statements")
    known = await con.fetch("SELECT version FROM pg_available_extension_versions WHERE name = 'pg_stat_statements'")
    if version not in {row["version"] for row in known}:
        # A version is reached by its updates too, from the oldest script that is there.
        with contextlib.suppress(asyncpg.PostgresError):
            await con.execute(f"CREATE EXTENSION pg_stat_statements VERSION '{version}'")
            return True
        await con.execute("CREATE EXTENSION pg_stat_statements")
        return False
    await con.execute(f"CREATE EXTENSION pg_stat_statements VERSION '{version}'")
    return True


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_version_of_the_extension_is_read_right(con, worker, version, pg_version):
    """By its columns: calls are exact, times are those of the statements, blocks and WAL where they are counted."""
    if not await created(con, version):
        assert (version, pg_version) in {("1.11", 15), ("1.12", 15)}, "every server has all versions up to its own"
        return
    found = await insight.extension(con)
    assert found.version == version
    assert found.has_info == (version != "1.8")
    before = await insight.snapshot(con, found)
    assert (before.reset_at is None) == (version == "1.8")
    for _ in range(12):
        await worker.fetch("SELECT pg_sleep(0.01), $1::int", 1)
    await worker.execute("CREATE TABLE t AS SELECT x FROM generate_series(1, 10000) AS x")
    await worker.fetch("SELECT count(*) FROM t")
    happened = insight.delta(before, await insight.snapshot(con, found))
    assert (happened.lost, happened.restarted) == (0, 0)
    listed = await insight.statements(con, found, happened)
    by_text = {statement.query: statement.counters for statement in listed}
    slept = by_text["SELECT pg_sleep($2), $1::int"]
    assert (slept.calls, slept.rows) == (12, 12)
    assert 0.010 <= slept.mean < 1
    made = by_text["CREATE TABLE t AS SELECT x FROM generate_series($1, $2) AS x"]
    assert (made.rows, made.wal_bytes > 0) == (10_000, True)
    assert by_text["SELECT count(*) FROM t"].blocks_hit > 40
    assert sum(statement.share for statement in listed) <= 1.0001
    everything = insight.total(await insight.snapshot(con, found))
    assert insight.calls_of(everything) > insight.calls_of(happened)


async def test_the_reports_agree_with_what_was_run(con, worker, database):
    """Word by word; calls are exact, and our own list says the same."""
    await con.execute("SELECT pg_stat_statements_reset()")
    for _ in range(15):
        await worker.fetch("SELECT pg_sleep(0.004), 'by literal'")
    for _ in range(30):
        await worker.fetch("SELECT $1::int + 1", 1)
    by_total = {row["query_preview"]: row for row in await con.fetch(TOP_BY_TOTAL)}
    by_mean = {row["query_preview"]: row for row in await con.fetch(TOP_BY_MEAN)}
    called = {row["query"]: row for row in await con.fetch(MOST_CALLED)}
    slept = by_total["SELECT pg_sleep($1), $2"]
    assert (
        slept["calls"]
        == by_mean["SELECT pg_sleep($1), $2"]["calls"]
        == called["SELECT pg_sleep($1), $2"]["calls"]
        == 15
    )
    assert called["SELECT $1::int + $2"]["calls"] == 30
    assert 4 <= slept["avg_ms"] <= slept["max_ms"] <= 1000 * slept["total_seconds"] + 10

    found = await insight.extension(con)
    listed = await insight.statements(con, found, insight.total(await insight.snapshot(con, found)), order="calls")
    ours = {each.query: each for each in listed if each.database == database}
    assert ours["SELECT pg_sleep($1), $2"].counters.calls == 15
    assert round(ours["SELECT pg_sleep($1), $2"].counters.mean * 1000, 2) == float(slept["avg_ms"])
    assert next(iter(ours)) == "SELECT $1::int + $2"


async def test_a_reset_between_two_looks_is_survived(con, worker):
    """What was counted since is right, and that something is missing is said. Nothing is reset by us."""
    found = await insight.extension(con)
    for _ in range(5):
        await worker.fetch("SELECT 1 + 1")
    before = await insight.snapshot(con, found)
    await worker.execute("SELECT pg_stat_statements_reset()")
    for _ in range(2):
        await worker.fetch("SELECT 1 + 1")
    happened = insight.delta(before, await insight.snapshot(con, found))
    (row,) = [each for each in await insight.statements(con, found, happened) if each.query == "SELECT $1 + $2"]
    assert row.counters.calls == 2
    assert any("reset" in note for note in happened.notes)


async def test_the_drivers_and_our_own_statements_are_left_out(con, worker):
    """Reading about types, and reading these statistics."""
    await worker.execute("CREATE TYPE mood AS ENUM ('a'); CREATE TYPE pair AS (a mood, b int)")
    await worker.fetch("SELECT ($1::pair).a", ("a", 1))
    found = await insight.extension(con)
    await insight.sessions(con)
    texts = [
        each.query
        for each in await insight.statements(
            con, found, insight.total(await insight.snapshot(con, found)), limit=100_000
        )
    ]
    assert "SELECT ($1::pair).a" in texts
    assert not [text for text in texts if "typeinfo_tree" in text or "pg_stat_statements" in text]


async def test_utility_statements_lose_their_secrets(con, worker):
    """The extension keeps them as they were sent."""
    with contextlib.suppress(asyncpg.DuplicateObjectError):
        await worker.execute("CREATE ROLE insight_role PASSWORD 'hunter2canary'")
    await worker.execute("ALTER ROLE insight_role PASSWORD 'hunter2canary'")
    found = await insight.extension(con)
    listed = await insight.statements(con, found, insight.total(await insight.snapshot(con, found)), limit=100_000)
    assert "ALTER ROLE insight_role PASSWORD $1" in [each.query for each in listed]
    assert "hunter2canary" not in repr(listed)


async def test_what_is_missing_is_said_with_what_to_run(con, server, database):
    """No extension; a role that sees only its own."""
    with contextlib.suppress(asyncpg.DuplicateObjectError):
        await con.execute("CREATE ROLE plain_role LOGIN")
    plain = await asyncpg.connect(server.dsn(database=database, user="plain_role"))
    try:
        found = await insight.extension(plain)
        assert "GRANT pg_read_all_stats TO plain_role" in found.notes[0]
        await insight.snapshot(plain, found)
        await con.execute("DROP EXTENSION pg_stat_statements")
        with pytest.raises(insight.Unavailable) as caught:
            await insight.extension(plain)
        assert (caught.value.reason, caught.value.advice[:35]) == ("not_created", "CREATE EXTENSION pg_stat_statements")
    finally:
        await plain.close()
    with pytest.raises(insight.Unavailable) as caught:
        await insight.groups(con)
    assert (caught.value.reason, "magnus slow install" in caught.value.advice) == ("no_table", True)


async def test_a_library_that_is_not_preloaded_is_named_with_those_that_are(pg_version):
    """The advice keeps what is there; without the right to see the setting the read itself tells."""
    with throwaway(binaries_or_skip(pg_version), settings={"shared_preload_libraries": "auto_explain"}) as other:
        con = await asyncpg.connect(other.dsn())
        try:
            with pytest.raises(insight.Unavailable) as caught:
                await insight.extension(con)
            assert "shared_preload_libraries = auto_explain, pg_stat_statements" in caught.value.advice
            assert "CREATE EXTENSION" in caught.value.advice
            await con.execute("CREATE EXTENSION pg_stat_statements; CREATE ROLE plain LOGIN; SET ROLE plain")
            found = await insight.extension(con)
            with pytest.raises(insight.Unavailable) as caught:
                await insight.snapshot(con, found)
            assert caught.value.reason == "not_preloaded"
        finally:
            await con.close()


async def test_sessions_and_who_blocks_whom(con, worker, dsn):
    """A waiter stands under its blocker, with the lock it waits for; a cancel ends its statement."""
    await con.execute("CREATE TABLE t (x int)")
    waiter = await asyncpg.connect(dsn)
    transaction = worker.transaction()
    await transaction.start()
    await worker.execute("LOCK TABLE t")
    task = asyncio.ensure_future(waiter.execute("INSERT INTO t VALUES (42)"))
    try:

        async def is_blocked():
            return bool(insight.blocking_tree(await insight.sessions(con)))

        await until(is_blocked)
        found = await insight.sessions(con)
        (root,) = insight.blocking_tree(found)
        assert root.session.pid == worker.get_server_pid()
        assert [each.session.pid for each in root.waiters] == [waiter.get_server_pid()]
        assert root.waiters[0].session.waits_for == "RowExclusiveLock on t"
        assert root.waiters[0].session.query == "INSERT INTO t VALUES ($1)"
        assert con.get_server_pid() not in {each.pid for each in found}
        assert await insight.end(con, waiter.get_server_pid(), whole_session=False)
        with pytest.raises(asyncpg.QueryCanceledError):
            await task
        assert await insight.end(con, waiter.get_server_pid(), whole_session=True)
    finally:
        await transaction.rollback()
        waiter.terminate()
