"""Where a cluster's files lie: data, password, lock, log, sockets. It knows no server."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from magnus.embedded._errors import ClusterError
from magnus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from magnus.embedded._account import Account

# The size of sun_path less its final zero: 107 bytes on Linux, 103 on macOS. The shorter holds for both.
_LONGEST_SOCKET = 103
_SOCKET_NAME = ".s.PGSQL.65535.lock"
_LARGE_LOG = 10 * 1024 * 1024
_STAGING = "data.new-"


@dataclass(frozen=True, slots=True)
class Folder:
    """
    The files of one cluster. `data` belongs to the server's account, everything else to whoever holds the cluster.
    """

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def password(self) -> Path:
        return self.root / "password"

    @property
    def port(self) -> Path:
        return self.root / "port"

    @property
    def log(self) -> Path:
        return self.root / "server.log"

    @property
    def is_initialised(self) -> bool:
        return (self.data / "PG_VERSION").exists()

    def create(self, account: Account) -> None:
        """
        Make the root folder. Others may pass through it when the server runs as another account, but list nothing.

        Raises:
            ClusterError: the account cannot get there; permissions of existing folders are never changed.
        """
        make_folders(self.root, account)
        if not account.can_enter(self.root):
            message = (
                f"PostgreSQL runs as account {account.name}, which cannot enter {self.root}; "
                "choose a folder whose parents others may pass, or run as an ordinary user"
            )
            raise ClusterError(message, reason="permission")

    def staging(self, account: Account) -> Path:
        """
        An empty folder for a new data folder, after those of interrupted attempts are gone. Call it under the lock.
        """
        for old in self.root.glob(f"{_STAGING}*"):
            # The initdb of a killed owner may still be writing there; what is left then goes the next time.
            if old.is_dir():
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.unlink()
        fresh = self.root / f"{_STAGING}{secrets.token_hex(4)}"
        fresh.mkdir(mode=0o700)
        account.own(fresh, 0o700)
        return fresh

    def secret(self) -> str:
        """
        The superuser's password, made at the first call and kept in a file that only its owner can read.
        """
        try:
            return self.password.read_text().strip()
        except FileNotFoundError:
            fresh = secrets.token_urlsafe(24)
            write_atomically(self.password, f"{fresh}\n", mode=0o600)
            return fresh

    def last_port(self) -> int | None:
        """
        The port of the last run, so that a restart keeps its address when it can.
        """
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int(self.port.read_text())
        return None

    def open_log(self) -> int:
        """
        A descriptor that appends to the log. A large log is first moved aside, over the one before.
        """
        if self.log.exists() and self.log.stat().st_size > _LARGE_LOG:
            self.log.replace(self.log.with_suffix(".log.1"))
        return os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def log_since(self, offset: int) -> str:
        """
        What the server wrote after `offset`.
        """
        with self.log.open("rb") as log:
            log.seek(offset)
            return log.read().decode(errors="replace")

    def prepare_sockets(self, account: Account, environ: Mapping[str, str]) -> Path:
        """
        The private, empty folder for the socket: inside the root, or a short one elsewhere when the path is too long.

        Raises:
            ClusterError: the short folder exists and is somebody else's.
        """
        folder = self._socket_folder(account, environ)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        if folder.is_symlink() or folder.stat().st_uid not in {account.uid, os.geteuid()}:
            raise ClusterError(f"{folder} is not ours; remove it or choose another folder", reason="permission")
        account.own(folder, 0o700)
        for left in folder.glob(".s.PGSQL.*"):
            left.unlink(missing_ok=True)
        return folder

    def _socket_folder(self, account: Account, environ: Mapping[str, str]) -> Path:
        inside = self.root / "socket"
        if _fits(inside):
            return inside
        name = f"magnus-{hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]}"
        for place in (environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):  # noqa: S108 - made private
            if place and Path(place).is_dir() and _fits(Path(place, name)) and account.can_enter(Path(place)):
                return Path(place, name)
        raise ClusterError(f"no folder short enough for a unix socket (tried {inside})", reason="permission")


def make_folders(path: Path, account: Account) -> None:
    """
    Make `path` and its missing parents, private, or passable where the server's account has to get through.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            # Given to mkdir, the mode would be narrowed by a strict umask.
            folder.chmod(0o711 if account.is_other else 0o700)


def data_home(environ: Mapping[str, str]) -> Path:
    """
    Where persistent clusters live: $MAGNUS_HOME, else /var/lib/magnus for root, else the XDG data home.

    Root's own home is closed to the account that the server runs as.

    Raises:
        ConfigError: a relative path, or no home at all.
    """
    if chosen := environ.get("MAGNUS_HOME"):
        return _absolute("MAGNUS_HOME", chosen)
    if os.geteuid() == 0:
        return Path("/var/lib/magnus")
    if xdg := environ.get("XDG_DATA_HOME"):
        return _absolute("XDG_DATA_HOME", xdg) / "magnus"
    if home := environ.get("HOME"):
        return _absolute("HOME", home) / ".local" / "share" / "magnus"
    raise ConfigError("HOME", None, "not set; set MAGNUS_HOME to a folder for PostgreSQL's data")


def temporary_home(account: Account) -> Path:
    """
    The temporary folder, or another one when the server's account cannot enter it.
    """
    places = (tempfile.gettempdir(), "/tmp", "/var/tmp")  # noqa: S108 - names inside are random
    for place in places:
        if Path(place).is_dir() and account.can_enter(Path(place)):
            return Path(place)
    raise ClusterError(f"account {account.name} cannot enter any of {', '.join(places)}", reason="permission")


def write_atomically(path: Path, text: str, *, mode: int) -> None:
    """
    Replace a file so that a reader, or a crash, sees the old text or the new one.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    fresh = Path(name)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.chmod(mode)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def _absolute(variable: str, value: str) -> Path:
    if not Path(value).is_absolute():
        raise ConfigError(variable, value, "must be an absolute path")
    return Path(value)


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder / _SOCKET_NAME)) <= _LONGEST_SOCKET
