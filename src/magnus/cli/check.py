"""`magnus check` and `magnus explain`: what the checks found, for people and in each machine's format."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from magnus.cli.answer import Answer, ExitCode, Failure, OutputFormat, Table
from magnus.cli.sarif import sarif
from magnus.cli.session import ADVICE
from magnus.config import DatabaseConfig
from magnus.errors import ConfigError, ConnectError
from magnus.tuning import checks, examine, units
from magnus.tuning.checks import Result, Severity, State

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from magnus.tuning.checks import Finding, Snapshot

_MOST_SHOWN: Final = 10
_GITHUB: Final = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}


@dataclass(frozen=True)
class Asked:
    """
    The options of `check`.
    """

    only: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    fail_on: str = "error"
    memory: str | None = None
    journal: Path | None = None


async def check(dsn: str | None, environ: Mapping[str, str], asked: Asked) -> Answer | Failure:
    """
    Examine the server.

    Raises:
        ConfigError: the target, a code or the memory has an impossible value.
    """
    wanted, unknown = checks.select(asked.only, asked.ignore)
    if unknown:
        raise ConfigError("--only/--ignore", unknown[0], "is no check; see magnus check --list")
    memory = None if asked.memory is None else units.memory(asked.memory)
    if asked.memory is not None and memory is None:
        raise ConfigError("--memory", asked.memory, "must be a size such as 8GB")
    config = DatabaseConfig.from_environ(environ, **({} if dsn is None else {"dsn": dsn}))
    try:
        snapshot = await examine.examine(dsn, environ, memory=memory, journal=asked.journal)
    except (ConnectError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        told = str(error) if isinstance(error, ConnectError) else "the connection was lost while reading"
        reason = getattr(error, "reason", "")
        return Failure("check", ExitCode.UNREACHABLE, f"{config.safe_dsn}: {told}", ADVICE.get(reason, ""))
    results = [checks.run(one, snapshot) for one in wanted]
    return answer(config.safe_dsn, snapshot, results, Severity(asked.fail_on))


def answer(target: str, snapshot: Snapshot, results: Sequence[Result], fail_on: Severity) -> Answer:
    """
    Return what was found, in every format.
    """
    server = snapshot.server
    failed = any(result.severity and result.severity.rank >= fail_on.rank for result in results)
    exit_code = ExitCode.NO if failed else ExitCode.DONE
    records = [_record(result) for result in results]
    head = {
        "magnus_version": metadata.version("magnus-db"),
        "dsn": target,
        "version": server["version"],
        "is_standby": server["is_standby"],
        "database": server["database"],
        "role": server["role"],
        "is_monitor": server["is_monitor"],
    }
    counts = _counts(results)
    return Answer(
        "check",
        {**head, "fail_on": str(fail_on), "counts": counts, "checks": records},
        text=[_printable(line) for line in (_title(target, server), *_lines(results), *_details(results))]
        + ["", _sum(counts, results)],
        also={
            OutputFormat.JSON_LINES: [
                json.dumps({"format_version": "1.0", **record}, default=str) for record in records
            ],
            OutputFormat.GITHUB: _github(results),
            OutputFormat.SARIF: [json.dumps(sarif(target, results), indent=2)],
        },
        exit_code=exit_code,
    )


def listing() -> Answer:
    """
    List the checks.
    """
    rows = [(one.code, one.title) for one in checks.CHECKS]
    data = [
        {"code": one.code, "title": one.title, "threshold": one.threshold, "page": one.page} for one in checks.CHECKS
    ]
    return Answer("check", {"checks": data}, tables=[Table(("code", "what holds when it is ok"), rows)])


def explain(code: str | None) -> Answer:
    """
    Describe one check, or all.

    Raises:
        ConfigError: there is no such check.
    """
    found = [one for one in checks.CHECKS if code is None or one.code == code.upper()]
    if not found:
        raise ConfigError("CODE", code, "is no check; see magnus check --list")
    data = [
        {name: getattr(one, name) for name in ("code", "title", "why", "threshold", "fix", "undo", "page")}
        for one in found
    ]
    return Answer("explain", {"checks": data}, text=checks.handbook(found).splitlines())


def _printable(text: str) -> str:
    """
    Return a line whose names of objects can neither end it nor steer a terminal.
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _title(target: str, server: Mapping[str, Any]) -> str:
    kind = "standby" if server["is_standby"] else "primary"
    monitor = "yes" if server["is_monitor"] else "no"
    return (
        f"magnus {metadata.version('magnus-db')}  {target}  PostgreSQL {server['version']} ({kind})  "
        f"role {server['role']} (pg_monitor: {monitor})"
    )


