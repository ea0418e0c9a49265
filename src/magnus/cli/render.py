"""The only place that prints: answers to standard output, everything else to standard error."""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from magnus.cli.answer import Answer, ExitCode, Failure, OutputFormat, Table
from magnus.cli.words import short

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path
    from typing import TextIO

    from rich.console import Group
    from rich.table import Table as RichTable

    from magnus.loadtest._live import Board

_FORMAT_VERSION = "1.0"
_FOR_ALL = (OutputFormat.TEXT, OutputFormat.JSON, OutputFormat.JSON_LINES)
_FORMATS = f"use --output-format {', '.join(_FOR_ALL)}"
_PIPED: Final = 10_000
_LEAST: Final = 16
_EDGES: Final = 2


def show(found: Answer | Failure, output_format: OutputFormat, output: Path | None = None) -> ExitCode:
    """
    Write the result of a command to standard output, or to the file `output`, and return its exit code.

    A failure is one line on standard error; in JSON it is an object on standard output too, so that a reader of the
    pipe always finds one.
    """
    if isinstance(found, Answer) and not _has(found, output_format):
        found = Failure(found.command, ExitCode.USAGE, f"{found.command} has no {output_format} output", _FORMATS)
    if output is None:
        _write(found, output_format, sys.stdout)
    else:
        text = io.StringIO()
        _write(found, output_format, text)
        try:
            output.write_text(text.getvalue(), encoding="utf-8")
        except OSError as error:
            why = f"{output} cannot be written: {error.strerror}"
            found = Failure(found.command, ExitCode.USAGE, why, "name another file with -o")
    if isinstance(found, Failure):
        complain(found.error, advice=found.advice)
    return found.exit_code


def _has(answer: Answer, output_format: OutputFormat) -> bool:
    return output_format in _FOR_ALL or output_format in answer.also


def _write(found: Answer | Failure, output_format: OutputFormat, stream: TextIO) -> None:
    if isinstance(found, Answer) and output_format in found.also:
        for line in found.also[output_format]:
            print(line, file=stream)
    elif output_format is OutputFormat.JSON:
        print(json.dumps(_document(found), indent=2, default=str), file=stream)
    elif output_format is OutputFormat.JSON_LINES:
        print(json.dumps(_document(found), default=str), file=stream)
    elif isinstance(found, Answer):
        _show_text(found, stream)


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


def ask(question: str) -> str | None:
    """
    Ask the person at the terminal; None when there is nobody: a pipe is never prompted.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    print(question, end=" ", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()


@contextmanager
def progress(title: str) -> Iterator[Callable[[float, int, int], None]]:
    """
    Draw a bar on standard error while the block lasts, when that is a terminal; the function takes share, done, failed.
    """
    if not sys.stderr.isatty():
        yield lambda _share, _done, _failed: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[said]}"))
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task(title, total=1.0, said="")

        def shown(share: float, done: int, failed: int) -> None:
            said = f"{done:,} done, {failed:,} failed" if done else ""
            bar.update(task, completed=share, said=said)

        yield shown


@contextmanager
def watching(title: str) -> Iterator[Callable[[Board], None] | None]:
    """
    Draw a load test on standard error while the block lasts, when that is a terminal: lanes, failures, connections.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(file=sys.stderr), transient=True, auto_refresh=False) as live:
        yield lambda board: live.update(_board(title, board, live.console.width), refresh=True)


def _board(title: str, board: Board, width: int) -> Group:
    from rich.console import Group
    from rich.text import Text

    failed = f"{board.failed:,} failed, {board.refused:,} refused"
    pool = "" if board.pool is None else "; {} of {} connections in use, {} at most".format(*board.pool)
    rows = [
        (row.lane, round(row.per_second, 1), *(round(1000 * value, 2) for value in (row.p50, row.p99, row.p999)))
        for row in board.rows()
    ]
    head = f"{title}: {board.share:.0%}, {board.requests:,} answered, {failed}{pool}"
    table = Table(("the last seconds", "per s", "p50 ms", "p99", "p99.9"), rows)
    return Group(Text(head), _drawn(table, width))


def close_stdout() -> None:
    """
    Give up standard output after its reader went away, so that the interpreter's own flush finds nothing to fail at.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _document(found: Answer | Failure) -> dict[str, object]:
    head = {"format_version": _FORMAT_VERSION, "command": found.command}
    if isinstance(found, Failure):
        return {
            **head,
            "status": "failed",
            "exit_code": int(found.exit_code),
            "error": found.error,
            "advice": found.advice,
        }
    status = "ok" if found.exit_code is ExitCode.DONE else "no"
    return {**head, "status": status, "exit_code": int(found.exit_code), **found.data}


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


def _show_text(answer: Answer, stream: TextIO) -> None:
    from rich.console import Console

    # A table in a pipe is as wide as it is: what reads it must not depend on a terminal's width.
    is_seen = stream is sys.stdout and is_terminal()
    console = Console(file=stream, soft_wrap=True, width=None if is_seen else _PIPED)
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
