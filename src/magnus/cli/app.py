"""The application: every command with its name, and the options that stand before or after it."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path  # noqa: TC003  # the annotations of commands are read at run time
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, CycloptsError, Parameter

from magnus.cli import advice, changes, loads, looks, render, tables
from magnus.cli.answer import ExitCode, Failure, OutputFormat
from magnus.cli.options import Shared
from magnus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

_DSN_HELP = "The server: a URI, 'host=… dbname=…' or 'service=…'. Else MAGNUS_DSN, DATABASE_URL, PGHOST and its kin."


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
    app = App(
        name="magnus",
        help="A warm, guarded, observable data layer for PostgreSQL.",
        version=metadata.version("magnus-db"),
        exit_on_error=False,
        print_error=False,
        result_action="return_value",
    )
    app.meta.suppress_keyboard_interrupt = False  # `main` says that it was interrupted
    for command in (looks.ping, looks.lanes, *advice.COMMANDS, looks.top, looks.activity, looks.dashboard):
        app.command(command)
    slow_app = App(name="slow", help="Show what was slow: the slow-query log, grouped, with a trend.")
    slow_app.default(looks.slow)
    slow_app.command(tables.install)
    slow_app.command(tables.remove)
    app.command(slow_app)
    cache_app = App(name="cache", help="Triggers that tell other processes' caches of changes (cache_notify, fresh).")
    cache_app.command(tables.install_cache, name="install")
    cache_app.command(tables.remove_cache, name="remove")
    app.command(cache_app)
    once_app = App(name="once", help="The table of units of work that happen once (Database.run_once).")
    once_app.command(tables.install_once, name="install")
    once_app.command(tables.expire_once, name="expire")
    app.command(once_app)
    for command in (*loads.COMMANDS, *changes.COMMANDS):
        app.command(command)

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
