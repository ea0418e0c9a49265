"""The commands and their arguments; what they do is in the module of each."""

from __future__ import annotations

import asyncio
import enum
import os
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path  # noqa: TC003  # the annotations of commands are read at run time
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, CycloptsError, Parameter

from magnus.cli import render
from magnus.cli.answer import Answer, ExitCode, Failure, OutputFormat
from magnus.errors import ConfigError
from magnus.tuning.facts import Profile, Storage
from magnus.tuning.roles import Kind  # noqa: TC001  # as above
from magnus.tuning.targets import Name as Target  # noqa: TC001  # as above

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Sequence

    from magnus._driver import Connection


@dataclass(frozen=True)
class Shared:
    """
    The options that every command has; they may stand before or after its name.
    """

    dsn: str | None
    output_format: OutputFormat
    output: Path | None = None


class FailOn(enum.StrEnum):
    """
    From which severity on findings make the answer a no.
    """

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


_DSN_HELP = "The server: a URI, 'host=… dbname=…' or 'service=…'. Else MAGNUS_DSN, DATABASE_URL, PGHOST and its kin."
FromShared = Annotated[Shared, Parameter(parse=False)]


def run(arguments: Sequence[str]) -> int:
    """
    Parse and carry out one command line; return its exit code.
    """
    try:
        code = whole().meta(list(arguments))
    except CycloptsError as error:
        render.complain(str(error), advice="see magnus --help")
        return ExitCode.USAGE
    return code if isinstance(code, int) else ExitCode.DONE


def whole() -> App:
    """
    Return the application with all its commands.
    """
    from magnus.cli import changes, loads

    app = _app()
    for command in (*loads.COMMANDS, *changes.COMMANDS):
        app.command(command)
    return app


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
    app.command(check)
    app.command(explain)
    app.command(indexes)
    app.command(plan)
    app.command(pgbouncer)
    app.command(role)
    app.command(top)
    app.command(activity)
    app.command(dashboard)
    slow_app = App(name="slow", help="Show what was slow: the slow-query log, grouped, with a trend.")
    slow_app.default(slow)
    slow_app.command(install)
    slow_app.command(remove)
    app.command(slow_app)
    cache_app = App(name="cache", help="Triggers that tell other processes' caches of changes (cache_notify, fresh).")
    cache_app.command(install_cache, name="install")
    cache_app.command(remove_cache, name="remove")
    app.command(cache_app)
    once_app = App(name="once", help="The table of units of work that happen once (Database.run_once).")
    once_app.command(install_once, name="install")
    once_app.command(expire_once, name="expire")
    app.command(once_app)

    @app.meta.default
    def launch(
        *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        dsn: Annotated[str | None, Parameter(name=["--dsn", "-d"], help=_DSN_HELP)] = None,
        output_format: Annotated[OutputFormat, Parameter(help="For people or for machines.")] = OutputFormat.TEXT,
        output: Annotated[
            Path | None, Parameter(name=["--output", "-o"], help="Write the answer to this file.")
        ] = None,
    ) -> object:
        """
        Take the options that every command has, then run the command.
        """
        command, bound, ignored = app.parse_args(tokens)
        shared = Shared(dsn, output_format, output)
        try:
            return command(*bound.args, **bound.kwargs, **dict.fromkeys(ignored, shared))
        except ConfigError as error:  # of an argument
            return render.show(Failure(" ".join(tokens[:1]), ExitCode.USAGE, str(error)), output_format, output)

    return app


def ping(*, shared: FromShared) -> int:
    """
    Connect as a service would; show server, role, guards and latency.
    """
    from magnus.cli.ping import ping as call

    return _carry_out("ping", lambda: asyncio.run(call(shared.dsn, os.environ)), shared)


