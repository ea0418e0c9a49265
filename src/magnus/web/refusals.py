"""One log line a second for all requests that were refused: a burst must not be made worse by writing about it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Final

_EVERY: Final = 1.0
_log: Final = logging.getLogger("magnus.web")


class RefusalLog:
    """
    Counts refusals by reason and logs `requests_refused` with the counts, a second after the first of them.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._loop: asyncio.AbstractEventLoop | None = None

    def refused(self, reason: str) -> None:
        """
        Count one refusal.
        """
        self._counts[reason] += 1
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # none is armed, or the one that was is gone
            self._loop = loop
            loop.call_later(_EVERY, self.write)

    def write(self) -> None:
        """
        Log what was counted since the last line.
        """
        self._loop = None
        counts, self._counts = self._counts, Counter()
        if counts:
            _log.warning("requests_refused", extra={"count": counts.total(), "reasons": dict(counts)})
