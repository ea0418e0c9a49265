"""Makes the changes of a plan, one journalled step at a time, and proves by reading back that they are in force.

It invents no change. Every step is on disk as an intention before it is made; where a run ends early, the journal and
the server together say how far it came.
"""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import asyncpg

from magnus.errors import ApplyFailed, ConfigError
from magnus.tuning import admission, autoconf, ledger, look, restart, statements, undo
from magnus.tuning.change import Kind
from magnus.tuning.journal import JournalUnusable
from magnus.tuning.plan import Plan, canonical
from magnus.tuning.session import REFUSED, reload
from magnus.tuning.setting import Context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from magnus.tuning.change import Change
    from magnus.tuning.facts import Server
    from magnus.tuning.journal import Journal
    from magnus.tuning.ledger import Run
    from magnus.tuning.service import Service
    from magnus.tuning.session import Session


@dataclass(frozen=True, slots=True)
class Options:
    """
    What the operator asked for.

    Attributes:
        service: How to restart the server when a change needs it; None: do not.
        guard_timeout: Seconds for it to serve again, else the old settings are put back.
        reason: For the journal: a ticket, a sentence.
    """

    service: Service | None = None
    guard_timeout: float = 60.0
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


def waves(changes: Sequence[Change], unmet: frozenset[str]) -> tuple[tuple[Change, ...], tuple[Change, ...]]:
    """
    Split changes into those that can be made now and those that need a restart-level one to be in force.

    `unmet` are ids of restart-level changes that are in the files already.
    """
    late: set[str] = set()
    restart = unmet | {c.id for c in changes if c.context is Context.RESTART}
    for change in changes:
        if any(need in restart or need in late for need in change.needs):
            late.add(change.id)
    return tuple(c for c in changes if c.id not in late), tuple(c for c in changes if c.id in late)


@dataclass(slots=True)
class Runner:
    """
    One run of apply over an open session. The caller holds the journal's lock.

    Attributes:
        made: Ids of what was made, in order.
        known: Ids whose before-image is in the journal already, from before an interruption.
    """

    session: Session
    journal: Journal
    run: str
    made: list[str] = field(default_factory=list)
    known: frozenset[str] = frozenset()

    async def make(self, change: Change) -> None:
        """
        Journal the intention with the before-image, make the change, journal that it is made.

        Raises:
            ApplyFailed: the server refused it; the run's earlier changes stand.
        """
        if change.id not in self.known:
            image = await self.image(change)
            self.journal.write("step", self.run, change=_as_json(change), image=image)
        try:
            await self._carry_out(change)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ConfigError) as error:
            self.journal.write("failed", self.run, id=change.id, error=_words(error))
            raise ApplyFailed(
                f"{change.id} could not be made: {_words(error)}", change=change.id, applied=tuple(self.made)
            ) from error
        self.journal.write("done", self.run, id=change.id)
        self.made.append(change.id)

    async def _carry_out(self, change: Change) -> None:
        """
        Settings go one statement at a time, each on its own; what makes a table is done as a whole or not at all.
        """
        if change.kind is Kind.TABLE:
            await self.session.run_script(change.sql, database=change.database)
            return
        for statement in change.sql:
            await self.session.run(statement, database=change.database)

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
            "SELECT CASE source WHEN 'session' THEN reset_val ELSE setting END AS setting, unit, source, sourcefile,"
            " sourceline, boot_val, reset_val, pending_restart FROM pg_settings WHERE name = $1",
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
        if missing and any(problem.startswith(REFUSED) for problem in missing):
            await self._take_back()
            raise ApplyFailed(
                f"{'; '.join(missing)}; the settings of this run were taken back at once", applied=tuple(self.made)
            )
        if missing:
            raise ApplyFailed("; ".join(missing), applied=tuple(self.made))

    async def _take_back(self) -> None:
        """
        Take the run's settings back over the session that we still have: a later rollback could not connect.
        """
        runs = ledger.fold(self.journal.entries)
        ours = [made for run in runs if run.id == self.run for made in run.open_changes]
        items = [made for made in reversed(ours) if made.change["kind"] == Kind.SETTING]
        undone = await undo.carry_out(self.session, self.journal, await undo.look_at(self.session, items, runs))
        self.made = [id_ for id_ in self.made if id_ not in undone.done]

    async def restart(self, how: Service, names: Sequence[str], timeout: float) -> None:
        """
        Restart for these settings; the dead-man puts all settings of this run back when the server does not come up.

        Raises:
            ApplyFailed: it did not.
        """
        runs = ledger.fold(self.journal.entries)
        # What an earlier run wrote and this restart brings into force stands or falls with it, too.
        ours = [
            made
            for run in runs
            for made in run.open_changes
            if made.change["kind"] == Kind.SETTING and (run.id == self.run or made.change["name"] in names)
        ]
        content = await look.auto_conf(self.session.con, self.session.site)
        assert content is not None, "what lies on this machine can be read"
        before, _ = undo.merge_offline(content, list(reversed(ours)))
        given = restart.orders(
            self.session,
            self.journal,
            self.run,
            how,
            before=before,
            names=[made.change["name"] for made in ours],
            keys=[f"{made.run}|{made.id}" for made in ours],
            timeout=timeout,
        )
        await restart.restart(self.session, self.journal, given, names)


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


