"""The commands and options of `ava`; what they do is in the modules beside this one, imported when asked for."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from pathlib import Path  # noqa: TC003  # the parser reads annotations at run time
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number

from ava.cli import render
from ava.cli.drive import Format  # noqa: TC001  # as above
from ava.cli.exits import Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from cyclopts import Token

    from ava.cli.running import Signals

app = App(
    name="ava",
    help="AVA, a trading backend on Magnus. DATABASE_URL names its database; without it AVA runs its own PostgreSQL.",
    version=lambda: version("ava-trading"),
    help_on_error=False,
)
token = App(name="token", help="Bearer tokens of accounts.")
app.command(token)


def _whole(_kind: object, given: Sequence[Token]) -> int:
    """
    Read a whole number; the parser's own reading would round 1.5.
    """
    try:
        return int(given[0].value)
    except ValueError:
        raise ValueError(f"{given[0].value!r} is no whole number") from None


Port = Annotated[int, Parameter(converter=_whole, validator=Number(gte=0, lte=65_535))]
Count = Annotated[int, Parameter(converter=_whole, validator=Number(gte=1))]
Positive = Annotated[float, Parameter(validator=Number(gt=0))]
NotNegative = Annotated[float, Parameter(validator=Number(gte=0))]
Seed = Annotated[int, Parameter(converter=_whole, validator=Number(gte=0, lt=2**63))]
Shown = Annotated[bool, Parameter(name="progress", negative="no-progress")]

_BY_SIGNAL: Final = 128


@app.command
def serve(
    *,
    host: str | None = None,
    port: Port | None = None,
    data_dir: Path | None = None,
    migrate: bool = True,
    notice: NotNegative = 0.5,
    grace: Positive = 10.0,
) -> int:
    """
    Serve the HTTP API until Ctrl-C or SIGTERM, then drain and exit 0.

    Parameters
    ----------
    host
        Address to listen on; AVA_HOST, else 127.0.0.1.
    port
        Port to listen on, 0 for a free one; AVA_PORT, else 8000.
    data_dir
        Folder of the embedded PostgreSQL.
    migrate
        Bring the schema up to date first; without it the service starts whether or not the database is there.
    notice
        Seconds from saying "draining" to closing the port.
    grace
        Seconds that requests in flight may take to finish.
    """
    from ava.cli import serve as command

    options = command.Options(host, port, data_dir, is_migrating=migrate, notice=notice, grace=grace)
    return _run(lambda signals: command.serve(signals, os.environ, options))


@app.command
def demo(
    *,
    host: str | None = None,
    port: Port | None = None,
    data_dir: Path | None = None,
    scale: Positive = 1.0,
    seed: Seed = 42,
    duration: Positive = 10.0,
    concurrency: Count = 50,
    once: Annotated[bool, Parameter(negative="")] = False,
    proof: Annotated[bool, Parameter(negative="no-proof")] = True,
) -> int:
    """
    Start everything, load data (the first time), drive a short mixed workload, and go on serving until Ctrl-C.

    While it serves, before and after are measured for half a minute, on two servers of their own.

    Parameters
    ----------
    host
        Address to listen on; AVA_HOST, else 127.0.0.1.
    port
        Port to listen on, 0 for a free one; AVA_PORT, else 8000.
    data_dir
        Folder of the embedded PostgreSQL.
    scale
        1 is 1,000 accounts and 1,000,000 trades.
    seed
        The same seed makes the same data.
    duration
        Seconds to drive.
    concurrency
        Clients that drive at once.
    once
        Stop after the figures instead of serving on.
    proof
        Measure before and after.
    """
    from ava.cli import demo as command

    options = command.Options(host, port, data_dir, scale, seed, duration, concurrency, is_once=once, is_proving=proof)
    return _run(lambda signals: command.demo(signals, os.environ, options))


@app.command
def drive(
    *,
    url: str = "http://127.0.0.1:8000",
    requests: Count | None = None,
    concurrency: Count = 200,
    duration: Positive | None = None,
    rate: Positive | None = None,
    seed: Seed = 42,
    retry: bool = True,
    timeout: Positive = 60.0,
    output_format: Format = "text",
    progress: Shown = True,
) -> int:
    """
    Send a mixed workload to a running AVA and print its figures; exit 1 when the server broke a promise.

    A broken promise is a 5xx other than 503 with Retry-After, an answer that a correct client should not get, no
    answer at all, or a repeated Idempotency-Key that is answered differently.

    Parameters
    ----------
    url
        Where AVA answers.
    requests
        Stop after this many; 10,000 when no duration is given.
    concurrency
        Clients, each with one request in flight.
    duration
        Stop after this many seconds.
    rate
        Requests per second, sent when they are due whatever the server does; not given: as fast as answers come.
    seed
        Seed of the data, and of the choices.
    retry
        Send again, with the same key, what was answered 503 with Retry-After.
    timeout
        Seconds to wait for one answer.
    output_format
        A table for a person or JSON for a program.
    progress
        Show figures on standard error while it runs.
    """
    from ava.cli import drive as command

    options = command.Options(
        url, requests, concurrency, duration, rate, seed, retry, timeout, output_format, is_progress_shown=progress
    )
    return _run(lambda _signals: command.drive(options))


@app.command
def load(
    *,
    scale: Positive = 1.0,
    seed: Seed = 42,
    data_dir: Path | None = None,
    replace: Annotated[bool, Parameter(negative="")] = False,
    progress: Shown = True,
) -> int:
    """
    Fill the database with generated accounts and three years of trades; data that is there already is kept.

    Parameters
    ----------
    scale
        1 is 1,000 accounts and 1,000,000 trades.
    seed
        The same seed makes the same data.
    data_dir
        Folder of the embedded PostgreSQL.
    replace
        Throw every account and trade away first.
    progress
        Show how far it is.
    """
    from ava.cli import books as command

    options = command.LoadOptions(scale, seed, is_replacing=replace, is_progress_shown=progress)
    return _run(lambda _signals: command.load(os.environ, data_dir, options))


@app.command
def audit(*, data_dir: Path | None = None, output_format: Format = "text") -> int:
    """
    Check that cash, lots and positions are what the trades say, to the last digit; exit 1 when they are not.

    Parameters
    ----------
    data_dir
        Folder of the embedded PostgreSQL.
    output_format
        Lines for a person or JSON for a program.
    """
    from ava.cli import books as command

    return _run(lambda _signals: command.audit(os.environ, data_dir, output_format))


@app.command
def migrate(*, data_dir: Path | None = None) -> int:
    """
    Bring the database's schema to this version.

    Parameters
    ----------
    data_dir
        Folder of the embedded PostgreSQL.
    """
    from ava.cli import books as command

    return _run(lambda _signals: command.migrate(os.environ, data_dir))


@app.command
def relay(
    *, data_dir: Path | None = None, interval: Positive = 1.0, once: Annotated[bool, Parameter(negative="")] = False
) -> int:
    """
    Print the events of executed trades as lines of JSON, each at least once, until Ctrl-C.

    Parameters
    ----------
    data_dir
        Folder of the embedded PostgreSQL.
    interval
        Seconds between two looks when there is nothing to tell.
    once
        Stop when there is nothing to tell.
    """
    from ava.cli import books as command

    return _run(lambda _signals: command.relay(os.environ, data_dir, interval, is_once=once))


@app.command
def expire(*, data_dir: Path | None = None, days: NotNegative = 30.0) -> int:
    """
    Let go of old answers and told events; the keys of orders and imports stay for ever.

    Parameters
    ----------
    data_dir
        Folder of the embedded PostgreSQL.
    days
        What is older goes.
    """
    from ava.cli import books as command

    return _run(lambda _signals: command.expire(os.environ, data_dir, days))


@token.command
def create(account: Count, /, *, label: str = "", data_dir: Path | None = None) -> int:
    """
    Make a token for an account and print it; it is not stored and cannot be shown again.

    Parameters
    ----------
    account
        The account's number.
    label
        What the token is for.
    data_dir
        Folder of the embedded PostgreSQL.
    """
    from ava.cli import books as command

    return _run(lambda _signals: command.create_token(os.environ, data_dir, account, label))


def _run(command: Callable[[Signals], Coroutine[Any, Any, int]]) -> int:
    from ava.cli.running import run as run_command

    code = run_command(command)
    if code > _BY_SIGNAL:
        render.error("interrupted")
    return code


def run(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command that the arguments name (those of the process when not given) and return its exit code.
    """
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        render.error(f"{_words(error)} (see: ava --help)")
        return Exit.USAGE
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stdout = None
        return Exit.DONE
    except Exception as error:
        from ava.cli.failures import explain

        failure = explain(error)
        if failure is None:
            raise
        render.error(failure.text)
        return failure.code
    return code if isinstance(code, int) else Exit.DONE


def _words(error: CycloptsError) -> str:
    return " ".join(str(error).split()).rstrip(".")
