"""Which indexes would have served the statements that took the time: plans and statistics -> proposals; pure.

A column that is compared for equality comes first, then the one that sorts or bounds. A proposal needs a plan that
reads a whole table for a small part of it; what the planner does on purpose, beside an index, is left alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from magnus.tuning.checks import index_name, is_covered
from magnus.tuning.quoting import identifier, written

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from magnus.tuning.checks import Row

FEWEST_ROWS: Final = 10_000
MOST_READ: Final = 0.10
WORTH: Final = 0.5
"""With HypoPG: the least part of the planner's cost that an index must take away."""

CATALOGUE: Final = "a catalogue"
_MOST_COLUMNS: Final = 3
_ENTRY: Final = 20  # bytes of a btree's entry: header, pointer and one aligned 8-byte column

_IDENTIFIER: Final = r'(?:"(?:[^"]|"")+"|[a-z_][a-z0-9_$]*)'
_EQUAL: Final = frozenset({"=", "IS NULL"})
_KEEP_ORDER: Final = frozenset({"Limit", "Gather", "Gather Merge", "Append", "Merge Append", "LockRows", "Result"})
_BOUNDS: Final = frozenset({"<", "<=", ">", ">="})


@dataclass(frozen=True, slots=True)
class Statement:
    """
    One statement of pg_stat_statements.

    Attributes:
        total: Seconds in all.
    """

    queryid: str
    calls: int
    total: float
    text: str

    @property
    def parameters(self) -> int:
        """
        How many parameters it has.
        """
        return max((int(number) for number in re.findall(r"\$(\d+)", self.text)), default=0)


@dataclass(frozen=True, slots=True)
class Key:
    """
    A column of an index, with its direction.
    """

    column: str
    direction: str = ""

    @property
    def word(self) -> str:
        """
        What it adds to the name of an index.
        """
        return "_".join((self.column, *self.direction.lower().split()))

    def __str__(self) -> str:
        return f"{identifier(self.column)}{f' {self.direction}' if self.direction else ''}"


@dataclass(frozen=True, slots=True)
class Scan:
    """
    A whole table read for a part of it.

    Attributes:
        rows: What the planner expects to be left of the table.
    """

    schema: str
    table: str
    equal: tuple[str, ...]
    bounds: tuple[str, ...]
    sort: tuple[Key, ...]
    rows: float

    @property
    def keys(self) -> tuple[Key, ...]:
        """
        The columns of the index that would serve: equal ones first, then the sort if it can follow, else a bound.
        """
        equal = tuple(Key(column) for column in self.equal)
        sort = tuple(key for key in self.sort if key.column not in self.equal)
        if all(key.direction == "DESC" for key in sort):
            sort = tuple(Key(key.column) for key in sort)  # an index is read backwards as well
        if sort and self.bounds and sort[0].column not in self.bounds:
            sort = ()
        rest = sort or tuple(Key(column) for column in self.bounds[:1])
        return (*equal, *rest)[:_MOST_COLUMNS]


@dataclass(frozen=True, slots=True)
class Proposal:
    """
    An index worth making.

    Attributes:
        costs: The planner's cost without and with it, when HypoPG could tell.
        leaves: Partitions with rows, when the table is partitioned.
    """

    table: Row
    keys: tuple[Key, ...]
    statements: tuple[Statement, ...]
    rows: float
    costs: tuple[float, float] | None = None
    leaves: tuple[tuple[str, str], ...] = field(default=())

    @property
    def name(self) -> str:
        """
        The index's name, one of ours.
        """
        return index_name(self.table["name"], [key.word for key in self.keys])

    @property
    def size(self) -> float:
        """
        About how many bytes it will take.
        """
        return float(max(self.table["tuples"], 0)) * (_ENTRY + 8 * (len(self.keys) - 1)) / 0.9

    @property
    def columns(self) -> str:
        """
        The columns as SQL.
        """
        return ", ".join(map(str, self.keys))


# --- reading a plan --------------------------------------------------------------------------------------------------


def scans(plan: Mapping[str, Any]) -> list[Scan]:
    """
    Return where a plan (EXPLAIN VERBOSE, FORMAT JSON) reads whole tables and throws most of them away.
    """
    return list(_walk(plan["Plan"], (), 1.0))


def _walk(node: Mapping[str, Any], sort: tuple[str, ...], workers: float) -> Iterator[Scan]:
    kind = node["Node Type"]
    if kind == "Seq Scan" and "Filter" in node and "Schema" in node:
        yield _scan(node, sort, workers if node.get("Parallel Aware") else 1.0)
    if kind == "Sort":
        sort = tuple(node.get("Sort Key", ()))
    elif kind not in _KEEP_ORDER:
        sort = ()
    if kind in {"Gather", "Gather Merge"}:
        planned = node.get("Workers Planned", 0)
        workers = planned + max(0.0, 1 - 0.3 * planned)  # as the planner itself counts the leader
    for child in node.get("Plans", ()):
        yield from _walk(child, sort, workers)


