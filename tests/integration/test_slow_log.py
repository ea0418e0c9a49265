"""The slow-query log on a real server: what lands in its table, how, and what happens when it cannot."""

import asyncio
import contextlib
import io
import json
import uuid

import asyncpg
import pytest

import magnus
from magnus import Database, DatabaseConfig, QueryPriority, QueryTimeout, sql
from magnus.observe import SlowLogEventsOnly, SlowLogLeftOut, SlowLogRecovered, SlowQuery
from tests.facade_fakes import until

SLOW = 0.02
SLEEP = "SELECT pg_sleep(0.03)"
PLAIN_ROLE = "CREATE ROLE plain_role LOGIN"


def config_of(dsn, **changes):
    """Few connections; statements over 20 ms are slow."""
    return DatabaseConfig(
        **{"dsn": dsn, "min_pool_size": 1, "max_pool_size": 4, "slow_query_threshold": SLOW} | changes
    )


@contextlib.asynccontextmanager
async def opened(dsn, **changes):
    """A connected database; its events are in `db.seen`."""
    seen = []
    async with Database(config_of(dsn, **changes), observers=[seen.append]) as db:
        db.seen = seen
        yield db


async def ask(dsn, text, *args):
    """Run one query beside everything else."""
    con = await asyncpg.connect(dsn)
    try:
        return await con.fetch(text, *args)
    finally:
        await con.close()


async def ask_all(dsn, *texts, before=""):
    """Run scripts, as psql would; `before` may fail."""
    con = await asyncpg.connect(dsn)
    try:
        if before:
            with contextlib.suppress(asyncpg.DuplicateObjectError):
                await con.execute(before)
        for text in texts:
            await con.execute(text)
    finally:
        await con.close()


async def count(dsn, where="true"):
    """How many rows the log has."""
    return (await ask(dsn, f"SELECT count(*) FROM slow_query_log WHERE {where}"))[0]["count"]


async def until_answered(db):
    """Wait until the database answers again."""
    await until(db.health_check)


async def written(db, rows):
    """Wait until so many rows are in the table."""

    async def is_there():
        return db.get_stats()["slow_log"]["written"] >= rows

    await until(is_there)


async def test_a_slow_statement_lands_in_the_table(dsn, target):
    """With what is known of it; the table is made when it is first needed."""
    async with opened(**target) as db:
        await db.fetch("SELECT pg_sleep(0.03), $1::int AS x, 'canary'", 3, priority=QueryPriority.HIGH)
        await db.fetch("SELECT 1")
        await written(db, 1)

    (row,) = await ask(dsn, "SELECT * FROM slow_query_log")
    assert row["query"] == "SELECT pg_sleep($2), $1::int AS x, $3"
    assert row["duration_ms"] >= 30
    assert row["threshold_ms"] == 20
    assert (row["lane"], row["attempts"], row["rows"], row["outcome"]) == ("high", 1, 1, "ok")
    assert row["caller"].startswith(f"{__name__}:test_a_slow_statement_lands_in_the_table:")
    assert row["application"] == "ava_trading_platform"
    assert row["query_signature"] == "SELECT"
    assert row["fingerprint"]
    assert row["bind_values"] is None


# --- every path


async def slow_texts(dsn, **where):
    """The texts in the log, in order, without COMMIT, which is slow when the machine is busy."""
    rows = await ask(dsn, "SELECT query FROM slow_query_log WHERE query <> 'COMMIT' ORDER BY id")
    return [row["query"] for row in rows]


async def through_every_path(con):
    """One slow statement by every method of a connection's; all of them are in a transaction."""
    await con.execute("CREATE TEMP TABLE slowly (x int, y text); SELECT pg_sleep(0.03)")
    await con.execute("/* 1 */ SELECT pg_sleep(0.03), 1")
    await con.fetch(f"{SLEEP}, abs(2)")
    await con.fetchrow(f"{SLEEP}, sqrt(3)")
    await con.fetchval(f"{SLEEP}, ceil(4)")
    await con.fetchmany(f"{SLEEP}, floor($1::int)", [(5,), (6,)])
    await con.executemany(f"{SLEEP}, sign($1::int)", [(7,), (8,)])
    statement = await con.prepare(f"{SLEEP}, exp($1::int)")
    await statement.fetch(9)
    await statement.fetchval(9)
    async for _ in con.cursor(f"{SLEEP}, ln(10)"):
        pass
    async for _ in statement.cursor(11):
        pass
    cursor = await con.cursor("SELECT pg_sleep(0.03 * x), cbrt(12) FROM generate_series(0, 1) AS x")
    await cursor.fetch(5)

    async def slowly(rows):
        for row in rows:
            await asyncio.sleep(0.03)
            yield row

    await con.copy_records_to_table("slowly", records=slowly([(1, "canary")]))
    await con.copy_to_table("slowly", source=slowly([b"1\tcanary\n"]))

    async def take(data):
        await asyncio.sleep(0.03)

    await con.copy_from_table("slowly", output=take)
    await con.copy_from_query(f"{SLEEP}, round(13)", output=take)


