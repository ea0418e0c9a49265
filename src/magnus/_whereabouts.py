"""Where the primary of a database with standbys is, asked on a connection of its own; what follows others decide."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from magnus import _driver
from magnus._beside import open_beside
from magnus._routing import Position, Primary

if TYPE_CHECKING:
    from magnus._clock import Clock
    from magnus._driver import Connection
    from magnus.config import DatabaseConfig

ANSWER: Final = 0.4
"""Seconds that a server has to say how far it is; after them it counts as away."""
_WRITTEN: Final = """
SELECT ('x' || substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int8
           AS timeline,
       (pg_catalog.pg_current_wal_insert_lsn() - '0/0'::pg_catalog.pg_lsn)::pg_catalog.int8 AS lsn
"""


class Whereabouts:
    """
    How far the primary has come, and the one connection on which it is asked. `config` is the primary's.

    Attributes:
        last: What it last said; None before it did.
    """

    def __init__(self, config: DatabaseConfig, clock: Clock) -> None:
        self.last: Primary | None = None
        self._config = config
        self._clock = clock
        self._con: Connection | None = None
        self._asking: asyncio.Task[Primary] | None = None
        self._next: asyncio.Task[Primary] | None = None

    async def ask(self) -> Primary:
        """
        Return where the primary stands, asked after this call; callers at the same time share one question.

        Raises:
            Exception: it does not say within `ANSWER`.
        """
        if self._next is None or self._next.done():  # else one that has not begun: it serves this caller too
            if self._asking is None or self._asking.done():
                self._asking = asyncio.get_running_loop().create_task(self._ask(None))
                return await asyncio.shield(self._asking)
            self._next = asyncio.get_running_loop().create_task(self._ask(self._asking))
        return await asyncio.shield(self._next)

    async def _ask(self, before: asyncio.Task[Primary] | None) -> Primary:
        if before is not None:
            await asyncio.wait({before})
            self._asking, self._next = self._next, None
        asked_at = self._clock.now()
        try:
            async with asyncio.timeout(None if self._con is None else ANSWER):
                if self._con is None or self._con.is_closed():
                    self._con = await open_beside(self._config, _driver.driver_connect, "position")
                row = await self._con.fetchrow(_WRITTEN)
        except BaseException:
            con, self._con = self._con, None
            if con is not None:
                con.terminate()
            raise
        assert row is not None, "the server answers with one row"
        self.last = Primary(Position(row["timeline"], row["lsn"]), asked_at)
        return self.last

    def disowned(self) -> Connection | None:
        """
        Forget everything, in a child process; return the connection that is the parent's.
        """
        con, self._con, self.last = self._con, None, None
        return con

    async def close(self) -> None:
        """
        Stop asking, and let go of the connection.
        """
        tasks = [task for task in (self._asking, self._next) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        con, self._con = self._con, None
        if con is not None:
            con.terminate()
