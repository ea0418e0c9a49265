"""Reads what the checks judge, in one read-only snapshot with limits of its own; it gives no advice.

Safe beside production: catalogues and statistics only, AccessShare at most (no function that locks what it measures),
nothing that waits longer than 100 ms for a lock or 2 s in all. A part that cannot be read is `Missing` with the reason;
the rest goes on. Locks on sequences are given back as soon as their values are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import asyncpg

from magnus import sql
from magnus.tuning.checks import Missing, Snapshot, to_describe
from magnus.tuning.quoting import identifier

if TYPE_CHECKING:
    from collections.abc import Sequence

    from magnus.tuning.checks import Row

    Connection = asyncpg.Connection[asyncpg.Record]

PLAIN: Final = (
    "database_age", "settings", "file_settings", "role_settings", "databases", "activity", "blocked", "prepared",
    "slots", "standbys", "archiver", "checkpoints", "extensions", "index_builds", "roles", "passwords", "open_schemas",
    "slow_log",
)  # fmt: skip
PAGED: Final = ("tables", "indexes", "foreign_keys", "sequences", "integer_keys")
MEASURED: Final = ("table_widths", "index_widths")

STATEMENT_TIMEOUT: Final = 2.0
LOCK_TIMEOUT: Final = 0.1
SMALLEST_MEASURED: Final = 100 * 1024**2
_PAGE: Final = 2500
_BATCH: Final = 200
_MOST_DEFINITIONS: Final = 200
_MOST_REFUSED: Final = 5
# Nothing on the search path but the catalogue: a user's own operator of the same name is never called.
_LIMITS: Final = (
    f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT * 1000:.0f}",
    f"SET LOCAL lock_timeout = {LOCK_TIMEOUT * 1000:.0f}",
    "SET LOCAL search_path = pg_catalog",
    "SET LOCAL jit = off",
    "SET LOCAL max_parallel_workers_per_gather = 0",
)


async def read(con: Connection) -> Snapshot:
    """
    Read everything that the checks look at, in one transaction.

    Raises:
        asyncpg.PostgresError: the session ended, or not even the server's own row could be read.
    """
    async with con.transaction(isolation="repeatable_read", readonly=True):
        for limit in _LIMITS:
            await con.execute(limit)
        return await _Reader(con).read()


def text_of(part: str, major: int) -> str:
    """
    Return the query of a part for a major version of the server.
    """
    return sql.for_version(f"check/{part}", major)


class _Reader:
    """
    Fills the parts one after the other, each in a savepoint of its own.
    """

    def __init__(self, con: Connection) -> None:
        self._con = con
        self._major = 0
        self._role = ""
        self._parts: dict[str, tuple[Row, ...] | Missing] = {}

    async def read(self) -> Snapshot:
        server = await self._con.fetchrow(sql.text("check/server"))
        assert server is not None
        self._parts["server"] = (dict(server),)
        self._major, self._role = server["version_num"] // 10_000, server["role"]
        for part in PLAIN:
            self._parts[part] = await self._fetch(part)
        for part in PAGED:
            self._parts[part] = await self._pages(part)
        for part in MEASURED:
            self._parts[part] = await self._fetch(part, SMALLEST_MEASURED)
        await self._statements()
        self._parts["sequence_values"] = await self._sequence_values()
        self._parts["definitions"] = await self._definitions()
        return Snapshot(self._parts)

    async def _fetch(self, part: str, *arguments: object, schema: str = "") -> tuple[Row, ...] | Missing:
        text = text_of(part, self._major)
        if schema:
            text = text.replace("{schema}", identifier(schema))
        try:
            async with self._con.transaction():
                return tuple(dict(row) for row in await self._con.fetch(text, *arguments))
        except asyncpg.PostgresError as error:
            if self._con.is_closed():
                raise
            return Missing(why(error, part, self._role))

    async def _pages(self, part: str) -> tuple[Row, ...] | Missing:
        """
        Read a part a page at a time, so that no statement comes near its limit, however large the schema is.
        """
        rows: list[Row] = []
        after = 0
        while True:
            page = await self._fetch(part, after, _PAGE)
            if isinstance(page, Missing):
                return page
            rows += page
            if len(page) < _PAGE:
                return tuple(rows)
            after = page[-1]["oid"]

    async def _statements(self) -> None:
        """
        Read pg_stat_statements where its extension is.
        """
        names = ("statements_info", "statements_temp")
        self._parts |= dict.fromkeys(names, Missing("pg_stat_statements is not in this database"))
        extensions = self._parts["extensions"]
        if isinstance(extensions, Missing):
            return
        for row in extensions:
            if row["name"] == "pg_stat_statements" and row["schema"] is not None:
                for name in names:
                    self._parts[name] = await self._fetch(name, schema=row["schema"])

    async def _sequence_values(self) -> tuple[Row, ...] | Missing:
        """
        Read the sequences that this role may read, some at a time, and give their locks back after each: thousands of
        locks at once could exhaust the lock table for everybody.
        """
        sequences = self._parts["sequences"]
        if isinstance(sequences, Missing):
            return sequences
        readable = [row for row in sequences if row["is_readable"]]
        values: list[Row] = []
        for start in range(0, len(readable), _BATCH):
            values += await self._values_of(readable[start : start + _BATCH])
        return tuple(values)

    async def _definitions(self) -> tuple[Row, ...]:
        """
        Read how the indexes that may be dropped could be made again. For those with expressions the server locks their
        table for reading: when one of them is locked by somebody else, each is asked alone, and that one stays unread.
        """
        wanted = to_describe(Snapshot(self._parts))[:_MOST_DEFINITIONS]
        found = await self._fetch("definitions", list(wanted))
        if not isinstance(found, Missing):
            return tuple(row for row in found if row["definition"])
        rows: list[Row] = []
        refused = 0
        for oid in wanted:
            found = await self._fetch("definitions", [oid])
            if isinstance(found, Missing):
                refused += 1
            else:
                rows += [row for row in found if row["definition"]]
            if refused == _MOST_REFUSED:
                break  # each one that is locked costs its whole time-out
        return tuple(rows)

    async def _values_of(self, sequences: Sequence[Row]) -> list[Row]:
        text = " UNION ALL ".join(
            f"SELECT {int(row['oid'])}::int8 AS oid, last_value, is_called "  # noqa: S608  # quoted names only
            f"FROM {identifier(row['schema'])}.{identifier(row['name'])}"
            for row in sequences
        )
        transaction = self._con.transaction()
        await transaction.start()
        try:
            return [dict(row) for row in await self._con.fetch(text)]
        except asyncpg.PostgresError:
            if self._con.is_closed():
                raise
            # One of them is locked or was dropped; those of this batch count as not examined.
            return []
        finally:
            if not self._con.is_closed():
                await transaction.rollback()


def why(error: asyncpg.PostgresError, part: str, role: str) -> str:
    """
    Say why a part could not be read, and what would show it.
    """
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return f"{_GRANTS.get(part, f'{part} may not be read by')} {role}".replace("{role}", identifier(role))
    if isinstance(error, asyncpg.LockNotAvailableError):
        return f"{part} was locked by another session for longer than {LOCK_TIMEOUT * 1000:.0f} ms; try again later"
    if isinstance(error, asyncpg.QueryCanceledError):
        return f"{part} was not read within {STATEMENT_TIMEOUT:g} s; try again when the server is less busy"
    if isinstance(error, asyncpg.ObjectNotInPrerequisiteStateError):
        return "pg_stat_statements is not in shared_preload_libraries"
    if isinstance(error, asyncpg.UndefinedTableError) and part.startswith("statements"):
        return "the extension is too old: ALTER EXTENSION pg_stat_statements UPDATE"
    return f"{part} could not be read (SQLSTATE {error.sqlstate})"


_GRANTS: Final = {
    "file_settings": "the configuration files are not shown: GRANT SELECT ON pg_file_settings TO {role}; "
    "GRANT EXECUTE ON FUNCTION pg_show_all_file_settings() TO {role}; asked as",
    "passwords": "only a superuser sees how passwords are stored; asked as",
}
