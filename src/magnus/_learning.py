"""Reads the catalogue for `Knowledge`: at the start, when the schema was changed, and now and then because others can.

It is given a way to ask; it knows no pool and no connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

from magnus import sql
from magnus._catalogue import ARGUMENTS, catalogue_of, dangers
from magnus._trace import Knowledge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from magnus._catalogue import Catalogue

_AGAIN: Final = 60.0
_AFTER_FAILURE: Final = 5.0


class Learner:
    """
    Keeps `knowledge` up to date from its start until it is closed. Until the first reading succeeds nothing is known.

    `ask(sql, *arguments)` returns the one row of a query, on a connection that is no caller's. What it raises is taken
    as a reading that failed, and is tried again.
    """

    def __init__(
        self,
        ask: Callable[..., Awaitable[Mapping[str, Any]]],
        *,
        interval: float = _AGAIN,
        pause: float = _AFTER_FAILURE,
    ) -> None:
        self._ask = ask
        self._interval = interval
        self._pause = pause
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()
        self.failures = 0
        self.knowledge = Knowledge(self._wake.set)

    def start(self) -> None:
        """
        Begin to read, in the background.
        """
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._keep())

    async def tried(self, limit: float) -> None:
        """
        Wait until the first reading is over, however it ended, `limit` seconds at most.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._tried.wait()

    async def close(self) -> None:
        """
        Stop reading.
        """
        task, self._task = self._task, None
        self._tried.clear()
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def forked(self) -> None:
        """
        Forget the reading, in a child process: it belongs to the parent's event loop.
        """
        self._task = None

    async def _keep(self) -> None:
        while True:
            self._wake.clear()
            is_read = await self.read()
            self._tried.set()
            try:
                async with asyncio.timeout(self._interval if is_read else self._pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def read(self) -> bool:
        """
        Read the catalogue once; return whether the server answered.
        """
        generation = self.knowledge.generation
        try:
            row = await self._ask(sql.text("session_effects"), *ARGUMENTS)
            catalogue = await _judge(row)
        except Exception:  # noqa: BLE001  # without knowledge everything is reset, which is right and only slower
            self.failures += 1
            return False
        self.knowledge.learned(catalogue, generation)
        return True


async def _judge(row: Mapping[str, Any]) -> Catalogue:
    danger: str | None = None
    for danger in dangers(row):
        if danger is not None:
            break
        await asyncio.sleep(0)  # one function's text at a time
    return catalogue_of(row, danger)
