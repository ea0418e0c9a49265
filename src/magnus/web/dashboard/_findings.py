"""What `magnus check` says of a server, as the page shows it; pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from magnus.tuning import checks

if TYPE_CHECKING:
    from magnus.tuning.checks import Snapshot

_MOST: Final = 200


def findings(snapshot: Snapshot) -> dict[str, Any]:
    """
    Return what the checks say of a snapshot, the worst first, and how many of them are content.
    """
    results = [checks.run(check, snapshot) for check in checks.CHECKS]
    rows = [
        {
            "code": result.check.code,
            "title": result.check.title,
            **{name: str(getattr(finding, name)) for name in ("severity", "object", "evidence", "fix", "undo")},
        }
        for result in results
        for finding in sorted(result.verdict.findings, key=lambda finding: -finding.severity.rank)
    ]
    rows.sort(key=lambda row: -checks.Severity(row["severity"]).rank)
    severities, states = Counter(row["severity"] for row in rows), Counter(result.state for result in results)
    return {
        "summary": {
            **{str(severity): severities[str(severity)] for severity in checks.Severity},
            "ok": states[checks.State.OK],
            "unknown": states[checks.State.UNKNOWN],
        },
        "rows": rows[:_MOST],
        "more": max(0, len(rows) - _MOST),
        "unknown": [
            {"code": result.check.code, "title": result.check.title, "missing": result.verdict.missing}
            for result in results
            if result.state is checks.State.UNKNOWN
        ],
    }
