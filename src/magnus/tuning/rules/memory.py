"""Memory: the values of the budget, each with its reason."""

from __future__ import annotations

from typing import Final

from magnus.tuning.rules.budget import NODES
from magnus.tuning.rules.rule import Basis, Keep, Rule, Want
from magnus.tuning.units import GB, MB, shown

_UNKNOWN: Final = "the memory that the server may use is not known"
_TELL: Final = "tell it: --memory 8GB --cpus 4"


def _shared_buffers(basis: Basis) -> Want | Keep | None:
    budget = basis.budget
    if budget is None:
        return Keep("25 % of the memory", _UNKNOWN, _TELL)
    value, now = budget.values.shared_buffers, budget.now.shared_buffers
    if value == now and not budget.fits:
        return _does_not_fit(basis, shown(max(MB, budget.limit // 4)))
    evidence = {"limit": shown(budget.limit)}
    if basis.server.data_size is not None:
        evidence["data"] = shown(basis.server.data_size)
    if value < now:
        why = "above 40 % it starves everything else" if now > 0.4 * budget.limit else "the sessions need the room"
        reason = f"{shown(now)} is {now / budget.limit:.0%} of the {shown(budget.limit)} that the server may use; {why}"
    else:
        reason = f"{value / budget.limit:.0%} of the {shown(budget.limit)} that the server may use"
    cost = f"{shown(budget.shared(value))} of shared memory in all"
    return Want(value, reason, risk="medium", cost=cost, is_strict=value < now, evidence=evidence)


def _effective_cache_size(basis: Basis) -> Want | Keep | None:
    budget = basis.budget
    if budget is None:
        return Keep("75 % of the memory", _UNKNOWN, _TELL)
    now = basis.server.amount("effective_cache_size") or 0
    if budget.effective_cache_size < now <= budget.limit - budget.reserve:
        return None
    reason = "what the planner may expect to find cached, in shared buffers and by the system"
    return Want(budget.effective_cache_size, reason, cost="no memory: a hint to the planner")


def _maintenance_work_mem(basis: Basis) -> Want | Keep | None:
    budget = basis.budget
    if budget is None:
        return Keep("1/16 of the memory", _UNKNOWN, _TELL)
    value = max(budget.maintenance_work_mem, MB)
    now = basis.server.amount("maintenance_work_mem") or 0
    if value < now <= budget.limit / 8:
        return None
    if value > now and not budget.fits:
        return _does_not_fit(basis, shown(value))
    reason = f"CREATE INDEX and VACUUM by hand sort and remember in memory; 1/16 of {shown(budget.limit)}, 1 GB at most"
    return Want(value, reason, cost=f"up to {shown(value)} a maintenance command")


def _work_mem(basis: Basis) -> Want | Keep | None:
    budget = basis.budget
    if budget is None:
        return Keep("by memory and sessions", _UNKNOWN, _TELL)
    value, now = budget.values.work_mem, budget.now.work_mem
    worst = shown(budget.sessions * NODES * budget.hash_multiplier * value)
    if value == now and not budget.fits:
        return _does_not_fit(basis, "more than 4MB")
    evidence = {"sessions": f"{budget.sessions} ({budget.sessions_source})"}
    if basis.server.temp_bytes_per_day is not None:
        evidence["temporary files"] = f"{shown(basis.server.temp_bytes_per_day)} a day"
    if value < now:
        most = shown(budget.sessions * NODES * budget.hash_multiplier * now)
        reason = f"{shown(now)} for each of {budget.sessions} sessions is {most} at worst, more than there is"
        cost = f"{worst} at worst; large sorts go to disk"
        return Want(value, reason, risk="medium", cost=cost, is_strict=True, evidence=evidence)
    reason = f"what is left for {budget.sessions} sessions, each with {NODES} sorts or hashes at once"
    return Want(value, reason, risk="medium", cost=f"{worst} at worst", evidence=evidence)


def _does_not_fit(basis: Basis, considered: str) -> Keep:
    budget = basis.budget
    assert budget is not None
    reason = (
        f"{budget.sessions} sessions ({budget.sessions_source}) may need more than the {shown(budget.limit)} that the "
        f"server may use, so nothing that takes memory is raised"
    )
    return Keep(considered, reason, advice(budget.fitting_sessions))


def advice(fitting: int) -> str:
    """
    Say how many sessions would fit, and how to get there.
    """
    if fitting < 1:
        return "the machine is too small for PostgreSQL beside its system: give it more memory"
    return f"put a pooler in front that opens at most {fitting} (--pooler pgbouncer:{fitting}), or give it more memory"


def _hash_mem_multiplier(basis: Basis) -> Want | Keep | None:
    budget = basis.budget
    if budget is None or budget.hash_multiplier <= 2:
        return None
    reason = f"{budget.hash_multiplier:g} x work_mem for each hash, in the worst case of {budget.sessions} sessions"
    return Keep("2", f"{reason}: it is counted, and leaves work_mem less", "lower it to 2 to give sorts more")


def _huge_pages(basis: Basis) -> Want | Keep | None:
    setting = basis.server.settings["huge_pages"]
    if setting.value == "on":
        return Want("try", "with `on` the server does not start when the system has too few of them", risk="low")
    budget = basis.budget
    if budget is None or budget.values.shared_buffers < 8 * GB or setting.value == "off":
        return None
    return Keep(
        "on",
        "`try` uses them where they are, and starts where they are not",
        "reserve them: set vm.nr_hugepages to what `postgres -C shared_memory_size_in_huge_pages` prints",
    )


RULES: Final = (
    Rule(
        "shared_buffers",
        "25 % of M; 15 % under 1 GB; at most 1.2 x the data once the server is a week old; down to 15 % when the "
        "sessions need the room; an existing value up to 40 % stays",
        "PostgreSQL documentation, 'Resource Consumption' (25 %); the cap by data size is ours",
        _shared_buffers,
        cap="40 % of M; the memory proof",
    ),
    Rule(
        "effective_cache_size",
        "min(75 % of M, M - R - N x 8 MB), at least shared_buffers",
        "PostgreSQL documentation, 'Query Planning'",
        _effective_cache_size,
        cap="M - R",
    ),
    Rule(
        "maintenance_work_mem",
        "min(M / 16, 1 GB)",
        "before 17 VACUUM could not use more than 1 GB",
        _maintenance_work_mem,
        cap="1 GB",
    ),
    Rule(
        "work_mem",
        "W / (N x 2 nodes x hash_mem_multiplier), W = M - shared memory - R - workers x autovacuum_work_mem - N x 8 MB",
        "two nodes a query, hashes counted with their multiplier; measured: 64 MB took 385 MB in one session and was "
        "not faster",
        _work_mem,
        cap="at least 4 MB, at most 64 MB (oltp, mixed), 256 MB or 1 GB from 64 GB on (warehouse); the memory proof",
    ),
    Rule(
        "hash_mem_multiplier",
        "kept; counted in the memory proof",
        "default 2 since 15",
        _hash_mem_multiplier,
        is_planned=False,
    ),
    Rule("huge_pages", "try, never on", "a server that does not start is worse than small pages", _huge_pages),
)
