"""Asks the server for its slowest statements and for their plans, and HypoPG for plans with indexes that do not exist.

A statement is planned, never run: prepared, explained with a generic plan, and forgotten, in a read-only transaction
with limits of its own. Its locks (AccessShare; RowExclusive for an UPDATE or DELETE) are given back at once.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from magnus import sql
from magnus.tuning import indexing
from magnus.tuning.checks import Missing, Snapshot, by_table
from magnus.tuning.indexing import Proposal, Statement
from magnus.tuning.quoting import identifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from magnus.tuning.checks import Row
    from magnus.tuning.indexing import Key, Scan

    Connection = asyncpg.Connection[asyncpg.Record]

_LIMITS: Final = (
    "SET LOCAL statement_timeout = 2000",
    "SET LOCAL lock_timeout = 100",
    "SET LOCAL plan_cache_mode = force_generic_plan",
)
_SUMMED: Final = ("tuples", "inserted", "updated", "deleted")
_COLUMNS: Final = """
SELECT attname::text, attnum::int4 FROM pg_catalog.pg_attribute
 WHERE attrelid = $1::int8::oid AND attnum > 0 AND NOT attisdropped
"""


@dataclass(frozen=True, slots=True)
class Advice:
    """
    What came of the statements.

    Attributes:
        examined: Statements that could be planned, of `of`.
        declined: Statement -> why its scan of a table asks for no index.
        missing: Why there are no statements to look at.
    """

    proposals: tuple[Proposal, ...] = ()
    examined: int = 0
    of: int = 0
    declined: tuple[tuple[Statement, str, str], ...] = ()
    missing: str = ""
    has_hypopg: bool = False


async def advise(con: Connection, seen: Snapshot, *, most: int) -> Advice:
    """
    Look for the indexes that the `most` slowest statements miss.

    Raises:
        asyncpg.PostgresError: the session ended.
    """
    schemas = _schemas(seen)
    if "pg_stat_statements" not in schemas:
        return Advice(missing="pg_stat_statements is not in this database: magnus plan --only quick-win-1")
    async with con.transaction(isolation="repeatable_read", readonly=True):
        for limit in _LIMITS:
            await con.execute(limit)
        adviser = _Adviser(con, seen, schemas.get("hypopg"))
        try:
            statements, hidden = await adviser.statements(schemas["pg_stat_statements"], most)
        except asyncpg.ObjectNotInPrerequisiteStateError:
            return Advice(
                missing="pg_stat_statements is not in shared_preload_libraries: magnus plan --only quick-win-1"
            )
        found = await adviser.advice(statements)
    return replace(found, missing=f"texts of other roles are hidden: {seen.grant()}" if hidden else "")


def _schemas(seen: Snapshot) -> dict[str, str]:
    rows = seen.parts.get("extensions", ())
    return (
        {} if isinstance(rows, Missing) else {row["name"]: row["schema"] for row in rows if row["schema"] is not None}
    )


class _Adviser:
    def __init__(self, con: Connection, seen: Snapshot, hypopg: str | None) -> None:
        self._con = con
        self._tables = {(row["schema"], row["name"]): row for row in seen.rows("tables")}
        self._indexes = by_table(seen.rows("indexes"))
        self._hypopg = hypopg
        self._columns: dict[int, dict[str, int]] = {}

    async def statements(self, schema: str, most: int) -> tuple[list[Statement], bool]:
        text = sql.text("check/statements_slow").replace("{schema}", identifier(schema))
        async with self._con.transaction():
            rows = await self._con.fetch(text, most)
        shown = [row for row in rows if row["queryid"] is not None]
        found = [Statement(row["queryid"], row["calls"], row["total_s"], row["text"]) for row in shown]
        return found, len(shown) < len(rows)

    async def advice(self, statements: Sequence[Statement]) -> Advice:
        proposals: list[Proposal] = []
        declined: list[tuple[Statement, str, str]] = []
        examined = 0
        for statement in statements:
            plan = await self._plan(statement, ())
            if plan is None:
                continue
            examined += 1
            for scan in indexing.scans(plan):
                proposal, why = await self._judge(statement, scan, plan)
                if proposal is not None:
                    proposals.append(proposal)
                elif why != indexing.CATALOGUE:
                    declined.append((statement, f"{scan.schema}.{scan.table}", why))
        has_hypopg = self._hypopg is not None
        return Advice(
            tuple(indexing.merged(proposals)), examined, len(statements), tuple(declined), has_hypopg=has_hypopg
        )

    async def _judge(self, statement: Statement, scan: Scan, plan: Mapping[str, Any]) -> tuple[Proposal | None, str]:
        table = self._tables.get((scan.schema, scan.table))
        if table is not None and table["is_partition"]:
            table = await self._root(table)
        indexes = [] if table is None else self._indexes[table["oid"]]
        columns = {} if table is None else await self._columns_of(table)
        why = indexing.why_not(scan, table, indexes, columns)
        if why or table is None:
            return None, why
        leaves = await self._leaves(table)
        proposal = Proposal(table, scan.keys, (statement,), scan.rows, leaves=leaves)
        if self._hypopg is None or leaves:
            return proposal, ""
        with_it = await self._plan(statement, scan.keys, table)
        before = plan["Plan"]["Total Cost"]
        after = before if with_it is None else with_it["Plan"]["Total Cost"]
        if after > before * (1 - indexing.WORTH):
            return None, f"with an index the planner's cost would be {after:,.0f} instead of {before:,.0f}"
        return replace(proposal, costs=(before, after)), ""

    async def _root(self, table: Row) -> Row:
        """
        Return the table that a partition belongs to, at the top.
        """
        text = "SELECT pg_catalog.pg_partition_root($1::int8::oid::regclass)::oid::int8"
        oid = await self._con.fetchval(text, table["oid"])
        rows = [row for row in self._tables.values() if row["oid"] == oid]
        leaves = [self._tables[name] for name in await self._leaves(rows[0]) if name in self._tables]
        sums = {name: sum(max(row[name] or 0, 0) for row in leaves) for name in _SUMMED}
        return {**rows[0], **sums}

    async def _leaves(self, table: Row) -> tuple[tuple[str, str], ...]:
        if table["kind"] != "p":
            return ()
        rows = await self._con.fetch(sql.text("check/partitions"), table["oid"])
        return tuple((row["schema"], row["name"]) for row in rows)

    async def _columns_of(self, table: Row) -> dict[str, int]:
        oid = table["oid"]
        if oid not in self._columns:
            self._columns[oid] = {row[0]: row[1] for row in await self._con.fetch(_COLUMNS, oid)}
        return self._columns[oid]

    async def _plan(self, statement: Statement, keys: Sequence[Key], table: Row | None = None) -> dict[str, Any] | None:
        """
        Return the generic plan of a statement, with an index on `keys` that does not exist; None when it has none.
        """
        arguments = f"({', '.join(['NULL'] * statement.parameters)})" if statement.parameters else ""
        transaction = self._con.transaction()
        await transaction.start()
        try:
            await self._con.execute(f"PREPARE magnus_advice AS {statement.text}")
            async with self._imagined(keys, table):
                text = await self._con.fetchval(f"EXPLAIN (VERBOSE, FORMAT JSON) EXECUTE magnus_advice{arguments}")
            found: list[dict[str, Any]] = json.loads(text)
        except (asyncpg.PostgresError, asyncpg.InterfaceError):
            if self._con.is_closed():
                raise
            return None  # of another search path, of temporary tables, or cut off: it counts as not examined
        else:
            return found[0]
        finally:
            if not self._con.is_closed():
                await transaction.rollback()
                with contextlib.suppress(asyncpg.InvalidSQLStatementNameError):
                    async with self._con.transaction():
                        await self._con.execute("DEALLOCATE magnus_advice")

    @contextlib.asynccontextmanager
    async def _imagined(self, keys: Sequence[Key], table: Row | None) -> AsyncIterator[None]:
        if not keys or table is None or self._hypopg is None:
            yield
            return
        schema = identifier(self._hypopg)
        on = f"{identifier(table['schema'])}.{identifier(table['name'])}"
        index = f"CREATE INDEX ON {on} ({', '.join(map(str, keys))})"
        await self._con.fetch(f"SELECT * FROM {schema}.hypopg_create_index($1)", index)  # noqa: S608  # a quoted name
        try:
            yield
        finally:
            await self._con.fetch(f"SELECT {schema}.hypopg_reset()")
