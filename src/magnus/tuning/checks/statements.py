"""P: pg_stat_statements, without which nobody knows what the server does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from magnus.tuning.checks._fixes import percent, set_to
from magnus.tuning.checks._model import Finding, Severity, Verdict, check
from magnus.tuning.checks._snapshot import Unseen, duration, share
from magnus.tuning.quoting import joined
from magnus.tuning.setting import split_list

if TYPE_CHECKING:
    from magnus.tuning.checks._snapshot import Row, Snapshot

NAME: Final = "pg_stat_statements"
FULL: Final = 0.95
PER_HOUR: Final = 1.0


@check(
    "P001",
    "pg_stat_statements is loaded, created and current",
    why="It is the only record of which statements take the time. CREATE EXTENSION alone is not enough: without the "
    "preload every read of it fails.",
    threshold="warning: not in shared_preload_libraries, not created in this database, or older than its default "
    "version",
    fix="Add it to shared_preload_libraries (keep what is there) and restart; CREATE EXTENSION in each database.",
    undo="The earlier list and a restart; DROP EXTENSION where it was created.",
    reads=("settings", "extensions"),
)
def loaded(seen: Snapshot) -> Verdict:
    libraries = split_list(seen.setting("shared_preload_libraries").value)
    row = next((row for row in seen.rows("extensions") if row["name"] == NAME), None)
    found = []
    if row is None:
        fix = ("install the contrib package of PostgreSQL", "remove the package")
        return Verdict((Finding(Severity.WARNING, NAME, "is not installed on the server", *fix),))
    if NAME not in libraries:
        found.append(
            Finding(
                Severity.WARNING,
                "shared_preload_libraries",
                f"is '{joined(libraries)}': {NAME} is not loaded",
                *set_to(seen, "shared_preload_libraries", joined((*libraries, NAME))),
            )
        )
    found += _created(seen, row)
    return Verdict(tuple(found), f"version {row['version']}")


def _created(seen: Snapshot, row: Row) -> list[Finding]:
    database = f"{NAME} in {seen.server['database']}"
    if row["version"] is None:
        pair = (f"CREATE EXTENSION {NAME}", f"DROP EXTENSION {NAME}")
        return [Finding(Severity.WARNING, database, "is not created", *pair)]
    if row["default_version"] and row["version"] != row["default_version"]:
        fix = f"ALTER EXTENSION {NAME} UPDATE"
        back = f"DROP EXTENSION {NAME}; CREATE EXTENSION {NAME} VERSION '{row['version']}'"
        evidence = f"version {row['version']}, {row['default_version']} is available"
        return [Finding(Severity.WARNING, database, evidence, fix, back)]
    return []


@check(
    "P002",
    "pg_stat_statements has room",
    why="When it is full it throws the least used entries away, and with them the figures of rare, slow statements; "
    "doing so costs time under a lock.",
    threshold=f"warning: more than {PER_HOUR:g} deallocation an hour since its reset, or more than {percent(FULL)} of "
    "max in use",
    fix="Raise pg_stat_statements.max (restart), or keep the application from making statements that differ each time.",
    undo="The earlier value and a restart.",
    reads=("settings", "statements_info"),
)
def room(seen: Snapshot) -> Verdict:
    row = seen.row("statements_info")
    most = seen.number("pg_stat_statements.max")
    age = max(float(row["age_s"] or 0), 3600.0)
    rate = row["dealloc"] / age * 3600
    used = share(row["entries"], most)
    fix = set_to(seen, "pg_stat_statements.max", f"{most * 2:.0f}")
    if rate > PER_HOUR or used > FULL:
        evidence = f"{row['entries']:,} of {most:,.0f} entries, {row['dealloc']:,} deallocations in {duration(age)}"
        return Verdict((Finding(Severity.WARNING, NAME, evidence, *fix),))
    if float(row["age_s"] or 0) < 3600:
        raise Unseen(f"its statistics are {duration(float(row['age_s'] or 0))} old, an hour is needed")
    return Verdict((), f"{percent(used)} of {most:,.0f} entries")


CHECKS: Final = (loaded, room)
