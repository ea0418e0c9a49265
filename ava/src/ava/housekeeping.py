"""What a serving AVA does beside its requests: it tells events and lets old answers go. It never ends the service."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from ava.services import outbox
from magnus import once

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from ava.services.outbox import Event
    from magnus import Database

DAY: Final = 86_400.0
_PAUSE: Final = 5.0
_OPERATOR: Final = {"role": "ava_operator"}
_log: Final = logging.getLogger("ava.events")
_problems: Final = logging.getLogger("ava.housekeeping")


async def log_event(event: Event) -> None:
    """
    Tell an event to the log: the receiver that is always there.
    """
    _log.info(event.kind.replace("-", "_"), extra={"event_id": event.id, **event.payload})


async def expire(db: Database, days: float) -> tuple[int, int]:
    """
    Let go of answers and told events that are older than so many days; return how many of each.

    Keys stay for ever: a repeat of an order whose answer is gone is told its trade's id, and books nothing.
    """
    return await once.expire(db, days * DAY, settings=_OPERATOR), await outbox.expire(db, days * DAY)


@asynccontextmanager
async def running(db: Database, *, relay_interval: float, keep_days: float) -> AsyncIterator[None]:
    """
    Do it in the background for the length of the block. An interval of 0: somebody else relays.
    """
    tasks = [asyncio.create_task(_again(lambda: _daily(db, keep_days)))]
    if relay_interval > 0:
        tasks.append(asyncio.create_task(_again(lambda: outbox.follow(db, log_event, interval=relay_interval))))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _daily(db: Database, days: float) -> None:
    while True:
        await asyncio.sleep(DAY)
        await expire(db, days)


async def _again(work: Callable[[], Awaitable[Any]]) -> None:
    """
    Do it for ever; a failure is told once until it changes, and is no reason to stop.
    """
    last = ""
    while True:
        try:
            await work()
        except Exception as error:  # noqa: BLE001  # the service goes on, whatever it is
            if type(error).__name__ != last:
                last = type(error).__name__
                _problems.warning("housekeeping_failed", extra={"error_type": last})
        await asyncio.sleep(_PAUSE)
