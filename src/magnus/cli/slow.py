"""`magnus slow`: what the slow-query log holds, grouped, with a trend; and its table made or removed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import asyncpg

from magnus import insight, sql
from magnus.cli.answer import Answer, ExitCode, Failure, Table
from magnus.cli.words import count, short, time, trend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from magnus._driver import Connection
    from magnus.insight import Group

_WIDTH: Final = 160
SCRIPTS: Final = {"install": "slow_query_log", "remove": "slow_query_log_remove"}


async def slow(con: Connection, *, since: float, order: str, limit: int) -> Answer:
    """
    Return what was slow in the last `since` seconds.

    Raises:
        Unavailable: there is no table, or this role may not read it.
    """
    found = await insight.groups(con, since=since, order=order, limit=limit)
    occurrences = sum(group.occurrences for group in found)
    data = {"since_s": since, "order": order, "occurrences": occurrences, "groups": [g.as_dict() for g in found]}
    if not found:
        return Answer("slow", data, [f"Nothing was slow in the last {time(since)}."])
    text = [f"{count(occurrences)} slow statements in the last {time(since)}, {len(found)} kinds."]
    return Answer("slow", data, text, [table(found)])


def table(found: Sequence[Group]) -> Table:
    """
    Return groups as rows.
    """
    headings = ("fingerprint", "count", "mean", "p95", "max", "failed", "trend", "caller", "route", "query")
    rows = [
        (
            group.fingerprint,
            count(group.occurrences),
            time(group.avg_ms / 1000),
            time(group.p95_ms / 1000),
            time(group.max_ms / 1000),
            count(group.failed),
            trend(group.trend),
            group.caller or "",
            group.route or "",
            short(group.query, _WIDTH),
        )
        for group in found
    ]
    return Table(headings, rows, right=range(1, 6), is_cut=True)


async def explain(con: Connection, fingerprint: str) -> Answer | Failure:
    """
    Return the kept plan of a fingerprint.
    """
    found = await insight.plan(con, fingerprint)
    if found is None:
        advice = "fingerprints are in magnus slow; plans are kept of what EXPLAIN takes, unless slow_log_plans is off"
        return Failure("slow", ExitCode.NO, f"no plan is kept of {fingerprint}", advice)
    document = json.loads(found)
    return Answer("slow", {"fingerprint": fingerprint, "plan": document}, json.dumps(document, indent=2).splitlines())


def script(kind: str) -> Answer:
    """
    Return the SQL that makes or removes the table, to be read, kept or run by somebody else.
    """
    text = sql.text(SCRIPTS[kind])
    return Answer(f"slow {kind}", {"sql": text}, text.rstrip().splitlines())


async def migrate(con: Connection, kind: str) -> Answer | Failure:
    """
    Run that SQL, all or nothing.
    """
    try:
        async with con.transaction():
            await con.execute(sql.text(SCRIPTS[kind]))
    except asyncpg.InsufficientPrivilegeError:
        advice = f"run it as a role that may create here: magnus slow {kind} --print | psql"
        return Failure(f"slow {kind}", ExitCode.UNREACHABLE, "this role may not change tables here", advice)
    done = "is there and up to date" if kind == "install" else "and its plans are removed"
    return Answer(f"slow {kind}", {"done": True}, [f"slow_query_log {done}"])
