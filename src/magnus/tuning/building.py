"""Makes and drops indexes beside a working service: CONCURRENTLY, sure of the result, without leaving half of one.

A build waits for every transaction that is older, however long, because a lock time-out would cut it and leave an
invalid index; nobody waits for the build meanwhile. What it waits for, and how far it is, is told.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from magnus.errors import ConnectError, TuningError
from magnus.tuning import index_change, quoting
from magnus.tuning.payoff import Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from magnus.tuning.change import Change
    from magnus.tuning.session import Connection, Session

_TICK: Final = 1.0
_TRIES: Final = 5
_STEP: Final = 10  # percent
_STATE: Final = "SELECT indisvalid AND indisready FROM pg_index WHERE indexrelid = to_regclass($1)"
_PROGRESS: Final = """
SELECT p.phase, 100 * p.blocks_done / nullif(p.blocks_total, 0) AS blocks,
       100 * p.tuples_done / nullif(p.tuples_total, 0) AS tuples,
       (SELECT string_agg(format('process %s (%s, %s)', a.pid, coalesce(nullif(a.application_name, ''), a.usename, '?'),
                                 coalesce(a.state, '?')), ', ')
          FROM pg_stat_activity a WHERE a.pid = ANY (pg_blocking_pids($1))) AS blockers
FROM (SELECT $1::int AS pid) x LEFT JOIN pg_stat_progress_create_index p USING (pid)
"""


class NotBuilt(TuningError):
    """
    An index could not be made, or was not valid when it was; nothing of it is left unless the text says so.
    """


async def image(con: Connection, change: Change) -> dict[str, Any]:
    """
    Read what is there before a change is made: of what it makes, what is not there (an invalid one of ours counts as
    that); of what it drops, the statement that makes it again, None when it was not valid and nothing is lost.
    """
    works = index_change.works(change.sql)
    if change.after is None:
        is_valid = await con.fetchval(_STATE, works[0].index)
        made = await con.fetchval("SELECT pg_get_indexdef(to_regclass($1))", works[0].index)
        return {"absent": [], "definition": index_change.concurrently(made) if is_valid else None}
    return {"absent": [work.index for work in works if not await con.fetchval(_STATE, work.index)]}


async def obstacles(session: Session, changes: Sequence[Change]) -> tuple[str, ...]:
    """
    Say why changes of indexes could not be made, before any is.
    """
    found: list[str] = []
    for change in changes:
        con = await session.on(change.database)
        whys = [await _obstacle(con, work) for work in index_change.works(change.sql)]
        found += [f"{change.id}: {why}" for why in whys if why]
    return tuple(found)


async def _obstacle(con: Connection, work: index_change.Work) -> str:
    table = work.index if not work.columns else ".".join(map(quoting.identifier, work.table))
    row = await con.fetchrow(_TABLE, table, list(work.columns))
    if row is None:
        return f"{table} is not there; plan again: magnus indexes --out FILE"
    if not row["is_owner"]:
        return f"role {row['role']} does not own {table}; as superuser: GRANT {row['owner']} TO {row['role']}"
    if row["missing"]:
        return f"{table} has no column {', '.join(row['missing'])}; plan again: magnus indexes --out FILE"
    if not work.columns:
        return ""
    same = await con.fetchval(_COVERED, table, list(work.columns), work.index)
    return f"index {same} begins with these columns by now; plan again: magnus indexes --out FILE" if same else ""


_TABLE: Final = """
SELECT current_user AS role, quote_ident(r.rolname) AS owner,
       pg_has_role(c.relowner, 'USAGE') AS is_owner,
       ARRAY(SELECT name FROM unnest($2::text[]) AS name WHERE NOT EXISTS (
           SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = name AND a.attnum > 0
                                        AND NOT a.attisdropped)) AS missing
FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE c.oid = to_regclass($1)
"""
_COVERED: Final = """
SELECT indexrelid::regclass::text FROM pg_index i, LATERAL (
    SELECT array_agg(a.attnum ORDER BY n.place) AS numbers
    FROM unnest($2::text[]) WITH ORDINALITY AS n (name, place)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attname = n.name) wanted
WHERE i.indrelid = to_regclass($1) AND i.indisvalid AND i.indpred IS NULL
  AND i.indexrelid IS DISTINCT FROM to_regclass($3)
  AND (i.indkey::int2[])[0:cardinality($2::text[]) - 1] = wanted.numbers
  AND (SELECT amname FROM pg_am JOIN pg_class c ON c.relam = pg_am.oid WHERE c.oid = i.indexrelid) = 'btree'
