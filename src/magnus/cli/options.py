"""The options that every command has, what is read of others, and a command carried out with them to its exit code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003  # the annotations of commands are read at run time
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from magnus.cli import render, words
from magnus.cli.answer import Answer, ExitCode, Failure, OutputFormat
from magnus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


@dataclass(frozen=True)
class Shared:
    """
    The options that every command has; they may stand before or after its name.
    """

    dsn: str | None
    output_format: OutputFormat
    output: Path | None = None


FromShared = Annotated[Shared, Parameter(parse=False)]


def carry_out(command: str, call: Callable[[], Answer | Failure], shared: Shared) -> int:
    """
    Make the answer and show it; an option that is impossible is a usage error.
    """
    try:
        found = call()
    except ConfigError as error:
        found = Failure(command, ExitCode.USAGE, str(error))
    return render.show(found, shared.output_format, shared.output)


def one_of(name: str, word: str, allowed: Collection[str]) -> None:
    """
    Refuse an option that is none of what is allowed.
    """
    if word not in allowed:
        raise ConfigError(name, word, f"must be one of {', '.join(allowed)}")


def span(name: str, text: str | None) -> float | None:
    """
    Return the seconds that an option says, None where it was not given.
    """
    return None if text is None else words.span(name, text)


def positive(name: str, number: int) -> int:
    """
    Return an option that counts something.
    """
    if number < 1:
        raise ConfigError(name, number, "must be at least 1")
    return number
