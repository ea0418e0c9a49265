"""Changes that are no settings of the server: the extension, the roles' time-out, the slow-query log's table; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from magnus.tuning import quoting
from magnus.tuning.change import Change, Kind, Refusal, Risk
from magnus.tuning.setting import Context

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from magnus.tuning.facts import Facts, Role, Server

IDLE: Final = "idle_in_transaction_session_timeout"
IDLE_MS: Final = 60_000
STATEMENTS: Final = "pg_stat_statements"
SLOW_LOG: Final = "slow_query_log"
SLOW_PLANS: Final = "slow_query_plan"
GROUPS: Final = ("extension", "roles", "slow-log")
QUICK_WINS: Final[Mapping[str, str]] = {"quick-win-1": STATEMENTS, "quick-win-4": IDLE, "quick-win-5": SLOW_LOG}
_PRELOAD: Final = "setting:shared_preload_libraries"


def changes(facts: Facts, settings: Sequence[Change], slow_log_sql: str) -> Iterator[Change | Refusal]:
    """
    Yield what to make beside the server's settings, and what was considered.
    """
    yield from _extension(facts.server, any(change.id == _PRELOAD for change in settings))
    yield from _roles(facts.server)
    if slow_log_sql:
        yield from _slow_log(facts.server, slow_log_sql)


def application_roles(server: Server) -> tuple[Role, ...]:
    """
    Return the roles that services log in with: no superuser, no replication, no monitoring.
    """
    return tuple(
        role
        for role in server.roles
        if not (role.is_superuser or role.is_replication or role.is_monitor or role.name.startswith("pg_"))
    )


def _extension(server: Server, is_preload_planned: bool) -> Iterator[Change | Refusal]:  # noqa: FBT001
    database = server.database
    if server.extension(STATEMENTS) is not None:
        return
    version = server.available_extensions.get(STATEMENTS)
    if version is None or server.is_standby:
        reason = (
            "a standby follows its primary" if server.is_standby else "the extension is not installed on the server"
        )
        instead = (
            "plan on the primary" if server.is_standby else "install PostgreSQL's contrib package, then plan again"
        )
        yield Refusal(STATEMENTS, "absent", "created", reason, instead, "extension")
        return
    when = "readable after the restart that loads the library" if is_preload_planned else "readable at once"
    yield Change(
        id=f"extension:{STATEMENTS}@{database}",
        kind=Kind.EXTENSION,
        name=STATEMENTS,
        database=database,
        before=None,
        after=version,
        sql=(f"CREATE EXTENSION {quoting.identifier(STATEMENTS)}",),
        undo=(f"DROP EXTENSION {quoting.identifier(STATEMENTS)}",),
        reason=f"which queries take the time of database {database}; {when}",
        source="an extension is created in each database that reads it (documentation, 'pg_stat_statements')",
        group="extension",
        quick_win=("quick-win-1",),
        needs=(_PRELOAD,) if is_preload_planned else (),
    )


def _roles(server: Server) -> Iterator[Change | Refusal]:
    setting = server.settings.get(IDLE)
    if setting is None:
        return
    roles = application_roles(server)
    if not roles:
        yield Refusal(
            IDLE,
            setting.text,
            "60s for each application's role",
            "there is no role for an application: every role here is a superuser, replicates or monitors",
            "make one and plan again; services on Magnus set it on their own connections all the same",
            "roles",
        )
    for role in roles:
        own = next((s for s in server.role_settings if (s.role, s.database, s.name) == (role.name, None, IDLE)), None)
        seen = setting.amount if own is None else setting.read(own.value)
        if seen is not None and 0 < seen <= IDLE_MS * 1.05:
            continue
        yield _idle_timeout(role, None if own is None else own.value)


def _idle_timeout(role: Role, before: str | None) -> Change:
    return Change(
        id=f"role_setting:{role.name}.{IDLE}",
        kind=Kind.ROLE_SETTING,
        name=IDLE,
        role=role.name,
        before=before,
        after="60s",
        sql=(quoting.alter_role(role.name, IDLE, "60s"),),
        undo=(quoting.alter_role(role.name, IDLE, before),),
        unit="ms",
        context=Context.NEW_SESSIONS,
        reason="an abandoned transaction keeps its locks and stops vacuum; for this role only, so that a person's "
        "session and a migration are spared",
        source="60 s; per role, never for the server",
        cost="a session that idles inside a transaction for a minute is ended",
        group="roles",
        quick_win=("quick-win-4",),
        before_source="" if before is None else "user",
    )


def _slow_log(server: Server, script: str) -> Iterator[Change | Refusal]:
    database, schema = server.database, server.schema
    there = {name.rpartition(".")[2] for name in server.tables.get(database, frozenset())}
    if SLOW_LOG in there:
        return
    if server.is_standby:
        yield Refusal(SLOW_LOG, "absent", "created", "a standby follows its primary", "plan on the primary", "slow-log")
        return
    log, plans = (f"{quoting.identifier(schema)}.{quoting.identifier(name)}" for name in (SLOW_LOG, SLOW_PLANS))
    grants = tuple(
        f"GRANT {rights} ON TABLE {table} TO {quoting.identifier(role.name)}"
        for role in application_roles(server)
        for rights, table in (("SELECT, INSERT, DELETE", log), ("SELECT, INSERT, UPDATE, DELETE", plans))
    )
    yield Change(
        id=f"table:{schema}.{SLOW_LOG}@{database}",
        kind=Kind.TABLE,
        name=f"{schema}.{SLOW_LOG}",
        database=database,
        before=None,
        after="created",
        sql=(script, *grants),
        undo=(f"DROP TABLE {log}", *(() if SLOW_PLANS in there else (f"DROP TABLE {plans}",))),
        reason="services write their slow queries here, from a connection of their own",
        source="bigint identity and timestamptz: neither overflows nor depends on a time zone",
        risk=Risk.LOW,
        cost="a row for each slow query; taking it back drops what was logged",
        group="slow-log",
        quick_win=("quick-win-5",),
    )
