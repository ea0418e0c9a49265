"""What a statement is, without what was in it: no literal, one text, one fingerprint, one short name.

Pure. Where the server's grammar is installed (pgparse) it gives the fingerprint, else the scanner here does. What
cannot be read for certain is not shown at all.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from magnus._sqltext import common_tables, is_name, pieces, plain, relations

if TYPE_CHECKING:
    from collections.abc import Callable

    from magnus._sqltext import Piece, Tokens

_LONGEST: Final = 16_384
_SHOWN: Final = 8_192
_SUMMARY: Final = 255
HIDDEN: Final = "<not shown>"
"""What stands for a text, or the rest of one, that cannot be read for certain."""


@dataclass(frozen=True, slots=True)
class Normal:
    """
    One statement, normalised.

    Attributes:
        text: With `$n` for every constant, without comments, one space where there was any.
        fingerprint: The same for statements that differ in constants, spaces, case, comments or lengths of lists.
        shape: As the fingerprint, but what the server tells apart is told apart: constants from parameters, and lists
            of different lengths.
        summary: Operation and tables, "SELECT position trade".
        is_plannable: It is one statement that EXPLAIN takes.
    """

    text: str
    fingerprint: str
    shape: str
    summary: str
    is_plannable: bool


def normalised(sql: str) -> Normal:
    """
    Normalise a text. Never raises; in linear time, and only the first 16 kB are read.
    """
    reading = _Reading()
    is_cut = len(sql) > _LONGEST
    for piece in pieces(sql[:_LONGEST]):
        reading.see(piece)
    if is_cut:
        reading.cut()
    return reading.normal(_grammar(), "" if is_cut else sql)


def spelled_out(text: str) -> str:
    """
    Return an expression, as EXPLAIN writes it, with "?" for every constant: `$n` is a parameter there.
    """
    reading = _Reading()
    for piece in pieces(text):
        reading.see(piece)
    return reading.text(None)


_SIGNS: Final = frozenset("-+")
_OPERATORS: Final = frozenset("(,=<>+-*/%^|[")
_BEFORE_SIGN: Final = frozenset({
    "and", "between", "by", "case", "else", "in", "like", "limit", "not", "offset", "or", "return", "returning",
    "select", "set", "then", "to", "values", "when", "where",
})  # fmt: skip
_PLANNABLE: Final = frozenset({"select", "insert", "update", "delete", "merge", "with", "values", "table", "("})
_SETTERS: Final = frozenset({"set", "alter"})
_SETS: Final = frozenset({"=", "to"})


class _Reading:
    """
    Collects what a statement is made of. Constants are kept as their kind only.
    """

    def __init__(self) -> None:
        self._parts: list[tuple[str, bool]] = []  # written form (a constant is ""), and whether space stands before it
        self._shape: list[str] = []
        self._tokens: Tokens = []
        self._last_param = 0
        self._is_doubtful = False
        self._is_setting = False
        self._has_set = False
        self._first = ""

    def see(self, piece: Piece) -> None:
        kind, text = piece.kind, piece.text
        if kind == "doubt":
            self._is_doubtful = True
            return
        if self._is_setting and kind != "mark":
            kind = "text"  # SET name = word: the word is a value
        if kind == "param":
            self._last_param = max(self._last_param, int(text[1:8]))
            self._add(text, piece.is_apart, text, "$")
        elif kind == "text":
            self._add("", piece.is_apart, "'", "'")
        elif kind == "number":
            self._number(text, is_apart=piece.is_apart)
        elif kind == "word":
            folded = text.lower() if text.isascii() else text
            self._add(text, piece.is_apart, folded, folded)
        else:
            read = text if kind == "mark" else '"' + text[1:-1].replace('""', '"')
            bare = read[1:] if read[:1] == '"' and read[1:].islower() and read[1:].isidentifier() else read
            self._add(text, piece.is_apart, bare, read)
        self._follow(self._tokens[-1])

    def _follow(self, word: str) -> None:
        """
        Know whether this is a statement that sets something to a word (`SET name = word`, `ALTER … SET name TO word`).
        """
        if word == ";":
            self._is_setting, self._first = False, ""
        elif not self._first:
            self._first, self._has_set = word, word == "set"
        elif self._first in _SETTERS:
            self._has_set = self._has_set or word == "set"
            self._is_setting = self._is_setting or (self._has_set and word in _SETS)

    def _add(self, written: str, is_apart: bool, shape: str, read: str) -> None:  # noqa: FBT001
        self._parts.append((written, is_apart))
        self._shape.append(shape)
        self._tokens.append(read)

    def _number(self, text: str, *, is_apart: bool) -> None:
        tokens = self._tokens
        if tokens[-1:] and tokens[-1] in _SIGNS and (tokens[-2:-1] == [] or self._is_sign(tokens[-2])):
            self._tokens.pop()
            self._shape.pop()
            is_apart = self._parts.pop()[1]
        whole = text.replace("_", "").isdigit()
        self._add("", is_apart, "0" if whole and len(text) < 10 else "1" if whole and len(text) < 19 else ".0", "0")

    @staticmethod
    def _is_sign(before: str) -> bool:
        return before in _OPERATORS or before in _BEFORE_SIGN

    def cut(self) -> None:
        self._is_doubtful = True

    def text(self, last_param: int | None) -> str:
        """
        Return what can be shown, constants numbered from `last_param` + 1 on, or all of them as "?".
        """
        found: list[str] = []
        for written, is_apart in self._parts:
            if is_apart and found:
                found.append(" ")
            if written:
                found.append(written)
            elif last_param is None:
                found.append("?")
            else:
                last_param += 1
                found.append(f"${last_param}")
        if self._is_doubtful:
            found.append(f" {HIDDEN}" if found else HIDDEN)
        return "".join(found)

    def normal(self, grammar: Callable[[str], str | None], sql: str) -> Normal:
        text = self.text(self._last_param)
        shape = _canonical(" ".join(self._shape).removesuffix(" ;"))
        brief = _LIST.sub(_short_list, shape)
        tree = grammar(sql) if sql and not self._is_doubtful else None
        # The grammar knows that `!=` is `<>`, and takes parameters for constants, which the server does not.
        parts = ["m", brief] if tree is None else [tree, *filter(_MARK.fullmatch, brief.split(" "))]
        doubt = HIDDEN if self._is_doubtful else ""
        tokens = self._tokens
        is_one = ";" not in tokens[:-1]
        return Normal(
            text=text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …",
            fingerprint=_digest(" ".join(parts) + doubt),
            shape=_digest(shape + doubt),
            summary=summary_of(tokens),
            is_plannable=is_one and not self._is_doubtful and tokens[:1] != [] and tokens[0] in _PLANNABLE,
        )


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()


_CONSTANT: Final = r"(?:'|0|1|\.0)"
_PARAM: Final = r"\$\d+"
_MARK: Final = re.compile(rf"{_CONSTANT}|{_PARAM}|…[$']")
_ALONE: Final = re.compile(rf"\bin \( ({_CONSTANT}|{_PARAM}) \)")  # the parser makes `= x` of it
_LIST: Final = re.compile(
    rf"(?P<open>\bin \(|\barray \[) (?:{_CONSTANT}(?: , {_CONSTANT})*|(?P<param>{_PARAM})(?: , {_PARAM})*)(?= [)\]])"
)


_FILLERS: Final = re.compile(r"\b(?:as|inner(?= join)|outer(?= join)) ")


def _canonical(shape: str) -> str:
    """
    Return one of several ways to write the same.
    """
    return _ALONE.sub(r"= \1", _FILLERS.sub("", shape)).replace(" ! = ", " < > ")


def _short_list(found: re.Match[str]) -> str:
    """
    Return a list of constants, or of parameters, without its length.
    """
    return f"{found['open']} …{chr(36) if found['param'] else chr(39)}"


# --- the short name --------------------------------------------------------------------------------------------------

_TARGET: Final = {"insert": "into", "update": "update", "delete": "from", "merge": "into", "copy": "copy"}
_READS: Final = frozenset({"select", "with", "values", "table", "("})
_KINDS: Final = frozenset({"create", "alter", "drop"})
_MOST_TABLES: Final = 5


def summary_of(tokens: Tokens) -> str:
    """
    Return operation and tables of a statement, at most 255 characters; the name of a span or of a row in a list.
    """
    if not tokens:
        return ""
    first = tokens[0]
    operation = _operation(tokens) if first in {"with", "("} else first
    if operation in _TARGET:
        names = _target(tokens, operation)
    elif operation in _READS:
        names = []
    else:
        kind = tokens[1:2] if first in _KINDS and tokens[1:2] != [] and tokens[1].isalpha() else []
        return " ".join(word.upper() for word in [first, *kind])[:_SUMMARY] if first.isalpha() else ""
    if operation not in {"copy", "delete", "update"}:
        read = relations(tokens) - common_tables(tokens) - {"?", *names}
        names += sorted(read, key=lambda name: _place(tokens, name))
    return " ".join([operation.upper(), *names[:_MOST_TABLES]])[:_SUMMARY]


def _operation(tokens: Tokens) -> str:
    """
    Return what a statement that begins with WITH, or in parentheses, does in the end.
    """
    depth = 0
    for found in tokens:
        if found in {"(", ")"}:
            depth += 1 if found == "(" else -1
        elif depth <= 0 and found in {"select", "insert", "update", "delete", "merge"}:
            return found
    return "select"


def _target(tokens: Tokens, operation: str) -> list[str]:
    try:
        at = tokens.index(_TARGET[operation], tokens.index(operation)) + 1
    except ValueError:
        return []
    at += tokens[at : at + 1] == ["only"]
    parts = tokens[at : at + 1]
    while tokens[at + 1 : at + 2] == ["."]:
        at += 2
        parts += tokens[at : at + 1]
    return [".".join(map(plain, parts))] if parts and all(map(is_name, parts)) else []


def _place(tokens: Tokens, name: str) -> int:
    last = name.rpartition(".")[2]
    return next((place for place, found in enumerate(tokens) if plain(found) == last), len(tokens))


# --- the server's grammar, where it is installed ---------------------------------------------------------------------


@cache
def _grammar() -> Callable[[str], str | None]:
    """
    Return what gives a fingerprint by the server's own grammar; None for a text that it refuses, or without it.
    """
    try:
        import pgparse
    except ImportError:
        return lambda _: None
    error: type[Exception] = pgparse.PGQueryError

    def fingerprint(sql: str) -> str | None:
        try:
            return str(pgparse.fingerprint(sql))
        except (error, ValueError):
            return None

    return fingerprint