EVERY_PATH = [
    "CREATE TEMP TABLE slowly (x int, y text); SELECT pg_sleep($1)",
    "SELECT pg_sleep($1), $2",
    *(f"SELECT pg_sleep($1), {name}($2)" for name in ("abs", "sqrt", "ceil")),
    *(f"SELECT pg_sleep($2), {name}($1::int)" for name in ("floor", "sign", "exp", "exp")),
    "SELECT pg_sleep($1), ln($2)",
    "SELECT pg_sleep($2), exp($1::int)",
    "SELECT pg_sleep($1 * x), cbrt($2) FROM generate_series($3, $4) AS x",
    "COPY slowly FROM STDIN",
    "COPY slowly FROM STDIN",
    "COPY slowly TO STDOUT",
    "SELECT pg_sleep($1), round($2)",
]


async def test_every_method_of_a_transaction_appears(dsn):
    """Cursors, COPY and prepared statements too; what the transaction rolls back is in the log all the same."""
    async with opened(dsn) as db:
        with contextlib.suppress(ZeroDivisionError):
            async with db.transaction() as tx:
                await through_every_path(tx)
                raise ZeroDivisionError
    assert await slow_texts(dsn) == EVERY_PATH
    copied = await ask(dsn, "SELECT rows FROM slow_query_log WHERE query LIKE 'COPY%' ORDER BY id")
    assert [row["rows"] for row in copied] == [1, 1, 2]


async def test_commit_appears_and_every_attempt_of_a_unit_with_its_number(dsn, target):
    """It is where waiting for the disk and for standbys shows; what was rolled back has none."""
    runs = []

    async def work(tx):
        runs.append(1)
        await tx.execute("SELECT 1 AS work")
        if len(runs) == 1:
            await tx.execute("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")

    async with opened(**target, slow_query_threshold=0.0, retry_delay=0.01) as db:
        await db.run_in_transaction(work)
        async with db.transaction() as tx:
            await tx.execute("SELECT abs(2)")
        counted = db.get_stats()["query_stats"]["total"]
    rows = await ask(dsn, "SELECT query, attempts, outcome FROM slow_query_log ORDER BY id")
    assert [(row["query"], row["attempts"], row["outcome"]) for row in rows if "DO" not in row["query"]] == [
        ("SELECT $1 AS work", 1, "ok"),
        ("SELECT $1 AS work", 2, "ok"),
        ("COMMIT", 2, "ok"),
        ("SELECT abs($1)", 1, "ok"),
        ("COMMIT", 1, "ok"),
    ]
    assert counted == 4, "COMMIT is nobody's statement"


async def test_every_method_of_create_pools_connections_appears_when_asked_for(dsn):
    """The same statements give the same log; without a threshold there is no table."""
    async with magnus.create_pool(dsn, min_size=1, max_size=1) as pool:
        await pool.fetch(SLEEP)
    assert (await ask(dsn, "SELECT to_regclass('slow_query_log') AS found"))[0]["found"] is None

    async with magnus.create_pool(
        dsn, min_size=1, max_size=1, slow_query_threshold=SLOW, server_settings={"application_name": "compat"}
    ) as pool:
        async with pool.acquire() as con, con.transaction():
            await through_every_path(con)
        await pool.fetch(SLEEP)
        with pytest.raises(asyncpg.DivisionByZeroError):
            await pool.fetch("SELECT 1 / x FROM (SELECT 0 AS x, pg_sleep(0.03) OFFSET 0) AS y")
    assert await slow_texts(dsn) == [
        *EVERY_PATH,
        "SELECT pg_sleep($1)",
        "SELECT $1 / x FROM (SELECT $2 AS x, pg_sleep($3) OFFSET $4) AS y",
    ]
    (last,) = await ask(dsn, "SELECT * FROM slow_query_log ORDER BY id DESC LIMIT 1")
    assert (last["outcome"], last["sqlstate"], last["application"]) == ("failed", "22012", "compat")
    assert last["caller"].startswith(f"{__name__}:test_every_method_of_create_pools")


