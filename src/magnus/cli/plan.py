"""`magnus plan`: read, decide, show, save; nothing on the server is changed."""

from __future__ import annotations

import datetime as dt
import os
import tempfile
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg

from magnus import sql
from magnus.cli.answer import Answer, ExitCode, Failure
from magnus.cli.plan_text import lines_of
from magnus.cli.session import ADVICE
from magnus.config import DatabaseConfig
from magnus.errors import ConfigError, ConnectError, TuningError
from magnus.tuning import collect, host, mission, targets
from magnus.tuning.facts import Facts, Host, Pooler, Profile, Storage, Workload
from magnus.tuning.planner import make_plan
from magnus.tuning.units import MB, memory, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from magnus.tuning.facts import Server
    from magnus.tuning.plan import Plan

_LEAST_MEMORY: Final = 64 * MB


@dataclass(frozen=True, slots=True)
class Told:
    """
    What the command line says of machine and workload; None: not told.
    """

    memory: str | None = None
    cpus: int | None = None
    storage: Storage | None = None
    profile: Profile = Profile.OLTP
    pooler: str | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """
    What the command line wants of the plan.
    """

    only: Sequence[str] = ()
    out: Path | None = None
    target: targets.Name | None = None
    detailed_exitcode: bool = False
    explain_mission: bool = False


async def plan(dsn: str | None, environ: Mapping[str, str], told: Told, wish: Wish) -> Answer | Failure:
    """
    Make the plan for a server.

    Raises:
        ConfigError: an argument or a variable has an impossible value, or the plan cannot be saved.
    """
    given_facts = checked(told)
    given = {} if dsn is None else {"dsn": dsn}
    config = DatabaseConfig.from_environ(environ, **given)
    try:
        facts, warnings = await read_facts(config, environ, given_facts)
    except ConnectError as error:
        return Failure("plan", ExitCode.UNREACHABLE, f"{config.safe_dsn}: {error}", ADVICE.get(error.reason, ""))
    except TuningError as error:
        return Failure("plan", ExitCode.REFUSED, f"{config.safe_dsn}: {error}")
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        why = f"SQLSTATE {error.sqlstate}" if isinstance(error, asyncpg.PostgresError) else "the connection was lost"
        return Failure("plan", ExitCode.UNREACHABLE, f"{config.safe_dsn}: facts could not be read ({why})", "try again")
    made = _made(facts, wish.only, warnings)
    if wish.out is not None:
        save(made, wish.out)
    return _answer(made, facts, wish)


async def planned(dsn: str | None, environ: Mapping[str, str]) -> Plan:
    """
    Make the plan of everything, from what can be seen alone.

    Raises:
        ConfigError: an impossible connection string or variable.
        ConnectError: the server cannot be reached.
    """
    given = {} if dsn is None else {"dsn": dsn}
    facts, warnings = await read_facts(DatabaseConfig.from_environ(environ, **given), environ, checked(Told()))
    return _made(facts, (), warnings)


def _made(facts: Facts, only: Sequence[str], warnings: Sequence[str]) -> Plan:
    made = make_plan(
        facts,
        only=only,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        magnus_version=metadata.version("magnus-db"),
        slow_log_sql=sql.text("slow_query_log"),
    )
    return replace(made, warnings=(*warnings, *made.warnings)).sealed()


async def read_facts(
    config: DatabaseConfig, environ: Mapping[str, str], told: Checked
) -> tuple[Facts, tuple[str, ...]]:
    """
    Read the facts of a server and, where its process is on this machine, of the machine; what is told comes on top.

    Raises:
        ConnectError: no connection could be opened.
        asyncpg.PostgresError: what every role may read could not be read.
    """
    con = await collect.open_session(config, environ)
    try:
        server, session = await collect.read_server(con)
        is_local = session.is_direct and host.is_process_here(host.read_text, session.pid, session.client_port)
        server = replace(server, is_local=is_local)
        seen = host.read_host(session.pid, server.data_directory) if is_local else None
    finally:
        await collect.close(con)
    machine, warnings = told_over_seen(told, seen)
    workload = Workload(told.profile, "told")
    return Facts(server, machine, workload, told.pooler), warnings


