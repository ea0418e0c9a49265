"""The server's processes: what `postmaster.pid` says, who is really alive, how they are ended.

A process is believed to be this cluster's only when its working directory is the data folder (every PostgreSQL process
goes there), so a reused process id is never signalled. Where /proc is missing the id alone must do.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import signal
    import subprocess
    from collections.abc import Callable

_PROC = Path("/proc")
_HAS_PROC = (_PROC / "self" / "cwd").exists()
_POLL = 0.01
_READY = frozenset({"ready", "standby"})


@dataclass(frozen=True, slots=True)
class PidFile:
    """
    What a postmaster writes about itself.

    Attributes:
        pid: Its process id.
        port: TCP port, also part of the socket's name.
        socket_folder: None until the socket exists.
        is_ready: It accepts connections.
    """

    pid: int
    port: int | None
    socket_folder: str | None
    is_ready: bool

    @classmethod
    def parse(cls, text: str) -> PidFile | None:
        """
        None for a file that is empty, cut or not ours: a postmaster writes it line by line.
        """
        lines = [line.strip() for line in text.splitlines()]
        try:
            pid = abs(int(lines[0]))
        except (IndexError, ValueError):
            return None
        if not pid:
            return None
        port = lines[3] if len(lines) > 3 else ""
        return cls(
            pid=pid,
            port=int(port) if port.isdecimal() else None,
            socket_folder=(lines[4] or None) if len(lines) > 4 else None,
            is_ready=len(lines) > 7 and lines[7] in _READY,
        )

    @classmethod
    def read(cls, data: Path) -> PidFile | None:
        """
        None when there is no server, or it has not written anything yet.
        """
        try:
            return cls.parse((data / "postmaster.pid").read_text(errors="replace"))
        except FileNotFoundError:
            return None


def running(data: Path) -> PidFile | None:
    """
    The live postmaster of this data folder, None when its file is missing or left over.
    """
    found = PidFile.read(data)
    return found if found and is_process_of(found.pid, data) else None


def is_process_of(pid: int, data: Path) -> bool:
    """
    Whether `pid` lives (a zombie does not) and belongs to the server of this data folder.
    """
    if not _HAS_PROC:
        return is_alive(pid)
    try:
        return Path(f"/proc/{pid}/cwd").readlink() == data.resolve() and not _is_zombie(pid)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False


def processes_of(data: Path) -> list[int]:
    """
    Every live process of this data folder's server; empty where /proc is missing.
    """
    if not _HAS_PROC:
        return []
    pids = (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())
    return [pid for pid in pids if pid != os.getpid() and is_process_of(pid, data) and _is_postgres(pid)]


def end(pid: int, data: Path, *, signals: tuple[tuple[signal.Signals, float], ...]) -> bool:
    """
    Send each signal in turn, giving the process so many seconds to end after each. True when it is gone.
    """
    for signum, patience in signals:
        if not is_process_of(pid, data):
            return True
        try:
            os.kill(pid, signum)
        except ProcessLookupError:
            return True
        if wait_until(lambda: not is_process_of(pid, data), patience):
            return True
    return False


def end_child(child: subprocess.Popen[bytes], *, signals: tuple[tuple[signal.Signals, float], ...]) -> bool:
    """
    As `end`, for a process that this one started and must reap.
    """
    for signum, patience in signals:
        if child.poll() is not None:
            return True
        child.send_signal(signum)
        if wait_until(lambda: child.poll() is not None, patience):
            return True
    return child.poll() is not None


def wait_until(is_done: Callable[[], bool], timeout: float) -> bool:
    """
    Ask every 10 ms, at most `timeout` seconds. Returns the last answer.
    """
    limit = time.monotonic() + timeout
    while not is_done():
        if time.monotonic() >= limit:
            return False
        time.sleep(_POLL)
    return True


def is_alive(pid: int) -> bool:
    """
    Whether any process, of whomever, has this id.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_zombie(pid: int) -> bool:
    """
    A process whose parent does not reap, as in a container without an init, stays visible after its death.
    """
    status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    return status.rpartition(")")[2].split()[0] in {"Z", "X"}


def _is_postgres(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() in {"postgres", "postmaster"}
    except (FileNotFoundError, ProcessLookupError):
        return False
