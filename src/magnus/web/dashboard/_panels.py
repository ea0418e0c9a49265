"""What the server says, a panel at a time: asked at most once in two seconds however many look, and each fails alone.

It decides when to ask, not what: the questions are functions that it is given.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from magnus.errors import ConfigError, ConnectError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

KEPT: Final = 2.0
LIMIT: Final = 8.0

Panel = dict[str, Any]


class Unavailable(Exception):
    """
    A panel cannot be shown; the text says what it needs.
    """


class Panels:
    """
    Answers by key, kept for `kept` seconds; callers at the same time share one question. That there is none is kept
    for two seconds at most.
    """

    def __init__(self, *, kept: float = KEPT, limit: float = LIMIT, now: Callable[[], float] = time.monotonic) -> None:
        self._kept = kept
        self._limit = limit
        self._now = now
        self._answers: dict[object, tuple[float, Panel]] = {}
        self._flights: dict[object, asyncio.Task[Panel]] = {}

    async def get(self, key: object, ask: Callable[[], Awaitable[Panel]]) -> Panel:
        """
        Return what `ask` found, or found a moment ago; `{"unavailable": why}` when it could not.

        Cancelled, the question goes on for the others that wait for it.
        """
        made, answer = self._answers.get(key, (float("-inf"), {}))
        if self._now() - made < self._life(answer):
            return answer
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.get_running_loop().create_task(self._ask(key, ask))
            flight.add_done_callback(lambda _: self._flights.pop(key, None))
        return await asyncio.shield(flight)

    async def close(self) -> None:
        """
        End the questions under way.
        """
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    def _life(self, answer: Panel) -> float:
        return min(KEPT, self._kept) if "unavailable" in answer else self._kept

    async def _ask(self, key: object, ask: Callable[[], Awaitable[Panel]]) -> Panel:
        try:
            async with asyncio.timeout(self._limit):
                found = await ask()
        except Exception as error:  # noqa: BLE001  # whatever it was, the other panels go on, and this one says so
            found = {"unavailable": reason(error)}
        now = self._now()
        self._answers = {name: kept for name, kept in self._answers.items() if now - kept[0] < self._life(kept[1])}
        self._answers[key] = (now, found)
        return found


def reason(error: Exception) -> str:
    """
    Return why a panel is missing, in words of our own: a server's text may hold a value.
    """
    if isinstance(error, (Unavailable, ConfigError)):
        return str(error)
    if isinstance(error, ConnectError):
        return f"the server cannot be reached ({error.reason})"
    if isinstance(error, TimeoutError):
        return "the server did not answer in time"
    sqlstate = getattr(error, "sqlstate", None)
    if sqlstate == "42501":
        return "the role may not read this: GRANT pg_monitor TO it"
    if sqlstate in {"55P03", "57014"}:
        return "the server is busy: a lock or the two-second limit ended the question"
    return f"not available ({sqlstate or type(error).__name__})"
