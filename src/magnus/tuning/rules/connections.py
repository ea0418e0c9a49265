"""Connections: kept; a pooler instead of more of them."""

from __future__ import annotations

from typing import Final

from magnus.tuning.rules.rule import Basis, Keep, Rule

_MOST_USED: Final = 0.8


def _max_connections(basis: Basis) -> Keep | None:
    server = basis.server
    most = server.amount("max_connections") or 100
    if server.sessions <= _MOST_USED * most:
        return None
    standbys = " Standbys first: one with fewer stops its recovery." if server.standbys else ""
    return Keep(
        "more",
        f"{server.sessions} of {most:.0f} are in use, but each may take memory: more of them make the worst case worse",
        f"put a pooler in front (--pooler pgbouncer:N), or lower the services' pools.{standbys}",
    )


def _transaction_timeout(basis: Basis) -> Keep | None:
    if (basis.server.amount("transaction_timeout") or 0) == 0:
        return None
    return Keep(
        "0",
        "for all sessions it also ends a single long statement, with its connection, migrations and dumps too",
        "set it for each lane: Magnus does, by the larger of lane and transaction limit",
    )


def _statement_timeout(basis: Basis) -> Keep | None:
    if (basis.server.amount("statement_timeout") or 0) == 0:
        return None
    return Keep(
        "0",
        "for all sessions it kills migrations, dumps and reports",
        "set it for a role (ALTER ROLE … SET), or let the lane set it: Magnus does",
    )


RULES: Final = (
    Rule(
        "max_connections",
        "kept; over 80 % in use: a pooler",
        "each connection costs memory, and a standby with fewer pauses its recovery",
        _max_connections,
        is_planned=False,
        quick_win=("quick-win-6", "quick-win-10"),
    ),
    Rule(
        "transaction_timeout",
        "0 for the server; by lane for a session",
        "17+: it ends single statements and kills the connection",
        _transaction_timeout,
        is_planned=False,
        quick_win=("quick-win-6",),
    ),
    Rule(
        "statement_timeout",
        "0 for the server; by lane for a session",
        "30 s for all kills reports (60 s) and batches (120 s)",
        _statement_timeout,
        is_planned=False,
        quick_win=("quick-win-4", "quick-win-6"),
    ),
)
