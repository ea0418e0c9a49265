"""Puts together all that the checks look at: the server's snapshot, and what can be seen of host and service."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from magnus.config import DatabaseConfig
from magnus.tuning import reading
from magnus.tuning.checks import Missing, Snapshot, Unseen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from magnus.tuning.checks import Row

APPLICATION = "magnus check"


async def examine(dsn: str | None, environ: Mapping[str, str], *, memory: int | None = None) -> Snapshot:
    """
    Read the target and what belongs to it.

    Args:
        dsn: The target; None: that of the environment.
        environ: Environment variables.
        memory: Bytes that the server may use, when told.

    Raises:
        ConfigError: the target has an impossible value.
        ConnectError: it cannot be reached.
        asyncpg.PostgresError: it went away while it was read.
    """
    config = DatabaseConfig.from_environ(environ, **({} if dsn is None else {"dsn": dsn}))
    async with reading.session(dsn, environ, application=APPLICATION) as con:
        found = await reading.read(con)
    more: dict[str, tuple[Row, ...] | Missing] = {
        "host": _host(memory),
        "disks": _disks(found),
        "service": (_service(config),),
        "planned": Missing("not read"),
        "applied": Missing("not read"),
    }
    return Snapshot({**found.parts, **more})


def _host(memory: int | None) -> tuple[Row, ...] | Missing:
    if memory is None:
        return Missing("the memory that the server may use is not known: --memory 8GB")
    return ({"memory": memory, "source": "--memory"},)


def _disks(seen: Snapshot) -> tuple[Row, ...] | Missing:
    """
    Return the free space of the data and WAL volumes, when the server is certain to be on this machine.
    """
    server = seen.server
    if not (server["is_socket"] or server["is_same_address"]):
        return Missing("the server is on another machine: its disks cannot be seen from here")
    try:
        data = Path(seen.setting("data_directory").value)
        if not server["is_socket"] and not _is_ours(data, server["started_at"]):
            return Missing(
                f"the server's files are not in {data} of this machine: it seems to be reached through a tunnel"
            )
        volumes = [(name, path, os.statvfs(path)) for name, path in (("data", data), ("wal", data / "pg_wal"))]
    except Unseen as unseen:
        return Missing(unseen.reason)
    except OSError as error:
        return Missing(
            f"{error.filename} cannot be looked at by this account ({error.strerror}): run it as the server's"
        )
    return tuple(
        {"name": name, "path": str(path), "free": at.f_bavail * at.f_frsize, "total": at.f_blocks * at.f_frsize}
        for name, path, at in volumes
    )


def _is_ours(data: Path, started_at: float) -> bool:
    """
    Say whether the server of a data folder of this machine is the one that was asked: it began at the same second.

    A tunnel ends at the far server's loopback address, which looks the same from there. Source of the file's third
    line: PostgreSQL documentation 73.1, postmaster.pid.
    """
    lines = (data / "postmaster.pid").read_text(encoding="ascii").splitlines()
    return len(lines) > 2 and abs(int(lines[2]) - started_at) < 2


def _service(config: DatabaseConfig) -> Row:
    names = ("application_name", "min_pool_size", "max_pool_size")
    return {name: getattr(config, name) for name in names}
