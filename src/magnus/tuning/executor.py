"""Makes the changes of a plan, one journalled step at a time, and proves by reading back that they are in force.

It invents no change. Every step is on disk as an intention before it is made; where a run ends early, the journal and
the server together say how far it came.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from magnus.errors import ApplyFailed, ConfigError, ConnectError, TuningError
from magnus.tuning import admission, autoconf, look
from magnus.tuning.change import Kind
from magnus.tuning.plan import canonical
from magnus.tuning.setting import Context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from magnus.tuning.facts import Server
    from magnus.tuning.journal import Journal
    from magnus.tuning.local import Site
    from magnus.tuning.plan import Change, Plan
    from magnus.tuning.reach import Reach

    Connection = asyncpg.Connection[asyncpg.Record]
    Tell = Callable[[str], None]

# One operator at a time on one cluster. Advisory locks belong to a database, so pg_locks is asked about all of them.
LOCK_KEY: Final = 7_236_840_011
_IN_FORCE_LIMIT: Final = 15.0
_LOCK_PATIENCE: Final = 3.0
_POLL: Final = 0.05
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

    async def run(self, statement: str, *, database: str | None = None, is_script: bool = False) -> None:
        """
        Run one statement outside of a transaction block (the extended protocol takes no second one), or a script,
        which takes effect as a whole or not at all.
        """
        con = await self.on(database)
        # Our own queries see pg_catalog only; what is made without a schema goes to public, as with psql.
        await con.fetch("SELECT set_config('search_path', 'public', false)")
        try:
            await (con.execute(statement) if is_script else con.fetch(statement))
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
        self.server = await look.server(self.con, self.server.host)


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
        host = host_of(reach)
        seen = await look.server(con, host)
        session = Session(reach, con, seen, find_site(seen), tell)
        yield session
    finally:
        if session is not None:
            await session.close()
        con.terminate()


def host_of(reach: Reach) -> str:
    """
    Return the host as the operator names it, for people and for the journal.
    """
    hosts = reach.config().safe_dsn
    return hosts.rpartition("@")[2].partition("/")[0].rpartition(":")[0] or reach.environ.get("PGHOST", "localhost")


@dataclass(frozen=True, slots=True)
class Options:
    """
    What the operator asked for.

    Attributes:
        restart: Restart the server when a change needs it.
        reason: For the journal: a ticket, a sentence.
    """

    restart: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What a run came to.

    Attributes:
        run: Its name, for `magnus rollback`.
        status: "applied", "waiting" (for a restart), "restored" (by the dead-man) or "nothing".
        made: Ids of what was made, in order.
        waiting: Names of settings that wait for a restart.
        deferred: Ids of what can only be made after it.
    """

    run: str
    status: str
    made: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    deferred: tuple[str, ...] = ()


def run_name(digest: str) -> str:
    """
    Return a name for a run that sorts by time and tells its plan.
    """
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{digest[:4]}{secrets.token_hex(1)}"


def target_of(server: Server) -> dict[str, Any]:
    """
    Return what tells one server of a cluster from the others, for the journal.
    """
    return {
        "system_identifier": server.system_identifier,
        "host": server.host,
        "port": server.port,
        "data_directory": server.data_directory,
        "cluster_name": server.cluster_name,
        "is_standby": server.is_standby,
        "is_local": server.is_local,
        "database": server.database,
        "version_num": server.version_num,
    }


def waves(changes: Sequence[Change]) -> tuple[tuple[Change, ...], tuple[Change, ...]]:
    """
    Split changes into those that can be made now and those that need a restart-level one to be in force.
    """
    late: set[str] = set()
    restart = {c.id for c in changes if c.context is Context.RESTART}
    for change in changes:
        if any(need in restart or need in late for need in change.needs):
            late.add(change.id)
    return tuple(c for c in changes if c.id not in late), tuple(c for c in changes if c.id in late)


