"""I: indexes that are broken, doubled, unused or missing."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from magnus.tuning.checks._fixes import index_name
from magnus.tuning.checks._model import Finding, Severity, Verdict, check
from magnus.tuning.checks._snapshot import DAY, Missing, Unseen, duration, plain, qualified
from magnus.tuning.quoting import identifier
from magnus.tuning.units import MB, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from magnus.tuning.checks._snapshot import Row, Snapshot

UNUSED_DAYS: Final = 14.0
UNUSED_SIZE: Final = 10 * MB
SEQ_ROWS: Final = 50_000
SEQ_SIZE: Final = 10 * MB
MANY_ROWS: Final = 10_000
_LOCATION: Final = re.compile(r" :(?:location|stmt_location|stmt_len) -?\d+")
_NOT_NULL: Final = re.compile(r"\{NULLTEST :arg \{VAR :varno 1 :varattno (\d+) [^{}]*\} :nulltesttype 1 [^{}]*\}")


def _users(seen: Snapshot) -> list[Row]:
    return [row for row in seen.rows("indexes") if not row["is_system"]]


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split())


def _definition(seen: Snapshot, row: Row) -> str:
    """
    Return the statement that makes an index again, as far as it was read.
    """
    rows = seen.parts.get("definitions", ())
    found = None if isinstance(rows, Missing) else next((one for one in rows if one["oid"] == row["oid"]), None)
    return found["definition"] if found else f"its definition (read it first: pg_get_indexdef({row['oid']}))"


def _drop(seen: Snapshot, row: Row) -> tuple[str, str]:
    how = "DROP INDEX" if row["is_partitioned"] else "DROP INDEX CONCURRENTLY"
    made = _definition(seen, row)
    if not row["is_partitioned"]:
        made = re.sub(r"^CREATE( UNIQUE)? INDEX ", r"CREATE\1 INDEX CONCURRENTLY ", made)
    return f"{how} {qualified(row)}", made


def _is_bound(row: Row) -> bool:
    """
    Say whether more than speed depends on an index: it is never proposed to be dropped.
    """
    return bool(
        row["is_primary"]
        or row["is_unique"]
        or row["is_exclusion"]
        or row["is_constraint"]
        or row["is_replica_identity"]
        or row["is_clustered"]
        or row["is_partition"]
    )


def _building(seen: Snapshot) -> set[int]:
    """
    Indexes that are being built right now.

    Raises:
        Unseen: somebody builds one, and which is hidden.
    """
    rows = seen.rows("index_builds")
    if any(row["oid"] is None for row in rows):
        raise Unseen(f"an index is being built, and which is hidden from {seen.server['role']}: {seen.grant()}")
    # An index under REINDEX CONCURRENTLY is built beside the old one; the table tells for both.
    return {row["oid"] for row in rows} | {row["table_oid"] for row in rows}


@check(
    "I001",
    "Every index is valid",
    why="An index that a CREATE INDEX CONCURRENTLY left behind is written to and never read, and CREATE INDEX IF NOT "
    "EXISTS "
    "takes it for the real one.",
    threshold="error: not valid or not ready, and not being built at this moment",
    fix="DROP INDEX CONCURRENTLY and build it again, or REINDEX INDEX CONCURRENTLY. A partitioned index becomes valid "
    "when every "
    "partition has its part attached.",
    undo="CREATE INDEX CONCURRENTLY, as it was.",
    reads=("indexes", "index_builds"),
)
def invalid(seen: Snapshot) -> Verdict:
    rows = _users(seen)
    broken = [row for row in rows if not (row["is_valid"] and row["is_ready"] and row["is_live"])]
    building = _building(seen) if broken else set()
    found = []
    for row in broken:
        if row["oid"] in building or row["table_oid"] in building:
            continue
        if row["is_partitioned"]:
            fix = f"ALTER INDEX {qualified(row)} ATTACH PARTITION <an index of each partition that has none>"
            found.append(
                Finding(
                    Severity.ERROR,
                    plain(row),
                    f"on {row['table']}: a partition has no part of it",
                    fix,
                    "DROP INDEX of the attached",
                )
            )
            continue
        evidence = f"on {row['table']}: " + (
            "not ready" if not row["is_ready"] else "ready, but not valid: it is written and never read"
        )
        found.append(Finding(Severity.ERROR, plain(row), evidence, *_drop(seen, row)))
    return Verdict(tuple(found), "all", len(rows), len(rows))


@dataclass(frozen=True, slots=True)
class _Shape:
    """
    What an index can look up. A key is its column, operator class, collation and direction.
    """

    keys: tuple[tuple[int, int, int, int], ...]
    columns: frozenset[int]
    rest: tuple[str, str, str]

    @classmethod
    def of(cls, row: Row) -> Self:
        columns = _numbers(row["columns"])
        parts = (columns, *(_numbers(row[name]) for name in ("classes", "collations", "options")))
        keys = tuple(zip(*(part[: row["keys"]] for part in parts), strict=True))
        texts = [_LOCATION.sub("", row[name] or "") for name in ("predicate", "expressions")]
        return cls(keys, frozenset(columns), (row["method"], *texts))

    def covers(self, narrow: _Shape) -> bool:
        """
        Say whether every lookup in `narrow` can be made as well here.
        """
        if self.rest != narrow.rest or not narrow.columns <= self.columns:
            return False
        method, _, expressions = self.rest
        if method == "btree" and not expressions:
            return self.keys[: len(narrow.keys)] == narrow.keys
        return self.keys == narrow.keys

    def is_same(self, other: _Shape) -> bool:
        return self.covers(other) and other.covers(self)


def redundant(rows: Iterable[Row]) -> list[tuple[Row, Row, bool]]:
    """
    Return an index that could go, the one that serves in its place, and whether both are the same.

    Of two equal ones that go freely, the one with fewer scans goes; a chain of three names one keeper for each.
    """
    found = []
    for indexes in by_table(row for row in rows if row["is_valid"]).values():
        if len(indexes) < 2:
            continue
        shapes = {row["oid"]: _Shape.of(row) for row in indexes}
        kept = dict.fromkeys(shapes)
        for row in sorted(indexes, key=lambda row: (row["scans"] or 0, -row["oid"])):
            shape = shapes[row["oid"]]
            others = () if _is_bound(row) else (one for one in indexes if one["oid"] in kept and one is not row)
            keepers = [one for one in others if shapes[one["oid"]].covers(shape)]
            if keepers:
                del kept[row["oid"]]
                same = {one["oid"]: shapes[one["oid"]].is_same(shape) for one in keepers}
                keeper = min(keepers, key=lambda one: (not same[one["oid"]], one["bytes"], one["oid"]))
                found.append((row, keeper, same[keeper["oid"]]))
    return sorted(found, key=lambda pair: int(pair[0]["oid"]))


@check(
    "I002",
    "No index is doubled",
    why="Each one is written with every row and keeps memory from others; a second that serves the same lookups only "
    "costs.",
    threshold="warning: the same method, keys, operator classes, collations, directions, expressions, predicate, and "
    "INCLUDE columns; info: "
    "its keys are the first keys of another btree. Never a primary key, unique index, constraint, replica identity or "
    "the "
    "index that CLUSTER uses",
    fix="DROP INDEX CONCURRENTLY the one that is not needed.",
    undo="CREATE INDEX CONCURRENTLY, as it was.",
    reads=("indexes",),
)
def duplicate(seen: Snapshot) -> Verdict:
    rows = _users(seen)
    found = []
    for row, keeper, same in redundant(rows):
        evidence = (
            f"{'the same as' if same else 'its keys are the first keys of'} {plain(keeper)}, on "
            f"{row['table']}; {shown(row['bytes'])}"
        )
        found.append(Finding(Severity.WARNING if same else Severity.INFO, plain(row), evidence, *_drop(seen, row)))
    return Verdict(tuple(found), "none", len(rows), len(rows))


def unused_candidates(rows: Iterable[Row]) -> list[Row]:
    """
    Return indexes without a scan that only cost.
    """
    return [row for row in rows if not row["scans"] and row["bytes"] > UNUSED_SIZE and _only_costs(row)]


def _only_costs(row: Row) -> bool:
    return bool(row["is_valid"]) and not row["is_partitioned"] and not _is_bound(row)


@check(
    "I003",
    "Every index is used",
    why="It is written with every row, and makes updates of its columns dearer, for nobody.",
    threshold=f"info: no scan in {UNUSED_DAYS:g} days or more of statistics, larger than {shown(UNUSED_SIZE)}, no "
    "constraint or unique index; "
    "unknown while a standby may be using it",
    fix="DROP INDEX CONCURRENTLY, after a look at every standby and at yearly jobs.",
    undo="CREATE INDEX CONCURRENTLY, as it was.",
    reads=("indexes", "standbys", "slots"),
)
def unused(seen: Snapshot) -> Verdict:
    if seen.is_standby:
        raise Unseen("a standby's figures show its own use only: run it on the primary")
    age = seen.needs_old_statistics(UNUSED_DAYS)
    rows = _users(seen)
    idle = unused_candidates(rows)
    standbys = len(seen.rows("standbys")) + sum(
        row["kind"] == "physical" and not row["active"] for row in seen.rows("slots")
    )
    if idle and standbys:
        names = ", ".join(plain(row) for row in idle[:5])
        return Verdict(
            (), "", len(rows) - len(idle), len(rows), f"{names}: not used here, but {standbys} standbys may use them"
        )
    found = [
        Finding(
            Severity.INFO,
            plain(row),
            f"no scan in {duration(age)}, {shown(row['bytes'])}, on {row['table']} with {row['table_writes'] or 0:,} "
            "rows written",
            *_drop(seen, row),
        )
        for row in idle
    ]
    return Verdict(tuple(found), "none is idle", len(rows), len(rows))


def is_covered(columns: Iterable[int], indexes: Iterable[Row]) -> bool:
    """
    Say whether an index begins with these columns, in any order. A partial one counts when all it asks is that they are
    not NULL, which every lookup by a key implies.
    """
    wanted = set(columns)
    for row in indexes:
        predicate = row["predicate"]
        not_null = _NOT_NULL.fullmatch(predicate) if predicate else None
        if predicate and not (not_null and int(not_null[1]) in wanted):
            continue
        leading = _numbers(row["columns"])[: min(len(wanted), row["keys"])]
        if row["is_valid"] and row["method"] in {"btree", "hash"} and set(leading) == wanted:
            return True
    return False


def by_table(rows: Iterable[Row]) -> Mapping[int, list[Row]]:
    """
    Return indexes by their table.
    """
    found: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["table_oid"]].append(row)
    return found


@check(
    "I004",
    "Foreign keys of tables that lose rows have an index",
    why="Each row that is deleted from the referenced table, or changes its key, is looked up in the referencing one: "
    "without an index by "
    "reading all of it.",
    threshold="no index begins with the key's columns, and the referenced table has had deletes: warning from "
    f"{MANY_ROWS:,} referencing "
    "rows on, info below",
    fix="CREATE INDEX CONCURRENTLY on the referencing columns.",
    undo="DROP INDEX CONCURRENTLY.",
    reads=("foreign_keys", "indexes"),
)
def foreign_keys(seen: Snapshot) -> Verdict:
    keys = seen.rows("foreign_keys")
    indexes = by_table(seen.rows("indexes"))
    bare = [row for row in keys if not is_covered(row["columns"], indexes[row["table_oid"]])]
    found = []
    quiet: list[str] = []
    for row in bare:
        if not row["deleted"] and not row["is_referenced_partitioned"]:
            quiet.append(f"{row['schema']}.{row['table']}.{row['name']}")
            continue
        name = index_name(row["table"], row["names"])
        columns = ", ".join(identifier(column) for column in row["names"])
        table = f"{identifier(row['schema'])}.{identifier(row['table'])}"
        how = "" if row["is_partitioned"] else " CONCURRENTLY"
        evidence = (
            f"({', '.join(row['names'])}) references {row['referenced']}, which lost {row['deleted'] or 0:,} rows; "
            f"{max(row['tuples'], 0):,.0f} rows are read for each"
        )
        found.append(
            Finding(
                Severity.WARNING if row["tuples"] >= MANY_ROWS else Severity.INFO,
                f"{row['schema']}.{row['table']}.{row['name']}",
                evidence,
                f"CREATE INDEX{how} {identifier(name)} ON {table} ({columns})",
                f"DROP INDEX{how} {identifier(row['schema'])}.{identifier(name)}",
            )
        )
    missing = ""
    if quiet and seen.statistics_age() < 7 * DAY:
        age = duration(seen.statistics_age())
        missing = (
            f"{_some(quiet)}: none, and in {age} of statistics the referenced tables lost no row; 7 days are needed "
            "to judge"
        )
    summary = f"{len(quiet)} have none, and their tables lose no rows" if quiet else "all have one"
    return Verdict(tuple(found), summary, len(keys) - (len(quiet) if missing else 0), len(keys), missing)


def _some(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


@check(
    "I005",
    "Large tables are not read whole again and again",
    why="A scan of a whole table for a few rows is what a missing index looks like from outside.",
    threshold=f"warning: more than {SEQ_ROWS:,} rows a sequential scan, from 10 scans on, in a table larger than "
    f"{shown(SEQ_SIZE)}",
    fix="magnus indexes looks for the statements and proposes an index.",
    undo="DROP INDEX CONCURRENTLY of the index that was made.",
    reads=("tables",),
)
def sequential_scans(seen: Snapshot) -> Verdict:
    seen.needs_old_statistics()  # a load, or the building of an index, reads the whole table too
    rows = [row for row in seen.rows("tables") if not row["is_system"] and row["kind"] != "p"]
    found = []
    for row in rows:
        scans, read = row["seq_scans"] or 0, row["seq_rows"] or 0
        if scans >= 10 and row["bytes"] > SEQ_SIZE and read / scans > SEQ_ROWS:
            evidence = f"{scans:,} sequential scans of {read / scans:,.0f} rows each, {shown(row['bytes'])}"
            found.append(
                Finding(
                    Severity.WARNING, plain(row), evidence, "magnus indexes", "DROP INDEX CONCURRENTLY of what it made"
                )
            )
    return Verdict(tuple(found), "none", len(rows), len(rows))


def to_describe(seen: Snapshot) -> tuple[int, ...]:
    """
    Return the indexes whose definition the findings will need.
    """
    try:
        rows = _users(seen)
    except Unseen:
        return ()
    broken = [row for row in rows if not row["is_valid"]]
    wanted = [*broken, *(row for row, *_ in redundant(rows)), *unused_candidates(rows)]
    return tuple(dict.fromkeys(row["oid"] for row in wanted))


CHECKS: Final = (invalid, duplicate, unused, foreign_keys, sequential_scans)
