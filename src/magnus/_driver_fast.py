"""The driver's methods that run one prepared statement, without the four layers that they go through each time.

Every private name of the driver's that this needs is looked for once, at import; when one is missing or different,
`FastConnection` is the driver's own connection. Whatever is not the common case takes the driver's own way.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

import asyncpg

if TYPE_CHECKING:
    from asyncpg.protocol.protocol import PreparedStatementState

    _Base = asyncpg.Connection[asyncpg.Record]
else:
    _Base = asyncpg.Connection

_SLOTS: Final = ("_aborted", "_protocol", "_query_loggers", "_stmt_cache", "_stmt_exclusive_section")
_METHODS: Final = ("_drop_global_statement_cache", "_execute", "_get_statement", "reload_schema_state")
_BIND_EXECUTE: Final = ("state", "args", "portal_name", "limit", "return_extra", "timeout")


def is_as_known(connection: Any = asyncpg.Connection) -> bool:
    """
    Say whether the inside of the driver is the one that this module knows.
    """
    protocol: Any = getattr(asyncpg.protocol, "BaseProtocol", None) or getattr(asyncpg.protocol, "Protocol", None)
    try:
        signature = tuple(inspect.signature(protocol.bind_execute).parameters)
    except (AttributeError, TypeError, ValueError):
        return False
    slots = {name for kind in connection.__mro__ for name in getattr(kind, "__slots__", ())}
    return (
        signature[-len(_BIND_EXECUTE) :] == _BIND_EXECUTE
        and slots.issuperset(_SLOTS)
        and all(hasattr(connection, name) for name in _METHODS)
    )


class _Direct(_Base):
    """
    A connection whose statements go straight from its cache to its protocol, when they are in the cache.
    """

    __slots__ = ()

    _aborted: bool
    _protocol: Any
    _query_loggers: Any
    _stmt_cache: Any
    _stmt_exclusive_section: Any
    _get_statement: Any

    def _cached(self, query: str) -> PreparedStatementState[asyncpg.Record] | None:
        """
        Return the prepared statement of a query; None when the driver's own way must be taken.
        """
        if self._aborted or self._query_loggers:
            return None
        protocol = self._protocol
        if not protocol.is_connected():
            return None
        found: PreparedStatementState[asyncpg.Record] | None
        found = self._stmt_cache.get((query, protocol.get_record_class(), False))
        return found

    async def prepare_cached(self, query: str, timeout: float) -> None:
        """
        Prepare a statement as its first use would, without running it. It leaves the connection inside an implicit
        transaction: something that ends it must follow.
        """
        await self._get_statement(query, timeout)

    async def _recover(self, error: asyncpg.PostgresError | asyncpg.InternalClientError) -> None:
        """
        Drop what a change of the schema made wrong; return when the statement can be prepared anew and run again.
        """
        if isinstance(error, asyncpg.OutdatedSchemaCacheError):
            await self.reload_schema_state()
            raise error
        self._drop_global_statement_cache()  # type: ignore[attr-defined]  # the stubs leave it out
        if self._protocol.is_in_transaction():
            raise error

    async def fetch(self, query: str, *args: Any, timeout: float | None = None, record_class: Any = None) -> Any:
        statement = self._cached(query) if timeout is None and record_class is None else None
        if statement is not None:
            try:
                with self._stmt_exclusive_section:
                    return await self._protocol.bind_execute(statement, args, "", 0, False, None)
            except _STALE as error:
                await self._recover(error)
        return await super().fetch(query, *args, timeout=timeout, record_class=record_class)

    async def fetchrow(self, query: str, *args: Any, timeout: float | None = None, record_class: Any = None) -> Any:
        statement = self._cached(query) if timeout is None and record_class is None else None
        if statement is not None:
            try:
                with self._stmt_exclusive_section:
                    rows = await self._protocol.bind_execute(statement, args, "", 1, False, None)
            except _STALE as error:
                await self._recover(error)
            else:
                return rows[0] if rows else None
        return await super().fetchrow(query, *args, timeout=timeout, record_class=record_class)

    async def fetchval(self, query: str, *args: Any, column: Any = 0, timeout: float | None = None) -> Any:
        statement = self._cached(query) if timeout is None else None
        if statement is not None:
            try:
                with self._stmt_exclusive_section:
                    rows = await self._protocol.bind_execute(statement, args, "", 1, False, None)
            except _STALE as error:
                await self._recover(error)
            else:
                return rows[0][column] if rows else None
        return await super().fetchval(query, *args, column=column, timeout=timeout)

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        if not args:
            if self._aborted or self._query_loggers or not self._protocol.is_connected():
                return await super().execute(query, timeout=timeout)
            answer: str = await self._protocol.query(query, timeout)
            return answer
        statement = self._cached(query) if timeout is None else None
        if statement is not None:
            try:
                with self._stmt_exclusive_section:
                    _, status, _ = await self._protocol.bind_execute(statement, args, "", 0, True, None)
            except _STALE as error:
                await self._recover(error)
            else:
                text: str = status.decode()
                return text
        return await super().execute(query, *args, timeout=timeout)


_STALE: Final = (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError)

if TYPE_CHECKING:
    FastConnection = _Direct
else:
    FastConnection = _Direct if is_as_known() else _Base
