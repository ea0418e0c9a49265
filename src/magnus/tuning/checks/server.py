"""S: the server itself: its version, its configuration files, and settings that decide over the data's safety."""

from __future__ import annotations

from datetime import UTC, date, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from magnus.tuning.checks._fixes import NOTHING_TO_UNDO, set_to
from magnus.tuning.checks._model import Finding, Severity, Verdict, check
from magnus.tuning.checks._snapshot import Missing, setting_of
from magnus.tuning.quoting import alter_role, identifier

if TYPE_CHECKING:
    from collections.abc import Mapping

    from magnus.tuning.checks._snapshot import Row, Snapshot

NEWEST: Final[Mapping[int, int]] = MappingProxyType({13: 23, 14: 25, 15: 20, 16: 16, 17: 12, 18: 6})
"""The newest minor release of each major version when this version of Magnus was made (November 2026)."""

END_OF_LIFE: Final[Mapping[int, date]] = MappingProxyType({
    13: date(2025, 11, 13), 14: date(2026, 11, 12), 15: date(2027, 11, 11), 16: date(2028, 11, 9),
    17: date(2029, 11, 8), 18: date(2030, 11, 14),
})  # fmt: skip
"""Source: PostgreSQL's versioning policy, https://www.postgresql.org/support/versioning/."""


@check(
    "S001",
    "The server's release is current",
    why="Minor releases repair data loss and security holes, and only need a restart. A major version past its end of "
    "life gets none.",
    threshold="warning: an older minor release than the newest that this version of Magnus knows; error: end of life",
    fix="Install the newest minor release and restart; upgrade a major version past its end of life with pg_upgrade.",
    undo="Install the earlier packages and restart (minor); a major upgrade goes back from a backup only.",
    reads=("server",),
)
def version(seen: Snapshot) -> Verdict:
    major, minor = seen.major, seen.server["version_num"] % 10_000
    today = datetime.fromtimestamp(seen.server["taken_at"], UTC).date()
    found = []
    if major in END_OF_LIFE and today >= END_OF_LIFE[major]:
        found.append(
            Finding(
                Severity.ERROR,
                f"PostgreSQL {major}",
                f"its last release was due on {END_OF_LIFE[major]}",
                "pg_upgrade to a supported major version",
                "restore the backup made before it",
            )
        )
    if minor < NEWEST.get(major, 0):
        found.append(
            Finding(
                Severity.WARNING,
                f"PostgreSQL {major}.{minor}",
                f"{major}.{NEWEST[major]} is out: {NEWEST[major] - minor} releases behind",
                f"install {major}.{NEWEST[major]} and restart",
                f"install {major}.{minor} and restart",
            )
        )
    return Verdict(tuple(found), f"{major}.{minor}")


@check(
    "S002",
    "No setting waits for a restart",
    why="The files say one thing and the server does another, until some later restart changes it by surprise.",
    threshold="warning: pg_settings.pending_restart is true for any setting",
    fix="Restart at a moment of your choice, or take the value back.",
    undo="Put the earlier value back and restart.",
    reads=("settings",),
)
def pending_restart(seen: Snapshot) -> Verdict:
    rows = seen.rows("settings")
    waiting = [row for row in rows if row["pending_restart"]]
    file_rows = seen.parts.get("file_settings", ())
    files = {} if isinstance(file_rows, Missing) else {row["name"]: row["setting"] for row in file_rows}
    found = tuple(
        Finding(
            Severity.WARNING,
            row["name"],
            f"runs with {setting_of(row).text}, "
            + (f"the files say {files[row['name']]}" if row["name"] in files else "the files say something else"),
            "restart the server",
            f"ALTER SYSTEM RESET {row['name']}, or take its line out of the file, before the restart",
        )
        for row in waiting
    )
    missing = "" if seen.server["sees_all_settings"] else f"some settings are hidden: {seen.grant()}"
    return Verdict(found, "none", len(rows), len(rows), missing)


@check(
    "S003",
    "The configuration files can be read",
    why="After an error in any file a reload applies nothing at all, says that it worked, and a restart fails.",
    threshold="error: a row of pg_file_settings with an error",
    fix="Correct the line, then reload.",
    undo="Put the line back as it was.",
    reads=("file_settings", "settings"),
)
def file_errors(seen: Snapshot) -> Verdict:
    rows = seen.rows("file_settings")
    # A setting that only waits for its restart is listed with this error too.
    waiting = {row["name"] for row in seen.rows("settings") if row["pending_restart"]}
    found = tuple(
        Finding(
            Severity.ERROR,
            f"{row['sourcefile']}:{row['sourceline']}",
            f"{row['name'] or 'the file'}: {row['error']}",
            "correct the line; SELECT pg_reload_conf()",
            "put the line back as it was",
        )
        for row in rows
        if row["error"] and row["name"] not in waiting
    )
    return Verdict(found, "no errors", len(rows), len(rows))


_OUTRANKED: Final = ("command line", "environment variable")


