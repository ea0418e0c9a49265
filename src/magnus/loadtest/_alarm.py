"""Wakes a task at a moment, to some tens of microseconds; it knows no load.

Event loops round their timers up to the next millisecond, and half of that on average would be in every time that is
measured. Linux has timers that an event loop can watch like a socket (timerfd); elsewhere the loop's own must do.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from typing import Final, Self

_MONOTONIC: Final = 1  # CLOCK_MONOTONIC, which time.monotonic() reads
_ABSOLUTE: Final = 1  # TFD_TIMER_ABSTIME


class _Moment(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Setting(ctypes.Structure):
    _fields_ = (("interval", _Moment), ("value", _Moment))


class Alarm:
    """
    A timer of one task at a time, to be used as a context manager within a running loop.
    """

    def __init__(self) -> None:
        self._fd = -1
        self._waiter: asyncio.Future[None] | None = None

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._fd = self._libc.timerfd_create(_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self._ring)
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    async def until(self, moment: float) -> None:
        """
        Wait until the monotonic clock shows `moment`; return at once when it is over.
        """
        early = moment - time.monotonic()
        if early <= 0:
            return
        if self._fd < 0:
            await asyncio.sleep(early)
            return
        waiter = self._waiter = self._loop.create_future()
        whole = int(moment)
        setting = _Setting(_Moment(0, 0), _Moment(whole, int((moment - whole) * 1e9) or 1))
        if self._libc.timerfd_settime(self._fd, _ABSOLUTE, ctypes.byref(setting), None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        await waiter

    def _ring(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # it was set anew meanwhile
            return
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
