"""A plan as lines for people: changes by when they take effect, the proof, what is not planned, what to do next."""

from __future__ import annotations

import itertools
from importlib import metadata
from typing import TYPE_CHECKING, Final

from magnus.tuning.change import Kind
from magnus.tuning.mission import LIST
from magnus.tuning.setting import Context
from magnus.tuning.units import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from magnus.tuning.change import Change
    from magnus.tuning.mission import Judgement
    from magnus.tuning.plan import Plan

_HEADINGS: Final = {
    Context.NOW: "now: in force as soon as it is applied",
    Context.NEW_SESSIONS: "new sessions: in force for those that begin afterwards",
    Context.RESTART: "restart: in force after the server's next start",
}
_FEW: Final = 12


def lines_of(plan: Plan, identity: str, out: Path | None, judged: Sequence[Judgement] = ()) -> list[str]:
    """
    Return a plan as lines.
    """
    return [
        f"magnus {metadata.version('magnus-db')}  {identity}",
        *_assumptions(plan),
        *(f"warning: {warning}" for warning in plan.warnings),
        *_changes(plan),
        *_proof(plan),
        *_refused(plan),
        *_order(plan),
        *mission_lines(judged),
        "",
        *_summary(plan, out),
    ]


def _assumptions(plan: Plan) -> Iterator[str]:
    found = plan.assumptions
    parts = [
        "memory not known" if found.memory is None else f"{shown(found.memory)} ({found.memory_source})",
        "CPUs not known"
        if found.cpus is None
        else f"{found.cpus} CPU{'s' if found.cpus != 1 else ''} ({found.cpus_source})",
        "storage not known" if found.storage is None else f"{found.storage} ({found.storage_source})",
        found.profile,
        f"{found.connections} sessions ({found.connections_source})",
    ]
    yield f"planned for {', '.join(parts)}"


def _changes(plan: Plan) -> Iterator[str]:
    if not plan.changes:
        return
    yield ""
    yield "+ create  ~ change  - drop"
    width = min(40, max(len(_label(change)) for change in plan.changes))
    for context, heading in _HEADINGS.items():
        found = [change for change in plan.changes if change.context is context]
        if found:
            yield ""
            yield heading
        for change in found:
            yield from _change(change, width)


def _change(change: Change, width: int) -> Iterator[str]:
    wins = ", ".join(change.quick_win)
    yield f"  {_sign(change)} {_label(change):{width}}  {_values(change)}  [{wins}, risk {change.risk}]"
    yield f"      {change.reason}"
    if change.cost:
        yield f"      cost  {change.cost}"
    if change.evidence:
        yield f"      seen  {', '.join(f'{name} {value}' for name, value in change.evidence.items())}"


def _label(change: Change) -> str:
    if change.kind is Kind.ROLE_SETTING:
        return f"role {change.role}: {change.name}"
    kind = "" if change.kind is Kind.SETTING else f"{change.kind} "
    return f"{kind}{change.name}"


def _values(change: Change) -> str:
    if change.kind in {Kind.SETTING, Kind.ROLE_SETTING}:
        return f"{change.before or _EMPTY} -> {change.after or _EMPTY}"
    return f"in database {change.database}"


_EMPTY: Final = "(nothing)"


def _sign(change: Change) -> str:
    if change.kind in {Kind.SETTING, Kind.ROLE_SETTING}:
        return "~"
    return "+" if change.before is None else "-"


def _proof(plan: Plan) -> Iterator[str]:
    proof = plan.proof
    if proof is None:
        return
    verdict = "holds" if proof.holds else "does NOT hold"
    yield ""
    yield (
        f"memory proof: {verdict}. At worst {shown(proof.total)} of {shown(proof.limit)} (before this plan "
        f"{shown(proof.before)})"
    )
    for name, size in proof.terms:
        yield f"  {shown(size):>8}  {name}"


def _refused(plan: Plan) -> Iterator[str]:
    if plan.refused:
        yield ""
        yield "considered and not planned"
    for (reason, instead), group in itertools.groupby(
        plan.refused, key=lambda refusal: (refusal.reason, refusal.instead)
    ):
        for refusal in group:
            now = f"  {refusal.current} stays ({refusal.considered} was considered)" if refusal.current else ""
            yield f"    {refusal.name}{now}"
        yield f"      {reason}"
        if instead:
            yield f"      instead  {instead}"


def _order(plan: Plan) -> Iterator[str]:
    if plan.order:
        yield ""
        yield "order"
    for number, step in enumerate(plan.order, 1):
        yield f"  {number}. {step}"


def _summary(plan: Plan, out: Path | None) -> Iterator[str]:
    if not plan.changes:
        yield "Nothing to change." if plan.refused else "No changes. The server matches the advice."
    else:
        signs = [_sign(change) for change in plan.changes]
        restarts = sum(change.context is Context.RESTART for change in plan.changes)
        needs = f"{restarts} need a restart" if restarts != 1 else "1 needs a restart"
        counts = f"{signs.count('+')} to create, {signs.count('~')} to change, {signs.count('-')} to drop"
        yield f"Plan: {counts}. {needs if restarts else 'No restart needed'}."
    if out is not None:
        yield f"Saved to {out} (sha256 {plan.digest[:_FEW]}…)."
        if plan.changes:
            yield f"Apply exactly this: magnus apply {out}"
    elif plan.changes:
        yield "Note: not saved, apply would plan again. Save it: --out plan.json"


def mission_lines(judged: Sequence[Judgement]) -> Iterator[str]:
    """
    Yield the judgement of the well-known list.
    """
    if judged:
        yield ""
        yield "the quick-win list, line by line"
    for item in judged:
        yield f"  {item.name} = {item.asked}" if item.name in LIST else f"  {item.name}: {item.asked}"
        yield f"      {item.verdict}: {item.reason}"
        yield f"      here  {item.here}"