def _as_json(change: Change) -> dict[str, Any]:
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
        restart=options.service is not None,
        auto_conf=None if content is None else base64.b64encode(content).decode(),
        baseline=None if (counters := await statements.snapshot(session.con)) is None else counters.to_json(),
    )
    return await proceed(Runner(session, journal, run), admitted, options)


async def proceed(runner: Runner, admitted: admission.Admitted, options: Options) -> Outcome:
    """
    Make changes in their waves, with the restarts between them that are asked for, and end the run.

    Raises:
        ApplyFailed: as `apply`.
    """
    rest, unmet = admitted.changes, frozenset(admitted.waiting)
    waiting = tuple(id_.partition(":")[2] for id_ in admitted.waiting)
    try:
        while True:
            wave, rest = waves(rest, unmet)
            for change in wave:
                await runner.make(change)
            await runner.reload(wave)
            waiting += tuple(c.name for c in wave if c.kind is Kind.SETTING and c.context is Context.RESTART)
            if options.service is None or not waiting:
                break
            await runner.restart(options.service, waiting, options.guard_timeout)
            waiting, unmet = (), frozenset()
            if not rest:
                break
    except ApplyFailed as error:
        if not error.is_settled:
            runner.journal.write("end", runner.run, status="partly" if runner.made else "failed", error=str(error))
        raise
    except JournalUnusable as error:
        raise ApplyFailed(str(error), applied=tuple(runner.made), is_settled=True) from error
    status = "waiting" if waiting or rest else "applied"
    runner.journal.write("end", runner.run, status=status)
    return Outcome(runner.run, status, tuple(runner.made), waiting, tuple(c.id for c in rest))


async def resume(session: Session, journal: Journal, run: Run, options: Options, scripts: frozenset[str]) -> Outcome:
    """
    Finish a run that was interrupted: look at what it made, then make the rest.

    Raises:
        PlanStale, ApplyRefused: the server changed in the meantime; take the run back instead.
        ApplyFailed: as `apply`.
    """
    journal.write("resume", run.id)
    plan = Plan.from_json(run.begun.data["plan"])
    missing = await reload(session, {})
    if missing:
        raise ApplyFailed("; ".join(missing), applied=ledger.standing([run], run.id))
    session.server = await look.server(session.con)
    await session.see(change.database for change in plan.changes)
    content = await look.auto_conf(session.con, session.site)
    entries = None if content is None else autoconf.values(content)
    admitted = admission.admit(plan, session.server, entries=entries, scripts=scripts, are_standbys_ready=True)
    known = {made.id for made in run.made if made.is_open}
    runner = Runner(session, journal, run.id, known=frozenset(known))
    for made in run.open_changes:
        if made.id in {*admitted.present, *admitted.waiting}:
            if made.stand is not ledger.Stand.DONE:
                journal.write("done", run.id, id=made.id)
            runner.made.append(made.id)
    return await proceed(runner, admitted, options)
