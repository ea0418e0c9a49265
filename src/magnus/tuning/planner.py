"""Makes the plan: recommendations become changes with their reverse, and the memory proof is drawn up; pure."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from magnus.errors import ConfigError
from magnus.tuning import objects, quoting
from magnus.tuning.change import Assumptions, Change, Kind, Proof, Refusal, Risk, Target
from magnus.tuning.notes import order_of, warnings_of
from magnus.tuning.plan import Plan
from magnus.tuning.rules import RULES, Declined, Recommendation, recommend
from magnus.tuning.rules.budget import Demand, sessions_of
from magnus.tuning.setting import Context

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from magnus.tuning.facts import Facts, Server
    from magnus.tuning.rules import Budget
    from magnus.tuning.setting import Setting

QUICK_WINS: Final = tuple(f"quick-win-{number}" for number in range(1, 11))
_IN_SERVICE: Final[Mapping[str, str]] = {
    "quick-win-2": "the pool opens and proves its connections at start (min_pool_size, warmup_pool)",
    "quick-win-3": "repeats with jitter are in the library (max_retries, retry_delay, retry_backoff)",
    "quick-win-6": "the pool is set in the service: DB_POOL_MIN, DB_POOL_MAX, DB_QUERY_TIMEOUT, DB_CONNECT_TIMEOUT, "
    "DB_TRANSACTION_TIMEOUT",
    "quick-win-7": "the health endpoints are in magnus.fastapi",
    "quick-win-8": "the pool's utilisation is watched by the library (pool_high_utilization)",
    "quick-win-9": "lanes and their limits are in the library (magnus lanes)",
}
_WORKERS: Final = "autovacuum_work_mem"
_MEMORY: Final = frozenset({"shared_buffers", "work_mem", "maintenance_work_mem", _WORKERS})
_PLACES: Final = {Context.NOW: 0, Context.NEW_SESSIONS: 1, Context.RESTART: 2}


def make_plan(
    facts: Facts, *, only: Sequence[str] = (), created: str = "", magnus_version: str = "", slow_log_sql: str = ""
) -> Plan:
    """
    Plan what the rules recommend for these facts.

    Args:
        facts: What is known.
        only: Quick wins, groups, settings or ids to plan; all when empty.
        created: The time to write into the plan.
        magnus_version: The program's version to write into the plan.
        slow_log_sql: The script that makes the slow-query log's table.

    Raises:
        ConfigError: `only` names something that no rule knows.
    """
    basis, found = recommend(facts)
    changes = _memory_needs([_setting_change(item) for item in found if isinstance(item, Recommendation)], facts.server)
    refused = [_refusal(item) for item in found if isinstance(item, Declined)]
    for extra in objects.changes(facts, changes, slow_log_sql):
        (changes if isinstance(extra, Change) else refused).append(extra)  # type: ignore[arg-type]
    wanted = _Selection(only)
    changes = _with_needs(changes, {change.id for change in changes if wanted.takes(change)})
    refused = [refusal for refusal in refused if wanted.takes_refusal(refusal)]
    refused += wanted.notes()
    after = {change.name: change.after for change in changes if change.kind is Kind.SETTING}
    changes.sort(key=lambda change: (_PLACES[change.context], change.kind is not Kind.SETTING))
    return Plan(
        target=Target.of(facts.server),
        changes=tuple(changes),
        refused=tuple(refused),
        warnings=warnings_of(facts, basis.budget, changes),
        order=order_of(facts.server, changes),
        assumptions=_assumptions(facts),
        proof=None if basis.budget is None else proof_of(basis.budget, facts.server, after),
        created=created,
        magnus_version=magnus_version,
    ).sealed()


# --- settings --------------------------------------------------------------------------------------------------------


def _setting_change(found: Recommendation) -> Change:
    setting, rule = found.setting, found.rule
    return Change(
        id=f"setting:{setting.name}",
        kind=Kind.SETTING,
        name=setting.name,
        before=setting.text,
        after=found.value,
        sql=(quoting.alter_system(setting.name, found.value),),
        undo=(quoting.alter_system(setting.name, _restored(setting)),),
        unit=setting.unit or "",
        context=setting.when,
        reason=found.want.reason,
        source=f"{rule.formula} ({rule.source})",
        risk=Risk(found.want.risk),
        cost=found.want.cost,
        group=rule.group,
        quick_win=rule.quick_win,
        before_source=setting.source,
        before_file=setting.sourcefile or "",
        evidence=found.want.evidence,
    )


def _restored(setting: Setting) -> str | None:
    """
    Return what to set to take a change back: nothing (RESET) unless ALTER SYSTEM gave the value that is there.

    Where the file cannot be seen, the value itself is the safe way back.
    """
    if setting.in_auto_conf or (setting.source == "configuration file" and setting.sourcefile is None):
        return setting.text
    return None


def _refusal(found: Declined) -> Refusal:
    keep = found.keep
    current = found.setting.text
    return Refusal(found.setting.name, current, keep.considered, keep.reason, keep.instead, found.rule.group)


# --- what is asked for -----------------------------------------------------------------------------------------------


class _Selection:
    """
    The names of `--only`: quick wins, groups, settings, ids.
    """

    def __init__(self, only: Sequence[str]) -> None:
        self._names = frozenset(name.strip() for item in only for name in item.split(",") if name.strip())
        unknown = sorted(name for name in self._names if not _is_known(name))
        if unknown:
            groups = ", ".join(sorted({rule.group for rule in RULES} | set(objects.GROUPS)))
            known = f"quick-win-1 to quick-win-10, a group ({groups}), or the name of a setting that a rule knows"
            raise ConfigError("--only", unknown[0], f"must be {known}")

    def takes(self, change: Change) -> bool:
        return not self._names or not self._names.isdisjoint({
            *change.quick_win, change.group, change.name, change.name.rpartition(".")[2], change.id,
            change.id.partition("@")[0],
        })  # fmt: skip

    def takes_refusal(self, refusal: Refusal) -> bool:
        wins = {win for rule in RULES if rule.setting == refusal.name for win in rule.quick_win}
        wins |= {win for win, name in objects.QUICK_WINS.items() if name == refusal.name}
        return not self._names or not self._names.isdisjoint({*wins, refusal.group, refusal.name})

    def notes(self) -> list[Refusal]:
        """
        Say of a quick win that is none of the server's where it is done.
        """
        return [
            Refusal(name, "", "", _IN_SERVICE[name]) for name in QUICK_WINS if name in self._names & _IN_SERVICE.keys()
        ]


def _is_known(name: str) -> bool:
    if name in QUICK_WINS or name in objects.GROUPS or name in objects.QUICK_WINS.values():
        return True
    if any(name in {rule.group, rule.setting, f"setting:{rule.setting}"} for rule in RULES):
        return True
    return re.match(r"(extension|table|role_setting):.", name) is not None


def _with_needs(changes: Sequence[Change], wanted: set[str]) -> list[Change]:
    """
    Return the wanted changes with all that they need.
    """
    needs = {change.id: change.needs for change in changes}
    pending = list(wanted)
    while pending:
        new = set(needs[pending.pop()]) - wanted
        wanted |= new
        pending += new
    return [change for change in changes if change.id in wanted]


def _memory_needs(changes: Sequence[Change], server: Server) -> list[Change]:
    """
    Tie what takes more memory to what gives some back: one without the other would break the memory proof.

    maintenance_work_mem is what every autovacuum worker takes, unless autovacuum_work_mem says otherwise.
    """
    memory = {change.name: change for change in changes if change.name in _MEMORY}
    lowered = {name for name, change in memory.items() if _is_lowered(change, server.settings[name])}
    found = []
    for change in changes:
        needs = change.needs
        if change.name in memory.keys() - lowered:
            others = lowered if change.name == _WORKERS else lowered | (memory.keys() & {_WORKERS})
            needs = tuple(f"setting:{name}" for name in sorted(others))
        found.append(replace(change, needs=needs))
    return found


def _is_lowered(change: Change, setting: Setting) -> bool:
    return (setting.read(change.after or "") or 0) < (setting.next.amount or 0)


# --- the rest of the plan --------------------------------------------------------------------------------------------


def proof_of(budget: Budget, server: Server, after: Mapping[str, str | None]) -> Proof:
    """
    Compute the worst case with what will be in force after these settings and a restart.
    """

    def amount(name: str, fallback: float) -> float:
        setting, text = server.settings.get(name), after.get(name)
        found = server.amount(name) if text is None or setting is None else setting.read(text)
        return fallback if found is None else found

    autovacuum = amount("autovacuum_work_mem", -1)
    demand = Demand(
        shared_buffers=amount("shared_buffers", budget.now.shared_buffers),
        work_mem=amount("work_mem", budget.now.work_mem),
        autovacuum_work_mem=amount("maintenance_work_mem", autovacuum) if autovacuum < 0 else autovacuum,
    )
    terms = budget.terms(demand)
    rest = budget.limit - sum(size for _, size in terms)
    # What is kept free is an estimate to one figure; rounding work_mem to a megabyte may take a twentieth of it.
    kept = rest if budget.reserve * 0.95 <= rest < budget.reserve else budget.reserve
    return Proof(
        budget.limit, (*terms, ("the system and its cache", int(kept))), budget.need(budget.now) + budget.reserve
    )


def _assumptions(facts: Facts) -> Assumptions:
    host, pooler = facts.host, facts.pooler
    sessions, source = sessions_of(facts)
    found = Assumptions(
        profile=facts.workload.profile,
        connections=sessions,
        connections_source=source,
        pooler=None if pooler is None else f"{pooler.kind}{f':{pooler.limit}' if pooler.limit else ''}",
    )
    if host is None:
        return found
    return replace(
        found,
        memory=host.memory,
        memory_source=host.memory_source,
        cpus=host.cpus,
        cpus_source=host.cpus_source,
        storage=None if host.storage is None else str(host.storage),
        storage_source=host.storage_source,
    )
