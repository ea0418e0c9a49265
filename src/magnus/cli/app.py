"""The commands and their arguments; what they do is in the module of each."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, CycloptsError, Parameter

from magnus.cli import render
from magnus.cli.answer import Answer, ExitCode, Failure, OutputFormat
from magnus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


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


def _carry_out(command: str, call: Callable[[], Answer | Failure], shared: Shared) -> int:
    try:
        found = call()
    except ConfigError as error:
        found = Failure(command, ExitCode.USAGE, str(error))
    return render.show(found, shared.output_format)
