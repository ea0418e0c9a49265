"""What a text of SQL can leave behind in its session, judged from the text alone. Pure, and conservative on doubt.

It knows statements and the system's functions; what tables, views and functions of the users' do is `_catalogue`'s.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from magnus._sqltext import calls, common_tables, has_pair, plain, relations, scan, split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from magnus._sqltext import Call, Tokens

SETTINGS: Final = "settings"
LOCKS: Final = "locks"
TEMP: Final = "temp"
LISTEN: Final = "listen"
ROLE: Final = "role"
CURSOR: Final = "cursor"
PREPARED: Final = "prepared"
TRANSACTION: Final = "transaction"
UNKNOWN: Final = "unknown"
LASTING: Final = "lasting"
"""What no statement takes back: a loaded library, the seed of random(), a temporary slot, the driver's own state."""

LONGEST: Final = 10_000
"""Characters that are read; scanning more takes longer than the reset it may save."""

_NOTHING: Final[frozenset[str]] = frozenset()


class Kind(enum.IntEnum):
    """
    What a statement does, from the harmless to the rest.
    """

    CONTROL = 0
    """Runs no code but the server's own: BEGIN, COMMIT, SET LOCAL, NOTIFY, LOCK."""
    READ = 1
    WRITE = 2
    SESSION = 3
    SCHEMA = 4


@dataclass(frozen=True, slots=True)
class Effect:
    """
    What one text does.

    Attributes:
        kind: The strongest of its statements.
        dirties: What it may leave in the session, in the words above.
        relations: What a read reads from, as written.
        common: Names that its WITH clauses define.
        reason: The first thing that dirties, without any constants.
    """

    kind: Kind
    dirties: frozenset[str] = _NOTHING
    relations: frozenset[str] = _NOTHING
    common: frozenset[str] = _NOTHING
    reason: str | None = None

    @property
    def is_neutral(self) -> bool:
        """
        Whether it leaves nothing behind, as long as no code of the users' does that runs on the way.
        """
        return not self.dirties

    @property
    def is_plain_read(self) -> bool:
        """
        Whether it runs nothing but reads, and names every function that it calls.
        """
        return self.kind <= Kind.READ and not self.dirties

    @property
    def changes_catalogue(self) -> bool:
        """
        Whether tables, functions or types may be others afterwards.
        """
        return self.kind is Kind.SCHEMA

    def __or__(self, other: Effect) -> Effect:
        return Effect(
            max(self.kind, other.kind),
            self.dirties | other.dirties,
            self.relations | other.relations,
            self.common | other.common,
            self.reason if self.reason is not None else other.reason,
        )


def effect_of(sql: str, functions: frozenset[str]) -> Effect:
    """
    Judge a text. `functions` are the names of functions that leave nothing behind, whatever they are called with.
    """
    if len(sql) > LONGEST:
        return _unread(sql, f"a text of more than {LONGEST:,} characters")
    read = scan(sql)
    if read.doubt is not None:
        return _unread(sql, read.doubt)
    found = Effect(Kind.CONTROL)
    for statement in split(read.tokens):
        found |= _statement(statement, functions)
    return found


_SCHEMA_WORDS: Final = re.compile(r"\b(?:create|alter|drop|import|security|reassign|do)\b", re.IGNORECASE)
_LASTING_WORDS: Final = re.compile(r"prepare|discard|deallocate|load|seed|slot|origin|backup", re.IGNORECASE)


def _unread(sql: str, reason: str) -> Effect:
    kind = Kind.WRITE if _SCHEMA_WORDS.search(sql) is None else Kind.SCHEMA
    words = (UNKNOWN,) if _LASTING_WORDS.search(sql) is None else (UNKNOWN, LASTING)
    return _dirty(kind, reason, *words)


def _dirty(kind: Kind, reason: str, *words: str) -> Effect:
    return Effect(kind, frozenset(words), reason=reason)


# --- statements ------------------------------------------------------------------------------------------------------

