"""Autovacuum: on, within its memory, and heard of."""

from __future__ import annotations

from typing import Final

from magnus.tuning.rules.rule import Basis, Better, Keep, Rule, Want
from magnus.tuning.units import shown


def _on(basis: Basis) -> Want | None:
    del basis
    return Want("on", "without it tables bloat, and the server stops when transaction ids run out", risk="low")


def _work_mem(basis: Basis) -> Want | Keep | None:
    budget = basis.budget
    if budget is None:
        return Keep("5 % of the memory for all workers", "the memory that the server may use is not known", "--memory")
    value, now = budget.values.autovacuum_work_mem, budget.now.autovacuum_work_mem
    if value == now and not budget.fits:
        return None
    reason = f"{budget.workers} workers would each take maintenance_work_mem; together they get 5 % of the memory"
    cost = f"{shown(budget.workers * value)} for {budget.workers} workers"
    return Want(value, reason, cost=cost, is_strict=value < now)


def _duration(basis: Basis) -> Want | None:
    del basis
    reason = "a slow vacuum is the first sign of a table that needs its own settings"
    return Want(10_000, reason, better=Better.LOWER, cost="a log line for each run over 10 s")


RULES: Final = (
    Rule("autovacuum", "on", "PostgreSQL documentation, 'Routine Vacuuming' (wraparound)", _on),
    Rule("track_counts", "on", "autovacuum cannot see what changed without it", _on),
    Rule(
        "autovacuum_work_mem",
        "min(maintenance_work_mem, 5 % of M / autovacuum_max_workers)",
        "left at -1 every worker takes maintenance_work_mem",
        _work_mem,
        cap="5 % of M for all workers",
    ),
    Rule("log_autovacuum_min_duration", "10 s", "default 10 min since 15", _duration),
)
