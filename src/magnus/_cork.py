"""A transport of the driver's that can hold bytes back until the next write, and the stand-in for a loop that makes it.

It knows no protocol. Each write is a system call of some ten microseconds, which is as much as a statement costs
otherwise: what goes together is written together. Nothing held back was sent, so it can be taken back.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Corked:
    """
    A transport, and everything that one has; only `write` is another one after `hold`, for one time.
    """

    __slots__ = ("_held", "inner", "write")

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.write: Callable[[Any], None] = inner.write  # the transport's own: nothing is between, unless it has to be
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def hold(self, data: bytes) -> None:
        """
        Write `data` with the next write, before it.
        """
        self._held = data
        self.write = self._both

    def take_back(self) -> bool:
        """
        Forget what is held back. Returns whether there was any: then none of it was written.
        """
        is_held = bool(self._held)
        self._held, self.write = b"", self.inner.write
        return is_held

    def _both(self, data: Any) -> None:
        held = self._held
        self.take_back()
        self.inner.write(b"".join((held, data)))


class Corking:
    """
    A loop whose connections have corked transports: the driver is given it to connect with, and uses it as the real
    one ever after.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # The driver asks for one with every statement; from here it has no way round by `__getattr__`.
        self.create_future = loop.create_future

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_connection(self, factory: Callable[[], Any], *args: Any, **options: Any) -> tuple[Corked, Any]:
        return await _made(factory, self._loop.create_connection(asyncio.Protocol, *args, **options))

    async def create_unix_connection(
        self, factory: Callable[[], Any], *args: Any, **options: Any
    ) -> tuple[Corked, Any]:
        return await _made(factory, self._loop.create_unix_connection(asyncio.Protocol, *args, **options))

    async def start_tls(self, transport: Corked, *args: Any, **options: Any) -> Corked | None:
        found = await self._loop.start_tls(transport.inner, *args, **options)
        return None if found is None else Corked(found)


async def _made(factory: Callable[[], Any], connect: Awaitable[tuple[Any, Any]]) -> tuple[Corked, Any]:
    """
    Give a connection its protocol. Nobody has written yet, so nothing can have been read that it would miss.
    """
    inner, _ = await connect
    if inner.is_closing():
        raise ConnectionResetError("the connection was closed as soon as it was made")
    protocol, transport = factory(), Corked(inner)
    protocol.connection_made(transport)
    inner.set_protocol(protocol)
    return transport, protocol
