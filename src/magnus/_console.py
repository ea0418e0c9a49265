"""The pooler's own figures: asked on its console, beside all work, and kept for whoever looks.

A console that cannot be asked is said to be so, and disturbs nothing.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final

from magnus import _driver, _dsn
from magnus._simple import simple_rows
from magnus.errors import ConnectError, DatabaseError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from magnus._driver import Connect, Connection
    from magnus.config import DatabaseConfig

_ANSWER: Final = 2.0
_UNSET: Final = "set pooler_admin_dsn to the pooler's console, for a role of its stats_users: postgresql://…/pgbouncer"


class Console:
    """
    Asks a PgBouncer's console how its pools of one database stand, every `health_check_interval` seconds.
    """

    def __init__(self, config: DatabaseConfig, connect: Connect = _driver.driver_connect) -> None:
        self._config = config
        self._connect = connect
        self._database = config.destination(os.environ)[2]
        self._con: Connection | None = None
        self._loop: asyncio.Task[None] | None = None
        self._found: dict[str, Any] = {"unavailable": "not asked yet" if config.pooler_admin_dsn else _UNSET}

    def start(self) -> None:
        """
        Begin to ask in the background, where there is a console.
        """
        if self._config.pooler_admin_dsn:
            self._loop = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        """
        Stop asking, and close the connection.
        """
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)
        self._drop()

    def forked(self) -> None:
        """
        Let go of everything, in a child process: the connection is the parent's.
        """
        if self._con is not None:
            _driver.disown(self._con)
        self._con = self._loop = None

    def figures(self) -> dict[str, Any]:
        """
        Return what was found last, ready for JSON: `version` and `pools`, or `unavailable` and why.
        """
        return self._found

    async def look(self) -> None:
        """
        Ask now. Never raises.
        """
        try:
            async with asyncio.timeout(_ANSWER):
                if self._con is None or self._con.is_closed():
                    self._con = await self._open()
                con = self._con
                rows = await simple_rows(con, "SHOW POOLS")
        except Exception as error:  # noqa: BLE001  # whatever it is, there are no figures
            self._drop()
            self._found = {"unavailable": _why(error)}
            return
        version = con.get_settings().server_version.partition("/")[0]
        pools = [_pool(row) for row in rows if row.get("database") == self._database]
        self._found = {"version": version, "pools": pools}

    async def _watch(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(self._config.health_check_interval)

    async def _open(self) -> Connection:
        config = self._config.replace(dsn=self._config.pooler_admin_dsn)
        if _dsn.parse(config.dsn).password is not None:  # that of a role of its own
            config = config.replace(password=None)
        con = await self._connect(**config.connect_arguments(os.environ))
        _driver.guard_socket(con)
        return con

    def _drop(self) -> None:
        con, self._con = self._con, None
        if con is not None:
            con.terminate()


def _pool(row: Mapping[str, str | None]) -> dict[str, Any]:
    """
    Return one row of SHOW POOLS in our words; what a version does not have is 0.
    """

    def number(*names: str) -> int:
        return sum(int(row.get(name) or 0) for name in names)

    return {
        "user": row.get("user"),
        "mode": row.get("pool_mode"),
        "clients_active": number("cl_active"),
        "clients_waiting": number("cl_waiting"),
        "max_wait_ms": 1000 * number("maxwait") + number("maxwait_us") / 1000,
        "servers_active": number("sv_active"),
        "servers_idle": number("sv_idle", "sv_used", "sv_tested"),
        "servers_connecting": number("sv_login"),
    }


def _why(error: Exception) -> str:
    if isinstance(error, DatabaseError) and not isinstance(error, ConnectError):
        return "the console does not answer SHOW POOLS: is pooler_admin_dsn that of PgBouncer's database pgbouncer?"
    return f"the console cannot be asked ({_driver.connect_error(error).reason})"