async def test_every_method_of_the_database_appears(dsn, target):
    """Each on a lease of its own."""
    async with opened(**target) as db:
        await db.execute("CREATE TABLE t (x int)")
        await db.execute(SLEEP)
        await db.fetch(f"{SLEEP}, abs(1)")
        await db.fetchrow(f"{SLEEP}, sqrt(1)")
        await db.fetchval(f"{SLEEP}, ceil(1)")
        await db.fetch_with_priority(f"{SLEEP}, floor(1)", priority=QueryPriority.LOW)
        await db.executemany(f"{SLEEP}, sign($1::int)", [(1,), (2,)])
        async with db.cursor(f"{SLEEP}, exp(1)") as rows:
            async for _ in rows:
                pass

        async def slowly():
            await asyncio.sleep(0.03)
            yield (1,)

        await db.copy_records_to_table("t", records=slowly(), where="x > 0")
        await db.copy_from_query(f"{SLEEP}, ln(1)", output=io.BytesIO())
    found = list(dict.fromkeys(text for text in await slow_texts(dsn) if not text.startswith("CREATE")))
    assert found == [
        "SELECT pg_sleep($1)",
        *(f"SELECT pg_sleep($1), {name}($2)" for name in ("abs", "sqrt", "ceil", "floor")),
        "SELECT pg_sleep($2), sign($1::int)",
        "SELECT pg_sleep($1), exp($2)",
        "COPY t FROM STDIN WHERE x > $1",
        "SELECT pg_sleep($1), ln($2)",
    ]


