"""The arguments of the commands that show what is there or happens; what they do is in a module of each."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from magnus.cli import render
from magnus.cli.answer import Answer, ExitCode, Failure, OutputFormat
from magnus.cli.options import FromShared, Shared, carry_out, one_of, positive, span
from magnus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from magnus._driver import Connection


def ping(*, shared: FromShared) -> int:
    """
    Connect as a service would; show server, role, guards and latency.
    """
    from magnus.cli.ping import ping as call

    return carry_out("ping", lambda: asyncio.run(call(shared.dsn, os.environ)), shared)


def lanes(
    *,
    pool_size: Annotated[int | None, Parameter(help="Connections in the pool. Else DB_POOL_MAX, else 30.")] = None,
    shared: FromShared,
) -> int:
    """
    Show what each lane may use of the pool that the environment configures.
    """
    from magnus.cli.lanes import lanes as call

    return carry_out("lanes", lambda: call(pool_size, os.environ), shared)


def top(
    *,
    order: Annotated[
        str, Parameter(name=["--order", "-s"], help="total, mean, calls, io, wal, temp or variance.")
    ] = "total",
    limit: Annotated[int, Parameter(help="Statements to show.")] = 20,
    interval: Annotated[
        str | None, Parameter(help="Show the last so many seconds, again and again: 2s. Into a pipe: once.")
    ] = None,
    shared: FromShared,
) -> int:
    """
    Show the statements that the server spends its time on (pg_stat_statements).

    Since counting began, or with --interval what happens now. Nothing is reset.
    """
    from magnus.cli import top as module
    from magnus.insight import ORDERS

    one_of("--order", order, ORDERS)
    seconds, most = span("--interval", interval), positive("--limit", limit)
    return watch(
        "top", lambda con: module.frames(con, order=order, limit=most, interval=seconds), shared,
        is_live=seconds is not None,
    )  # fmt: skip


def activity(
    *,
    idle: Annotated[bool, Parameter(help="Show idle sessions too.", negative="")] = False,
    interval: Annotated[str | None, Parameter(help="Look again every so many seconds: 2s. Into a pipe: once.")] = None,
    cancel: Annotated[int | None, Parameter(help="Cancel what the session with this pid runs.")] = None,
    terminate: Annotated[int | None, Parameter(help="End the session with this pid.")] = None,
    yes: Annotated[bool, Parameter(help="Do not ask.", negative="")] = False,
    shared: FromShared,
) -> int:
    """
    Show sessions, and who blocks whom as a tree.
    """
    from magnus.cli import activity as module

    if cancel is not None and terminate is not None:
        raise ConfigError("--terminate", terminate, "cannot be given together with --cancel")
    pid = terminate if cancel is None else cancel
    if pid is not None:
        return _end(pid, whole_session=cancel is None, yes=yes, shared=shared)
    seconds = span("--interval", interval)
    return watch(
        "activity", lambda con: module.frames(con, show_idle=idle, interval=seconds), shared,
        is_live=seconds is not None,
    )  # fmt: skip


def dashboard(
    *,
    host: Annotated[str, Parameter(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="Port to listen on, 0 for a free one.")] = 8765,
    token: Annotated[
        str | None,
        Parameter(
            env_var="MAGNUS_DASHBOARD_TOKEN",
            help="Who may look. On 127.0.0.1 nobody needs one; elsewhere one is made and shown.",
        ),
    ] = None,
    shared: FromShared,
) -> int:
    """
    Show a server on a web page, live: statements, sessions, locks, plans, slow log. It changes nothing.

    Example: magnus --dsn service=ava dashboard --port 9000
    """
    from magnus.cli.dashboard import serve as call

    return carry_out("dashboard", lambda: call(shared.dsn, os.environ, host=host, port=port, token=token), shared)


def slow(
    *,
    since: Annotated[str, Parameter(help="How far back: 15m, 1h, 1d.")] = "1d",
    order: Annotated[str, Parameter(name=["--order", "-s"], help="total, mean, max, count or recent.")] = "total",
    limit: Annotated[int, Parameter(help="Kinds of statements to show.")] = 20,
    plan: Annotated[str | None, Parameter(help="Show the kept plan of this fingerprint instead.")] = None,
    shared: FromShared,
) -> int:
    """
    Show what was slow: the slow-query log, grouped, with a trend.
    """
    from magnus.cli import slow as module
    from magnus.cli.session import look
    from magnus.insight import SORTS

    def call() -> Answer | Failure:
        one_of("--order", order, SORTS)
        seconds, most = span("--since", since) or 0.0, positive("--limit", limit)

        async def work(con: Connection) -> Answer | Failure:
            if plan is not None:
                return await module.explain(con, plan)
            return await module.slow(con, since=seconds, order=order, limit=most)

        return look("slow", shared.dsn, os.environ, work)

    return carry_out("slow", call, shared)


def _end(pid: int, *, whole_session: bool, yes: bool, shared: Shared) -> int:
    from magnus.cli import activity as module
    from magnus.cli.session import look

    async def work(con: Connection) -> Answer | Failure:
        found = await module.describe(con, pid)
        if found is None:
            return Failure("activity", ExitCode.REFUSED, f"there is no session {pid}", "look again: magnus activity")
        word = "Terminate" if whole_session else "Cancel the statement of"
        if not yes and not render.confirm(f"{word} {found}?"):
            return Failure("activity", ExitCode.REFUSED, "nothing was done", "say yes, or --yes")
        return await module.end(con, pid, whole_session=whole_session)

    return carry_out("activity", lambda: look("activity", shared.dsn, os.environ, work), shared)


def watch(command: str, frames: Callable[[Connection], AsyncIterator[Answer]], shared: Shared, *, is_live: bool) -> int:
    """
    Show what `frames` yields: the first, or all of them in place on a terminal.
    """
    from magnus.cli.session import look

    is_drawn = is_live and shared.output_format is OutputFormat.TEXT and render.is_terminal()

    async def work(con: Connection) -> Answer | Failure:
        if is_drawn:
            await render.show_live(frames(con))
        return await anext(frames(con))

    return carry_out(command, lambda: look(command, shared.dsn, os.environ, work), shared)
