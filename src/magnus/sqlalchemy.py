"""SQLAlchemy's asynchronous engine on a pool of this package: every checkout is a lease, every return a release.

SQLAlchemy ends a connection of its NullPool by `close()`. On a bare lease that would end the server's session too, and
the pool would serve as none, silently; here `close()` gives back.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import asyncpg
from sqlalchemy import JSON
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from magnus.database import Database
from magnus.errors import ConfigError
from magnus.pool.compat import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["create_engine"]

_URL: Final = "postgresql+asyncpg://"
_ROLLBACK_LIMIT: Final = 2.0
_NOT_OURS: Final = frozenset({
    "poolclass", "pool", "pool_size", "max_overflow", "pool_timeout", "pool_recycle", "pool_use_lifo", "creator",
    "async_creator", "connect_args",
})  # fmt: skip


def create_engine(source: Database | Pool, **options: Any) -> AsyncEngine:
    """
    Return an engine whose connections are leases of `source`: a `Database`, or what `create_pool` returned.

    With a `Database` a checkout waits in the lane of the enclosing `scope`, and every statement has the lane's limit
    and the scope's deadline; with a pool nothing is added. `options` are those of `create_async_engine`, without those
    about connecting and pooling. `source` is connected and closed by its owner: `dispose()` leaves it alone.

    Raises:
        ConfigError: `source` is neither, or an option is not for this engine.
    """
    if not isinstance(source, Database | Pool):
        raise ConfigError("source", type(source).__name__, "must be a Database or what create_pool returned")
    for name in _NOT_OURS & options.keys():
        raise ConfigError(name, "***", "cannot be given: the connections are those of the source")
    if options.get("native_inet_types") is False:
        raise ConfigError("native_inet_types", False, "would change what everybody else reads from these connections")

    async def lease() -> LeasedConnection:
        return LeasedConnection(await source.acquire(), source.release)

    engine = create_async_engine(_URL, async_creator=lease, poolclass=NullPool, **options)
    _leave_codecs_alone(engine.dialect)
    return engine


def _leave_codecs_alone(dialect: Any) -> None:
    """
    Let SQLAlchemy read JSON itself. By default it sets codecs at every connect: they would stay for whoever leases the
    connection next, and cost two questions to the catalogue and all prepared statements at every checkout.
    """

    async def nothing(_connection: object) -> None:
        pass

    dialect.setup_asyncpg_json_codec = dialect.setup_asyncpg_jsonb_codec = nothing
    dialect.supports_native_json_deserialization = False
    dialect.dialect_injects_custom_json_deserializer = False
    # Before 2.1 the dialect's own JSON types rely on those codecs; the ones that they derive from do not.
    general = PGDialect.colspecs
    dialect.colspecs = {**dialect.colspecs, **{kind: general.get(kind, kind) for kind in (JSON, JSONB)}}


class LeasedConnection:
    """
    A lease as SQLAlchemy uses one: the methods of an asyncpg connection; `close` and `terminate` give it back.
    """

    def __init__(self, connection: Any, release: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
        self._connection = connection
        self._release = release
        self._loop = asyncio.get_running_loop()
        self._returning: asyncio.Task[None] | None = None
        self._transaction: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._connection!r}>"

    def is_closed(self) -> bool:
        """
        Say whether it is gone or given back.
        """
        return self._returning is not None or _is_gone(self._connection)

    def transaction(self, **options: Any) -> Any:
        """
        Return a transaction of the connection; the latest one is rolled back if it is open at the end of the lease.
        """
        self._transaction = self._connection.transaction(**options)
        return self._transaction

    async def close(self, *, timeout: float | None = None) -> None:
        """
        Give the connection back; its session is reset, its slot is free whatever happens. A second time waits along.

        Cancelled, it goes on by itself. `timeout` bounds the waiting only: the pool bounds the rest.
        """
        async with asyncio.timeout(timeout):
            await asyncio.shield(self._give_back())

    def terminate(self) -> None:
        """
        End the connection without a word to the server and give its slot back, from the collector's thread too.
        """
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        if not self.is_closed():
            self._connection.terminate()
        self._give_back()

    def _give_back(self) -> asyncio.Task[None]:
        if self._returning is None:
            self._returning = self._loop.create_task(self._end())
        return self._returning

    async def _end(self) -> None:
        connection = self._connection
        try:
            # A cancelled request leaves its transaction open; the driver would complain of it in the log.
            if not _is_gone(connection) and connection.is_in_transaction() and self._transaction is not None:
                async with asyncio.timeout(_ROLLBACK_LIMIT):
                    await self._transaction.rollback()
        except Exception:  # noqa: BLE001  # whatever it is, nobody shall work on this session
            if not _is_gone(connection):
                connection.terminate()
        finally:
            await self._release(connection)


def _is_gone(connection: Any) -> bool:
    """
    Say whether a lease's connection has ended, and the lease with it.
    """
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:
        return True
