"""The arguments of the commands that change a server or ask what was changed; what they do is in a module of each."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path  # the annotations of commands are read at run time
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from magnus.cli.options import FromShared, Shared, carry_out

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from magnus.cli.answer import Answer, Failure

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
    file: Annotated[
        Path | None, Parameter(help="The plan, as `magnus plan --out` wrote it; without it, plan now.")
    ] = None,
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


def verify(
    run: Annotated[str | None, Parameter(help="A run; else all that stand, measured since the last.")] = None,
    /,
    *,
    app_dsn: Annotated[
        str | None, Parameter(help="How the application connects: its role and its way in. Else --dsn.")
    ] = None,
    min_calls: Annotated[int, Parameter(help="A query with fewer calls before or since is not judged.")] = 30,
    max_regression: Annotated[float, Parameter(help="As a part: 0.1 lets the mean time grow by 10 %.")] = 0.1,
    rollback_if_worse: Annotated[
        bool,
        Parameter(name="--rollback-if-worse", negative="", help="When slower, take back what a reload is enough for."),
    ] = False,
    journal: JournalFolder = None,
    shared: FromShared,
) -> int:
    """
    See whether what was applied is in force for the application, and whether queries became faster or slower.

    Example: magnus -d service=ava-admin verify --app-dsn service=ava
    """
    from magnus.cli import verify as command

    wanted = command.Wanted(run, shared.dsn, app_dsn, journal, min_calls, max_regression, rollback_if_worse)
    return _change("verify", lambda: command.verify(wanted, dict(os.environ)), shared)


def drift(*, journal: JournalFolder = None, shared: FromShared) -> int:
    """
    Say which of our changes somebody else changed since; exit code 1 when there are any.

    Example: magnus -d service=ava drift
    """
    from magnus.cli import verify as command

    return _change("drift", lambda: command.drift(shared.dsn, journal, dict(os.environ)), shared)


def history(
    run: Annotated[str | None, Parameter(help="Show this run's changes; else all runs.")] = None,
    /,
    *,
    journal: JournalFolder = None,
    shared: FromShared,
) -> int:
    """
    List what was done to which server, by whom, when and why; needs no server.

    Example: magnus history 20261121-010402-3f9c1a
    """
    from magnus.cli.history import history as call

    async def ask() -> Answer:
        return call(run, journal, os.environ)

    return _change("history", ask, shared)


def _change(command: str, call: Callable[[], Awaitable[Answer | Failure]], shared: Shared) -> int:
    from magnus.cli.tuning import guarded

    return carry_out(command, lambda: asyncio.run(guarded(command, call)), shared)


COMMANDS = (apply, verify, rollback, history, drift)