async def test_what_failed_timed_out_or_was_cancelled_appears(dsn):
    """With how it ended, and the server's code where it gave one."""
    async with opened(dsn) as db:
        with pytest.raises(asyncpg.DivisionByZeroError):
            await db.fetch("SELECT 1 / x FROM (SELECT 0 AS x, pg_sleep(0.03) OFFSET 0) AS y")
        with pytest.raises(QueryTimeout):
            await db.fetch("SELECT pg_sleep(5), 'by the client'", timeout=0.05)
        async with db.acquire() as con:
            with pytest.raises(QueryTimeout):
                await con.fetch("SELECT pg_sleep(5), 'on a lease' AS x", timeout=0.05)
        task = asyncio.ensure_future(db.fetch("SELECT pg_sleep(5), 'cancelled' AS y"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    found = await ask(dsn, "SELECT outcome, sqlstate, caller FROM slow_query_log ORDER BY id")
    assert [(row["outcome"], row["sqlstate"]) for row in found] == [
        ("failed", "22012"), ("timed_out", None), ("timed_out", None), ("cancelled", None),
    ]  # fmt: skip
    assert [row["caller"] is None for row in found] == [False, False, False, True]  # a task of its own


# --- the mission's reports


TODAY = """
SELECT query, COUNT(*) as occurrences, ROUND(AVG(duration_ms), 2) as avg_ms, ROUND(MAX(duration_ms), 2) as max_ms
FROM slow_query_log
WHERE timestamp > NOW() - INTERVAL '1 day'
GROUP BY query
ORDER BY occurrences DESC, avg_ms DESC
LIMIT 20;
"""
THIS_HOUR = """
SELECT query, COUNT(*) as count, ROUND(AVG(duration_ms), 2) as avg_ms
FROM slow_query_log
WHERE timestamp > NOW() - INTERVAL '1 hour'
GROUP BY query
ORDER BY count DESC;
"""


async def test_both_reports_agree_with_what_was_run(dsn):
    """One row a statement, whatever literals it was sent with; counts are exact, and times those of the calls."""
    async with opened(dsn, slow_query_threshold=0.0) as db:
        for number in range(7):
            await db.fetch(f"SELECT pg_sleep(0.0{number % 3 + 1}), 'canary {number}'")
        for _ in range(4):
            await db.fetch("SELECT pg_sleep($1)", 0.05)
    today, hour = await ask(dsn, TODAY), await ask(dsn, THIS_HOUR)
    assert [(row["query"], row["occurrences"]) for row in today] == [
        ("SELECT pg_sleep($1), $2", 7), ("SELECT pg_sleep($1)", 4),
    ]  # fmt: skip
    assert [(row["query"], row["count"], row["avg_ms"]) for row in hour] == [
        (row["query"], row["occurrences"], row["avg_ms"]) for row in today
    ]
    assert all(least <= row["avg_ms"] <= row["max_ms"] for row, least in zip(today, (18, 50), strict=True))


async def test_the_servers_id_joins_the_log_with_pg_stat_statements(dsn):
    """For parameters, for literals, and for lists; each is asked for once."""
    texts = [
        ("SELECT pg_sleep(0.03), $1::text", ["canary"]),
        ("SELECT pg_sleep(0.03), $1::int[], $2::uuid, $3::timestamptz, $4::jsonb", [[1], uuid.UUID(int=7), None, "{}"]),
        ("SELECT pg_sleep(0.03) WHERE 'canary' <> 'x' AND 1 IN (1, 2, 3)", []),
    ]
    async with opened(dsn, slow_query_threshold=0.0) as db:
        for text, values in texts:
            await db.fetch(text, *values)
            await db.fetch(text, *values)
    found = await ask(
        dsn,
        "SELECT l.query, s.calls, count(*) AS logged FROM slow_query_log l JOIN pg_stat_statements s USING (queryid) "
        "WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND s.toplevel "
        "GROUP BY l.query, s.calls",
    )
    assert [(row["calls"], row["logged"]) for row in found] == [(2, 2)] * 3
    plans = await ask(dsn, "SELECT fingerprint, queryid, query, plan::text AS plan, cost FROM slow_query_plan")
    assert {row["query"] for row in plans} == {row["query"] for row in found}
    assert all(row["queryid"] and row["cost"] > 0 and "Node Type" in row["plan"] for row in plans)
    assert "canary" not in "".join(row["plan"] for row in plans)


async def test_a_generic_plan_is_of_no_value_in_particular(dsn):
    """An unknown value is estimated from the whole table, where NULL would be planned as no row at all."""
    await ask(dsn, "CREATE TABLE t AS SELECT x % 10 AS x FROM generate_series(1, 2000) AS x")
    await ask(dsn, "ANALYZE t")
    async with opened(dsn, slow_query_threshold=0.0) as db:
        await db.fetch("SELECT x FROM t WHERE x = $1", 3)
    (row,) = await ask(dsn, "SELECT plan FROM slow_query_plan WHERE query LIKE '%FROM t%'")
    plan = json.loads(row["plan"])[0]["Plan"]
    assert (plan["Node Type"], plan["Plan Rows"], plan["Filter"]) == ("Seq Scan", 200, "(t.x = $1)")


# --- the table


async def test_a_table_made_by_hand_is_brought_up_to_date(dsn):
    """SERIAL becomes bigint, TIMESTAMP gets its zone, NUMERIC(10, 2) no longer overflows; what was in it stays."""
    await ask_all(
        dsn,
        "CREATE TABLE slow_query_log (id SERIAL PRIMARY KEY, query TEXT NOT NULL, duration_ms NUMERIC(10, 2) NOT NULL,"
        " threshold_ms NUMERIC(10, 2) NOT NULL, timestamp TIMESTAMP NOT NULL DEFAULT NOW(), query_signature TEXT)",
        "INSERT INTO slow_query_log (query, duration_ms, threshold_ms) VALUES ('old', 150, 100)",
    )
    async with opened(dsn) as db:
        await db.fetch(SLEEP)
    rows = await ask(dsn, "SELECT * FROM slow_query_log ORDER BY id")
    assert [row["query"] for row in rows] == ["old", "SELECT pg_sleep($1)"]
    assert rows[0]["timestamp"].tzinfo is not None
    types = await ask(dsn, "SELECT pg_typeof(id)::text AS id, pg_typeof(timestamp)::text AS at FROM slow_query_log")
    assert tuple(types[0]) == ("bigint", "timestamp with time zone")
    assert [row["query"] for row in await ask(dsn, TODAY)] == ["old", "SELECT pg_sleep($1)"]


async def test_an_older_table_is_written_as_it_is_where_it_may_not_be_changed(dsn, database, server):
    """Columns that are not there are left out; nothing is lost and nobody is troubled."""
    await ask_all(
        dsn,
        "CREATE TABLE slow_query_log (id SERIAL PRIMARY KEY, query TEXT NOT NULL, duration_ms NUMERIC(10, 2) NOT NULL,"
        " threshold_ms NUMERIC(10, 2) NOT NULL, timestamp TIMESTAMP NOT NULL DEFAULT NOW(), query_signature TEXT)",
        "GRANT INSERT, SELECT ON slow_query_log TO plain_role",
        "GRANT USAGE ON slow_query_log_id_seq TO plain_role",
        before=PLAIN_ROLE,
    )
    async with opened(server.dsn(database=database, user="plain_role")) as db:
        await db.fetch(SLEEP)
        await written(db, 1)
        assert not db.seen
    (row,) = await ask(dsn, TODAY)
    assert row["query"] == "SELECT pg_sleep($1)"


@pytest.mark.parametrize(("may_create", "reason"), [(True, "no_permission"), (False, "no_table")])
async def test_without_a_table_there_are_events_and_it_is_said_once(dsn, database, server, may_create, reason):
    """The role may not create it, or nothing may: every slow statement is an event, without literals."""
    await ask_all(dsn, before=PLAIN_ROLE)
    target = server.dsn(database=database, user="plain_role")
    async with opened(target, slow_log_create=may_create) as db:
        for number in range(3):
            await db.fetch(f"SELECT pg_sleep(0.03), 'canary {number}'")

        async def is_told():
            return sum(isinstance(event, SlowQuery) for event in db.seen) == 3

        await until(is_told)
        assert db.get_stats()["slow_log"]["state"] == "events"
    first, *others = db.seen
    assert isinstance(first, SlowLogEventsOnly)
    assert (first.reason, "magnus slow install" in first.advice) == (reason, True)
    assert [event.query for event in others] == ["SELECT pg_sleep($1), $2"] * 3
    assert all(event.duration_ms >= 30 and event.caller for event in others)
    assert "canary" not in repr(db.seen)


async def test_it_can_be_switched_to_events_or_off(dsn):
    """No connection is opened and no table made; off, only the count is left."""
    async with opened(dsn, slow_log="events") as db:
        await db.fetch(SLEEP)
    assert [type(event) for event in db.seen] == [SlowQuery]
    async with opened(dsn, slow_log="off") as db:
        await db.fetch(SLEEP)
        assert db.get_stats()["query_stats"]["slow_queries"] == 1
        assert "slow_log" not in db.get_stats()
    assert not db.seen
    assert (await ask(dsn, "SELECT to_regclass('slow_query_log') AS found"))[0]["found"] is None


async def test_old_and_excess_rows_are_deleted(dsn):
    """By age and by number; 0 keeps everything."""
    await ask_all(dsn, sql.text("slow_query_log"))
    await ask_all(
        dsn,
        "INSERT INTO slow_query_log (query, duration_ms, threshold_ms, timestamp)"
        " SELECT 'old ' || x, 1, 1, now() - x * interval '1 day' FROM generate_series(1, 20) AS x ORDER BY x DESC",
    )
    async with opened(dsn, slow_log_days=0.0, slow_log_rows=0) as db:
        await db.fetch(SLEEP)
    assert await count(dsn) == 21
    await ask_all(
        dsn,
        "INSERT INTO slow_query_plan (fingerprint, query, plan, planned_at)"
        " SELECT f, '', '{}', now() - interval '99 days' FROM unnest(ARRAY['gone', 'kept']) AS f",
        "UPDATE slow_query_log SET fingerprint = 'kept' WHERE query = 'old 1'",
    )
    async with opened(dsn, slow_log_days=10.5, slow_log_rows=0) as db:
        await db.fetch(f"{SLEEP}, 2")
    assert await count(dsn) == 12
    plans = {row["fingerprint"] for row in await ask(dsn, "SELECT fingerprint FROM slow_query_plan")}
    assert ("gone" in plans, "kept" in plans) == (False, True)
    async with opened(dsn, slow_log_days=0.0, slow_log_rows=5) as db:
        await db.fetch(SLEEP)
    texts = await slow_texts(dsn)
    assert (len(texts), texts[0]) == (5, "old 2")


async def test_the_scripts_install_upgrade_and_remove(dsn):
    """Installing twice changes nothing; removing takes everything; installing again works."""
    install, remove = sql.text("slow_query_log"), sql.text("slow_query_log_remove")
    await ask_all(dsn, install, install, remove)
    assert (await ask(dsn, "SELECT to_regclass('slow_query_log') AS found"))[0]["found"] is None
    await ask_all(dsn, remove, install)
    assert await count(dsn) == 0


# --- protections


async def test_the_log_has_a_connection_of_its_own(dsn):
    """With every connection of the pool held, slow statements on them are written all the same."""
    async with opened(dsn, min_pool_size=1, max_pool_size=1) as db, db.acquire() as con:
        await con.fetch(SLEEP)
        await written(db, 1)
        async with con.transaction():
            await con.fetch(SLEEP)
            await written(db, 2)
    assert await count(dsn) == 2


async def test_over_the_rate_statements_are_counted_by_fingerprint(dsn):
    """What is left out shows in the next row of its fingerprint and in the figures; below the rate nothing is lost."""
    async with opened(dsn, slow_query_threshold=0.0, slow_log_rate=1.0) as db:
        for number in range(50):
            await db.fetch(f"SELECT {number}")
        capped = db.get_stats()["slow_log"]["capped"]

        async def is_noted():
            return sum(db.get_stats()["slow_log"]["left_out"].values()) == capped

        await until(is_noted)
        (left_out,) = db.get_stats()["slow_log"]["left_out"].values()
        assert left_out >= 40
        assert db.get_stats()["slow_log"]["dropped"] == 0
    assert await count(dsn) + left_out == 50

    async with opened(dsn, slow_query_threshold=0.0) as db:
        for number in range(400):
            await db.fetch(f"SELECT {number}, 'below'")
    assert await count(dsn, "query LIKE '%, %'") == 400


async def test_an_outage_costs_rows_but_no_request(dsn, server):
    """Requests fail or wait as without a log; the oldest rows are dropped and counted; afterwards it goes on."""
    async with opened(dsn, slow_log_queue=5, slow_query_threshold=0.0, connect_timeout=1.0) as db:
        await db.fetch("SELECT 1, 'before'")
        await written(db, 1)
        server.stop_blocking()
        for number in range(12):
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError, magnus.MagnusError)):
                await db.fetch("SELECT 1, 'during'", timeout=0.05)
            # A statement needs a server to be slow on; these were, as far as the log knows.
            db._slow_log.saw(f"SELECT {number} AS during", 1.0, "fetch", [], "normal", 0.0, 1, (), None)

        async def has_dropped():
            return db.get_stats()["slow_log"]["dropped"] >= 7

        await until(has_dropped)
        assert db.get_stats()["slow_log"]["waiting"] <= 5
        server.start_blocking()
        await until_answered(db)
        await db.fetch("SELECT 1, 'after'")
        await written(db, 6)

        async def is_recovered():
            return any(isinstance(event, SlowLogRecovered) for event in db.seen)

        await until(is_recovered)
        found = db.get_stats()["slow_log"]
    lost = [event for event in db.seen if isinstance(event, SlowLogLeftOut)]
    assert found["dropped"] == sum(event.dropped for event in lost) >= 7
    assert found["dropped"] == sum(found["left_out"].values())
    assert await count(dsn, "query LIKE '%during'") in {4, 5}  # the oldest went, one or no more for what came after


