"""C: connections, transactions and locks: who is there now, and how sessions end."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from magnus._shares import Account, Sessions
from magnus.tuning.checks._fixes import percent
from magnus.tuning.checks._model import Finding, Severity, Verdict, check
from magnus.tuning.checks._snapshot import DAY, Unseen, duration, share
from magnus.tuning.quoting import identifier, literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from magnus.tuning.checks._snapshot import Row, Snapshot

USED: Final = (0.70, 0.85)
IDLE: Final = (300.0, 3600.0)
LONG: Final = (900.0, 3600.0)
HORIZON: Final = (10_000_000, 100_000_000)
BLOCKED: Final = (10.0, 60.0)
PREPARED: Final = (300.0, 3600.0)
ABNORMAL: Final = (0.01, 0.05)
DEADLOCKS: Final = (1.0, 10.0)
ROLLBACKS: Final = (0.05, 0.20)
_FEW_SESSIONS: Final = 100
_FEW_TRANSACTIONS: Final = 1000
_ROLLED_BACK: Final = "nothing: its transaction is rolled back, and the client may repeat it"


def _severity(value: float, levels: tuple[float, float]) -> Severity | None:
    if value > levels[1]:
        return Severity.ERROR
    return Severity.WARNING if value > levels[0] else None


def _who(row: Row) -> str:
    name = f" {row['application']!r}" if row["application"] else ""
    return f"pid {row['pid']} ({row['role']}@{row['database']}{name})"


def _clients(seen: Snapshot) -> list[Row]:
    """
    Sessions of users; of those that are hidden only the database and role are known.
    """
    return [row for row in seen.rows("activity") if row["backend_type"] == "client backend" or not row["is_visible"]]


def _seen_clients(seen: Snapshot, found: Iterable[Finding], summary: str) -> Verdict:
    """
    Return a verdict on sessions that says how many of them could be looked at.
    """
    clients = [row for row in _clients(seen) if row["database"] is not None]
    visible = sum(row["is_visible"] for row in clients)
    hidden = len(clients) - visible
    missing = (
        f"{hidden} sessions of other roles are hidden from {seen.server['role']}: {seen.grant()}" if hidden else ""
    )
    return Verdict(tuple(found), summary, visible, len(clients), missing)


def _end(row: Row) -> tuple[str, str]:
    return f"SELECT pg_terminate_backend({row['pid']})", _ROLLED_BACK


@check(
    "C001",
    "Connections are left",
    why="When the last one is taken every further client is refused, the operator's own included up to the reserve.",
    threshold=f"warning above {percent(USED[0])}, error above {percent(USED[1])} of max_connections without the "
    "reserved ones; the "
    "same for the limits of a role or a database",
    fix="Use a pooler or a smaller pool; find out who opens them before raising max_connections, which costs a restart "
    "and "
    "memory, and must be raised on standbys first.",
    undo="The pool's earlier size; the earlier limit.",
    reads=("settings", "activity", "databases", "roles"),
)
def connections(seen: Snapshot) -> Verdict:
    most = _for_clients(seen)
    if seen.server["sees_all_stats"]:
        used = float(sum(row["backend_type"] == "client backend" for row in seen.rows("activity"))) + 1
    else:
        used = float(sum(row["sessions_now"] or 0 for row in seen.rows("databases")))
    found = []
    severity = _severity(share(used, most), USED)
    if severity and not seen.server["sees_all_stats"]:
        raise Unseen(f"{used:.0f} sessions of all kinds; which of them are clients is hidden: {seen.grant()}")
    if severity:
        found.append(
            Finding(
                severity,
                "max_connections",
                f"{used:.0f} of {most:.0f} are in use ({percent(used / most)})",
                "put a pooler in front, or make the pools smaller: SELECT application_name, usename, count(*) FROM "
                "pg_stat_activity GROUP BY 1, 2 ORDER BY 3 DESC",
                "the pools' earlier sizes",
            )
        )
    found += _limits(seen)
    return Verdict(tuple(found), f"{used:.0f} of {most:.0f}")


def _for_clients(seen: Snapshot) -> float:
    reserved = seen.number("superuser_reserved_connections")
    if seen.major >= 16:
        reserved += seen.number("reserved_connections")
    return seen.number("max_connections") - reserved


def _limits(seen: Snapshot) -> list[Finding]:
    activity = seen.rows("activity")
    counted = [
        *(
            ("DATABASE", row["name"], row["connection_limit"], row["sessions_now"] or 0)
            for row in seen.rows("databases")
        ),
        *(
            ("ROLE", row["name"], row["connection_limit"], sum(one["role"] == row["name"] for one in activity))
            for row in seen.rows("roles")
        ),
    ]
    found = []
    for kind, name, limit, used in counted:
        severity = _severity(share(used, limit), USED) if limit > 0 else None
        if severity:
            change = f"ALTER {kind} {identifier(name)} CONNECTION LIMIT"
            evidence = f"{used} of its {limit} connections are in use"
            pair = (f"{change} {limit * 2}", f"{change} {limit}")
            found.append(Finding(severity, f"{kind.lower()} {name}", evidence, *pair))
    return found


@check(
    "C002",
    "Nobody idles inside a transaction",
    why="It holds its locks, and keeps VACUUM from removing anything that died since it began.",
    threshold=f"idle in transaction: warning above {duration(IDLE[0])}, error above {duration(IDLE[1])}",
    fix="End the session; set idle_in_transaction_session_timeout for the application's role.",
    undo="Nothing for the session, whose transaction is rolled back; ALTER ROLE … RESET for the timeout.",
    reads=("activity",),
)
def idle_in_transaction(seen: Snapshot) -> Verdict:
    found = []
    for row in _clients(seen):
        idle = row["state_s"] or 0.0
        severity = _severity(idle, IDLE) if (row["state"] or "").startswith("idle in transaction") else None
        if severity:
            evidence = (
                f"{row['state']} for {duration(idle)}, its transaction is {duration(row['transaction_s'] or 0)} old"
            )
            found.append(Finding(severity, _who(row), evidence, *_end(row)))
    return _seen_clients(seen, found, "none")


@check(
    "C003",
    "No transaction runs for long",
    why="Nothing that died since it began can be removed, in no table of the database; DDL waits behind it, and "
    "everybody "
    "behind the DDL.",
    threshold=f"a client's transaction that is not idle: warning above {duration(LONG[0])}, error above "
    f"{duration(LONG[1])}",
    fix="End it, or move long reads to a standby; set statement_timeout (and transaction_timeout from 17) for the "
    "role.",
    undo="Nothing: it is rolled back, and the client may repeat it.",
    reads=("activity",),
)
def long_transactions(seen: Snapshot) -> Verdict:
    found = []
    longest = 0.0
    for row in _clients(seen):
        age = row["transaction_s"] or 0.0
        if (row["state"] or "").startswith("idle in transaction"):
            continue
        longest = max(longest, age)
        severity = _severity(age, LONG)
        if severity:
            found.append(Finding(severity, _who(row), f"its transaction is {duration(age)} old", *_end(row)))
    return _seen_clients(seen, found, f"longest {duration(longest)}")


@check(
    "C004",
    "Nothing holds back VACUUM",
    why="The oldest snapshot that anybody may still need decides what VACUUM can remove, whoever holds it: a session, "
    "a "
    "prepared transaction, a replication slot, or a standby with hot_standby_feedback.",
    threshold=f"transactions behind: warning above {HORIZON[0]:,}, error above {HORIZON[1]:,}",
    fix="End the session, finish the prepared transaction, or drop the slot that nobody reads any more.",
    undo="A dropped slot cannot be taken back: its reader must be set up again. A session may repeat its work.",
    reads=("activity", "prepared", "slots", "standbys"),
)
def horizon(seen: Snapshot) -> Verdict:
    held = [(max(row["xmin_age"] or 0, row["xid_age"] or 0), _who(row), *_end(row)) for row in seen.rows("activity")]
    held += [
        (row["xid_age"] or 0, f"prepared transaction {row['gid']}", *_finish(row)) for row in seen.rows("prepared")
    ]
    held += [
        (max(row["xmin_age"] or 0, row["catalog_xmin_age"] or 0), f"slot {row['name']}", *_drop_slot(row))
        for row in seen.rows("slots")
    ]
    held += [
        (
            row["xmin_age"] or 0,
            f"standby {row['name']}",
            "end the long query on the standby, or ALTER SYSTEM SET hot_standby_feedback = off there",
            "ALTER SYSTEM SET hot_standby_feedback = on there",
        )
        for row in seen.rows("standbys")
    ]
    found = []
    for age, what, fix, undo in held:
        severity = _severity(age, HORIZON)
        if severity:
            found.append(Finding(severity, what, f"holds a snapshot {age:,} transactions old", fix, undo))
    oldest = max((age for age, *_ in held), default=0)
    verdict = _seen_clients(seen, found, f"oldest {oldest:,} transactions")
    if not verdict.missing and any(row["state"] is None for row in seen.rows("standbys")):
        return replace(verdict, missing=f"what standbys need is hidden from {seen.server['role']}: {seen.grant()}")
    return verdict


def _drop_slot(row: Row) -> tuple[str, str]:
    name = literal(row["name"])
    if row["kind"] == "physical":
        return (
            f"SELECT pg_drop_replication_slot({name})",
            f"SELECT pg_create_physical_replication_slot({name}); set the standby up again",
        )
    return (
        f"SELECT pg_drop_replication_slot({name})",
        "create the slot again with its plugin, and copy the subscriber anew",
    )


def _finish(row: Row) -> tuple[str, str]:
    gid = literal(row["gid"])
    return f"COMMIT PREPARED {gid}, or ROLLBACK PREPARED {gid}: ask the coordinator which", "nothing: both are final"


@check(
    "C005",
    "Nobody waits long for a lock",
    why="A session that waits keeps its connection and its own locks, and whoever comes after it waits too.",
    threshold=f"waiting: warning above {duration(BLOCKED[0])}, error above {duration(BLOCKED[1])}",
    fix="End the session that blocks, the first of the chain; set lock_timeout for DDL.",
    undo="Nothing: its transaction is rolled back, and the client may repeat it.",
    reads=("blocked",),
)
def blocked(seen: Snapshot) -> Verdict:
    rows = seen.rows("blocked")
    found = []
    for row in rows:
        wait = row["wait_s"] or 0.0
        severity = _severity(wait, BLOCKED)
        if severity:
            blockers = ", ".join(map(str, row["blockers"])) or "unknown"
            where = f"{row['schema']}.{row['name']}" if row["name"] else row["kind"]
            evidence = f"waits {duration(wait)} for {row['mode']} on {where}, held by pid {blockers}"
            fix = "; ".join(f"SELECT pg_terminate_backend({pid})" for pid in row["blockers"] if pid) or "see pg_locks"
            found.append(Finding(severity, f"pid {row['pid']}", evidence, fix, _ROLLED_BACK))
    return Verdict(tuple(found), f"{len(rows)} waiting", len(rows), len(rows))


@check(
    "C006",
    "No prepared transaction is forgotten",
    why="It holds its locks and holds back VACUUM across restarts, with no session that could be ended.",
    threshold=f"prepared: warning after {duration(PREPARED[0])}, error after {duration(PREPARED[1])}",
    fix="COMMIT PREPARED or ROLLBACK PREPARED, as the coordinator decided. Set max_prepared_transactions to 0 when "
    "unused.",
    undo="Nothing: both are final.",
    reads=("prepared",),
)
def prepared(seen: Snapshot) -> Verdict:
    rows = seen.rows("prepared")
    found = []
    for row in rows:
        severity = _severity(row["age_s"], PREPARED)
        if severity:
            evidence = f"prepared {duration(row['age_s'])} ago by {row['role']} in {row['database']}"
            found.append(Finding(severity, f"prepared transaction {row['gid']}", evidence, *_finish(row)))
    return Verdict(tuple(found), "none" if not rows else f"{len(rows)}, none of them old", len(rows), len(rows))


@check(
    "C007",
    "Sessions end in order",
    why="Sessions that are killed, crash, or lose their client roll back, and their clients see errors.",
    threshold=f"killed, fatal or abandoned: warning above {percent(ABNORMAL[0])}, error above {percent(ABNORMAL[1])} "
    "of the sessions, "
    f"from {_FEW_SESSIONS} sessions on",
    fix="Read the server's log for the reason; a pool that closes its connections in order makes none of them.",
    undo="Nothing was changed.",
    reads=("databases",),
)
def abnormal_ends(seen: Snapshot) -> Verdict:
    rows = [row for row in seen.rows("databases") if row["can_connect"]]
    enough = [row for row in rows if (row["sessions"] or 0) >= _FEW_SESSIONS]
    found = []
    for row in enough:
        ends = row["sessions_abandoned"] + row["sessions_fatal"] + row["sessions_killed"]
        severity = _severity(share(ends, row["sessions"]), ABNORMAL)
        if severity:
            evidence = (
                f"{percent(ends / row['sessions'])} of {row['sessions']:,}: {row['sessions_abandoned']:,} abandoned by "
                "their "
                f"client, {row['sessions_fatal']:,} fatal, {row['sessions_killed']:,} killed"
            )
            fix = "look for FATAL and 'connection to client lost' in the server's log"
            found.append(Finding(severity, f"database {row['name']}", evidence, fix, "nothing was changed"))
    missing = "" if enough else f"no database has had {_FEW_SESSIONS} sessions yet"
    return Verdict(tuple(found), "less than 1 %", len(enough), len(rows), missing)


@check(
    "C008",
    "Transactions do not deadlock",
    why="Each one ends a transaction with an error after deadlock_timeout, and shows that two code paths lock in "
    "different "
    "orders.",
    threshold=f"a day: warning above {DEADLOCKS[0]:g}, error above {DEADLOCKS[1]:g}",
    fix="Find both statements in the server's log, and lock in one order everywhere (ORDER BY before FOR UPDATE).",
    undo="Nothing was changed.",
    reads=("databases",),
)
def deadlocks(seen: Snapshot) -> Verdict:
    rows = [row for row in seen.rows("databases") if row["can_connect"]]
    found = []
    for row in rows:
        age = _age(seen, row)
        severity = _severity(row["deadlocks"] / max(age / DAY, 1.0), DEADLOCKS)
        if severity:
            evidence = f"{row['deadlocks']:,} in {duration(age)}"
            fix = "look for 'deadlock detected' in the server's log; lock in one order"
            found.append(Finding(severity, f"database {row['name']}", evidence, fix, "nothing was changed"))
    return Verdict(tuple(found), "at most one a day", len(rows), len(rows), _young(seen, rows))


@check(
    "C009",
    "Transactions commit",
    why="Rolled back work was done for nothing; a high share is an error that nobody looks at, or a pool that rolls "
    "back by "
    "habit.",
    threshold=f"rolled back: warning above {percent(ROLLBACKS[0])}, error above {percent(ROLLBACKS[1])} of the "
    "transactions, from "
    f"{_FEW_TRANSACTIONS:,} on",
    fix="Look for ERROR in the server's log, by SQLSTATE (log_line_prefix with %e).",
    undo="Nothing was changed.",
    reads=("databases",),
)
def rollbacks(seen: Snapshot) -> Verdict:
    rows = [row for row in seen.rows("databases") if row["can_connect"] and not row["is_template"]]
    enough = [row for row in rows if (row["xact_commit"] or 0) + (row["xact_rollback"] or 0) >= _FEW_TRANSACTIONS]
    found = []
    for row in enough:
        total = row["xact_commit"] + row["xact_rollback"]
        severity = _severity(row["xact_rollback"] / total, ROLLBACKS)
        if severity:
            evidence = f"{percent(row['xact_rollback'] / total)} of {total:,} were rolled back"
            fix = "look for ERROR in the server's log, by SQLSTATE"
            found.append(Finding(severity, f"database {row['name']}", evidence, fix, "nothing was changed"))
    missing = "" if enough else f"no database has had {_FEW_TRANSACTIONS:,} transactions yet"
    return Verdict(tuple(found), "", len(enough), len(rows), missing)


def _age(seen: Snapshot, row: Row) -> float:
    return float(row["stats_age_s"] or seen.server["server_stats_age_s"] or 0.0)


def _young(seen: Snapshot, rows: Iterable[Row]) -> str:
    youngest = min((_age(seen, row) for row in rows), default=0.0)
    return f"statistics are {duration(youngest)} old, a day is needed" if youngest < DAY else ""


@check(
    "C010",
    "All pools fit into the server",
    why="Pools that may grow beyond what the server has are refused by it when all are busy at once, which is when it "
    "matters.",
    threshold="what all connected instances of Magnus may open together, above max_connections without the reserved "
    "ones and without what others use; the same for the limits of a role or a database",
    fix="Make the pools smaller, let them share (fleet_size), or put a pooler in front.",
    undo="The pools' earlier sizes.",
    reads=("settings", "activity", "databases", "roles"),
)
def fleet(seen: Snapshot) -> Verdict:
    groups = Counter(
        (row["application"] or "", row["database"], row["role"])
        for row in _clients(seen)
        if row["database"] is not None and row["role"] is not None
    )
    sessions = [Sessions(*group, count, is_here=True, is_own=True) for group, count in groups.items()]
    accounts = [("max_connections", Account.of("max_connections", int(_for_clients(seen)), sessions))]
    for kind, rows in (("database", seen.rows("databases")), ("role", seen.rows("roles"))):
        accounts += [
            (
                f"{kind} {row['name']}",
                Account.of(kind, limit, [one for one in sessions if row["name"] == getattr(one, kind)]),
            )
            for row in rows
            if (limit := row["connection_limit"]) >= 0
        ]
    found = [_overdrawn(name, account) for name, account in accounts if account.excess > 0 and account.instances]
    server = accounts[0][1]
    return Verdict(
        tuple(found), f"{server.instances} instances may open {server.announced} of {server.budget}", server.instances
    )


def _overdrawn(name: str, account: Account) -> Finding:
    evidence = (
        f"{account.instances} instances may open {account.announced} connections; {account.most} are for clients, "
        f"{account.others} of them in use by others"
    )
    size = account.budget // account.instances
    fix = f"DB_POOL_MAX so that an instance has {size} at most, MAGNUS_FLEET_SIZE to share them, or a pooler"
    return Finding(Severity.WARNING, name, evidence, fix, "the pools' earlier sizes")


CHECKS: Final = (
    connections, idle_in_transaction, long_transactions, horizon, blocked, prepared, abnormal_ends, deadlocks,
    rollbacks, fleet,
)  # fmt: skip
