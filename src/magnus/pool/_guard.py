"""At home: the process and the event loop that a pool was opened in; elsewhere its connections are not to be touched.

A fork is noticed in the child at once, by a hook, so that nobody has to ask for the process id at every acquire.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakSet

from magnus.errors import WrongLoop, WrongProcess

if TYPE_CHECKING:
    from magnus.errors import PoolError


class Resident(Protocol):
    """
    What must not act in a child process.
    """

    def forked(self) -> None:
        """
        Let go of every connection without touching it: called in the child, before anything else runs there.
        """


_residents: Final[WeakSet[Resident]] = WeakSet()


def watch_forks(resident: Resident) -> None:
    """
    Tell `resident`, as long as it lives, when it finds itself in a child process.
    """
    _residents.add(resident)


def _in_child() -> None:
    for resident in list(_residents):
        resident.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


class Home:
    """
    Where a pool lives. `loop` is the event loop that it serves, None before it was opened, when it is closed, and in
    a child process: `loop is not get_running_loop()` is the whole check.
    """

    __slots__ = ("is_inherited", "loop")

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.is_inherited = False

    def settle(self, resident: Resident) -> None:
        """
        Live here, on the running loop; `resident` is told when this process is forked.
        """
        self.loop = asyncio.get_running_loop()
        watch_forks(resident)

    def leave(self) -> None:
        """
        Serve nobody any more.
        """
        self.loop = None

    def inherited(self) -> None:
        """
        Take note that this is a copy in a child process.
        """
        self.loop = None
        self.is_inherited = True

    def stranger(self) -> PoolError | None:
        """
        Return why a caller is in the wrong place, None when it is not.
        """
        if self.is_inherited:
            return WrongProcess()
        return None if self.loop is None or self.loop is asyncio.get_running_loop() else WrongLoop()
