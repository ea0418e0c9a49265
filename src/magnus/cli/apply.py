"""`magnus apply`: a plan's file, made real on the server it was made for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from magnus.cli import render, tuning
from magnus.cli.answer import Answer, ExitCode, Failure, Table
from magnus.errors import ApplyFailed, ConfigError
from magnus.tuning import admission, executor
from magnus.tuning.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from magnus.tuning.admission import Admitted
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
    plan = _plan(wanted)
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
        rows = _rows(admitted)
        if wanted.is_dry or not (admitted.changes or admitted.waiting):
            return _shown(plan, admitted, rows)
        name = tuning.name_of(session.server)
        _describe(session, admitted, rows, wanted)
        if refusal := tuning.agreed("apply", session.server, name, is_agreed=wanted.is_agreed, confirm=wanted.confirm):
            return refusal
        return await _make(session, plan, admitted, wanted, environ)


def _plan(wanted: Wanted) -> Plan:
    if wanted.file is None:
        raise ConfigError("FILE", None, "name the plan's file; make one with: magnus plan --out plan.json")
    try:
        plan = Plan.loads(wanted.file.read_text())
    except OSError as error:
        raise ConfigError("FILE", str(wanted.file), f"cannot be read: {error.strerror}") from error
    return plan.only(tuning.expanded(plan, wanted.only)) if wanted.only else plan


async def _make(
    session: Session, plan: Plan, admitted: Admitted, wanted: Wanted, environ: Mapping[str, str]
) -> Answer | Failure:
    journal = tuning.journal(session, wanted.journal, environ)
    journal.prepare()
    options = executor.Options(tuning.service(session, wanted), wanted.guard_timeout, wanted.reason)
    with journal.exclusively():
        try:
            outcome = await executor.apply(session, plan, admitted, journal, options)
        except ApplyFailed as error:
            run = journal.entries[-1].run
            code = ExitCode.PARTLY if error.applied else ExitCode.REFUSED
            return Failure("apply", code, str(error), f"take back what was made: magnus rollback {run}")
    return _done(outcome)


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


def _shown(plan: Plan, admitted: Admitted, rows: Sequence[tuple[str, ...]]) -> Answer:
    data: dict[str, Any] = {
        "digest": plan.digest,
        "changes": [{"id": c.id, "before": c.before, "after": c.after, "sql": list(c.sql)} for c in admitted.changes],
        "present": list(admitted.present),
        "waiting_for_restart": list(admitted.waiting),
        "warnings": list(admitted.warnings),
    }
    if not rows and not admitted.waiting:
        return Answer("apply", data, ["No changes. The server is as the plan wants it."])
    text = [f"note: {warning}" for warning in admitted.warnings]
    return Answer("apply", data, text, [Table(("change", "now", "then", "in force"), rows)])


def _describe(session: Session, admitted: Admitted, rows: Sequence[tuple[str, ...]], wanted: Wanted) -> None:
    late = sum(1 for row in rows if row[3] == "restart")
    asked = "requested" if wanted.is_restarting else "not requested"
    render.progress(tuning.identity(session.server))
    for change, now, then, when in rows:
        render.progress(f"  {change}: {now} -> {then} ({when})")
    for warning in admitted.warnings:
        render.progress(f"note: {warning}")
    if late or admitted.waiting:
        render.progress(f"{late + len(admitted.waiting)} need a restart ({asked}).")
