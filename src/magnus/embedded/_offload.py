"""Blocking work for a coroutine that may be cancelled; it does not know what the work is."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable


async def in_thread(call: Callable[[], None], *, abort: threading.Event) -> None:
    """
    Run `call` in a thread and wait for its end whatever comes; its exception is raised here.

    A thread cannot be cancelled. On cancellation `abort` is set, so that a call that looks at it ends soon; the
    cancellation is raised when the call has ended, and outranks its exception. `abort` is clear afterwards.
    """
    work = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        abort.set()
        await _until_done(work)
        abort.clear()
        raise


async def _until_done(work: asyncio.Future[None]) -> None:
    """
    Wait through any number of further cancellations, which say nothing new.
    """
    while not work.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([work])
    if not work.cancelled():
        work.exception()
