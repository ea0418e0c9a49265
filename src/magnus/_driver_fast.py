"""The driver's methods that run one prepared statement, without the four layers that they go through each time.

Every private name of the driver's that this needs is looked for once, at import; when one is missing or different,
`FastConnection` is the driver's own connection. Whatever is not the common case takes the driver's own way.

Theory of operation of a BEGIN that goes with the statement after it. The protocol answers a series of messages at its
Sync, and a statement of the cache is sent as Bind, Execute, Sync. What is written before it without a Sync of its own
is carried out first and answered in the same answer, of which the driver passes over what it did not ask for. An error
in BEGIN skips the statement, so it never runs outside. The two are one write: a statement that is not sent, because an
argument does not fit, leaves BEGIN where it was. Whatever else is asked of the connection first sends BEGIN as a query
of its own; a simple query cannot go the short way, for an error before it would leave it without an answer.
"""

from __future__ import annotations

import asyncio
import inspect
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import asyncpg

if TYPE_CHECKING:
    from asyncpg.protocol.protocol import PreparedStatementState

    _Base = asyncpg.Connection[asyncpg.Record]
else:
    _Base = asyncpg.Connection

_SLOTS: Final = ("_aborted", "_protocol", "_query_loggers", "_stmt_cache", "_stmt_exclusive_section", "_transport")
_METHODS: Final = (
    "_copy_in", "_copy_out", "_drop_global_statement_cache", "_execute", "_get_statement", "_reset",
    "reload_schema_state",
)  # fmt: skip
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


@lru_cache(1024)
def unanswered(statement: str) -> bytes:
    """
    Return a statement as messages that are answered with what follows them.
    """
    found = bytearray()
    parse = b"\0" + statement.encode() + b"\0" + struct.pack("!h", 0)
    bind = b"\0\0" + struct.pack("!hhh", 0, 0, 0)
    execute = b"\0" + struct.pack("!i", 0)
    for kind, body in ((b"P", parse), (b"B", bind), (b"E", execute)):
        found += kind + struct.pack("!i", len(body) + 4) + body
    return bytes(found)


DOUBT: Final = ("SAVEPOINT magnus_begun",)
"""What a statement has to go through after one that was cut short together with its BEGIN: refused where none is."""


class _Direct(_Base):
    """
    A connection whose statements go straight from its cache to its protocol, when they are in the cache.

    Attributes:
        ahead: BEGIN and what is local to its transaction, none of it answered with rows, while it waits for the first
            statement. From when it is set on, a transaction counts as open. A reset drops it. The transport must be
            corked.
    """

    __slots__ = ("ahead",)

    _aborted: bool
    _transport: Any
    _protocol: Any
    _query_loggers: Any
    _stmt_cache: Any
    _stmt_exclusive_section: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ahead: tuple[str, ...] | None = None

    # --- a BEGIN that waits for its first statement

    def is_in_transaction(self) -> bool:
        """
        Say whether a transaction is open, one included whose BEGIN goes with its first statement.
        """
        return self.ahead is not None or self._protocol.is_in_transaction()

    async def _begin_now(self, timeout: float | None = None) -> None:
        """
        Send a BEGIN that waits, in a round trip of its own.
        """
        ahead, self.ahead = self.ahead, None
        if ahead is not None:
            try:
                await self._protocol.query("; ".join(ahead), timeout)
            except asyncpg.PostgresError:
                self._check_begun()
                raise

    async def _begin_with(self, statement: Any, args: tuple[Any, ...], limit: int, *, is_status: bool) -> Any:
        protocol, ahead = self._protocol, self.ahead
        if ahead is None or ahead is DOUBT:
            await self._begin_now()
            return await protocol.bind_execute(statement, args, "", limit, is_status, None)
        self.ahead = None
        self._transport.hold(b"".join(map(unanswered, ahead)))
        try:
            return await protocol.bind_execute(statement, args, "", limit, is_status, None)
        except asyncpg.InvalidCachedStatementError:
            await protocol.query("ROLLBACK", None)  # nothing has happened in it: it may begin again, with a new plan
            self.ahead = ahead
            raise
        except asyncio.CancelledError:
            self.ahead = ahead if self._transport.take_back() else DOUBT
            raise
        except Exception:
            if self._transport.take_back():
                self.ahead = ahead  # an argument does not fit, and nothing was sent
            else:
                self._check_begun()
            raise

    def _check_begun(self) -> None:
        """
        Close the connection when BEGIN failed: what comes next would not be in a transaction.
        """
        if self._protocol.is_connected() and not self._protocol.is_in_transaction():
            self.terminate()

    async def _get_statement(self, query: str, timeout: Any, **options: Any) -> Any:
        if self.ahead is not None:
            await self._begin_now(timeout)
        return await super()._get_statement(query, timeout, **options)  # type: ignore[misc]  # the stubs leave it out

    async def _copy_in(self, copy_stmt: str, source: Any, timeout: float | None) -> Any:
        await self._begin_now(timeout)
        return await super()._copy_in(copy_stmt, source, timeout)  # type: ignore[misc]  # as above

    async def _copy_out(self, copy_stmt: str, output: Any, timeout: float | None) -> Any:
        await self._begin_now(timeout)
        return await super()._copy_out(copy_stmt, output, timeout)  # type: ignore[misc]  # as above

    async def _reset(self) -> None:
        self.ahead = None
        await super()._reset()

    # --- statements of the cache

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
                    if self.ahead is not None:
                        return await self._begin_with(statement, args, 0, is_status=False)
                    return await self._protocol.bind_execute(statement, args, "", 0, False, None)
            except _STALE as error:
                await self._recover(error)
        return await super().fetch(query, *args, timeout=timeout, record_class=record_class)

    async def fetchrow(self, query: str, *args: Any, timeout: float | None = None, record_class: Any = None) -> Any:
        statement = self._cached(query) if timeout is None and record_class is None else None
        if statement is not None:
            try:
                with self._stmt_exclusive_section:
                    if self.ahead is None:
                        rows = await self._protocol.bind_execute(statement, args, "", 1, False, None)
                    else:
                        rows = await self._begin_with(statement, args, 1, is_status=False)
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
                    if self.ahead is None:
                        rows = await self._protocol.bind_execute(statement, args, "", 1, False, None)
                    else:
                        rows = await self._begin_with(statement, args, 1, is_status=False)
            except _STALE as error:
                await self._recover(error)
            else:
                return rows[0][column] if rows else None
        return await super().fetchval(query, *args, column=column, timeout=timeout)

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        if not args:
            if self.ahead is not None:
                await self._begin_now(timeout)
            if self._aborted or self._query_loggers or not self._protocol.is_connected():
                return await super().execute(query, timeout=timeout)
            answer: str = await self._protocol.query(query, timeout)
            return answer
        statement = self._cached(query) if timeout is None else None
        if statement is not None:
            try:
                with self._stmt_exclusive_section:
                    if self.ahead is None:
                        _, status, _ = await self._protocol.bind_execute(statement, args, "", 0, True, None)
                    else:
                        _, status, _ = await self._begin_with(statement, args, 0, is_status=True)
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
