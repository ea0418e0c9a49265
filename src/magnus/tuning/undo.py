"""Takes back what runs made, last first, as far as it is still ours; with the server, or without it.

What to do is decided for everything before anything is done, so that `--dry-run` shows exactly what would happen.
"""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from magnus.errors import ApplyFailed, ConfigError, NotReversible
from magnus.tuning import autoconf, files, look, quoting, restart
from magnus.tuning.autoconf import QUOTED_LISTS
from magnus.tuning.change import Kind
from magnus.tuning.ledger import Decision, Made, Run, Verdict, decide, fold
from magnus.tuning.session import reload
from magnus.tuning.setting import Context, split_list

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from magnus.tuning.journal import Journal
    from magnus.tuning.local import Site
    from magnus.tuning.service import Service
    from magnus.tuning.session import Connection, Session
    from magnus.tuning.setting import Setting

_GONE: Final = "gone"


@dataclass(frozen=True, slots=True)
class Step:
    """
    One thing to take back, and what will be done about it.

    Attributes:
        now: What is there.
        sql: Statements; empty when nothing is to be done, or when only the file can be edited.
        why: For a conflict: whose it is, or what hangs on it.
    """

    made: Made
    decision: Decision
    now: str | None
    sql: tuple[str, ...] = ()
    why: str = ""

    @property
    def words(self) -> str:
        change, verdict = self.made.change, self.decision.verdict
        if verdict is Verdict.CONFLICT:
            return f"{self.made.id}: kept as it is ({_shown(self.now)}): {self.why}"
        if verdict is Verdict.IS_BACK:
            return f"{self.made.id}: is back already"
        if change["kind"] in {Kind.EXTENSION, Kind.TABLE, Kind.INDEX}:
            return f"{self.made.id}: drop it, as it was not there before"
        return f"{self.made.id}: {_shown(self.now)} -> {_shown(self.decision.value)}"


def _shown(value: str | None) -> str:
    return "not set" if value is None else repr(value)


def of_target(runs: Iterable[Run], host: str, data: str | None, port: int) -> list[Run]:
    """
    Return the runs on this server of the cluster: the same data folder where it is known, else host and port.
    """

    def is_here(run: Run) -> bool:
        target = run.target
        if data is not None and target["data_directory"] is not None:
            return bool(target["data_directory"] == data) and (target["is_local"] or target["host"] == host)
        return (target["host"], target["port"]) == (host, port)

    return [run for run in runs if is_here(run)]


def select(runs: Sequence[Run], name: str | None, *, is_all: bool) -> list[Made]:
    """
    Return what to take back, last first: everything, one run (by default the last), or one change of the last run
    that made it.

    Raises:
        ConfigError: no such run or change.
    """
    with_changes = [run for run in runs if run.open_changes]
    if is_all:
        chosen = [made for run in with_changes for made in run.open_changes]
    elif name is None:
        chosen = with_changes[-1].open_changes if with_changes else []
    elif any(run.id == name for run in runs):
        chosen = next(run for run in runs if run.id == name).open_changes
    else:
        found = [made for run in with_changes for made in run.open_changes if name in {made.id, made.change["name"]}]
        if not found:
            raise ConfigError("run", name, "is no run or change in this server's journal; see: magnus history")
        chosen = found[-1:]
    return list(reversed(chosen))


async def look_at(session: Session, items: Sequence[Made], runs: Sequence[Run]) -> list[Step]:
    """
    Decide about every item, in order, as if the ones before it were done.
    """
    settings = await look.settings(session.con)
    entries: dict[str, str | None] = {**await look.entries(session.con, session.site, settings)}
    roles = {(s.role, s.database, s.name): s.value for s in await look.role_settings(session.con)}
    steps = []
    for made in items:
        kind, name = made.change["kind"], made.change["name"]
        if kind == Kind.SETTING:
            step = _decide_setting(made, entries.get(name.lower()), settings.get(name))
            entries[name.lower()] = step.decision.value
        elif kind == Kind.ROLE_SETTING:
            place = (made.change["role"], made.change["database"], name)
            step = _decide_role(made, roles.get(place), settings.get(name))
            if step.decision.value is not None:
                roles[place] = step.decision.value
            else:
                roles.pop(place, None)
        elif kind == Kind.EXTENSION:
            step = await _decide_extension(session, made)
        else:
            step = await _decide_relation(session, made)
        steps.append(_named(step, runs))
    return steps


