"""`magnus pgbouncer`: print a configuration of PgBouncer that fits the server and the services."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from magnus.cli.answer import Answer, ExitCode, Failure
from magnus.cli.plan import Told, checked, read_facts
from magnus.cli.session import ADVICE
from magnus.config import DatabaseConfig
from magnus.errors import ConfigError, ConnectError, TuningError
from magnus.lanes import LANES, QueryPriority
from magnus.session import SLACK
from magnus.tuning.pooler import Clients, lines_of, render, sizes_of

if TYPE_CHECKING:
    from collections.abc import Mapping


async def pgbouncer(
    dsn: str | None, environ: Mapping[str, str], *, processes: int, connections: int | None, cpus: int | None
) -> Answer | Failure:
    """
    Work out the configuration for a server, which is read and not changed.

    Raises:
        ConfigError: an argument or a variable has an impossible value, or the connections do not fit.
    """
    if processes < 1:
        raise ConfigError("--processes", processes, "must be at least 1")
    config = DatabaseConfig.from_environ(environ, **({} if dsn is None else {"dsn": dsn}))
    told = checked(Told(cpus=cpus))
    try:
        facts, _ = await read_facts(config, environ, told)
    except ConnectError as error:
        return Failure("pgbouncer", ExitCode.UNREACHABLE, f"{config.safe_dsn}: {error}", ADVICE.get(error.reason, ""))
    except TuningError as error:
        return Failure("pgbouncer", ExitCode.REFUSED, f"{config.safe_dsn}: {error}")
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        why = f"SQLSTATE {error.sqlstate}" if isinstance(error, asyncpg.PostgresError) else "the connection was lost"
        advice = "try again"
        return Failure("pgbouncer", ExitCode.UNREACHABLE, f"{config.safe_dsn}: facts could not be read ({why})", advice)
    clients = clients_of(config, processes)
    text = render(facts, clients, connections)
    sizes = sizes_of(facts, clients, connections)
    data = {
        "connections": sizes.total,
        "direct": sizes.direct,
        "settings": {line.name: line.value for line in lines_of(sizes, clients, facts.server)},
        "text": text,
    }
    return Answer("pgbouncer", data, text.splitlines())


def clients_of(config: DatabaseConfig, processes: int) -> Clients:
    """
    Return what the pooler must know of services with these settings.
    """
    return Clients(
        processes,
        config.max_pool_size,
        max(config.lane_timeout(lane) for lane in LANES),
        config.lane_timeout(QueryPriority.NORMAL) + SLACK,
        config.idle_in_transaction_session_timeout,
        config.connect_timeout,
    )
