"""What a failure says of the server: pure tables of errors and phases; it repeats nothing.

Theory of operation. `classify` walks an error with its causes and contexts, asks whether the connection is closed, and
then which phase the unit was in. Of several answers the most cautious holds, so an error that came while another one
was handled can forbid a repeat and never allow one. A code of the server's alone is not enough: a connection that was
terminated fails with any of four classes, and most of them carry no code.
"""

from __future__ import annotations

import enum
from typing import Final

import asyncpg

from magnus import _driver
from magnus.errors import ConnectError, MagnusError, OutcomeUnknown, QueryTimeout


class Phase(enum.Enum):
    """
    How far a unit had come when it failed.
    """

    UNSENT = "nothing of it had been sent"
    STATEMENT = "a statement outside any transaction had been sent"
    BLOCK = "inside its transaction, COMMIT had not been sent"
    COMMIT = "COMMIT had been sent"


class Verdict(enum.IntEnum):
    """
    What a failed unit left on the server, from the harmless to the final: the most cautious of several holds.
    """

    NOT_SENT = 0
    """Nothing reached the server."""
    ROLLED_BACK = 1
    """The server took everything back, and a repeat may do better."""
    ROLLED_BACK_ONCE = 2
    """It took everything back; what it lacks (memory, disk, time) is seldom there a moment later."""
    PERHAPS = 3
    """A statement of its own was sent and not answered: only what is declared repeatable may be repeated."""
    UNKNOWN = 4
    """COMMIT was sent and not answered: only a key, or what is declared repeatable, may ask again."""
    NEVER = 5
    """An answer: a repeat would get it again."""


_V = Verdict
SQLSTATES: Final = {
    **dict.fromkeys(("53300", "57P03", "08001", "08004"), _V.NOT_SENT),
    **dict.fromkeys(("40001", "40P01", "55P03", "55006", "25006", "26000"), _V.ROLLED_BACK),
    **dict.fromkeys(("53000", "53100", "53200", "53400", "57014", "58000", "58030"), _V.ROLLED_BACK_ONCE),
    **dict.fromkeys(("08007", "40003"), _V.UNKNOWN),
}
"""By code, where the code alone says it. A code of a lost connection depends on the phase; every other is an answer."""

_LOST: Final = frozenset({"57P01", "57P02", "57P05", "25P03", "25P04"})
_OF_LOST: Final = {
    Phase.UNSENT: _V.NOT_SENT,
    Phase.STATEMENT: _V.PERHAPS,
    Phase.BLOCK: _V.ROLLED_BACK,
    Phase.COMMIT: _V.UNKNOWN,
}
_STAYED_HERE: Final = {Phase.UNSENT: _V.NOT_SENT, Phase.STATEMENT: _V.NOT_SENT}
_HEALS: Final = frozenset({"unreachable", "too_many", "starting", "timeout", "read_only"})
_IN_FAILED_BLOCK: Final = "25P02"  # says that something failed before, not what
_READ_ONLY: Final = "25006"


def classify(error: BaseException, phase: Phase, *, is_closed: bool = False, is_read_only: bool = False) -> Verdict:
    """
    Say what a failed unit left behind. `is_closed`: its connection was found closed; `is_read_only`: it asked to be.
    """
    if isinstance(error, MagnusError):
        return _of_ours(error, phase)
    found = [
        verdict
        for link in _driver.chain(error)
        if (verdict := _judge(link, phase, is_closed=is_closed, is_read_only=is_read_only)) is not None
    ]
    return max(found, default=_V.NEVER)


def _of_ours(error: MagnusError, phase: Phase) -> Verdict:
    if isinstance(error, OutcomeUnknown):
        return _V.UNKNOWN
    if isinstance(error, QueryTimeout) and phase is Phase.STATEMENT:
        return _V.PERHAPS
    if isinstance(error, ConnectError) and error.reason in _HEALS:
        return _V.NOT_SENT
    return _V.NEVER


def _judge(link: BaseException, phase: Phase, *, is_closed: bool, is_read_only: bool) -> Verdict | None:
    if isinstance(link, MagnusError):
        return _of_ours(link, phase)
    sqlstate = _driver.sqlstate_of(link)
    if sqlstate is not None:
        return _of_sqlstate(link, sqlstate, phase, is_read_only=is_read_only)
    if isinstance(link, asyncpg.InternalClientError):
        return _STAYED_HERE.get(phase, _V.ROLLED_BACK) if _driver.is_unfit(link) else _OF_LOST[phase]
    if isinstance(link, asyncpg.InterfaceError):
        # COMMIT that met a closed connection was not sent, and the transaction went with the connection.
        return _STAYED_HERE.get(phase, _V.ROLLED_BACK) if "connection is closed" in str(link) else _V.NEVER
    if isinstance(link, OSError):
        # Inside a transaction the unit's own code runs too, and may lose connections of its own.
        return _OF_LOST[phase] if is_closed or phase is not Phase.BLOCK else _V.NEVER
    return None


def _of_sqlstate(link: BaseException, sqlstate: str, phase: Phase, *, is_read_only: bool) -> Verdict | None:
    if sqlstate == _IN_FAILED_BLOCK:
        return None
    if sqlstate == _READ_ONLY and is_read_only:
        return _V.NEVER
    if isinstance(link, asyncpg.InvalidCachedStatementError):
        return _V.ROLLED_BACK
    known = SQLSTATES.get(sqlstate)
    if known is not None:
        return known
    return _OF_LOST[phase] if sqlstate in _LOST or sqlstate.startswith("08") else _V.NEVER
