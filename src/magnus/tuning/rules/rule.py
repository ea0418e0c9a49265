"""A rule: one setting, its formula and source in words, and the function that decides; pure.

A rule says which value is right. Whether that is worth a change (it differs by more than 5 % and is not already
better), and whether this server would take it, is judged here for all rules alike.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from magnus.tuning.facts import Facts, Server
    from magnus.tuning.rules.budget import Budget
    from magnus.tuning.setting import Setting

DIFFERENCE: Final = 0.05
"""A change smaller than this is not worth a line (an idea of timescaledb-tune)."""


class Better(enum.Enum):
    """
    On which side of the recommended value a present one is left alone.
    """

    EXACT = "exact"
    HIGHER = "higher"
    LOWER = "lower"


@dataclass(frozen=True, slots=True)
class Basis:
    """
    What a rule looks at: the facts, and the memory budget where the memory is known.
    """

    facts: Facts
    budget: Budget | None

    @property
    def server(self) -> Server:
        """
        The server's facts.
        """
        return self.facts.server


@dataclass(frozen=True, slots=True)
class Want:
    """
    The right value of a setting: `value` as bytes, milliseconds, a plain number, or the text of a word or a list.

    `is_strict`: the present value is unsafe, however little it differs.
    """

    value: float | str
    reason: str
    better: Better = Better.EXACT
    risk: str = "low"
    cost: str = ""
    is_strict: bool = False
    evidence: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Keep:
    """
    A value was considered and is not planned. `considered` is its text.
    """

    considered: str
    reason: str
    instead: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """
    One setting's rule. `formula`, `cap` and `source` are what the documentation shows.

    `is_planned`: False for a rule that only says why a value is better left alone.
    """

    setting: str
    formula: str
    source: str
    decide: Callable[[Basis], Want | Keep | None]
    group: str = ""
    cap: str = ""
    is_planned: bool = True
    quick_win: tuple[str, ...] = ("quick-win-10",)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """
    A rule's outcome on one server: the text to set, and why.
    """

    rule: Rule
    setting: Setting
    value: str
    want: Want


@dataclass(frozen=True, slots=True)
class Declined:
    """
    A rule's outcome on one server: nothing is to be set, and why.
    """

    rule: Rule
    setting: Setting
    keep: Keep


def judge(rule: Rule, basis: Basis) -> Recommendation | Declined | None:
    """
    Apply one rule to the facts. None: this version lacks the setting, or what it has is right.
    """
    setting = basis.server.settings.get(rule.setting)
    found = None if setting is None else rule.decide(basis)
    if setting is None or found is None:
        return None
    if isinstance(found, Keep):
        return Declined(rule, setting, found)
    value = found.value if isinstance(found.value, str) else setting.write(found.value)
    following = setting.next
    if following.is_same(value) or (not found.is_strict and is_good(following, value, found.better)):
        return None if following.is_same(setting.value) else Declined(rule, setting, _written(following.text))
    obstacle = obstacle_to(setting, value)
    return Recommendation(rule, setting, value, found) if obstacle is None else Declined(rule, setting, obstacle)


def _written(value: str) -> Keep:
    return Keep(value, "already written to the server's files; it takes effect at the next restart", "restart it")


def is_good(setting: Setting, value: str, better: Better) -> bool:
    """
    Say whether the value in force is within 5 % of another one, or on its better side.

    -1 and 0 mean "as another setting", "off" or "no limit" rather than an amount, so they are compared as words; only
    where lower is better, 0 is (a log threshold of 0 logs all).
    """
    now, wanted = setting.amount, setting.read(value)
    if now == 0 and better is Better.LOWER:
        return True
    if now is None or wanted is None or now <= 0 or wanted <= 0:
        return setting.is_same(value)
    if abs(now - wanted) <= DIFFERENCE * wanted:
        return True
    return (better is Better.HIGHER and now > wanted) or (better is Better.LOWER and now < wanted)


def obstacle_to(setting: Setting, value: str) -> Keep | None:
    """
    Say why setting a value would not help, whatever the value: the server would refuse it, or something outranks it.
    """
    refusal = setting.refusal(value)
    if refusal is not None:
        return Keep(value, f"this server would refuse it: {refusal}")
    if setting.is_outranked:
        return Keep(
            value,
            f"given by the {setting.source}, which outranks ALTER SYSTEM: it would be accepted and change nothing",
            "change it where the server is started (unit file, docker command, operator), then restart",
        )
    if setting.source in {"database", "user", "database user"}:
        return Keep(
            value,
            f"the value seen is set for this {setting.source}; the server's own cannot be seen by this role",
            "read with a role that may see pg_file_settings (magnus role monitor), or reset the role's setting",
        )
    return None
