"""Q: the ten quick wins: done, not done, or drifted away from what was applied.

Those of the server are judged by what `magnus plan` would still change (part "planned") and by what the journal says
was applied (part "applied"); those of the service by its sessions, as far as the server sees them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from magnus.tuning.checks._model import Check, Finding, Severity, Verdict
from magnus.tuning.checks._snapshot import Missing, Unseen, plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from magnus.tuning.checks._snapshot import Row, Snapshot

POOL: Final = (5, 30)
"""The least and the most connections that one process of the service keeps (DB_POOL_MIN, DB_POOL_MAX)."""

_STATS: Final = "the service itself knows: GET /api/health/stats"


def _on_server(number: int, what: str) -> Callable[[Snapshot], Verdict]:
    name = f"quick-win-{number}"

    def judge(seen: Snapshot) -> Verdict:
        planned = [row for row in seen.rows("planned") if name in row["quick_win"]]
        applied = seen.parts.get("applied", ())
        if isinstance(applied, Missing):
            raise Unseen(applied.reason)
        ours = [row for row in applied if name in row["quick_win"]]
        drifted = [row for row in ours if row["now"] != row["after"]]
        found = [_drifted(row) for row in drifted]
        away = {row["id"] for row in drifted}
        found += [_not_done(row, number) for row in planned if row["id"] not in away]
        return Verdict(tuple(found), f"done: {what}")

    return judge


def _drifted(row: Row) -> Finding:
    evidence = f"drifted: {row['after']} was applied by run {row['run']}, now it is {row['now'] or 'gone'}"
    return Finding(Severity.WARNING, row["name"], evidence, "magnus drift", f"magnus rollback {row['run']}")


def _not_done(row: Row, number: int) -> Finding:
    evidence = f"not done: {row['before'] or 'absent'} -> {row['after']}"
    fix = f"magnus plan --only quick-win-{number} --out plan.json; magnus apply plan.json"
    return Finding(Severity.INFO, row["name"], evidence, fix, "magnus rollback")


def _sessions(seen: Snapshot) -> list[Row]:
    """
    Return the service's sessions.

    Raises:
        Unseen: none is there, or names of applications are hidden.
    """
    seen.needs_monitor()
    name = seen.row("service")["application_name"]
    rows = [row for row in seen.rows("activity") if row["application"] == name]
    if not rows:
        raise Unseen(f"no session of {name!r} is connected; {_STATS}")
    return rows


def _warm(seen: Snapshot) -> Verdict:
    sessions = _sessions(seen)
    least = seen.row("service")["min_pool_size"]
    if len(sessions) >= least:
        return Verdict((), f"done: {len(sessions)} sessions are open, {least} are kept warm")
    evidence = f"not done: {len(sessions)} sessions are open, a warm pool keeps {least}"
    fix = ("await db.warmup_pool(), or MAGNUS_MIN_POOL_SIZE", "the earlier setting")
    return Verdict((Finding(Severity.INFO, "warm pool", evidence, *fix),))


def _sized(seen: Snapshot) -> Verdict:
    sessions = _sessions(seen)
    most = seen.row("service")["max_pool_size"]
    clients: dict[str, int] = {}
    for row in sessions:
        clients[row["client"] or "socket"] = clients.get(row["client"] or "socket", 0) + 1
    fullest = max(clients.values())
    if fullest <= most:
        return Verdict((), f"done: {fullest} sessions from one host, {most} are allowed")
    evidence = (
        f"drifted: {fullest} sessions from one host, DB_POOL_MAX is {most}; several processes share a host, "
        "or it was raised"
    )
    fix = (f"DB_POOL_MAX={most}, one pool a process", "the earlier DB_POOL_MAX")
    return Verdict((Finding(Severity.INFO, "pool size", evidence, *fix),))


COLUMNS: Final = ("id", "query", "duration_ms", "threshold_ms", "timestamp", "query_signature")
"""What the reports of the slow-query log ask for."""


def _slow_log(seen: Snapshot) -> Verdict:
    rows = seen.rows("slow_log")
    fix = (
        "a service of Magnus makes it at first need, or: magnus plan --only quick-win-5",
        "DROP TABLE slow_query_log",
    )
    if not rows:
        evidence = f"not done: no table slow_query_log in {seen.server['database']}"
        return Verdict((Finding(Severity.INFO, "slow_query_log", evidence, *fix),))
    for row in rows:
        have = {column.partition(" ")[0] for column in row["columns"]}
        lacking = [name for name in COLUMNS if name not in have]
        if lacking:
            evidence = f"drifted: it has no column {', '.join(lacking)}"
            return Verdict((Finding(Severity.WARNING, plain(row), evidence, *fix),))
    return Verdict((), f"done: {plain(rows[0])}, {rows[0]['live'] or 0:,} rows")


def _unseen(_seen: Snapshot) -> Verdict:
    raise Unseen(f"the server cannot see it: {_STATS}")


def _planned(number: int, title: str, why: str, done: str) -> Check:
    fix = f"magnus plan --only quick-win-{number}, then magnus apply"
    judge = _on_server(number, done)
    return Check(*_names(number, title), why, _PLANNED, fix, "magnus rollback", ("planned",), judge)


def _watched(number: int, title: str, why: str, threshold: str, judge: Callable[[Snapshot], Verdict]) -> Check:
    return Check(*_names(number, title), why, threshold, _IN_SERVICE, _BACK, ("activity", "service"), judge)


def _internal(number: int, title: str, why: str) -> Check:
    return Check(*_names(number, title), why, f"unknown always: {_STATS}", _IN_SERVICE, _BACK, (), _unseen)


def _names(number: int, title: str) -> tuple[str, str]:
    return f"Q{number:03}", f"Quick win {number}: {title}"


_PLANNED: Final = (
    "info: not done, magnus plan would change something; warning: it was applied, and somebody changed it since"
)
_IN_SERVICE: Final = "In the service; docs/configuration.md says how."
_BACK: Final = "The service's earlier settings."

CHECKS: Final = (
    _planned(1, "pg_stat_statements", "Which statements take the time.", "loaded and created"),
    _watched(
        2, "a warm pool", "The first request pays for no connect.", "info: fewer sessions than min_pool_size", _warm
    ),
    _internal(3, "repeats with jitter", "After an outage not everybody comes back at once."),
    _planned(4, "idle transactions end", "A client that hangs holds no locks for ever.", "roles have the limit"),
    Check(
        *_names(5, "the slow-query log"),
        "Slow statements are found before somebody complains.",
        "info: there is no table slow_query_log; warning: it lacks a column that the reports need",
        "magnus plan --only quick-win-5, then magnus apply; or let the service make it.",
        "magnus rollback",
        ("slow_log",),
        _slow_log,
    ),
    _watched(
        6,
        "the pool's size",
        "More connections than cores only wait for each other.",
        "info: more sessions from a host than max_pool_size",
        _sized,
    ),
    _internal(7, "health endpoints", "The orchestrator knows whom to send requests to."),
    _internal(8, "utilisation is watched", "Leaks are seen before the pool is empty."),
    _internal(9, "a limit for each endpoint", "A report does not take the orders' connections."),
    _planned(10, "PostgreSQL's settings", "The server uses the machine that it has.", "nothing left to change"),
)
