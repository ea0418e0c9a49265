"""The findings of the checks as a panel: what `magnus check` says, at most once in some minutes; it judges nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from magnus.errors import TuningError
from magnus.tuning import checks, examine
from magnus.web.dashboard._panels import Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from magnus.config import DatabaseConfig
    from magnus.tuning.checks import Finding, Result, Snapshot

KEPT: Final = 300.0
"""Seconds between two examinations: what they find changes by the hour."""
LIMIT: Final = 30.0
"""Seconds that one may take; its statements are limited to two each."""
_MOST: Final = 500


async def findings(config: DatabaseConfig, environ: Mapping[str, str]) -> dict[str, Any]:
    """
    Examine the server on a connection of its own, and return what was found, the worst first. Cancelling ends it.

    Raises:
        Unavailable: the server is too old for the checks.
        ConnectError: it cannot be reached.
        asyncpg.PostgresError: it went away while it was read.
    """
    try:
        snapshot = await examine.examine_at(config, environ)
    except TuningError as error:
        raise Unavailable(str(error)) from None
    return await asyncio.to_thread(_judged, snapshot)  # a large schema takes longer than the loop can spare


def _judged(snapshot: Snapshot) -> dict[str, Any]:
    return panel([checks.run(check, snapshot) for check in checks.CHECKS])


def panel(results: list[Result]) -> dict[str, Any]:
    """
    Return rows and a summary of what the checks found.
    """
    found = [(result, finding) for result in results for finding in result.verdict.findings]
    found.sort(key=lambda each: -each[1].severity.rank)  # stable: by check within a severity
    severities = [str(finding.severity) for _, finding in found]
    states = [str(result.state) for result in results]
    return {
        "summary": {
            **{severity: severities.count(severity) for severity in ("error", "warning", "info")},
            "ok": states.count("ok"),
            "unknown": states.count("unknown"),
        },
        "shown": len(found[:_MOST]),
        "rows": [_row(result, finding) for result, finding in found[:_MOST]],
        "missing": [
            {"code": result.check.code, "why": result.verdict.missing} for result in results if result.verdict.missing
        ],
    }


def _row(result: Result, finding: Finding) -> dict[str, str]:
    return {
        "code": result.check.code,
        "title": result.check.title,
        **{name: str(getattr(finding, name)) for name in ("severity", "object", "evidence", "fix", "undo")},
    }
