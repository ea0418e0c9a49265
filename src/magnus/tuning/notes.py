"""What a reader of a plan must know beside its changes: warnings, and the order of primary and standbys; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from magnus.tuning.change import Kind
from magnus.tuning.rules.memory import advice
from magnus.tuning.setting import Context
from magnus.tuning.units import GB, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from magnus.tuning.change import Change
    from magnus.tuning.facts import Facts, Server
    from magnus.tuning.rules import Budget

MUST_FOLLOW: Final = frozenset({
    "max_connections", "max_locks_per_transaction", "max_prepared_transactions", "max_wal_senders",
    "max_worker_processes",
})  # fmt: skip
"""Settings that a standby must have at least as high as its primary, or its recovery pauses ("Hot Standby")."""

ELSEWHERE: Final[Mapping[str, str]] = {
    "rds": "change its parameter group: magnus plan --target rds",
    "aurora": "change its parameter group: magnus plan --target rds",
    "cloudsql": "change its flags in one call: gcloud's --database-flags replaces the whole set",
    "azure": "change its server parameters: az postgres flexible-server parameter set",
    "supabase": "change it by: supabase postgres-config update",
    "neon": "its compute decides the sizes; only role and database settings are yours",
    "patroni": "change its dynamic configuration: magnus plan --target patroni, patronictl edit-config",
    "cnpg": "change spec.postgresql.parameters of the Cluster resource",
}


def warnings_of(facts: Facts, budget: Budget | None, changes: Sequence[Change]) -> tuple[str, ...]:
    """
    Return the warnings of a plan, most important first.
    """
    return tuple(_warnings(facts, budget, changes))


def _warnings(facts: Facts, budget: Budget | None, changes: Sequence[Change]) -> Iterator[str]:
    server = facts.server
    settings = [change for change in changes if change.kind is Kind.SETTING]
    if server.is_standby:
        yield "this server is a standby: apply refuses it; plan on the primary, or write its file with --target conf"
    if server.managed is not None:
        yield f"this server is managed ({server.managed}), ALTER SYSTEM is not for you: {ELSEWHERE[server.managed]}"
    elif not server.allow_alter_system:
        yield "allow_alter_system is off: whoever runs the server wants its files changed: magnus plan --target conf"
    host = facts.host
    missing = [
        option
        for option, value in (("--memory", host and host.memory), ("--cpus", host and host.cpus))
        if value is None
    ]
    if missing:
        where = "was not found on this machine" if not server.is_local else "does not show it"
        yield f"the server {where}, so what it may use is not known: tell it with {' and '.join(missing)}"
    if budget is not None and not budget.fits:
        reason = f"{budget.sessions} sessions may need more memory than the {shown(budget.limit)} there are"
        yield f"{reason}: {advice(budget.fitting_sessions)}"
    yield from _rights(server, settings)
    pending = sorted(name for name, setting in server.settings.items() if setting.pending_restart)
    if pending:
        yield f"changed before, and in force only after the next restart: {', '.join(pending)}"
    if server.database == "postgres" and any(change.database for change in changes):
        yield "connected to database postgres: extension and table would be made there; name the service's database"
    yield from _huge_pages(server, settings)
    if server.standbys and settings:
        yield "each server has its own files, and pg_basebackup copies postgresql.auto.conf: look at the standbys too"


def _rights(server: Server, settings: Sequence[Change]) -> Iterator[str]:
    rights = server.permissions
    if not (rights.is_superuser or rights.is_monitor):
        yield f"role {rights.role} is no member of pg_monitor, so some facts are missing: magnus role monitor"
    lacking = [change.name for change in settings if not rights.can_alter(change.name)]
    if lacking and server.managed is None:
        names = ", ".join(lacking) if len(lacking) <= 3 else f"{', '.join(lacking[:3])} and {len(lacking) - 3} more"
        yield f"role {rights.role} may not ALTER SYSTEM {names}: magnus role tuner shows the grants"
    hidden = {setting.source for setting in server.settings.values()} & {"database", "user", "database user"}
    if hidden:
        yield "some values are set for the role or database of this session, and the server's own cannot be seen"


def _huge_pages(server: Server, settings: Sequence[Change]) -> Iterator[str]:
    planned = {change.name: change.after for change in settings}
    setting = server.settings.get("shared_buffers")
    text = planned.get("shared_buffers")
    size = None if setting is None or text is None else setting.read(text)
    if size is not None and size >= 8 * GB:
        yield (
            "from 8 GB of shared_buffers on reserve huge pages: set vm.nr_hugepages to what "
            "`postgres -C shared_memory_size_in_huge_pages` prints with the new settings"
        )


def order_of(server: Server, changes: Sequence[Change]) -> tuple[str, ...]:
    """
    Return what to do where, first to last, when a change must not come to the primary before its standbys, or after.
    """
    if not server.standbys:
        return ()
    names = ", ".join(standby.name or standby.address or "a standby" for standby in server.standbys)
    raised: list[str] = []
    lowered: list[str] = []
    for change in changes:
        if change.kind is Kind.SETTING and change.name in MUST_FOLLOW:
            is_raised = float(change.after or 0) > float(change.before or 0)
            (raised if is_raised else lowered).append(f"{change.name} = {change.after}")
    steps = []
    if raised:
        steps.append(f"on each standby ({names}): set {', '.join(raised)} and restart it")
    if any(change.context is Context.RESTART for change in changes):
        steps.append("on the primary: apply this plan, with its restart")
    if lowered:
        steps.append(f"on each standby ({names}), after the primary: set {', '.join(lowered)} and restart it")
    return tuple(steps)
