"""Roles with exactly the rights that the optimizer needs: one that looks, one that may change what is planned; pure.

What each right is for stands beside it. Rights on functions and views are each database's own, so the statements are
for the database that they run in.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from magnus.errors import ConfigError
from magnus.tuning import quoting
from magnus.tuning.objects import STATEMENTS
from magnus.tuning.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from magnus.tuning.facts import Server


class Kind(enum.StrEnum):
    """
    Which role: one for check and plan, or one for apply, verify and rollback too.
    """

    MONITOR = "monitor"
    TUNER = "tuner"


@dataclass(frozen=True, slots=True)
class Grant:
    """
    One statement and what it is for.
    """

    sql: str
    purpose: str


SUPERUSER_ONLY: Final = (
    "CREATE EXTENSION pg_stat_statements: it is not a trusted extension",
    "ALTER ROLE … SET for another role: that right would let it change passwords too",
)
"""What no grant short of too much allows."""


def settings_for(server: Server) -> tuple[str, ...]:
    """
    Return the settings that a rule may plan on this server.
    """
    return tuple(
        sorted(
            rule.setting
            for rule in RULES
            if rule.is_planned
            and rule.setting in server.settings
            and server.settings[rule.setting].context != "internal"
        )
    )


def grants(kind: Kind, name: str, server: Server) -> tuple[Grant, ...]:
    """
    Return what makes the role, in order. A role that exists keeps what it has.

    Raises:
        ConfigError: the name is impossible, or that of a superuser, or of this session's role.
    """
    existing = next((role for role in server.roles if role.name == name), None)
    if existing is not None and existing.is_superuser:
        raise ConfigError("--name", name, "is a superuser, who needs no grants and should not be used for this")
    if name == server.permissions.role or name.startswith("pg_") or name in {"public", "none"}:
        raise ConfigError("--name", name, "must be a role of its own")
    return (
        *_made(name, is_there=existing is not None),
        *_monitor(name, server),
        *(_tuner(name, server) if kind is Kind.TUNER else ()),
    )


def _made(name: str, *, is_there: bool) -> Iterator[Grant]:
    if not is_there:
        yield Grant(
            f"CREATE ROLE {quoting.identifier(name)} LOGIN", "a role of its own; give it a password: \\password"
        )


def _monitor(name: str, server: Server) -> Iterator[Grant]:
    role, database = quoting.identifier(name), quoting.identifier(server.database)
    yield Grant(f"GRANT CONNECT ON DATABASE {database} TO {role}", "look into this database")
    yield Grant(f"GRANT pg_monitor TO {role}", "statistics, sizes and settings of everybody")
    statements = server.extension(STATEMENTS)
    schema = quoting.identifier((statements and statements.schema) or "public")
    yield Grant(f"GRANT USAGE ON SCHEMA {schema} TO {role}", f"find {STATEMENTS} and the slow-query log")
    yield Grant(
        f"GRANT SELECT ON pg_catalog.pg_file_settings TO {role}", "errors in the files, values that wait for a restart"
    )
    function = "pg_catalog.pg_show_all_file_settings()"
    yield Grant(f"GRANT EXECUTE ON FUNCTION {function} TO {role}", "what that view calls")


def _tuner(name: str, server: Server) -> Iterator[Grant]:
    role = quoting.identifier(name)
    names = ", ".join(quoting.setting_name(setting) for setting in settings_for(server))
    yield Grant(
        f"GRANT ALTER SYSTEM ON PARAMETER {names} TO {role}", "the settings that a rule may plan, and no others"
    )
    yield Grant(f"GRANT EXECUTE ON FUNCTION pg_catalog.pg_reload_conf() TO {role}", "bring them into force")
    yield Grant(f"GRANT pg_checkpoint TO {role}", "a checkpoint before a restart, so that it is short")
    yield Grant(f"GRANT CREATE ON SCHEMA public TO {role}", "the slow-query log's table")


def script(kind: Kind, name: str, server: Server) -> str:
    """
    Return the statements as SQL for psql, with what each is for, and how to take it all back.

    Raises:
        ConfigError: the name is impossible.
    """
    return "\n".join(_lines(kind, name, server)) + "\n"


def _lines(kind: Kind, name: str, server: Server) -> Iterator[str]:
    role = quoting.identifier(name)
    place = f"database {quoting.comment(server.database)}, PostgreSQL {server.version}"
    yield f"-- {kind} role for {place}; run it as superuser"
    for grant in grants(kind, name, server):
        yield f"{grant.sql};  -- {grant.purpose}"
    if kind is Kind.TUNER:
        for refusal in SUPERUSER_ONLY:
            yield f"-- left to a superuser: {refusal}"
    yield f"-- take it back: DROP OWNED BY {quoting.comment(role)}; DROP ROLE {quoting.comment(role)};"
