"""The checks, one file a group: a frozen snapshot -> finding, ok or unknown, with evidence; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from magnus.tuning.checks._model import Check, Finding, Result, Severity, State, Verdict, run
from magnus.tuning.checks._snapshot import Missing, Snapshot, Unseen

if TYPE_CHECKING:
    from magnus.tuning.checks._snapshot import Row as Row  # noqa: PLC0414  # a public name

__all__ = ["CHECKS", "Check", "Finding", "Missing", "Result", "Severity", "Snapshot", "State", "Unseen", "Verdict", "run"]

CHECKS: Final[tuple[Check, ...]] = ()
