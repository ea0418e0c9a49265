"""Many deadlines on one timer: pure, knows neither waiters nor event loop.

Theory of operation. A timer for each waiting caller costs more than the waiting itself, so deadlines are kept in
buckets of 10 ms: adding and discarding are dict operations, and one timer, armed by the shell for `next_due`, serves
them all. An entry is never reported before its deadline and at most one bucket's width after it, those of one bucket
in the order in which they were added.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Final, Generic, TypeVar

_PER_SECOND: Final = 100.0

T = TypeVar("T")


class Deadlines(Generic[T]):
    """
    Entries (hashable), each with an absolute deadline in seconds.
    """

    __slots__ = ("_buckets", "_keys")

    def __init__(self) -> None:
        self._buckets: dict[int, dict[T, None]] = {}
        self._keys: list[int] = []

    def add(self, entry: T, deadline: float) -> bool:
        """
        Keep an entry. Returns True when it may now be the earliest, so that the timer must be looked at.
        """
        key = int(deadline * _PER_SECOND) + 1
        bucket = self._buckets.get(key)
        if bucket is not None:
            bucket[entry] = None
            return False
        self._buckets[key] = {entry: None}
        heappush(self._keys, key)
        return self._keys[0] == key

    def discard(self, entry: T, deadline: float) -> None:
        """
        Forget an entry; unknown ones are ignored. `deadline` is the one it was added with.
        """
        bucket = self._buckets.get(int(deadline * _PER_SECOND) + 1)
        if bucket is not None:
            bucket.pop(entry, None)

    def due(self, now: float) -> list[T]:
        """
        Remove and return the entries whose deadline has passed.
        """
        found: list[T] = []
        limit = int(now * _PER_SECOND)
        while self._keys and self._keys[0] <= limit:
            found += self._buckets.pop(heappop(self._keys))
        return found

    def next_due(self) -> float | None:
        """
        Return when `due` will next find something, or None. Buckets emptied by `discard` are dropped on the way.
        """
        while self._keys:
            key = self._keys[0]
            if self._buckets[key]:
                return key / _PER_SECOND
            del self._buckets[heappop(self._keys)]
        return None