@check(
    "S004",
    "What the configuration files set is what holds",
    why="The command line outranks every file, and a role's or database's own value outranks them for its sessions: "
    "whoever changes the file sees no effect.",
    threshold="warning: a setting in a file, and another value from the command line or the environment; info: a role "
    "or "
    "database has a value of its own",
    fix="Change it where it is set: the service's command line, or ALTER ROLE / ALTER DATABASE … RESET.",
    undo="Set it there again.",
    reads=("settings", "role_settings", "file_settings"),
)
def outranked(seen: Snapshot) -> Verdict:
    in_files = {row["name"]: row for row in seen.rows("file_settings") if not row["error"]}
    settings = [row for row in seen.rows("settings") if row["name"] in in_files]
    found = [
        Finding(
            Severity.WARNING,
            row["name"],
            f"{in_files[row['name']]['sourcefile']} says {in_files[row['name']]['setting']}, "
            f"the {row['source']} says {setting_of(row).text} and wins",
            f"change {row['name']} where the server is started, and restart",
            "start it with the earlier arguments",
        )
        for row in settings
        if row["source"] in _OUTRANKED and not setting_of(row).is_same(in_files[row["name"]]["setting"])
    ]
    found += [_own(row, in_files) for row in seen.rows("role_settings") if row["name"] in in_files]
    return Verdict(tuple(found), "nothing outranks them", len(in_files), len(in_files))


def _own(row: Row, in_files: Mapping[str, Row]) -> Finding:
    return Finding(
        Severity.INFO,
        row["name"],
        f"{row['value']} for {_whose(row)}, {in_files[row['name']]['setting']} in the files",
        _alter(row, None),
        _alter(row, row["value"]),
    )


def _whose(row: Row) -> str:
    role = f"role {row['role']}" if row["role"] else "all roles"
    return f"{role} in database {row['database']}" if row["database"] else role


def _alter(row: Row, value: str | None) -> str:
    if row["role"]:
        return alter_role(row["role"], row["name"], value, database=row["database"])
    owner = alter_role(row["database"] or "ALL", row["name"], value)
    return (
        owner.replace("ALTER ROLE", "ALTER DATABASE", 1) if row["database"] else owner.replace(identifier("ALL"), "ALL")
    )


_SAFE: Final = (
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("zero_damaged_pages", "off"),
    ("ignore_checksum_failure", "off"),
)


@check(
    "S005",
    "A crash loses no data",
    why="Without fsync or full_page_writes a power cut can destroy every database of the cluster; zero_damaged_pages "
    "and "
    "ignore_checksum_failure hide damage and turn it into lost rows.",
    threshold="error: fsync or full_page_writes off, zero_damaged_pages or ignore_checksum_failure on",
    fix="ALTER SYSTEM SET it to the safe value and reload. After time with fsync off, make a new base backup.",
    undo="Set the earlier value and reload.",
    reads=("settings",),
)
def durability(seen: Snapshot) -> Verdict:
    found = tuple(
        Finding(Severity.ERROR, name, f"is {seen.setting(name).value}", *set_to(seen, name, safe))
        for name, safe in _SAFE
        if seen.setting(name).value != safe
    )
    return Verdict(found, "fsync and full_page_writes are on", len(_SAFE), len(_SAFE))


@check(
    "S006",
    "Pages have checksums and none has failed",
    why="Without checksums a page that the storage damaged is read as if it were right. A failed one is damaged data.",
    threshold="warning: data_checksums off; error: checksum_failures above 0 in any database",
    fix="Stop the server, pg_checksums --enable, start it. After a failure: look at the storage, restore the page's "
    "table.",
    undo="pg_checksums --disable, with the server stopped.",
    reads=("settings", "databases"),
)
def checksums(seen: Snapshot) -> Verdict:
    rows = seen.rows("databases")
    if not seen.flag("data_checksums"):
        off = Finding(
            Severity.WARNING,
            "data_checksums",
            "is off: damage by the storage goes unseen",
            "stop the server; pg_checksums --enable -D <data directory>; start it",
            "stop the server; pg_checksums --disable -D <data directory>; start it",
        )
        return Verdict((off,))
    found = tuple(
        Finding(
            Severity.ERROR,
            f"database {row['name']}",
            f"{row['checksum_failures']:,} pages failed their checksum",
            "look at the server's log for the page, at the storage, and restore what is damaged from a backup",
            NOTHING_TO_UNDO,
        )
        for row in rows
        if row["checksum_failures"]
    )
    return Verdict(found, "on, no failure", len(rows), len(rows))


@check(
    "S007",
    "Autovacuum and its statistics are on",
    why="Without them tables grow, plans go wrong, and in the end the server stops taking writes to prevent "
    "wraparound.",
    threshold="error: autovacuum or track_counts off",
    fix="ALTER SYSTEM SET it on and reload.",
    undo="Set the earlier value and reload.",
    reads=("settings",),
)
def autovacuum(seen: Snapshot) -> Verdict:
    names = ("autovacuum", "track_counts")
    found = tuple(
        Finding(Severity.ERROR, name, "is off", *set_to(seen, name, "on")) for name in names if not seen.flag(name)
    )
    return Verdict(found, "on", len(names), len(names))


CHECKS: Final = (version, pending_restart, file_errors, outranked, durability, checksums, autovacuum)
