"""The slow-query log on a real server: what lands in its table, how, and what happens when it cannot."""

import asyncio
import contextlib

import asyncpg
import pytest

from magnus import Database, DatabaseConfig, QueryPriority
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
