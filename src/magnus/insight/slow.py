"""Reads slow_query_log for people: grouped by fingerprint, with a trend; of a table made by hand as far as it goes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from magnus import sql
from magnus.insight._errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from magnus.insight._source import Source

_LIMIT: Final = 30.0
_PARTS: Final = 12
SORTS: Final[Mapping[str, str]] = MappingProxyType({
    "total": "total_ms", "mean": "avg_ms", "max": "max_ms", "count": "occurrences", "recent": "last_at",
})  # fmt: skip
"""What groups can be sorted by, the largest first."""
_OPTIONAL: Final = {
    "fingerprint": ("fingerprint", "coalesce(l.fingerprint, md5(l.query))", "md5(l.query)"),
    "queryid": ("queryid", "l.queryid", "NULL::bigint"),
    "skipped": ("skipped", "l.skipped", "0"),
    "outcome": ("outcome", "coalesce(l.outcome, 'ok')", "'ok'"),
    "caller": ("caller", "l.caller", "NULL::text"),
    "route": ("route", "l.route", "NULL::text"),
}


@dataclass(frozen=True, slots=True)
class Group:
    """
    All slow statements of one fingerprint in an interval; times in milliseconds, as in the table.

    Attributes:
        logged: Rows.
        occurrences: The same, and what the log left out.
        failed: Those that did not end well.
        trend: Rows in each twelfth of the interval, the oldest first.
        caller: The line that ran most of them.
        route: The route that most of them were run for.
    """

    fingerprint: str
    query: str
    signature: str | None
    queryid: int | None
    logged: int
    occurrences: int
    avg_ms: float
    p95_ms: float
    max_ms: float
    total_ms: float
    failed: int
    last_at: datetime
    caller: str | None
    route: str | None
    trend: tuple[int, ...]

    def as_dict(self) -> dict[str, Any]:
        """
        Return it ready for JSON.
        """
        found = asdict(self)
        for name in ("avg_ms", "p95_ms", "max_ms", "total_ms"):
            found[name] = round(found[name], 3)
        return {
            **found,
            "queryid": None if self.queryid is None else str(self.queryid),
            "last_at": self.last_at.isoformat(),
            "trend": list(self.trend),
        }


async def groups(con: Source, *, since: float = 86_400.0, order: str = "total", limit: int = 20) -> list[Group]:
    """
    Return what was slow in the last `since` seconds, by fingerprint.

    Raises:
        Unavailable: there is no table, or this role may not read it.
    """
    table, columns = await _table(con)
    parts = {name: there if column in columns else instead for name, (column, there, instead) in _OPTIONAL.items()}
    text = sql.text("insight_slow_queries").format(table=table, order=SORTS[order], **parts)
    try:
        rows = await con.fetch(text, since, limit, _PARTS, timeout=_LIMIT)
    except asyncpg.InsufficientPrivilegeError:
        raise Unavailable(
            "not_permitted", "this role may not read slow_query_log", "GRANT SELECT ON slow_query_log TO this role"
        ) from None
    return [_group(dict(row)) for row in rows]


def _group(row: dict[str, Any]) -> Group:
    trend = tuple(row.pop("trend") or ())
    return Group(**row, trend=trend)


async def _table(con: Source) -> tuple[str, frozenset[str]]:
    rows = await con.fetch(sql.text("slow_query_log_columns"), timeout=_LIMIT)
    if not rows:
        raise Unavailable(
            "no_table",
            "there is no table slow_query_log in this database's search_path",
            "magnus slow install makes it, and so does a service at its first slow statement",
        )
    schema = rows[0]["schema"].replace('"', '""')
    return f'"{schema}".slow_query_log', frozenset(row["name"] for row in rows)


async def plan(con: Source, fingerprint: str) -> Any | None:
    """
    Return the kept plan of a fingerprint as EXPLAIN's JSON text, None when there is none.
    """
    table, _ = await _table(con)
    name = table.removesuffix("slow_query_log") + "slow_query_plan"
    try:
        return await con.fetchval(f"SELECT plan FROM {name} WHERE fingerprint = $1", fingerprint, timeout=_LIMIT)  # noqa: S608
    except (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError):
        return None
