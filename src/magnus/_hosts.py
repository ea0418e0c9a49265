"""Which of several hosts answers: tried in order, each a moment after the one before it; knows no driver.

A host that swallows packets would take the whole time for connecting, and a host that refuses takes none. So the next
one is tried when the last one failed, or when it has not answered within a quarter of a second, whichever comes first;
the first that is fit is taken, and the rest are given up (RFC 8305, "Happy Eyeballs", does so for addresses).
"""

from __future__ import annotations

import asyncio
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")

STAGGER: Final = 0.25
"""Seconds after which the next host is tried beside the ones that have not answered."""


class NoHost(Exception):
    """
    No host was fit. `errors` are theirs, in the order in which they came.
    """

    def __init__(self, errors: Sequence[Exception]) -> None:
        super().__init__("no host was fit")
        self.errors = tuple(errors)


async def first_of(
    tries: Sequence[Callable[[], Awaitable[T]]],
    *,
    is_final: Callable[[Exception], bool],
    discard: Callable[[T], None],
    stagger: float = STAGGER,
) -> tuple[int, T]:
    """
    Return the place and the result of the first try that succeeds; results that come too late are for `discard`.

    Cancelled, all tries are.

    Raises:
        NoHost: all failed.
        Exception: a try's own, when it `is_final`: no other host would answer differently.
    """
    running: dict[asyncio.Task[T], int] = {}
    errors: list[Exception] = []
    begun = 0
    try:
        while True:
            if begun < len(tries):
                running[asyncio.ensure_future(_called(tries[begun]))] = begun
                begun += 1
            is_last = begun == len(tries)
            done, _ = await asyncio.wait(
                running, timeout=None if is_last else stagger, return_when=asyncio.FIRST_COMPLETED
            )
            found = [(running.pop(task), task) for task in done]
            fit = sorted(
                ((place, task.result()) for place, task in found if task.exception() is None), key=itemgetter(0)
            )
            if fit:
                for _, late in fit[1:]:
                    discard(late)
                return fit[0]
            for _, task in found:
                error = task.exception()
                if not isinstance(error, Exception) or is_final(error):
                    raise error or asyncio.CancelledError
                errors.append(error)
            if is_last and not running:
                raise NoHost(errors)
    finally:
        for task in running:
            task.add_done_callback(partial(_late, discard))
            task.cancel()


async def _called(attempt: Callable[[], Awaitable[T]]) -> T:
    return await attempt()


def _late(discard: Callable[[Any], None], task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and task.exception() is None:
        discard(task.result())
