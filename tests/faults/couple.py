"""A primary with its streaming standby: one is killed, the other takes over, a new one comes."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from magnus.embedded import throwaway
from magnus.testing import kill, promote, socket_of, standby_of, until_replayed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from magnus.embedded import Binaries, Cluster
    from magnus.testing import FaultProxy


class Couple:
    """
    A primary and a standby. After `fail_over` the standby is the primary and a new standby streams from it.
    """

    def __init__(self, primary: Cluster, *, is_synchronous: bool, past: AsyncExitStack) -> None:
        self.primary = primary
        self.is_synchronous = is_synchronous
        self.standby: Cluster | None = None
        self._past = past

    async def join(self) -> None:
        """
        Give the primary a standby that has all there is.
        """
        self.standby = await self._past.enter_async_context(
            standby_of(self.primary, is_synchronous=self.is_synchronous)
        )
        await until_replayed(self.primary, self.standby)

    async def fail_over(self, proxy: FaultProxy, *, has_kill: bool = True) -> float:
        """
        Kill the primary, promote the standby, lead the proxy's new connections there; return the promotion's seconds.
        """
        assert self.standby is not None, "join first"
        if has_kill:
            await kill(self.primary)
        seconds = await promote(self.standby)
        self.primary, self.standby = self.standby, None
        proxy.upstream = socket_of(self.primary.socket_folder, self.primary.port)
        return seconds


@asynccontextmanager
async def couple(binaries: Binaries, *, is_synchronous: bool) -> AsyncIterator[Couple]:
    """
    A new primary with a new standby; whatever became of them is removed afterwards.
    """
    async with throwaway(binaries, max_connections=100) as primary, AsyncExitStack() as past:
        found = Couple(primary, is_synchronous=is_synchronous, past=past)
        await found.join()
        yield found
