"""Connections of the layer's own, beside the pool: how one is opened, and one for a single question.

It knows no probe, no catalogue and no lane.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final

from magnus import _driver

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from magnus._driver import Connect, Connection
    from magnus.config import DatabaseConfig

_ANSWER_LIMIT: Final = 5.0
_CLOSE_LIMIT: Final = 1.0
_NAME_BYTES: Final = 63  # the server cuts an application_name there


async def open_beside(config: DatabaseConfig, connect: Connect, purpose: str = "") -> Connection:
    """
    Open a connection as the pool's are, past a pooler where there is a way; `purpose` is appended to the name that the
    server shows of it.

    Raises:
        ConnectError: it could not be opened within `connect_timeout`.
    """
    arguments = config.direct().connect_arguments(os.environ)
    if purpose:
        settings = arguments["server_settings"]
        settings["application_name"] = named(settings["application_name"], purpose)
    try:
        async with asyncio.timeout(_driver.connect_limit(config.connect_timeout, arguments)):
            con = await connect(**arguments)
    except Exception as error:  # noqa: BLE001  # named here
        found = _driver.connect_error(error)
        raise found from found.__cause__
    _driver.guard_socket(con)
    return con


def named(name: str, purpose: str) -> str:
    """
    Return an application_name with a purpose; the name is shortened, so that the server does not cut the purpose off.
    """
    suffix = f" ({purpose})"
    return name.encode()[: _NAME_BYTES - len(suffix.encode())].decode(errors="ignore") + suffix


class Turn:
    """
    One connection at a time, for all that need one beside the pool for a moment. Belongs to one event loop until
    `reset`.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """
        Begin anew, held by nobody: on another event loop, or in a child process.
        """
        self._lock = asyncio.Lock()
        self._waiting = 0
        self._asked: Callable[[], None] | None = None

    @property
    def is_wanted(self) -> bool:
        """
        Whether somebody waits: who holds it without need gives it.
        """
        return self._waiting > 0

    async def take(self, asked: Callable[[], None] | None = None) -> None:
        """
        Wait for the turn, in the order of asking. `asked` is called when another waits for it meanwhile.
        """
        self._waiting += 1
        if self._asked is not None:
            self._asked()
        try:
            await self._lock.acquire()
        finally:
            self._waiting -= 1
        self._asked = asked

    def give(self) -> None:
        """
        Let the next one have it; for its holder only.
        """
        self._asked = None
        self._lock.release()


class Questions:
    """
    Asks the server one question at a time, each on a connection that is opened for it and closed after it, when it is
    its `turn`.

    A long answer keeps nobody waiting, and a connection that is lost meanwhile is no verdict on the server's health.
    """

    def __init__(
        self,
        config: DatabaseConfig,
        purpose: str,
        connect: Connect = _driver.driver_connect,
        *,
        turn: Turn | None = None,
    ) -> None:
        self._config = config
        self._purpose = purpose
        self._turn = turn or Turn()
        self._connect = connect
        self._con: Connection | None = None

    async def ask(self, sql: str, *args: Any) -> Mapping[str, Any]:
        """
        Return the one row of a query, within five seconds of its turn. Cancelled, it ends the connection at once.

        Raises:
            ConnectError: the server cannot be reached.
            LookupError: there is no row.
            Exception: whatever else the driver raises.
        """
        await self._turn.take()
        try:
            found = await self._asked(sql, args)
        finally:
            self._turn.give()
        if found is None:
            raise LookupError("the query has no row")
        return found

    async def _asked(self, sql: str, args: Sequence[Any]) -> Mapping[str, Any] | None:
        con = self._con = await open_beside(self._config, self._connect, self._purpose)
        try:
            found = await con.fetchrow(sql, *args, timeout=_ANSWER_LIMIT)
            await con.close(timeout=_CLOSE_LIMIT)
        finally:
            con.terminate()
            self._con = None
        return None if found is None else dict(found)

    def forked(self) -> None:
        """
        Let go of the connection, in a child process: it is the parent's.
        """
        self._turn.reset()
        if self._con is not None:
            _driver.disown(self._con)
