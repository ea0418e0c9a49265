"""Failed connects in, events out: one when an outage begins, a reminder a minute, one when it ends; pure."""

from __future__ import annotations

from typing import Final

from magnus.observe import ConnectFailed, ConnectRecovered

REMINDER: Final = 60.0


class Outage:
    """
    Whether connects fail at present, since when, and how often they did.
    """

    __slots__ = ("_failures", "_since", "_told_at")

    def __init__(self) -> None:
        self._failures = 0
        self._since = 0.0
        self._told_at = 0.0

    @property
    def since(self) -> float | None:
        """
        Since when connects fail (monotonic seconds); None when they do not.
        """
        return self._since if self._failures else None

    def failed(self, now: float, reason: str, error_type: str) -> ConnectFailed | None:
        """
        Take note of a connect that failed.
        """
        self._failures += 1
        if self._failures == 1:
            self._since = now
        elif now - self._told_at < REMINDER:
            return None
        self._told_at = now
        return ConnectFailed(reason, error_type, self._failures)

    def opened(self, now: float) -> ConnectRecovered | None:
        """
        Take note of a connect that succeeded.
        """
        failures, self._failures = self._failures, 0
        return ConnectRecovered(failures, now - self._since) if failures else None
