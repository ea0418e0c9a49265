"""What readers must see: what was written in their scopes, or shown to them by somebody who wrote it.

It knows positions, never a connection; where the primary stands is asked by a function that it is given.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from magnus._routing import NOWHERE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from magnus._routing import Position, Primary


class Mark:
    """
    What one reader wrote so far, or was shown by somebody who did: a read of its must see that much.

    Nothing is asked when something is written. The next read asks the primary where it stands, which is at least there.

    Attributes:
        position: What must be seen, as far as it is known; None: nothing.
    """

    __slots__ = ("_resolved", "_written", "position")

    def __init__(self) -> None:
        self._written = self._resolved = 0
        self.position: Position | None = None

    def wrote(self) -> None:
        """
        Take note that something may have been committed.
        """
        self._written += 1

    def saw(self, position: Position) -> None:
        """
        Take note of a position that came from elsewhere.
        """
        if self.position is None or position > self.position:
            self.position = position

    @property
    def open(self) -> int | None:
        """
        How much was written, when nobody asked since where that is; None when somebody did.
        """
        return self._written if self._resolved < self._written else None

    def resolve(self, written: int, position: Position) -> None:
        """
        Take note that `position` was asked after so much had been written.
        """
        self.saw(position)
        self._resolved = max(self._resolved, written)


class Reader:
    """
    What the running code must see: what the scopes around it must, all of them. What it writes is also a matter of
    those who read without any scope.

    Attributes:
        must_be_primary: Whether no standby may answer it, whatever has been replayed there.
    """

    __slots__ = ("_everybody", "_scopes", "must_be_primary")

    def __init__(self, everybody: Mark, scopes: tuple[Mark, ...] = (), *, must_be_primary: bool = False) -> None:
        self._everybody = everybody
        self._scopes = scopes
        self.must_be_primary = must_be_primary

    def within(self, mark: Mark) -> Reader:
        """
        Return the reader inside one more scope.
        """
        return Reader(self._everybody, (*self._scopes, mark), must_be_primary=self.must_be_primary)

    def at_primary(self) -> Reader:
        """
        Return the reader whom only the primary answers.
        """
        return Reader(self._everybody, self._scopes, must_be_primary=True)

    def wrote(self) -> None:
        """
        Take note that something may have been committed.
        """
        self._everybody.wrote()
        for mark in self._scopes:
            mark.wrote()

    async def need(self, ask: Callable[[], Awaitable[Primary]]) -> Position | None:
        """
        Return what a read must see, None when nothing was written. Whatever `ask` raises is raised.
        """
        marks = self._scopes or (self._everybody,)
        written = [(mark, count) for mark in marks if (count := mark.open) is not None]
        if written:
            position = (await ask()).position
            for mark, count in written:
                mark.resolve(count, position)
        positions = [mark.position for mark in marks if mark.position is not None]
        return NOWHERE if NOWHERE in positions else max(positions, default=None)


_readers: ContextVar[Mapping[object, Reader]] = ContextVar("magnus_readers", default={})  # noqa: B039  # never changed


def reader_of(owner: object, default: Reader) -> Reader:
    """
    Return the reader that the running code is for the standbys of `owner`.
    """
    return _readers.get().get(owner, default)


@contextmanager
def reading_as(owner: object, reader: Reader) -> Iterator[None]:
    """
    Let the code inside be this reader for `owner`.
    """
    before = _readers.set({**_readers.get(), owner: reader})
    try:
        yield
    finally:
        _readers.reset(before)
