"""Statements that a connection prepares and plans before it is handed out: configured, or learned from the server.

It decides nothing about connections; what cannot be prepared is counted and left out.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import asyncpg

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_CALLED: Final = """
SELECT s.query FROM %s.pg_stat_statements s
 WHERE s.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
   AND s.userid = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user)
   AND s.toplevel AND pg_catalog.strpos(s.query, '$1') > 0
   AND s.query !~ 'pg_catalog|pg_stat_|magnus_once|slow_query_log'
   AND s.query ~* '^(\\s|--[^\\n]*\\n)*(select|insert|update|delete|with|merge)\\M'
 GROUP BY s.query ORDER BY sum(s.calls) DESC LIMIT $1
"""
_HOME: Final = """
SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e
  JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_stat_statements'
"""
_HAS_GENERIC_PLAN: Final = 16
_LIMIT: Final = 1.0
"""Seconds for one statement: it takes so long only when it waits for a lock."""


class HotStatements:
    """
    What all connections of one pool prepare.

    Attributes:
        texts: Word for word as they are sent.
        learn: How many more to take from pg_stat_statements, asked once, by the first connection.
        prepared: How many were prepared, on all connections.
        refused: Those that could not be, with the name of the last error.
    """

    def __init__(self) -> None:
        self.texts: tuple[str, ...] = ()
        self.learn = 0
        self.prepared = 0
        self.refused: dict[str, str] = {}
        self._learning = asyncio.Lock()

    async def prepare_on(self, con: Any) -> None:
        """
        Prepare everything on a new connection. What the server refuses is left out; one that waits for a lock ends it:
        a connection without is better than none. A statement of another kind must follow, which ends the transaction
        that the driver leaves open.

        Raises:
            Exception: the connection was lost; the driver's own.
        """
        if self.learn:
            async with self._learning:
                if self.learn:
                    self.texts = tuple(dict.fromkeys((*self.texts, *await _most_called(con, self.learn))))
                    self.learn = 0
        if not hasattr(con, "prepare_cached"):
            return
        for text in self.texts:
            try:
                await con.prepare_cached(text, _LIMIT)
                await _plan(con, text)
            except (asyncpg.PostgresError, TimeoutError) as error:
                if con.is_closed():
                    raise
                self.refused[text] = type(error).__name__
                if isinstance(error, TimeoutError):
                    return
            else:
                self.prepared += 1
                self.refused.pop(text, None)

    def figures(self, cons: Sequence[Any], size: int) -> dict[str, Any]:
        """
        Return what there is to say, ready for JSON; of caches that keep `size` statements on these connections.
        """
        largest = max((len(getattr(con, "_stmt_cache", ())) for con in cons), default=0)
        return {
            "hot": len(self.texts),
            "prepared": self.prepared,
            "refused": sorted(set(self.refused.values())),
            "cache_size": size,
            "largest_cache": largest,
            "is_full": bool(size) and largest >= size,
        }


async def _plan(con: Any, text: str) -> None:
    """
    Let the server plan a statement without running it: the first plan in a session reads the catalogue, which takes
    longer than most statements. Before version 16 nothing plans a statement whose arguments are not known.
    """
    if con.get_server_version().major >= _HAS_GENERIC_PLAN:
        with suppress(asyncpg.PostgresSyntaxError):  # it can be prepared and has no plan: CALL, for one
            await con.execute(f"EXPLAIN (GENERIC_PLAN) {text}", timeout=_LIMIT)


async def _most_called(con: Any, count: int) -> list[str]:
    """
    Return the texts of the statements that this role sent most often; none where nobody counts.
    """
    try:
        home = await con.fetchval(_HOME)
        rows = [] if home is None else await con.fetch(_MOST_CALLED % home, count)
    except asyncpg.PostgresError:
        if con.is_closed():
            raise
        return []
    return [row["query"] for row in rows]
