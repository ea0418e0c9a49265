"""What waits to be written, within bounds of number and rate; what is left out is counted. Pure."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from magnus.slowlog._entry import Entry

_BURST: Final = 5.0  # seconds' worth of rows that may come at once
_DISTINCT: Final = 200  # each has to be read for its fingerprint
OTHERS: Final = ""
"""The text under which statements are counted when too many different ones were left out."""


class Buffer:
    """
    A queue that never holds more than `limit` entries and never takes more than `rate` a second, for long.

    A burst of five seconds' worth is taken. When the queue is full, the oldest goes.

    Attributes:
        capped: Statements that were left out because of the rate.
        dropped: Entries that were taken and lost all the same.
    """

    def __init__(self, limit: int, rate: float) -> None:
        self._limit = limit
        self._rate = rate
        self._burst = max(rate * _BURST, 1.0)
        self._tokens = self._burst
        self._refilled_at = 0.0
        self._entries: deque[Entry] = deque()
        self._left_out: dict[str, int] = {}
        self.capped = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._entries)

    def admits(self, text: str, now: float) -> bool:
        """
        Say whether one more row is within the rate; when not, it is counted.
        """
        if self._rate <= 0:
            return True
        passed = now - self._refilled_at
        if passed > 0:
            self._tokens = min(self._burst, self._tokens + passed * self._rate)
            self._refilled_at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return True
        self.capped += 1
        self._leave_out(text)
        return False

    def put(self, entry: Entry) -> None:
        """
        Take an entry in; the oldest gives way when there is no room.
        """
        if len(self._entries) >= self._limit:
            self._drop(self._entries.popleft())
        self._entries.append(entry)

    def take(self, most: int) -> list[Entry]:
        """
        Take out the oldest entries.
        """
        entries = self._entries
        return [entries.popleft() for _ in range(min(most, len(entries)))]

    def put_back(self, taken: Sequence[Entry]) -> None:
        """
        Take back what could not be written; the oldest of it is lost when there is no room any more.
        """
        room = max(self._limit - len(self._entries), 0)
        lost = max(len(taken) - room, 0)
        for entry in taken[:lost]:
            self._drop(entry)
        self._entries.extendleft(reversed(taken[lost:]))

    def clear(self) -> None:
        """
        Lose everything, and count it.
        """
        for entry in self.take(len(self._entries)):
            self._drop(entry)

    def left_out(self) -> dict[str, int]:
        """
        Take out what was left out since the last time: how often, by text.
        """
        found, self._left_out = self._left_out, {}
        return found

    def _drop(self, entry: Entry) -> None:
        self.dropped += 1
        self._leave_out(entry.text)

    def _leave_out(self, text: str) -> None:
        counts = self._left_out
        key = text if text in counts or len(counts) < _DISTINCT else OTHERS
        counts[key] = counts.get(key, 0) + 1
