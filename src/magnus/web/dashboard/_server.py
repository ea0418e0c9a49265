"""The dashboard's own connection to the server: one, reserved, read only, with limits, opened when somebody looks."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from magnus import _driver

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from magnus._driver import Connection
    from magnus.config import DatabaseConfig

SETTINGS: Final = {
    "application_name": "magnus dashboard",
    "statement_timeout": "2s",
    "lock_timeout": "100ms",
    "idle_in_transaction_session_timeout": "10s",
    "default_transaction_read_only": "on",
}
"""Nothing that it asks may disturb what it looks at."""


class Watch:
    """
    Runs one question at a time on the connection, which is opened at the first, to where `config` says then.
    """

    def __init__(
        self,
        config: Callable[[], DatabaseConfig],
        *,
        environ: Mapping[str, str] = os.environ,
        connect: Callable[..., Awaitable[Connection]] = _driver.driver_connect,
    ) -> None:
        self._config = config
        self._environ = environ
        self._connect = connect
        self._con: Connection | None = None
        self._turn = asyncio.Lock()

    async def run(self, work: Callable[[Connection], Awaitable[Any]]) -> Any:
        """
        Await `work(connection)`, in turn.

        Cut short or with an error that is not the server's, the connection is thrown away.

        Raises:
            ConnectError: the server cannot be reached.
            Exception: what `work` raises.
        """
        async with self._turn:
            con = await self._open()
            is_answered = False
            try:
                found = await work(con)
                is_answered = True
            except asyncpg.PostgresError:
                is_answered = not con.is_closed()
                raise
            finally:
                if not is_answered:
                    con.terminate()
                    self._con = None
            return found

    async def _open(self) -> Connection:
        if self._con is not None and not self._con.is_closed():
            return self._con
        config = self._config()
        arguments = config.direct().connect_arguments(self._environ)
        arguments["server_settings"] = {**arguments.get("server_settings", {}), **SETTINGS}
        try:
            async with asyncio.timeout(config.connect_timeout):
                self._con = await self._connect(**arguments)
        except Exception as error:  # noqa: BLE001  # named here
            found = _driver.connect_error(error)
            raise found from found.__cause__
        _driver.guard_socket(self._con)
        return self._con

    async def close(self) -> None:
        """
        Close the connection; the next question opens another.
        """
        con, self._con = self._con, None
        if con is not None:
            con.terminate()
