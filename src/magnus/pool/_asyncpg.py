"""What `create_pool` was given: checked, and put to work when a connection is opened."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

import asyncpg

from magnus import _driver
from magnus.lanes import LANES, QueryPriority
from magnus.pool._lanes import LaneLimits
from magnus.pool._limits import Limits

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    Connection = asyncpg.Connection[asyncpg.Record]

LANE: Final = QueryPriority.CRITICAL
"""The one lane that nothing is ever put before, and that never sheds."""


class Opener(_driver.Opener):
    """
    Opens connections as the user said, and tells which error the last one ended in.
    """

    def __init__(
        self,
        connect: Callable[..., Awaitable[Any]],
        init: Callable[[Any], Awaitable[object]] | None,
        on_terminated: Callable[[object], None],
        connection_class: type[Any],
        record_class: type[Any],
    ) -> None:
        self._opened: WeakSet[Any] = WeakSet()
        super().__init__(lambda: self._opened, connect)
        self.target: tuple[str | None, dict[str, Any]] = (None, {})
        self.loop: asyncio.AbstractEventLoop | None = None
        self.last_error: Exception | None = None
        self._init = init
        self._on_terminated = on_terminated
        self._connection_class = connection_class
        self._record_class = record_class

    async def open(self) -> Connection:
        try:
            return await self._open()
        except Exception as error:
            self.last_error = error
            raise

    async def _open(self) -> Connection:
        dsn, arguments = self.target
        con: Any = await self._connect(
            dsn, loop=self.loop, connection_class=self._connection_class, record_class=self._record_class, **arguments
        )
        if not isinstance(con, self._connection_class):
            raise asyncpg.InterfaceError(
                "expected pool connect callback to return an instance of "
                f"'{_name(self._connection_class)}', got '{_name(type(con))}'"
            )
        is_ready = False
        try:
            if self._init is not None:
                await self._init(con)
            if con.is_closed():
                raise asyncpg.ConnectionDoesNotExistError("connection was closed during pool initialization")
            is_ready = True
        finally:
            if not is_ready:
                con.terminate()
        con.add_termination_listener(self._on_terminated)
        self._opened.add(con)
        found: Connection = con
        return found

    async def beside(self, **_: Any) -> Connection:
        """
        Open a connection that is not the pool's, to the same target and without the user's `init`.
        """
        dsn, arguments = self.target
        return await self._connect(dsn, loop=self.loop, **arguments)

    def drop_caches(self, method: str) -> None:
        """
        Call a method that drops a cache on every connection.
        """
        for con in list(self._opened):
            if not con.is_closed():
                getattr(con, method)()


def flat_limits(min_size: int, max_size: int, max_idle: float) -> Limits:
    """
    Return the limits of a pool with one lane in use, which may have every slot and any number of callers.
    """
    table = tuple(LaneLimits(lane, max_size, int(lane is not LANE), sys.maxsize) for lane in LANES)
    return Limits(min_size, max_size, max_idle=max_idle, max_lifetime=math.inf, table=table)


def check_sizes(min_size: int, max_size: int, init_size: int) -> None:
    """
    Check sizes, in the driver's words.

    Raises:
        ValueError: one is impossible.
    """
    if max_size <= 0:
        raise ValueError("max_size is expected to be greater than zero")
    if min_size < 0:
        raise ValueError("min_size is expected to be greater or equal to zero")
    if min_size > max_size:
        raise ValueError("min_size is greater than max_size")
    if init_size < 0:
        raise ValueError("init_size is expected to be greater or equal to zero")
    if init_size > max_size:
        raise ValueError("init_size is greater than max_size")
    if init_size < min_size:
        raise ValueError("init_size is smaller than min_size")


def check_classes(connection_class: type[Any], record_class: type[Any]) -> None:
    """
    Check classes, in the driver's words.

    Raises:
        TypeError: one is none of the driver's.
    """
    if not issubclass(connection_class, asyncpg.Connection):
        raise TypeError(
            f"connection_class is expected to be a subclass of asyncpg.Connection, got {connection_class!r}"
        )
    if not issubclass(record_class, asyncpg.Record):
        raise TypeError(f"record_class is expected to be a subclass of asyncpg.Record, got {record_class!r}")


def _name(kind: type[Any]) -> str:
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
