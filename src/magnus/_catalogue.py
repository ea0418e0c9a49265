"""What is known of a database: which of its functions, views and tables could change a session unseen. Pure.

It judges what one query of the catalogue answers; it neither asks it nor knows when that should be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from magnus._effects import UNKNOWN, Effect, Kind, is_local_setting
from magnus._sqltext import NOT_CALLS, calls, has_pair, scan, split

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from magnus._sqltext import Tokens

KNOWN_EXTENSIONS: Final = (
    "amcheck", "bloom", "btree_gin", "btree_gist", "citext", "cube", "dict_int", "dict_xsyn", "earthdistance",
    "fuzzystrmatch", "hstore", "insert_username", "intarray", "lo", "ltree", "moddatetime", "pageinspect",
    "pg_buffercache", "pg_freespacemap", "pg_stat_statements", "pg_trgm", "pg_visibility", "pgcrypto", "pgrowlocks",
    "pgstattuple", "postgis", "seg", "sslinfo", "tcn", "tsm_system_rows", "tsm_system_time", "unaccent", "uuid-ossp",
    "vector",
)  # fmt: skip
"""Their functions leave nothing behind in a session."""

ARGUMENTS: Final = (list(KNOWN_EXTENSIONS), sorted(NOT_CALLS))
"""Of the query `session_effects`."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """
    What is known of one database at one moment.

    Attributes:
        functions: Names that stand for nothing but functions that leave nothing behind.
        danger: The first thing found that could change a session without being named in a statement, or None.
        safe: Relations whose reading runs no code of the users', by name and by schema and name; empty when operators,
            casts or types of the users' could run some anywhere.
        relations: All names of relations.
    """

    functions: frozenset[str]
    danger: str | None = None
    safe: frozenset[str] = frozenset()
    relations: frozenset[str] = frozenset()


def catalogue_of(row: Mapping[str, Any], danger: str | None) -> Catalogue:
    """
    Put together the answer of `session_effects` and the first of its `dangers`.
    """
    by_name: dict[str, bool] = {}
    for schema, name, is_safe in row["relations"]:
        for key in (name, f"{schema}.{name}"):
            by_name[key] = by_name.get(key, True) and is_safe == "true"
    safe = () if row["silent"] else (name for name, is_safe in by_name.items() if is_safe)
    return Catalogue(frozenset(row["safe_functions"]), danger, frozenset(safe), frozenset(by_name))


def dangers(row: Mapping[str, Any]) -> Iterator[str | None]:
    """
    Find what could change a session. Each function's text is read when it is its turn; None stands for a harmless one.
    """
    for name in row["unreadable"]:
        yield f"function {name} can change the session: its language cannot be read"
    for place in row["places"]:
        yield f"{place} can change the session"
    unsafe = frozenset(row["unsafe_functions"])
    for name, source in row["bodies"]:
        why = danger_of(source, unsafe)
        yield None if why is None else f"function {name} can change the session: {why}"


_LONGEST: Final = 100_000
_STARTS: Final = frozenset({";", "begin", "then", "else", "loop", ">", "atomic"})
_COMMANDS: Final = frozenset({
    "alter", "create", "deallocate", "discard", "do", "drop", "import", "listen", "load", "prepare", "reset",
    "unlisten",
})  # fmt: skip
_LOCAL: Final = frozenset({"local", "transaction", "constraints"})


def danger_of(source: str, unsafe: frozenset[str]) -> str | None:
    """
    Say what in the body of an SQL or PL/pgSQL function can change the session, or None.

    `unsafe` are the system's functions that can. What other functions of the users' do is said of them, not of those
    who call them.
    """
    if len(source) > _LONGEST:
        return "it is too long to be read"
    read = scan(source)
    if read.doubt is not None:
        return read.doubt
    return _dangerous_word(read.tokens) or _dangerous_call(read.tokens, unsafe)


def _dangerous_word(tokens: Tokens) -> str | None:
    words = frozenset(tokens)
    for word, shown in _ANYWHERE.items():
        if word in words:
            return shown
    for firsts, seconds, shown in _PAIRS:
        if has_pair(tokens, firsts, seconds):
            return shown
    return next((word.upper() for before, word, *after in _windows(tokens) if _is_command(before, word, after)), None)


def _is_command(before: str, word: str, after: list[str]) -> bool:
    if before and before not in _STARTS:
        return False
    if word == "set":
        return after[0] not in _LOCAL or after[1] in {"to", "=", "."} or "seed" in after
    return word in _COMMANDS


_ANYWHERE: Final = {
    "execute": "EXECUTE", "pg_temp": "pg_temp", '"pg_temp': "pg_temp", "pg_settings": "pg_settings",
    '"pg_settings': "pg_settings",
}  # fmt: skip
_PAIRS: Final = (
    (
        frozenset({"create", "global", "into", "local", "replace"}),
        frozenset({"temp", "temporary"}),
        "a temporary table",
    ),
    (frozenset({"with"}), frozenset({"hold"}), "a cursor WITH HOLD"),
)


def _windows(tokens: Tokens) -> Iterator[tuple[str, str, str, str]]:
    padded = ["", *tokens, "", ""]
    yield from zip(padded, padded[1:], padded[2:], padded[3:], strict=False)


def _dangerous_call(tokens: Tokens, unsafe: frozenset[str]) -> str | None:
    for statement in split(tokens):
        for call in calls(statement):
            if call.name in unsafe and not is_local_setting(call, statement):
                return call.name
    return None


# --- verdicts --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    What a statement may leave behind in one database.

    Attributes:
        dirties: In the words of `_effects`.
        reason: Why, or None.
        changes_catalogue: Whether what is known of the database may be wrong afterwards.
    """

    dirties: frozenset[str] = frozenset()
    reason: str | None = None
    changes_catalogue: bool = False


CLEAN: Final = Verdict()
_OPAQUE: Final = frozenset({UNKNOWN})


def verdict(effect: Effect, catalogue: Catalogue | None) -> Verdict:
    """
    Judge a statement by its text and by what is known of the database; without knowledge nothing is clean.
    """
    if effect.changes_catalogue:
        return Verdict(effect.dirties | _OPAQUE, effect.reason or "a change of the schema", changes_catalogue=True)
    if catalogue is None:
        return Verdict(effect.dirties | _OPAQUE, effect.reason or "the catalogue is not known yet")
    if catalogue.danger is not None and not _is_safe_read(effect, catalogue):
        return Verdict(effect.dirties | _OPAQUE, effect.reason or catalogue.danger)
    return Verdict(effect.dirties, effect.reason) if effect.dirties else CLEAN


def _is_safe_read(effect: Effect, catalogue: Catalogue) -> bool:
    """
    Say whether a statement reads nothing but what runs no code of the users'.
    """
    if effect.kind is Kind.CONTROL:
        return True
    if not effect.is_plain_read or not catalogue.safe:
        return False
    return all(
        name in catalogue.safe or (name in effect.common and name not in catalogue.relations)
        for name in effect.relations
    )
