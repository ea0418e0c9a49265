"""`magnus role`: print or make the roles that the optimizer works with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import asyncpg

from magnus.cli.answer import Answer, ExitCode, Failure
from magnus.cli.session import ADVICE
from magnus.config import DatabaseConfig
from magnus.errors import ConnectError, TuningError
from magnus.tuning import collect, roles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from magnus.tuning.collect import Connection

_NAMES: Final = {roles.Kind.MONITOR: "magnus_monitor", roles.Kind.TUNER: "magnus_tuner"}


async def role(
    dsn: str | None, environ: Mapping[str, str], kind: roles.Kind, name: str | None, *, is_applied: bool
) -> Answer | Failure:
    """
    Print the grants of a role for the server's version, or make the role in one transaction.

    Raises:
        ConfigError: an argument or a variable has an impossible value.
    """
    given = {} if dsn is None else {"dsn": dsn}
    config = DatabaseConfig.from_environ(environ, **given)
    name = name or _NAMES[kind]
    try:
        con = await collect.open_session(config, environ)
    except ConnectError as error:
        return Failure("role", ExitCode.UNREACHABLE, f"{config.safe_dsn}: {error}", ADVICE.get(error.reason, ""))
    try:
        return await _carried_out(con, kind, name, is_applied=is_applied)
    except TuningError as error:
        return Failure("role", ExitCode.REFUSED, f"{config.safe_dsn}: {error}")
    except asyncpg.InsufficientPrivilegeError:
        return Failure(
            "role",
            ExitCode.UNREACHABLE,
            f"{config.safe_dsn}: this role may not give these rights; nothing was changed",
            "connect as superuser, or give the printed statements to somebody who is",
        )
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        told = f"SQLSTATE {error.sqlstate}" if isinstance(error, asyncpg.PostgresError) else "the connection was lost"
        return Failure("role", ExitCode.UNREACHABLE, f"{config.safe_dsn}: nothing was changed ({told})")
    finally:
        await collect.close(con)


async def _carried_out(con: Connection, kind: roles.Kind, name: str, *, is_applied: bool) -> Answer:
    server, _ = await collect.read_server(con)
    found = roles.grants(kind, name, server)
    data: dict[str, object] = {
        "role": name,
        "kind": str(kind),
        "applied": is_applied,
        "statements": [{"sql": grant.sql, "purpose": grant.purpose} for grant in found],
    }
    if not is_applied:
        return Answer("role", data, roles.script(kind, name, server).splitlines())
    async with con.transaction():
        for grant in found:
            await con.execute(grant.sql)
    text = [
        *(f"ok  {grant.sql}" for grant in found),
        f"Role {name} is ready in database {server.database}. Give it a password: \\password {name}",
    ]
    if kind is roles.Kind.TUNER:
        text += [f"left to a superuser: {refusal}" for refusal in roles.SUPERUSER_ONLY]
    return Answer("role", data, text)