def _scan(node: Mapping[str, Any], sort: tuple[str, ...], workers: float) -> Scan:
    alias = node["Alias"]
    equal: dict[str, None] = {}
    bounds: dict[str, None] = {}
    for condition in _conditions(node["Filter"]):
        column, operator = _comparison(condition, alias)
        if operator in _EQUAL:
            equal[column] = None
        elif operator in _BOUNDS:
            bounds[column] = None
    keys: list[Key] = []
    for text in sort:
        key = _sort_key(text, alias)
        if key is None:
            break
        keys.append(key)
    return Scan(
        node["Schema"], node["Relation Name"], tuple(equal), tuple(column for column in bounds if column not in equal),
        tuple(keys), node["Plan Rows"] * workers,
    )  # fmt: skip


def _conditions(text: str) -> list[str]:
    """
    Split a filter at its outermost ANDs.
    """
    inner = _unwrapped(text)
    parts, start, depth, place = [], 0, 0, 0
    while place < len(inner):
        char = inner[place]
        if char in "'\"":
            place = _after_quoted(inner, place)
            continue
        depth += (char == "(") - (char == ")")
        if depth == 0 and inner.startswith(" AND ", place):
            parts.append(inner[start:place])
            start = place + 5
        place += 1
    parts.append(inner[start:])
    return [_unwrapped(part.strip()) for part in parts]


def _after_quoted(text: str, place: int) -> int:
    """
    Return the place behind a quoted name or literal that begins at `place`; a doubled quote is part of it.
    """
    end = text.find(text[place], place + 1)
    while end >= 0 and text[end + 1 : end + 2] == text[place]:
        end = text.find(text[place], end + 2)
    return len(text) if end < 0 else end + 1


def _unwrapped(text: str) -> str:
    """
    Take the parentheses off that enclose the whole text.
    """
    if not (text.startswith("(") and text.endswith(")")):
        return text
    depth, place = 0, 0
    while place < len(text):
        if text[place] in "'\"":
            place = _after_quoted(text, place)
            continue
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0 and place < len(text) - 1:
            return text
        place += 1
    return text[1:-1]


def _comparison(condition: str, alias: str) -> tuple[str, str]:
    """
    Return column and operator of a condition that a btree can serve, else nothing.

    A cast of the column to text is what varchar = text looks like, and the index serves it all the same.
    """
    owner = re.escape(written(alias))
    column = rf"\(?{owner}\.({_IDENTIFIER})\)?(?:::text)?"
    found = re.match(rf"{column} (IS NULL|=|<=|>=|<|>)( |$)(.*)", condition)
    if found is None or re.search(rf"(?<![\w\"]){owner}\.", re.sub(r"'(?:[^']|'')*'", "''", found[4])):
        return "", ""
    return _name(found[1]), found[2]


def _sort_key(text: str, alias: str) -> Key | None:
    found = re.fullmatch(rf"{re.escape(written(alias))}\.({_IDENTIFIER})((?: DESC)?(?: NULLS (?:FIRST|LAST))?)", text)
    return None if found is None else Key(_name(found[1]), found[2].strip())


def _name(text: str) -> str:
    return text[1:-1].replace('""', '"') if text.startswith('"') else text


# --- deciding --------------------------------------------------------------------------------------------------------


def why_not(scan: Scan, table: Row | None, indexes: Iterable[Row], columns: Mapping[str, int]) -> str:
    """
    Say why a scan asks for no index; nothing when it does.

    Args:
        scan: The scan.
        table: Its table, None when the table is none of the database's own.
        indexes: Those of the table.
        columns: The table's columns by name, to their numbers.
    """
    wanted = scan.equal or tuple(key.column for key in scan.keys[:1])
    rows = 0.0 if table is None else table["tuples"]
    reasons = (
        (table is None or table["is_system"], CATALOGUE),
        (not scan.keys, "no condition that a btree can serve"),
        (rows < 0, "never analyzed: ANALYZE it first"),
        (rows < FEWEST_ROWS, f"fewer than {FEWEST_ROWS:,} rows"),
        (scan.rows > MOST_READ * rows, f"{scan.rows:,.0f} of {rows:,.0f} rows are wanted: reading all of it is right"),
        (
            is_covered([columns[name] for name in wanted if name in columns], indexes),
            "an index begins with these columns, and the planner reads the table on purpose",
        ),
    )
    return next((reason for is_true, reason in reasons if is_true), "")


def merged(proposals: Iterable[Proposal]) -> list[Proposal]:
    """
    Put proposals for one table together, where one begins with all the columns of another.
    """
    kept: list[Proposal] = []
    for one in sorted(proposals, key=lambda proposal: -len(proposal.keys)):
        place = next((n for n, wide in enumerate(kept) if _begins(wide, one)), None)
        if place is None:
            kept.append(one)
            continue
        wide = kept[place]
        statements = tuple(dict.fromkeys((*wide.statements, *one.statements)))
        kept[place] = Proposal(wide.table, wide.keys, statements, max(wide.rows, one.rows), wide.costs, wide.leaves)
    return sorted(kept, key=lambda proposal: -sum(statement.total for statement in proposal.statements))


def _begins(wide: Proposal, narrow: Proposal) -> bool:
    return wide.table["oid"] == narrow.table["oid"] and wide.keys[: len(narrow.keys)] == narrow.keys


def describe(statements: Sequence[Statement]) -> list[str]:
    """
    Return a line for each statement.
    """
    return [
        f"queryid {one.queryid}: {one.calls:,} calls, mean {one.total / max(one.calls, 1) * 1000:,.2f} ms: "
        + " ".join(one.text.split())[:120]
        for one in statements
    ]
