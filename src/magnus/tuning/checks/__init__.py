"""The checks, one file a group: a frozen snapshot -> finding, ok or unknown, with evidence; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from magnus.tuning.checks import (
    access,
    indexes,
    memory,
    quick_wins,
    replication,
    schema,
    server,
    sessions,
    statements,
    vacuum,
    wal,
)
from magnus.tuning.checks._fixes import index_name
from magnus.tuning.checks._model import Check, Finding, Result, Severity, State, Verdict, run
from magnus.tuning.checks._snapshot import Missing, Snapshot, Unseen
from magnus.tuning.checks.indexes import by_table, is_covered, redundant, to_describe, unused_candidates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from magnus.tuning.checks._snapshot import Row as Row

__all__ = [
    "CHECKS",
    "GROUPS",
    "Check",
    "Finding",
    "Missing",
    "Result",
    "Severity",
    "Snapshot",
    "State",
    "Unseen",
    "Verdict",
    "by_table",
    "handbook",
    "index_name",
    "is_covered",
    "redundant",
    "run",
    "select",
    "to_describe",
    "unused_candidates",
]

GROUPS: Final = {
    "Server": server, "Statements": statements, "Memory": memory, "Connections and transactions": sessions,
    "Vacuum": vacuum, "Indexes": indexes, "Tables": schema, "WAL and disk": wal, "Replication": replication,
    "Access and logging": access, "Quick wins": quick_wins,
}  # fmt: skip
CHECKS: Final[tuple[Check, ...]] = tuple(check for module in GROUPS.values() for check in module.CHECKS)


def select(only: Sequence[str], ignore: Sequence[str]) -> tuple[tuple[Check, ...], tuple[str, ...]]:
    """
    Return the checks whose code begins with one of `only` (all, when there is none) and with none of `ignore`, and the
    words that name no check.
    """
    words = [word.upper() for item in (*only, *ignore) for word in item.split(",") if word]
    unknown = tuple(word for word in words if not any(check.code.startswith(word) for check in CHECKS))
    wanted = tuple(word.upper() for item in only for word in item.split(",") if word) or ("",)
    unwanted = tuple(word.upper() for item in ignore for word in item.split(",") if word)
    found = (check for check in CHECKS if check.code.startswith(wanted) and not check.code.startswith(unwanted))
    return tuple(found), unknown


def handbook(checks: Sequence[Check] = CHECKS) -> str:
    """
    Describe checks as a page of Markdown.
    """
    by_code = {check.code: name for name, module in GROUPS.items() for check in module.CHECKS}
    parts = [_HEAD] if len(checks) == len(CHECKS) else []
    group = ""
    for check in checks:
        if by_code[check.code] != group and parts:
            group = by_code[check.code]
            parts.append(f"## {group}\n")
        parts.append(describe(check))
    return "\n".join(parts).rstrip("\n") + "\n"


def describe(check: Check) -> str:
    """
    Describe one check.
    """
    return (
        f"### {check.code}\n\n**{check.title}.** {check.why}\n\n- Threshold: {check.threshold}.\n- Fix: "
        f"{check.fix.rstrip('.')}.\n"
        f"- Undo: {check.undo.rstrip('.')}.\n"
    )


_HEAD: Final = """# The checks

`magnus check` reads catalogues and statistics in one read-only snapshot, and says of each check: a finding, ok, or
unknown. Unknown is never ok: it names what is missing, a permission, older statistics, an extension. Use is judged only
on statistics that are old enough. `magnus explain CODE` prints one of these paragraphs; `magnus explain` printed this
page.
"""
