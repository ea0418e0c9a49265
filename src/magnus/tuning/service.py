"""How a local server is restarted, told from its process, and the restart itself. It decides nothing about settings."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from magnus.embedded import Account, PidFile, is_process_of, running
from magnus.errors import TuningError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from magnus.tuning.local import Site

_POLL: Final = 0.02
# What a server is started with again; the rest of its environment may hold secrets and would be in the journal.
_ENVIRONMENT: Final = frozenset({
    "PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD", "MALLOC_ARENA_MAX",
    "PG_OOM_ADJUST_FILE", "PG_OOM_ADJUST_VALUE", "PGDATA", "USER", "LOGNAME", "SHELL", "KRB5_KTNAME", "ICU_DATA",
})  # fmt: skip
_COMMAND_LIMIT: Final = 900.0
_STOP_LIMIT: Final = 600.0
# Who starts the server again by themselves, with settings of their own, when it is stopped behind their back.
_SUPERVISORS: Final[Mapping[str, str]] = {
    "patroni": "patronictl restart",
    "pg_autoctl": "pg_autoctl restart",
    "stolon-keeper": "stolonctl",
    "manager": "the Cluster resource (kubectl cnpg restart)",
    "repmgrd": "repmgr node service --action=restart",
}


class NotRestartable(TuningError):
    """
    magnus may not, or cannot, restart this server itself; the text says who can.
    """


class RestartFailed(TuningError):
    """
    The server did not stop, or its service manager gave up. `output` holds its last words.
    """

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


@dataclass(frozen=True, slots=True)
class Service:
    """
    One way to restart one server; plain data, so that the dead-man's process gets it as JSON.

    Attributes:
        kind: "systemd", "pg_ctlcluster", "command", or "own": by signal, and started again as it was started before.
        data: The data folder.
        restart: The command that stops and starts; empty for "own".
        start: The command that starts a stopped server; empty for "own".
        argv: For "own": the program and its arguments.
        account: For "own": uid, gid, name, and whether that is another account than this process's.
        environ: For "own": what the server had.
        output: For "own": where its standard error goes.
    """

    kind: str
    data: str
    restart: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    argv: tuple[str, ...] = ()
    account: tuple[int, int, str, bool] = (0, 0, "", False)
    environ: Mapping[str, str] | None = None
    output: str | None = None

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        tuples = {name: tuple(found[name]) for name in ("restart", "start", "argv", "account")}
        return cls(**{**found, **tuples})

    @property
    def words(self) -> str:
        """
        How it is restarted, for people.
        """
        return " ".join(self.restart) if self.restart else f"signal INT to the postmaster, then {self.argv[0]} again"

    @property
    def folder(self) -> Path:
        return Path(self.data)


def detect(site: Site, command: str | None = None) -> Service:
    """
    Tell from the server's process who runs it.

    Raises:
        NotRestartable: a supervisor or a container owns it, or it was never started here.
    """
    account = (site.account.uid, site.account.gid, site.account.name, site.account.is_other)
    if command:
        shell = ("/bin/sh", "-c", command)
        return Service("command", os.fspath(site.data), restart=shell, start=shell, account=account)
    if site.pid == 1:
        raise NotRestartable(
            "PostgreSQL is the first process of this container, which ends with it: restart the container, or name "
            "the command with --restart-command"
        )
    if site.parent in _SUPERVISORS:
        raise NotRestartable(
            f"{site.parent} supervises this server: restart it with {_SUPERVISORS[site.parent]}, or name the command "
            "with --restart-command"
        )
    known = _systemd(site) or _debian(site)
    if known:
        return known
    if not site.argv:
        raise NotRestartable(f"{site.data} does not say how its server was started; use --restart-command")
    return Service(
        "own",
        os.fspath(site.data),
        argv=site.argv,
        account=account,
        environ=kept(site.environ),
        output=None if site.output is None else os.fspath(site.output),
    )


def kept(environ: Mapping[str, str] | None) -> dict[str, str]:
    """
    Return the part of the running server's environment that it is started with again.
    """
    found = os.environ if environ is None else environ
    return {name: value for name, value in found.items() if name in _ENVIRONMENT or name.startswith("LC_")}


def _systemd(site: Site) -> Service | None:
    """
    Only a unit whose main process is this postmaster: a server started by hand inside another service is not it.
    """
    units = [part for part in site.cgroup.replace("\n", "/").split("/") if part.endswith(".service")]
    if not units or not Path("/run/systemd/system").exists() or shutil.which("systemctl") is None:
        return None
    unit = units[-1]
    code, output = run(("systemctl", "show", "--property=MainPID", "--value", unit), limit=10.0)
    if code or output.strip() != str(site.pid):
        return None
    return Service(
        "systemd", os.fspath(site.data), restart=("systemctl", "restart", unit), start=("systemctl", "start", unit)
    )


def _debian(site: Site) -> Service | None:
    """
    Debian's clusters have their configuration in /etc/postgresql/VERSION/NAME.
    """
    parts = Path(site.given().get("config_file", "")).parts
    if parts[:3] != ("/", "etc", "postgresql") or len(parts) < 6 or shutil.which("pg_ctlcluster") is None:
        return None
    head = ("pg_ctlcluster", parts[3], parts[4])
    return Service(
        "pg_ctlcluster", os.fspath(site.data), restart=(*head, "restart", "-m", "fast"), start=(*head, "start")
    )


def run(command: tuple[str, ...], *, limit: float = _COMMAND_LIMIT) -> tuple[int, str]:
    """
    Run a command to its end; its exit code and everything it said.
    """
    try:
        done = subprocess.run(  # noqa: S603 - the service manager's, or the operator's own
            command, check=False, capture_output=True, text=True, timeout=limit, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return 124, f"did not end within {limit:g} s"
    except OSError as error:
        return 127, f"{command[0]}: {error.strerror}"
    return done.returncode, (done.stdout + done.stderr).strip()


def restart(service: Service) -> None:
    """
    Stop the server (fast: sessions are ended, everything is written) and start it with what the files say now.

    Returns when it was told to start; whether it serves is to be seen by connecting.

    Raises:
        RestartFailed: it does not stop, or the service manager reports failure.
    """
    if service.kind != "own":
        _command(service.restart)
        return
    stop(service)
    start(service)


def stop(service: Service) -> None:
    """
    Stop the server's process by the fast signal.

    Raises:
        RestartFailed: it lives on.
    """
    found = running(service.folder)
    if found is None:
        return
    os.kill(found.pid, signal.SIGINT)
    if not wait_until(lambda: not is_process_of(found.pid, service.folder), _STOP_LIMIT):
        raise RestartFailed(f"PostgreSQL (process {found.pid}) did not stop within {_STOP_LIMIT:g} s")


def start(service: Service) -> None:
    """
    Start a stopped server.

    Raises:
        RestartFailed: the command failed, or the account may not be used.
    """
    if service.kind == "systemd":
        run(("systemctl", "reset-failed", service.start[-1]), limit=30.0)
    if service.kind != "own":
        _command(service.start)
        return
    if running(service.folder) is None:
        _spawn(service)


def _command(command: tuple[str, ...]) -> None:
    code, output = run(command)
    if code:
        raise RestartFailed(f"{' '.join(command)} failed with exit code {code}", output)


def _spawn(service: Service) -> None:
    """
    Start the postmaster as it was started before, in a session of its own: it outlives this process.
    """
    uid, gid, name, is_other = service.account
    account = Account(uid, gid, name, is_other=is_other)
    place = os.devnull if service.output is None else service.output
    try:
        descriptor = os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    except OSError:
        descriptor = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        child = subprocess.Popen(  # noqa: S603 - the server's own program and arguments
            service.argv,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            cwd="/",
            env=None if service.environ is None else dict(service.environ),
            start_new_session=True,
            **account.spawn_arguments(),
        )
    except OSError as error:
        raise RestartFailed(f"{service.argv[0]} cannot be started as {name}: {error.strerror}") from error
    finally:
        os.close(descriptor)
    # Settled once it has its pid file or is gone; a child that dies is reaped here.
    wait_until(lambda: child.poll() is not None or _is_up(service.folder, child.pid), 30.0)
    if child.poll() is not None:
        raise RestartFailed(f"PostgreSQL ended at its start with exit code {child.returncode}")
    child.returncode = 0  # it outlives this process; its handle must not complain of that


def _is_up(data: Path, pid: int) -> bool:
    found = PidFile.read(data)
    return found is not None and found.pid == pid


def wait_until(is_done: Callable[[], bool], limit: float) -> bool:
    """
    Ask every 20 ms, at most `limit` seconds. Returns the last answer.
    """
    end = time.monotonic() + limit
    while not is_done():
        if time.monotonic() >= end:
            return False
        time.sleep(_POLL)
    return True
