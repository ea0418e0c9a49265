"""M: memory against what the machine has. Sources of the shares: PostgreSQL documentation 20.4 and 20.7."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from magnus.tuning.checks._fixes import percent, set_to
from magnus.tuning.checks._model import Finding, Severity, Verdict, check
from magnus.tuning.checks._snapshot import Missing, Unseen
from magnus.tuning.units import GB, MB, shown

if TYPE_CHECKING:
    from magnus.tuning.checks._snapshot import Snapshot

WORST: Final = (1.0, 1.5)
ONE_NODE: Final = 0.6
BUFFERS: Final = (0.15, 0.40)
_DEFAULT_BUFFERS: Final = 128 * MB
_HUGE: Final = 8 * GB


def _memory(seen: Snapshot) -> float:
    return float(seen.row("host")["memory"])


def _planned(seen: Snapshot, name: str) -> str | None:
    """
    Return the value that `magnus plan` would give a setting, None when it would not change it or was not asked.
    """
    rows = seen.parts.get("planned", ())
    return None if isinstance(rows, Missing) else next((row["after"] for row in rows if row["name"] == name), None)


@check(
    "M001",
    "Memory is enough when every session works at once",
    why="work_mem is allowed for each sort and hash of each session, not once. When the sum is more than the machine "
    "has, the kernel ends the server in its busiest minute.",
    threshold="shared_buffers + max_connections x work_mem x hash_mem_multiplier + autovacuum workers x their memory: "
    "warning "
    f"above {percent(WORST[0])} of the limit, error above {percent(WORST[1])}; error: max_connections x work_mem alone "
    "above "
    f"{percent(ONE_NODE)}",
    fix="Lower work_mem (raise it for single roles), or max_connections behind a pooler. magnus plan computes it.",
    undo="The earlier value; reload for work_mem, restart for max_connections.",
    reads=("settings", "host"),
)
def worst_case(seen: Snapshot) -> Verdict:
    limit = _memory(seen)
    connections, work_mem = seen.number("max_connections"), seen.number("work_mem")
    maintenance = seen.number("autovacuum_work_mem")
    if maintenance < 0:
        maintenance = seen.number("maintenance_work_mem")
    nodes = connections * work_mem * seen.number("hash_mem_multiplier")
    total = seen.number("shared_buffers") + nodes + seen.number("autovacuum_max_workers") * maintenance
    evidence = (
        f"{shown(total)} = shared_buffers {shown(seen.number('shared_buffers'))} + {connections:.0f} sessions x "
        f"{shown(work_mem)} x {seen.number('hash_mem_multiplier'):g} + autovacuum "
        f"{shown(seen.number('autovacuum_max_workers') * maintenance)}; limit {shown(limit)} "
        f"({seen.row('host')['source']})"
    )
    used, one = total / limit, connections * work_mem / limit
    if used <= WORST[0] and one <= ONE_NODE:
        return Verdict((), f"worst case {percent(used)} of {shown(limit)}")
    severity = Severity.ERROR if used > WORST[1] or one > ONE_NODE else Severity.WARNING
    smaller = max(4 * MB, limit * 0.5 / connections / seen.number("hash_mem_multiplier"))
    better = _planned(seen, "work_mem") or seen.setting("work_mem").write(min(smaller, work_mem / 2))
    fix = set_to(seen, "work_mem", better)
    return Verdict((
        Finding(severity, "work_mem and max_connections", f"{percent(used)} of the limit: {evidence}", *fix),
    ))


@check(
    "M002",
    "shared_buffers fits the machine",
    why="initdb's 128 MB leaves the server without a cache of its own; above 40 % the same pages lie in memory twice "
    "and "
    "little is left for sorts.",
    threshold=f"warning: below {percent(BUFFERS[0])} or above {percent(BUFFERS[1])} of the memory limit, or still 128 "
    "MB where the "
    "limit is not known",
    fix="ALTER SYSTEM SET shared_buffers to a quarter of the memory, and restart. magnus plan computes it.",
    undo="The earlier value and a restart.",
    reads=("settings",),
)
def shared_buffers(seen: Snapshot) -> Verdict:
    value = seen.number("shared_buffers")
    try:
        limit = _memory(seen)
    except Unseen:
        if value != _DEFAULT_BUFFERS:
            raise
        fix = ("magnus plan --memory <the server's memory>", "nothing: a plan changes nothing")
        return Verdict((Finding(Severity.WARNING, "shared_buffers", "is 128 MB, as initdb left it", *fix),))
    used = value / limit
    better = _planned(seen, "shared_buffers")
    if BUFFERS[0] <= used <= BUFFERS[1]:
        return Verdict((), f"{shown(value)}, {percent(used)} of {shown(limit)}")
    if used < BUFFERS[0] and better is None and isinstance(seen.parts.get("planned"), tuple):
        return Verdict((), f"{shown(value)}, {percent(used)} of {shown(limit)}: the data are not larger")
    evidence = f"{shown(value)} is {percent(used)} of {shown(limit)} ({seen.row('host')['source']})"
    fix = set_to(seen, "shared_buffers", better or seen.setting("shared_buffers").write(limit // 4 // MB * MB))
    return Verdict((Finding(Severity.WARNING, "shared_buffers", evidence, *fix),))


@check(
    "M003",
    "effective_cache_size is plausible",
    why="The planner takes it for what is cached, shared_buffers included. Too small, it avoids indexes; more than the "
    "machine has, it trusts a cache that is not there.",
    threshold="warning: below shared_buffers, or above the memory limit",
    fix="ALTER SYSTEM SET effective_cache_size to about three quarters of the memory, and reload.",
    undo="The earlier value and a reload.",
    reads=("settings",),
)
def cache_size(seen: Snapshot) -> Verdict:
    value, buffers = seen.number("effective_cache_size"), seen.number("shared_buffers")
    if value < buffers:
        evidence = f"{shown(value)} is less than shared_buffers, {shown(buffers)}"
        fix = set_to(seen, "effective_cache_size", seen.setting("effective_cache_size").write(buffers * 3))
        return Verdict((Finding(Severity.WARNING, "effective_cache_size", evidence, *fix),))
    limit = _memory(seen)
    if value > limit:
        evidence = f"{shown(value)} is more than the {shown(limit)} there are ({seen.row('host')['source']})"
        better = _planned(seen, "effective_cache_size")
        fallback = seen.setting("effective_cache_size").write(max(limit * 3 // 4 // MB * MB, buffers))
        fix = set_to(seen, "effective_cache_size", better or fallback)
        return Verdict((Finding(Severity.WARNING, "effective_cache_size", evidence, *fix),))
    return Verdict((), f"{shown(value)} of {shown(limit)}")


@check(
    "M004",
    "Huge pages are used where they pay",
    why="Large shared_buffers in 4 kB pages cost every session page tables of its own.",
    threshold=f"info: shared_buffers of {shown(_HUGE)} or more, huge_pages wanted, and huge_pages_status off (17 and "
    "newer)",
    fix="sysctl vm.nr_hugepages = shared_memory_size_in_huge_pages, then restart. Keep huge_pages at try.",
    undo="sysctl vm.nr_hugepages = the earlier number, then restart.",
    reads=("settings",),
)
def huge_pages(seen: Snapshot) -> Verdict:
    buffers = seen.number("shared_buffers")
    if buffers < _HUGE:
        return Verdict((), f"shared_buffers is {shown(buffers)}: not needed")
    if seen.setting("huge_pages").value == "off":
        return Verdict((), "switched off")
    if seen.major < 17:
        raise Unseen("before version 17 the server does not say whether it got huge pages")
    if seen.setting("huge_pages_status").value == "on":
        return Verdict((), "in use")
    pages = seen.setting("shared_memory_size_in_huge_pages").value
    fix = (f"sysctl -w vm.nr_hugepages={pages}; then restart", "sysctl -w vm.nr_hugepages=<earlier>; then restart")
    evidence = f"status is off with shared_buffers {shown(buffers)}"
    return Verdict((Finding(Severity.INFO, "huge_pages", evidence, *fix),))


CHECKS: Final = (worst_case, shared_buffers, cache_size, huge_pages)
