"""Progress on standard error: alive on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

from ava.cli import render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console
    from rich.progress import TaskID

    from ava.workload.tally import Result

_STEP: Final = 10  # per cent between two plain lines
_LONG: Final = 1_000
_LINE_INTERVAL: Final = 2.0


@contextlib.contextmanager
def stage(done: str) -> Iterator[None]:
    """
    Say how long the block took, when it succeeds: "<done> in 1.2 s".
    """
    began = time.monotonic()
    yield
    render.line(f"{done} in {time.monotonic() - began:.1f} s")


@contextlib.contextmanager
def bar(*, is_shown: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """
    Show how far a long job is; the block calls what it is given with the stage, what is done of it, and its total.
    """
    console = render.console(stderr=True)
    if not is_shown:
        yield lambda _stage, _done, _total: None
    elif console.is_terminal:
        with _rich_bar(console) as update:
            yield update
    else:
        yield PlainBar(render.line).update


@contextlib.contextmanager
def _rich_bar(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def update(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage)
            progress.update(tasks[stage], completed=done, total=total)

        yield update


class PlainBar:
    """
    A line at each tenth of the long stage; the short ones pass in silence.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._next: dict[str, int] = {}

    def update(self, stage: str, done: int, total: int) -> None:
        """
        Take what is done of a stage.
        """
        percent = 100 * done // max(total, 1)
        if total >= _LONG and percent >= self._next.get(stage, _STEP):
            self._next[stage] = percent - percent % _STEP + _STEP
            self._write(f"{stage}: {percent} %, {done:,} of {total:,}")


@contextlib.contextmanager
def drive_view(*, is_shown: bool = True) -> Iterator[Callable[[Result, float], None]]:
    """
    Show the figures of a run while it goes on.
    """
    console = render.console(stderr=True)
    if not is_shown:
        yield lambda _result, _share: None
    elif console.is_terminal:
        from rich.live import Live

        with Live(console=console, transient=True, auto_refresh=False) as live:
            yield lambda result, share: live.update(render.live_view(result, share), refresh=True)
    else:
        yield PlainView(render.line).update


class PlainView:
    """
    A line every two seconds of run time.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._next = _LINE_INTERVAL

    def update(self, result: Result, share: float) -> None:
        if result.seconds >= self._next:
            self._next = result.seconds + _LINE_INTERVAL - 0.25
            self._write(render.progress_line(result, share))
