"""`magnus verify`: what was applied, seen as the application sees it, and whether queries became faster or slower."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from magnus.cli import render, tuning
from magnus.cli.answer import Answer, ExitCode, Failure, Table
from magnus.errors import ConfigError
from magnus.tuning import building, effect, statements, undo
from magnus.tuning.change import Kind
from magnus.tuning.effect import Compared, Snapshot
from magnus.tuning.effect import Verdict as Speed
from magnus.tuning.index_change import works
from magnus.tuning.inspect import Finding, State, findings, last_of_each
from magnus.tuning.payoff import Payoff, Worth, judge
from magnus.tuning.units import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from magnus.tuning.ledger import Run
    from magnus.tuning.session import Connection, Session

_SHOWN: Final = 10
# The reports that people run by hand, each over a relation; they must work wherever that is.
_BY_TIME: Final = """
SELECT calls, round(total_exec_time::numeric / 1000, 2), round(mean_exec_time::numeric, 2), left(query, 100)
FROM {place} WHERE calls > 10 ORDER BY total_exec_time DESC LIMIT 10
"""
_BY_CALLS: Final = """
SELECT calls, round(mean_exec_time::numeric, 2), left(query, 80) FROM {place} ORDER BY calls DESC LIMIT 20
"""
_SLOW: Final = """
SELECT query, count(*), round(avg(duration_ms), 2), round(max(duration_ms), 2) FROM {place}
WHERE timestamp > now() - interval '1 day' GROUP BY query ORDER BY 2 DESC, 3 DESC LIMIT 20
"""
_PROBES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "quick-win-1": ("pg_stat_statements", (_BY_TIME, _BY_CALLS)),
    "quick-win-5": ("slow_query_log", (_SLOW,)),
}
_PLACE: Final = """
SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = $1 AND c.relkind IN ('r', 'p', 'v') ORDER BY n.nspname <> 'public' LIMIT 1
"""


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
        after = await statements.snapshot(session.con)
        whole, rows = _effect(chosen[-1], after, wanted)
        worths = await _payoffs(session, chosen, after, wanted)
        taken = None
        if whole.verdict is Speed.WORSE and wanted.is_taking_back:
            poor = {payoff.id for payoff in worths if payoff.worth is Worth.DOES_NOT}
            taken = await _take_back(session, chosen[-1], runs, wanted, environ, poor=poor)
    return _answer(found, wins, whole, rows, worths=worths, taken=taken, wanted=wanted)


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


async def _works(con: Connection, probe: tuple[str, tuple[str, ...]] | None) -> bool:
    """
    Run the reports of a quick win; what one answers is for people, that it answers is asked here.
    """
    if probe is None:
        return True
    name, reports = probe
    place = await con.fetchval(_PLACE, name)
    if place is None:
        return False
    try:
        for report in reports:
            await con.fetch(report.format(place=place))
    except asyncpg.PostgresError:
        return False
    return True


def _baseline(run: Run) -> Snapshot | None:
    baseline = run.begun.data.get("baseline")
    return None if baseline is None else Snapshot.from_json(baseline)


def _effect(run: Run, after: Snapshot | None, wanted: Wanted) -> tuple[Compared, tuple[Compared, ...]]:
    return effect.compare(_baseline(run), after, min_calls=wanted.min_calls, max_regression=wanted.max_regression)


async def _payoffs(session: Session, runs: Sequence[Run], after: Snapshot | None, wanted: Wanted) -> list[Payoff]:
    """
    Judge each index that was made and stands.
    """
    baselines = {run.id: _baseline(run) for run in runs}
    found = []
    for made in last_of_each(runs):
        change = made.change
        if change["kind"] != Kind.INDEX or change["after"] is None:
            continue
        found.append(
            judge(
                made.id,
                baselines[made.run],
                after,
                queryids=frozenset(change["evidence"].get("statements", "").split(", ")),
                table=works(tuple(change["sql"]))[-1].table,
                usage=await building.usage(session, made.image["absent"], change["database"]),
                min_calls=wanted.min_calls,
                max_regression=wanted.max_regression,
            )
        )
    return found


async def _take_back(
    session: Session, run: Run, runs: Sequence[Run], wanted: Wanted, environ: Mapping[str, str], *, poor: set[str]
) -> undo.Undone:
    """
    Take back what this run changed and what a reload is enough for, and its indexes that do not pay.
    """
    journal = tuning.journal(session, wanted.journal, environ)
    items = [
        made
        for made in reversed(run.open_changes)
        if (made.change["kind"] in {Kind.SETTING, Kind.ROLE_SETTING} and made.change["context"] != "restart")
        or made.id in poor
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
    taken: undo.Undone | None,
    worths: Sequence[Payoff],
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
        "indexes": [_payoff_as_json(payoff) for payoff in worths],
        "taken_back": None if taken is None else undo.report(taken),
    }
    text = [f"{'ok  ' if is_good else 'no  '} {name}" for name, is_good in wins.items()]
    text.append(f"{len(found) - len(bad)} of {len(found)} changes are in force.")
    text += [f"no   {f.id}: {f.state}{f': {f.why}' if f.why else ''}" for f in bad]
    if not wanted.app_dsn:
        text.append("Seen by the operator's own session; --app-dsn shows what the application's sees.")
    text.append(_effect_line(whole))
    text += [line for payoff in worths for line in _payoff_lines(payoff)]
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


def _payoff_lines(payoff: Payoff) -> list[str]:
    usage = payoff.usage
    used = "it is gone" if usage is None else f"{usage.scans} scans, {shown(usage.size)}"
    lines = [f"{payoff.id}: {payoff.worth} ({used})"]
    for what, part in (("its statements", payoff.reads), ("writes of its table", payoff.writes)):
        if part.verdict is not Speed.UNKNOWN:
            mean = f"{part.before:.3g} ms -> {part.after:.3g} ms a call ({part.change:+.1%}, {part.calls} calls)"
            lines.append(f"  {what}: {mean}: {part.verdict}")
    if payoff.worth is Worth.DOES_NOT:
        lines.append(f"  every write pays for it; drop it: {_drop(payoff)}")
    return lines


def _drop(payoff: Payoff) -> str:
    return f"magnus rollback {shlex.quote(payoff.id)}"


def _payoff_as_json(payoff: Payoff) -> dict[str, Any]:
    usage = payoff.usage
    return {
        "id": payoff.id,
        "verdict": str(payoff.worth),
        "saved_ms": round(payoff.saved, 3),
        "statements": _as_json(payoff.reads),
        "writes": _as_json(payoff.writes),
        "scans": None if usage is None else usage.scans,
        "size": None if usage is None else usage.size,
        "drop": _drop(payoff) if payoff.worth is Worth.DOES_NOT else None,
    }


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
