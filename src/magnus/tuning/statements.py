"""Reads the counters of pg_stat_statements, whatever version of the extension a database has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import asyncpg

from magnus.tuning import quoting
from magnus.tuning.effect import Counter, Snapshot

if TYPE_CHECKING:
    from magnus.tuning.session import Connection

_MOST: Final = 1000
_PLACE: Final = """
SELECT n.nspname, array_agg(a.attname::text) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'pg_stat_statements'
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 WHERE e.extname = 'pg_stat_statements' GROUP BY 1
"""


async def snapshot(con: Connection) -> Snapshot | None:
    """
    Read the counters of the session's database, those with the most time first; None when there are none to read.

    The columns follow the extension's version, not the server's (a server may have been upgraded under it).
    """
    place = await con.fetchrow(_PLACE)
    if place is None:
        return None
    schema, columns = quoting.identifier(place[0]), frozenset(place[1])
    level = "toplevel" if "toplevel" in columns else "true"
    since = "stats_since::text" if "stats_since" in columns else "''"
    sql = f"""
        SELECT concat_ws('/', userid, dbid, {level}, queryid) AS key, calls, total_exec_time AS total,
               calls * (stddev_exec_time ^ 2 + mean_exec_time ^ 2) AS squares, left(query, 120) AS query,
               {since} AS since
        FROM {schema}.pg_stat_statements
        WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND queryid IS NOT NULL
        ORDER BY total_exec_time DESC LIMIT {_MOST}
    """  # noqa: S608 - a quoted name and our own words
    try:
        rows = await con.fetch(sql)
        reset = await con.fetchval(f"SELECT stats_reset::text FROM {schema}.pg_stat_statements_info")  # noqa: S608
    except (asyncpg.ObjectNotInPrerequisiteStateError, asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedTableError):
        return None  # not preloaded (yet), or not for this role
    return Snapshot(reset or "", tuple(Counter(*row) for row in rows))
