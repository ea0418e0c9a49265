"""PgBouncer's configuration before one server: how many connections, which limits, and why; pure.

Formulas, in connections:

    usable        = max_connections - superuser_reserved_connections - reserved_connections
    direct        = processes x 2 + 5       past the pooler: control and slow log of each process; people, migrations
    fits          = usable - direct
    total         = min(fits, 4 x CPUs)     20 where the CPUs are not known; or what was asked for
    reserve       = total / 5               lent when somebody waited for `reserve_pool_timeout`

4 a CPU: about two work at once (https://wiki.postgresql.org/wiki/Number_Of_Database_Connections), and a transaction
keeps its connection too while its client thinks between two statements.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from magnus.errors import ConfigError
from magnus.tuning.objects import application_roles
from magnus.tuning.quoting import comment, identifier, literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from magnus.tuning.facts import Facts, Server

_PEOPLE: Final = 5
_BESIDE: Final = 2
_PER_CPU: Final = 4
_UNKNOWN: Final = 20
_LEAST: Final = 2
_SLACK: Final = 10.0
_PORT: Final = 6432
_PLAIN: Final = re.compile(r"[A-Za-z0-9_]+", re.ASCII)
_LISTED: Final = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_LINE_ENDS: Final = re.compile(r"[\0\n\r]")


@dataclass(frozen=True, slots=True)
class Clients:
    """
    The services before the pooler. Durations are seconds.

    Attributes:
        processes: How many.
        pool_size: Connections to the pooler that each opens at most.
        longest: The limit of the slowest lane.
        statement: The limit that sessions of the role should begin with.
        idle: After this an idle transaction is ended by the server.
        connect_timeout: What opening a connection may take.
    """

    processes: int
    pool_size: int
    longest: float
    statement: float
    idle: float
    connect_timeout: float


@dataclass(frozen=True, slots=True)
class Line:
    """
    One setting, and why it has this value.
    """

    name: str
    value: str
    reason: str


@dataclass(frozen=True, slots=True)
class Sizes:
    """
    Connections to the server: all that the pooler opens at most, of which some are kept back; and those past it.
    """

    usable: int
    direct: int
    total: int
    reserve: int
    source: str


def sizes_of(facts: Facts, clients: Clients, wanted: int | None = None) -> Sizes:
    """
    Work out the numbers of connections; `wanted` is the total that was asked for.

    Raises:
        ConfigError: the server has too few connections for so many processes, or for what was asked for.
    """
    server = facts.server
    most = int(server.amount("max_connections") or 100)
    kept = int(server.amount("superuser_reserved_connections") or 0) + int(server.amount("reserved_connections") or 0)
    usable, direct = most - kept, clients.processes * _BESIDE + _PEOPLE
    fits = usable - direct
    sum_ = f"max_connections {most} less {kept} reserved and {direct} past the pooler leave {max(fits, 0)}"
    if fits < _LEAST:
        raise ConfigError("--processes", clients.processes, f"do not fit: {sum_}")
    if wanted is not None and not _LEAST <= wanted <= fits:
        raise ConfigError("--connections", wanted, f"must be from {_LEAST} to {fits}: {sum_}")
    cpus = None if facts.host is None else facts.host.cpus
    if wanted is not None:
        total, source = wanted, "asked for"
    elif cpus is None:
        total, source = min(_UNKNOWN, fits), "the CPUs are not known (--cpus)"
    else:
        total, source = min(max(_PER_CPU * cpus, _LEAST), fits), f"{_PER_CPU} for each of {cpus} CPUs"
        source = source if total < fits else f"all that is left for it; {source} would be {_PER_CPU * cpus}"
    return Sizes(usable, direct, total, total // 5, source)


def lines_of(sizes: Sizes, clients: Clients, server: Server) -> Iterator[Line]:
    """
    Yield the settings of the section [pgbouncer], those alone that differ from PgBouncer's own or that matter.
    """
    longest, idle = math.ceil(clients.longest + _SLACK), math.ceil(clients.idle + _SLACK)
    served = clients.processes * clients.pool_size + _SLACK
    yield Line("listen_addr", "127.0.0.1", "* for services on other machines, and then client_tls_sslmode too")
    yield Line("listen_port", str(_PORT), "")
    yield Line("auth_type", "scram-sha-256", "with the server's own secrets; see the end of this file")
    yield Line("auth_file", "/etc/pgbouncer/userlist.txt", "")
    readers = ", ".join(role.name for role in application_roles(server) if _LISTED.fullmatch(role.name))
    if readers:
        yield Line("stats_users", readers, "may ask SHOW POOLS, for get_stats and the dashboard (pooler_admin_dsn)")
    if not server.is_local:
        yield Line("server_tls_sslmode", "verify-full", "the server is on another machine")
        yield Line("server_tls_ca_file", "/etc/ssl/certs/ca-certificates.crt", "")
    yield Line("pool_mode", "transaction", 'services say pooler="transaction"')
    size = sizes.total - sizes.reserve
    yield Line("default_pool_size", str(size), f"of {sizes.total}: {sizes.source}")
    yield Line("min_pool_size", str(max(size // 4, 1)), "stay open when nothing happens")
    yield Line("reserve_pool_size", str(sizes.reserve), "more, when somebody waits")
    yield Line(
        "reserve_pool_timeout", "1", "seconds of waiting after which the reserve is lent; CRITICAL has five in all"
    )
    yield Line("max_db_connections", str(sizes.total), "for all roles together")
    yield Line(
        "max_client_conn", f"{served:.0f}",
        f"{clients.processes} x {clients.pool_size} (processes x their pools) + 10; each takes a file descriptor",
    )  # fmt: skip
    yield Line(
        "query_wait_timeout", str(longest), "above the slowest lane: the service ends its waiting itself, in time"
    )
    yield Line(
        "query_timeout", "0", "none: it would close the connection, and the server ends statements by the role's"
    )
    yield Line("idle_transaction_timeout", str(idle), "above the server's own, which says why")
    yield Line("client_idle_timeout", "0", "none: the services' pools keep connections open")
    yield Line(
        "server_connect_timeout", f"{math.ceil(clients.connect_timeout)}", "as the services': a dead server is noticed"
    )
    yield Line("server_login_retry", "1", "seconds, not 15: a server that is back is used again at once")
    yield Line(
        "server_reset_query", "DISCARD ALL", "for databases in session mode; in transaction mode nothing is left"
    )
    yield Line("server_reset_query_always", "0", "so it is not asked for here: it would cost a round trip")


def render(facts: Facts, clients: Clients, wanted: int | None = None) -> str:
    """
    Write pgbouncer.ini, for 1.18 and newer.

    Raises:
        ConfigError: as of `sizes_of`; or a name holds a line end.
    """
    sizes = sizes_of(facts, clients, wanted)
    return "\n".join(_text(facts.server, sizes, clients)) + "\n"


def _text(server: Server, sizes: Sizes, clients: Clients) -> Iterator[str]:
    yield f"; PgBouncer 1.18 or newer before {comment(f'{server.database} on {server.host}:{server.port}')}"
    yield f"; {sizes.total} connections to the server, {sizes.direct} more past the pooler, of {sizes.usable} in all"
    yield f"; the memory for them: magnus plan --pooler pgbouncer:{sizes.total}"
    yield ""
    yield "[databases]"
    host, database = _value(server.host), _value(server.database)
    yield f"{_entry(server.database)} = host={host} port={server.port} dbname={database}"
    yield ""
    yield "[pgbouncer]"
    for line in lines_of(sizes, clients, server):
        if line.reason:
            yield f"; {line.reason}"
        yield f"{line.name} = {line.value}"
    yield from _NOTES
    yield from _role_notes(server, clients)


_NOTES: Final = (
    "",
    "; ignore_startup_parameters stays empty: a service that does not say pooler=transaction is then refused, and not",
    "; served without its guards.",
    "; From 1.21 on there is max_prepared_statements. Magnus prepares without names, so any value is right; give one",
    "; (200) for other clients that prepare by name. 1.18 does not start with that line.",
    "; 1.25.0 to 1.25.2 lose SCRAM keys of a role whose first login is one on the console: let another role ask there.",
)


def _role_notes(server: Server, clients: Clients) -> Iterator[str]:
    roles = application_roles(server)
    yield ""
    yield "; /etc/pgbouncer/userlist.txt, a line for each role, as the server keeps it:"
    yield ';   psql -XAtc "SELECT format(\'\\"%s\\" \\"%s\\"\', rolname, rolpassword) FROM pg_authid WHERE rolname = …"'
    yield "; and once on the server, for statements outside transactions and for services that died:"
    limits = {
        "statement_timeout": f"{clients.statement:g}s",
        "idle_in_transaction_session_timeout": f"{clients.idle:g}s",
        "client_connection_check_interval": "500ms",
    }
    for name in [identifier(role.name) for role in roles] or ["…"]:
        for setting, limit in limits.items():
            database = identifier(server.database)
            yield f";   {comment(f'ALTER ROLE {name} IN DATABASE {database} SET {setting} = {literal(limit)};')}"


def _entry(name: str) -> str:
    """
    Return a database's name as the left side of an entry.
    """
    return _checked(name) if _PLAIN.fullmatch(name) else identifier(_checked(name))


def _value(text: str) -> str:
    """
    Return a value of an entry.
    """
    return _checked(text) if re.fullmatch(r"[A-Za-z0-9_./:-]+", text) else "'" + _checked(text).replace("'", "''") + "'"


def _checked(text: str) -> str:
    if not text or _LINE_ENDS.search(text):
        raise ConfigError("--dsn", text, "names a host or a database that no line of pgbouncer.ini can hold")
    return text
