"""`magnus rollback`: takes back what runs made, as far as nobody changed it since; also when the server is down."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from magnus.cli import render, tuning
from magnus.cli.answer import Answer, ExitCode, Failure
from magnus.errors import ApplyFailed, ConfigError
from magnus.tuning import files, ledger, look, undo
from magnus.tuning.ledger import Verdict
from magnus.tuning.local import Site

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from magnus.tuning.journal import Journal
    from magnus.tuning.ledger import Made
    from magnus.tuning.service import Service
    from magnus.tuning.session import Session
    from magnus.tuning.undo import Step


@dataclass(frozen=True)
class Wanted:
    """
    The arguments of the command.
    """

    name: str | None = None
    dsn: str | None = None
    journal: Path | None = None
    confirm: str | None = None
    restart_command: str | None = None
    offline: Path | None = None
    guard_timeout: float = 60.0
    is_all: bool = False
    is_dry: bool = False
    is_agreed: bool = False
    is_restarting: bool = False


async def rollback(wanted: Wanted, environ: Mapping[str, str]) -> Answer | Failure:
    """
    Decide, show, ask, take back, read back.

    Raises:
        MagnusError: what `tuning.guarded` turns into a line and an exit code.
    """
    if wanted.offline is not None:
        return _offline(wanted, environ)
    await tuning.revive(wanted.dsn, wanted.journal, environ)
    async with tuning.opened(wanted.dsn, environ, "magnus rollback") as session:
        journal = tuning.journal(session, wanted.journal, environ)
        runs = tuning.runs(session, journal)
        steps = await undo.look_at(session, undo.select(runs, wanted.name, is_all=wanted.is_all), runs)
        pending = undo.waiting_of(runs, session.server.settings) if wanted.is_restarting else ()
        if wanted.is_dry or not (steps or pending):
            return _shown(steps)
        how = tuning.service(session, wanted)
        render.note(tuning.identity(session.server))
        for step in steps:
            render.note(f"  {step.words}")
        name = tuning.name_of(session.server)
        refusal = tuning.agreed("rollback", session.server, name, is_agreed=wanted.is_agreed, confirm=wanted.confirm)
        if refusal:
            return refusal
        journal.prepare()
        with journal.exclusively():
            return await _take_back(session, journal, steps, pending=pending, how=how, timeout=wanted.guard_timeout)


async def _take_back(
    session: Session,
    journal: Journal,
    steps: Sequence[Step],
    *,
    pending: Sequence[str],
    how: Service | None,
    timeout: float,
) -> Answer | Failure:
    try:
        before = await look.auto_conf(session.con, session.site)
        undone = await undo.carry_out(session, journal, steps)
        undone = replace(undone, waiting=tuple(sorted({*undone.waiting, *pending})))
        if how is not None and undone.waiting and before is not None:
            await undo.restart_for(session, journal, undone, how, before=before, timeout=timeout)
            undone = replace(undone, waiting=())
    except ApplyFailed as error:
        return Failure("rollback", ExitCode.PARTLY, str(error), "repeat: magnus rollback")
    return _done(undone)


def _done(undone: undo.Undone) -> Answer:
    text = [f"Took back {len(undone.done)}."]
    if undone.is_exact:
        text.append("postgresql.auto.conf is byte for byte what it was.")
    elif undone.is_exact is False and not undone.conflicts:
        text.append("The settings are what they were; postgresql.auto.conf also holds what others set since.")
    if undone.waiting:
        text.append(f"Waiting for a restart: {', '.join(undone.waiting)}. Do it with: magnus rollback --restart")
    text += [f"conflict: {step.words}" for step in undone.conflicts]
    code = ExitCode.NO if undone.conflicts else ExitCode.DONE
    return Answer("rollback", undo.report(undone), text, exit_code=code)


def _shown(steps: Sequence[Step]) -> Answer:
    data: dict[str, Any] = {
        "steps": [
            {"id": s.made.id, "run": s.made.run, "verdict": str(s.decision.verdict), "sql": list(s.sql), "why": s.why}
            for s in steps
        ]
    }
    text = [step.words for step in steps] or ["Nothing to take back."]
    has_conflicts = any(step.decision.verdict is Verdict.CONFLICT for step in steps)
    return Answer("rollback", data, text, exit_code=ExitCode.NO if has_conflicts else ExitCode.DONE)


def _offline(wanted: Wanted, environ: Mapping[str, str]) -> Answer | Failure:
    assert wanted.offline is not None
    site = Site.at(wanted.offline.expanduser().absolute())
    if site.pid is not None:
        words = f"the server in {site.data} runs (process {site.pid})"
        return Failure("rollback", ExitCode.REFUSED, words, "roll back with --dsn, or stop it first")
    journal = tuning.journal_at(site.system_identifier, "", wanted.journal, environ)
    runs = undo.of_target(ledger.fold(journal.entries), "", str(site.data), 0)
    if not runs:
        raise ConfigError("--offline", str(site.data), f"no run on it is in {journal.path}; is it another --journal?")
    items = undo.select(runs, wanted.name, is_all=wanted.is_all)
    content = site.auto_conf.read_bytes()
    merged, steps = undo.merge_offline(content, items)
    if wanted.is_dry:
        return _shown(steps)
    if not wanted.is_agreed and render.ask(f"Type the folder to rollback: {site.data}\n>") != str(site.data):
        return Failure("rollback", ExitCode.REFUSED, "not agreed", "say --yes; nothing was changed")
    journal.prepare()
    with journal.exclusively():
        return _write(site, journal, merged, steps, items)


def _write(site: Site, journal: Journal, merged: bytes, steps: Sequence[Step], items: Sequence[Made]) -> Answer:
    wanted = [step for step in steps if step.decision.verdict is not Verdict.CONFLICT]
    for step in wanted:
        journal.write("undo", step.made.run, id=step.made.id, now=step.now, value=step.decision.value)
    files.replace(site, merged)
    for step in wanted:
        journal.write("undone", step.made.run, id=step.made.id)
    undo.settle(journal, steps)
    conflicts = tuple(step for step in steps if step.decision.verdict is Verdict.CONFLICT)
    left = [made.id for made in items if made.change["kind"] != "setting"]
    undone = undo.Undone(tuple(step.made.id for step in wanted), conflicts)
    text = [f"Took back {len(wanted)} in {site.auto_conf}. Start the server now."]
    if left:
        text.append(f"Once it runs: magnus rollback --all, for what lies in the database: {', '.join(left)}")
    text += [f"conflict: {step.words}" for step in conflicts]
    data = {**undo.report(undone), "left": left}
    return Answer("rollback", data, text, exit_code=ExitCode.NO if conflicts else ExitCode.DONE)
