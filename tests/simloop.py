"""An event loop with a clock of its own and a seeded order: what is ready runs in any order, the same one every time.

Time stands still while anything is ready and then jumps to the next timer. Real sockets, threads and signals have no
place in it. When nothing is ready and no timer is armed, the program hangs, and that is raised as `Stuck`.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

_LATE = 1e-6  # a timer is never early and never exactly on time: sums of floats are not exact either


class Stuck(AssertionError):
    """
    Nothing is ready and nothing ever will be.
    """


class _NoSockets:
    def close(self) -> None: ...


class SimLoop(asyncio.BaseEventLoop):
    """
    `turn` counts callbacks run. `complaints` is what the loop's exception handler was told: must stay empty.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.chance = random.Random(seed)
        self.complaints: list[dict[str, Any]] = []
        self.turn = 0
        self._moment = 0.0
        self._selector = _NoSockets()
        self.set_exception_handler(lambda _loop, context: self.complaints.append(context))

    def time(self) -> float:
        return self._moment

    def _process_events(self, event_list: Any) -> None:
        raise AssertionError("there are no sockets here")

    def _write_to_self(self) -> None: ...

    def _run_once(self) -> None:
        while self._scheduled and self._scheduled[0]._cancelled:
            heapq.heappop(self._scheduled)._scheduled = False
        if not self._ready and not self._stopping:
            if not self._scheduled:
                raise Stuck("nothing is ready and no timer is armed")
            self._moment = max(self._moment, self._scheduled[0]._when + _LATE)
        while self._scheduled and self._scheduled[0]._when <= self._moment:
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False
            self._ready.append(timer)
        batch = list(self._ready)
        self._ready.clear()
        self.chance.shuffle(batch)
        for handle in batch:
            if not handle._cancelled:
                self.turn += 1
                handle._run()


def simulate(program: Coroutine[Any, Any, T], loop: SimLoop) -> T:
    """
    Run a program to its end on `loop` and close it. What it leaves behind is an error.
    """
    try:
        asyncio.set_event_loop(loop)
        found = loop.run_until_complete(program)
        left = asyncio.all_tasks(loop)
        assert not left, left
        assert not loop.complaints, loop.complaints
        return found
    finally:
        asyncio.set_event_loop(None)
        loop.close()
