"""pg_stat_statements: the library beside those already preloaded; the extension itself is a change of its own."""

from __future__ import annotations

from typing import Final

from magnus.tuning.quoting import joined
from magnus.tuning.rules.rule import Basis, Keep, Rule, Want

LIBRARY: Final = "pg_stat_statements"


def _preload(basis: Basis) -> Want | Keep | None:
    server = basis.server
    if LIBRARY in server.preload:
        return None
    if server.available_extensions and LIBRARY not in server.available_extensions:
        return Keep(
            joined((*server.preload, LIBRARY)),
            "the library is not installed: the server would not start",
            "install PostgreSQL's contrib package of this version, then plan again",
        )
    reason = "without the library the extension exists and every read of it fails"
    kept = f"; {joined(server.preload)} stays" if server.preload else ""
    cost = "some percent of CPU on very short statements; a few MB of shared memory"
    return Want(joined((*server.preload, LIBRARY)), reason + kept, risk="medium", cost=cost)


def _query_id(basis: Basis) -> Want | None:
    if basis.server.settings["compute_query_id"].value != "off":
        return None
    return Want("auto", "pg_stat_statements needs it to tell queries apart")


RULES: Final = (
    Rule(
        "shared_preload_libraries",
        "the present list + pg_stat_statements",
        "merged, never replaced; one literal a library, or the next start fails",
        _preload,
        quick_win=("quick-win-1",),
    ),
    Rule(
        "compute_query_id",
        "auto",
        "PostgreSQL documentation, 'Statistics Monitoring'",
        _query_id,
        quick_win=("quick-win-1",),
    ),
)