def _decide_setting(made: Made, now: str | None, setting: Setting | None) -> Step:
    name, before = made.change["name"], made.image["entry"]
    means = setting.means if setting is not None else str
    decision = decide(name, before, made.change["after"], now, means)
    if decision.verdict is not Verdict.PUT_BACK:
        return Step(made, decision, now)
    if decision.value is not None and name in QUOTED_LISTS and not all(split_list(decision.value) or ("",)):
        return Step(made, decision, now)
    return Step(made, decision, now, (quoting.alter_system(name, decision.value),))


def _decide_role(made: Made, now: str | None, setting: Setting | None) -> Step:
    change = made.change
    means = setting.means if setting is not None else str
    decision = decide(change["name"], made.image["value"], change["after"], now, means)
    if decision.verdict is not Verdict.PUT_BACK:
        return Step(made, decision, now)
    sql = quoting.alter_role(change["role"], change["name"], decision.value, database=change["database"])
    return Step(made, decision, now, (sql,))


async def _decide_extension(session: Session, made: Made) -> Step:
    con = await session.on(made.change["database"])
    name, before = made.change["name"], made.image["version"]
    now = next((item.version for item in await look.extensions(con) if item.name == name), None)
    if now == before:
        return Step(made, Decision(Verdict.IS_BACK, now), now)
    if before is not None:
        return Step(made, Decision(Verdict.CONFLICT, now), now, why="an extension's update cannot be taken back")
    hangs = await con.fetch(_DEPENDENTS, name)
    if hangs:
        why = f"others use it: {', '.join(row[0] for row in hangs)}"
        return Step(made, Decision(Verdict.CONFLICT, now), now, why=why)
    return Step(made, Decision(Verdict.PUT_BACK), now, (f"DROP EXTENSION {quoting.identifier(name)}",))


# What depends on a member of the extension and is no member itself; a rule stands for its view.
_DEPENDENTS: Final = """
WITH members AS (SELECT classid, objid FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
                 AND refobjid = (SELECT oid FROM pg_extension WHERE extname = $1)),
hanging AS (
    SELECT CASE WHEN w.oid IS NULL THEN d.classid ELSE 'pg_class'::regclass::oid END AS classid,
           coalesce(w.ev_class, d.objid) AS objid
    FROM members m JOIN pg_depend d ON (d.refclassid, d.refobjid) = (m.classid, m.objid) AND d.deptype IN ('n', 'a')
    LEFT JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid)
SELECT DISTINCT pg_describe_object(classid, objid, 0) FROM hanging
WHERE (classid, objid) NOT IN (SELECT classid, objid FROM members)
"""


async def _decide_relation(session: Session, made: Made) -> Step:
    """
    Drop what the change made and what is still there, unless it holds rows or others hang on it.
    """
    con = await session.on(made.change["database"])
    is_index = made.change["kind"] == Kind.INDEX
    sql = []
    for name in made.image["absent"]:
        oid = await con.fetchval("SELECT to_regclass($1)::oid", name)
        if oid is None:
            continue
        if not is_index and (why := await _why_kept(con, name, oid, made.image["absent"])):
            return Step(made, Decision(Verdict.CONFLICT, _GONE), "in use", why=why)
        sql.append(f"DROP {'INDEX CONCURRENTLY' if is_index else 'TABLE'} {_qualified(name)}")
    if not sql:
        return Step(made, Decision(Verdict.IS_BACK), None)
    return Step(made, Decision(Verdict.PUT_BACK), "there", tuple(reversed(sql)))


