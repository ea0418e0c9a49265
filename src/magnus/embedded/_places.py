"""The two usual clusters: one that keeps its data between runs, and one that lives for a test."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from magnus.embedded import _postmaster, _server
from magnus.embedded._account import server_account
from magnus.embedded._binaries import Binaries
from magnus.embedded._cluster import Cluster
from magnus.embedded._folder import Folder, data_home, temporary_home
from magnus.embedded._lock import FolderLock
from magnus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}\Z")
_PREFIX = "magnus-throwaway-"


def persistent(
    name: str,
    binaries: Binaries | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    port: int | None = None,
    can_share: bool = False,
    max_connections: int = 100,
    settings: Mapping[str, str] | None = None,
) -> Cluster:
    """
    The cluster of that name in the data folder of this user; nothing is started yet.

    The data folder is $MAGNUS_HOME, else $XDG_DATA_HOME/magnus (~/.local/share/magnus), else, for root, whose home the
    server's account cannot enter, /var/lib/magnus. With `can_share`, a server that another process holds there is used
    as it is; without, that is an error that names the process.

    Raises:
        ConfigError: an impossible name or setting, or the extra `embedded` is not installed.
    """
    if not _NAME.match(name):
        raise ConfigError(
            "name", name, "up to 40 lower-case letters, digits, - and _, beginning with a letter or digit"
        )
    folder = data_home(os.environ if environ is None else environ) / name
    return Cluster(
        folder,
        binaries or Binaries.bundled(),
        port=port,
        can_share=can_share,
        max_connections=max_connections,
        settings=settings,
    )


def throwaway(
    binaries: Binaries | None = None, *, max_connections: int = 100, settings: Mapping[str, str] | None = None
) -> Cluster:
    """
    A cluster in the temporary folder, without fsync, removed when its `with` block or the interpreter ends.

    What killed processes left of theirs is stopped and removed first.

    Raises:
        ConfigError: an impossible setting, or the extra `embedded` is not installed.
        ClusterError: no temporary folder that the server's account can enter.
    """
    account = server_account()
    home = temporary_home(account)
    remove_abandoned(home)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=home))
    folder.chmod(0o711 if account.is_other else 0o700)
    cluster = Cluster(
        folder,
        binaries or Binaries.bundled(),
        max_connections=max_connections,
        settings=settings,
        is_durable=False,
        is_throwaway=True,
    )
    cluster.hold()
    return cluster


def remove_abandoned(home: Path) -> None:
    """
    Stop and delete the throw-away clusters in `home` that are ours and that nobody holds any more.
    """
    for root in home.glob(f"{_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError, PermissionError):
            if root.is_symlink() or root.stat().st_uid != os.geteuid():
                continue
            _remove_if_abandoned(Folder(root))


def _remove_if_abandoned(folder: Folder) -> None:
    """
    A folder without a lock file is being made by somebody at this moment, so it is left alone.
    """
    lock = FolderLock(folder.lock)
    if not folder.lock.exists() or not lock.try_acquire():
        return
    try:
        for pid in _postmaster.processes_of(folder.data):
            _postmaster.end(pid, folder.data, signals=((_server.IMMEDIATE, 5.0), (_server.KILL, 5.0)))
        shutil.rmtree(folder.root)
    finally:
        lock.release()
