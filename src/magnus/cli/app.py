"""The commands and their arguments; what they do is in the module of each."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, CycloptsError, Parameter

from magnus.cli import render
from magnus.cli.answer import Answer, ExitCode, Failure, OutputFormat
from magnus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence


@dataclass(frozen=True)
class Shared:
    """
    The options that every command has; they may stand before or after its name.
    """

    dsn: str | None
    output_format: OutputFormat


_DSN_HELP = "The server: a URI, 'host=… dbname=…' or 'service=…'. Else MAGNUS_DSN, DATABASE_URL, PGHOST and its kin."
FromShared = Annotated[Shared, Parameter(parse=False)]


def run(arguments: Sequence[str]) -> int:
    """
    Parse and carry out one command line; return its exit code.
    """
    try:
        code = _app().meta(list(arguments))
    except CycloptsError as error:
        render.complain(str(error), advice="see magnus --help")
        return ExitCode.USAGE
    return code if isinstance(code, int) else ExitCode.DONE


def _app() -> App:
    app = App(
        name="magnus",
        help="A warm, guarded, observable data layer for PostgreSQL.",
        version=metadata.version("magnus-db"),
        exit_on_error=False,
        print_error=False,
        result_action="return_value",
    )
    app.meta.suppress_keyboard_interrupt = False  # `main` says that it was interrupted
    app.command(ping)
    app.command(lanes)
    app.command(apply)
    app.command(rollback)

    @app.meta.default
    def launch(
        *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        dsn: Annotated[str | None, Parameter(name=["--dsn", "-d"], help=_DSN_HELP)] = None,
        output_format: Annotated[OutputFormat, Parameter(help="For people or for machines.")] = OutputFormat.TEXT,
    ) -> object:
        """
        Take the options that every command has, then run the command.
        """
        command, bound, ignored = app.parse_args(tokens)
        shared = Shared(dsn, output_format)
        return command(*bound.args, **bound.kwargs, **dict.fromkeys(ignored, shared))

    return app


def ping(*, shared: FromShared) -> int:
    """
    Connect as a service would; show server, role, guards and latency.
    """
    from magnus.cli.ping import ping as call

    return _carry_out("ping", lambda: asyncio.run(call(shared.dsn, os.environ)), shared)


def lanes(*, pool_size: Annotated[int, Parameter(help="Connections in the pool.")] = 30, shared: FromShared) -> int:
    """
    Show what each lane may use of a pool.
    """
    from magnus.cli.lanes import lanes as call

    return _carry_out("lanes", lambda: call(pool_size, os.environ), shared)


JournalFolder = Annotated[
    Path | None, Parameter(name="--journal", help="Folder of the journal; else under XDG_STATE_HOME.")
]
Agreed = Annotated[bool, Parameter(name="--yes", negative="", help="Agree without asking; for machines.")]
Confirm = Annotated[
    str | None, Parameter(help="The server's name; needed beside --yes when it is not on this machine.")
]
Restart = Annotated[bool, Parameter(name="--restart", negative="", help="Restart the server when a change needs it.")]
RestartCommand = Annotated[str | None, Parameter(help="The command that restarts it, instead of the one detected.")]
DryRun = Annotated[bool, Parameter(name="--dry-run", negative="", help="Only show what would be done.")]
GuardTimeout = Annotated[
    float, Parameter(name="--guard-timeout", help="Seconds for a restarted server to serve again, else it is put back.")
]


def apply(
    file: Annotated[Path | None, Parameter(help="The plan, as `magnus plan --out` wrote it.")] = None,
    /,
    *,
    yes: Agreed = False,
    confirm: Confirm = None,
    restart: Restart = False,
    restart_command: RestartCommand = None,
    guard_timeout: GuardTimeout = 60.0,
    dry_run: DryRun = False,
    only: Annotated[list[str] | None, Parameter(help="Changes, settings, groups or quick wins of the plan.")] = None,
    reason: Annotated[str, Parameter(help="For the journal: a ticket, a sentence.")] = "",
    resume: Annotated[
        bool, Parameter(name="--resume", negative="", help="Finish the run that was interrupted.")
    ] = False,
    skip_preflight: Annotated[
        bool,
        Parameter(name="--skip-preflight", negative="", help="Do not try the settings in a scratch cluster first."),
    ] = False,
    standbys_ready: Annotated[
        bool, Parameter(name="--standbys-ready", negative="", help="The standbys have what must be raised there first.")
    ] = False,
    journal: JournalFolder = None,
    shared: FromShared,
) -> int:
    """
    Make a plan's changes, after trying them in a scratch cluster, with a journal that takes them back.

    Example: magnus -d service=ava apply plan.json --reason CHG-4711
    """
    from magnus.cli import apply as command

    wanted = command.Wanted(
        file=file,
        dsn=shared.dsn,
        journal=journal,
        only=tuple(only or ()),
        reason=reason,
        confirm=confirm,
        restart_command=restart_command,
        guard_timeout=guard_timeout,
        is_agreed=yes,
        is_dry=dry_run,
        is_restarting=restart or restart_command is not None,
        is_resumed=resume,
        is_untried=skip_preflight,
        are_standbys_ready=standbys_ready,
    )
    return _change("apply", lambda: command.apply(wanted, dict(os.environ)), shared)


def rollback(
    name: Annotated[str | None, Parameter(help="A run, or a change (setting:work_mem); else the last run.")] = None,
    /,
    *,
    all_: Annotated[bool, Parameter(name="--all", negative="", help="Every run on this server, last first.")] = False,
    yes: Agreed = False,
    confirm: Confirm = None,
    restart: Restart = False,
    restart_command: RestartCommand = None,
    guard_timeout: GuardTimeout = 60.0,
    dry_run: DryRun = False,
    offline: Annotated[
        Path | None, Parameter(help="The data folder of a server that does not start: put its settings back on disk.")
    ] = None,
    journal: JournalFolder = None,
    shared: FromShared,
) -> int:
    """
    Take back what was applied; what somebody else changed since is left alone and reported.

    Example: magnus -d service=ava rollback --all --dry-run
    """
    from magnus.cli import rollback as command

    wanted = command.Wanted(
        name=name,
        dsn=shared.dsn,
        journal=journal,
        confirm=confirm,
        restart_command=restart_command,
        offline=offline,
        guard_timeout=guard_timeout,
        is_all=all_,
        is_dry=dry_run,
        is_agreed=yes,
        is_restarting=restart or restart_command is not None,
    )
    return _change("rollback", lambda: command.rollback(wanted, dict(os.environ)), shared)


def _change(command: str, call: Callable[[], Awaitable[Answer | Failure]], shared: Shared) -> int:
    from magnus.cli.tuning import guarded

    return _carry_out(command, lambda: asyncio.run(guarded(command, call)), shared)


def _carry_out(command: str, call: Callable[[], Answer | Failure], shared: Shared) -> int:
    try:
        found = call()
    except ConfigError as error:
        found = Failure(command, ExitCode.USAGE, str(error))
    return render.show(found, shared.output_format)