@dataclass(slots=True)
class Runner:
    """
    One run of apply over an open session. The caller holds the journal's lock.
    """

    session: Session
    journal: Journal
    run: str
    made: list[str] = field(default_factory=list)

    async def make(self, change: Change) -> None:
        """
        Journal the intention with the before-image, make the change, journal that it is made.

        Raises:
            ApplyFailed: the server refused it; the run's earlier changes stand.
        """
        image = await self.image(change)
        self.journal.write("step", self.run, change=_as_json(change), image=image)
        try:
            for statement in change.sql:
                is_script = change.kind is Kind.TABLE
                await self.session.run(statement, database=change.database, is_script=is_script)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ConfigError) as error:
            self.journal.write("failed", self.run, id=change.id, error=_words(error))
            raise ApplyFailed(
                f"{change.id} could not be made: {_words(error)}", change=change.id, applied=tuple(self.made)
            ) from error
        self.journal.write("done", self.run, id=change.id)
        self.made.append(change.id)

    async def image(self, change: Change) -> dict[str, Any]:
        """
        Read what is there right before a change is made.
        """
        if change.kind is Kind.SETTING:
            return await self._setting_image(change.name)
        con = await self.session.on(change.database)
        if change.kind is Kind.ROLE_SETTING:
            place = (change.role, change.database, change.name)
            found = await look.role_settings(con)
            value = next((s.value for s in found if (s.role, s.database, s.name) == place), None)
            return {"value": value}
        if change.kind is Kind.EXTENSION:
            known = await look.extensions(con)
            return {"version": next((item.version for item in known if item.name == change.name), None)}
        names = admission.created(change.sql) or (look.place(change.name),)
        return {"absent": [name for name in names if await con.fetchval("SELECT to_regclass($1)", name) is None]}

    async def _setting_image(self, name: str) -> dict[str, Any]:
        con = self.session.con
        content = await look.auto_conf(con, self.session.site)
        row = await con.fetchrow(
            "SELECT setting, unit, source, sourcefile, sourceline, boot_val, reset_val, pending_restart"
            " FROM pg_settings WHERE name = $1",
            name,
        )
        found = None if row is None else dict(row)
        if content is None:
            entry, is_known = _guessed(found)
        else:
            entry, is_known = autoconf.values(content).get(name.lower()), True
        if not is_known:
            raise ApplyFailed(
                f"setting:{name}: what postgresql.auto.conf holds cannot be seen by role "
                f"{self.session.server.permissions.role}; as superuser: GRANT pg_monitor TO it",
                applied=tuple(self.made),
            )
        return {
            "entry": entry,
            "setting": found,
            "auto_conf": None if content is None else base64.b64encode(content).decode(),
        }

    async def reload(self, changes: Sequence[Change]) -> None:
        """
        Ask for a reload and wait until a new session sees the new values. `pg_reload_conf` answers true in any case.

        Raises:
            ApplyFailed: the files have an error, new sessions are refused, or a value does not arrive.
        """
        settings = [change for change in changes if change.kind is Kind.SETTING]
        if not settings:
            return
        self.journal.write("reload", self.run)
        missing = await reload(self.session, {c.name: c.after for c in settings})
        if missing:
            raise ApplyFailed("; ".join(missing), applied=tuple(self.made))


def _guessed(row: dict[str, Any] | None) -> tuple[str | None, bool]:
    """
    Without a look into the file: pg_settings names the file of the value in force, to those who may see it.
    """
    if row is None or row["pending_restart"]:
        return None, False
    if row["sourcefile"] is None:
        return None, row["source"] in {"default", "override"}
    if not row["sourcefile"].endswith(autoconf.FILE):
        return None, True
    unit = row["unit"] or ""
    return (f"{row['setting']}{unit}" if unit and not unit[0].isdigit() else row["setting"]), True


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
        return [f"new sessions are refused: {error}"]


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
    con = await session.reach.connect()
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


def _as_json(change: Change) -> dict[str, Any]:
    import json

    found: dict[str, Any] = json.loads(canonical(asdict(change)))
    return found


def _words(error: BaseException) -> str:
    state = getattr(error, "sqlstate", None)
    text = " ".join(str(error).split())
    return f"{text} ({state})" if state else text or type(error).__name__


async def apply(
    session: Session, plan: Plan, admitted: admission.Admitted, journal: Journal, options: Options
) -> Outcome:
    """
    Make what was admitted. The caller has asked the operator, tried the result, and holds the journal's lock.

    Raises:
        ApplyFailed: with what stands; the run's name is in the journal.
    """
    run = run_name(plan.digest)
    content = await look.auto_conf(session.con, session.site)
    journal.write(
        "begin",
        run,
        target=target_of(session.server),
        plan=plan.to_json(),
        digest=plan.digest,
        reason=options.reason,
        restart=options.restart,
        auto_conf=None if content is None else base64.b64encode(content).decode(),
    )
    runner = Runner(session, journal, run)
    first, late = waves(admitted.changes)
    try:
        for change in first:
            await runner.make(change)
        await runner.reload(first)
    except ApplyFailed as error:
        journal.write("end", run, status="partly" if runner.made else "failed", error=str(error))
        raise
    waiting = tuple(c.name for c in first if c.kind is Kind.SETTING and c.context is Context.RESTART)
    status = "waiting" if waiting or late else "applied"
    journal.write("end", run, status=status)
    return Outcome(run, status, tuple(runner.made), waiting, tuple(c.id for c in late))
