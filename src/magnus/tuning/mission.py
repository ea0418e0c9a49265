"""The well-known list of "quick" settings for an 8 GB server, each judged against what this plan does; pure.

People come with that list in hand. Each of its lines gets a verdict for their own machine, with the reason.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from magnus.tuning.change import Kind
from magnus.tuning.rules.budget import NODES, sessions_of
from magnus.tuning.setting import Context
from magnus.tuning.units import GB, MB, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from magnus.tuning.facts import Facts
    from magnus.tuning.plan import Plan


class Verdict(enum.StrEnum):
    """
    What is to be said of a line of the list.
    """

    RIGHT = "right"
    CHANGED = "other value"
    USELESS = "changes nothing"
    DANGEROUS = "dangerous"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Judgement:
    """
    One line of the list: what it asks for, what this plan does instead, and why.
    """

    name: str
    asked: str
    verdict: Verdict
    here: str
    reason: str


LIST: Final[Mapping[str, str]] = {
    "max_connections": "200",
    "shared_buffers": "2GB",
    "effective_cache_size": "6GB",
    "work_mem": "64MB",
    "maintenance_work_mem": "512MB",
    "random_page_cost": "1.1",
    "effective_io_concurrency": "200",
    "wal_buffers": "16MB",
    "checkpoint_completion_target": "0.9",
    "log_min_duration_statement": "1000",
    "log_connections": "on",
    "log_disconnections": "on",
}
"""The settings that the list sets, with their values."""


def judge(facts: Facts, plan: Plan) -> tuple[Judgement, ...]:
    """
    Judge every line of the list against the server and the plan that was made for it.
    """
    found = [_setting(facts, plan, name) for name in LIST]
    return (*(item for item in found if item is not None), *_statements(facts, plan))


def _setting(facts: Facts, plan: Plan, name: str) -> Judgement | None:
    setting = facts.server.settings.get(name)
    if setting is None:
        return None
    planned = next((c.after for c in plan.changes if c.kind is Kind.SETTING and c.name == name), None)
    asked, here = (
        LIST[name],
        f"{setting.text or 'empty'} stays" if planned is None else f"{setting.text or 'empty'} -> {planned}",
    )
    after = setting.text if planned is None else planned
    verdict, reason = _REASONS[name](facts, asked)
    if verdict is Verdict.RIGHT:
        if setting.is_same_as(asked, after) or _is_on(asked, after):
            reason = f"already so; {reason}" if planned is None else reason
        else:
            verdict = Verdict.CHANGED
            reason = f"{reason}; this server's own facts give another value" if planned else reason
    when = "; takes effect at a restart, not at a reload" if setting.when is Context.RESTART else ""
    when = "; takes effect in new sessions" if setting.when is Context.NEW_SESSIONS else when
    return Judgement(name, asked, verdict, here, reason + when)


def _is_on(asked: str, after: str | None) -> bool:
    return asked == "on" and after not in {None, "", "off"}


def _limit(facts: Facts) -> int | None:
    return None if facts.host is None else facts.host.memory


def _max_connections(facts: Facts, asked: str) -> tuple[Verdict, str]:
    most = int(facts.server.amount("max_connections") or 100)
    standbys = "; standbys with fewer pause their recovery" if facts.server.standbys else ""
    worst = shown(int(asked) * 64 * MB)
    reason = (
        f"with work_mem 64MB, {asked} sessions may take {worst} for one sort each; keep {most}, put a pooler in front"
    )
    return Verdict.DANGEROUS, reason + standbys


def _shared_buffers(facts: Facts, asked: str) -> tuple[Verdict, str]:
    limit = _limit(facts)
    if limit is not None and limit < 5 * GB:
        return Verdict.DANGEROUS, f"{asked} is over 40 % of the {shown(limit)} that this server may use"
    return Verdict.RIGHT, "25 % of the memory"


def _effective_cache_size(facts: Facts, asked: str) -> tuple[Verdict, str]:
    limit = _limit(facts)
    if limit is not None and limit < 6 * GB:
        return Verdict.WRONG, f"{asked} is more than the {shown(limit)} that this server may use"
    return Verdict.RIGHT, "75 % of the memory, on a machine of its own; a hint, it takes no memory"


def _work_mem(facts: Facts, asked: str) -> tuple[Verdict, str]:
    sessions, _ = sessions_of(facts)
    multiplier = facts.server.amount("hash_mem_multiplier") or 2.0
    worst = sessions * NODES * multiplier * 64 * MB
    limit = _limit(facts)
    if limit is not None and worst < limit / 2:
        return (
            Verdict.CHANGED,
            f"{asked} would fit here ({shown(worst)} at worst); raise it by evidence, for one role first",
        )
    against = "" if limit is None else f", of {shown(limit)}"
    return (
        Verdict.DANGEROUS,
        f"{sessions} sessions x {NODES} nodes x {multiplier:g} x 64MB is {shown(worst)} at worst{against}",
    )


def _maintenance(facts: Facts, asked: str) -> tuple[Verdict, str]:
    del facts, asked
    return (
        Verdict.RIGHT,
        "1/16 of the memory, but every autovacuum worker would take it too: autovacuum_work_mem is set beside it",
    )


def _random_page_cost(facts: Facts, asked: str) -> tuple[Verdict, str]:
    del facts, asked
    return Verdict.RIGHT, "right on flash, wrong on disks; it may change plans everywhere, so look at EXPLAIN first"


def _io_concurrency(facts: Facts, asked: str) -> tuple[Verdict, str]:
    if facts.server.major >= 18:
        return (
            Verdict.CHANGED,
            "18 reads asynchronously by itself; its default of 16 stays until a measurement says more",
        )
    del asked
    return Verdict.RIGHT, "right on flash up to PostgreSQL 17"


def _wal_buffers(facts: Facts, asked: str) -> tuple[Verdict, str]:
    del facts
    return Verdict.USELESS, f"-1 already gives {asked} from 512MB of shared_buffers on; max_wal_size is what matters"


def _completion_target(facts: Facts, asked: str) -> tuple[Verdict, str]:
    setting = facts.server.settings["checkpoint_completion_target"]
    if setting.is_same(asked):
        return Verdict.USELESS, "the default since 14; checkpoint_timeout and max_wal_size are what is missing"
    return Verdict.RIGHT, "spreads a checkpoint's writes"


def _min_duration(facts: Facts, asked: str) -> tuple[Verdict, str]:
    del facts, asked
    return Verdict.RIGHT, "but bind values would be logged too: log_parameter_max_length = 0 beside it"


def _log_sessions(facts: Facts, asked: str) -> tuple[Verdict, str]:
    del asked
    form = "; 18 has a list of its parts" if facts.server.major >= 18 else ""
    return Verdict.RIGHT, f"noisy without a pool{form}"


_REASONS: Final[Mapping[str, Callable[[Facts, str], tuple[Verdict, str]]]] = {
    "max_connections": _max_connections,
    "shared_buffers": _shared_buffers,
    "effective_cache_size": _effective_cache_size,
    "work_mem": _work_mem,
    "maintenance_work_mem": _maintenance,
    "random_page_cost": _random_page_cost,
    "effective_io_concurrency": _io_concurrency,
    "wal_buffers": _wal_buffers,
    "checkpoint_completion_target": _completion_target,
    "log_min_duration_statement": _min_duration,
    "log_connections": _log_sessions,
    "log_disconnections": _log_sessions,
}


def _statements(facts: Facts, plan: Plan) -> tuple[Judgement, ...]:
    """
    Judge what the list does beside settings.
    """
    preload = next((c.after for c in plan.changes if c.name == "shared_preload_libraries"), None)
    library = (
        "already preloaded"
        if preload is None
        else f"shared_preload_libraries -> {preload}, restart, then the extension"
    )
    restarts = sum(1 for name in LIST if (s := facts.server.settings.get(name)) and s.when is Context.RESTART)
    return (
        Judgement(
            "pg_stat_statements",
            "CREATE EXTENSION",
            Verdict.RIGHT if preload is None else Verdict.WRONG,
            library,
            "without the preloaded library every read of it fails; the present list is kept",
        ),
        Judgement(
            "session guards",
            "SET in a connection's set-up",
            Verdict.WRONG,
            "ALTER ROLE … SET, or the session's startup settings",
            "RESET ALL at the first release takes them back",
        ),
        Judgement(
            "statement_timeout",
            "30 s for all",
            Verdict.WRONG,
            "by lane",
            "kills reports (60 s) and batches (120 s), migrations and dumps",
        ),
        Judgement(
            "transaction_timeout",
            "60 s for all",
            Verdict.WRONG,
            "by lane",
            "on 17+ it also ends a single statement, with its connection",
        ),
        Judgement(
            "slow_query_log",
            "SERIAL, TIMESTAMP",
            Verdict.WRONG,
            "bigint identity, timestamptz",
            "numbers run out, times lose their zone",
        ),
        Judgement(
            "pg_reload_conf()",
            "applies all of it",
            Verdict.WRONG,
            f"{restarts} of {len(LIST)} and the preload need a restart",
            "it answers true when nothing was applied, and it does not wait; read back what is in force",
        ),
        Judgement(
            "roll back",
            "RESET, DROP EXTENSION",
            Verdict.WRONG,
            "magnus rollback",
            "RESET loses the earlier value, and nothing can be run on a server that does not start",
        ),
    )
