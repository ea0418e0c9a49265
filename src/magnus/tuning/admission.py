"""Whether a plan may be applied to a server as it is now, and what to do instead; pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from magnus import _sqltext
from magnus.errors import ApplyRefused, ConfigError, PlanStale
from magnus.tuning import quoting
from magnus.tuning.autoconf import QUOTED_LISTS
from magnus.tuning.change import Kind
from magnus.tuning.plan import State, current, diff, identity_differences
from magnus.tuning.setting import Context, split_list

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from magnus.tuning.facts import Server
    from magnus.tuning.plan import Change, Plan
    from magnus.tuning.setting import Setting

# A standby must not have less of these than its primary: its recovery pauses, and then it stops.
_STANDBY_FIRST: Final = (
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
)
# Where the server is and what it runs as a program: no advice about performance touches these.
_NEVER: Final = frozenset({
    "allow_alter_system", "archive_cleanup_command", "archive_command", "archive_library", "cluster_name",
    "config_file", "data_directory", "dynamic_library_path", "external_pid_file", "fsync", "full_page_writes",
    "hba_file", "ident_file", "listen_addresses", "local_preload_libraries", "port", "primary_conninfo",
    "recovery_end_command", "restore_command", "session_preload_libraries", "ssl_passphrase_command",
    "unix_socket_directories", "zero_damaged_pages", "ignore_checksum_failure", "extension_control_path",
    "oauth_validator_libraries", "primary_slot_name", "synchronous_standby_names",
})  # fmt: skip
_INSTEAD: Final[Mapping[str, str]] = {
    "rds": "set it in the instance's parameter group: magnus plan --target rds",
    "aurora": "set it in the cluster's parameter group: magnus plan --target rds",
    "patroni": "set it in Patroni's dynamic configuration: magnus plan --target patroni",
    "cnpg": "set it in the Cluster resource's spec.postgresql.parameters",
}


@dataclass(frozen=True, slots=True)
class Admitted:
    """
    What of a plan is to be made now.

    Attributes:
        changes: In order; without those that are there already.
        present: Ids of those that are.
        waiting: Settings that the files hold already and that wait for a restart.
        warnings: What a person should know before agreeing.
    """

    changes: tuple[Change, ...]
    present: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())


def admit(
    plan: Plan,
    server: Server,
    *,
    entries: Mapping[str, str] | None,
    scripts: frozenset[str] = frozenset(),
    are_standbys_ready: bool = False,
) -> Admitted:
    """
    Compare a plan with the server.

    Args:
        plan: With a digest that was checked.
        server: As it is now.
        entries: What postgresql.auto.conf holds, None when that cannot be seen.
        scripts: The SQL that ships with magnus and may make tables.
        are_standbys_ready: The operator says that the standbys have the settings that must be raised there first.

    Raises:
        PlanStale: the server is another one, or a value is neither the one planned from nor the one planned for.
        ApplyRefused: a change must not be made here; every reason is given at once, with what to do instead.
    """
    differences = identity_differences(plan, server)
    if differences:
        raise PlanStale(plan.digest, differences)
    reasons = [reason for change in plan.changes for reason in refusals(change, server, plan, scripts)]
    reasons = [*_of_server(plan, server), *reasons]
    if not are_standbys_ready:
        reasons += _of_standbys(plan, server)
    if reasons:
        raise ApplyRefused(tuple(reasons))
    states = diff(plan, server)
    drifted = [_drift(change, server) for change in plan.changes if states[change.id] is State.DRIFTED]
    if drifted:
        raise PlanStale(plan.digest, tuple(drifted))
    present = tuple(id_ for id_, state in states.items() if state is State.DONE)
    waiting = tuple(c.id for c in plan.changes if c.id not in present and _is_written(c, server, entries or {}))
    changes = tuple(c for c in plan.changes if c.id not in present and c.id not in waiting)
    return Admitted(changes, present, waiting, tuple(_warnings(changes, server)))


def _of_server(plan: Plan, server: Server) -> list[str]:
    found = []
    has_settings = any(change.kind is Kind.SETTING for change in plan.changes)
    if server.managed and has_settings:
        advice = _INSTEAD.get(server.managed, f"set it with {server.managed}'s own tools: magnus plan --target conf")
        found.append(f"{server.managed} manages this server's settings, ALTER SYSTEM is not for it; {advice}")
    if not server.allow_alter_system and has_settings:
        found.append(
            "allow_alter_system is off on this server, so its settings are managed elsewhere; write them there: "
            "magnus plan --target conf"
        )
    if has_settings and not (server.permissions.is_superuser or server.permissions.can_reload):
        found.append(
            f"role {server.permissions.role} may not reload the configuration; as superuser: "
            f"GRANT EXECUTE ON FUNCTION pg_reload_conf() TO {server.permissions.role}"
        )
    return found


def _of_standbys(plan: Plan, server: Server) -> list[str]:
    """
    Raised: standbys first. Lowered: the primary first. A standby's own plan knows its place.
    """
    if server.is_standby or not server.standbys:
        return []
    raised = [c.name for c in plan.changes if c.kind is Kind.SETTING and _raises(c, server)]
    if not raised:
        return []
    names = ", ".join(sorted({standby.name for standby in server.standbys}))
    return [
        (
            f"{', '.join(raised)} must be raised on every standby ({names}) before the primary, or recovery pauses; "
            "make and apply a plan on each of them first, then repeat this with --standbys-ready"
        )
    ]


def _raises(change: Change, server: Server) -> bool:
    setting = server.settings.get(change.name)
    if change.name not in _STANDBY_FIRST or setting is None or change.after is None:
        return False
    wanted, now = setting.read(change.after), setting.amount
    return wanted is not None and now is not None and wanted > now


def refusals(change: Change, server: Server, plan: Plan, scripts: frozenset[str] = frozenset()) -> list[str]:
    """
    Return the reasons why one change must not be made on this server.
    """
    if server.is_standby and change.kind is not Kind.SETTING:
        return [f"{change.id}: this server is a standby; {change.kind} changes are made on the primary"]
    try:
        expected = statements(change)
    except ConfigError as error:
        return [f"{change.id}: {error}"]
    if expected is not None and change.sql != expected:
        return [f"{change.id}: its SQL does not do what the change says ({' '.join(change.sql)[:120]}); plan again"]
    if change.kind in {Kind.SETTING, Kind.ROLE_SETTING}:
        return [f"{change.id}: {reason}" for reason in _of_setting(change, server, plan)]
    if change.kind is Kind.EXTENSION:
        return _of_extension(change, server)
    return _of_object(change, scripts) if expected is None else []


def _of_extension(change: Change, server: Server) -> list[str]:
    known = server.extensions.get(change.database or server.database)
    if known is not None and change.name not in {item.name for item in known} | set(server.available_extensions):
        return [f"{change.id}: this server has no extension {change.name}; install its package on the server's machine"]
    name = re.escape(change.name)
    form = (
        rf"(CREATE EXTENSION( IF NOT EXISTS)?|ALTER EXTENSION) (\"{name}\"|{name})( UPDATE|( WITH)? SCHEMA [\w\"]+)?;?"
    )
    if all(re.fullmatch(form, statement.strip(), re.IGNORECASE) for statement in change.sql):
        return []
    return [f"{change.id}: its SQL does more than make the extension ({' '.join(change.sql)[:120]}); plan again"]


_MAKES: Final = (("create", "table"), ("create", "index"), ("create", "unique"), ("comment", "on"))
_RIGHTS: Final = frozenset({"select", "insert", "update", "delete", ",", "grant"})


def _of_object(change: Change, scripts: frozenset[str]) -> list[str]:
    """
    Tables and indexes carry their own SQL: a script that ships with magnus, or statements that only make something.
    """
    own = [sql for sql in change.sql if sql not in scripts]
    statements_ = [tokens for sql in own for tokens in _sqltext.split(_sqltext.scan(sql).tokens)]
    if all(tuple(tokens[:2]) in _MAKES or _is_grant(tokens) for tokens in statements_):
        return []
    return [f"{change.id}: its SQL does more than make a table or an index; plan again with this version of magnus"]


def _is_grant(tokens: Sequence[str]) -> bool:
    """
    Only rights on one table's rows.
    """
    place = list(tokens).index("on") if "on" in tokens else 0
    return tokens[0] == "grant" and set(tokens[:place]) <= _RIGHTS and tokens[place + 1] == "table"


def created(sql: Sequence[str]) -> tuple[str, ...]:
    """
    Return the names of the tables that a change's SQL creates, those without a schema in public.
    """
    found = []
    for statement in sql:
        for tokens in _sqltext.split(_sqltext.scan(statement).tokens):
            if tokens[:2] == ["create", "table"]:
                rest = tokens[5:] if tokens[2:5] == ["if", "not", "exists"] else tokens[2:]
                names = [piece.removeprefix('"') for piece in rest[: rest.index("(") if "(" in rest else 3 : 2]]
                found.append(".".join(names if len(names) > 1 else ["public", *names]))
    return tuple(found)


def statements(change: Change) -> tuple[str, ...] | None:
    """
    Return the statements that a change must consist of; None where it brings its own (tables, indexes).

    Raises:
        ConfigError: a name or value that cannot be written as SQL.
    """
    if change.kind is Kind.SETTING:
        return (quoting.alter_system(change.name, change.after),)
    if change.kind is Kind.ROLE_SETTING and change.role is not None:
        return (quoting.alter_role(change.role, change.name, change.after, database=change.database),)
    return None


def _of_setting(change: Change, server: Server, plan: Plan) -> list[str]:
    setting = server.settings.get(change.name)
    if setting is None:
        return _of_unknown(change, plan)
    if change.name in _NEVER:
        return ["says where the server is, how safe its data are or what programs it runs; set it by hand"]
    found = []
    if change.after is not None:
        reason = setting.refusal(change.after)
        if reason:
            found.append(f"value {change.after!r} {reason}")
        found += _of_list(change, setting)
    if change.kind is Kind.SETTING:
        found += _of_source(change, setting, server)
    return found


def _of_unknown(change: Change, plan: Plan) -> list[str]:
    """
    A library's settings exist once it is loaded, so they may follow a change that loads it.
    """
    library = change.name.partition(".")[0] if "." in change.name else None
    loads = (c for c in plan.changes if c.name == "shared_preload_libraries" and c.after)
    if library and any(library in split_list(c.after or "") and c.id in change.needs for c in loads):
        return []
    return ["this server knows no such setting; is the plan for another version?"]


def _of_list(change: Change, setting: Setting) -> list[str]:
    if change.name not in QUOTED_LISTS or change.after is None:
        return []
    wanted = split_list(change.after)
    if not wanted:
        return ["an empty list cannot be written by ALTER SYSTEM (it would hold one empty name); RESET it by hand"]
    lost = [item for item in split_list(setting.value) if item not in wanted]
    if lost and change.name == "shared_preload_libraries":
        return [f"value {change.after!r} would unload {', '.join(lost)}, which is loaded now; plan again"]
    return []


def _of_source(change: Change, setting: Setting, server: Server) -> list[str]:
    if setting.is_outranked:
        return [
            (
                f"{setting.value!r} comes from the {setting.source}, which outranks ALTER SYSTEM also after a restart; "
                "change it where the server is started"
            )
        ]
    if not server.permissions.can_alter(change.name):
        return [
            (
                f"role {server.permissions.role} may not set it; as superuser: GRANT ALTER SYSTEM ON PARAMETER "
                f"{change.name} TO {server.permissions.role}"
            )
        ]
    return []


def _is_written(change: Change, server: Server, entries: Mapping[str, str]) -> bool:
    setting = server.settings.get(change.name)
    written = entries.get(change.name.lower())
    if change.kind is not Kind.SETTING or setting is None or written is None or change.after is None:
        return False
    return change.context is Context.RESTART and setting.means(written) == setting.means(change.after)


def _drift(change: Change, server: Server) -> str:
    now = current(change, server)
    return f"{change.name} was {_shown(change.before)} when the plan was made and is {_shown(now)} now"


def _shown(value: str | None) -> str:
    return "not there" if value is None else repr(value)


def _warnings(changes: tuple[Change, ...], server: Server) -> list[str]:
    names = {change.name for change in changes if change.kind is Kind.SETTING}
    found = [
        f"{item.name}: sessions of {_whose(item.role, item.database)} keep {item.value!r}, which was set for them"
        for item in server.role_settings
        if item.name in names
    ]
    foreign = [s.name for s in server.settings.values() if s.pending_restart and s.name not in names]
    if foreign:
        found.append(f"a restart also brings what others changed before: {', '.join(foreign)}")
    return found


def _whose(role: str | None, database: str | None) -> str:
    parts = [f"role {role}"] if role else []
    parts += [f"database {database}"] if database else []
    return " in ".join(parts) or "everybody"
