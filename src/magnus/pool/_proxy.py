"""What callers of `create_pool` hold: the driver's own proxy around a connection, tied to a lease of our pool.

The driver asks a proxy's holder for two things: that it gives the slot back when the connection ends, and for the pool
whose caches are dropped after DDL. The proxy is its own holder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import asyncpg
from asyncpg.pool import PoolConnectionProxy as DriverProxy

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Generator
    from types import TracebackType

    from magnus.pool._lease import Lease

    _Base = DriverProxy[asyncpg.Record]
else:
    _Base = DriverProxy


class Owner(Protocol):
    """
    The pool, as a proxy sees it.
    """

    def connection_lost(self, connection: PoolConnectionProxy) -> None: ...

    async def take(self, timeout: float | None) -> PoolConnectionProxy: ...  # the driver's word

    async def release(self, connection: Any) -> None: ...


class PoolConnectionProxy(_Base):
    """
    A leased connection: an `asyncpg.Connection` by `isinstance`, whose methods raise once it was released.

    Attributes:
        owner: The pool that it is given back to.
        lease: What the pool knows it by.
        patience: Seconds that `acquire` was given, the default of `release`; None when it was given none.
        giving_back: The release under way, if any.
    """

    __slots__ = ("giving_back", "lease", "owner", "patience")

    def __init__(self, owner: Owner, lease: Lease, patience: float | None) -> None:
        self.owner = owner
        self.lease = lease
        self.patience = patience
        self.giving_back: asyncio.Task[None] | None = None
        super().__init__(self, lease.con)  # type: ignore[arg-type]  # its own holder

    @property
    def is_released(self) -> bool:
        return self._con is None  # type: ignore[attr-defined]  # the stubs leave it out

    def detach(self) -> None:
        """
        End the caller's use of the connection. Harmless when it has ended.
        """
        self._detach()  # type: ignore[attr-defined]  # the stubs leave it out
        self._holder = None  # type: ignore[assignment]  # else every lease would be a cycle for the collector

    async def close(self, *, timeout: float | None = None) -> None:
        """
        Close the connection; its slot is free afterwards.
        """
        try:
            await super().close(timeout=timeout)
        finally:
            self._notice()

    def terminate(self) -> None:
        """
        End the connection without a word to the server; its slot is free afterwards.
        """
        try:
            super().terminate()
        finally:
            self._notice()

    def _notice(self) -> None:
        if not self.is_released and self.lease.con.is_closed():
            self.owner.connection_lost(self)

    # --- what the driver asks its holder

    @property
    def _pool(self) -> Any:
        return self.owner

    def _release_on_close(self) -> None:
        self.owner.connection_lost(self)


class PoolAcquireContext:
    """
    A lease to be: await it, or enter it with `async with`, which releases it at the end.
    """

    __slots__ = ("connection", "done", "pool", "timeout")

    def __init__(self, pool: Owner, timeout: float | None) -> None:
        self.pool = pool
        self.timeout = timeout
        self.connection: PoolConnectionProxy | None = None
        self.done = False

    def __await__(self) -> Generator[Any, None, PoolConnectionProxy]:
        self.done = True
        return self.pool.take(self.timeout).__await__()

    async def __aenter__(self) -> PoolConnectionProxy:
        if self.connection is not None or self.done:
            raise asyncpg.InterfaceError("a connection is already acquired")
        self.connection = await self.pool.take(self.timeout)
        return self.connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.done = True
        connection, self.connection = self.connection, None
        await self.pool.release(connection)
