"""What the commands that change a server have in common: session, journal, identity, agreement, errors as one line."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import asyncpg

from magnus import sql
from magnus.cli import render
from magnus.cli.answer import ExitCode, Failure
from magnus.embedded import ClusterError
from magnus.errors import (
    ApplyRefused,
    ConfigError,
    ConnectError,
    MagnusError,
    NotReversible,
    PlanStale,
    PreflightFailed,
)
from magnus.tuning import autoconf, ledger, look, undo
from magnus.tuning.guard import VERDICTS, Orders, carry_out
from magnus.tuning.journal import Author, Journal, JournalBroken, JournalBusy, JournalUnusable, default_folder
from magnus.tuning.local import Site, system_identifier
from magnus.tuning.reach import Reach
from magnus.tuning.service import NotRestartable, detect
from magnus.tuning.session import Locked
from magnus.tuning.session import opened as open_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence

    from magnus.cli.answer import Answer
    from magnus.tuning.facts import Server
    from magnus.tuning.journal import Entry
    from magnus.tuning.ledger import Run
    from magnus.tuning.plan import Plan
    from magnus.tuning.service import Service
    from magnus.tuning.session import Connection, Session

_REFUSED: Final = (
    PlanStale,
    ApplyRefused,
    PreflightFailed,
    NotReversible,
    Locked,
    JournalUnusable,
    JournalBroken,
    JournalBusy,
    NotRestartable,
)


@contextlib.asynccontextmanager
async def opened(dsn: str | None, environ: Mapping[str, str], name: str) -> AsyncIterator[Session]:
    """
    Open a session that holds the server's lock.

    Raises:
        ConnectError, Locked
    """
    reach = Reach(dsn, environ, name)
    async with open_session(reach, site_of, render.note) as session:
        yield session


def site_of(server: Server) -> Site | None:
    """
    Return the server's place on this machine; None when it is elsewhere, or not ours to touch.
    """
    if not server.is_local or server.data_directory is None:
        return None
    try:
        site = Site.at(Path(server.data_directory))
    except (ClusterError, OSError):
        return None
    return site if site.system_identifier == server.system_identifier else None


async def entries(session: Session) -> Mapping[str, str] | None:
    """
    Return what postgresql.auto.conf holds, None when that cannot be seen.
    """
    content = await look.auto_conf(session.con, session.site)
    return None if content is None else autoconf.values(content)


def journal(session: Session, folder: Path | None, environ: Mapping[str, str]) -> Journal:
    """
    Return the journal of the session's cluster.
    """
    return journal_at(session.server.system_identifier, session.server.permissions.role, folder, environ)


def journal_at(system_identifier: str, role: str, folder: Path | None, environ: Mapping[str, str]) -> Journal:
    """
    Return the journal of a cluster, and say so when its last line was never finished.
    """
    author = Author.here(role, metadata.version("magnus-db"), environ)
    found = Journal.open(_place(folder, environ), system_identifier, author)
    if found.torn:
        lines = ", ".join(str(number) for number in found.torn)
        render.note(f"note: the journal's line {lines} was never finished; what it meant is looked up on the server")
    return found


def runs(session: Session, journal_: Journal) -> list[Run]:
    """
    Return the runs on the session's server.
    """
    server = session.server
    return undo.of_target(ledger.fold(journal_.entries), server.host, server.data_directory, server.port)


async def refuse_broken_files(session: Session) -> None:
    """
    Stop while a reload would do nothing: one error in any file is enough for that.

    Raises:
        ApplyRefused: naming file and line.
    """
    errors = await look.file_errors(session.con)
    if errors:
        raise ApplyRefused(tuple(f"{error}; repair it first, a reload applies nothing until then" for error in errors))


async def application(session: Session, dsn: str | None) -> Connection:
    """
    Open a session as the application does: by its own connection string if that is named, without settings of ours.

    Raises:
        ConfigError: it leads to another server.
    """
    reach = session.reach if dsn is None else replace(session.reach, dsn=dsn)
    con = await reach.connect(as_application=True)
    theirs = await con.fetchval("SELECT pg_postmaster_start_time()")
    if theirs != await session.con.fetchval("SELECT pg_postmaster_start_time()"):
        con.terminate()
        raise ConfigError("--app-dsn", reach.config().safe_dsn, "leads to another server than --dsn")
    return con


async def revive(dsn: str | None, folder: Path | None, environ: Mapping[str, str]) -> None:
    """
    Carry out the dead-man's orders of a run that was killed in its restart, when the server here is down since.

    The journal of the only cluster on this machine that such a run left down is found without the server's help.
    """
    reach = Reach(dsn, environ, "magnus guard")
    for given in _left(_place(folder, environ), Author.here("", metadata.version("magnus-db"), environ)):
        render.note(f"run {given.run} was interrupted in its restart; finishing that")
        await asyncio.to_thread(carry_out, given, reach)


def _place(folder: Path | None, environ: Mapping[str, str]) -> Path:
    return default_folder(environ) if folder is None else folder.expanduser().absolute()


def _left(place: Path, author: Author) -> list[Orders]:
    """
    Return the orders without a verdict, for clusters that are on this machine.
    """
    found = []
    for path in sorted(place.glob("*.jsonl")):
        pending: dict[str, Entry] = {}
        for entry in Journal.open(place, path.stem, author).entries:
            if entry.kind == "restart":
                pending[entry.run] = entry
            elif entry.kind in VERDICTS:
                pending.pop(entry.run, None)
        for entry in pending.values():
            given = replace(Orders.from_json(entry.data["orders"]), folder=str(place))
            with contextlib.suppress(OSError):
                if system_identifier(given.service.folder) == path.stem:
                    found.append(given)
    return found


def name_of(server: Server) -> str:
    """
    Return the name that the operator types to agree: the cluster's, else the database's.
    """
    return server.cluster_name or server.database


def identity(server: Server) -> str:
    """
    Say in one line which server this is.
    """
    kind = "STANDBY" if server.is_standby else f"PRIMARY, {len(server.standbys)} standbys"
    where = f"{server.host}:{server.port}"
    folder = f", {server.data_directory}" if server.data_directory else ""
    head = f"{name_of(server)} {where} PostgreSQL {server.version} {kind}, {server.sessions} sessions"
    return f"{head}, system {server.system_identifier}{folder}"


def agreed(command: str, server: Server, name: str, *, is_agreed: bool, confirm: str | None) -> Failure | None:
    """
    Ask for the name to be typed, or check what the command line says instead; None: agreed.
    """
    if confirm is not None and confirm != name:
        words = f"--confirm {confirm}, but this server is {name}"
        return Failure(command, ExitCode.REFUSED, words, "nothing was changed")
    if is_agreed:
        if server.is_local or confirm == name:
            return None
        words = f"{server.host} is not this machine"
        return Failure(command, ExitCode.REFUSED, words, f"with --yes, name it: --confirm {name}; nothing was changed")
    answer = render.ask(f"Type the name to {command}: {name}\n>")
    if answer is None:
        return Failure(
            command, ExitCode.REFUSED, "nobody is at the terminal to agree", "say --yes; nothing was changed"
        )
    if answer != name:
        return Failure(command, ExitCode.REFUSED, "the name does not match", "nothing was changed")
    return None


async def guarded(command: str, call: Callable[[], Awaitable[Answer | Failure]]) -> Answer | Failure:
    """
    Turn what is expected to go wrong into one line, what to do, and the exit code.
    """
    try:
        return await call()
    except PlanStale as error:
        return Failure(command, ExitCode.REFUSED, str(error), "make it again: magnus plan --out FILE")
    except _REFUSED as error:
        return Failure(command, ExitCode.REFUSED, str(error))
    except ConnectError as error:
        return Failure(command, ExitCode.UNREACHABLE, str(error), "check it with: magnus ping")
    except ConfigError:
        raise
    except MagnusError as error:
        return Failure(command, ExitCode.REFUSED, str(error))
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        # What the server says of a statement of ours holds no secret; what stands is in the journal.
        said = " ".join(str(error).split()) if isinstance(error, asyncpg.PostgresError) else "the connection was lost"
        return Failure(command, ExitCode.UNREACHABLE, said, "see magnus history; go on with apply --resume or rollback")


def columns(rows: Iterable[Sequence[str]]) -> list[str]:
    """
    Return rows as lines with aligned columns, none of them cut: names are there to be copied.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def expanded(plan: Plan, only: Sequence[str]) -> list[str]:
    """
    Return the ids of a plan's changes that these words name: ids, settings, groups, quick wins.

    Raises:
        ConfigError: a word names nothing in the plan.
    """
    found = []
    for word in (part.strip() for item in only for part in item.split(",")):
        ids = [c.id for c in plan.changes if word in {c.id, c.name, c.group, *c.quick_win}]
        if not ids:
            raise ConfigError("--only", word, f"names nothing in this plan ({', '.join(c.id for c in plan.changes)})")
        found += ids
    return list(dict.fromkeys(found))


def scripts() -> frozenset[str]:
    """
    Return the scripts of this version of magnus that a plan may hold.
    """
    found = set()
    for name in ("slow_query_log",):
        with contextlib.suppress(FileNotFoundError):
            found.add(sql.text(name))
    return frozenset(found)


class Restarting(Protocol):
    """
    The arguments of a command that may restart the server.
    """

    @property
    def is_restarting(self) -> bool: ...

    @property
    def restart_command(self) -> str | None: ...


def service(session: Session, wanted: Restarting) -> Service | None:
    """
    Return how the server is restarted, None when that was not asked for.

    Raises:
        NotRestartable: it is on another machine, not ours to touch, or somebody else's to restart.
    """
    if not wanted.is_restarting:
        return None
    server = session.server
    if not server.is_local:
        raise NotRestartable(
            f"{server.host} is not this machine, and magnus restarts nothing elsewhere: apply without --restart, "
            "restart it there, then apply once more"
        )
    if session.site is None:
        raise NotRestartable(
            f"{server.data_directory or 'the data folder'} cannot be read, so nothing could be put back if the server "
            "did not start: run as root or as the account that runs PostgreSQL"
        )
    return detect(session.site, wanted.restart_command)
