"""Single connections to the server that is tuned: without the limits of a service, named for what they do."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from magnus import _driver
from magnus.config import DatabaseConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

# A change may wait shortly for a lock and never holds up a queue behind it; a build of an index may take hours.
# Set in the session and not at its start, so that pg_settings still tells the value below (reset_val).
_GUARDS: Final = (
    "SET statement_timeout = 0; SET lock_timeout = '3s'; SET idle_in_transaction_session_timeout = '60s'; "
    "SET search_path = pg_catalog"
)
# Answers of a server that is alive: it knows us, but has no room.
_ALIVE: Final = frozenset({"53300", "53400"})


@dataclass(frozen=True, slots=True)
class Reach:
    """
    How to get to the server: the operator's connection string, or the environment's.
    """

    dsn: str | None
    environ: Mapping[str, str]
    application_name: str = "magnus"

    def config(self) -> DatabaseConfig:
        """
        Return the settings to connect with.

        Raises:
            ConfigError: an impossible connection string or variable.
        """
        given: dict[str, Any] = {} if self.dsn is None else {"dsn": self.dsn}
        return DatabaseConfig.from_environ(self.environ, **given).replace(application_name=self.application_name)

    async def connect(self, *, database: str | None = None, as_application: bool = False) -> Connection:
        """
        Open a connection of one's own, to another database of the server if that is named.

        `as_application`: without any setting of ours, so that it sees what an application's session would.

        Raises:
            ConnectError: the server cannot be reached, or refuses.
        """
        config = self.config()
        arguments = config.connect_arguments(self.environ)
        arguments["server_settings"] = {"application_name": self.application_name}
        arguments["statement_cache_size"] = 0  # the way in may be a pooler
        if database is not None:
            arguments["database"] = database
        try:
            async with asyncio.timeout(config.connect_timeout):
                con = await _driver.driver_connect(**arguments)
                if not as_application:
                    await con.execute(_GUARDS)
                return con
        except Exception as error:  # noqa: BLE001  # named here
            found = _driver.connect_error(error)
            raise found from found.__cause__

    async def is_alive(self) -> bool:
        """
        Say whether a new session can be opened and answers; a full server counts as alive.
        """
        try:
            con = await self.connect()
        except Exception as error:  # noqa: BLE001  # whatever it is, no session can be opened
            return getattr(error, "sqlstate", None) in _ALIVE
        try:
            async with asyncio.timeout(5.0):
                return bool(await con.fetchval("SELECT true"))
        except Exception:  # noqa: BLE001  # as above
            return False
        finally:
            con.terminate()

    @classmethod
    def from_environ(cls, dsn: str | None) -> Reach:
        return cls(dsn, dict(os.environ))
