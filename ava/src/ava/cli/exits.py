"""What an exit code of `ava` means, and the error that carries one; imports nothing heavy."""

from __future__ import annotations

import enum


class Exit(enum.IntEnum):
    """
    The same for every command. A command that a signal cancelled exits with 128 + the signal's number.
    """

    DONE = 0
    ANSWER_IS_NO = 1
    USAGE = 2
    DATABASE = 3
    REFUSED = 4
    CUT_OFF = 130


class CommandError(Exception):
    """
    A command cannot go on, for a reason that is already in words.
    """

    def __init__(self, text: str, code: Exit = Exit.USAGE) -> None:
        super().__init__(text)
        self.code = code
