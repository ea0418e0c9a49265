"""W: checkpoints, temporary files and reads: what goes to disk that need not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from magnus.tuning.checks._fixes import percent, set_to
from magnus.tuning.checks._model import Finding, Severity, Verdict, check
from magnus.tuning.checks._snapshot import DAY, Missing, Unseen, duration, share
from magnus.tuning.units import GB, MB, shown

if TYPE_CHECKING:
    from magnus.tuning.checks._snapshot import Row, Snapshot

REQUESTED: Final = (0.20, 0.50)
FEW_CHECKPOINTS: Final = 10
TEMPORARY: Final = GB
READS: Final = 1000.0
HITS: Final = 0.95
_HOUR: Final = 3600.0


@check(
    "W001",
    "Checkpoints come by the clock",
    why="One that max_wal_size forces writes every page at once and logs whole pages again: the server stalls in the "
    "middle of "
    "its busiest time.",
    threshold=f"requested: warning above {percent(REQUESTED[0])}, error above {percent(REQUESTED[1])}, from "
    f"{FEW_CHECKPOINTS} checkpoints on",
    fix="Raise max_wal_size to twice the WAL of one checkpoint_timeout, as far as the disk allows; magnus plan "
    "computes it.",
    undo="The earlier value and a reload.",
    reads=("settings", "checkpoints"),
)
def checkpoints(seen: Snapshot) -> Verdict:
    row = seen.row("checkpoints")
    total = row["timed"] + row["requested"]
    if total < FEW_CHECKPOINTS:
        raise Unseen(
            f"{total} checkpoints since {duration(float(row['age_s'] or 0))} ago, {FEW_CHECKPOINTS} are needed to judge"
        )
    asked = share(row["requested"], total)
    hours = max(float(row["wal_age_s"] or 0), 1.0) / _HOUR
    hourly = row["wal_bytes"] / hours
    if asked <= REQUESTED[0]:
        return Verdict((), f"{percent(asked)} of {total:,} requested, {shown(hourly)} WAL an hour")
    most = seen.number("max_wal_size")
    wanted = max(2 * most, min(2 * hourly * seen.seconds("checkpoint_timeout") / _HOUR, 64 * GB))
    fix = set_to(seen, "max_wal_size", seen.setting("max_wal_size").write(wanted // MB * MB))
    evidence = (
        f"{percent(asked)} of {total:,} were requested; {shown(hourly)} WAL an hour against max_wal_size {shown(most)}"
    )
    severity = Severity.ERROR if asked > REQUESTED[1] else Severity.WARNING
    return Verdict((Finding(severity, "max_wal_size", evidence, *fix),))


@check(
    "W002",
    "Sorts and hashes fit into memory",
    why="What does not fit into work_mem goes to temporary files and is read back.",
    threshold=f"warning: more than {shown(TEMPORARY)} of temporary files a day in a database",
    fix="Raise work_mem for the role or function that runs the statement, not for all: ALTER ROLE … SET work_mem.",
    undo="ALTER ROLE … RESET work_mem.",
    reads=("databases",),
)
def temporary_files(seen: Snapshot) -> Verdict:
    rows = [row for row in seen.rows("databases") if row["can_connect"]]
    found = []
    youngest = min((_age(seen, row) for row in rows), default=0.0)
    for row in rows:
        daily = row["temp_bytes"] / max(_age(seen, row) / DAY, 1.0)
        if daily > TEMPORARY:
            evidence = f"{shown(daily)} a day in {row['temp_files']:,} files{_queries(seen, row)}"
            fix = "ALTER ROLE <the role that runs it> SET work_mem = '<more>'"
            found.append(
                Finding(
                    Severity.WARNING, f"database {row['name']}", evidence, fix, "ALTER ROLE <the role> RESET work_mem"
                )
            )
    missing = "" if youngest >= DAY else f"statistics are {duration(youngest)} old, a day is needed"
    return Verdict(tuple(found), f"less than {shown(TEMPORARY)} a day", len(rows), len(rows), missing)


def _queries(seen: Snapshot, row: Row) -> str:
    part = seen.parts.get("statements_temp", ())
    if isinstance(part, Missing) or not part or not row["is_current"]:
        return ""
    block = seen.server["block_size"]
    most = ", ".join(f"queryid {one['queryid']} {shown(one['blocks'] * block)}" for one in part)
    return f"; most by {most}"


@check(
    "W003",
    "Reads come from memory",
    why="When much is read and little of it is found in shared_buffers, either they are too small or a statement reads "
    "whole tables.",
    threshold=f"warning: below {percent(HITS)} found in shared_buffers, where more than {READS:,.0f} blocks a second "
    "are read on average",
    fix="Look for the statement first (I005); then shared_buffers, as magnus plan computes it.",
    undo="The earlier value and a restart.",
    reads=("databases",),
)
def cache_hits(seen: Snapshot) -> Verdict:
    rows = [row for row in seen.rows("databases") if row["can_connect"]]
    found = []
    youngest = min((_age(seen, row) for row in rows), default=0.0)
    for row in rows:
        age = _age(seen, row)
        rate = row["blks_read"] / max(age, _HOUR)
        hits = share(row["blks_hit"], row["blks_hit"] + row["blks_read"])
        if rate > READS and hits < HITS:
            evidence = f"{percent(hits)} found in shared_buffers, {rate:,.0f} blocks a second read over {duration(age)}"
            found.append(
                Finding(
                    Severity.WARNING,
                    f"database {row['name']}",
                    evidence,
                    "magnus indexes; magnus plan",
                    "magnus rollback",
                )
            )
    missing = "" if youngest >= _HOUR else f"statistics are {duration(youngest)} old, an hour is needed"
    return Verdict(tuple(found), "few reads, or found in memory", len(rows), len(rows), missing)


def _age(seen: Snapshot, row: Row) -> float:
    return float(row["stats_age_s"] or seen.server["server_stats_age_s"] or 0.0)


CHECKS: Final = (checkpoints, temporary_files, cache_hits)
