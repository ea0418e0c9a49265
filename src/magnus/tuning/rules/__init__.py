"""Rules, one file a group: facts -> recommendations with formula, reason and source; pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from magnus.tuning.rules import autovacuum, connections, logging, memory, planner, statistics, wal
from magnus.tuning.rules.budget import Budget, budget_of
from magnus.tuning.rules.rule import Basis, Declined, Keep, Recommendation, Rule, Want, judge

if TYPE_CHECKING:
    from magnus.tuning.facts import Facts

__all__ = ["RULES", "Basis", "Budget", "Declined", "Keep", "Recommendation", "Rule", "Want", "budget_of", "recommend"]

_GROUPS: Final = {
    "statistics": statistics,
    "memory": memory,
    "autovacuum": autovacuum,
    "planner": planner,
    "wal": wal,
    "connections": connections,
    "logging": logging,
}
RULES: Final = tuple(replace(rule, group=name) for name, module in _GROUPS.items() for rule in module.RULES)


def recommend(facts: Facts) -> tuple[Basis, tuple[Recommendation | Declined, ...]]:
    """
    Apply every rule to the facts; what is already right is not mentioned.
    """
    basis = Basis(facts, budget_of(facts))
    found = (judge(rule, basis) for rule in RULES)
    return basis, tuple(item for item in found if item is not None)