_OPENING_CONTROL: Final = frozenset({
    "abort", "begin", "checkpoint", "close", "commit", "end", "fetch", "lock", "move", "notify", "release", "rollback",
    "savepoint", "start",
})  # fmt: skip
_OPENING_QUERY: Final = frozenset({"select", "values", "table", "with", "(", "insert", "update", "delete", "merge"})
# What is dropped can only make what is known more careful than it need be.
_OPENING_WRITE: Final = frozenset({
    "analyse", "analyze", "cluster", "comment", "drop", "grant", "refresh", "reindex", "revoke", "truncate", "vacuum",
})  # fmt: skip
_OPENING_SCHEMA: Final = frozenset({"alter", "create", "import", "reassign", "security"})
_WRITES: Final = frozenset({"delete", "insert", "into", "merge", "update"})
_TEMP: Final = frozenset({"temp", "temporary"})
_BEFORE_TEMP: Final = frozenset({"create", "global", "into", "local", "replace"})
_PG_TEMP: Final = frozenset({"pg_temp", '"pg_temp'})
_PG_SETTINGS: Final = frozenset({"pg_settings", '"pg_settings'})
_NAMES_SETTING: Final = frozenset({"to", "=", "."})
_ROLES: Final = frozenset({"authorization", "role", "session_authorization"})
_LASTING_CALL: Final = re.compile(
    r"setseed|pg_.*slot.*|pg_replication_origin.*|pg_backup_.*|binary_upgrade_.*|dblink.*|isn_weak"
)
_LOCK_CALL: Final = re.compile(r"pg_(?:try_)?advisory_(?:un)?lock(?:_shared|_all)?")


def _statement(tokens: Tokens, functions: frozenset[str]) -> Effect:
    opening = tokens[0]
    if opening in _OPENING_QUERY:
        return _query(tokens, functions)
    if opening in _OPENING_CONTROL:
        return Effect(Kind.CONTROL)
    special = _SPECIAL.get(opening)
    if special is not None:
        return special(tokens, functions)
    if opening in _OPENING_SCHEMA:
        return _schema(tokens)
    if opening in _OPENING_WRITE:
        return Effect(Kind.WRITE)
    return _dirty(Kind.SCHEMA, f"a statement that begins with {_shown(opening)}", UNKNOWN)


def _shown(opening: str) -> str:
    return opening.upper() if opening.isalnum() and not opening.isdigit() else "no known word"


def _query(tokens: Tokens, functions: frozenset[str]) -> Effect:
    if not _WRITES.isdisjoint(tokens):
        return _writing_query(tokens, functions)
    found = _code(tokens, functions, Kind.READ)
    return replace(found, relations=relations(tokens), common=common_tables(tokens))


def _writing_query(tokens: Tokens, functions: frozenset[str]) -> Effect:
    found = _code(tokens, functions, Kind.WRITE)
    if not _PG_SETTINGS.isdisjoint(tokens):
        found |= _dirty(Kind.SESSION, "a change of pg_settings", SETTINGS, ROLE)
    if any(
        piece == "into" and tokens[index - 1] not in {"insert", "merge"} for index, piece in enumerate(tokens) if index
    ):
        found |= Effect(Kind.WRITE if TEMP in found.dirties else Kind.SCHEMA)
    return found


def _code(tokens: Tokens, functions: frozenset[str], kind: Kind) -> Effect:
    """
    Judge the functions that a statement calls by name, and the temporary tables that it makes.
    """
    found = Effect(kind)
    for call in calls(tokens):
        words = _words_of(call, tokens, functions)
        if words:
            found |= _dirty(kind, f"the function {call}", *words)
    return found | _temp(tokens, kind)


def _words_of(call: Call, tokens: Tokens, functions: frozenset[str]) -> tuple[str, ...]:
    """
    Return what a call dirties.
    """
    is_system = call.schema is None or call.schema == "pg_catalog"
    if is_system and call.name in functions:
        return ()
    if _LASTING_CALL.fullmatch(call.name):
        return (LASTING,)
    if is_system and call.name == "set_config":
        return () if is_local_setting(call, tokens) else (SETTINGS, ROLE)
    if is_system and _LOCK_CALL.fullmatch(call.name):
        return (LOCKS,)
    return (UNKNOWN,)