LIMIT 1
"""


async def usage(session: Session, indexes: Sequence[str], database: str | None) -> Usage | None:
    """
    Read how often indexes were scanned, and how large they are, together; None when none of them is there.
    """
    con = await session.on(database)
    row = await con.fetchrow(_USAGE, list(indexes))
    return None if row is None or not row["there"] else Usage(row["scans"], row["size"])


_USAGE: Final = """
SELECT count(*) AS there, coalesce(sum(pg_stat_get_numscans(oid)), 0)::bigint AS scans,
       coalesce(sum(pg_relation_size(oid)), 0)::bigint AS size
FROM unnest($1::text[]) AS name, LATERAL (SELECT to_regclass(name)::oid AS oid) found WHERE oid IS NOT NULL
"""


async def make(session: Session, change: Change) -> None:
    """
    Make what a change says; what is there already and valid stays.

    Raises:
        NotBuilt: nothing of the statement that failed is left; what was made before it is.
        asyncpg.PostgresError: a drop was refused.
    """
    for work in index_change.works(change.sql):
        await carry_out(session, work.sql, work.index, database=change.database)


async def carry_out(session: Session, sql: str, index: str, *, database: str | None) -> None:
    """
    Run one statement that makes or drops `index`.

    Raises:
        NotBuilt: the index could not be made.
        asyncpg.PostgresError: a drop was refused.
    """
    con = await session.on(database)
    is_build = not sql.startswith("DROP")
    if is_build:
        is_valid = await con.fetchval(_STATE, index)
        if is_valid:
            return
        if is_valid is not None:
            await _patiently(session, f"DROP INDEX CONCURRENTLY IF EXISTS {index}", index, database)
    if not is_build:
        await _patiently(session, sql, index, database)
        return
    try:
        await _patiently(session, sql, index, database)
        await _prove(con, index)
    except BaseException as error:
        left = await _cleaned(session, index, database)
        if not isinstance(error, Exception):
            raise  # told to stop: what is left is in the journal
        raise NotBuilt(f"{' '.join(str(error).split()) or type(error).__name__}{left}") from error


async def _prove(con: Connection, index: str) -> None:
    """
    A build that ended well is not yet a valid index.
    """
    if not await con.fetchval(_STATE, index):
        raise NotBuilt(f"{index} is not valid after its build")


async def _cleaned(session: Session, index: str, database: str | None) -> str:
    """
    Drop what a failed build left; say what could not be.
    """
    try:
        con = await session.on(database)
        if await con.fetchval(_STATE, index) is False:
            await _patiently(session, f"DROP INDEX CONCURRENTLY IF EXISTS {index}", index, database)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, ConnectError, OSError) as error:
        return f"; {index} is left, invalid ({' '.join(str(error).split())}): magnus rollback drops it"
    return ""


async def _patiently(session: Session, sql: str, index: str, database: str | None) -> None:
    """
    Run a statement without a limit if it is CONCURRENTLY; else, as it locks out writers, with a short one, some times.
    """
    if " CONCURRENTLY " in sql:
        async with _unlimited(session, database), _told(session, index, database):
            await session.run(sql, database=database)
        return
    for tries in range(_TRIES):
        try:
            await session.run(sql, database=database)
        except asyncpg.LockNotAvailableError:
            if tries == _TRIES - 1:
                raise
            session.tell(f"  {index}: its table is in use; once more")
        else:
            return


@contextlib.asynccontextmanager
async def _unlimited(session: Session, database: str | None) -> AsyncIterator[None]:
    con = await session.on(database)
    limit = await con.fetchval("SELECT current_setting('lock_timeout')")
    await con.execute("SET lock_timeout = 0")
    try:
        yield
    finally:
        if not con.is_closed():
            await con.fetchval("SELECT set_config('lock_timeout', $1, false)", limit)


@contextlib.asynccontextmanager
async def _told(session: Session, index: str, database: str | None) -> AsyncIterator[None]:
    """
    Tell how far it is, from a session beside it; one that cannot be opened stops nothing.
    """
    pid = (await session.on(database)).get_server_pid()
    teller = asyncio.create_task(_tell(session, index, pid, database))
    try:
        yield
    finally:
        teller.cancel()
        await asyncio.wait((teller,))


async def _tell(session: Session, index: str, pid: int, database: str | None) -> None:
    said = ""
    with contextlib.suppress(
        ConnectError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError
    ):
        await asyncio.sleep(_TICK)
        con = await session.reach.connect(database=database)
        try:
            while True:
                words = _words(await con.fetchrow(_PROGRESS, pid))
                if words not in {"", said}:
                    session.tell(f"  {index}: {words}")
                    said = words
                await asyncio.sleep(_TICK)
        finally:
            con.terminate()


def _words(row: Any) -> str:
    if row["blockers"]:
        return f"waits for {row['blockers']}"
    share = row["blocks"] if row["blocks"] is not None else row["tuples"]
    if row["phase"] is None or share is None:
        return row["phase"] or ""
    return f"{row['phase']}, {share // _STEP * _STEP} %"