def _lines(results: Sequence[Result]) -> list[str]:
    width = max((len(result.check.title) for result in results), default=0)
    return [
        f"{_word(result):8}{result.check.code}  {result.check.title:{width}}  {_summary(result)}".rstrip()
        for result in results
    ]


def _word(result: Result) -> str:
    return str(result.severity or result.state)


def _summary(result: Result) -> str:
    verdict = result.verdict
    if result.state is State.FINDING:
        first = verdict.findings[0]
        more = f", and {len(verdict.findings) - 1} more" if len(verdict.findings) > 1 else ""
        return f"{first.object}{more}"
    if result.state is State.UNKNOWN:
        return f"{result.examined}: {verdict.missing}" if result.examined else verdict.missing
    return ", ".join(part for part in (verdict.summary, result.examined) if part)


def _details(results: Sequence[Result]) -> list[str]:
    failing = [result for result in results if result.severity]
    lines: list[str] = []
    for result in sorted(failing, key=lambda result: -(result.severity or Severity.INFO).rank):
        lines += [
            "",
            f"{result.check.code}  {result.check.title}" + (f"  ({result.examined})" if result.examined else ""),
        ]
        lines += _findings(sorted(result.verdict.findings, key=lambda finding: -finding.severity.rank))
        if result.verdict.missing:
            lines.append(f"      not all was seen: {result.verdict.missing}")
        lines.append(f"      why and from when on: magnus explain {result.check.code}")
    return lines


def _findings(findings: Sequence[Finding]) -> list[str]:
    """
    Return the worst ones; a command that serves several is told once, after the last of them.
    """
    lines: list[str] = []
    shown = findings[:_MOST_SHOWN]
    for place, finding in enumerate(shown):
        lines.append(f"      {finding.severity}: {finding.object}: {finding.evidence}")
        following = shown[place + 1] if place + 1 < len(shown) else None
        if following is None or (following.fix, following.undo) != (finding.fix, finding.undo):
            lines += [f"        help: {finding.fix}", f"        undo: {finding.undo}"]
    if len(findings) > len(shown):
        lines.append(f"      and {len(findings) - len(shown)} more: --output-format json shows all")
    return lines


def _counts(results: Sequence[Result]) -> dict[str, int]:
    severities = Counter(str(finding.severity) for result in results for finding in result.verdict.findings)
    states = Counter(result.state for result in results)
    return {
        **{str(severity): severities[str(severity)] for severity in reversed(Severity)},
        "passed": states[State.OK],
        "unknown": states[State.UNKNOWN],
    }


def _sum(counts: Mapping[str, int], results: Sequence[Result]) -> str:
    total = counts["error"] + counts["warning"] + counts["info"]
    codes = ", ".join(result.check.code for result in results if result.state is State.UNKNOWN)
    found = (
        f"Found {total} problems ({counts['error']} error, {counts['warning']} warning, {counts['info']} info)"
        if total
        else "Found no problem"
    )
    return f"{found}; {counts['passed']} checks passed, {counts['unknown']} unknown{f' ({codes})' if codes else ''}."


def _record(result: Result) -> dict[str, Any]:
    verdict = result.verdict
    return {
        "code": result.check.code,
        "title": result.check.title,
        "state": str(result.state),
        "severity": None if result.severity is None else str(result.severity),
        "summary": verdict.summary if result.state is State.OK else "",
        "missing": verdict.missing,
        "examined": verdict.examined,
        "of": verdict.of,
        "threshold": result.check.threshold,
        "page": result.check.page,
        "findings": [_finding(finding) for finding in verdict.findings],
    }


def _finding(finding: Finding) -> dict[str, str]:
    names = ("severity", "object", "evidence", "fix", "undo")
    return {name: str(getattr(finding, name)) for name in names}


def _github(results: Sequence[Result]) -> list[str]:
    """
    Return workflow commands. Source of the escapes: GitHub's documentation, "Workflow commands".
    """
    lines = []
    for result in results:
        for finding in result.verdict.findings:
            title = _escaped(f"{result.check.code} {result.check.title}").replace(":", "%3A").replace(",", "%2C")
            message = _escaped(f"{finding.object}: {finding.evidence}\nhelp: {finding.fix}\nundo: {finding.undo}")
            lines.append(f"::{_GITHUB[finding.severity]} title={title}::{message}")
        if result.state is State.UNKNOWN:
            lines.append(f"::debug::{_escaped(f'{result.check.code} unknown: {result.verdict.missing}')}")
    return lines


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
