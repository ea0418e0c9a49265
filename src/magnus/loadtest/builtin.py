"""The workloads that come with the library: one row by key, and pgbench's TPC-B."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from magnus.config import DatabaseConfig
from magnus.database import Database
from magnus.errors import ConfigError, Overloaded
from magnus.loadtest.workload import Refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from random import Random

    from magnus.loadtest.workload import Client, Target

BRANCHES: Final = 1
TELLERS: Final = 10
ACCOUNTS: Final = 100_000
"""Rows a unit of scale, as pgbench has them."""


@asynccontextmanager
async def access(target: Target) -> AsyncIterator[Any]:
    """
    Open the pool that the target asks for: ours, asyncpg's as its users have it, or bare connections.

    Raises:
        ConfigError: there is no such pool.
    """
    if target.pool != "magnus" and target.config:
        raise ConfigError(next(iter(target.config)), "", "is a setting of magnus' pool alone")
    if target.pool == "none":
        async with AsyncExitStack() as stack:
            bare = Bare()
            for _ in range(target.connections):
                con = await asyncpg.connect(**driver(target.address), server_settings=dict(target.settings))
                stack.push_async_callback(con.close)
                bare.add(con)
            yield bare
    elif target.pool == "asyncpg":
        async with asyncpg.create_pool(
            **driver(target.address),
            min_size=target.connections,
            max_size=target.connections,
            server_settings=dict(target.settings),
        ) as pool:
            yield pool
    elif target.pool == "magnus":
        environ = {
            "MAGNUS_MIN_POOL_SIZE": str(target.connections),
            "MAGNUS_MAX_POOL_SIZE": str(target.connections),
            "MAGNUS_SLOW_LOG": "off",
            **target.config,
        }
        config = DatabaseConfig.from_environ(environ, dsn=target.address, server_settings=target.settings)
        async with Database(config) as db:
            await db.warmup_pool(config.min_pool_size)
            yield db
    else:
        raise ConfigError("pool", target.pool, "must be magnus, asyncpg or none")


class Bare:
    """
    Connections without a pool, as pgbench has them: nothing is reset, checked or limited. What the two other pools take
    more than this is their own.
    """

    def __init__(self) -> None:
        self._idle: asyncio.LifoQueue[Any] = asyncio.LifoQueue()
        self._size = 0

    def add(self, con: Any) -> None:
        self._idle.put_nowait(con)
        self._size += 1

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Any]:
        con = await self._idle.get()
        try:
            yield con
        finally:
            self._idle.put_nowait(con)

    async def fetchval(self, sql: str, *args: Any) -> Any:
        async with self.acquire() as con:
            return await con.fetchval(sql, *args)

    async def fetch(self, sql: str, *args: Any) -> Any:
        async with self.acquire() as con:
            return await con.fetch(sql, *args)

    def get_size(self) -> int:
        return self._size

    def get_idle_size(self) -> int:
        return self._idle.qsize()

    def get_max_size(self) -> int:
        return self._size


def driver(address: str) -> dict[str, Any]:
    """
    Return what the driver needs to reach an address of any form that `DatabaseConfig` takes: no guards, no limits.
    """
    found = DatabaseConfig(dsn=address).connect_arguments(os.environ)
    return {name: found[name] for name in ("dsn", "password", "ssl") if name in found}


def scale_of(options: Mapping[str, str]) -> int:
    text = options.get("scale", "1")
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise ConfigError("scale", text, "must be a whole number from 1 to 10000")
    return int(text)


async def _prepare(target: Target, scale: int) -> None:
    """
    Make pgbench's tables when they are not there; those of pgbench itself do as well.
    """
    con = await asyncpg.connect(**driver(target.address))
    try:
        if await con.fetchval("SELECT to_regclass('pgbench_accounts') IS NOT NULL"):
            found = await con.fetchval("SELECT count(*) FROM pgbench_branches")
            if found < scale:
                raise ConfigError("scale", scale, f"is above that of the tables that are there ({found})")
            return
        async with con.transaction():
            await con.execute(
                _TABLES.format(branches=BRANCHES * scale, tellers=TELLERS * scale, accounts=ACCOUNTS * scale)
            )
        await con.execute("VACUUM ANALYZE pgbench_branches, pgbench_tellers, pgbench_accounts")
    finally:
        await con.close()


class Select:
    """
    One account by its key, as `pgbench -S` asks.
    """

    weights: Mapping[str, float] = {"select": 1.0}

    def __init__(self, options: Mapping[str, str]) -> None:
        self._scale = scale_of(options)

    def lane(self, operation: str) -> str:  # noqa: ARG002
        return ""

    async def prepare(self, target: Target) -> None:
        await _prepare(target, self._scale)

    @asynccontextmanager
    async def open(self, target: Target, process: int) -> AsyncIterator[Client]:  # noqa: ARG002
        async with access(target) as pool:
            yield _Selecting(pool, ACCOUNTS * self._scale)


class OnPool:
    """
    A client of a database, on either pool.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def usage(self) -> tuple[int, int, int]:
        """
        Return connections in use, open, and at most.
        """
        if isinstance(self._pool, Database):
            found = self._pool.get_stats()["pool_stats"]
            return found["used"], found["size"], found["max_size"]
        size = self._pool.get_size()
        return size - self._pool.get_idle_size(), size, self._pool.get_max_size()