async def test_closing_writes_what_waits(dsn):
    """Nothing that was slow before the end is missing."""
    async with opened(dsn) as db:
        await asyncio.gather(*(db.fetch(f"SELECT pg_sleep(0.03), {number}") for number in range(8)))
    assert await count(dsn) == 8


async def test_rows_that_the_server_refuses_do_not_block_those_behind_them(dsn):
    """A table that somebody constrained: its rows are dropped and counted, the log goes on."""
    await ask_all(dsn, sql.text("slow_query_log"))
    await ask_all(dsn, "ALTER TABLE slow_query_log ADD CHECK (query NOT LIKE '%abs%')")
    async with opened(dsn) as db:
        await db.fetch(f"{SLEEP}, abs(1)")

        async def has_dropped():
            return db.get_stats()["slow_log"]["dropped"] == 1

        await until(has_dropped)
        await db.fetch(SLEEP)
        await written(db, 1)
    assert await slow_texts(dsn) == ["SELECT pg_sleep($1)"]


async def test_a_table_that_is_dropped_is_made_again(dsn):
    """And the rows that met its absence are in it."""
    async with opened(dsn) as db:
        await db.fetch(SLEEP)
        await written(db, 1)
        await ask_all(dsn, sql.text("slow_query_log_remove"))
        await db.fetch(f"{SLEEP}, 1")
        await written(db, 2)
    assert await slow_texts(dsn) == ["SELECT pg_sleep($1), $2"]
