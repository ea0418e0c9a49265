"""What of a server lies on this machine: its data folder, process, programs and account. It changes nothing."""

from __future__ import annotations

import os
import shlex
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from magnus.embedded import Account, ClusterError, running, server_account

if TYPE_CHECKING:
    from collections.abc import Mapping

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Site:
    """
    A data folder on this machine that this account may use, and the server in it.

    Attributes:
        data: The data folder.
        system_identifier: As pg_control says.
        account: Who the server runs as; root acts as that account.
        argv: How the server was started (postmaster.opts); empty when that was never.
        pid: The postmaster, None while there is none.
        environ: The environment of the running server, where it can be read.
        output: The file that the running server's standard error goes to, when it is one.
        cgroup: The control group of the running server.
        parent: The command name of the running server's parent.
    """

    data: Path
    system_identifier: str
    account: Account
    argv: tuple[str, ...] = ()
    pid: int | None = None
    environ: Mapping[str, str] | None = None
    output: Path | None = None
    cgroup: str = ""
    parent: str = ""

    @classmethod
    def at(cls, data: Path) -> Self:
        """
        Look at a data folder.

        Raises:
            ClusterError: it is none, or this account may not act for its owner.
        """
        account = server_account(data)
        try:
            found = running(data)
            return cls(
                data=data,
                system_identifier=system_identifier(data),
                account=account,
                argv=_argv(data),
                pid=found.pid if found else None,
                environ=_environ(found.pid) if found else None,
                output=_output(found.pid) if found else None,
                cgroup=_read(_PROC / str(found.pid) / "cgroup") if found else "",
                parent=_parent(found.pid) if found else "",
            )
        except OSError as error:
            words = f"{data} cannot be read: {error.strerror}; name the data folder, and run as its owner or as root"
            raise ClusterError(words, reason="permission") from error

    @property
    def bindir(self) -> Path | None:
        """
        Where the server's programs are.
        """
        return Path(self.argv[0]).parent if self.argv else None

    @property
    def auto_conf(self) -> Path:
        return self.data / "postgresql.auto.conf"

    def given(self) -> dict[str, str]:
        """
        Return the settings that the command line gives, which outrank every file.
        """
        return command_line_settings(self.argv[1:])


def command_line_settings(arguments: tuple[str, ...]) -> dict[str, str]:
    """
    Return the settings among the arguments of `postgres`, by name.
    """
    letters = {"-B": "shared_buffers", "-h": "listen_addresses", "-k": "unix_socket_directories", "-l": "ssl"}
    letters |= {"-N": "max_connections", "-p": "port", "-S": "work_mem", "-D": "data_directory"}
    found: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word.startswith("--") and "=" in word:
            pair = word[2:]
        elif word == "-c" and rest:
            pair = rest.pop(0)
        elif word.startswith("-c") and "=" in word:
            pair = word[2:]
        elif word[:2] in letters:
            pair = f"{letters[word[:2]]}={word[2:] or (rest.pop(0) if rest else '')}"
        elif word == "-F":
            pair = "fsync=off"
        else:
            continue
        name, _, value = pair.partition("=")
        found[name.strip().lower().replace("-", "_")] = value
    return found


def system_identifier(data: Path) -> str:
    """
    Read the cluster's identity: the first eight bytes of pg_control, in the machine's own order.
    """
    with (data / "global" / "pg_control").open("rb") as control:
        return str(struct.unpack("=Q", control.read(8))[0])


def is_backend_here(pid: int) -> bool:
    """
    Say whether the session's server process is a process of this machine: a tunnel or a container's port is not.
    """
    if not (_PROC / "self").exists():
        return True
    return _read(_PROC / str(pid) / "comm").strip() in {"postgres", "postmaster"}


def _argv(data: Path) -> tuple[str, ...]:
    """
    postmaster.opts holds the program and, in double quotes without escapes, its arguments.
    """
    try:
        return tuple(shlex.split((data / "postmaster.opts").read_text(), posix=True))
    except (FileNotFoundError, ValueError):
        return ()


def _environ(pid: int) -> dict[str, str] | None:
    try:
        content = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return None
    pairs = (os.fsdecode(part).partition("=") for part in content.split(b"\0") if b"=" in part)
    return {name: value for name, _, value in pairs}


def _output(pid: int) -> Path | None:
    try:
        place = (_PROC / str(pid) / "fd" / "2").readlink()
    except OSError:
        return None
    return place if place.is_file() else None


def _parent(pid: int) -> str:
    words = _read(_PROC / str(pid) / "stat").rpartition(")")[2].split()
    return _read(_PROC / words[1] / "comm").strip() if len(words) > 1 else ""


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
