"""Reads pg_stat_statements, whatever version of the extension is there; resets nothing, and writes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from magnus import sql
from magnus._normalise import normalised
from magnus.insight._counters import Snapshot, Statement, ranked, seconds_of
from magnus.insight._errors import Unavailable
from magnus.insight._reading import NEEDED, entry_of, query_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from magnus.insight._counters import Delta, Key
    from magnus.insight._source import Source

_LIMIT: Final = 10.0
_SPARE: Final = 50
_LIBRARY: Final = "pg_stat_statements"
_OWN: Final = (
    "typeinfo_tree", "has_type_privilege", "proargdefaults", "pg_stat_statements", "pg_blocking_pids", "magnus_plan_",
    "slow_query_log", "slow_query_plan", "magnus_column", "magnus_replay",
    "AS has_info",
)  # fmt: skip
"""Words in the texts of the driver's and the layer's own statements."""
_HIDDEN_TEXT: Final = "<evicted meanwhile>"
_OF_OTHERS: Final = "what other roles ran is not shown: GRANT pg_read_all_stats TO {}"


@dataclass(frozen=True, slots=True)
class Extension:
    """
    pg_stat_statements as it is in one database.

    Attributes:
        schema: Where it was created.
        version: Its own, which an upgrade of the server leaves behind.
        columns: Of its view.
        has_info: Whether it tells of resets and evictions.
        sees_all: Whether this role may see what others ran.
        role: This role.
        started_at: When the server was started.
    """

    schema: str
    version: str
    columns: frozenset[str]
    has_info: bool
    sees_all: bool
    role: str
    started_at: datetime

    @property
    def prefix(self) -> str:
        return '"' + self.schema.replace('"', '""') + '".pg_stat_statements'

    @property
    def notes(self) -> tuple[str, ...]:
        return () if self.sees_all else (_OF_OTHERS.format(self.role),)


async def extension(con: Source) -> Extension:
    """
    Find the extension in the database that `con` is connected to.

    Raises:
        Unavailable: it cannot be read; the advice says what to run.
    """
    row = await con.fetchrow(sql.text("insight_extension"), timeout=_LIMIT)
    assert row is not None
    preloaded: str | None = row["preloaded"]
    is_preloaded = preloaded is None or _LIBRARY in [name.strip(' "') for name in preloaded.split(",")]
    if not is_preloaded:
        raise _not_preloaded(preloaded or "", is_created=row["version"] is not None)
    if row["version"] is None:
        raise Unavailable(
            "not_created",
            "the extension pg_stat_statements is not created in this database",
            "CREATE EXTENSION pg_stat_statements;  -- or: magnus apply, with a plan --only quick-win-1",
        )
    if not frozenset(row["columns"]) >= NEEDED:
        raise Unavailable(
            "not_created",
            f"pg_stat_statements {row['version']} is too old to be read",
            "ALTER EXTENSION pg_stat_statements UPDATE;",
        )
    return Extension(
        row["schema"], row["version"], frozenset(row["columns"]), row["has_info"], row["sees_all"], row["role"],
        row["started_at"],
    )  # fmt: skip


def _not_preloaded(preloaded: str, *, is_created: bool) -> Unavailable:
    merged = ", ".join([*filter(None, (name.strip() for name in preloaded.split(","))), _LIBRARY])
    create = "" if is_created else "; then CREATE EXTENSION pg_stat_statements;"
    return Unavailable(
        "not_preloaded",
        "the library pg_stat_statements is not preloaded by this server",
        f"ALTER SYSTEM SET shared_preload_libraries = {merged}; restart PostgreSQL{create}"
        "  -- or: magnus apply, with a plan --only quick-win-1",
    )


async def snapshot(con: Source, found: Extension | None = None) -> Snapshot:
    """
    Read all counters, without texts, so that it may be done often.

    Raises:
        Unavailable: they cannot be read.
    """
    found = found or await extension(con)
    info = (
        f"dealloc, stats_reset FROM {found.prefix}_info" if found.has_info else "NULL AS dealloc, NULL AS stats_reset"
    )
    try:
        head = await con.fetchrow(f"SELECT pg_catalog.clock_timestamp() AS pg_stat_statements, {info}", timeout=_LIMIT)
        rows = await con.fetch(query_of(found.columns, found.prefix), timeout=_LIMIT)
    except asyncpg.ObjectNotInPrerequisiteStateError:
        raise _not_preloaded("", is_created=True) from None
    except asyncpg.InsufficientPrivilegeError:
        raise Unavailable(
            "not_permitted",
            "this role may not read pg_stat_statements",
            f"GRANT pg_read_all_stats TO {found.role};",
        ) from None
    assert head is not None
    now, deallocated, reset_at = head
    entries = MappingProxyType(dict(entry_of(row) for row in rows))
    return Snapshot(now, found.started_at, reset_at, deallocated, found.version, entries)


async def statements(
    con: Source, found: Extension, delta: Delta, *, order: str = "total", limit: int = 20
) -> list[Statement]:
    """
    Return the first `limit` statements of an interval in an order of `ORDERS`, with their texts.

    What the driver and this layer ask the server on their own account is left out.
    """
    first = ranked(delta.counted, order)[: limit + _SPARE]
    texts = await _texts(con, found, (key for key, _ in first))
    whole = seconds_of(delta)
    listed = []
    for key, counters in first:
        database, role, query = texts.get(key[:3], (None, None, _HIDDEN_TEXT))
        if is_own(query):
            continue
        share = counters.seconds / whole if whole else 0.0
        text = query if query == _HIDDEN_TEXT else normalised(query).text
        listed.append(Statement(key.queryid, database or "", role or "", text, share, counters, key.toplevel))
    return listed[:limit]


def is_own(query: str) -> bool:
    """
    Say whether a statement is one that the driver or this layer sends on its own account.
    """
    return any(word in query for word in _OWN)


async def _texts(
    con: Source, found: Extension, keys: Iterable[Key]
) -> Mapping[tuple[int, int, int], tuple[str | None, str | None, str]]:
    rows: list[Any] = await con.fetch(
        f"SELECT s.userid, s.dbid, s.queryid, s.query, d.datname::text AS database, r.rolname::text AS role "  # noqa: S608
        f"FROM {found.prefix}(true) AS s LEFT JOIN pg_catalog.pg_database d ON d.oid = s.dbid "
        f"LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.userid WHERE s.queryid = ANY ($1::bigint[])",
        [key.queryid for key in keys],
        timeout=_LIMIT,
    )
    return {
        (int(row["userid"]), int(row["dbid"]), int(row["queryid"])): (row["database"], row["role"], row["query"] or "")
        for row in rows
    }
