"""`magnus apply`: a plan's file, made real on the server it was made for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from magnus.cli import render, tuning
from magnus.cli.answer import Answer, ExitCode, Failure
from magnus.cli.plan import planned
from magnus.errors import ApplyFailed, ApplyRefused, ConfigError
from magnus.tuning import admission, executor
from magnus.tuning.plan import Plan
from magnus.tuning.preflight import Report
from magnus.tuning.rehearse import rehearse
from magnus.tuning.units import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from magnus.tuning.admission import Admitted
    from magnus.tuning.journal import Journal
    from magnus.tuning.ledger import Run
    from magnus.tuning.session import Session

_WHEN: Final[Mapping[str, str]] = {"now": "now", "new_sessions": "new sessions", "restart": "restart"}


@dataclass(frozen=True)
class Wanted:
    """
    The arguments of the command.
    """

    file: Path | None = None
    dsn: str | None = None
    journal: Path | None = None
    only: tuple[str, ...] = ()
    reason: str = ""
    confirm: str | None = None
    restart_command: str | None = None
    guard_timeout: float = 60.0
    is_agreed: bool = False
    is_dry: bool = False
    is_restarting: bool = False
    is_resumed: bool = False
    is_untried: bool = False
    are_standbys_ready: bool = False


async def apply(wanted: Wanted, environ: Mapping[str, str]) -> Answer | Failure:
    """
    Compare, show, ask, try, make, read back.

    Raises:
        MagnusError: what `tuning.guarded` turns into a line and an exit code.
    """
    if wanted.is_resumed:
        return await _resume(wanted, environ)
    plan = _loaded(wanted.file) if wanted.file is not None else await planned(wanted.dsn, environ)
    if wanted.only:
        plan = plan.only(tuning.expanded(plan, wanted.only))
    async with tuning.opened(wanted.dsn, environ, "magnus apply") as session:
        await session.see(change.database for change in plan.changes)
        entries = await tuning.entries(session)
        admitted = admission.admit(
            plan,
            session.server,
            entries=entries,
            scripts=tuning.scripts(),
            are_standbys_ready=wanted.are_standbys_ready,
        )
        await tuning.refuse_broken_files(session)
        rows = _rows(admitted)
        tried = await _tried(session, plan, admitted, wanted)
        if wanted.is_dry or not (admitted.changes or admitted.waiting):
            return _shown(plan, admitted, rows, tried)
        name = tuning.name_of(session.server)
        _describe(session, admitted, rows, wanted)
        render.note(_words(tried))
        if refusal := tuning.agreed("apply", session.server, name, is_agreed=wanted.is_agreed, confirm=wanted.confirm):
            return refusal
        return await _make(session, plan, admitted, wanted, environ)


def _loaded(file: Path) -> Plan:
    try:
        return Plan.loads(file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is no text"
        raise ConfigError("FILE", str(file), f"cannot be read: {why}") from error


async def _make(
    session: Session, plan: Plan, admitted: Admitted, wanted: Wanted, environ: Mapping[str, str]
) -> Answer | Failure:
    journal = tuning.journal(session, wanted.journal, environ)
    journal.prepare()
    _refuse_unfinished(tuning.runs(session, journal))
    options = executor.Options(tuning.service(session, wanted), wanted.guard_timeout, wanted.reason)
    with journal.exclusively():
        try:
            outcome = await executor.apply(session, plan, admitted, journal, options)
        except ApplyFailed as error:
            return _failed(error, journal)
    return _done(outcome)


def _failed(error: ApplyFailed, journal: Journal) -> Failure:
    if not error.applied:
        return Failure("apply", ExitCode.REFUSED, str(error), "nothing of this run stands")
    run = journal.entries[-1].run
    return Failure("apply", ExitCode.PARTLY, str(error), f"take back what was made: magnus rollback {run}")


def _refuse_unfinished(runs: Sequence[Run]) -> None:
    unfinished = [run.id for run in runs if not run.is_finished and run.open_changes]
    if unfinished:
        words = f"run {unfinished[-1]} was interrupted"
        raise ApplyRefused((f"{words}: finish it with magnus apply --resume, or magnus rollback {unfinished[-1]}",))


async def _resume(wanted: Wanted, environ: Mapping[str, str]) -> Answer | Failure:
    await tuning.revive(wanted.dsn, wanted.journal, environ)
    async with tuning.opened(wanted.dsn, environ, "magnus apply") as session:
        journal = tuning.journal(session, wanted.journal, environ)
        run = next((run for run in reversed(tuning.runs(session, journal)) if not run.is_finished), None)
        if run is None:
            return Answer("apply", {"run": None}, ["Nothing to resume: no run on this server was interrupted."])
        render.note(tuning.identity(session.server))
        render.note(f"run {run.id} made {len(run.open_changes)} of {len(run.begun.data['plan']['changes'])}")
        name = tuning.name_of(session.server)
        if refusal := tuning.agreed("apply", session.server, name, is_agreed=wanted.is_agreed, confirm=wanted.confirm):
            return refusal
        restarting = replace(wanted, is_restarting=wanted.is_restarting or run.begun.data["restart"])
        options = executor.Options(tuning.service(session, restarting), wanted.guard_timeout, wanted.reason)
        journal.prepare()
        with journal.exclusively():
            try:
                outcome = await executor.resume(session, journal, run, options, tuning.scripts())
            except ApplyFailed as error:
                return _failed(error, journal)
    return _done(outcome)


async def _tried(session: Session, plan: Plan, admitted: Admitted, wanted: Wanted) -> Report:
    if wanted.is_untried:
        return Report("not tried", ("--skip-preflight",))
    return await rehearse(session, admitted.changes, plan.assumptions.memory)


def _words(report: Report) -> str:
    notes = f": {'; '.join(report.notes)}" if report.notes else ""
    memory = f", {shown(report.shared_memory)} of shared memory" if report.shared_memory else ""
    return f"preflight: {report.status}{memory}{notes}"


def _done(outcome: executor.Outcome) -> Answer:
    text = [f"Applied {len(outcome.made)}. Run {outcome.run}. Undo: magnus rollback {outcome.run}"]
    if outcome.waiting:
        text.append(f"Waiting for a restart: {', '.join(outcome.waiting)}. Do it with: magnus apply FILE --restart")
    if outcome.deferred:
        text.append(f"To be made after the restart: {', '.join(outcome.deferred)}. Repeat: magnus apply FILE")
    data = {"run": outcome.run, "outcome": outcome.status, "made": list(outcome.made)}
    data |= {"waiting_for_restart": list(outcome.waiting), "deferred": list(outcome.deferred)}
    return Answer("apply", data, text)


def _rows(admitted: Admitted) -> list[tuple[str, str, str, str]]:
    return [(c.id, c.before or "-", c.after or "-", _WHEN[c.context]) for c in admitted.changes]


def _shown(plan: Plan, admitted: Admitted, rows: Sequence[tuple[str, ...]], tried: Report) -> Answer:
    data: dict[str, Any] = {
        "digest": plan.digest,
        "changes": [{"id": c.id, "before": c.before, "after": c.after, "sql": list(c.sql)} for c in admitted.changes],
        "present": list(admitted.present),
        "waiting_for_restart": list(admitted.waiting),
        "warnings": list(admitted.warnings),
        "preflight": {"status": tried.status, "notes": list(tried.notes), "shared_memory": tried.shared_memory},
    }
    if not rows and not admitted.waiting:
        return Answer("apply", data, ["No changes. The server is as the plan wants it."])
    text = [*(f"note: {warning}" for warning in admitted.warnings), _words(tried)]
    return Answer("apply", data, [*tuning.columns([("change", "now", "then", "in force"), *rows]), *text])


def _describe(session: Session, admitted: Admitted, rows: Sequence[tuple[str, ...]], wanted: Wanted) -> None:
    late = sum(1 for row in rows if row[3] == "restart")
    asked = "requested" if wanted.is_restarting else "not requested"
    render.note(tuning.identity(session.server))
    for line in tuning.columns(rows) if rows else ():
        render.note(f"  {line}")
    for warning in admitted.warnings:
        render.note(f"note: {warning}")
    if late or admitted.waiting:
        render.note(f"{late + len(admitted.waiting)} need a restart ({asked}).")
