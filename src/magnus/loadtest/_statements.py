"""What a normalised statement asks for: does it only read, which functions it calls, and what each `$n` is for; pure.

The server's own grammar reads it (pgparse, extra `sql`). Which of several tables has a column is not known here.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from magnus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    Node = Mapping[str, Any]

_TYPED: Final = re.compile(r"\b(interval|date|timetz|time|timestamptz|timestamp|numeric)\s+(\$\d+)", re.IGNORECASE)
_EXTRACT: Final = re.compile(r"\bextract\s*\(\s*(\$\d+)\s+from\b", re.IGNORECASE)
_WORDS: Final = {
    ("date_trunc", 0): "day", ("date_part", 0): "day", ("extract", 0): "day", ("timezone", 0): "UTC",
    ("to_char", 1): "YYYY-MM-DD",
}  # fmt: skip
"""Arguments that must be one of few words: by function and place, one of them."""
_QUERIES: Final = frozenset({"SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"})
_WRITES: Final = _QUERIES - {"SelectStmt"}
_REASONS: Final = {"LockingClause": "locks rows", "intoClause": "makes a table"}
_EQUAL: Final = frozenset({"=", "<>"})
_LOW: Final = frozenset({">", ">="})
_HIGH: Final = frozenset({"<", "<="})
_MIRRORED: Final = {">": "<", ">=": "<=", "<": ">", "<=": ">="}

Table = tuple[str, str]
"""Schema ("" where none was named) and name."""


class Unreadable(Exception):
    """
    The grammar refuses the text; the message is its own.
    """


@dataclass(frozen=True, slots=True)
class Use:
    """
    What a parameter is for.

    Attributes:
        kind: "equal", "low", "high", "like", "stored", "limit", "offset", "word" (one of few), or "free": nothing that
            says which value.
        tables: Where its column may be; the first that has it does.
        column: Whose values it is compared with, or stored as.
        is_list: Any number of values (`= ANY`).
        word: One that will do.
    """

    kind: str = "free"
    tables: tuple[Table, ...] = ()
    column: str = ""
    is_list: bool = False
    word: str = ""


FREE: Final = Use()


@dataclass(frozen=True, slots=True)
class Reading:
    """
    One statement, read.

    Attributes:
        text: As it can be prepared.
        writes: Why it is not only a read, or "".
        functions: Names of functions that are called.
        uses: By the parameters' numbers.
        ranges: Pairs of parameters that are the ends of one range.
    """

    text: str
    writes: str
    functions: frozenset[str]
    uses: Mapping[int, Use]
    ranges: tuple[tuple[int, int], ...] = field(default=())


def is_readable() -> bool:
    """
    Say whether the grammar is installed.
    """
    try:
        import pgparse
    except ImportError:
        return False
    return bool(pgparse)


def repaired(text: str) -> str:
    """
    Return a text of pg_stat_statements as it can be prepared: `interval $1` was `interval '1 day'`, `extract($1 FROM`
    was `extract(year FROM`.
    """
    return _EXTRACT.sub(r'pg_catalog."extract"(\1,', _TYPED.sub(r"\2::\1", text))


def read(text: str) -> Reading:
    """
    Read one statement.

    Raises:
        Unreadable: it is none, or more than one, or no query.
        ConfigError: the grammar is not installed.
    """
    try:
        import pgparse
    except ImportError:
        raise ConfigError("workload", "replay", "needs the server's grammar: pip install 'magnus-db[sql]'") from None
    text = repaired(text)
    error: type[Exception] = pgparse.PGQueryError
    try:
        parsed = pgparse.parse(text)
    except (error, ValueError) as reason:
        raise Unreadable(str(reason).strip().splitlines()[0]) from None
    if len(parsed) != 1:
        raise Unreadable("is not one statement")
    [(kind, statement)] = parsed[0]["stmt"].items()
    if kind not in _QUERIES:
        raise Unreadable("is no query")
    walk = _Walk()
    walk.query(kind, statement, ())
    return Reading(text, walk.writes, frozenset(walk.functions), dict(walk.uses), tuple(walk.ranges()))


class _Walk:
    """
    Goes through the tree, with the tables that names may mean where it is.
    """

    def __init__(self) -> None:
        self.writes = ""
        self.functions: set[str] = set()
        self.uses: dict[int, Use] = {}
        self._bounds: dict[tuple[tuple[Table, ...], str], list[tuple[str, int]]] = defaultdict(list)

    def ranges(self) -> Iterator[tuple[int, int]]:
        for bounds in self._bounds.values():
            if [kind for kind, _ in sorted(bounds)] == ["high", "low"]:
                (_, high), (_, low) = sorted(bounds)
                yield low, high

    def query(self, kind: str, node: Node, around: tuple[_Name, ...]) -> None:
        names = (*_names(kind, node), *around)
        if kind in _WRITES:
            self.writes = self.writes or "changes data"
        if kind == "SelectStmt":
            for name, use in (("limitCount", "limit"), ("limitOffset", "offset")):
                for number in _parameters(node.get(name)):
                    self.uses[number] = Use(use)
        elif kind == "InsertStmt":
            self._inserted(node)
        elif kind == "UpdateStmt":
            self._assigned(node.get("targetList", ()), _tables(names[:1]))
        self._inside(node, names)

    def _inside(self, node: Any, names: tuple[_Name, ...]) -> None:
        if isinstance(node, list):
            for item in node:
                self._inside(item, names)
            return
        if not isinstance(node, dict):
            return
        for kind, value in node.items():
            if kind in _QUERIES or (kind in {"larg", "rarg"} and "op" in value):  # the sides of a UNION are bare
                self.query(kind if kind in _QUERIES else "SelectStmt", value, names)
            else:
                self._met(kind, value, names)
                self._inside(value, names)

    def _met(self, kind: str, value: Any, names: tuple[_Name, ...]) -> None:
        if kind in _REASONS:
            self.writes = self.writes or _REASONS[kind]
        elif kind == "A_Expr":
            self._compared(value, names)
        elif kind == "FuncCall":
            self._called(_last(value.get("funcname", ())), value.get("args", ()))
        elif kind == "ParamRef":
            self.uses.setdefault(value.get("number", 0), FREE)
        elif kind == "onConflictClause":
            self._assigned(value.get("targetList", ()), _tables(names[:1]))

    def _called(self, name: str, arguments: Sequence[Any]) -> None:
        self.functions.add(name)
        for place, argument in enumerate(arguments):
            if (name, place) in _WORDS and (number := _parameter(argument)) is not None:
                self.uses[number] = Use("word", word=_WORDS[name, place])

    # --- which column

    def _compared(self, node: Node, names: tuple[_Name, ...]) -> None:
        kind, sign = node.get("kind", ""), _last(node.get("name", ()))
        left, right = node.get("lexpr"), node.get("rexpr")
        if kind == "AEXPR_OP":
            first, second = _row(left), _row(right)
            if first and len(first) == len(second):
                for one, other in zip(first, second, strict=True):
                    self._pair(sign, one, other, names)
            else:
                self._pair(sign, left, right, names)
        elif kind in {"AEXPR_IN", "AEXPR_DISTINCT", "AEXPR_NOT_DISTINCT"}:
            for item in _items(right):
                self._pair("=", left, item, names)
        elif kind in {"AEXPR_OP_ANY", "AEXPR_OP_ALL"}:
            self._use(left, right, "equal", names, is_list=True)
        elif kind in {"AEXPR_LIKE", "AEXPR_ILIKE"}:
            self._use(left, right, "like", names)
        elif kind in {"AEXPR_BETWEEN", "AEXPR_BETWEEN_SYM"}:
            for item, use in zip(_items(right), ("low", "high"), strict=False):
                self._use(left, item, use, names)

    def _pair(self, sign: str, left: Any, right: Any, names: tuple[_Name, ...]) -> None:
        if _column(left) is None:
            left, right, sign = right, left, _MIRRORED.get(sign, sign)
        kind = "equal" if sign in _EQUAL else "low" if sign in _LOW else "high" if sign in _HIGH else ""
        if kind:
            self._use(left, right, kind, names)

    def _use(self, left: Any, right: Any, kind: str, names: tuple[_Name, ...], *, is_list: bool = False) -> None:
        column, number = _column(left), _parameter(right)
        if column is None or number is None:
            return
        tables = _meant(column, names)
        if not tables:
            return
        self.uses[number] = Use(kind, tables, column[-1], is_list)
        if kind in {"low", "high"}:
            self._bounds[tables, column[-1]].append((kind, number))

    def _inserted(self, node: Node) -> None:
        tables = (_table(node["relation"]),)
        columns = [item["ResTarget"].get("name", "") for item in node.get("cols", ())]
        select = node.get("selectStmt", {}).get("SelectStmt", {})
        rows = [row["List"].get("items", ()) for row in select.get("valuesLists", ())]
        rows = rows or [[item["ResTarget"].get("val") for item in select.get("targetList", ()) if "ResTarget" in item]]
        for row in rows:
            self._stored(zip(columns, row, strict=False), tables)

    def _assigned(self, targets: Iterable[Node], tables: tuple[Table, ...]) -> None:
        found = []
        for target in targets:
            name, value = target["ResTarget"].get("name", ""), target["ResTarget"].get("val", {})
            if "MultiAssignRef" in value:
                row = _row(value["MultiAssignRef"].get("source"))
                place = value["MultiAssignRef"].get("colno", 1) - 1
                value = row[place] if place < len(row) else {}
            found.append((name, value))
        self._stored(found, tables)

    def _stored(self, pairs: Iterable[tuple[str, Any]], tables: tuple[Table, ...]) -> None:
        for column, value in pairs:
            number = _parameter(value)
            if number is not None and column:
                self.uses[number] = Use("stored", tables, column)


_Name = tuple[str, Table]
"""What a table is called here, and which it is."""


def _names(kind: str, node: Node) -> Iterator[_Name]:
    """
    Yield the tables of one query by the names that they have in it; queries inside it have their own.
    """
    known = {item["CommonTableExpr"]["ctename"] for item in node.get("withClause", {}).get("ctes", ())}
    if kind in _WRITES:
        yield _named(node["relation"])
    for place in ("fromClause", "usingClause", "sourceRelation"):
        for found in _ranges(node.get(place)):
            if found.get("schemaname") or found.get("relname") not in known:
                yield _named(found)


def _ranges(node: Any) -> Iterator[Node]:
    if isinstance(node, list):
        for item in node:
            yield from _ranges(item)
    elif isinstance(node, dict):
        for kind, value in node.items():
            if kind == "RangeVar":
                yield value
            elif kind in {"JoinExpr", "larg", "rarg"}:
                yield from _ranges(value)


def _named(node: Node) -> _Name:
    table = _table(node)
    return node.get("alias", {}).get("aliasname", table[1]), table


def _table(node: Node) -> Table:
    return node.get("schemaname", ""), node.get("relname", "")


def _tables(names: Sequence[_Name]) -> tuple[Table, ...]:
    return tuple(table for _, table in names)


def _meant(column: tuple[str, ...], names: tuple[_Name, ...]) -> tuple[Table, ...]:
    """
    Return the tables that a column's name may mean, nearest first.
    """
    if len(column) == 1:
        return _tables(names)
    return _tables([found for found in names if found[0] == column[-2]][:1])


def _bare(node: Any) -> Any:
    """
    Return what a cast or a collation is around.
    """
    while isinstance(node, dict) and len(node) == 1 and next(iter(node)) in {"TypeCast", "CollateClause"}:
        node = next(iter(node.values())).get("arg")
    return node


def _column(node: Any) -> tuple[str, ...] | None:
    found = _bare(node)
    if not isinstance(found, dict) or "ColumnRef" not in found:
        return None
    fields = found["ColumnRef"].get("fields", ())
    if not all("String" in item for item in fields):
        return None
    return tuple(item["String"].get("sval", "") for item in fields)


def _parameter(node: Any) -> int | None:
    found = _bare(node)
    if isinstance(found, dict) and "ParamRef" in found:
        number: int = found["ParamRef"].get("number", 0)
        return number
    return None


def _parameters(node: Any) -> Iterator[int]:
    number = _parameter(node)
    if number is not None:
        yield number


def _items(node: Any) -> Sequence[Any]:
    found: Sequence[Any] = node["List"].get("items", ()) if isinstance(node, dict) and "List" in node else (node,)
    return found


def _row(node: Any) -> Sequence[Any]:
    found: Sequence[Any] = node["RowExpr"].get("args", ()) if isinstance(node, dict) and "RowExpr" in node else ()
    return found


def _last(names: Sequence[Any]) -> str:
    return str(names[-1]["String"].get("sval", "")) if names and "String" in names[-1] else ""
