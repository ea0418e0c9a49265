"""An event loop with a clock of its own and a seeded order: what is ready runs in any order, the same one every time.

Time stands still while anything is ready and then jumps to the next timer. Real sockets, threads and signals have no
place in it. When nothing is ready and no timer is armed, the program hangs, and that is raised as `Stuck`.
"""

# ruff: noqa: SLF001  # an event loop works on its handles' inside; asyncio's own does

from __future__ import annotations

import asyncio
import heapq
import random
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Coroutine

T = TypeVar("T")

_LATE: Final = 1e-6  # a timer is never early and never exactly on time: sums of floats are not exact either


class Stuck(AssertionError):
    """
    Nothing is ready and nothing ever will be.
    """


class _NoSockets:
    def close(self) -> None: ...


class _LoopClock:
    """
    The loop's virtual seconds, where the layer takes a clock.
    """

    def __init__(self, loop: SimLoop) -> None:
        self.now = loop.time

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SimLoop(asyncio.BaseEventLoop):
    """
    Run a program with `simulate(program(), SimLoop(seed))`; the same seed gives the same order and the same times.

    Attributes:
        chance: The source of the order; a program that draws from it stays repeatable.
        clock: Virtual seconds for what takes a clock.
        turn: How many callbacks have run.
        complaints: What the loop's exception handler was told; must stay empty.
    """

    _ready: deque[asyncio.Handle]
    _scheduled: list[Any]
    _stopping: bool

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.chance = random.Random(seed)  # noqa: S311  # to be repeated, not to be secret
        self.clock = _LoopClock(self)
        self.complaints: list[dict[str, Any]] = []
        self.turn = 0
        self._moment = 0.0
        self._selector = _NoSockets()
        self.set_exception_handler(lambda _loop, context: self.complaints.append(context))

    def time(self) -> float:
        """
        Return the virtual moment, seconds since the loop was made.
        """
        return self._moment

    def _process_events(self, event_list: Any) -> None:
        raise AssertionError(f"there are no sockets here: {event_list}")

    def _write_to_self(self) -> None: ...

    def _run_once(self) -> None:
        self._move_time()
        batch = list(self._ready)
        self._ready.clear()
        self.chance.shuffle(batch)
        for handle in batch:
            if not handle._cancelled:
                self.turn += 1
                handle._run()

    def _move_time(self) -> None:
        timers = self._scheduled
        while timers and timers[0]._cancelled:
            heapq.heappop(timers)._scheduled = False
        if not self._ready and not self._stopping:
            if not timers:
                raise Stuck("nothing is ready and no timer is armed")
            self._moment = max(self._moment, timers[0]._when + _LATE)
        while timers and timers[0]._when <= self._moment:
            timer = heapq.heappop(timers)
            timer._scheduled = False
            self._ready.append(timer)


def simulate(program: Coroutine[Any, Any, T], loop: SimLoop) -> T:
    """
    Run a program to its end on `loop`, close the loop, and return the result.

    Raises:
        Stuck: the program would hang for ever.
        AssertionError: it left tasks behind, or something complained to the loop.
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
