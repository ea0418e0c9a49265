"""The slow-query log on a real server: what lands in its table, how, and what happens when it cannot."""

import asyncio
import asyncio
import contextlib
import io

import asyncpg
import pytest
import pytest

import magnus
from magnus import Database, DatabaseConfig, QueryPriority, QueryTimeout
from tests.facade_fakes import until

SLOW = 0.02
SLEEP = "SELECT pg_sleep(0.03)"


def config_of(dsn, **changes):
    """Few connections; statements over 20 ms are slow."""
    return DatabaseConfig(dsn=dsn, min_pool_size=1, max_pool_size=4, **{"slow_query_threshold": SLOW} | changes)


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


async def written(db, rows):
    """Wait until so many rows are in the table."""

    async def is_there():
        return db.get_stats()["slow_log"]["written"] >= rows

    await until(is_there)


async def test_a_slow_statement_lands_in_the_table(dsn):
    """With what is known of it; the table is made when it is first needed."""
    async with opened(dsn) as db:
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
    """The texts in the log, in order."""
    return [row["query"] for row in await ask(dsn, "SELECT query FROM slow_query_log ORDER BY id")]


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


async def test_every_method_of_the_database_appears(dsn):
    """Each on a lease of its own."""
    async with opened(dsn) as db:
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
    found = [text for text in await slow_texts(dsn) if not text.startswith("CREATE")]
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
