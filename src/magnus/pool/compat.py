"""`create_pool`: asyncpg's pool, its arguments, methods and words, on the pool of this package.

One lane, no shedding, no repeats, no session guards, a full reset on every release; docs/switch-from-asyncpg.md
lists what differs on purpose.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import TYPE_CHECKING, Any, Final, Self

import asyncpg

from magnus import _driver
from magnus._effects import NO_RESET
from magnus.config import DatabaseConfig
from magnus.observe import ConnectFailed, SlowLogEventsOnly, SlowLogLeftOut, SlowQuery
from magnus.pool._asyncpg import LANE, Opener, check_classes, check_sizes, flat_limits
from magnus.pool._one_shot import OneShots
from magnus.pool._pool import Pool as Core
from magnus.pool._proxy import PoolAcquireContext, PoolConnectionProxy
from magnus.pool._watched import Watch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from types import TracebackType

    from magnus.observe import Event
    from magnus.pool._lease import Lease
    from magnus.pool._stats import PoolSnapshot

    Record = asyncpg.Record
    Connection = asyncpg.Connection[Record]

__all__ = ["Pool", "PoolAcquireContext", "PoolConnectionProxy", "create_pool"]

_LOG: Final = logging.getLogger("magnus.pool")
_DAY: Final = 86_400.0  # a user's `init` may take its time; the driver bounds the connect itself
_RELEASE_LIMIT: Final = 30.0
_LONG_CLOSE: Final = 60.0


def create_pool(
    dsn: str | None = None,
    *,
    init_size: int | None = None,
    min_size: int = 10,
    max_size: int = 10,
    max_queries: int = 50000,
    max_inactive_connection_lifetime: float = 300.0,
    connect: Callable[..., Awaitable[Any]] | None = None,
    setup: Callable[[Any], Awaitable[object]] | None = None,
    init: Callable[[Any], Awaitable[object]] | None = None,
    reset: Callable[[Any], Awaitable[object]] | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
    connection_class: type[Any] = asyncpg.Connection,
    record_class: type[Any] = asyncpg.Record,
    slow_query_threshold: float | None = None,
    **connect_kwargs: Any,
) -> Pool:
    """
    Return a pool, to be awaited or entered with `async with`: `asyncpg.create_pool`, argument by argument.

    Args:
        dsn: Where to connect, and with `connect_kwargs` how: the arguments of `asyncpg.connect`.
        init_size: Connections opened before the pool is ready; `min_size` when not given.
        min_size: Connections kept open.
        max_size: Connections never exceeded.
        max_queries: After so many a connection is replaced.
        max_inactive_connection_lifetime: Seconds after which an idle connection above `min_size` is closed; 0: never.
        connect: Called in place of `asyncpg.connect`.
        setup: Called with a connection whenever it is acquired.
        init: Called with a connection once, when it is new.
        reset: Called with a connection when it is released, in place of its reset query.
        loop: The running event loop, if given.
        connection_class: What connections are made of.
        record_class: What rows are made of.
        slow_query_threshold: Seconds; statements that take longer are kept in the table `slow_query_log`, through a
            connection beside the pool. None, as for the driver's pool: nothing is timed.
        connect_kwargs: See `dsn`.

    Raises:
        ValueError: a size or a time is impossible.
        TypeError: a class is none of the driver's.
    """
    return Pool(
        dsn,
        init_size=init_size,
        min_size=min_size,
        max_size=max_size,
        max_queries=max_queries,
        max_inactive_connection_lifetime=max_inactive_connection_lifetime,
        connect=connect,
        setup=setup,
        init=init,
        reset=reset,
        loop=loop,
        connection_class=connection_class,
        record_class=record_class,
        slow_query_threshold=slow_query_threshold,
        **connect_kwargs,
    )


class Pool(OneShots):
    """
    A pool with the methods of `asyncpg.Pool`; made by `create_pool`, which see for the arguments.

    Awaited or entered, it opens `init_size` connections and raises what went wrong. Callers are served in the order in
    which they came. A connect that fails is raised by a caller who waited for it, as the driver's own exception.

    Raises (every method that needs a connection):
        asyncpg.InterfaceError: the pool is not initialized, closing or closed.
        TimeoutError: no connection came free within the `timeout` of `acquire`; without one callers wait for ever.
    """

    def __init__(
        self,
        dsn: str | None = None,
        *,
        init_size: int | None = None,
        min_size: int,
        max_size: int,
        max_queries: int,
        max_inactive_connection_lifetime: float,
        connect: Callable[..., Awaitable[Any]] | None = None,
        setup: Callable[[Any], Awaitable[object]] | None = None,
        init: Callable[[Any], Awaitable[object]] | None = None,
        reset: Callable[[Any], Awaitable[object]] | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        connection_class: type[Any] = asyncpg.Connection,
        record_class: type[Any] = asyncpg.Record,
        slow_query_threshold: float | None = None,
        **connect_kwargs: Any,
    ) -> None:
        self._init_size = min_size if init_size is None else init_size
        check_sizes(min_size, max_size, self._init_size)
        check_classes(connection_class, record_class)
        if max_queries <= 0:
            raise ValueError("max_queries is expected to be greater than zero")
        if max_inactive_connection_lifetime < 0:
            raise ValueError("max_inactive_connection_lifetime is expected to be greater or equal to zero")
        self._min_size = min_size
        self._max_size = max_size
        self._max_queries = max_queries
        self._setup = setup
        self._reset = reset
        self._loop = loop
        self._opener = Opener(connect or asyncpg.connect, init, self._on_terminated, connection_class, record_class)
        self._opener.target = dsn, connect_kwargs
        self._core = Core(
            DatabaseConfig(min_pool_size=min_size, max_pool_size=max_size, connect_timeout=_DAY),
            notify=_report,
            limits=flat_limits(min_size, max_size, max_inactive_connection_lifetime or math.inf),
            opener=self._opener,
            is_telling=True,
        )
        self._watch: Watch | None = None
        if slow_query_threshold is not None:
            settings = connect_kwargs.get("server_settings") or {}
            self._watch = Watch(slow_query_threshold, settings=settings, notify=_report, connect=self._opener.beside)
        self._out: set[PoolConnectionProxy] = set()
        self._is_initialized = False
        self._is_initializing = False
        self._is_closing = False
        self._is_closed = False

    # --- life

    def __await__(self) -> Generator[Any, None, Self]:
        return self._initialize().__await__()

    async def __aenter__(self) -> Self:
        return await self._initialize()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _initialize(self) -> Self:
        if self._is_initialized:
            return self
        if self._is_initializing:
            raise asyncpg.InterfaceError("pool is being initialized in another task")
        if self._is_closed:
            raise _driver.PoolClosed("pool is closed")
        self._own_loop(asyncio.get_running_loop())
        self._is_initializing = True
        is_ready = False
        try:
            await self._core.open()
            if await self._core.warmup(self._init_size) < self._init_size:
                raise self._opener.last_error or asyncpg.InterfaceError("pool was closed while it was initialized")
            is_ready = True
            if self._watch is not None:
                self._watch.log.start()
        finally:
            self._is_initializing = False
            self._is_initialized = True
            if not is_ready:  # no connection is left behind
                self._is_closed = True
                self._core.terminate()
        return self

    def _own_loop(self, running: asyncio.AbstractEventLoop) -> None:
        if self._loop is not None and self._loop is not running:
            raise asyncpg.InterfaceError("the pool was made for another event loop than the running one")
        self._loop = self._opener.loop = running

    async def close(self) -> None:
        """
        Wait until all connections are released, then close them. Nothing new is acquired meanwhile; whoever waits is
        refused. There is no limit: bound it with `asyncio.timeout`; cancelled, it terminates what is left.
        """
        if self._is_closed:
            return
        self._check_initialized()
        self._is_closing = True
        warning = asyncio.get_running_loop().call_later(_LONG_CLOSE, _warn_of_long_close)
        try:
            await self._core.close(None)
        finally:
            warning.cancel()
            if self._watch is not None:
                await self._watch.log.close()
            self._is_closed = True
            self._is_closing = False
            self._lose_all()

    def terminate(self) -> None:
        """
        End all connections at once, those in use too.
        """
        if self._is_closed:
            return
        self._check_initialized()
        self._is_closed = True
        self._core.terminate()
        self._lose_all()

    def is_closing(self) -> bool:
        """
        Say whether the pool is closing or closed.
        """
        return self._is_closed or self._is_closing

    async def expire_connections(self) -> None:
        """
        Replace all present connections: idle ones now, the others when they are released.
        """
        self._core.expire()

    def set_connect_args(self, dsn: str | None = None, **connect_kwargs: Any) -> None:
        """
        Open new connections with these arguments from now on; present ones stay until they expire.
        """
        self._opener.target = dsn, connect_kwargs

    # --- figures

    def get_size(self) -> int:
        """
        Return how many connections are open.
        """
        return self._core.open_count

    def get_init_size(self) -> int:
        """
        Return how many connections are opened before the pool is ready.
        """
        return self._init_size

    def get_min_size(self) -> int:
        """
        Return how many connections are kept open.
        """
        return self._min_size

    def get_max_size(self) -> int:
        """
        Return how many connections may be open.
        """
        return self._max_size

    def get_idle_size(self) -> int:
        """
        Return how many connections are open and in nobody's hands.
        """
        return self._core.idle_count

    def snapshot(self) -> PoolSnapshot:
        """
        Return all figures of this moment, waiting times among them; `asyncpg.Pool` has no such method.
        """
        return self._core.snapshot()

    # --- leases

    def acquire(self, *, timeout: float | None = None) -> PoolAcquireContext:
        """
        Lease a connection: `async with pool.acquire() as con`, or await it and `release` it.

        `timeout` (seconds) covers the waiting and `setup`, and is the default of `release`.
        """
        return PoolAcquireContext(self, timeout)

    async def take(self, timeout: float | None) -> PoolConnectionProxy:
        """
        Lease a connection: what `acquire` awaits.
        """
        self._check_open()
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            lease = await self._core.acquire(LANE, deadline)
        except _driver.PoolClosed:
            self._check_open()
            raise
        make = PoolConnectionProxy if self._watch is None else self._watch.proxy
        connection = make(self, lease, timeout)
        self._out.add(connection)
        if self._setup is not None:
            await self._set_up(connection, self._setup, deadline)
        return connection

    async def _set_up(
        self, connection: PoolConnectionProxy, setup: Callable[[Any], Awaitable[object]], deadline: float | None
    ) -> None:
        is_ready = False
        try:
            async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()):
                await setup(connection)
            is_ready = True
        finally:
            if not is_ready and not connection.is_released:  # nobody knows how far it came
                self._let_go(connection)
                self._core.retire(connection.lease)

    async def release(self, connection: Any, *, timeout: float | None = None) -> None:  # not the caller's
        """
        Give a connection back: it is reset first. A second time does nothing.

        `timeout` is for the reset: what `acquire` was given, else 30 s. When the reset fails or takes longer, the
        connection is terminated and the error raised; the slot is free in any case. Cancelled, it goes on by itself.

        Raises:
            asyncpg.InterfaceError: the connection is none of this pool's, or the pool is closed.
        """
        if not isinstance(connection, PoolConnectionProxy) or connection.owner is not self:
            raise asyncpg.InterfaceError(
                f"Pool.release() received invalid connection: {connection!r} is not a member of this pool"
            )
        if connection.is_released:
            return
        self._check_initialized()
        if connection.giving_back is None:
            limit = connection.patience if timeout is None else timeout
            work = self._give_back(connection, _RELEASE_LIMIT if limit is None else limit)
            connection.giving_back = asyncio.get_running_loop().create_task(work)
            _driver.note_release(connection.lease.con)  # last, because a warning may be made an error
        await asyncio.shield(connection.giving_back)

    async def _give_back(self, connection: PoolConnectionProxy, limit: float) -> None:
        core, lease, con = self._core, connection.lease, connection.lease.con
        is_clean = is_over = False
        try:
            is_over = _driver.queries_count(con) >= self._max_queries if not con.is_closed() else True
            if not is_over and core.is_current(lease):
                await self._reset_session(lease, limit)
            is_clean = True
        finally:
            self._let_go(connection)
            if is_clean and is_over:
                core.retire(lease)
            elif is_clean:
                lease.reset = NO_RESET
                if not core.give(lease):
                    await core.release(lease)
            else:
                core.drop(lease)

    async def _reset_session(self, lease: Lease, limit: float) -> None:
        sweep, watch, con = self._core.sweep, lease.slot.watch, lease.con
        if self._reset is not None:
            async with asyncio.timeout(limit):
                await _driver.end_lease(con)
                await self._reset(con)
        elif not sweep.enter(watch, time.monotonic() + limit):
            await con.reset(timeout=limit)
        else:
            try:
                await con.reset()
            except asyncio.CancelledError:
                if watch.leave():
                    raise TimeoutError from None
                raise
            finally:
                watch.leave()

    def _let_go(self, connection: PoolConnectionProxy) -> None:
        connection.detach()
        self._out.discard(connection)

    def connection_lost(self, connection: PoolConnectionProxy) -> None:
        """
        Free the slot of a connection that has ended in its holder's hands. Harmless when it is free.
        """
        if connection.giving_back is None and not connection.is_released:
            self._let_go(connection)
            self._core.drop(connection.lease)

    def _on_terminated(self, connection: object) -> None:
        if isinstance(connection, PoolConnectionProxy):
            self.connection_lost(connection)

    async def _once(self, method: str, *args: Any, **options: Any) -> Any:
        connection = await self.take(None)
        try:
            return await getattr(connection, method)(*args, **options)
        finally:
            await self.release(connection)

    def _lose_all(self) -> None:
        for connection in list(self._out):
            self.connection_lost(connection)

    def _check_open(self) -> None:
        if self._is_closing:
            raise _driver.PoolClosed("pool is closing")
        self._check_initialized()
        if asyncio.get_running_loop() is not self._loop:
            raise asyncpg.InterfaceError("the pool belongs to another event loop than the running one")

    def _check_initialized(self) -> None:
        if not self._is_initialized:
            if self._is_initializing:
                raise asyncpg.InterfaceError(
                    "pool is being initialized, but not yet ready: "
                    "likely there is a race between creating a pool and using it"
                )
            raise asyncpg.InterfaceError("pool is not initialized")
        if self._is_closed:
            raise _driver.PoolClosed("pool is closed")

    # --- what the driver asks of a pool after DDL

    def _drop_statement_cache(self) -> None:
        self._opener.drop_caches("_drop_local_statement_cache")

    def _drop_type_cache(self) -> None:
        self._opener.drop_caches("_drop_local_type_cache")


def _report(event: Event) -> None:
    if isinstance(event, SlowQuery | SlowLogEventsOnly | SlowLogLeftOut):
        _LOG.warning("%s %s", event.name, event.fields())
    if isinstance(event, ConnectFailed) and event.failures == 1:  # the beginning of an outage, not every attempt
        _LOG.warning("the pool cannot open a connection (%s, %s); it goes on trying", event.reason, event.error_type)


def _warn_of_long_close() -> None:
    _LOG.warning(
        "Pool.close() is taking over 60 seconds to complete. Check if you have any unreleased connections left. "
        "Use asyncio.wait_for() to set a timeout for Pool.close()."
    )