class _Selecting(OnPool):
    def __init__(self, pool: Any, accounts: int) -> None:
        super().__init__(pool)
        self._accounts = accounts

    async def run(self, operation: str, rng: Random) -> None:  # noqa: ARG002
        await declined(self._pool.fetchval(_BALANCE, rng.randint(1, self._accounts)))


class TpcB:
    """
    pgbench's default transaction: three updates, one select, one insert.
    """

    weights: Mapping[str, float] = {"tpcb": 1.0}

    def __init__(self, options: Mapping[str, str]) -> None:
        self._scale = scale_of(options)

    def lane(self, operation: str) -> str:  # noqa: ARG002
        return ""

    async def prepare(self, target: Target) -> None:
        await _prepare(target, self._scale)

    @asynccontextmanager
    async def open(self, target: Target, process: int) -> AsyncIterator[Client]:  # noqa: ARG002
        async with access(target) as pool:
            yield _Booking(pool, self._scale)


class _Booking(OnPool):
    def __init__(self, pool: Any, scale: int) -> None:
        super().__init__(pool)
        self._scale = scale

    async def run(self, operation: str, rng: Random) -> None:  # noqa: ARG002
        account, teller = rng.randint(1, ACCOUNTS * self._scale), rng.randint(1, TELLERS * self._scale)
        branch, delta = rng.randint(1, BRANCHES * self._scale), rng.randint(-5000, 5000)
        await declined(self._book(account, teller, branch, delta))

    async def _book(self, account: int, teller: int, branch: int, delta: int) -> None:
        async with self._pool.acquire() as con, con.transaction():
            await con.execute("UPDATE pgbench_accounts SET abalance = abalance + $1 WHERE aid = $2", delta, account)
            await con.fetchval(_BALANCE, account)
            await con.execute("UPDATE pgbench_tellers SET tbalance = tbalance + $1 WHERE tid = $2", delta, teller)
            await con.execute("UPDATE pgbench_branches SET bbalance = bbalance + $1 WHERE bid = $2", delta, branch)
            await con.execute(_HISTORY, teller, branch, account, delta)


async def declined(work: Any) -> Any:
    try:
        return await work
    except Overloaded:
        raise Refused("overloaded") from None


_BALANCE: Final = "SELECT abalance FROM pgbench_accounts WHERE aid = $1"
_HISTORY: Final = "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES ($1, $2, $3, $4, CURRENT_TIMESTAMP)"
_TABLES: Final = """
CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88));
CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84));
CREATE TABLE pgbench_accounts (aid int, bid int, abalance int, filler char(84));
CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
INSERT INTO pgbench_branches SELECT bid, 0, '' FROM generate_series(1, {branches}) AS bid;
INSERT INTO pgbench_tellers SELECT tid, (tid - 1) / 10 + 1, 0, '' FROM generate_series(1, {tellers}) AS tid;
INSERT INTO pgbench_accounts SELECT aid, (aid - 1) / 100000 + 1, 0, '' FROM generate_series(1, {accounts}) AS aid;
ALTER TABLE pgbench_accounts ADD PRIMARY KEY (aid);
"""
