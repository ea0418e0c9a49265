"""One connection for a command that looks at a server, and what to say when there is none."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from magnus import _driver
from magnus.cli.answer import Answer, ExitCode, Failure
from magnus.config import DatabaseConfig
from magnus.errors import ConnectError
from magnus.insight import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping

    from magnus._driver import Connection

ADVICE: Final[Mapping[str, str]] = MappingProxyType({
    "unreachable": "is PostgreSQL running there? Check host and port",
    "timeout": "check host and port, and what lies between",
    "credentials": "check user and password, and pg_hba.conf on the server",
    "database": "check the database's name",
    "too_many": "raise max_connections, or close sessions",
    "starting": "try again in a moment",
    "read_only": "name the primary, or ask for target_session_attrs=any",
    "tls": "check sslmode, sslrootcert and the server's certificate",
})
"""What to do, by the reason of a `ConnectError`."""
_QUIET: Final = {"application_name": "magnus", "lock_timeout": "1000", "statement_timeout": "30000"}


@asynccontextmanager
async def opened(config: DatabaseConfig) -> AsyncIterator[Connection]:
    """
    Lend a connection that waits for no lock for longer than a second, and for nothing for longer than thirty.

    Raises:
        ConnectError: it could not be opened.
    """
    arguments = config.direct().connect_arguments(os.environ)
    arguments["server_settings"] = {**arguments["server_settings"], **_QUIET}
    try:
        async with asyncio.timeout(_driver.connect_limit(config.connect_timeout, arguments)):
            con = await _driver.driver_connect(**arguments)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise _driver.connect_error(error) from None
    try:
        yield con
    finally:
        await asyncio.shield(_close(con))


async def _close(con: Connection) -> None:
    try:
        await con.close(timeout=1.0)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        con.terminate()


def look(
    command: str,
    dsn: str | None,
    environ: Mapping[str, str],
    work: Callable[[Connection], Coroutine[Any, Any, Answer | Failure]],
) -> Answer | Failure:
    """
    Carry out `work` on a connection of its own; what can go wrong with a server becomes a failure in one line.

    Raises:
        ConfigError: the target or a variable has an impossible value.
    """
    given = {} if dsn is None else {"dsn": dsn}
    config = DatabaseConfig.from_environ(environ, **given)

    async def carry_out() -> Answer | Failure:
        async with opened(config) as con:
            return await work(con)

    try:
        return asyncio.run(carry_out())
    except ConnectError as error:
        return Failure(command, ExitCode.UNREACHABLE, f"{config.safe_dsn}: {error}", ADVICE.get(error.reason, ""))
    except Unavailable as error:
        return Failure(command, ExitCode.UNREACHABLE, f"{config.safe_dsn}: {error}", error.advice)
    except asyncpg.PostgresError as error:  # its text may quote data
        told = f"the server refused (SQLSTATE {error.sqlstate})"
        return Failure(command, ExitCode.UNREACHABLE, f"{config.safe_dsn}: {told}", "see the server's log")
    except (asyncpg.InterfaceError, OSError):
        return Failure(command, ExitCode.UNREACHABLE, f"{config.safe_dsn}: the connection was lost", "try again")
