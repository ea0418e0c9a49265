"""Where in the user's code something happened: captured as code and offset, turned into text when somebody asks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asyncio import Task
    from types import CodeType, FrameType

    Place = tuple[tuple[CodeType, int], ...]

_HOME: Final = str(Path(__file__).parents[1]) + "/"
_OWN, _LOOP, _USER = "own", "loop", "user"
_DEPTH: Final = 3
_kinds: Final[dict[str, str]] = {}  # by file: there are as many as the program has
_NAMELESS: Final = "<no task>"


def here(inside: int = 3) -> Place:
    """
    Return the innermost frames outside this library, as code and the offset of an instruction in it: no text is made,
    no line is looked up, no local is kept alive.

    `inside` is how many frames are certainly this library's: each that is looked at costs more than an ordinary call.
    """
    frame: FrameType | None = sys._getframe(inside)  # noqa: SLF001  # the one way to see the caller without its cost
    found: list[tuple[CodeType, int]] = []
    while frame is not None and len(found) < _DEPTH:
        code = frame.f_code
        kind = _kinds.get(code.co_filename) or _kind(code.co_filename)
        if kind is _LOOP and found:
            break
        if kind is _USER or found:
            found.append((code, frame.f_lasti))
        frame = frame.f_back
    return tuple(found)


def _kind(file: str) -> str:
    found = _OWN if file.startswith(_HOME) else _LOOP if "/asyncio/" in file else _USER
    _kinds[file] = found
    return found


def described(place: Place) -> tuple[str, ...]:
    """
    Return a place as text, innermost frame first.
    """
    return tuple(f"{code.co_qualname} ({code.co_filename}:{_line(code, offset)})" for code, offset in place)


def _line(code: CodeType, offset: int) -> int:
    found = (line for start, end, line in code.co_lines() if start <= offset < end and line is not None)
    return next(found, code.co_firstlineno)


def stack_of(task: Task[object] | None) -> tuple[str, ...]:
    """
    Return where a task is suspended now, innermost frame first; empty when it is over.
    """
    frames = [] if task is None else task.get_stack(limit=8)
    return described(tuple((frame.f_code, frame.f_lasti) for frame in reversed(frames)))


def name_of(task: Task[object] | None) -> str:
    """
    Return a task's name.
    """
    return _NAMELESS if task is None else task.get_name()
