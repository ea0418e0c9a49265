"""One holder for a cluster's folder, across processes; the operating system lets go when the holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class FolderLock:
    """
    An advisory lock on a file that also names its holder's process id.

    Invariants: a lock file that exists was locked before it got its name, so finding it unlocked means that its holder
    is gone; and the descriptor is not inherited by programs that are started, so a server never keeps its owner's lock.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    @property
    def is_held(self) -> bool:
        return self._descriptor is not None

    def try_acquire(self) -> bool:
        """
        Take the lock if nobody has it, this process under another object included. Never waits.
        """
        if self._descriptor is None:
            self._descriptor = self._create()
        if self._descriptor is None:
            self._descriptor = self._open()
        return self.is_held

    def holder(self) -> int | None:
        """
        The process that took the lock last; only meaningful right after `try_acquire` returned False.
        """
        with contextlib.suppress(OSError, ValueError):
            return int(self._path.read_text())
        return None

    def release(self) -> None:
        """
        Let go. The file stays: removing it would let two processes hold two files of the same name.
        """
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _create(self) -> int | None:
        """
        A new lock file, locked before it has its name; None when the name exists.
        """
        if self._path.exists():
            return None
        nameless = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}")
        descriptor = _locked(nameless, os.O_CREAT | os.O_EXCL)
        assert descriptor is not None, "nobody else knows the name"
        try:
            os.link(nameless, self._path)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, FileExistsError):
                return None
            raise
        finally:
            nameless.unlink()
        return descriptor

    def _open(self) -> int | None:
        try:
            descriptor = _locked(self._path, 0)
        except FileNotFoundError:
            return None
        if descriptor is not None and not self._is_current(descriptor):
            os.close(descriptor)
            return None
        return descriptor

    def _is_current(self, descriptor: int) -> bool:
        """
        Whether the locked file still has its name: a throw-away cluster's folder may have been removed meanwhile.
        """
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except FileNotFoundError:
            return False


def _locked(path: Path, flags: int) -> int | None:
    """
    Open and lock a file and write our process id into it; None when somebody else has it locked.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
