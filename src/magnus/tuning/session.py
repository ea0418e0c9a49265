"""A session that changes a server: alone on the cluster, outside of transactions, and sure of what a reload did."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from magnus.errors import ConnectError, TuningError
from magnus.tuning import look
from magnus.tuning.local import Site
from magnus.tuning.setting import Context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping
    from datetime import datetime

    import asyncpg

    from magnus.tuning.facts import Server
    from magnus.tuning.reach import Reach

    Connection = asyncpg.Connection[asyncpg.Record]
    Tell = Callable[[str], None]

# One operator at a time on one cluster. Advisory locks belong to a database, so pg_locks is asked about all of them.
LOCK_KEY: Final = 7_236_840_011
_IN_FORCE_LIMIT: Final = 15.0
_LOCK_PATIENCE: Final = 3.0
_POLL: Final = 0.05
REFUSED: Final = "new sessions are refused"
_OTHERS: Final = """
SELECT l.pid, coalesce(a.usename, '?') AS role, coalesce(host(a.client_addr), 'a socket') AS address
FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.pid <> pg_backend_pid()
  AND ((l.classid::bigint << 32) | l.objid::bigint) = $1 AND l.objsubid = 1
"""


class Locked(TuningError):
    """
    Another operator is changing this server at this moment.
    """


@dataclass(slots=True)
class Session:
    """
    A held connection that has the cluster's advisory lock, and what was seen when it was opened.
    """

    reach: Reach
    con: Connection
    server: Server
    site: Site | None
    tell: Callable[[str], None]
    _others: dict[str, Connection] = field(default_factory=dict)

    async def on(self, database: str | None) -> Connection:
        """
        Return a connection to a database of this server; kept until the session is closed.
        """
        if database is None or database == self.server.database:
            return self.con
        con = self._others.get(database)
        if con is None or con.is_closed():
            con = self._others[database] = await self.reach.connect(database=database)
        return con

    async def see(self, databases: Iterable[str | None]) -> None:
        """
        Look into other databases of the server, too.
        """
        names = {name for name in databases if name is not None} - {self.server.database}
        self.server = await look.widened(self.server, {name: await self.on(name) for name in sorted(names)})

    async def run(self, statement: str, *, database: str | None = None) -> None:
        """
        Run one statement outside of a transaction block; the extended protocol takes no second one.
        """
        async with self._in_public(database) as con:
            await con.fetch(statement)

    async def run_script(self, scripts: Iterable[str], *, database: str | None = None) -> None:
        """
        Run scripts that take effect together or not at all.
        """
        async with self._in_public(database) as con, con.transaction():
            for script in scripts:
                await con.execute(script)

    @contextlib.asynccontextmanager
    async def _in_public(self, database: str | None) -> AsyncIterator[Connection]:
        """
        Our own queries see pg_catalog only; what is made without a schema goes to public, as with psql.
        """
        con = await self.on(database)
        await con.fetch("SELECT set_config('search_path', 'public', false)")
        try:
            yield con
        finally:
            if not con.is_closed():
                await con.fetch("SELECT pg_catalog.set_config('search_path', 'pg_catalog', false)")

    async def close(self) -> None:
        for con in (*self._others.values(), self.con):
            con.terminate()

    async def reopen(self) -> None:
        """
        Open everything anew after a restart, with the lock.
        """
        await self.close()
        self._others.clear()
        self.con = await self.reach.connect()
        await take_lock(self.con)
        self.server = await look.server(self.con)
        self.site = None if self.site is None else Site.at(self.site.data)


async def take_lock(con: Connection) -> None:
    """
    Take the cluster's advisory lock for as long as the connection lives. The session of a magnus that was just killed
    gets some seconds to go.

    Raises:
        Locked: naming who has it.
    """
    limit = time.monotonic() + _LOCK_PATIENCE
    while True:
        await con.fetchval("SELECT pg_try_advisory_lock_shared($1)", LOCK_KEY)
        others = await con.fetch(_OTHERS, LOCK_KEY)
        if not others:
            return
        await con.fetchval("SELECT pg_advisory_unlock_shared($1)", LOCK_KEY)
        if time.monotonic() > limit:
            who = ", ".join(f"process {row['pid']}, role {row['role']} from {row['address']}" for row in others)
            raise Locked(f"another magnus is changing this server ({who}); wait for it, nothing was changed")
        await asyncio.sleep(_POLL * (1 + secrets.randbelow(4)))


@contextlib.asynccontextmanager
async def opened(reach: Reach, find_site: Callable[[Server], Site | None], tell: Tell) -> AsyncIterator[Session]:
    """
    Connect, take the lock and look at the server.

    Raises:
        ConnectError, Locked
    """
    con = await reach.connect()
    session = None
    try:
        await take_lock(con)
        seen = await look.server(con)
        session = Session(reach, con, seen, find_site(seen), tell)
        yield session
    finally:
        if session is not None:
            await session.close()
        con.terminate()


async def reload(session: Session, wanted: Mapping[str, str | None]) -> list[str]:
    """
    Reload the configuration and say what of it new sessions do not see (None: whatever the files say), one sentence
    each. `pg_reload_conf` answers true in any case and long before anything happens.
    """
    try:
        before = await _load_time(session)
        await session.con.fetchval("SELECT pg_reload_conf()")
        limit = time.monotonic() + _IN_FORCE_LIMIT
        while await _load_time(session) <= before:
            if time.monotonic() > limit:
                errors = await look.file_errors(session.con)
                return ["the server did not take the reloaded files", *(errors or ("see its log",))]
            await asyncio.sleep(_POLL)
        return await _missing(session, wanted)
    except ConnectError as error:
        return [f"{REFUSED}: {error}"]


async def _load_time(session: Session) -> datetime:
    """
    Ask a new session, which has what the postmaster has, when the files were last taken.
    """
    con = await session.reach.connect()
    try:
        found: datetime = await con.fetchval("SELECT pg_conf_load_time()")
    finally:
        con.terminate()
    return found


async def _missing(session: Session, wanted: Mapping[str, str | None]) -> list[str]:
    con = await session.reach.connect(as_application=True)
    try:
        found = await look.settings(con)
        outranked = {s.name for s in await look.role_settings(con) if s.name in wanted}
    finally:
        con.terminate()
    missing = []
    for name, value in wanted.items():
        setting = found.get(name)
        if (
            setting is None
            or value is None
            or name in outranked
            or setting.means(value) == setting.means(setting.value)
        ):
            continue
        if setting.when is Context.RESTART and setting.pending_restart:
            continue
        missing.append(f"{name} is {setting.text} for new sessions, not {value}")
    return missing
