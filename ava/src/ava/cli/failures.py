"""Known failures -> one line and an exit code; pure. An error that is not here is a fault and keeps its traceback."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from ava.audit import AuditError
from ava.cli.exits import CommandError, Exit
from ava.data.dataset import LoadError
from ava.migrations import MigrationError, RolesMissing
from ava.serving import ListenError
from magnus import ConfigError, DatabaseError, PoolError
from magnus.embedded import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class Failure:
    """
    What the person at the terminal reads, and the exit code.
    """

    text: str
    code: Exit


def explain(error: Exception) -> Failure | None:
    """
    Return the line and the code for an error, or None when it is not a known one.
    """
    if isinstance(error, CommandError):
        return Failure(str(error), error.code)
    for kind, words, code in _RULES:
        if isinstance(error, kind):
            return Failure(words(error), code)
    return None


_DISK: Final[Mapping[int, str]] = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
}


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _cluster(error: ClusterError) -> str:
    """
    A cause that is known is one line; of one that is not, the server's last words are all there is.
    """
    return str(error) if error.reason in {"start", "initdb", "stop", "timeout"} else str(error).splitlines()[0]


def _not_served(error: Exception) -> str:
    return f"the database did not serve: {_line(error)}"


def _not_permitted(error: Exception) -> str:
    return f"a privilege is missing: {_line(error)}; connect as the owner of the database"


def _refused(error: Exception) -> str:
    return f"the database server refused: {_line(error)}"


def _system(error: OSError) -> str:
    words = _DISK.get(error.errno or 0) or os.strerror(error.errno or 0)
    return f"{words}: {error.filename}" if error.filename else words


_RULES: Final[tuple[tuple[type[Exception], Callable[[Any], str], Exit], ...]] = (
    (ConfigError, _line, Exit.USAGE),
    (ListenError, _line, Exit.USAGE),
    (ClusterError, _cluster, Exit.DATABASE),
    (RolesMissing, _line, Exit.DATABASE),
    (MigrationError, _line, Exit.REFUSED),
    (LoadError, _line, Exit.REFUSED),
    (AuditError, _line, Exit.REFUSED),
    (DatabaseError, _not_served, Exit.DATABASE),
    (PoolError, _not_served, Exit.DATABASE),
    (asyncpg.InsufficientPrivilegeError, _not_permitted, Exit.DATABASE),
    (asyncpg.DiskFullError, lambda _: "the database server's disk is full", Exit.DATABASE),
    (asyncpg.UndefinedTableError, lambda _: "AVA's tables are missing; run: ava migrate", Exit.DATABASE),
    (asyncpg.PostgresError, _refused, Exit.DATABASE),
    (OSError, _system, Exit.DATABASE),
)
"""The first that fits; subclasses before their bases."""
