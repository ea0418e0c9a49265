"""`magnus verify`: what was applied, seen as the application sees it, and whether queries became faster or slower."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from magnus.cli import render, tuning
from magnus.cli.answer import Answer, ExitCode, Failure, Table
from magnus.errors import ConfigError
from magnus.tuning import effect, statements, undo
from magnus.tuning.change import Kind
from magnus.tuning.effect import Compared, Snapshot
from magnus.tuning.effect import Verdict as Speed
from magnus.tuning.inspect import Finding, State, findings, last_of_each

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from magnus.tuning.ledger import Run
    from magnus.tuning.session import Connection, Session

_SHOWN: Final = 10
# The reports that people run by hand; they must work for whoever reads them.
_PROBES: Final[Mapping[str, str]] = {
    "quick-win-1": "SELECT calls, round(mean_exec_time::numeric, 2) FROM public.pg_stat_statements LIMIT 1",
    "quick-win-5": (
        "SELECT query, count(*), round(avg(duration_ms), 2), round(max(duration_ms), 2) FROM public.slow_query_log "
        "WHERE timestamp > now() - interval '1 day' GROUP BY query LIMIT 20"
    ),
}


@dataclass(frozen=True)
class Wanted:
    """
    The arguments of the command.
    """

    run: str | None = None
    dsn: str | None = None
    app_dsn: str | None = None
    journal: Path | None = None
    min_calls: int = 30
    max_regression: float = 0.1
    is_taking_back: bool = False


async def verify(wanted: Wanted, environ: Mapping[str, str]) -> Answer | Failure:
    """
    Look at every change and at the counters; on request take back what can be without a restart.

    Raises:
        MagnusError: what `tuning.guarded` turns into a line and an exit code.
    """
    async with tuning.opened(wanted.dsn, environ, "magnus verify") as session:
        runs = tuning.runs(session, tuning.journal(session, wanted.journal, environ))
        chosen = _chosen(runs, wanted.run)
        if not chosen:
            return Answer(
                "verify", {"findings": []}, ["Nothing was applied to this server, or all of it was taken back."]
            )
        app = await tuning.application(session, wanted.app_dsn)
        try:
            found = await findings(session, last_of_each(chosen), app)
            wins = await _wins(session, found)
        finally:
            app.terminate()
        whole, rows = await _effect(session, chosen[-1], wanted)
        taken = None
        if whole.verdict is Speed.WORSE and wanted.is_taking_back:
            taken = await _take_back(session, chosen[-1], runs, wanted, environ)
    return _answer(found, wins, whole, rows, gains=_gains(chosen[-1], rows), taken=taken, wanted=wanted)


def _chosen(runs: Sequence[Run], name: str | None) -> list[Run]:
    standing = [run for run in runs if run.open_changes]
    if name is None:
        return standing
    found = [run for run in runs if run.id == name]
    if not found:
        raise ConfigError("RUN", name, "is not in this server's journal; see: magnus history")
    return [run for run in found if run.open_changes]


async def _wins(session: Session, found: Sequence[Finding]) -> dict[str, bool]:
    """
    A quick win holds when all its changes do and its own report works.
    """
    names = sorted({win for finding in found for win in finding.quick_win}, key=lambda name: int(name.split("-")[-1]))
    result = {}
    for name in names:
        is_good = all(finding.is_good for finding in found if name in finding.quick_win)
        result[name] = is_good and await _works(session.con, _PROBES.get(name))
    return result


async def _works(con: Connection, sql: str | None) -> bool:
    if sql is None:
        return True
    try:
        await con.fetch(sql)
    except asyncpg.PostgresError:
        return False
    return True


async def _effect(session: Session, run: Run, wanted: Wanted) -> tuple[Compared, tuple[Compared, ...]]:
    baseline = run.begun.data.get("baseline")
    before = None if baseline is None else Snapshot.from_json(baseline)
    after = await statements.snapshot(session.con)
    return effect.compare(before, after, min_calls=wanted.min_calls, max_regression=wanted.max_regression)


def _gains(run: Run, rows: Sequence[Compared]) -> dict[str, Speed]:
    """
    Return whether each index of a run pays, by the statements that it was made for.
    """
    made = [each.change for each in run.open_changes if each.change["kind"] == Kind.INDEX and each.change["after"]]
    wanted = {change["id"]: change["evidence"].get("statements", "").split(", ") for change in made}
    return {name: effect.gain(statements, rows) for name, statements in wanted.items()}


async def _take_back(
    session: Session, run: Run, runs: Sequence[Run], wanted: Wanted, environ: Mapping[str, str]
) -> undo.Undone:
    """
    Take back what this run changed and what a reload is enough for.
    """
    journal = tuning.journal(session, wanted.journal, environ)
    items = [
        made
        for made in reversed(run.open_changes)
        if made.change["kind"] in {"setting", "role_setting"} and made.change["context"] != "restart"
    ]
    steps = await undo.look_at(session, items, runs)
    for step in steps:
        render.note(f"  {step.words}")
    journal.prepare()
    with journal.exclusively():
        return await undo.carry_out(session, journal, steps)


def _answer(
    found: Sequence[Finding],
    wins: Mapping[str, bool],
    whole: Compared,
    rows: Sequence[Compared],
    *,
    gains: Mapping[str, Speed],
    taken: undo.Undone | None,
    wanted: Wanted,
) -> Answer:
    bad = [finding for finding in found if not finding.is_good]
    data: dict[str, Any] = {
        "findings": [
            {"id": f.id, "run": f.run, "expected": f.expected, "found": f.found, "state": str(f.state), "why": f.why}
            for f in found
        ],
        "quick_wins": dict(wins),
        "seen_by": "application" if wanted.app_dsn else "operator",
        "effect": _as_json(whole),
        "queries": [_as_json(row) for row in rows],
        "indexes": [{"id": name, "verdict": str(verdict)} for name, verdict in gains.items()],
        "taken_back": None if taken is None else undo.report(taken),
    }
    text = [f"{'ok  ' if is_good else 'no  '} {name}" for name, is_good in wins.items()]
    text.append(f"{len(found) - len(bad)} of {len(found)} changes are in force.")
    text += [f"no   {f.id}: {f.state}{f': {f.why}' if f.why else ''}" for f in bad]
    if not wanted.app_dsn:
        text.append("Seen by the operator's own session; --app-dsn shows what the application's sees.")
    text.append(_effect_line(whole))
    for name, verdict in gains.items():
        text.append(f"{name}: the statements that it was made for: {verdict}")
        if verdict in {Speed.SAME, Speed.WORSE}:
            text.append(f"It does not pay, and every write pays for it. Drop it: magnus rollback {shlex.quote(name)}")
    if taken is not None:
        text.append(f"Took back {len(taken.done)} changes that a reload is enough for.")
    elif whole.verdict is Speed.WORSE:
        text.append("Take back what a reload is enough for: magnus verify --rollback-if-worse; all: magnus rollback")
    is_bad = bool(bad) or whole.verdict is Speed.WORSE
    table = Table(
        ("query", "calls", "before ms", "after ms", "change", "verdict"),
        [_cells(row) for row in rows if row.verdict is not Speed.UNKNOWN][:_SHOWN],
    )
    tables = [table] if table.rows else []
    return Answer("verify", data, text, tables, exit_code=ExitCode.NO if is_bad else ExitCode.DONE)


def _effect_line(whole: Compared) -> str:
    if whole.verdict is Speed.UNKNOWN:
        return "Effect: not enough data (pg_stat_statements was not read at apply, or too little ran since)."
    return (
        f"Effect over {whole.calls} calls: {whole.before:.3g} ms -> {whole.after:.3g} ms a call "
        f"({whole.change:+.1%}): {whole.verdict}"
    )


def _as_json(row: Compared) -> dict[str, Any]:
    return {
        "query": row.query,
        "calls": row.calls,
        "before_ms": round(row.before, 4),
        "after_ms": round(row.after, 4),
        "change": round(row.change, 4),
        "verdict": str(row.verdict),
    }


def _cells(row: Compared) -> tuple[str, int, str, str, str, str]:
    text = " ".join(row.query.split())
    short = text if len(text) <= 60 else f"{text[:57]}..."
    return (short, row.calls, f"{row.before:.3f}", f"{row.after:.3f}", f"{row.change:+.1%}", str(row.verdict))


async def drift(dsn: str | None, journal: Path | None, environ: Mapping[str, str]) -> Answer | Failure:
    """
    Say which of our changes somebody else changed since, or took away.

    Raises:
        MagnusError: what `tuning.guarded` turns into a line and an exit code.
    """
    async with tuning.opened(dsn, environ, "magnus drift") as session:
        runs = tuning.runs(session, tuning.journal(session, journal, environ))
        found = await findings(session, last_of_each(runs))
        moved = [finding for finding in found if finding.state not in {State.IN_FORCE, State.WAITING}]
        late = [finding for finding in found if finding.state is State.WAITING]
    text = [f"{f.id}: {f.state} (ours {f.expected}, now {f.found}); {f.why}" for f in moved]
    text += [f"{f.id}: {f.state}" for f in late]
    text.append(f"{len(found)} changes of ours, {len(moved)} drifted.")
    data = {
        "examined": len(found),
        "drifted": [{"id": f.id, "run": f.run, "now": f.found, "why": f.why} for f in moved],
    }
    return Answer("drift", data, text, exit_code=ExitCode.NO if moved else ExitCode.DONE)