async def _why_kept(con: Connection, name: str, oid: int, ours: Sequence[str]) -> str:
    if await con.fetchval(f"SELECT EXISTS (SELECT FROM {_qualified(name)})"):  # noqa: S608 - quoted
        return f"{name} holds rows, which are never dropped; empty it, or drop it by hand"
    hanging = [row[0] for row in await con.fetch(_HANGING, oid) if row[0] not in ours]
    return f"others use it: {', '.join(hanging)}" if hanging else ""


_HANGING: Final = """
SELECT DISTINCT pg_describe_object('pg_class'::regclass, w.ev_class, 0) FROM pg_depend d
JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = $1 AND w.ev_class <> $1
UNION SELECT conrelid::regclass::text FROM pg_constraint WHERE confrelid = $1 AND conrelid <> $1
"""


def _qualified(name: str) -> str:
    return ".".join(quoting.identifier(part) for part in look.place(name).split("."))


def _named(step: Step, runs: Sequence[Run]) -> Step:
    """
    Say of a conflict whether a later run of ours made the value, which then is to be taken back first.
    """
    if step.decision.verdict is not Verdict.CONFLICT or step.why:
        return step
    place = next(index for index, run in enumerate(runs) if run.id == step.made.run)
    later = [run.id for run in runs[place + 1 :] if (made := run.find(step.made.id)) is not None and made.is_open]
    if later:
        return replace(step, why=f"run {later[-1]} changed it after this one; take that back first, or use --all")
    return replace(step, why=f"somebody set it after us (we had set {_shown(step.made.change['after'])})")


@dataclass(frozen=True, slots=True)
class Undone:
    """
    What a rollback came to. `is_exact`: postgresql.auto.conf is byte for byte what it was (None: not known).
    """

    done: tuple[str, ...]
    conflicts: tuple[Step, ...]
    settings: tuple[Step, ...] = ()
    waiting: tuple[str, ...] = ()
    is_exact: bool | None = None


async def carry_out(session: Session, journal: Journal, steps: Sequence[Step]) -> Undone:
    """
    Take back what can be; conflicts stay and are reported.

    Raises:
        ApplyFailed: a statement failed; what was taken back before it is.
    """
    done: list[str] = []
    settings: dict[str, str | None] = {}
    for step in steps:
        made = step.made
        if step.decision.verdict is Verdict.CONFLICT:
            continue
        journal.write("undo", made.run, id=made.id, now=step.now, value=step.decision.value)
        await _make(session, step, tuple(done))
        journal.write("undone", made.run, id=made.id)
        done.append(made.id)
        if made.change["kind"] == Kind.SETTING:
            settings[made.change["name"]] = step.decision.value
    settle(journal, steps)
    exact = await put_back_bytes(session, journal, steps)
    if settings:
        missing = await reload(session, settings)
        if missing:
            raise ApplyFailed("; ".join(missing), applied=tuple(done))
    waiting = await _waiting(session, settings)
    conflicts = tuple(step for step in steps if step.decision.verdict is Verdict.CONFLICT)
    ours = tuple(step for step in steps if step.made.id in done and step.made.change["kind"] == Kind.SETTING)
    return Undone(tuple(done), conflicts, ours, waiting, exact)


def settle(journal: Journal, steps: Sequence[Step]) -> None:
    """
    End the runs that were interrupted and of which nothing is left: there is nothing to resume.
    """
    touched = {step.made.run for step in steps}
    for run in fold(journal.entries):
        if run.id in touched and not run.is_finished and not run.open_changes:
            journal.write("end", run.id, status="taken back")


async def _make(session: Session, step: Step, done: tuple[str, ...]) -> None:
    made = step.made
    try:
        if step.decision.verdict is Verdict.PUT_BACK and not step.sql:
            _edit_here(session.site, made.change["name"], step.decision.value)
        for statement in step.sql if step.decision.verdict is Verdict.PUT_BACK else ():
            await session.run(statement, database=made.change["database"])
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        words = f"{made.id} could not be taken back: {' '.join(str(error).split())}"
        raise ApplyFailed(words, change=made.id, applied=done) from error


