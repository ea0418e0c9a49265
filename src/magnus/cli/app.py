"""The commands and their arguments; what they do is in the module of each."""

from __future__ import annotations

import asyncio
import enum
import os
from dataclasses import dataclass
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
    from collections.abc import Callable, Sequence


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
    app.command(check)
    app.command(explain)
    app.command(plan)
    app.command(role)

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


def check(
    *,
    only: Annotated[list[str] | None, Parameter(negative="", help="Codes, or their beginnings: I001, V.")] = None,
    ignore: Annotated[
        list[str] | None, Parameter(negative="", help="Codes, or their beginnings, to leave out.")
    ] = None,
    fail_on: Annotated[FailOn, Parameter(help="The least severity that makes the exit code 1.")] = FailOn.ERROR,
    list_: Annotated[bool, Parameter(name="--list", negative="", help="List the checks, without a server.")] = False,
    memory: Annotated[str | None, Parameter(help="Memory of a server that is elsewhere, e.g. 8GB.")] = None,
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
    asked = command.Asked(tuple(only or ()), tuple(ignore or ()), str(fail_on), memory)
    return _carry_out("check", lambda: asyncio.run(command.check(shared.dsn, os.environ, asked)), shared)


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


def _carry_out(command: str, call: Callable[[], Answer | Failure], shared: Shared) -> int:
    try:
        found = call()
    except ConfigError as error:
        found = Failure(command, ExitCode.USAGE, str(error))
    return render.show(found, shared.output_format, shared.output)