@dataclass(frozen=True, slots=True)
class Checked:
    """
    `Told` after its values were read.
    """

    memory: int | None
    cpus: int | None
    storage: Storage | None
    profile: Profile
    pooler: Pooler | None


def checked(told: Told) -> Checked:
    """
    Read the values of the command line.

    Raises:
        ConfigError: one is impossible.
    """
    size = None
    if told.memory is not None:
        size = memory(told.memory)
        if size is None or size < _LEAST_MEMORY:
            raise ConfigError("--memory", told.memory, "must be a size of at least 64MB, such as 8GB")
    if told.cpus is not None and told.cpus < 1:
        raise ConfigError("--cpus", told.cpus, "must be at least 1")
    return Checked(size, told.cpus, told.storage, told.profile, _pooler(told.pooler))


def _pooler(text: str | None) -> Pooler | None:
    if text is None:
        return None
    kind, colon, limit = text.partition(":")
    if not kind or (colon and not (limit.isascii() and limit.isdigit() and int(limit) > 0)):
        raise ConfigError("--pooler", text, "must be a name, or name:connections, such as pgbouncer:40")
    return Pooler(kind, int(limit) if limit else None)


def told_over_seen(told: Checked, seen: Host | None) -> tuple[Host | None, tuple[str, ...]]:
    """
    Combine what was told with what was seen: the least memory counts, else what was told.
    """
    warnings: tuple[str, ...] = ()
    machine = seen or Host()
    size, source = machine.memory, machine.memory_source
    if told.memory is not None:
        if size is not None and told.memory > size:
            warnings = (
                f"--memory {shown(told.memory)} is more than the {shown(size)} that this server may use ({source})",
            )
        else:
            size, source = told.memory, "--memory"
    machine = replace(machine, memory=size, memory_source=source)
    if told.cpus is not None:
        machine = replace(machine, cpus=told.cpus, cpus_source="--cpus")
    if told.storage is not None:
        machine = replace(machine, storage=told.storage, storage_source="--storage")
    return (None if machine == Host() else machine), warnings


def save(made: Plan, path: Path) -> None:
    """
    Write a plan whole or not at all: a reader never finds half of one.

    Raises:
        ConfigError: the file cannot be written.
    """
    folder = path.parent
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=folder)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(made.dumps())
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError("--out", str(path), f"cannot be written: {error.strerror}") from None


def _answer(made: Plan, facts: Facts, wish: Wish) -> Answer:
    exit_code = ExitCode.NO if wish.detailed_exitcode and made.changes else ExitCode.DONE
    data: dict[str, object] = {"plan": made.to_json()}
    if wish.target is not None:
        text = targets.render(made, wish.target)
        return Answer(
            "plan", {**data, "target": str(wish.target), "text": text}, text.splitlines(), exit_code=exit_code
        )
    judged = mission.judge(facts, made) if wish.explain_mission else ()
    if judged:
        data["mission"] = [
            {"name": j.name, "asked": j.asked, "verdict": str(j.verdict), "here": j.here, "reason": j.reason}
            for j in judged
        ]
    return Answer("plan", data, lines_of(made, identity(facts.server), wish.out, judged), exit_code=exit_code)


def identity(server: Server) -> str:
    """
    Return one line that says which server this is.
    """
    place = f"{server.host}:{server.port}"
    kind = "standby" if server.is_standby else "primary"
    name = f"{server.cluster_name} " if server.cluster_name else ""
    count = len(server.standbys)
    standbys = f", {count} standby{'s' if count != 1 else ''}" if count else ""
    sessions = f"{server.sessions} other session{'s' if server.sessions != 1 else ''}"
    return f"{name}{server.database}@{place}  PostgreSQL {server.version}  {kind}{standbys}, {sessions}"