def _edit_here(site: Site | None, name: str, value: str | None) -> None:
    if site is None:
        raise NotReversible(f"setting:{name}", "its former value cannot be written by SQL, and its file is not here")
    files.replace(site, autoconf.edit(site.auto_conf.read_bytes(), {name: value}))


async def _waiting(session: Session, settings: Mapping[str, str | None]) -> tuple[str, ...]:
    found = await look.settings(session.con)
    return tuple(
        name for name in settings if (s := found.get(name)) and s.when is Context.RESTART and s.pending_restart
    )


async def put_back_bytes(session: Session, journal: Journal, steps: Sequence[Step]) -> bool | None:
    """
    When the settings of postgresql.auto.conf are those of the before-image again, bring back its very bytes.

    ALTER SYSTEM moves what it sets to the end and drops comments. The file is replaced atomically, and only when
    nobody else's setting is in it.
    """
    images = [step.made.image.get("auto_conf") for step in steps if step.made.change["kind"] == Kind.SETTING]
    if not images or images[-1] is None:
        return None
    before = base64.b64decode(images[-1])
    now = await look.auto_conf(session.con, session.site)
    if now is None:
        return None
    if now == before:
        return True
    if autoconf.values(now) != autoconf.values(before) or session.site is None or not can_write(session.site):
        return False
    journal.write("bytes", steps[-1].made.run)
    files.replace(session.site, before)
    return True


async def restart_for(
    session: Session, journal: Journal, undone: Undone, how: Service, *, before: bytes, timeout: float
) -> None:
    """
    Restart so that what was taken back is in force; when the server does not come up, the changes stand again.

    Raises:
        ApplyFailed: it did not come up.
    """
    keys = [f"{step.made.run}|{step.made.id}" for step in undone.settings]
    given = restart.orders(
        session,
        journal,
        f"rollback-{len(journal.entries)}",
        how,
        before=before,
        names=[step.made.change["name"] for step in undone.settings],
        keys=keys,
        timeout=timeout,
        is_rollback=True,
    )
    await restart.restart(session, journal, given, undone.waiting)


def waiting_of(runs: Iterable[Run], settings: Mapping[str, Setting]) -> tuple[str, ...]:
    """
    Return the settings of these runs that still wait for a restart.
    """
    names = {made.change["name"] for run in runs for made in run.made if made.change["kind"] == Kind.SETTING}
    return tuple(sorted(name for name in names if (found := settings.get(name)) and found.pending_restart))


def can_write(site: Site) -> bool:
    """
    Whether this process may replace the file: as its owner or as root.
    """
    return os.access(site.data, os.W_OK)


def merge_offline(content: bytes, items: Sequence[Made]) -> tuple[bytes, list[Step]]:
    """
    Return the file with these runs' settings taken back, and what was decided; for a server that does not start.

    Other kinds of changes live in the database and stay.
    """
    entries: dict[str, str | None] = dict(autoconf.values(content))
    wanted: dict[str, str | None] = {}
    steps: list[Step] = []
    for made in items:
        if made.change["kind"] != Kind.SETTING:
            continue
        name = made.change["name"].lower()
        step = _decide_setting(made, entries.get(name), None)
        if step.decision.verdict is Verdict.CONFLICT:
            steps.append(replace(step, why="somebody set it after us"))
            continue
        steps.append(step)
        entries[name] = wanted[name] = step.decision.value
    merged = autoconf.edit(content, wanted)
    image = next((s.made.image.get("auto_conf") for s in reversed(steps)), None)
    if image is not None:
        before = base64.b64decode(image)
        if autoconf.values(before) == autoconf.values(merged):
            return before, steps
    return merged, steps


def report(undone: Undone) -> dict[str, Any]:
    """
    Return the machine's form of a rollback.
    """
    return {
        "undone": list(undone.done),
        "conflicts": [{"id": step.made.id, "run": step.made.run, "why": step.why} for step in undone.conflicts],
        "waiting_for_restart": list(undone.waiting),
        "auto_conf_is_exact": undone.is_exact,
    }
