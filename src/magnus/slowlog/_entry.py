"""One slow statement as it is noted on the spot: nothing is read, normalised or formatted yet. Pure."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime
    from types import FrameType

_OWN: Final = str(Path(__file__).parents[1]) + "/"
_DRIVERS: Final = ("asyncpg", "sqlalchemy", "contextlib")
_LOOPS: Final = ("asyncio", "uvloop")
_COUNT: Final = re.compile(r"(?:INSERT \d+|UPDATE|DELETE|SELECT|MERGE|COPY|MOVE|FETCH) (\d+)")
_COUNTED: Final = frozenset({"execute", "copy_records_to_table", "copy_to_table", "copy_from_table", "copy_from_query"})


class Entry(NamedTuple):
    """
    One slow statement.

    Attributes:
        text: As it was sent, literals included: it never leaves the process like this.
        at: When it ended, in UTC.
        seconds: How long it took.
        wait: Seconds for which its connection was waited for.
        lane: Its lane.
        attempts: The first included.
        rows: Returned or touched; None when that is not known.
        outcome: "ok", "failed", "timed_out" or "cancelled".
        sqlstate: The server's code for it.
        caller: The line of the user's code, "module:function:line".
        route: Of the request it was run for.
        request_id: Of the same.
        trace_id: Of the trace it was run in.
        values: Its bind values, when they are kept.
    """

    text: str
    at: datetime
    seconds: float
    wait: float
    lane: str
    attempts: int
    rows: int | None
    outcome: str
    sqlstate: str | None
    caller: str | None
    route: str | None
    request_id: str | None
    trace_id: str | None
    values: tuple[Any, ...] | None


def rows_of(method: str, result: object) -> int | None:
    """
    Return how many rows a call of the driver's `method` gave or touched, by what it returned.
    """
    if isinstance(result, list):
        return len(result)
    if method in _COUNTED and isinstance(result, str):
        found = _COUNT.fullmatch(result)
        return None if found is None else int(found[1])
    if method == "fetchrow":
        return int(result is not None)
    return None


def outcome_of(error: BaseException | None) -> tuple[str, str | None]:
    """
    Return in a word how a statement ended, and the server's code when it gave one.
    """
    if error is None:
        return "ok", None
    sqlstate = getattr(error, "sqlstate", None)
    if isinstance(error, TimeoutError):
        return "timed_out", sqlstate
    if isinstance(error, Exception):
        return "failed", sqlstate
    return "cancelled", None


def caller() -> str | None:
    """
    Return the innermost line outside this library and the drivers under it, as "module:function:line".

    None when the call is a task of its own: then nobody is waiting in a frame.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  # the one way to see the caller without its cost
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        package = module.partition(".")[0]
        if package in _LOOPS:
            return None
        if package not in _DRIVERS and not frame.f_code.co_filename.startswith(_OWN):
            return f"{module}:{frame.f_code.co_qualname}:{frame.f_lineno}"
        frame = frame.f_back
    return None
