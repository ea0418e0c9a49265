"""Where a connection string leads, with libpq's environment behind it: hosts, port, database, and whether the machine
is left; opens nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from magnus._dsn import Dsn

_PORT: Final = 5432


def destination(target: Dsn, environ: Mapping[str, str]) -> tuple[str | None, int, str | None]:
    """
    Return host, port and database as they are named; no host where there are several.
    """
    named_hosts = hosts(target, environ)
    host, port = named_hosts[0] if len(named_hosts) == 1 else (None, None)
    named = environ.get("PGPORT", "")
    database = target.database or environ.get("PGDATABASE") or target.user or environ.get("PGUSER")
    return host, port or (int(named) if named.isascii() and named.isdigit() else _PORT), database


def hosts(target: Dsn, environ: Mapping[str, str]) -> list[tuple[str, int | None]]:
    """
    Return the hosts that are named; none where a service file may name others.
    """
    if target.hosts or "service" in target.parameters:
        return list(target.hosts)
    names = [name for name in environ.get("PGHOST", "").split(",") if name]
    ports = [int(port) for port in environ.get("PGPORT", "").split(",") if port.isascii() and port.isdigit()]
    spread: list[int | None] = [*ports] if len(ports) == len(names) else [ports[0] if ports else None] * len(names)
    return list(zip(names, spread, strict=True))


def leaves_this_machine(target: Dsn, environ: Mapping[str, str]) -> bool:
    """
    Say whether a connection may go to another machine and nobody has said how that one is verified.
    """
    if "sslmode" in target.parameters or "service" in target.parameters or environ.get("PGSSLMODE"):
        return False
    names = [host for host, _ in target.hosts] or [host for host in environ.get("PGHOST", "").split(",") if host]
    return any(not _is_local(host) for host in names)


def _is_local(host: str) -> bool:
    return host.startswith(("/", "@", "127.")) or host in {"localhost", "::1"}
