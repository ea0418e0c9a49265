"""What has to be known of a server before, while and after it is changed: identity, before-images, read-back."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from magnus.tuning import autoconf, collect, local
from magnus.tuning.facts import Extension, RoleSetting, Server, Setting

if TYPE_CHECKING:
    from collections.abc import Mapping

    Connection = asyncpg.Connection[asyncpg.Record]

_SETTINGS: Final = "SELECT * FROM pg_settings"
_ROLE_SETTINGS: Final = """
SELECT r.rolname, d.datname, unnest(s.setconfig) AS item FROM pg_db_role_setting s
LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase
"""
_EXTENSIONS: Final = """
SELECT a.name, e.extversion, a.default_version, n.nspname FROM pg_available_extensions a
LEFT JOIN pg_extension e ON e.extname = a.name LEFT JOIN pg_namespace n ON n.oid = e.extnamespace
"""
_TABLES: Final = """
SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
"""


async def server(con: Connection) -> Server:
    """
    Read the server's facts, among them whether it runs on this machine.
    """
    seen, session = await collect.read_server(con)
    address = await con.fetchval("SELECT host(inet_server_addr())")
    here = MappingProxyType({seen.database: await tables(con)})
    return replace(seen, is_local=is_local(address, session.pid), tables=here)


async def widened(seen: Server, connections: Mapping[str, Connection]) -> Server:
    """
    Add what other databases of the server hold.
    """
    known = {**seen.extensions, **{name: await extensions(con) for name, con in connections.items()}}
    there = {**seen.tables, **{name: await tables(con) for name, con in connections.items()}}
    return replace(seen, extensions=MappingProxyType(known), tables=MappingProxyType(there))


def is_local(address: str | None, pid: int) -> bool:
    """
    Say whether the session's server runs on this machine: reached by socket or loopback, and its process is here.
    """
    near = address is None or address.startswith("127.") or address == "::1"
    return near and local.is_backend_here(pid)


async def settings(con: Connection) -> dict[str, Setting]:
    """
    Read pg_settings; of what this session set for itself, the value below that.
    """
    return {row["name"]: _setting(dict(row)) for row in await con.fetch(_SETTINGS)}


def _setting(row: Mapping[str, Any]) -> Setting:
    return Setting(
        name=row["name"],
        value=row["reset_val"] if row["source"] == "session" else row["setting"],
        unit=row["unit"],
        context=row["context"],
        vartype=row["vartype"],
        source=row["source"],
        sourcefile=row["sourcefile"],
        sourceline=row["sourceline"],
        boot_val=row["boot_val"],
        reset_val=row["reset_val"],
        min_val=row["min_val"],
        max_val=row["max_val"],
        enumvals=tuple(row["enumvals"] or ()),
        pending_restart=row["pending_restart"],
    )


async def role_settings(con: Connection) -> tuple[RoleSetting, ...]:
    """
    Read what ALTER ROLE … SET and ALTER DATABASE … SET have left.
    """
    found = []
    for row in await con.fetch(_ROLE_SETTINGS):
        name, _, value = row["item"].partition("=")
        found.append(RoleSetting(row["rolname"], row["datname"], name, value))
    return tuple(found)


async def extensions(con: Connection) -> tuple[Extension, ...]:
    """
    Read the extensions of the session's database, and those it could have.
    """
    return tuple(Extension(*row) for row in await con.fetch(_EXTENSIONS))


async def tables(con: Connection) -> frozenset[str]:
    """
    Read the names of the session's database's tables.
    """
    found = {row[0] for row in await con.fetch(_TABLES)}
    return frozenset(found | {name.removeprefix("public.") for name in found})


def place(name: str) -> str:
    """
    Return a table's or index's name with its schema: public unless it says so.
    """
    return name if "." in name else f"public.{name}"


async def auto_conf(con: Connection, site: local.Site | None) -> bytes | None:
    """
    Read postgresql.auto.conf: from this machine's disk, or through the server; None without the right to either.
    """
    if site is not None:
        try:
            return site.auto_conf.read_bytes()
        except OSError:
            pass  # the server itself may read it
    try:
        found: bytes = await con.fetchval("SELECT pg_read_binary_file($1)", autoconf.FILE)
    except asyncpg.InsufficientPrivilegeError:
        return None
    return found


async def entries(con: Connection, site: local.Site | None, seen: Mapping[str, Setting]) -> dict[str, str]:
    """
    Return what postgresql.auto.conf holds; without a look into it, what pg_settings says comes from it.
    """
    content = await auto_conf(con, site)
    if content is not None:
        return autoconf.values(content)
    return {setting.name.lower(): setting.text for setting in seen.values() if setting.in_auto_conf}


async def file_settings(con: Connection) -> tuple[tuple[str, str, str], ...] | None:
    """
    Read every setting of every configuration file in the order that counts: name, value, file. None without the right.
    """
    try:
        rows = await con.fetch("SELECT lower(name), setting, sourcefile FROM pg_file_settings ORDER BY seqno")
    except asyncpg.InsufficientPrivilegeError:
        return None
    return tuple((row[0], row[1], row[2]) for row in rows if row[0] is not None and row[1] is not None)


async def file_errors(con: Connection) -> tuple[str, ...] | None:
    """
    Return the errors of the configuration files, which make a reload do nothing. None without the right to see them.

    "setting could not be applied" is shown for good settings that wait for a restart, too.
    """
    sql = "SELECT sourcefile, sourceline, error, name FROM pg_file_settings WHERE error IS NOT NULL ORDER BY seqno"
    try:
        rows = await con.fetch(sql)
    except asyncpg.InsufficientPrivilegeError:
        return None
    real = [row for row in rows if row[2] != "setting could not be applied"]
    return tuple(f"{row[0]} line {row[1]}: {row[3] or ''} {row[2]}" for row in real)
