"""R: slots, standbys and the archive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from magnus.tuning.checks._fixes import set_to
from magnus.tuning.checks._model import Finding, Severity, Verdict, check
from magnus.tuning.checks._snapshot import Unseen, duration
from magnus.tuning.quoting import literal
from magnus.tuning.units import GB, shown

if TYPE_CHECKING:
    from magnus.tuning.checks._snapshot import Row, Snapshot

RETAINED: Final = (1 * GB, 5 * GB)
LAG: Final = (20.0, 35.0)


@check(
    "R001",
    "No replication slot fills the disk",
    why="A slot keeps all WAL since its reader's last word. Nobody reads an inactive one, and without "
    "max_slot_wal_keep_size it "
    "fills the disk and stops the server.",
    threshold=f"warning: inactive, or more than {shown(RETAINED[0])} kept; error: more than {shown(RETAINED[1])}, or "
    "wal_status unreserved or lost; "
    "info: slots without a max_slot_wal_keep_size",
    fix="SELECT pg_drop_replication_slot(…) when its reader is gone; ALTER SYSTEM SET max_slot_wal_keep_size.",
    undo="Create the slot again and set its reader up anew; the earlier value.",
    reads=("settings", "slots"),
)
def slots(seen: Snapshot) -> Verdict:
    rows = [row for row in seen.rows("slots") if not row["temporary"]]
    found = [finding for row in rows for finding in _slot(row)]
    if rows and seen.number("max_slot_wal_keep_size") < 0:
        fix = set_to(seen, "max_slot_wal_keep_size", "10GB")
        evidence = f"is -1: {len(rows)} slots may keep WAL until the disk is full"
        found.append(Finding(Severity.INFO, "max_slot_wal_keep_size", evidence, *fix))
    return Verdict(tuple(found), "none" if not rows else f"{len(rows)} active", len(rows), len(rows))


def _slot(row: Row) -> list[Finding]:
    kept = row["retained"] or 0.0
    is_lost = row["wal_status"] in {"unreserved", "lost"}
    if row["active"] and kept <= RETAINED[0] and not is_lost:
        return []
    severity = Severity.ERROR if is_lost or kept > RETAINED[1] else Severity.WARNING
    since = f" for {duration(row['inactive_s'])}" if row["inactive_s"] else ""
    state = "active" if row["active"] else f"inactive{since}"
    why = f", invalidated: {row['invalidation']}" if row["invalidation"] else ""
    evidence = (
        f"{row['kind']}, {state}, keeps {shown(kept)} of WAL, status {row['wal_status'] or 'reserving nothing'}{why}"
    )
    name = literal(row["name"])
    made = (
        f"SELECT pg_create_physical_replication_slot({name})"
        if row["kind"] == "physical"
        else "create the slot with its plugin"
    )
    return [
        Finding(
            severity,
            f"slot {row['name']}",
            evidence,
            f"start its reader again, or SELECT pg_drop_replication_slot({name})",
            f"{made}, and set the reader up anew",
        )
    ]


@check(
    "R002",
    "Standbys keep up",
    why="What a standby has not replayed is lost by a failover, and read stale until then.",
    threshold=f"behind by more than {shown(RETAINED[0])} or {duration(LAG[0])}: warning; {shown(RETAINED[1])} or "
    f"{duration(LAG[1])}: error. No lag is 0 when "
    "nothing was written",
    fix="Look at the standby: its disk, its long queries (max_standby_streaming_delay), the network.",
    undo="Nothing was changed.",
    reads=("standbys",),
)
def lag(seen: Snapshot) -> Verdict:
    rows = seen.rows("standbys")
    hidden = sum(row["state"] is None for row in rows)
    found = []
    for row in rows:
        behind, late = row["behind"] or 0.0, row["lag_s"] or 0.0
        if behind > RETAINED[0] or late > LAG[0]:
            severity = Severity.ERROR if behind > RETAINED[1] or late > LAG[1] else Severity.WARNING
            evidence = f"{row['state']}, {shown(behind)} and {duration(late)} behind"
            fix = "look at the standby: SELECT * FROM pg_stat_wal_receiver, its disk, and its long queries"
            found.append(
                Finding(
                    severity,
                    f"standby {row['name']} ({row['client'] or 'socket'})",
                    evidence,
                    fix,
                    "nothing was changed",
                )
            )
    missing = f"{hidden} standbys are hidden from {seen.server['role']}: {seen.grant()}" if hidden else ""
    return Verdict(tuple(found), "no standby" if not rows else "all", len(rows) - hidden, len(rows), missing)


@check(
    "R003",
    "The archive takes the WAL",
    why="While archive_command fails there is no point-in-time recovery past that moment, and the WAL stays until the "
    "disk is "
    "full.",
    threshold="error: the last failure is later than the last success",
    fix="Read the server's log for what archive_command says; it goes on by itself once it succeeds.",
    undo="Nothing was changed.",
    reads=("settings", "archiver"),
)
def archive(seen: Snapshot) -> Verdict:
    mode = seen.setting("archive_mode").value
    row = seen.row("archiver")
    if mode == "off":
        return Verdict((), "archive_mode is off")
    failed, archived = row["failed_s"], row["archived_s"]
    if failed is not None and (archived is None or failed < archived):
        evidence = (
            f"{row['last_failed_wal']} failed {duration(failed)} ago, {row['failed_count']:,} failures in all; "
            + ("nothing was ever archived" if archived is None else f"the last success was {duration(archived)} ago")
        )
        fix = "look for 'archive command failed' in the server's log"
        return Verdict((Finding(Severity.ERROR, "archive_command", evidence, fix, "nothing was changed"),))
    if archived is None:
        raise Unseen("nothing was archived yet, and nothing failed: SELECT pg_switch_wal() tries it")
    return Verdict((), f"{row['archived_count']:,} files, the last {duration(archived)} ago")


CHECKS: Final = (slots, lag, archive)
