"""Blocking work for a coroutine that may be cancelled."""

import asyncio
import threading

import pytest

from magnus.embedded._offload import in_thread


async def test_the_works_exception_is_the_callers():
    """As if it had been called directly."""

    def fail():
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        await in_thread(fail, abort=threading.Event())


@pytest.mark.parametrize("cancellations", [1, 3])
async def test_a_cancelled_caller_waits_for_the_work_to_end(cancellations):
    """However often it is cancelled: nothing goes on behind its back, and the event is clear for the next call."""
    abort, running, asked, finish, ended = (threading.Event() for _ in range(5))

    def work():
        running.set()
        if abort.wait(10):
            asked.set()
        finish.wait(10)
        ended.set()
        raise LookupError("the cancellation outranks this")

    task = asyncio.ensure_future(in_thread(work, abort=abort))
    await asyncio.to_thread(running.wait)
    for _ in range(cancellations):
        task.cancel()
        await asyncio.sleep(0)
    assert await asyncio.to_thread(asked.wait, 10)
    assert not task.done()
    finish.set()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
    assert not abort.is_set()
