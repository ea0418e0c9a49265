"""V: wraparound, dead rows, stale statistics, bloat, and whether autovacuum keeps up."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from magnus.tuning.checks._fixes import percent, set_to
from magnus.tuning.checks._model import Finding, Severity, Verdict, check
from magnus.tuning.checks._snapshot import duration, plain, qualified, share
from magnus.tuning.quoting import identifier
from magnus.tuning.units import MB, shown

if TYPE_CHECKING:
    from magnus.tuning.checks._snapshot import Row, Snapshot

LAST_XID: Final = 2_100_000_000
WRAPAROUND: Final = (0.50, 0.75)
TABLE_AGE: Final = 1.5
DEAD: Final = 0.20
MANY_DEAD: Final = 10_000
MODIFIED: Final = 0.20
FEW_ROWS: Final = 1000
BLOAT: Final = (0.30, 0.50)
WASTED: Final = 100 * MB
BUSY: Final = 60.0
_PAGE_HEADER: Final = 24
_ITEM: Final = 4
_BTREE_SPECIAL: Final = 16
_VACUUM_STAYS: Final = "nothing: VACUUM and ANALYZE change no data"


def _users(seen: Snapshot) -> list[Row]:
    return [row for row in seen.rows("tables") if not row["is_system"]]


@check(
    "V001",
    "Transaction ids are far from their end",
    why="At about 2.1 billion transactions without a freeze the server refuses every write until VACUUM has run.",
    threshold=f"a database: warning above {percent(WRAPAROUND[0])}, error above {percent(WRAPAROUND[1])} of 2.1 "
    "billion, for transactions "
    f"and multixacts; a table, its TOAST included: warning above {TABLE_AGE} x autovacuum_freeze_max_age",
    fix="VACUUM (FREEZE) the oldest tables, and end what holds it back (C004).",
    undo="Nothing: VACUUM changes no data.",
    reads=("settings", "databases", "tables"),
)
def wraparound(seen: Snapshot) -> Verdict:
    found = []
    oldest = 0.0
    for row in seen.rows("databases"):
        for what, age in (("transactions", row["xid_age"]), ("multixacts", row["mxid_age"])):
            used = age / LAST_XID
            oldest = max(oldest, used)
            if used > WRAPAROUND[0]:
                severity = Severity.ERROR if used > WRAPAROUND[1] else Severity.WARNING
                evidence = f"{age:,} {what} since its oldest freeze, {percent(used)} of the end"
                fix = f"vacuumdb --freeze {identifier(row['name'])}; see C004 for what holds it back"
                found.append(Finding(severity, f"database {row['name']}", evidence, fix, _VACUUM_STAYS))
    limits = (seen.number("autovacuum_freeze_max_age"), seen.number("autovacuum_multixact_freeze_max_age"))
    tables = seen.rows("tables")
    for row in tables:
        ages = (
            max(row["xid_age"] or 0, row["toast_xid_age"] or 0),
            max(row["mxid_age"] or 0, row["toast_mxid_age"] or 0),
        )
        for age, limit, what in zip(ages, limits, ("transactions", "multixacts"), strict=True):
            if age > TABLE_AGE * limit:
                evidence = f"{age:,} {what} since its last freeze; autovacuum begins at {limit:,.0f}"
                fix = f"VACUUM (FREEZE, VERBOSE) {qualified(row)}"
                found.append(Finding(Severity.WARNING, plain(row), evidence, fix, _VACUUM_STAYS))
    return Verdict(tuple(found), f"oldest {percent(oldest)} of the end", len(tables), len(tables))


def _option(row: Row, name: str) -> str | None:
    return next((item.partition("=")[2] for item in row["options"] or () if item.partition("=")[0] == name), None)


def _trigger(seen: Snapshot, row: Row, kind: str) -> float:
    """
    Return from how many changed rows on autovacuum would act on a table, by the table's own options.
    """

    def value(name: str) -> float:
        own = _option(row, name)
        return float(own) if own is not None else seen.number(name)

    rows = max(float(row["tuples"]), 0.0)
    limit = value(f"autovacuum_{kind}_threshold") + value(f"autovacuum_{kind}_scale_factor") * rows
    if kind == "vacuum" and seen.major >= 18:
        most = value("autovacuum_vacuum_max_threshold")
        limit = min(limit, most) if most >= 0 else limit
    return limit


@check(
    "V002",
    "Dead rows are removed",
    why="Every scan reads them too, and the space they hold cannot be used again.",
    threshold=f"warning: more than {percent(DEAD)} dead, more than {MANY_DEAD:,}, and more than the table's own "
    "autovacuum trigger",
    fix="VACUUM the table; find out what holds it back (C004) or make autovacuum quicker for it.",
    undo="Nothing: VACUUM changes no data.",
    reads=("settings", "tables"),
)
def dead_rows(seen: Snapshot) -> Verdict:
    rows = [row for row in _users(seen) if row["kind"] != "p"]
    found = []
    for row in rows:
        dead, live = row["dead"] or 0, row["live"] or 0
        if dead > MANY_DEAD and share(dead, dead + live) > DEAD and dead > _trigger(seen, row, "vacuum"):
            last = "never vacuumed" if row["vacuumed_s"] is None else f"vacuumed {duration(row['vacuumed_s'])} ago"
            evidence = f"{dead:,} dead rows beside {live:,} live ones ({percent(dead / (dead + live))}), {last}"
            found.append(Finding(Severity.WARNING, plain(row), evidence, f"VACUUM {qualified(row)}", _VACUUM_STAYS))
    return Verdict(tuple(found), "no table over its trigger", len(rows), len(rows))


@check(
    "V003",
    "The planner's statistics are fresh",
    why="Plans are made from what ANALYZE saw. Autovacuum does not analyze partitioned tables themselves at all.",
    threshold=f"warning: a table of {FEW_ROWS:,} rows or more that was never analyzed, or of which more than "
    f"{percent(MODIFIED)} and more "
    "than its own trigger changed since; info: a partitioned table that was never analyzed",
    fix="ANALYZE the table; partitioned ones after each load.",
    undo="Nothing: ANALYZE changes no data.",
    reads=("settings", "tables"),
)
def stale_statistics(seen: Snapshot) -> Verdict:
    rows = _users(seen)
    found = []
    for row in rows:
        live, modified = row["live"] or 0, row["modified"] or 0
        never = row["analyzed_s"] is None and row["tuples"] < 0
        fix = f"ANALYZE {qualified(row)}"
        if row["kind"] == "p":
            if never and row["has_parts"]:
                evidence = "was never analyzed, and autovacuum does not do it for a partitioned table"
                found.append(Finding(Severity.INFO, plain(row), evidence, fix, _VACUUM_STAYS))
        elif never and live >= FEW_ROWS:
            evidence = f"{live:,} rows, never analyzed"
            found.append(Finding(Severity.WARNING, plain(row), evidence, fix, _VACUUM_STAYS))
        elif modified >= FEW_ROWS and modified > max(MODIFIED * live, _trigger(seen, row, "analyze")):
            when = "" if row["analyzed_s"] is None else f", {duration(row['analyzed_s'])} ago"
            evidence = f"{modified:,} rows changed since the last ANALYZE{when}, beside {live:,} live ones"
            found.append(Finding(Severity.WARNING, plain(row), evidence, fix, _VACUUM_STAYS))
    return Verdict(tuple(found), "no table is stale", len(rows), len(rows))


def _aligned(width: float) -> float:
    return math.ceil(width / 8) * 8


def expected_table_bytes(row: Row, block: float) -> float:
    """
    Return what a table of so many rows of that width would take after VACUUM FULL.

    Source: PostgreSQL documentation 73.6, "Database Page Layout": a row is a 23-byte header (and a bit for each column
    when there are NULLs), aligned to 8 bytes, and a 4-byte pointer.
    """
    bitmap = math.ceil(row["columns"] / 8) if row["has_nulls"] else 0
    width = _aligned(_aligned(23 + bitmap) + row["width"]) + _ITEM
    fill = float(_option(row, "fillfactor") or 100) / 100
    per_page = max(1.0, math.floor((block - _PAGE_HEADER) * fill / width))
    return float(math.ceil(max(row["tuples"], 0) / per_page) * block)


def expected_index_bytes(row: Row, block: float) -> float:
    """
    Return what a btree of so many entries of that width would take after REINDEX, without deduplication, which only
    makes it smaller.
    """
    width = _aligned(8 + (8 if row["has_nulls"] else 0) + row["width"]) + _ITEM
    fill = float(_option(row, "fillfactor") or 90) / 100
    per_page = max(1.0, math.floor((block - _PAGE_HEADER - _BTREE_SPECIAL) * fill / width))
    return float(math.ceil(max(row["tuples"], 0) / per_page) * 1.01 + 1) * block


def _bloat(seen: Snapshot, part: str, fresh: set[int]) -> tuple[list[tuple[Row, float, Severity]], Verdict]:
    rows = seen.rows(part)
    block = float(seen.server["block_size"])
    judged = expected_table_bytes if part == "table_widths" else expected_index_bytes
    usable = [row for row in rows if row["columns_seen"] >= row["columns"] and row["tuples"] >= 0]
    usable = [row for row in usable if row.get("table_oid", row["oid"]) in fresh]
    found = []
    for row in usable:
        wasted = row["bytes"] - judged(row, block)
        if wasted >= WASTED and wasted / row["bytes"] > BLOAT[0]:
            severity = Severity.WARNING if wasted / row["bytes"] > BLOAT[1] else Severity.INFO
            found.append((row, wasted, severity))
    left = len(rows) - len(usable)
    missing = (
        f"{left} of {len(rows)} have column statistics that are stale or hidden from {seen.server['role']}: ANALYZE, "
        "and "
        f"{seen.grant('pg_read_all_data')}"
        if left
        else ""
    )
    return found, Verdict((), f"none of {len(rows)} over {shown(WASTED)}", len(usable), len(rows), missing)


def _fresh(seen: Snapshot) -> set[int]:
    """
    Tables whose statistics still describe them.
    """
    return {
        row["oid"]
        for row in seen.rows("tables")
        if (row["modified"] or 0) <= MODIFIED * max(row["live"] or 0, row["tuples"], 1)
    }


@check(
    "V004",
    "Tables are not bloated",
    why="A table that is much larger than its rows is read from disk all the same.",
    threshold=f"of tables from {shown(WASTED)} on: info above {percent(BLOAT[0])}, warning above {percent(BLOAT[1])} "
    f"and {shown(WASTED)} wasted; an "
    "estimate from column statistics, refused where they are hidden or stale",
    fix="VACUUM stops it from growing; VACUUM FULL gives the space back, under an exclusive lock (pg_repack without).",
    undo="Nothing: both change no data.",
    reads=("table_widths", "tables"),
)
def table_bloat(seen: Snapshot) -> Verdict:
    found, verdict = _bloat(seen, "table_widths", _fresh(seen))
    findings = tuple(
        Finding(
            severity,
            plain(row),
            f"about {shown(wasted)} of {shown(row['bytes'])} are free ({percent(wasted / row['bytes'])}), an estimate",
            f"VACUUM FULL {qualified(row)}  -- exclusive lock while it copies; pg_repack works without",
            _VACUUM_STAYS,
        )
        for row, wasted, severity in found
    )
    return Verdict(findings, verdict.summary, verdict.examined, verdict.of, verdict.missing)


@check(
    "V005",
    "Indexes are not bloated",
    why="Pages that are mostly empty are read and cached like full ones.",
    threshold=f"of btree indexes from {shown(WASTED)} on: info above {percent(BLOAT[0])}, warning above "
    f"{percent(BLOAT[1])} and {shown(WASTED)} "
    "wasted; an estimate from column statistics, refused where they are hidden or stale",
    fix="REINDEX INDEX CONCURRENTLY.",
    undo="Nothing: the index is the same.",
    reads=("index_widths", "tables"),
)
def index_bloat(seen: Snapshot) -> Verdict:
    found, verdict = _bloat(seen, "index_widths", _fresh(seen))
    findings = tuple(
        Finding(
            severity,
            plain(row),
            f"about {shown(wasted)} of {shown(row['bytes'])} are free ({percent(wasted / row['bytes'])}), an estimate",
            f"REINDEX INDEX CONCURRENTLY {qualified(row)}",
            "nothing: the index is the same",
        )
        for row, wasted, severity in found
    )
    return Verdict(findings, verdict.summary, verdict.examined, verdict.of, verdict.missing)


_OFF: Final = frozenset({"false", "off", "no", "0"})


@check(
    "V006",
    "No table is left out of autovacuum",
    why="Switched off for a load and forgotten, it lets the table grow and its statistics age; the emergency freeze "
    "comes all "
    "the same, at the worst time.",
    threshold="warning: autovacuum_enabled=off among a table's options, or its TOAST table's",
    fix="ALTER TABLE … RESET (autovacuum_enabled)",
    undo="ALTER TABLE … SET (autovacuum_enabled = off)",
    reads=("tables",),
)
def left_out(seen: Snapshot) -> Verdict:
    rows = _users(seen)
    found = []
    for row in rows:
        for options, prefix in ((row["options"], ""), (row["toast_options"], "toast.")):
            name = f"{prefix}autovacuum_enabled"
            value = next(
                (item.partition("=")[2] for item in options or () if item.startswith("autovacuum_enabled=")), ""
            )
            if value.lower() in _OFF:
                alter = f"ALTER TABLE {qualified(row)}"
                evidence = f"{name} is off; {row['live'] or 0:,} live and {row['dead'] or 0:,} dead rows"
                pair = (f"{alter} RESET ({name})", f"{alter} SET ({name} = off)")
                found.append(Finding(Severity.WARNING, plain(row), evidence, *pair))
    return Verdict(tuple(found), "none", len(rows), len(rows))


@check(
    "V007",
    "Autovacuum has workers left",
    why="While all are busy with large tables, small busy ones wait and bloat.",
    threshold=f"warning: all autovacuum_max_workers at work, each for more than {duration(BUSY)}",
    fix="Raise autovacuum_vacuum_cost_limit, so that each ends sooner; then autovacuum_max_workers (a restart before "
    "18).",
    undo="The earlier value; reload or restart.",
    reads=("settings", "activity"),
)
def workers_busy(seen: Snapshot) -> Verdict:
    seen.needs_monitor()
    most = int(seen.number("autovacuum_max_workers"))
    workers = [row for row in seen.rows("activity") if row["backend_type"] == "autovacuum worker"]
    youngest = min((row["session_s"] or 0.0 for row in workers), default=0.0)
    if len(workers) >= most and youngest > BUSY:
        evidence = f"{len(workers)} of {most} at work, each for {duration(youngest)} or more"
        cost = seen.number("autovacuum_vacuum_cost_limit")
        wanted = 2 * (cost if cost > 0 else seen.number("vacuum_cost_limit"))
        fix = set_to(seen, "autovacuum_vacuum_cost_limit", f"{wanted:.0f}")
        return Verdict((Finding(Severity.WARNING, "autovacuum workers", evidence, *fix),))
    return Verdict((), f"{len(workers)} of {most} at work")


CHECKS: Final = (wraparound, dead_rows, stale_statistics, table_bloat, index_bloat, left_out, workers_busy)