def lanes(
    *,
    pool_size: Annotated[int | None, Parameter(help="Connections in the pool. Else DB_POOL_MAX, else 30.")] = None,
    shared: FromShared,
) -> int:
    """
    Show what each lane may use of the pool that the environment configures.
    """
    from magnus.cli.lanes import lanes as call

    return _carry_out("lanes", lambda: call(pool_size, os.environ), shared)


def check(
    *,
    only: Annotated[list[str] | None, Parameter(negative="", help="Codes, or their beginnings: I001, V.")] = None,
    ignore: Annotated[
        list[str] | None, Parameter(negative="", help="Codes, or their beginnings, to leave out.")
    ] = None,
    fail_on: Annotated[FailOn, Parameter(help="The least severity that makes the exit code 1.")] = FailOn.ERROR,
    list_: Annotated[bool, Parameter(name="--list", negative="", help="List the checks, without a server.")] = False,
    memory: Annotated[str | None, Parameter(help="Memory of a server that is elsewhere, e.g. 8GB.")] = None,
    journal: Annotated[
        Path | None, Parameter(help="Folder of the journal of what was applied; else under XDG_STATE_HOME.")
    ] = None,
    shared: FromShared,
) -> int:
    """
    Examine a server: read only, in one snapshot, safe beside production.

    Each check is ok, a finding with its fix and undo, or unknown with what is missing; unknown is never ok.
    Exit codes: 0 clean, 1 findings of --fail-on or worse, 2 usage, 3 no connection.

    Example: magnus -d service=ava-prod check --ignore Q --fail-on warning --output-format github
    """
    from magnus.cli import check as command

    if list_:
        return _carry_out("check", command.listing, shared)
    asked = command.Asked(tuple(only or ()), tuple(ignore or ()), str(fail_on), memory, journal)
    return _carry_out("check", lambda: asyncio.run(command.check(shared.dsn, os.environ, asked)), shared)


def indexes(
    *,
    statements: Annotated[int, Parameter(help="How many of the slowest statements to look at.")] = 50,
    out: Annotated[Path | None, Parameter(help="Save a plan here, for magnus apply.")] = None,
    shared: FromShared,
) -> int:
    """
    Say which indexes are missing, invalid, doubled or unused. Changes nothing.

    The slowest statements are planned, never run. Indexes to make get names that begin with magnus_; only such ones are
    ever proposed to be dropped, everything else is for you to decide.

    Example: magnus -d service=ava-prod indexes --out plan.json
    """
    from magnus.cli.indexes import indexes as call

    return _carry_out("indexes", lambda: asyncio.run(call(shared.dsn, os.environ, most=statements, out=out)), shared)


def explain(code: str | None = None, /, *, shared: FromShared) -> int:
    """
    Say what a check looks at, why, from which threshold on, and how to repair and undo it; all of them without CODE.

    Example: magnus explain I001
    """
    from magnus.cli.check import explain as call

    return _carry_out("explain", lambda: call(code), shared)


def plan(
    *,
    only: Annotated[
        list[str] | None, Parameter(help="Quick wins, groups or settings: quick-win-1,work_mem", negative="")
    ] = None,
    out: Annotated[Path | None, Parameter(help="Save the plan here, for magnus apply.")] = None,
    memory: Annotated[
        str | None, Parameter(help="Memory that the server may use: 8GB. Needed for a remote one.")
    ] = None,
    cpus: Annotated[int | None, Parameter(help="CPUs that it may use.")] = None,
    storage: Annotated[Storage | None, Parameter(help="What its data is on; else measured, where it is local.")] = None,
    profile: Annotated[Profile, Parameter(help="What it is for.")] = Profile.OLTP,
    pooler: Annotated[str | None, Parameter(help="What stands in front, and its connections: pgbouncer:40")] = None,
    target: Annotated[Target | None, Parameter(help="Print the plan in another form: SQL, file, Patroni, RDS.")] = None,
    detailed_exitcode: Annotated[bool, Parameter(help="Exit with 1 when there are changes.", negative="")] = False,
    explain_mission: Annotated[bool, Parameter(help="Judge the well-known quick-win list too.", negative="")] = False,
    shared: FromShared,
) -> int:
    """
    Say which settings, extensions and tables to change, why, and how each is undone. Changes nothing.

    Example: magnus -d service=ava-prod plan --only quick-win-10 --out plan.json
    """
    from magnus.cli.plan import Told, Wish
    from magnus.cli.plan import plan as call

    told = Told(memory, cpus, storage, profile, pooler)
    wish = Wish(tuple(only or ()), out, target, detailed_exitcode, explain_mission)
    return _carry_out("plan", lambda: asyncio.run(call(shared.dsn, os.environ, told, wish)), shared)


