"""What can go wrong with a local server, and the one line a person gets; it starts nothing."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from magnus.errors import MagnusError

if TYPE_CHECKING:
    from pathlib import Path

_LOG_LINES = 12

# First match wins; the texts are those of PostgreSQL with LC_ALL=C, which every child process here gets.
_CAUSES = (
    ("No space left on device", "disk_full", "the disk is full"),
    ("Check free disk space", "disk_full", "the disk is full"),
    ("could not create any TCP/IP sockets", "port", "the port is taken"),
    ("Address already in use", "port", "the port is taken"),
    ("could not map anonymous shared memory", "memory", "shared_buffers is larger than this machine allows"),
    ("database files are incompatible", "version", "the data belong to another PostgreSQL version"),
    ("Permission denied", "permission", "a file or folder is not accessible for the account that runs PostgreSQL"),
    ("could not look up effective user ID", "permission", "this account has no entry in /etc/passwd"),
    ("Read-only file system", "permission", "the file system is read-only"),
)

_ERRNO_REASONS = {
    errno.ENOSPC: ("disk_full", "the disk is full"),
    errno.EDQUOT: ("disk_full", "the disk quota is used up"),
    errno.EACCES: ("permission", "permission denied"),
    errno.EPERM: ("permission", "permission denied"),
    errno.EROFS: ("permission", "the file system is read-only"),
}


class ClusterError(MagnusError):
    """
    A local server could not be made, started or stopped. Data is never deleted on the way to this error.

    Attributes:
        reason: A fixed word: "in_use", "version", "not_empty", "permission", "disk_full", "port", "memory", "timeout",
            "initdb", "start", "stop" or "aborted".
        pid: The process in the way, when there is one.
        log: The server's log file, when there is one.
    """

    def __init__(self, message: str, *, reason: str, pid: int | None = None, log: Path | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.pid = pid
        self.log = log


def from_output(what: str, output: str, *, reason: str, log: Path | None = None) -> ClusterError:
    """
    The error for a PostgreSQL program that gave up: the cause in words when it is a known one, then its last lines.
    """
    lines = [line for line in output.splitlines() if line.strip()][-_LOG_LINES:]
    for needle, known, words in _CAUSES:
        if any(needle in line for line in lines):
            reason, what = known, f"{what}: {words}"
            break
    shown = "\n".join(f"  {line}" for line in lines) or "  (no output)"
    where = f" (log: {log})" if log else ""
    return ClusterError(f"{what}{where}\n{shown}", reason=reason, log=log)


def from_os_error(what: str, error: OSError) -> ClusterError:
    """
    The error for a system call that failed, with the path it failed on.
    """
    reason, words = _ERRNO_REASONS.get(error.errno or 0, ("start", error.strerror or str(error)))
    path = f": {error.filename}" if error.filename else ""
    return ClusterError(f"{what}: {words}{path}", reason=reason)
