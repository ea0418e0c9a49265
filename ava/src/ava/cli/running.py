"""Runs one asynchronous command to its exit code, whatever ends it; knows no command."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_STOP: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """
    Where a command says what a request to stop does: `on_stop` is called for each one.

    Until a command sets it, the first request cancels the command and later ones do nothing, so that they cannot
    break the cleaning up.
    """

    def __init__(self, cancel: Callable[[], object]) -> None:
        self.first: int | None = None
        self.on_stop: Callable[[], object] | None = None
        self._cancel = cancel

    def deliver(self, number: int) -> None:
        """
        Take one signal.
        """
        is_first = self.first is None
        self.first = number if is_first else self.first
        if self.on_stop is not None:
            self.on_stop()
        elif is_first:
            self._cancel()


def run(command: Callable[[Signals], Coroutine[Any, Any, int]]) -> int:
    """
    Run a command and return its exit code; 128 + the signal's number when a signal cancelled it.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_until_stopped(command))


async def _until_stopped(command: Callable[[Signals], Coroutine[Any, Any, int]]) -> int:
    task = asyncio.current_task()
    assert task is not None
    signals = Signals(task.cancel)
    loop = asyncio.get_running_loop()
    for number in _STOP:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
            loop.add_signal_handler(number, signals.deliver, number)
    try:
        return await command(signals)
    except asyncio.CancelledError:
        if signals.first is None:
            raise
        return 128 + signals.first


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
