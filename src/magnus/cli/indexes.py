"""`magnus indexes`: which are missing, broken, doubled or unused, and a plan for those that are ours to make or "
"drop.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict
from importlib import metadata
from typing import TYPE_CHECKING, Any

import asyncpg

from magnus.cli.answer import Answer, ExitCode, Failure
from magnus.cli.plan import save
from magnus.cli.session import ADVICE
from magnus.config import DatabaseConfig
from magnus.errors import ConfigError, ConnectError
from magnus.tuning import checks, collect, index_change, indexing, reading
from magnus.tuning.advising import Advice, advise
from magnus.tuning.change import Change, Target
from magnus.tuning.checks import CHECKS, Missing, State
from magnus.tuning.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from magnus.tuning.checks import Result, Snapshot

_SHOWN = {"I001": "invalid", "I002": "doubled", "I003": "unused", "I004": "foreign keys", "I005": "read whole"}
_MOST_DECLINED = 10


async def indexes(dsn: str | None, environ: Mapping[str, str], *, most: int, out: Path | None) -> Answer | Failure:
    """
    Look at the indexes of a database, and at what its `most` slowest statements miss.

    Raises:
        ConfigError: an argument or a variable has an impossible value, or the plan cannot be saved.
    """
    if most < 1:
        raise ConfigError("--statements", most, "must be at least 1")
    config = DatabaseConfig.from_environ(environ, **({} if dsn is None else {"dsn": dsn}))
    try:
        con = await collect.open_session(config, environ)
        try:
            seen = await reading.read(con)
            server, _ = await collect.read_server(con)
            advice = await advise(con, seen, most=most)
        finally:
            await collect.close(con)
    except ConnectError as error:
        return Failure("indexes", ExitCode.UNREACHABLE, f"{config.safe_dsn}: {error}", ADVICE.get(error.reason, ""))
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
        return Failure(
            "indexes", ExitCode.UNREACHABLE, f"{config.safe_dsn}: the connection was lost while reading", "try again"
        )
    results = [checks.run(check, seen) for check in CHECKS if check.code in _SHOWN]
    changes = (*_creations(advice, seen), *_drops(seen))
    plan = Plan(
        target=Target.of(server),
        changes=changes,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        magnus_version=metadata.version("magnus-db"),
    ).sealed()
    if out is not None:
        save(plan, out)
    text = [*_report(seen, advice, results, plan), "", _sum(plan, out)]
    data = {"dsn": config.safe_dsn, **_data(advice, results, plan)}
    return Answer("indexes", data, [_printable(line) for line in (_title(config.safe_dsn, seen), "", *text)])


def _creations(advice: Advice, seen: Snapshot) -> list[Change]:
    """
    Return the changes that make what is missing, under names that are free.
    """
    taken = {(row["schema"], row["name"]) for row in seen.rows("indexes")}
    database = seen.server["database"]
    return [
        index_change.change_of(proposal, database)
        for proposal in advice.proposals
        if (proposal.table["schema"], proposal.name) not in taken
    ]


def _drops(seen: Snapshot) -> list[Change]:
    """
    Return the changes that drop an index of ours: left over from a build that failed, or unused for long.
    """
    rows = [row for row in seen.rows("indexes") if index_change.is_ours(row["name"]) and not row["is_partitioned"]]
    definitions = {} if isinstance(part := seen.parts["definitions"], Missing) else {row["oid"]: row for row in part}
    building = {row["oid"] for row in seen.rows("index_builds")}
    wanted = [(row, "a build failed and left it: it is written and never read") for row in rows if not row["is_valid"]]
    if _are_unused_known(seen):
        wanted += [(row, "no scan in all the time of the statistics") for row in checks.unused_candidates(rows)]
    return [
        index_change.drop_of(row, definitions[row["oid"]]["definition"], reason, seen.server["database"])
        for row, reason in wanted
        if row["oid"] in definitions and row["oid"] not in building and None not in building
    ]


def _are_unused_known(seen: Snapshot) -> bool:
    unused = next(check for check in CHECKS if check.code == "I003")
    return checks.run(unused, seen).state is State.FINDING


def _title(target: str, seen: Snapshot) -> str:
    server = seen.server
    return f"{target}  PostgreSQL {server['version']}  database {server['database']}  role {server['role']}"


def _report(seen: Snapshot, advice: Advice, results: Sequence[Result], plan: Plan) -> list[str]:
    lines = _missing(advice)
    database = seen.server["database"]
    proposals = {f"index:{one.table['schema']}.{one.name}@{database}": one for one in advice.proposals}
    for change in plan.changes:
        lines += _change(change, proposals.get(change.id))
    for result in results:
        lines += _check(result)
    return lines


def _sum(plan: Plan, out: Path | None) -> str:
    drops = sum(change.after is None for change in plan.changes)
    counts = f"Plan: {len(plan.changes) - drops} to create, {drops} to drop."
    if out is None:
        return f"{counts} Not saved: --out FILE keeps it for magnus apply."
    return f"{counts} Saved to {out} (digest {plan.digest[:12]}). Apply exactly this: magnus apply {out}"


def _data(advice: Advice, results: Sequence[Result], plan: Plan) -> dict[str, Any]:
    declined = [{"queryid": one.queryid, "table": table, "reason": why} for one, table, why in advice.declined]
    return {
        "statements": {
            "examined": advice.examined,
            "of": advice.of,
            "missing": advice.missing,
            "declined": declined,
        },
        "hypopg": advice.has_hypopg,
        "changes": [asdict(change) for change in plan.changes],
        "checks": [
            {
                "code": result.check.code,
                "state": str(result.state),
                "missing": result.verdict.missing,
                "findings": [asdict(finding) for finding in result.verdict.findings],
            }
            for result in results
        ],
        "digest": plan.digest,
    }


def _missing(advice: Advice) -> list[str]:
    how = (
        "HypoPG asks the planner" if advice.has_hypopg else "HypoPG is not installed: judged from plans and statistics"
    )
    lines = [
        f"missing       {len(advice.proposals)} found; examined {advice.examined} of {advice.of} statements; {how}"
    ]
    if advice.missing:
        lines.append(f"              unknown: {advice.missing}")
    lines += [
        f"  not for queryid {one.queryid}, {table}: {why}" for one, table, why in advice.declined[:_MOST_DECLINED]
    ]
    return lines


def _change(change: Change, proposal: indexing.Proposal | None) -> list[str]:
    lines = [f"{'-' if change.after is None else '+'} {change.name}: {change.reason}"]
    if proposal is not None:
        lines += [f"    why   {line}" for line in indexing.describe(proposal.statements)]
        lines += [f"    how   {change.source}", f"    cost  {change.cost} ({change.evidence['writes']} so far)"]
    lines += [f"    do    {statement}" for statement in change.sql]
    return [*lines, *(f"    undo  {statement}" for statement in change.undo)]


def _check(result: Result) -> list[str]:
    verdict = result.verdict
    what = verdict.missing if result.state is State.UNKNOWN else verdict.summary
    state = f"{len(verdict.findings)} found" if result.state is State.FINDING else f"{result.state}: {what}"
    lines = [f"{_SHOWN[result.check.code]:13} {state} ({result.check.code})"]
    for finding in verdict.findings:
        lines += [f"  {finding.severity}: {finding.object}: {finding.evidence}", f"    by hand  {finding.fix}"]
        lines.append(f"    undo     {finding.undo}")
    return lines


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
