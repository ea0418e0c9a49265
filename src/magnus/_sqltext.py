"""Reads SQL text as PostgreSQL's scanner does: tokens, statements, functions that are called, tables that are read.

Pure. It knows the grammar's words, never what a function or a table is. On doubt it says so.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Tokens = list[str]
"""
A word in lower case, '"' and the name of a quoted one, "'" for any text constant, "0" for a number, "$" for a
parameter, "::", or one punctuation character. What constants hold is not kept.
"""

_IDENT: Final = r"[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*+"
_TAG: Final = r"\$(?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*+)?\$"
_TOKEN: Final = re.compile(
    rf"""(?:[ \t\r\n\f\v]++|--[^\r\n]*+)*+(?:
        (?P<escaped>[eE]'(?:[^'\\]++|\\.|'')*+')
      | (?P<text>(?:[bBxXnN]|[uU]&)?'(?:[^']++|'')*+')
      | (?P<encoded>[uU]&"(?:[^"]++|"")*+")
      | (?P<quoted>"(?:[^"]++|"")*+")
      | (?P<dollar>(?P<tag>{_TAG}).*?(?P=tag))
      | (?P<comment>/\*)
      | (?P<open>['"]|{_TAG})
      | (?P<word>{_IDENT})
      | (?P<param>\$[0-9]++)
      | (?P<number>[0-9][0-9_]*+(?:\.[0-9_]*+)?+(?:[eE][+-]?[0-9]++)?+|\.[0-9]++)
      | (?P<cast>::)
      | (?P<mark>.)
      | (?P<end>\Z)
    )""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE: Final = re.compile(r"/\*|\*/")
_FOLD: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


@dataclass(frozen=True, slots=True)
class Scan:
    """
    One text, read.

    Attributes:
        tokens: All of it, without spaces and comments.
        doubt: Why it may mean something else than it seems to, or None.
    """

    tokens: Tokens
    doubt: str | None


def scan(sql: str) -> Scan:
    """
    Split a text into tokens. Never raises; in linear time.
    """
    tokens: Tokens = []
    doubt: str | None = None
    match, pos = _TOKEN.match, 0
    while pos >= 0:
        found = match(sql, pos)
        kind = "end" if found is None else found.lastgroup
        if found is None or kind == "end":
            return Scan(tokens, doubt)
        pos = found.end()
        if kind == "word":
            tokens.append(_fold(found["word"]))
        elif kind == "mark":
            tokens.append(found["mark"])
        elif kind in _ENDLESS:
            pos = _comment_end(sql, pos) if kind == "comment" else -1
        else:
            tokens.append('"' + found["quoted"][1:-1].replace('""', '"') if kind == "quoted" else _SHORT[kind or ""])
            doubt = doubt or _doubt(found)
    return Scan(tokens, "a quotation or comment that does not end")


@dataclass(frozen=True, slots=True)
class Piece:
    """
    A token as it is written. `kind` is "word", "name" (quoted), "text", "number", "param", "mark", or "doubt" for what
    nobody can read: then it is the last one, and its `text` is empty. `is_apart`: space or a comment stands before it.
    """

    kind: str
    text: str
    is_apart: bool


def pieces(sql: str) -> Iterator[Piece]:
    """
    Yield the tokens of a text as they are written, comments left out. Never raises; in linear time.
    """
    match, pos, is_apart = _TOKEN.match, 0, False
    while True:
        found = match(sql, pos)
        kind = "end" if found is None else found.lastgroup or "end"
        if found is None or kind == "end":
            return
        is_apart = is_apart or found.start(kind) > pos
        if kind == "comment":
            pos, is_apart = _comment_end(sql, found.end()), True
            if pos < 0:
                yield Piece("doubt", "", is_apart)
                return
            continue
        pos = found.end()
        if kind == "open" or _doubt(found) is not None:
            yield Piece("doubt", "", is_apart)
            return
        yield Piece(_KINDS.get(kind, kind), found[kind], is_apart)
        is_apart = False


def _doubt(found: re.Match[str]) -> str | None:
    if found["encoded"] is not None:
        return "a name written in codes"
    if found["text"] is not None and r"\'" in found["text"]:
        # Where it ends depends on standard_conforming_strings.
        return "a backslash before a quote"
    return None


_ENDLESS: Final = frozenset({"comment", "open"})
_KINDS: Final = {"escaped": "text", "dollar": "text", "quoted": "name", "cast": "mark"}
_SHORT: Final = {
    "escaped": "'", "text": "'", "dollar": "'", "encoded": '"', "param": "$", "number": "0", "cast": "::",
}  # fmt: skip


def _fold(word: str) -> str:
    # The server folds ASCII alone; str.lower() turns U+212A into a k, and some other name into a known one.
    return word.lower() if word.isascii() else word.translate(_FOLD)


def _comment_end(sql: str, pos: int) -> int:
    depth = 1
    for edge in _COMMENT_EDGE.finditer(sql, pos):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            return edge.end()
    return -1


def split(tokens: Tokens) -> Iterator[Tokens]:
    """
    Split into statements, at semicolons outside parentheses. Empty ones are left out.
    """
    depth = start = 0
    for index, piece in enumerate(tokens):
        if piece == "(":
            depth += 1
        elif piece == ")":
            depth = max(depth - 1, 0)
        elif piece == ";" and depth == 0:
            if index > start:
                yield tokens[start:index]
            start = index + 1
    if len(tokens) > start:
        yield tokens[start:]


_WHOLE: Final = frozenset({"delete", "insert", "merge", "select", "table", "update", "values", "with"})


def is_whole(sql: str) -> bool:
    """
    Say whether a text sent by itself is certainly taken back as a whole when the server answers it with an error.

    Not so several statements, which may commit between them, nor CALL and DO, whose procedures may.
    """
    read = scan(sql)
    statements = list(split(read.tokens))
    return read.doubt is None and len(statements) == 1 and statements[0][0] in _WHOLE


def is_name(piece: str) -> bool:
    """
    Say whether a piece is a word or a quoted name.
    """
    first = piece[0]
    return first in {'"', "_"} or first.isalpha() or first > "\x7f"


def plain(piece: str) -> str:
    """
    Return the name that a piece is, without its quote.
    """
    return piece.removeprefix('"')


# --- calls -----------------------------------------------------------------------------------------------------------

NOT_CALLS: Final = frozenset({
    "all", "analyze", "and", "any", "array", "as", "between", "bigint", "buffers", "by", "case", "cast", "character",
    "check", "coalesce", "columns", "conflict", "copy", "cube", "current_date", "current_role", "current_time",
    "current_timestamp", "current_user", "dec", "decimal", "delete", "distinct", "do", "else", "end", "escape",
    "except", "exists", "filter", "float", "for", "from", "full", "greatest", "group", "grouping", "having", "ilike",
    "in", "inner", "insert", "int", "integer", "intersect", "into", "is", "join", "json", "json_array",
    "json_arrayagg", "json_exists", "json_object", "json_objectagg", "json_query", "json_scalar", "json_serialize",
    "json_table", "json_value", "key", "lateral", "least", "left", "like", "limit", "local", "localtime",
    "localtimestamp", "materialized", "merge", "merge_action", "national", "not", "nullif", "offset", "on", "only",
    "operator", "or", "order", "over", "overlay", "partition", "passing", "position", "precision", "recursive",
    "repeatable", "returning", "right", "rollup", "row", "rows", "select", "session_user", "set", "sets", "similar",
    "smallint", "some", "substring", "symmetric", "table", "then", "to", "trim", "union", "unique", "update", "using",
    "values", "varying", "when", "where", "window", "with", "within", "xmlattributes", "xmlconcat", "xmlelement",
    "xmlforest", "xmlnamespaces", "xmlparse", "xmlpi", "xmlroot", "xmlserialize", "xmltable", "zone",
})  # fmt: skip
"""Words that a parenthesis may follow without a call of a function of that name."""

_QUERIES: Final = frozenset({"select", "values", "with", "insert", "update", "delete", "merge", "table", "("})


@dataclass(frozen=True, slots=True)
class Call:
    """
    A name before a parenthesis. `schema` is None when none is written; `opening` and `closing` are where its
    parentheses stand.
    """

    schema: str | None
    name: str
    opening: int
    closing: int

    def __str__(self) -> str:
        return self.name if self.schema is None else f"{self.schema}.{self.name}"


def calls(tokens: Tokens) -> Iterator[Call]:
    """
    Find every function that a statement calls by name; now and then also what is no call.
    """
    pairs = parentheses(tokens)
    for opening in pairs:
        if opening == 0 or tokens[opening] != "(" or not is_name(piece := tokens[opening - 1]):
            continue
        start = _start_of_name(tokens, opening - 1)
        if start == opening - 1 and piece in NOT_CALLS:
            continue
        if not _is_other(tokens, start, opening, pairs):
            schema = None if start == opening - 1 else ".".join(map(plain, tokens[start : opening - 2 : 2]))
            yield Call(schema, plain(piece), opening, pairs[opening])


def parentheses(tokens: Tokens) -> dict[int, int]:
    """
    Return where the partner of each parenthesis stands. One that is never closed ends at the end.
    """
    pairs: dict[int, int] = {}
    open_ones: list[int] = []
    for index, piece in enumerate(tokens):
        if piece == "(":
            open_ones.append(index)
            pairs[index] = len(tokens)
        elif piece == ")" and open_ones:
            pairs[index] = open_ones.pop()
            pairs[pairs[index]] = index
    return pairs


def _start_of_name(tokens: Tokens, last: int) -> int:
    while last >= 2 and tokens[last - 1] == "." and is_name(tokens[last - 2]):
        last -= 2
    return last


def _is_other(tokens: Tokens, start: int, opening: int, pairs: dict[int, int]) -> bool:
    """
    Say whether a name and its parenthesis are a type, an alias or a table with columns.
    """
    before = tokens[start - 1] if start else ""
    if before in {"::", "as", "into", "copy"}:
        return True
    if before == ")":  # the alias of a call or a subquery; but `DISTINCT ON (…) f(…)` and `OPERATOR(…) f(…)` are calls
        outer = pairs.get(start - 1, 0)
        item = tokens[outer - 1] if outer else ""
        return item in {"from", "join", "lateral", ","} or (item != "" and is_name(item) and item not in NOT_CALLS)
    return before in {"with", "recursive", ","} and _is_common_table(tokens, pairs[opening] + 1)


def _is_common_table(tokens: Tokens, rest: int) -> bool:
    """
    Say whether the definition of a common table follows at `rest`.
    """
    if tokens[rest : rest + 1] != ["as"]:
        return False
    rest += 1
    while tokens[rest : rest + 1] in (["not"], ["materialized"]):
        rest += 1
    return tokens[rest : rest + 1] == ["("] and tokens[rest + 1 : rest + 2] != [] and tokens[rest + 1] in _QUERIES


# --- tables ----------------------------------------------------------------------------------------------------------

_SPECIAL: Final = frozenset({"extract", "substring", "trim", "overlay", "position"})
_PASSED: Final = frozenset({"only", "lateral", "table"})
_ENDS_FROM: Final = frozenset({
    "except", "fetch", "group", "having", "intersect", "limit", "offset", "order", "union", "where", "window",
})  # fmt: skip


def relations(tokens: Tokens) -> frozenset[str]:
    """
    Return the tables and views that a query reads from, as written: `name` or `schema.name`. A name with a dot in it,
    and whatever else is unclear, is there under a name that no table has.
    """
    found: set[str] = set()
    levels = [_Level(is_special=False, is_expecting=False)]
    index = 0
    while index < len(tokens):
        piece, level = tokens[index], levels[-1]
        if piece == "(":
            opener = tokens[index - 1] if index else ""
            levels.append(_Level(is_special=opener in _SPECIAL, is_expecting=level.is_expecting))
            level.is_expecting = False
        elif piece == ")":
            if len(levels) > 1:
                levels.pop()
        elif level.is_expecting and piece not in _PASSED:
            index = _read_relation(tokens, index, level, found)
        else:
            level.hear(piece, tokens[max(index - 3, 0) : index])
        index += 1
    return frozenset(found)


class _Level:
    __slots__ = ("is_expecting", "is_in_from", "is_special")

    def __init__(self, *, is_special: bool, is_expecting: bool) -> None:
        self.is_special = is_special
        self.is_expecting = is_expecting
        self.is_in_from = is_expecting

    def hear(self, piece: str, before: Tokens) -> None:
        if before[-1:] == ["."]:  # a column may have any name
            return
        if piece == "from" and not self.is_special and not _is_distinct(before):
            self.is_expecting = self.is_in_from = True
        elif piece in {"join", "table"} or (piece == "," and self.is_in_from):
            self.is_expecting = True
        elif piece in _ENDS_FROM:
            self.is_in_from = False


def _is_distinct(before: Tokens) -> bool:
    """
    Say whether these three tokens make the FROM behind them that of IS [NOT] DISTINCT FROM.
    """
    return before == ["is", "not", "distinct"] or (before[-2:] == ["is", "distinct"] and before[0] not in {".", "as"})


def _read_relation(tokens: Tokens, index: int, level: _Level, found: set[str]) -> int:
    """
    Read the name that stands where a table is expected; return where it ends.
    """
    level.is_expecting = False
    if tokens[index] in {"select", "with"} or tokens[index : index + 2] == ["values", "("]:
        level.is_in_from = False
        return index
    parts = [tokens[index]]
    while tokens[index + 1 : index + 2] == ["."] and index + 2 < len(tokens):
        index += 2
        parts.append(tokens[index])
    if tokens[index + 1 : index + 2] != ["("]:
        names = [plain(part) if is_name(part) and "." not in part else "?" for part in parts]
        found.add(".".join(names))
    return index


def common_tables(tokens: Tokens) -> frozenset[str]:
    """
    Return the names that WITH gives to queries.
    """
    pairs = parentheses(tokens)
    found: set[str] = set()
    for index, piece in enumerate(tokens):
        rest = index + 1
        if is_name(piece) and (_is_common_table(tokens, rest) or _is_common_table(tokens, pairs.get(rest, -2) + 1)):
            found.add(plain(piece))
    return frozenset(found)


def has_pair(tokens: Sequence[str], first: frozenset[str], second: frozenset[str]) -> bool:
    """
    Say whether a word of `second` stands right behind one of `first`.
    """
    return any(after in second and before in first for before, after in itertools.pairwise(tokens))
