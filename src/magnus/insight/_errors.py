"""Why something cannot be read, and what to run so that it can."""

from __future__ import annotations

from magnus.errors import MagnusError


class Unavailable(MagnusError):
    """
    What was asked for is not there, or not for this role.

    Attributes:
        reason: A fixed word: "not_preloaded", "not_created", "not_permitted", "no_table".
        advice: The statements, or the command, that make it available.
    """

    def __init__(self, reason: str, message: str, advice: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.advice = advice
