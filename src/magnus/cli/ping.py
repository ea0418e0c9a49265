"""One connection as a service would open it: who answers, as whom, how fast, under which guards."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from magnus.cli.answer import Answer, ExitCode, Failure, Table
from magnus.cli.session import ADVICE
from magnus.config import DatabaseConfig
from magnus.database import Database
from magnus.errors import MagnusError

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROUNDS: Final = 5
_GUARDS: Final = (
    "application_name",
    "statement_timeout",
    "transaction_timeout",
    "idle_in_transaction_session_timeout",
    "client_connection_check_interval",
)
_SERVER: Final = """
SELECT current_setting('server_version') AS version, current_database() AS database, current_user AS role,
       pg_is_in_recovery() AS is_standby, pg_has_role('pg_monitor', 'MEMBER') AS is_monitor,
       ARRAY(SELECT current_setting(name, true) FROM unnest($1::text[]) WITH ORDINALITY AS g (name, place)
             ORDER BY place) AS guards
"""


async def ping(dsn: str | None, environ: Mapping[str, str]) -> Answer | Failure:
    """
    Open one connection with the settings of `environ`, `dsn` before them, and ask the server about itself.

    Raises:
        ConfigError: the target or a variable has an impossible value.
    """
    given = {} if dsn is None else {"dsn": dsn}
    config = DatabaseConfig.from_environ(environ, **given).replace(min_pool_size=1, max_pool_size=1)
    db = Database(config)
    try:
        await db.connect()
        facts = await _ask(db)
    except (MagnusError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        return _failure(config, error)
    finally:
        await db.close()
    return _answer(config, facts)


async def _ask(db: Database) -> dict[str, Any]:
    async with db.acquire() as con:
        record = await con.fetchrow(_SERVER, list(_GUARDS))
        assert record is not None
        times = []
        for _ in range(_ROUNDS):
            begin = time.perf_counter()
            await con.fetchval("SELECT 1")
            times.append(time.perf_counter() - begin)
    shown = zip(_GUARDS, record["guards"], strict=True)
    return {
        "version": record["version"],
        "database": record["database"],
        "role": record["role"],
        "is_monitor": record["is_monitor"],
        "is_standby": record["is_standby"],
        "latency_ms": round(statistics.median(times) * 1000, 3),
        "guards": {name: value for name, value in shown if value is not None},  # a setting that this version lacks
    }


def _answer(config: DatabaseConfig, facts: dict[str, Any]) -> Answer:
    is_monitor = "yes" if facts["is_monitor"] else "no"
    kind = "standby" if facts["is_standby"] else "primary"
    text = [
        f"ok  {config.safe_dsn}  PostgreSQL {facts['version']} ({kind})",
        f"    database {facts['database']}, role {facts['role']} (pg_monitor: {is_monitor})",
        f"    {facts['latency_ms']:.3f} ms a round trip (median of {_ROUNDS})",
    ]
    return Answer(
        "ping", {"dsn": config.safe_dsn, **facts}, text, [Table(("guard", "value"), [*facts["guards"].items()])]
    )


def _failure(config: DatabaseConfig, error: Exception) -> Failure:
    """
    Only the layer's own errors are quoted: their texts hold no secret.
    """
    reason = getattr(error, "reason", "")
    told = str(error) if isinstance(error, MagnusError) else "the connection was lost"
    return Failure("ping", ExitCode.UNREACHABLE, f"{config.safe_dsn}: {told}", ADVICE.get(reason, ""))