def is_local_setting(call: Call, tokens: Tokens) -> bool:
    """
    Say whether a call is set_config(…, true): for this transaction only.
    """
    inside = tokens[call.opening + 1 : call.closing]
    return (
        call.name == "set_config"
        and inside[-2:] == [",", "true"]
        and len(tokens) > call.closing
        and "variadic" not in inside
    )


def _temp(tokens: Tokens, kind: Kind) -> Effect:
    if has_pair(tokens, _BEFORE_TEMP, _TEMP) or not _PG_TEMP.isdisjoint(tokens):
        return _dirty(kind, "a temporary table", TEMP)
    return Effect(kind)


def _schema(tokens: Tokens) -> Effect:
    is_temp = has_pair(tokens, _BEFORE_TEMP, _TEMP)
    kind = Kind.WRITE if is_temp else Kind.SCHEMA
    found = _temp(tokens, kind)
    if is_temp:  # its defaults and checks are code that the catalogue does not show
        found |= _dirty(kind, "a temporary table", UNKNOWN)
    # After a change of the schema everything is reset anyway, so only what no reset takes back is looked for.
    for call in calls(tokens):
        if _LASTING_CALL.fullmatch(call.name):
            found |= _dirty(kind, f"the function {call}", LASTING)
    if tokens[:2] == ["create", "extension"] or has_pair(tokens, _AS, _EXECUTE):
        found |= _dirty(kind, f"{tokens[0].upper()} {tokens[1].upper()}", UNKNOWN, PREPARED)
    return found


_AS: Final = frozenset({"as"})
_EXECUTE: Final = frozenset({"execute"})


# --- statements of their own kind ------------------------------------------------------------------------------------


def _set(tokens: Tokens, _functions: frozenset[str]) -> Effect:
    names = {plain(piece) for piece in tokens[1:4]}
    if "seed" in names:  # not even the end of the transaction takes it back
        return _dirty(Kind.SESSION, "SET seed", LASTING)
    second, third = (*tokens[1:3], "", "")[:2]
    # `SET local.x = 1` and `SET transaction.x = 1` set parameters of these names.
    if second in {"local", "transaction", "constraints"} and third not in _NAMES_SETTING:
        return Effect(Kind.CONTROL)
    if names.isdisjoint(_ROLES):
        return _dirty(Kind.SESSION, "SET", SETTINGS)
    return _dirty(Kind.SESSION, "SET ROLE", ROLE, SETTINGS)


def _reset(_tokens: Tokens, _functions: frozenset[str]) -> Effect:
    return _dirty(Kind.SESSION, "RESET", SETTINGS, ROLE)


def _discard(tokens: Tokens, _functions: frozenset[str]) -> Effect:
    # DISCARD ALL destroys the statements that the driver believes to exist.
    return _dirty(Kind.SESSION, "DISCARD", PREPARED if tokens[1:2] == ["all"] else TEMP)


def _listen(tokens: Tokens, _functions: frozenset[str]) -> Effect:
    return _dirty(Kind.SESSION, tokens[0].upper(), LISTEN)


def _prepare(tokens: Tokens, _functions: frozenset[str]) -> Effect:
    if tokens[:2] == ["prepare", "transaction"] and "as" not in tokens:
        return Effect(Kind.CONTROL)
    return _dirty(Kind.SESSION, tokens[0].upper(), PREPARED, UNKNOWN)


def _declare(tokens: Tokens, functions: frozenset[str]) -> Effect:
    start = next((index for index, piece in enumerate(tokens) if piece == "for"), len(tokens)) + 1
    inner = _query(tokens[start:], functions) if start < len(tokens) else Effect(Kind.CONTROL)
    if has_pair(tokens, frozenset({"with"}), frozenset({"hold"})):
        inner |= _dirty(Kind.SESSION, "a cursor WITH HOLD", CURSOR)
    return inner