def pgbouncer(
    *,
    processes: Annotated[int, Parameter(help="Processes of services that will use it.")] = 10,
    connections: Annotated[int | None, Parameter(help="Connections to the server, all together; else by CPUs.")] = None,
    cpus: Annotated[int | None, Parameter(help="CPUs that the server may use. Needed for a remote one.")] = None,
    shared: FromShared,
) -> int:
    """
    Print a pgbouncer.ini in transaction mode that fits the server, the lanes and the pools. Changes nothing.

    Example: magnus -d service=ava-prod pgbouncer --processes 50 --cpus 8 > pgbouncer.ini
    """
    from magnus.cli.pgbouncer import pgbouncer as call

    made = partial(call, processes=processes, connections=connections, cpus=cpus)
    return _carry_out("pgbouncer", lambda: asyncio.run(made(shared.dsn, os.environ)), shared)


def role(
    kind: Kind,
    /,
    *,
    name: Annotated[str | None, Parameter(help="Its name; else magnus_monitor or magnus_tuner.")] = None,
    apply: Annotated[bool, Parameter(help="Make it now, in one transaction; needs a superuser.", negative="")] = False,
    shared: FromShared,
) -> int:
    """
    Print the grants of a role with exactly the rights that check and plan (monitor) or apply (tuner) need.

    Example: magnus -d service=ava-prod role monitor | psql service=ava-prod
    """
    from magnus.cli.role import role as call

    return _carry_out("role", lambda: asyncio.run(call(shared.dsn, os.environ, kind, name, is_applied=apply)), shared)


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

    _one_of("--order", order, ORDERS)
    seconds, most = _span("--interval", interval), _positive("--limit", limit)
    return _watch(
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
    seconds = _span("--interval", interval)
    return _watch(
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

    return _carry_out("dashboard", lambda: call(shared.dsn, os.environ, host=host, port=port, token=token), shared)


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
        _one_of("--order", order, SORTS)
        seconds, most = _span("--since", since) or 0.0, _positive("--limit", limit)

        async def work(con: Connection) -> Answer | Failure:
            if plan is not None:
                return await module.explain(con, plan)
            return await module.slow(con, since=seconds, order=order, limit=most)

        return look("slow", shared.dsn, os.environ, work)

    return _carry_out("slow", call, shared)


_PRINT = Parameter(name="--print", help="Print the SQL instead of running it.", negative="")


def install(*, print_: Annotated[bool, _PRINT] = False, shared: FromShared) -> int:
    """
    Make the slow-query log's tables, or bring them up to date.
    """
    return _migrate("install", is_printed=print_, yes=True, shared=shared)


def remove(
    *,
    print_: Annotated[bool, _PRINT] = False,
    yes: Annotated[bool, Parameter(help="Do not ask.", negative="")] = False,
    shared: FromShared,
) -> int:
    """
    Remove the slow-query log's tables, with what was logged.
    """
    return _migrate("remove", is_printed=print_, yes=yes, shared=shared)


def install_once(*, print_: Annotated[bool, _PRINT] = False, shared: FromShared) -> int:
    """
    Make the table of keys and answers where it is missing.
    """
    from magnus.cli import once as module
    from magnus.cli.session import look

    def call() -> Answer | Failure:
        return module.script() if print_ else look("once install", shared.dsn, os.environ, module.install)

    return _carry_out("once install", call, shared)


def expire_once(
    *, days: Annotated[float, Parameter(help="Answers that are older go.")] = 30.0, shared: FromShared
) -> int:
    """
    Take old answers away; keys and references stay for ever, so nothing can happen twice.
    """
    from magnus.cli import once as module
    from magnus.cli.session import look

    def call() -> Answer | Failure:
        return look("once expire", shared.dsn, os.environ, lambda con: module.expire(con, days))

    return _carry_out("once expire", call, shared)


def install_cache(
    *tables: Annotated[str, Parameter(help="Tables that seldom change: TABLE, SCHEMA.TABLE, or TABLE=TAG.")],
    print_: Annotated[bool, _PRINT] = False,
    shared: FromShared,
) -> int:
    """
    Make tables tell of their changes: a version that rises and a notification, by a trigger for each statement.

    Writers of one table then wait for each other's commit, so a table that is written all the time is refused.

    Example: magnus cache install instruments prices --print
    """
    return _cache("install", tables, is_printed=print_, shared=shared)


def remove_cache(
    *tables: Annotated[str, Parameter(help="Tables that shall tell no more; none: everything.")],
    print_: Annotated[bool, _PRINT] = False,
    shared: FromShared,
) -> int:
    """
    Take the triggers off tables; without tables, off all of them, with the versions.
    """
    return _cache("remove", tables, is_printed=print_, shared=shared)


def _cache(kind: str, tables: Sequence[str], *, is_printed: bool, shared: Shared) -> int:
    from magnus.cli import cache as module
    from magnus.cli.session import look

    def call() -> Answer | Failure:
        if is_printed:
            return module.script(kind, tables)
        return look(f"cache {kind}", shared.dsn, os.environ, lambda con: module.migrate(con, kind, tables))

    return _carry_out(f"cache {kind}", call, shared)


def _migrate(kind: str, *, is_printed: bool, yes: bool, shared: Shared) -> int:
    from magnus.cli import slow as module
    from magnus.cli.session import look

    def call() -> Answer | Failure:
        if is_printed:
            return module.script(kind)
        if not yes and not render.confirm("Remove slow_query_log and slow_query_plan, with what was logged?"):
            return Failure(f"slow {kind}", ExitCode.REFUSED, "nothing was removed", "say yes, or --yes")
        return look(f"slow {kind}", shared.dsn, os.environ, lambda con: module.migrate(con, kind))

    return _carry_out(f"slow {kind}", call, shared)


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

    return _carry_out("activity", lambda: look("activity", shared.dsn, os.environ, work), shared)


def _watch(
    command: str, frames: Callable[[Connection], AsyncIterator[Answer]], shared: Shared, *, is_live: bool
) -> int:
    """
    Show what `frames` yields: the first, or all of them in place on a terminal.
    """
    from magnus.cli.session import look

    is_drawn = is_live and shared.output_format is OutputFormat.TEXT and render.is_terminal()

    async def work(con: Connection) -> Answer | Failure:
        if is_drawn:
            await render.show_live(frames(con))
        return await anext(frames(con))

    return _carry_out(command, lambda: look(command, shared.dsn, os.environ, work), shared)


def _one_of(name: str, word: str, words: Collection[str]) -> None:
    if word not in words:
        raise ConfigError(name, word, f"must be one of {', '.join(words)}")


def _span(name: str, text: str | None) -> float | None:
    from magnus.cli.words import span

    return None if text is None else span(name, text)


def _positive(name: str, number: int) -> int:
    if number < 1:
        raise ConfigError(name, number, "must be at least 1")
    return number


def _carry_out(command: str, call: Callable[[], Answer | Failure], shared: Shared) -> int:
    try:
        found = call()
    except ConfigError as error:
        found = Failure(command, ExitCode.USAGE, str(error))
    return render.show(found, shared.output_format, shared.output)
