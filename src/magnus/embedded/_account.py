"""Which operating-system account runs PostgreSQL, and what that account can reach; it changes no permission."""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from magnus.embedded._errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_UNPRIVILEGED = ("postgres", "nobody")


class SpawnArguments(TypedDict, total=False):
    """
    The part of `subprocess.Popen`'s arguments that changes the account.
    """

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Account:
    """
    The account of the server's processes.

    Attributes:
        uid: Numeric user.
        gid: Its primary group.
        name: For messages.
        is_other: True when it differs from this process's own account, which only root can arrange.
    """

    uid: int
    gid: int
    name: str
    is_other: bool

    def spawn_arguments(self) -> SpawnArguments:
        """
        What to add to `Popen` so that the child runs as this account.
        """
        if not self.is_other:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path, mode: int) -> None:
        """
        Give `path` to this account with exactly `mode`.
        """
        path.chmod(mode)
        if self.is_other:
            os.chown(path, self.uid, self.gid)

    def can_enter(self, folder: Path) -> bool:
        """
        Whether every folder on the way, `folder` included, lets this account pass. Mode bits only, no ACL.
        """
        if not self.is_other:
            return True
        return all(self._may_execute(part.stat()) for part in _upwards(folder.resolve()))

    def _may_execute(self, status: os.stat_result) -> bool:
        if status.st_uid == self.uid:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.gid:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)


def server_account(data: Path | None = None) -> Account:
    """
    The account to run the server in `data` as: one's own, or for root an unprivileged one (PostgreSQL refuses root).

    Existing data decide: they stay with the account that owns them.

    Raises:
        ClusterError: the data belong to somebody else, or there is no unprivileged account.
    """
    owner = data.stat().st_uid if data and data.exists() else None
    mine = os.geteuid()
    if mine != 0:
        if owner not in {None, mine}:
            message = f"{data} belongs to {_name(owner)}; run as that account, or choose another folder"
            raise ClusterError(message, reason="permission")
        return Account(mine, os.getegid(), _name(mine), is_other=False)
    if owner:
        return _other(pwd.getpwuid(owner)) if _is_known(owner) else Account(owner, owner, str(owner), is_other=True)
    return _unprivileged()


def _unprivileged() -> Account:
    for name in _UNPRIVILEGED:
        try:
            return _other(pwd.getpwnam(name))
        except KeyError:
            continue
    message = f"PostgreSQL refuses to run as root, and none of the accounts {', '.join(_UNPRIVILEGED)} exists"
    raise ClusterError(message, reason="permission")


def _other(entry: pwd.struct_passwd) -> Account:
    return Account(entry.pw_uid, entry.pw_gid, entry.pw_name, is_other=True)


def _is_known(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _name(uid: int | None) -> str:
    return pwd.getpwuid(uid).pw_name if uid is not None and _is_known(uid) else f"uid {uid}"


def _upwards(folder: Path) -> Iterator[Path]:
    yield folder
    yield from folder.parents
