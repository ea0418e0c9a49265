"""Fault points of the layer: moments at which a test may step in. They are put on from outside, so they cost nothing.

A race needs one moment, not a proxy: "the task is cancelled after the reset was answered" is an event that is awaited.
"""

from __future__ import annotations

import enum
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

from magnus import _commit
from magnus._driver import Opener
from magnus.pool import _pool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


class Point(enum.Enum):
    """
    CONNECT: one connection is opened and proven. ACQUIRE: a lease is taken (single statements take a shorter way).
    RESET: a session that was left dirty is reset at its release. COMMIT: a transaction is committed.
    """

    CONNECT = "connect"
    ACQUIRE = "acquire"
    RESET = "reset"
    COMMIT = "commit"


_SEAMS: Final[dict[Point, tuple[Any, str]]] = {
    Point.CONNECT: (Opener, "open"),
    Point.ACQUIRE: (_pool.Pool, "acquire"),
    Point.RESET: (_pool, "is_reset"),
    Point.COMMIT: (_commit, "commit"),
}


class Step:
    """
    What a fault point saw. `hits` counts how often the moment came.
    """

    def __init__(self) -> None:
        self.hits = 0


@contextmanager
def fault_at(
    point: Point,
    *,
    before: Callable[[], Awaitable[object]] | None = None,
    after: Callable[[], Awaitable[object]] | None = None,
) -> Iterator[Step]:
    """
    Await `before` and `after` around a step of the layer, for every database of this process, while the block lasts.

    Either may raise: before, the step is not made; after, it was made and its answer is lost.
    """
    owner, name = _SEAMS[point]
    original = getattr(owner, name)
    step = Step()

    @wraps(original)
    async def stepped(*args: Any, **options: Any) -> Any:
        step.hits += 1
        if before is not None:
            await before()
        found = await original(*args, **options)
        if after is not None:
            await after()
        return found

    setattr(owner, name, stepped)
    try:
        yield step
    finally:
        setattr(owner, name, original)