def _copy(tokens: Tokens, functions: frozenset[str]) -> Effect:
    return _code(tokens, functions, Kind.WRITE)


def _show(_tokens: Tokens, _functions: frozenset[str]) -> Effect:
    return Effect(Kind.READ)


def _explain(tokens: Tokens, functions: frozenset[str]) -> Effect:
    index = 1
    if tokens[1:2] == ["("] and tokens[2:3] != [] and tokens[2] not in _OPENING_QUERY:
        index = next((found for found, piece in enumerate(tokens) if piece == ")"), len(tokens)) + 1
    while tokens[index : index + 1] in (["analyze"], ["analyse"], ["verbose"]):
        index += 1
    return _statement(tokens[index:], functions) if index < len(tokens) else Effect(Kind.READ)


def _do(_tokens: Tokens, _functions: frozenset[str]) -> Effect:
    return _dirty(Kind.SCHEMA, "DO", UNKNOWN)


def _call(_tokens: Tokens, _functions: frozenset[str]) -> Effect:
    return _dirty(Kind.WRITE, "CALL", UNKNOWN)


def _load(_tokens: Tokens, _functions: frozenset[str]) -> Effect:
    return _dirty(Kind.SESSION, "LOAD", LASTING)


_SPECIAL: Final[dict[str, Callable[[Tokens, frozenset[str]], Effect]]] = {
    "set": _set, "reset": _reset, "discard": _discard, "listen": _listen, "unlisten": _listen, "prepare": _prepare,
    "execute": _prepare, "deallocate": _prepare, "declare": _declare, "copy": _copy, "show": _show,
    "explain": _explain, "do": _do, "call": _call, "load": _load,
}  # fmt: skip


# --- the reset that is needed ----------------------------------------------------------------------------------------


class Action(enum.Enum):
    """
    What is done to a session before its next lease.
    """

    NONE = "none"
    EXACT = "exact"
    FULL = "full"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class Reset:
    """
    How a session becomes what it was at its start.

    Attributes:
        action: Nothing; `sql`; the driver's reset and then `sql`; or the connection is closed.
        sql: One text, for one round trip. It fails when something is left that it cannot take back.
        reason: What made it necessary, or None.
    """

    action: Action
    sql: str = ""
    reason: str | None = None


NO_RESET: Final = Reset(Action.NONE)

# Deallocating them by name would take a question and an answer; an error takes neither, and ends the connection.
_NO_STATEMENTS: Final = (
    "SELECT ('prepared statement left in the session: ' || name)::pg_catalog.int4 "
    "FROM pg_catalog.pg_prepared_statements WHERE from_sql"
)
# The role first: the others may need what it may. Then the settings: from there on search_path is the session's own.
_STEPS: Final = (
    (ROLE, "RESET SESSION AUTHORIZATION; RESET ROLE"),
    (SETTINGS, "RESET ALL"),
    (CURSOR, "CLOSE ALL"),
    (LISTEN, "UNLISTEN *"),
    (LOCKS, "SELECT pg_catalog.pg_advisory_unlock_all()"),
    (TEMP, "DISCARD TEMP"),
    (UNKNOWN, "DISCARD SEQUENCES"),
    (UNKNOWN, _NO_STATEMENTS),
)
FULL_RESET: Final = "; ".join(sql for _, sql in _STEPS)


def reset_for(dirties: Iterable[str], reason: str | None = None) -> Reset:
    """
    Decide what cleans a session that may hold all this.
    """
    words = frozenset(dirties)
    if not words:
        return NO_RESET
    if LASTING in words or PREPARED in words:
        return Reset(Action.CLOSE, reason=reason)
    if UNKNOWN in words or TRANSACTION in words:
        return Reset(Action.FULL, FULL_RESET, reason)
    return Reset(Action.EXACT, "; ".join(sql for word, sql in _STEPS if word in words), reason)
