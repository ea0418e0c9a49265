"""Findings as SARIF 2.1.0 (OASIS Standard, 27 March 2020), the form that code-scanning services read; pure."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

from magnus.tuning.checks import Severity, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from magnus.tuning.checks import Finding, Result

_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"
_LEVELS: Final = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}


def sarif(target: str, results: Sequence[Result]) -> dict[str, Any]:
    """
    Return one run: the checks are its rules, the findings its results, and what is unknown its notifications.

    A finding is about an object of a database and not about a file, so it has a logical location. The same finding has
    the same fingerprint in every run.
    """
    rules = {result.check.code: place for place, result in enumerate(results)}
    return {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "magnus",
                        "version": metadata.version("magnus-db"),
                        "rules": [_rule(result) for result in results],
                    }
                },
                "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": _unknown(results)}],
                "results": [
                    _result(target, result, finding, rules[result.check.code])
                    for result in results
                    for finding in result.verdict.findings
                ],
            }
        ],
    }


def _rule(result: Result) -> dict[str, Any]:
    check = result.check
    return {
        "id": check.code,
        "shortDescription": {"text": check.title},
        "fullDescription": {"text": check.why},
        "help": {"text": f"Threshold: {check.threshold}\nFix: {check.fix}\nUndo: {check.undo}\nPage: {check.page}"},
    }


def _result(target: str, result: Result, finding: Finding, place: int) -> dict[str, Any]:
    return {
        "ruleId": result.check.code,
        "ruleIndex": place,
        "level": _LEVELS[finding.severity],
        "message": {"text": f"{finding.object}: {finding.evidence}\nFix: {finding.fix}\nUndo: {finding.undo}"},
        "locations": [
            {
                "logicalLocations": [
                    {"name": finding.object, "fullyQualifiedName": f"{target}/{finding.object}", "kind": "resource"}
                ]
            }
        ],
        "partialFingerprints": {"object/v1": f"{result.check.code}:{finding.object}"},
    }


def _unknown(results: Sequence[Result]) -> list[dict[str, Any]]:
    return [
        {
            "level": "note",
            "message": {"text": f"unknown: {result.verdict.missing}"},
            "associatedRule": {"id": result.check.code},
        }
        for result in results
        if result.state is State.UNKNOWN
    ]
