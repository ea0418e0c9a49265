"""Runs PostgreSQL's programs: makes a data folder, launches a server and waits until it answers. It keeps no state."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from magnus.embedded import _conf, _postmaster
from magnus.embedded._errors import ClusterError, from_output

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from magnus.embedded._account import Account
    from magnus.embedded._binaries import Binaries
    from magnus.embedded._folder import Folder

SUPERUSER = "postgres"
HOST = "127.0.0.1"

# SIGINT is PostgreSQL's "fast": sessions are ended, everything is written. SIGQUIT is "immediate": a crash, recovered
# at the next start.
FAST, IMMEDIATE, KILL = signal.SIGINT, signal.SIGQUIT, signal.SIGKILL
_INITDB_TIMEOUT = 120.0
_BUILTIN_LOCALES_SINCE = 17


@dataclass(frozen=True, slots=True)
class Launch:
    """
    Everything that a start needs and that does not change while it runs.
    """

    binaries: Binaries
    account: Account
    folder: Folder
    abort: threading.Event


def initialise(launch: Launch, *, is_durable: bool) -> None:
    """
    Make the data folder beside its place and rename it: half of one is never taken for a whole one. Needs the lock.

    Raises:
        ClusterError: initdb failed, or something that is no data folder is in the place.
    """
    folder, account = launch.folder, launch.account
    if folder.data.exists() and any(folder.data.iterdir()):
        message = f"{folder.data} is not empty and holds no PostgreSQL data; move it away, nothing was changed"
        raise ClusterError(message, reason="not_empty")
    staging = folder.staging(account)
    passfile = staging.with_name(f"{staging.name}.password")
    try:
        passfile.touch(mode=0o600)
        account.own(passfile, 0o600)
        passfile.write_text(folder.secret())
        _initdb(launch, staging, passfile, is_durable=is_durable)
        _include_our_settings(staging)
        staging.rename(folder.data)
    finally:
        passfile.unlink(missing_ok=True)
        if staging.exists():
            shutil.rmtree(staging, ignore_errors=True)


def _initdb(launch: Launch, staging: Path, passfile: Path, *, is_durable: bool) -> None:
    fixed: list[str | Path] = [launch.binaries.bindir / "initdb", "--pgdata", staging, "--pwfile", passfile]
    fixed += ["--username", SUPERUSER]
    fixed += ["--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8", "--data-checksums"]
    fixed += [] if is_durable else ["--no-sync"]
    output = ""
    for locale in _locales(launch.binaries.version):
        code, output = _run([*fixed, *locale], launch)
        if code == 0:
            return
        if "invalid locale" not in output:
            break
    raise from_output("PostgreSQL's data folder could not be made", output, reason="initdb")


def _locales(version: int) -> tuple[tuple[str, ...], ...]:
    """
    Code-point order with Unicode's upper and lower case, independent of the machine's C library when possible.
    """
    if version >= _BUILTIN_LOCALES_SINCE:
        return (("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),)
    return ("--locale=C.UTF-8", "--lc-messages=C"), ("--locale=C",)


def _include_our_settings(data: Path) -> None:
    # The folder belongs to another account: a symbolic link put there must not lead root's pen elsewhere.
    descriptor = os.open(data / "postgresql.conf", os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "w") as conf:
        conf.write(_conf.INCLUDE)
        conf.flush()
        os.fsync(conf.fileno())


def launch_server(launch: Launch, *, sockets: Path, port: int, timeout: float) -> subprocess.Popen[bytes]:
    """
    Start the postmaster in a session of its own and wait until it accepts connections.

    A session of its own: Ctrl-C on the terminal reaches the application, which drains and then stops the server.

    Raises:
        ClusterError: it ended (the text holds its last words), or was not ready in time and was ended.
    """
    folder = launch.folder
    descriptor = folder.open_log()
    try:
        offset = os.fstat(descriptor).st_size
        command: list[str | Path] = [
            launch.binaries.bindir / "postgres",
            "-D",
            folder.data,
            "-p",
            str(port),
            "-k",
            sockets,
            "-h",
            HOST,
        ]
        child = _spawn(command, launch.account, output=descriptor)
    finally:
        os.close(descriptor)
    try:
        _wait_until_ready(child, launch, offset, timeout)
    except BaseException:
        _postmaster.end_child(child, signals=((FAST, 10.0), (IMMEDIATE, 5.0), (KILL, 5.0)))
        raise
    return child


def _wait_until_ready(child: subprocess.Popen[bytes], launch: Launch, offset: int, timeout: float) -> None:
    def is_settled() -> bool:
        found = _postmaster.PidFile.read(launch.folder.data)
        is_ready = found is not None and found.pid == child.pid and found.is_ready
        return is_ready or child.poll() is not None or launch.abort.is_set()

    is_in_time = _postmaster.wait_until(is_settled, timeout)
    log = launch.folder.log
    if launch.abort.is_set():
        raise ClusterError("the start was given up", reason="aborted")
    if child.poll() is not None:
        raise from_output("PostgreSQL did not start", launch.folder.log_since(offset), reason="start", log=log)
    if not is_in_time:
        words = f"PostgreSQL was not ready after {timeout:g} s"
        raise from_output(words, launch.folder.log_since(offset), reason="timeout", log=log)


def end_leftovers(launch: Launch) -> None:
    """
    End what a killed owner or a killed postmaster left running in this data folder. Needs the lock.

    A left postmaster is stopped, not adopted: its programs and settings may not be the ones asked for. Backends that
    outlive their postmaster must be gone before the pid file may be: it is what protects the data from two servers.

    Raises:
        ClusterError: something would not end.
    """
    data = launch.folder.data
    left = _postmaster.running(data)
    if left and not _postmaster.end(left.pid, data, signals=((FAST, 30.0), (IMMEDIATE, 5.0), (KILL, 5.0))):
        raise ClusterError(
            f"PostgreSQL process {left.pid} of an earlier run would not end", reason="stop", pid=left.pid
        )
    for pid in _postmaster.processes_of(data):
        if not _postmaster.end(pid, data, signals=((IMMEDIATE, 2.0), (KILL, 5.0))):
            raise ClusterError(f"PostgreSQL process {pid} of an earlier run would not end", reason="stop", pid=pid)
    stale = _postmaster.PidFile.read(data)
    if stale and not _postmaster.is_process_of(stale.pid, data):
        (data / "postmaster.pid").unlink(missing_ok=True)


def is_free(port: int) -> bool:
    """
    Whether a server could listen on this loopback port now.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """
    A loopback port that nobody uses at the moment; whoever listens first has it.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _run(command: list[str | Path], launch: Launch) -> tuple[int, str]:
    """
    Run a program to its end, or to `abort`; its exit code and everything it printed.
    """
    with tempfile.TemporaryFile() as output:
        child = _spawn(command, launch.account, output=output.fileno())
        try:
            is_ended = _postmaster.wait_until(
                lambda: child.poll() is not None or launch.abort.is_set(), timeout=_INITDB_TIMEOUT
            )
        finally:
            # initdb's children end with it; its half of a folder is removed by the caller.
            _postmaster.end_child(child, signals=((signal.SIGTERM, 2.0), (KILL, 5.0)))
        if launch.abort.is_set():
            raise ClusterError("the start was given up", reason="aborted")
        output.seek(0)
        text = output.read().decode(errors="replace")
        if not is_ended:
            raise from_output(f"initdb did not end within {_INITDB_TIMEOUT:g} s", text, reason="timeout")
        return child.returncode, text


def _spawn(command: list[str | Path], account: Account, *, output: int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # noqa: S603 - programs of the installation asked for
            [os.fspath(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=_environment(),
            start_new_session=True,
            **account.spawn_arguments(),
        )
    except PermissionError as error:
        message = f"{command[0]} cannot be run as account {account.name}: {error.strerror}"
        raise ClusterError(message, reason="permission") from error


def _environment() -> dict[str, str]:
    """
    Nothing of PGDATA, PGPORT, PGOPTIONS and the like; messages in English, which `_errors` reads.
    """
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}
