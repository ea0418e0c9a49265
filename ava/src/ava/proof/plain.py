"""The starting point: a pool of asyncpg's as services commonly have it, behind the methods that AVA's services call.

Opened by the first request, up to 50 connections, 60 s for everything, three attempts with a growing pause on errors
of the connection, no lanes, no limits by kind of request, no keys, no statistics.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import asyncpg

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

T = TypeVar("T")

MAX_SIZE: Final = 50
COMMAND_TIMEOUT: Final = 60.0
CONNECT_TIMEOUT: Final = 10.0
ATTEMPTS: Final = 3
DELAY: Final = 0.05
BACKOFF: Final = 2.0


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """
    What `run_once` returns.
    """

    value: T
    replayed: bool = False


class _NoCache:
    """
    What cached functions ask: everything is loaded, every time.
    """

    async def answer(self, question: Any) -> Any:
        return await question.load()


class Plain:
    """
    As many services have it; AVA's own code runs on it unchanged.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.cache = _NoCache()
        self._pool: asyncpg.Pool[Any] | None = None
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        if self._pool is not None:
            self._pool.terminate()

    def usage(self) -> tuple[int, int, int]:
        """
        Return connections in use, open, and at most.
        """
        if self._pool is None:
            return 0, 0, MAX_SIZE
        size = self._pool.get_size()
        return size - self._pool.get_idle_size(), size, MAX_SIZE

    async def fetchval(self, sql: str, *args: Any, **_options: Any) -> Any:
        async def ask(pool: asyncpg.Pool[Any]) -> Any:
            return await pool.fetchval(sql, *args)

        return await self._repeated(ask)

    async def run_in_transaction(
        self,
        fn: Callable[[Any], Awaitable[T]],
        *,
        readonly: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> T:
        async def work(pool: asyncpg.Pool[Any]) -> T:
            async with pool.acquire() as con, con.transaction(readonly=readonly):
                if settings:
                    await con.execute(_settings(settings))
                return await fn(con)

        return await self._repeated(work)

    async def run_once(
        self, fn: Callable[[Any], Awaitable[T]], *, settings: Mapping[str, str] | None = None, **_options: Any
    ) -> Done[T]:
        return Done(await self.run_in_transaction(fn, settings=settings))

    async def _repeated(self, work: Callable[[asyncpg.Pool[Any]], Awaitable[T]]) -> T:
        for attempt in range(ATTEMPTS):
            try:
                return await work(await self._opened())
            except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError):
                if attempt == ATTEMPTS - 1:
                    raise
                await asyncio.sleep(DELAY * BACKOFF**attempt)
        raise AssertionError("unreachable")

    async def _opened(self) -> asyncpg.Pool[Any]:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._dsn, max_size=MAX_SIZE, command_timeout=COMMAND_TIMEOUT, timeout=CONNECT_TIMEOUT
                )
            return self._pool


def _settings(settings: Mapping[str, str]) -> str:
    """
    Return one statement for all of them; what is set here is AVA's own, a role's name and a number.
    """
    return "; ".join(f"set local {name} = '{value}'" for name, value in settings.items())
