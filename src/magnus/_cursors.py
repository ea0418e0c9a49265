"""Cursors and prepared statements of a lease: as the driver's, each round trip within its limit; they end with it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeVar

import asyncpg

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterable

    from asyncpg.cursor import Cursor as RawCursor
    from asyncpg.prepared_stmt import PreparedStatement as RawStatement

    from magnus._execution import Execution

    Check = Callable[[str], Execution]
    """Returns what runs statements, or raises because the lease or the transaction has ended."""

T = TypeVar("T")

PREFETCH: Final = 50


class CursorFactory:
    """
    What `cursor()` gives: iterate over it with `async for`, or await it for a `Cursor` that is moved by hand.
    """

    __slots__ = ("_args", "_check", "_open", "_options", "_prefetch", "_text", "_timeout")

    def __init__(
        self,
        check: Check,
        opener: Callable[..., Awaitable[RawCursor[asyncpg.Record]]],
        text: str,
        args: tuple[Any, ...],
        *,
        prefetch: int | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> None:
        if prefetch is not None and prefetch < 1:
            raise asyncpg.InterfaceError("prefetch argument must be greater than zero")
        self._check = check
        self._open = opener
        self._text = text
        self._args = args
        self._prefetch = prefetch
        self._timeout = timeout
        self._options = options

    def __aiter__(self) -> CursorIterator:
        return CursorIterator(self.open, self._prefetch or PREFETCH)

    def __await__(self) -> Generator[Any, None, Cursor]:
        if self._prefetch is not None:
            raise asyncpg.InterfaceError("prefetch argument can only be specified for iterable cursor")
        return self.open().__await__()

    async def open(self) -> Cursor:
        """
        Open the cursor on the server. There must be a transaction.
        """
        execution = self._check("cursor")
        raw = await execution.perform(self._open, self._text, self._args, self._timeout, **self._options)
        return Cursor(self._check, raw, self._text, self._timeout)


class CursorIterator:
    """
    Rows of a query, fetched in batches; what happens between two batches takes none of their time.
    """

    __slots__ = ("_batch", "_cursor", "_open", "_rows")

    def __init__(self, opener: Callable[[], Awaitable[Cursor]], batch: int) -> None:
        self._open = opener
        self._batch = batch
        self._cursor: Cursor | None = None
        self._rows: deque[asyncpg.Record] = deque()

    def __aiter__(self) -> CursorIterator:
        return self

    async def __anext__(self) -> asyncpg.Record:
        if not self._rows:
            if self._cursor is None:
                self._cursor = await self._open()
            self._rows.extend(await self._cursor.fetch(self._batch))
            if not self._rows:
                raise StopAsyncIteration
        return self._rows.popleft()


class Cursor:
    """
    An open cursor. Its methods are those of `asyncpg.cursor.Cursor`; each round trip has the lane's limit.
    """

    __slots__ = ("_check", "_raw", "_text", "_timeout")

    def __init__(self, check: Check, raw: RawCursor[asyncpg.Record], text: str, timeout: float | None) -> None:
        self._check = check
        self._raw = raw
        self._text = text
        self._timeout = timeout

    async def fetch(self, n: int, *, timeout: float | None = None) -> list[asyncpg.Record]:
        """
        Return the next `n` rows, fewer at the end.
        """
        return await self._run(self._raw.fetch, (n,), timeout)

    async def fetchrow(self, *, timeout: float | None = None) -> asyncpg.Record | None:
        """
        Return the next row, None at the end.
        """
        return await self._run(self._raw.fetchrow, (), timeout)

    async def forward(self, n: int, *, timeout: float | None = None) -> int:
        """
        Skip `n` rows; return how many there were to skip.
        """
        return await self._run(self._raw.forward, (n,), timeout)

    async def _run(self, call: Callable[..., Awaitable[T]], args: tuple[Any, ...], timeout: float | None) -> T:
        execution = self._check("cursor")
        return await execution.perform(call, self._text, args, self._timeout if timeout is None else timeout)


class PreparedStatement:
    """
    A prepared statement. Its methods are those of `asyncpg.prepared_stmt.PreparedStatement`, within the lane's limit.
    """

    __slots__ = ("_check", "_raw", "_text")

    def __init__(self, check: Check, raw: RawStatement[asyncpg.Record], text: str) -> None:
        self._check = check
        self._raw = raw
        self._text = text

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        self._check(f"PreparedStatement.{name}")
        return getattr(self._raw, name)

    def cursor(self, *args: Any, prefetch: int | None = None, timeout: float | None = None) -> CursorFactory:
        """
        Return a cursor over the rows that these arguments give.
        """
        return CursorFactory(self._check, self._raw.cursor, self._text, args, prefetch=prefetch, timeout=timeout)

    async def fetch(self, *args: Any, timeout: float | None = None) -> list[asyncpg.Record]:
        return await self._run(self._raw.fetch, args, timeout)

    async def fetchrow(self, *args: Any, timeout: float | None = None) -> asyncpg.Record | None:
        return await self._run(self._raw.fetchrow, args, timeout)

    async def fetchval(self, *args: Any, column: int | str = 0, timeout: float | None = None) -> Any:
        return await self._run(self._raw.fetchval, args, timeout, column=column)

    async def fetchmany(self, args: Iterable[Any], *, timeout: float | None = None) -> list[asyncpg.Record]:
        return await self._run(self._raw.fetchmany, (args,), timeout)

    async def executemany(self, args: Iterable[Any], *, timeout: float | None = None) -> None:
        await self._run(self._raw.executemany, (args,), timeout)

    async def _run(
        self, call: Callable[..., Awaitable[T]], args: tuple[Any, ...], timeout: float | None, **options: Any
    ) -> T:
        execution = self._check(f"PreparedStatement.{call.__name__}")
        return await execution.perform(call, self._text, args, timeout, **options)
