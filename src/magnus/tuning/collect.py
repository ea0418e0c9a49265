"""Reads facts from a server: one read-only snapshot within its own limits, by any role. It gives no advice.

What the role may not see is left out and stays None; nothing is guessed for it. Host facts are read by `host`, and
only when the server's process is found on this machine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from magnus import _driver, sql
from magnus.errors import TuningError
from magnus.tuning import settings_read
from magnus.tuning.facts import Extension, Permissions, Role, RoleSetting, Server, Standby

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from magnus.config import DatabaseConfig

    Connection = asyncpg.Connection[asyncpg.Record]

_LIMITS: Final = (
    "SET LOCAL statement_timeout = '2s'",
    "SET LOCAL lock_timeout = '100ms'",
    "SET LOCAL idle_in_transaction_session_timeout = '30s'",
)
OLDEST: Final = 15
"""The oldest major version that is looked at; older ones have no rights on single parameters."""
_CHECKPOINTS_OWN_VIEW: Final = 17
_FEWEST_CHECKPOINTS: Final = 10
_FEWEST_READS: Final = 1_000
_QUARTER: Final = 900.0


@dataclass(frozen=True, slots=True)
class Session:
    """
    The session that read: what identifies its process on the server's machine.

    Attributes:
        pid: Of the backend, on its own machine.
        client_port: The client's port as the backend sees it, None for a unix socket.
        is_direct: The other end of our connection is that backend: no pooler and no tunnel lies between.
    """

    pid: int
    client_port: int | None
    is_direct: bool = True


async def open_session(config: DatabaseConfig, environ: Mapping[str, str]) -> Connection:
    """
    Open one connection for reading facts. It asks for no server settings but its name, as a pooler refuses others.

    Raises:
        ConnectError: no connection could be opened.
    """
    arguments = config.direct().connect_arguments(environ)
    arguments |= {"server_settings": {"application_name": "magnus"}, "statement_cache_size": 0, "command_timeout": 10.0}
    try:
        return await _driver.driver_connect(**arguments)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise _driver.connect_error(error) from error


async def read_server(con: Connection) -> tuple[Server, Session]:
    """
    Read all facts of a server in one snapshot. Cancelling ends the transaction; nothing was written.

    Raises:
        TuningError: the server is older than PostgreSQL 15.
        asyncpg.PostgresError: what every role may read could not be read.
    """
    major = con.get_server_version().major
    if major < OLDEST:
        raise TuningError(f"PostgreSQL {major} is too old for the optimizer, which knows {OLDEST} and later")
    async with con.transaction(isolation="repeatable_read", readonly=True):
        for limit in _LIMITS:
            await con.execute(limit)
        reader = _Reader(con)
        base = (await con.fetch(sql.text("facts_server")))[0]
        server = await reader.server(base)
    host, port, own_port = _driver.ends_of(con)
    port = port or int(server.amount("port") or 5432)
    session = Session(base["pid"], base["client_port"], is_direct=base["client_port"] == own_port)
    return replace(server, host=host, port=port), session


async def close(con: Connection) -> None:
    """
    Close a connection; one whose server does not answer is ended all the same.
    """
    try:
        await con.close(timeout=2.0)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        con.terminate()


class _Reader:
    """
    Runs the named queries, each optional one in a savepoint of its own.
    """

    def __init__(self, con: Connection) -> None:
        self._con = con

    async def _rows(self, name: str) -> list[dict[str, Any]] | None:
        """
        The rows of a query; None when this role may not ask, or the answer would take too long.
        """
        try:
            async with self._con.transaction():
                return [dict(row) for row in await self._con.fetch(sql.text(f"facts_{name}"))]
        except (asyncpg.InsufficientPrivilegeError, asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError):
            return None

    async def server(self, base: asyncpg.Record) -> Server:
        rows = [dict(row) for row in await self._con.fetch(sql.text("facts_settings"))]
        files = await self._rows("files")
        settings = settings_read.settings_of(rows, files)
        version, database = base["version_num"], base["database"]
        standby = base["is_standby"]
        roles = tuple(Role(**row) for row in await self._rows("roles") or ())
        extensions = await self._extensions()
        return Server(
            version_num=version,
            system_identifier=_identifier(await self._rows("identifier")),
            database=database,
            schema=base["schema"] or "public",
            data_directory=_shown(settings, "data_directory"),
            config_file=_shown(settings, "config_file"),
            cluster_name=_shown(settings, "cluster_name") or "",
            is_standby=standby,
            standbys=tuple(Standby(**row) for row in await self._rows("standbys") or ()),
            sessions=max(0, base["sessions"]),
            managed=settings_read.managed_by(
                [*base["memberships"], *(r.name for r in roles)], settings, base["is_superuser"]
            ),
            allow_alter_system=_shown(settings, "allow_alter_system") != "off",
            permissions=_permissions(base, rows),
            settings=settings,
            role_settings=tuple(RoleSetting(**row) for row in await self._rows("role_settings") or ()),
            roles=roles,
            extensions=MappingProxyType({database: extensions}),
            available_extensions=MappingProxyType({item.name: item.default_version or "" for item in extensions}),
            databases=MappingProxyType({row["name"]: row["size"] for row in await self._rows("databases") or ()}),
            tables=MappingProxyType({database: frozenset(row["name"] for row in await self._rows("tables") or ())}),
            uptime=base["uptime"],
            postmaster_started=base["started"],
            shared_memory_size=settings_read.size(settings, "shared_memory_size"),
            **await self._activity(version, settings, base["uptime"]),
        )

    async def _extensions(self) -> tuple[Extension, ...]:
        return tuple(Extension(**row) for row in await self._rows("extensions") or ())

    async def _activity(self, version: int, settings: Mapping[str, Any], uptime: float) -> dict[str, Any]:
        wal = await self._rows("wal")
        view = "checkpoints_17" if version // 10_000 >= _CHECKPOINTS_OWN_VIEW else "checkpoints_15"
        checkpoints, reads = await self._rows(view), await self._rows("reads")
        return {
            "wal_bytes_per_15min": None if not wal else per_quarter(wal[0]["bytes"], wal[0]["age"]),
            "requested_checkpoints": None if not checkpoints else _share(**checkpoints[0]),
            **({} if not reads else read_figures(reads[0], settings, uptime)),
        }


def per_quarter(size: float | None, age: float | None) -> float | None:
    """
    Return bytes in 15 minutes, the mean of a longer time; a shorter one is not extrapolated.
    """
    return None if size is None or age is None else size / max(1.0, age / _QUARTER)


def read_figures(row: Mapping[str, Any], settings: Mapping[str, Any], uptime: float) -> dict[str, float | None]:
    """
    Return the mean read, what temporary files a day holds, and the age of the statistics, each where it is known.
    """
    timing = settings.get("track_io_timing")
    is_timed = timing is not None and timing.value == "on" and (row["blocks"] or 0) >= _FEWEST_READS and row["ms"]
    age = row["age"]
    return {
        "read_latency": row["ms"] / row["blocks"] / 1000 if is_timed else None,
        "temp_bytes_per_day": row["temp_bytes"] / max(1.0, age / 86_400) if age and row["temp_bytes"] else None,
        "stats_age": max(uptime, age) if age else uptime,
    }


def _share(timed: int, requested: int) -> float | None:
    total = timed + requested
    return requested / total if total >= _FEWEST_CHECKPOINTS else None


def _permissions(base: asyncpg.Record, rows: Sequence[Mapping[str, Any]]) -> Permissions:
    return Permissions(
        role=base["role"],
        is_superuser=base["is_superuser"],
        is_monitor=base["is_monitor"],
        alter_system=frozenset(row["name"] for row in rows if row["can_alter"]),
        can_reload=base["can_reload"],
        can_create=base["can_create"],
        can_see_files=base["can_see_files"],
        memberships=frozenset(base["memberships"]),
    )


def _identifier(rows: Sequence[Mapping[str, Any]] | None) -> str:
    return str(rows[0]["system_identifier"]) if rows else ""


def _shown(settings: Mapping[str, Any], name: str) -> str | None:
    setting = settings.get(name)
    return None if setting is None else setting.value
