"""What a check is and what it may answer: finding, ok or unknown, with evidence; it knows no server and no terminal."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from magnus.tuning.checks._snapshot import Unseen

if TYPE_CHECKING:
    from collections.abc import Callable

    from magnus.tuning.checks._snapshot import Snapshot


class Severity(enum.StrEnum):
    """
    How much a finding matters: `ERROR` loses data or stops the service, `WARNING` costs, `INFO` is worth knowing.
    """

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def rank(self) -> int:
        """
        Grows with the severity.
        """
        return list(Severity).index(self)


class State(enum.StrEnum):
    """
    What a check found out. `UNKNOWN` is never `OK`: something that it needs could not be seen.
    """

    OK = "ok"
    FINDING = "finding"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """
    One thing that is wrong.

    Attributes:
        object: What it is about: a setting, a table, a session.
        evidence: What was measured.
        fix: The command that changes it, or what to do.
        undo: The command that takes `fix` back.
    """

    severity: Severity
    object: str
    evidence: str
    fix: str
    undo: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    What a check's judgement returns.

    Attributes:
        findings: None is fine, if everything was examined.
        summary: One line for people when there is no finding.
        examined: How many objects were looked at, of `of` that exist; None when there is nothing to count.
        missing: Why the rest could not be looked at, and what would show it.
    """

    findings: tuple[Finding, ...] = ()
    summary: str = ""
    examined: int | None = None
    of: int | None = None
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """
    One check with its documentation. `judge` is pure; it raises `Unseen` when what it needs is not in the snapshot.

    Attributes:
        code: A letter for the group and a number; it never changes its meaning.
        reads: The parts of the snapshot that it needs.
    """

    code: str
    title: str
    why: str
    threshold: str
    fix: str
    undo: str
    reads: tuple[str, ...]
    judge: Callable[[Snapshot], Verdict]

    @property
    def page(self) -> str:
        """
        Where it is described.
        """
        return f"docs/checks.md#{self.code.lower()}"


@dataclass(frozen=True, slots=True)
class Result:
    """
    What one check said of one snapshot.
    """

    check: Check
    state: State
    verdict: Verdict

    @property
    def severity(self) -> Severity | None:
        """
        That of the worst finding.
        """
        return max((found.severity for found in self.verdict.findings), key=lambda each: each.rank, default=None)

    @property
    def examined(self) -> str:
        """
        "examined n of m", or nothing when there is nothing to count.
        """
        verdict = self.verdict
        return "" if not verdict.of else f"examined {verdict.examined or 0:,} of {verdict.of:,}"


def check(
    code: str, title: str, *, why: str, threshold: str, fix: str, undo: str, reads: tuple[str, ...]
) -> Callable[[Callable[[Snapshot], Verdict]], Check]:
    """
    Make a judgement a check; its documentation stands above it.
    """
    return lambda judge: Check(code, title, why, threshold, fix, undo, reads, judge)


def run(one: Check, seen: Snapshot) -> Result:
    """
    Judge a snapshot with one check.

    What was not seen is unknown: a part that could not be read, an `Unseen` that the judgement raised, or objects that
    it had to leave out while it found nothing in the rest.
    """
    try:
        for part in one.reads:
            seen.rows(part)
        verdict = one.judge(seen)
    except Unseen as unseen:
        return Result(one, State.UNKNOWN, Verdict(missing=unseen.reason))
    if verdict.findings:
        return Result(one, State.FINDING, verdict)
    return Result(one, State.UNKNOWN if verdict.missing else State.OK, verdict)
