"""The public API as users write it, for type checkers: what changes here changes for everybody. Never run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, assert_type

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

import magnus
from magnus import (
    QUERY_TIMEOUTS,
    AlreadyExecuted,
    ConfigError,
    Connection,
    Database,
    DatabaseConfig,
    Event,
    InProgress,
    KeyReused,
    Once,
    OutcomeUnknown,
    Overloaded,
    Pool,
    PoolTimeout,
    ProbeState,
    QueryPriority,
    QueryTimeout,
    Refused,
    Transaction,
    TransactionEnded,
    cached,
    create_pool,
    get_database,
    idempotent,
    insight,
    once,
    scope,
    set_database,
)
from magnus.sqlalchemy import create_engine


@dataclass(frozen=True)
class Position:
    """
    A row.
    """

    symbol: str
    quantity: int


def observer(event: Event, /) -> None:
    """
    Anything that takes an event is an observer.
    """
    assert_type(event.name, str)
    assert_type(event.fields(), dict[str, object])


async def life() -> None:
    """
    Configure, connect, watch, close.
    """
    config = DatabaseConfig(dsn="service=ava", min_pool_size=5, max_pool_size=30, password=lambda: "rotating")
    async with Database(config, observers=[observer]) as db:
        assert_type(db, Database)
        assert_type(await db.warmup_pool(target_connections=10), int)
        assert_type(db.get_stats(), dict[str, Any])
        assert_type(await db.health_check(), bool)
        assert_type(db.health, ProbeState)
        assert_type(db.is_connected, bool)
        assert_type(db.is_draining, bool)
        db.add_observer(observer)
        db.remove_observer(observer)
    await db.connect(wait=False)
    await db.close(timeout=5.0)
    set_database(db)
    assert_type(await get_database(), Database)


async def queries(db: Database) -> None:
    """
    One statement each, on a connection of its own.
    """
    assert_type(await db.fetch("SELECT 1"), list[asyncpg.Record])
    assert_type(await db.fetch("SELECT 1", 1, "x", priority=QueryPriority.LOW, timeout=1.0), list[asyncpg.Record])
    assert_type(await db.fetch("SELECT 1", row=Position), list[Position])
    assert_type(await db.fetchrow("SELECT 1"), asyncpg.Record | None)
    assert_type(await db.fetchrow("SELECT 1", row=Position), Position | None)
    assert_type(await db.fetchval("SELECT 1", column=0), Any)
    assert_type(await db.fetch_with_priority("SELECT 1", priority=QueryPriority.HIGH), list[asyncpg.Record])
    assert_type(await db.execute("SELECT 1"), str)
    await db.executemany("INSERT", [(1, 2)], priority=QueryPriority.BACKGROUND)
    assert_type(await db.copy_records_to_table("t", records=[(1,)], columns=["a"], schema_name="s"), str)
    assert_type(await db.copy_from_query("SELECT 1", output="file.csv", format="csv"), str)
    assert_type(await db.fetch("SELECT 1", row=Position, read=True), list[Position])
    assert_type(await db.fetchrow("SELECT 1", read=True), asyncpg.Record | None)
    assert_type(await db.fetchval("UPDATE", idempotent=True), Any)
    assert_type(await db.execute("UPDATE", idempotent=True), str)
    with db.reads_on_primary(), db.reads_after("account:1", token="1-3f2a10"):
        assert_type(await db.read_token(), str | None)
    async with db.cursor("SELECT 1", prefetch=100) as rows:
        assert_type(rows, AsyncIterator[asyncpg.Record])
        async for row in rows:
            assert_type(row, asyncpg.Record)


@cached(ttl=5.0, tags=["positions"])
async def positions(db: Database, symbol: str) -> tuple[Position, ...]:
    """
    Answers that are kept.
    """
    return tuple(await db.fetch("SELECT 1", symbol, row=Position, read=True))


@cached(ttl="1min", tags=lambda account: [f"account:{account}"], settings=lambda account: {"app": str(account)})
async def of_account(db: Database, account: int) -> int:
    """
    Answers by tenant.
    """
    return account


async def answers(db: Database) -> None:
    """
    Asked, asked strictly, and dropped.
    """
    assert_type(await positions(db, "AVA"), tuple[Position, ...])
    assert_type(await positions.fresh(db, symbol="AVA"), tuple[Position, ...])
    assert_type(await of_account(db, 1), int)
    async with db.transaction() as tx:
        tx.invalidate("positions", "account:1")
    db.invalidate("positions")


async def insights(db: Database) -> None:
    """
    Statistics, sessions and the slow-query log, through a leased connection.
    """
    async with db.acquire() as con:
        found = await insight.extension(con)
        before = await insight.snapshot(con, found)
        happened = insight.delta(before, await insight.snapshot(con))
        assert_type(happened, insight.Delta)
        assert_type(insight.total(before), insight.Delta)
        listed = await insight.statements(con, found, happened, order="mean", limit=5)
        assert_type(listed, list[insight.Statement])
        assert_type(listed[0].as_dict(), dict[str, Any])
        assert_type(listed[0].counters.mean, float)
        assert_type(insight.blocking_tree(await insight.sessions(con)), list[insight.Blocker])
        assert_type(await insight.end(con, 4711, whole_session=False), bool)
        groups = await insight.groups(con, since=3600.0, order="count", limit=5)
        assert_type(groups, list[insight.Group])
        assert_type(groups[0].trend, tuple[int, ...])
        await insight.plan(con, groups[0].fingerprint)


async def connections(db: Database) -> None:
    """
    Leases and transactions.
    """
    async with db.acquire(priority=QueryPriority.HIGH, timeout=1.0) as con:
        assert_type(con, Connection)
        assert_type(await con.fetch("SELECT 1", row=Position), list[Position])
        async with con.transaction(readonly=True) as inner:
            assert_type(inner, Transaction)
    con = await db.acquire()
    await db.release(con)
    async with db.transaction(
        isolation="serializable", readonly=True, deferrable=True, timeout=5.0, settings={"role": "ava_account"}
    ) as tx:
        assert_type(tx, Transaction)
        assert_type(await tx.fetchrow("SELECT 1"), asyncpg.Record | None)
        assert_type(await tx.execute("UPDATE"), str)
        await tx.copy_records_to_table("t", records=[])
        async with tx.transaction() as savepoint:
            assert_type(savepoint, Transaction)
        async for row in tx.cursor("SELECT 1", prefetch=10):
            assert_type(row, asyncpg.Record)
        statement = await tx.prepare("SELECT $1::int")
        assert_type(await statement.fetch(1), list[asyncpg.Record])


@idempotent
async def settle(tx: Transaction) -> int:
    """
    A function in a transaction.
    """
    return len(await tx.fetch("UPDATE"))


async def units(db: Database) -> None:
    """
    Functions that may run again, and those that happen once.
    """
    assert_type(await db.run_in_transaction(settle, isolation="serializable", timeout=5.0), int)

    async def book(tx: Transaction) -> Position:
        await tx.execute("INSERT")
        return Position("AAAA", 1)

    done = await db.run_once(
        book, key="k", scope="account:1", operation="trade", request={"symbol": "AAAA"}, result=Position,
        reference=lambda position: position.symbol, settings={"role": "ava_account"},
    )  # fmt: skip
    assert_type(done, Once[Position])
    assert_type((done.value, done.replayed), tuple[Position, bool])
    await once.install(db)
    assert_type(once.table(), str)
    assert_type(await once.expire(db, 86_400.0, settings={"role": "ava_operator"}), int)
    try:
        await settle(db.transaction(xid=True))
    except KeyReused as error:
        assert_type(error.key, str)
    except InProgress as error:
        assert_type((error.key, error.retry_after), tuple[str, float])
    except AlreadyExecuted as error:
        assert_type((error.key, error.reference), tuple[str, str | None])
    except Refused as error:
        assert_type((error.value, error.is_replayed), tuple[object, bool])
    except TransactionEnded as error:
        assert_type(error.phase, str)


async def drop_in() -> None:
    """
    Asyncpg's pool, by its arguments and methods.
    """
    pool = create_pool("service=ava", min_size=5, max_size=30, command_timeout=60, ssl="require")
    assert_type(pool, Pool)
    assert_type(await pool, Pool)
    async with create_pool(min_size=0) as entered:
        assert_type(entered, Pool)
    async with pool.acquire(timeout=1.0) as con:
        assert_type(con.get_server_pid(), int)
        await pool.release(con)
    assert_type(await pool.execute("UPDATE"), str)
    assert_type(await pool.fetchval("SELECT 1"), Any)
    assert_type((pool.get_size(), pool.get_idle_size(), pool.is_closing()), tuple[int, int, bool])


async def orm(db: Database, pool: Pool) -> None:
    """
    SQLAlchemy's engine on either.
    """
    assert_type(create_engine(db, echo=True), AsyncEngine)
    async with create_engine(pool).begin() as con:
        await con.close()


async def failures(db: Database) -> None:
    """
    Errors carry data, and are what users already catch.
    """
    try:
        with scope(QueryPriority.LOW, timeout=10.0):
            await db.fetch("SELECT 1")
    except QueryTimeout as error:
        assert_type((error.priority, error.timeout, error.elapsed), tuple[str, float, float])
    except PoolTimeout as error:
        assert_type((error.phase, error.waited), tuple[str, float])
    except Overloaded as error:
        assert_type((error.lane, error.waiting, error.retry_after), tuple[str, int, float])
    except OutcomeUnknown as error:
        assert_type((error.key, error.xid), tuple[str | None, str | None])
    except ConfigError as error:
        assert_type(error.field, str)
    except TimeoutError:
        assert_type(QUERY_TIMEOUTS[QueryPriority.NORMAL], float)
    except asyncpg.UniqueViolationError:
        magnus.set_database(None)
