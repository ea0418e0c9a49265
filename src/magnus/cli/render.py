"""The only place that prints: answers to standard output, everything else to standard error."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Final

from magnus.cli.answer import Answer, ExitCode, Failure, OutputFormat
from magnus.cli.words import short

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rich.table import Table as RichTable

    from magnus.cli.answer import Table

_FORMAT_VERSION = "1.0"
_PIPED: Final = 10_000
_LEAST: Final = 16
_EDGES: Final = 2


def show(found: Answer | Failure, output_format: OutputFormat) -> ExitCode:
    """
    Write the result of a command and return its exit code.

    A failure is one line on standard error; in JSON it is an object on standard output too, so that a reader of the
    pipe always finds one.
    """
    exit_code = found.exit_code
    if output_format is OutputFormat.JSON:
        print(json.dumps(_document(found, exit_code), indent=2, default=str))
    elif isinstance(found, Answer):
        _show_text(found)
    if isinstance(found, Failure):
        complain(found.error, advice=found.advice)
    return exit_code


def complain(error: str, *, advice: str = "") -> None:
    """
    Write one line to standard error: what is wrong, and what to do.
    """
    line = f"magnus: {error.rstrip(chr(46))}; {advice}" if advice else f"magnus: {error}"
    print(" ".join(line.split()), file=sys.stderr)


def note(text: str) -> None:
    """
    Write one line to standard error that is no complaint.
    """
    print(text, file=sys.stderr, flush=True)


def close_stdout() -> None:
    """
    Give up standard output after its reader went away, so that the interpreter's own flush finds nothing to fail at.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _document(found: Answer | Failure, exit_code: ExitCode) -> dict[str, object]:
    head = {"format_version": _FORMAT_VERSION, "command": found.command}
    if isinstance(found, Failure):
        return {
            **head,
            "status": "failed",
            "exit_code": int(exit_code),
            "error": found.error,
            "advice": found.advice,
        }
    status = "ok" if exit_code is ExitCode.DONE else "no"
    return {**head, "status": status, "exit_code": int(exit_code), **found.data}


async def show_live(frames: AsyncIterator[Answer]) -> None:
    """
    Draw answers in place, one after the other, until the reader interrupts.
    """
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    with Live(screen=True, auto_refresh=False) as live:
        async for answer in frames:
            tables = [_drawn(table, live.console.width) for table in answer.tables]
            live.update(Group(*map(Text, answer.text), *tables), refresh=True)


def is_terminal() -> bool:
    """
    Say whether a person sees standard output.
    """
    return sys.stdout.isatty()


def confirm(question: str) -> bool:
    """
    Ask a person on the terminal; only "yes" is accepted. False where nobody can be asked.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(f"{question}\nOnly 'yes' is accepted: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip() == "yes"


def _show_text(answer: Answer) -> None:
    from rich.console import Console

    # A table in a pipe is as wide as it is: what reads it must not depend on a terminal's width.
    console = Console(file=sys.stdout, soft_wrap=True, width=None if is_terminal() else _PIPED)
    for line in answer.text:
        console.print(line, markup=False, highlight=False)
    for table in answer.tables:
        console.print(_drawn(table, console.width))


def _drawn(table: Table, width: int) -> RichTable:
    """
    Return a table of at most `width` characters, where its last column can give way.
    """
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=box.SIMPLE_HEAD, title=table.title or None, title_justify="left", pad_edge=False)
    for column, heading in enumerate(table.headings):
        is_number = column in table.right or all(isinstance(row[column], int | float) for row in table.rows)
        drawn.add_column(heading, justify="right" if is_number else "left", no_wrap=table.is_cut)
    rows = [[f"{cell:g}" if isinstance(cell, float) else str(cell) for cell in row] for row in table.rows]
    if table.is_cut and rows:
        room = (
            width
            - _EDGES
            - sum(
                3 + max(len(heading), *(len(row[column]) for row in rows))
                for column, heading in enumerate(table.headings[:-1])
            )
        )
        rows = [[*row[:-1], short(row[-1], max(room, _LEAST))] for row in rows]
    for row in rows:
        drawn.add_row(*map(Text, row))
    return drawn
