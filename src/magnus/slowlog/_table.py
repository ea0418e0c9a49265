"""The log's table through its own connection: found or made, written by COPY, kept within its limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from magnus import _driver, sql
from magnus._beside import Turn, open_beside
from magnus.errors import ConnectError
from magnus.slowlog._rows import COLUMNS, writable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from magnus._driver import Connect, Connection
    from magnus.config import DatabaseConfig
    from magnus.slowlog._plans import Plan

_LIMIT: Final = 5.0
_CLOSE_LIMIT: Final = 1.0
_PRUNED: Final = 10_000
_LIGHT: Final = "SET LOCAL synchronous_commit = off; SET LOCAL lock_timeout = '2s'"
_ALONE: Final = "SELECT pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtext('magnus.slow_query_log.retention'))"
_PLAN: Final = """
INSERT INTO {schema}.slow_query_plan (fingerprint, queryid, query, plan, cost) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (fingerprint) DO UPDATE
   SET queryid = excluded.queryid, query = excluded.query, plan = excluded.plan, cost = excluded.cost,
       planned_at = pg_catalog.now()
"""


class Unusable(Exception):
    """
    The table cannot be used for a reason that waiting does not heal; `reason` is a word of `SlowLogEventsOnly`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Place:
    schema: str
    columns: tuple[str, ...]


class Table:
    """
    Opens its connection when it is needed, and when it is its `turn`, which it keeps as long as the connection. After
    an error the connection is gone, and the next use opens another.
    """

    def __init__(
        self,
        config: DatabaseConfig,
        *,
        connect: Connect = _driver.driver_connect,
        turn: Turn | None = None,
        asked: Callable[[], None] | None = None,
    ) -> None:
        """
        `asked` is called when somebody waits for the turn while the connection is open; `yield_turn` closes it then.
        """
        self._turn = turn or Turn()
        self._asked = asked
        self._has_turn = False
        self._config = config
        self._connect = connect
        self._con: Connection | None = None
        self._has_plans = False
        self._place: _Place | None = None

    @property
    def is_open(self) -> bool:
        return self._con is not None

    async def yield_turn(self) -> None:
        """
        Close the connection when somebody waits for the turn.
        """
        if self._has_turn and self._turn.is_wanted:
            await self.close()

    @property
    def columns(self) -> tuple[str, ...]:
        """
        The columns that `write` takes, known after `ready`.
        """
        assert self._place is not None
        return self._place.columns

    async def ready(self) -> Connection:
        """
        Return the connection, with the table found, made or brought up to date.

        Raises:
            Unusable: the table cannot be had.
            Exception: whatever the driver or the connect raises.
        """
        if self._con is not None and self._con.is_closed():
            self.drop()
        con = self._con if self._con is not None else await self._open()
        if self._place is None:
            self._place = await self._find(con)
        return con

    async def write(self, records: Sequence[tuple[Any, ...]]) -> None:
        """
        Append records, all or none.

        Raises:
            Unusable, Exception: as `ready`.
        """
        con = await self.ready()
        place = self._place
        assert place is not None
        async with con.transaction():
            await con.execute(_LIGHT, timeout=_LIMIT)
            await con.copy_records_to_table(
                "slow_query_log", schema_name=place.schema, columns=place.columns, records=records, timeout=_LIMIT
            )

    async def keep_plan(self, fingerprint: str, query: str, plan: Plan, document: str) -> None:
        """
        Keep the plan of a fingerprint, in place of an older one.
        """
        con, place = self._con, self._place
        assert con is not None
        assert place is not None
        text = _PLAN.format(schema=_quoted(place.schema))
        await con.execute(text, fingerprint, plan.queryid, query, document, plan.cost, timeout=_LIMIT)
        self._has_plans = True

    async def prune(self, days: float, rows: int) -> None:
        """
        Delete what is too old or too much, in steps; 0 is no limit. One process at a time.
        """
        if not days and not rows:
            return
        con = await self.ready()
        is_more = True
        while is_more:
            async with con.transaction():
                await con.execute(_LIGHT, timeout=_LIMIT)
                if not await con.fetchval(_ALONE, timeout=_LIMIT):
                    return
                text = sql.text("slow_query_log_retention")
                done = await con.execute(text, days or None, rows or None, _PRUNED, timeout=4 * _LIMIT)
                is_more = done.rpartition(" ")[2] == str(_PRUNED)
                if not is_more and days and self._has_plans:
                    await con.execute(sql.text("slow_query_plan_retention"), days, timeout=4 * _LIMIT)

    async def close(self) -> None:
        con, self._con = self._con, None
        if con is not None:
            try:
                await con.close(timeout=_CLOSE_LIMIT)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                con.terminate()  # it was to be gone, and is
            finally:
                self._give_turn()

    def drop(self) -> None:
        """
        Give the connection up, and what was known of the table.
        """
        con, self._con, self._place = self._con, None, None
        if con is not None:
            con.terminate()
        self._give_turn()

    def forget(self) -> None:
        """
        Let go of the connection in a child process, where it is the parent's.
        """
        con, self._con, self._place = self._con, None, None
        self._has_turn = False
        self._turn.reset()
        if con is not None:
            _driver.disown(con)

    async def _open(self) -> Connection:
        await self._turn.take(self._asked)
        self._has_turn = True
        try:
            self._con = con = await open_beside(self._config, self._connect, "slow log")
        except BaseException:
            self._give_turn()
            raise
        return con

    def _give_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self._turn.give()

    async def _find(self, con: Connection) -> _Place:
        place = await self._look(con)
        is_whole = place is not None and len(place.columns) == len(COLUMNS)
        if not is_whole and self._config.slow_log_create:
            try:
                await con.execute(sql.text("slow_query_log"), timeout=_LIMIT)
            except asyncpg.InsufficientPrivilegeError:
                if place is None:
                    raise Unusable("no_permission") from None
            except asyncpg.ReadOnlySQLTransactionError:
                raise Unusable("read_only") from None
            except asyncpg.PostgresError:
                if place is None or not place.columns:
                    raise  # else what is there can be used as it is
            else:
                place = await self._look(con)
        if place is None or not place.columns:
            raise Unusable("no_table")
        return place

    async def _look(self, con: Connection) -> _Place | None:
        found = await con.fetch(sql.text("slow_query_log_columns"), timeout=_LIMIT)
        if not found:
            return None
        return _Place(found[0]["schema"], writable({row["name"]: row["type"] for row in found}))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


# --- what an error means ---------------------------------------------------------------------------------------------

_PASSING: Final = ("08", "53", "55", "57", "58", "40", "XX", "25P")
_MOVED: Final = frozenset({"42P01", "42703", "3F000"})


def reason_of(error: Exception) -> str | None:
    """
    Return why the table cannot be used, a word of `SlowLogEventsOnly`; None when something else is wrong.
    """
    if isinstance(error, Unusable):
        return error.reason
    sqlstate = getattr(error, "sqlstate", None)
    return {"42501": "no_permission", "25006": "read_only"}.get(sqlstate or "")


def is_passing(error: Exception) -> bool:
    """
    Say whether the same rows may be written later: the server is away, full or busy, or the table was moved.
    """
    if isinstance(error, ConnectError | OSError):
        return True
    if isinstance(error, asyncpg.InterfaceError):
        return not isinstance(error, ValueError)  # a value that cannot be encoded never can
    sqlstate = getattr(error, "sqlstate", None) or ""
    return sqlstate.startswith(_PASSING) or sqlstate in _MOVED
