"""A: access, logging, limits of roles, extensions, and room on the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from magnus.tuning.checks._fixes import percent, set_to
from magnus.tuning.checks._model import Finding, Severity, Verdict, check
from magnus.tuning.checks._snapshot import share
from magnus.tuning.quoting import alter_role, identifier
from magnus.tuning.setting import split_list
from magnus.tuning.units import shown

if TYPE_CHECKING:
    from magnus.tuning.checks._snapshot import Row, Snapshot

FREE: Final = (0.15, 0.05)
LOOPBACK: Final = frozenset({"", "localhost", "127.0.0.1", "::1"})


@check(
    "A001",
    "Passwords are stored as scram-sha-256",
    why="md5 passwords are broken, and PostgreSQL 18 warns of them: a later version takes none.",
    threshold="warning: a role that may log in has an md5 password",
    fix="SET password_encryption = 'scram-sha-256'; \\password role",
    undo="Set the earlier password again.",
    reads=("passwords", "roles"),
)
def passwords(seen: Snapshot) -> Verdict:
    roles = seen.rows("roles")
    found = tuple(
        Finding(
            Severity.WARNING,
            f"role {row['name']}",
            "its password is stored as md5",
            f"SET password_encryption = 'scram-sha-256'; then \\password {identifier(row['name'])} in psql",
            "set the earlier password again",
        )
        for row in seen.rows("passwords")
    )
    return Verdict(found, "none is md5", len(roles), len(roles))


@check(
    "A002",
    "Applications are no superusers",
    why="A superuser passes every permission and row-level policy, and can run programs on the server.",
    threshold="warning: a superuser other than the one of initdb may log in",
    fix="ALTER ROLE … NOSUPERUSER, with the grants that it needs.",
    undo="ALTER ROLE … SUPERUSER",
    reads=("roles",),
)
def superusers(seen: Snapshot) -> Verdict:
    roles = seen.rows("roles")
    found = tuple(
        Finding(
            Severity.WARNING,
            f"role {row['name']}",
            "is a superuser that may log in",
            f"ALTER ROLE {identifier(row['name'])} NOSUPERUSER",
            f"ALTER ROLE {identifier(row['name'])} SUPERUSER",
        )
        for row in roles
        if row["is_superuser"] and not row["is_bootstrap"]
    )
    return Verdict(found, "only initdb's own", len(roles), len(roles))


@check(
    "A003",
    "Not everybody may create objects",
    why="A function or operator of the same name in a schema on the search path runs with the rights of whoever meets "
    "it.",
    threshold="warning: PUBLIC has CREATE on a schema",
    fix="REVOKE CREATE ON SCHEMA … FROM PUBLIC",
    undo="GRANT CREATE ON SCHEMA … TO PUBLIC",
    reads=("open_schemas",),
)
def open_schemas(seen: Snapshot) -> Verdict:
    found = tuple(
        Finding(
            Severity.WARNING,
            f"schema {row['name']}",
            "PUBLIC may create objects in it",
            f"REVOKE CREATE ON SCHEMA {identifier(row['name'])} FROM PUBLIC",
            f"GRANT CREATE ON SCHEMA {identifier(row['name'])} TO PUBLIC",
        )
        for row in seen.rows("open_schemas")
    )
    return Verdict(found, "none")


@check(
    "A004",
    "Connections from elsewhere are encrypted",
    why="Without TLS everybody on the way reads every row, and may change it.",
    threshold="warning: ssl is off, and the server listens on more than loopback",
    fix="Give it a certificate, ALTER SYSTEM SET ssl = on, reload; hostssl instead of host in pg_hba.conf.",
    undo="ALTER SYSTEM SET ssl = off, reload.",
    reads=("settings",),
)
def encryption(seen: Snapshot) -> Verdict:
    listens = split_list(seen.setting("listen_addresses").value)
    if seen.flag("ssl"):
        return Verdict((), "ssl is on")
    if set(listens) <= LOOPBACK:
        return Verdict((), "ssl is off, and only this machine can connect")
    evidence = f"is off, and the server listens on {', '.join(listens)}"
    return Verdict((Finding(Severity.WARNING, "ssl", evidence, *set_to(seen, "ssl", "on")),))


@check(
    "A005",
    "The log shows waits and temporary files",
    why="Who waited for whose lock, and which statement spilled to disk, cannot be found out afterwards any other way.",
    threshold="info: log_lock_waits off, or log_temp_files -1",
    fix="ALTER SYSTEM SET log_lock_waits = on, log_temp_files = the work_mem; reload.",
    undo="The earlier values and a reload.",
    reads=("settings",),
)
def logging(seen: Snapshot) -> Verdict:
    found = []
    if not seen.flag("log_lock_waits"):
        found.append(Finding(Severity.INFO, "log_lock_waits", "is off", *set_to(seen, "log_lock_waits", "on")))
    if seen.number("log_temp_files") < 0:
        wanted = seen.setting("work_mem").text
        found.append(
            Finding(Severity.INFO, "log_temp_files", "is -1: none is logged", *set_to(seen, "log_temp_files", wanted))
        )
    return Verdict(tuple(found), "both are logged", 2, 2)


_LIMITS: Final = (("idle_in_transaction_session_timeout", "60s"), ("statement_timeout", "120s"))


@check(
    "A006",
    "Roles of applications have limits",
    why="A client that hangs in a transaction, or left its query behind, is ended by the server only if somebody told "
    "it to. Set for the "
    "role, not for all: migrations need more.",
    threshold="info: a role that has sessions and is no superuser has no idle_in_transaction_session_timeout or no "
    "statement_timeout, by role, "
    "database or server",
    fix="ALTER ROLE … SET idle_in_transaction_session_timeout = '60s', and statement_timeout",
    undo="ALTER ROLE … RESET",
    reads=("settings", "roles", "role_settings", "activity"),
)
def limits(seen: Snapshot) -> Verdict:
    present = {row["role"] for row in seen.rows("activity") if row["role"]}
    roles = [
        row
        for row in seen.rows("roles")
        if row["name"] in present and not row["is_superuser"] and not row["is_replication"]
    ]
    found = []
    for row in roles:
        for name, wanted in _LIMITS:
            if not _limit(seen, row, name):
                evidence = f"has sessions and no {name} of role, database or server; sessions of Magnus set their own"
                pair = (alter_role(row["name"], name, wanted), alter_role(row["name"], name, None))
                found.append(Finding(Severity.INFO, f"role {row['name']}", evidence, *pair))
    return Verdict(tuple(found), f"{len(roles)} roles with sessions", len(roles), len(roles))


def _limit(seen: Snapshot, role: Row, name: str) -> bool:
    """
    Say whether sessions of a role have a limit, whatever session reads this.
    """
    setting = seen.setting(name)
    if setting.source not in {"user", "database", "database user", "client"} and float(setting.value) > 0:
        return True
    return any(
        row["name"] == name and row["role"] in {None, role["name"]} and row["value"] not in {"0", "0s", "0ms"}
        for row in seen.rows("role_settings")
    )


@check(
    "A007",
    "Extensions are of the version that is installed",
    why="After an upgrade of the server the old version of the SQL objects stays in each database until it is updated.",
    threshold="info: extversion is not the default version",
    fix="ALTER EXTENSION … UPDATE",
    undo="DROP EXTENSION and CREATE EXTENSION … VERSION, where nothing depends on it.",
    reads=("extensions",),
)
def extensions(seen: Snapshot) -> Verdict:
    rows = [row for row in seen.rows("extensions") if row["version"]]
    found = tuple(
        Finding(
            Severity.INFO,
            f"extension {row['name']}",
            f"is {row['version']}, {row['default_version']} is installed"
            if row["default_version"]
            else f"is {row['version']}, and its files are gone from the server",
            f"ALTER EXTENSION {identifier(row['name'])} UPDATE",
            f"DROP EXTENSION {identifier(row['name'])}; CREATE EXTENSION {identifier(row['name'])} VERSION "
            f"'{row['version']}'",
        )
        for row in rows
        if row["version"] != row["default_version"]
    )
    return Verdict(found, "all", len(rows), len(rows))


@check(
    "A008",
    "The disk has room",
    why="When the WAL's volume is full the server stops.",
    threshold="free on the volumes of data and WAL, when the server is on this machine: warning below "
    f"{percent(FREE[0])}, error below "
    f"{percent(FREE[1])}",
    fix="Make room, or enlarge the volume; never delete files of pg_wal by hand.",
    undo="Nothing was changed.",
    reads=("disks",),
)
def disk(seen: Snapshot) -> Verdict:
    rows = seen.rows("disks")
    found = []
    for row in rows:
        free = share(row["free"], row["total"])
        if free < FREE[0]:
            severity = Severity.ERROR if free < FREE[1] else Severity.WARNING
            evidence = f"{shown(row['free'])} of {shown(row['total'])} free ({percent(free)}) at {row['path']}"
            fix = "make room or enlarge the volume; R001 says whether a slot keeps WAL"
            found.append(Finding(severity, f"volume of the {row['name']}", evidence, fix, "nothing was changed"))
    summary = ", ".join(f"{row['name']} {percent(share(row['free'], row['total']))} free" for row in rows)
    return Verdict(tuple(found), summary, len(rows), 2)


CHECKS: Final = (passwords, superusers, open_schemas, encryption, logging, limits, extensions, disk)
