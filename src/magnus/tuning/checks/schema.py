"""T: tables and their keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from magnus.tuning.checks._fixes import index_name, percent
from magnus.tuning.checks._model import Finding, Severity, Verdict, check
from magnus.tuning.checks._snapshot import Unseen, plain, qualified
from magnus.tuning.quoting import identifier

if TYPE_CHECKING:
    from magnus.tuning.checks._snapshot import Row, Snapshot

NEAR_END: Final = (0.70, 0.90)


def used_share(row: Row, value: int) -> tuple[float, int]:
    """
    Return how much of its range a sequence has used, and the end of it: the sequence's own or its column's, whichever
    comes first.
    """
    if row["step"] > 0:
        end = min(row["most"], row["column_most"] or row["most"])
        return (value - max(row["least"], 0)) / max(end - max(row["least"], 0), 1), end
    end = max(row["least"], -(row["column_most"] or -row["least"]) - 1)
    return (value - row["most"]) / min(end - row["most"], -1), end


@check(
    "T001",
    "Numbers for keys do not run out",
    why="At the end of an integer column every insert fails, and making it bigint rewrites the table under an "
    "exclusive lock.",
    threshold=f"warning above {percent(NEAR_END[0])}, error above {percent(NEAR_END[1])} of the column's type (not "
    "only of the sequence); "
    "integer keys without a sequence by the highest value that ANALYZE saw",
    fix="ALTER TABLE … ALTER COLUMN … TYPE bigint (a rewrite; large tables: a new column, filled in batches).",
    undo="ALTER TABLE … ALTER COLUMN … TYPE integer, while every value still fits.",
    reads=("sequences", "sequence_values", "integer_keys"),
)
def keys_run_out(seen: Snapshot) -> Verdict:
    values = {row["oid"]: row for row in seen.rows("sequence_values")}
    sequences = [row for row in seen.rows("sequences") if not row["is_cycle"]]
    keys = seen.rows("integer_keys")
    found = []
    for row in sequences:
        value = values.get(row["oid"])
        if value is None or not value["is_called"]:
            continue
        used, end = used_share(row, value["last_value"])
        if used > NEAR_END[0]:
            found.append(_sequence(row, value["last_value"], used, end))
    for row in keys:
        used = (row["highest"] or 0) / row["most"]
        if used > NEAR_END[0]:
            column = f"{plain(row)}.{row['column']}"
            evidence = (
                f"its highest {row['type']} was {row['highest']:,} of {row['most']:,} ({percent(used)}) at "
                "the last ANALYZE"
            )
            alter = f"ALTER TABLE {qualified(row)} ALTER COLUMN {identifier(row['column'])} TYPE"
            severity = Severity.ERROR if used > NEAR_END[1] else Severity.WARNING
            found.append(Finding(severity, column, evidence, f"{alter} bigint", f"{alter} {row['type']}"))
    hidden = sum(row["oid"] not in values for row in sequences) + sum(
        row["highest"] is None and (row["tuples"] > 1 or not row["is_readable"]) for row in keys
    )
    total = len(sequences) + len(keys)
    missing = (
        f"{hidden} are hidden from {seen.server['role']} or locked: {seen.grant('pg_read_all_data')}" if hidden else ""
    )
    return Verdict(tuple(found), f"none above {percent(NEAR_END[0])}", total - hidden, total, missing)


def _sequence(row: Row, value: int, used: float, end: int) -> Finding:
    severity = Severity.ERROR if used > NEAR_END[1] else Severity.WARNING
    name = row["column_name"] or plain(row)
    evidence = f"{plain(row)} is at {value:,} of {end:,} ({percent(used)})"
    if row["column_name"] and row["column_type"] != "bigint":
        schema, table, column = row["column_parts"]
        alter = f"ALTER TABLE {identifier(schema)}.{identifier(table)} ALTER COLUMN {identifier(column)} TYPE"
        widen = f"; ALTER SEQUENCE {qualified(row)} AS bigint" if row["most"] < 2**63 - 1 else ""
        return Finding(
            severity,
            name,
            f"{evidence}, its column is {row['column_type']}",
            f"{alter} bigint{widen}",
            f"{alter} {row['column_type']}",
        )
    alter = f"ALTER SEQUENCE {qualified(row)}"
    return Finding(
        severity, name, evidence, f"{alter} AS bigint MAXVALUE {2**63 - 1}", f"{alter} MAXVALUE {row['most']}"
    )


@check(
    "T002",
    "Every table has a primary key",
    why="Without one a row cannot be named: duplicates creep in, and logical replication refuses updates and deletes.",
    threshold="warning: a table that is no partition and belongs to no extension has none",
    fix="ALTER TABLE … ADD PRIMARY KEY (CREATE UNIQUE INDEX CONCURRENTLY first, then ADD … USING INDEX, to lock it "
    "briefly).",
    undo="ALTER TABLE … DROP CONSTRAINT.",
    reads=("tables",),
)
def primary_keys(seen: Snapshot) -> Verdict:
    rows = [
        row for row in seen.rows("tables")
        if row["kind"] in {"r", "p"} and not row["is_system"] and not row["is_extensions"] and not row["is_partition"]
    ]  # fmt: skip
    found = tuple(
        Finding(Severity.WARNING, plain(row), f"has none; {max(row['live'] or 0, 0):,} rows", *_key(row))
        for row in rows
        if not row["has_primary_key"]
    )
    return Verdict(found, "all", len(rows), len(rows))


def _key(row: Row) -> tuple[str, str]:
    alter, name = f"ALTER TABLE {qualified(row)}", identifier(index_name(row["name"], ("key",)))
    if row["has_id"]:
        fix = f"{alter} ADD CONSTRAINT {name} PRIMARY KEY (id)  -- when id is unique and never NULL"
        return fix, f"{alter} DROP CONSTRAINT {name}"
    fix = f"{alter} ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT {name} PRIMARY KEY"
    return f"{fix}  -- or a key of columns that are unique already", f"{alter} DROP COLUMN id"


@check(
    "T003",
    "No unlogged table is counted on after a failover",
    why="An unlogged table is empty after a crash, and always empty on a standby that is promoted.",
    threshold="warning: an unlogged table on a primary with standbys or replication slots",
    fix="ALTER TABLE … SET LOGGED (writes all of it to the WAL, under an exclusive lock), unless losing it is fine.",
    undo="ALTER TABLE … SET UNLOGGED.",
    reads=("tables", "standbys", "slots"),
)
def unlogged(seen: Snapshot) -> Verdict:
    if seen.is_standby:
        raise Unseen("run it on the primary")
    rows = [row for row in seen.rows("tables") if not row["is_system"]]
    standbys = len(seen.rows("standbys")) + len(seen.rows("slots"))
    bad = [row for row in rows if row["is_unlogged"]] if standbys else []
    found = tuple(
        Finding(
            Severity.WARNING,
            plain(row),
            f"is unlogged, with {standbys} standbys or slots; {row['live'] or 0:,} rows",
            f"ALTER TABLE {qualified(row)} SET LOGGED",
            f"ALTER TABLE {qualified(row)} SET UNLOGGED",
        )
        for row in bad
    )
    return Verdict(found, "none" if standbys else "no standby", len(rows), len(rows))


CHECKS: Final = (keys_run_out, primary_keys, unlogged)
