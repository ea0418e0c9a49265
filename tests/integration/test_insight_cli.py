"""`magnus top`, `slow` and `activity` as a user types them."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from magnus import Database, DatabaseConfig

MAGNUS = Path(sys.executable).with_name("magnus")


def environment(**more):
    ours = ("PG", "DB_", "MAGNUS", "DATABASE")
    return {**{name: value for name, value in os.environ.items() if not name.startswith(ours)}, **more}


def magnus(dsn, *arguments):
    """Run one command into a pipe."""
    command = [MAGNUS, "-d", dsn, *arguments]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=60, env=environment(), stdin=subprocess.DEVNULL
    )


def magnus_json(dsn, *arguments):
    done = magnus(dsn, "--output-format", "json", *arguments)
    found = json.loads(done.stdout)
    assert (found["format_version"], found["exit_code"]) == ("1.0", done.returncode)
    return found


def on_terminal(dsn, *arguments, answer="", until=""):
    """Run one command on a terminal; type `answer` at once, and interrupt when `until` was shown."""
    parent, child = pty.openpty()
    env = environment(TERM="xterm", COLUMNS="120", LINES="40", NO_COLOR="1")
    with subprocess.Popen([MAGNUS, "-d", dsn, *arguments], stdin=child, stdout=child, stderr=child, env=env) as done:
        os.close(child)
        os.write(parent, answer.encode())
        shown = ""
        while True:
            try:
                data = os.read(parent, 65536)
            except OSError:
                break
            if not data:
                break
            shown += data.decode(errors="replace")
            if until and until in shown:
                done.send_signal(2)
                until = ""
        code = done.wait(60)
        os.close(parent)
    return code, shown


@pytest.fixture
async def logged(dsn):
    """A database with five slow statements in its log, and its DSN."""
    async with Database(DatabaseConfig(dsn=dsn, min_pool_size=1, slow_query_threshold=0.02)) as db:
        for number in range(4):
            await db.fetch("SELECT pg_sleep(0.03), $1::text", f"heron {number}")
        await db.fetch("SELECT pg_sleep(0.06), abs(1)")
    return dsn


async def test_top_shows_where_the_time_goes(logged, database):
    """Sorted, in one line a statement whatever its length, and the same for machines."""
    done = await asyncio.to_thread(magnus, logged, "top", "--order", "mean", "--limit", "9999")
    assert (done.returncode, done.stderr) == (0, "")
    assert "SELECT pg_sleep($2), $1::text" in done.stdout
    found = await asyncio.to_thread(magnus_json, logged, "top", "--order", "calls", "--limit", "9999")
    listed = [each for each in found["statements"] if each["database"] == database]  # other tests used the server too
    (ours,) = [each for each in listed if each["query"] == "SELECT pg_sleep($2), $1::text"]
    assert (ours["calls"], ours["rows"]) == (4, 4)
    assert isinstance(ours["queryid"], str)
    calls = [each["calls"] for each in found["statements"]]
    assert calls == sorted(calls, reverse=True)
    assert "heron" not in done.stdout


async def test_top_shows_what_happens_now(logged):
    """An interval into a pipe is shown once."""
    found = await asyncio.to_thread(magnus_json, logged, "top", "--interval", "0.2s")
    assert 0.2 <= found["interval_s"] < 30


async def test_slow_shows_the_log_by_kinds(logged):
    """Counts are exact; caller, trend and times are there."""
    done = await asyncio.to_thread(magnus, logged, "slow", "--order", "count")
    assert (done.returncode, done.stderr) == (0, "")
    assert "5 slow statements in the last 1d, 2 kinds." in done.stdout
    assert f"{__name__}:logged:" in done.stdout
    first, second = (await asyncio.to_thread(magnus_json, logged, "slow", "--since", "1h", "--order", "count"))[
        "groups"
    ]
    assert (first["query"], first["occurrences"], first["failed"]) == ("SELECT pg_sleep($2), $1::text", 4, 0)
    assert 30 <= first["avg_ms"] <= first["p95_ms"] <= first["max_ms"] <= first["total_ms"]
    assert (len(first["trend"]), first["trend"][-1]) == (12, 4)
    by_mean = (await asyncio.to_thread(magnus_json, logged, "slow", "--order", "mean"))["groups"]
    assert by_mean[0]["fingerprint"] == second["fingerprint"]
    plan = await asyncio.to_thread(magnus_json, logged, "slow", "--plan", first["fingerprint"])
    assert plan["plan"][0]["Plan"]["Node Type"] == "Result"
    missing = await asyncio.to_thread(magnus, logged, "slow", "--plan", "nope")
    assert (missing.returncode, "no plan is kept" in missing.stderr) == (1, True)


@pytest.mark.one_version
async def test_slow_reads_a_table_made_by_hand(dsn):
    """As far as its columns go."""
    con = await asyncpg.connect(dsn)
    await con.execute(
        "CREATE TABLE slow_query_log (id SERIAL PRIMARY KEY, query TEXT NOT NULL, duration_ms NUMERIC(10, 2) NOT NULL,"
        " threshold_ms NUMERIC(10, 2) NOT NULL, timestamp TIMESTAMP NOT NULL DEFAULT NOW(), query_signature TEXT);"
        "INSERT INTO slow_query_log (query, duration_ms, threshold_ms) VALUES ('fetch', 150, 100), ('fetch', 250, 100)"
    )
    await con.close()
    (group,) = (await asyncio.to_thread(magnus_json, dsn, "slow"))["groups"]
    assert (group["query"], group["occurrences"], group["avg_ms"]) == ("fetch", 2, 200)


@pytest.mark.one_version
def test_the_logs_table_is_made_printed_and_removed(dsn):
    """Removing asks; where nobody can be asked it refuses, and nothing is changed."""
    assert magnus(dsn, "slow").returncode == 3
    printed = magnus(dsn, "slow", "install", "--print").stdout
    assert "CREATE TABLE IF NOT EXISTS slow_query_log" in printed
    assert magnus(dsn, "slow", "install").returncode == 0
    assert magnus(dsn, "slow").stdout == "Nothing was slow in the last 1d.\n"
    refused = magnus(dsn, "slow", "remove")
    assert (refused.returncode, refused.stderr.startswith("magnus: nothing was removed")) == (4, True)
    assert on_terminal(dsn, "slow", "remove", answer="no\n")[0] == 4
    assert magnus(dsn, "slow").returncode == 0
    code, shown = on_terminal(dsn, "slow", "remove", answer="yes\n")
    assert (code, "are removed" in shown) == (0, True)
    assert magnus(dsn, "slow").returncode == 3


async def test_activity_shows_who_blocks_whom_and_ends_it_on_confirmation(dsn):
    """The tree; a cancel that was not confirmed does nothing."""
    blocker, waiter = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    try:
        await blocker.execute("CREATE TABLE t (x int)")
        await blocker.execute("BEGIN; LOCK TABLE t")
        task = asyncio.ensure_future(waiter.execute("INSERT INTO t VALUES (42)"))
        pids = blocker.get_server_pid(), waiter.get_server_pid()
        async with asyncio.timeout(60):
            while not (found := await asyncio.to_thread(magnus_json, dsn, "activity"))["blocking"]:
                assert not task.done()
        assert found["blocking"] == [{"pid": pids[0], "waiters": [{"pid": pids[1], "waiters": []}]}]
        shown = (await asyncio.to_thread(magnus, dsn, "activity")).stdout
        assert f"└─ {pids[1]} postgres waits" in shown
        assert "RowExclusiveLock on t: INSERT INTO t VALUES ($1)" in shown

        refused = await asyncio.to_thread(magnus, dsn, "activity", "--cancel", str(pids[1]))
        assert (refused.returncode, task.done()) == (4, False)
        code, question = await asyncio.to_thread(on_terminal, dsn, "activity", "--cancel", str(pids[1]), answer="yes\n")
        assert code == 0
        assert f"Cancel the statement of session {pids[1]}" in question
        with pytest.raises(asyncpg.QueryCanceledError):
            await task
        done = await asyncio.to_thread(magnus, dsn, "activity", "--terminate", str(pids[0]), "--yes")
        assert done.returncode == 0
        gone = await asyncio.to_thread(magnus, dsn, "activity", "--terminate", str(pids[0]), "--yes")
        assert gone.returncode == 4
    finally:
        blocker.terminate()
        waiter.terminate()


@pytest.mark.one_version
def test_a_terminal_is_drawn_in_place_until_it_is_interrupted(dsn):
    """The first frame comes, Ctrl-C ends it with 130."""
    code, shown = on_terminal(dsn, "activity", "--idle", "--interval", "0.1s", until="sessions:")
    assert code == 130
    assert "\x1b[?1049h" in shown  # the alternate screen
    assert "\x1b[?1049l" in shown


@pytest.mark.one_version
def test_a_missing_extension_says_what_to_run(dsn):
    """Exit code 3; for machines too."""

    async def drop():
        con = await asyncpg.connect(dsn)
        await con.execute("DROP EXTENSION pg_stat_statements")
        await con.close()

    asyncio.run(drop())
    done = magnus(dsn, "top")
    assert (done.returncode, "CREATE EXTENSION pg_stat_statements" in done.stderr) == (3, True)
    assert "CREATE EXTENSION" in magnus_json(dsn, "top")["advice"]
