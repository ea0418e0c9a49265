"""Puts together all that the checks look at: the server's snapshot, and what can be seen of host and service."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from magnus.config import DatabaseConfig
from magnus.tuning import collect, host, reading
from magnus.tuning.checks import Missing, Snapshot, Unseen
from magnus.tuning.facts import Facts, Host
from magnus.tuning.planner import make_plan

if TYPE_CHECKING:
    from collections.abc import Mapping

    import asyncpg

    from magnus.tuning.checks import Row
    from magnus.tuning.collect import Session
    from magnus.tuning.facts import Server

    Connection = asyncpg.Connection[asyncpg.Record]

_ELSEWHERE: Final = "the server's process is not on this machine"


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
    return await examine_at(config, environ, memory=memory)


async def examine_at(config: DatabaseConfig, environ: Mapping[str, str], *, memory: int | None = None) -> Snapshot:
    """
    Read a target that is known already, on a connection of its own; raises as `examine`.
    """
    con = await collect.open_session(config, environ)
    try:
        return await _examine(con, config, memory)
    finally:
        await collect.close(con)


async def _examine(con: Connection, config: DatabaseConfig, memory: int | None) -> Snapshot:
    found = await reading.read(con)
    server, session = await collect.read_server(con)
    is_here = session.is_direct and host.is_process_here(host.read_text, session.pid, session.client_port)
    machine = _machine(server, session, memory, is_here=is_here)
    more: dict[str, tuple[Row, ...] | Missing] = {
        "host": _host(machine),
        "disks": _disks(found) if is_here else Missing(f"{_ELSEWHERE}: its disks cannot be seen"),
        "service": (_service(config),),
        "planned": _planned(server, machine),
        "applied": (),
    }
    return Snapshot({**found.parts, **more})


def _machine(server: Server, session: Session, memory: int | None, *, is_here: bool) -> Host | None:
    """
    Return the server's machine: what was told, over what is read when the server is certain to be here.
    """
    seen = host.read_host(session.pid, server.data_directory) if is_here else None
    if memory is None:
        return seen
    told = Host(memory=memory, cpus=os.cpu_count() or 1) if seen is None else seen
    return replace(told, memory=memory, memory_source="--memory")


def _host(machine: Host | None) -> tuple[Row, ...] | Missing:
    if machine is None:
        return Missing(f"{_ELSEWHERE}: name its memory with --memory 8GB")
    return ({"memory": machine.memory, "source": machine.memory_source},)


def _planned(server: Server, machine: Host | None) -> tuple[Row, ...]:
    plan = make_plan(Facts(server=server, host=machine))
    names = ("id", "name", "quick_win", "before", "after")
    return tuple({name: getattr(change, name) for name in names} for change in plan.changes)


def _disks(seen: Snapshot) -> tuple[Row, ...] | Missing:
    try:
        data = Path(seen.setting("data_directory").value)
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


def _service(config: DatabaseConfig) -> Row:
    names = ("application_name", "min_pool_size", "max_pool_size")
    return {name: getattr(config, name) for name in names}
