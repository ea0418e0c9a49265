"""The blocking core of a cluster: takes the folder, starts the server, stops it, lets go. One thread at a time."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from magnus.embedded import _conf, _postmaster, _server
from magnus.embedded._account import Account, server_account
from magnus.embedded._errors import ClusterError
from magnus.embedded._folder import Folder, data_home, write_atomically
from magnus.embedded._lock import FolderLock

if TYPE_CHECKING:
    import subprocess
    import threading
    from collections.abc import Mapping
    from pathlib import Path

    from magnus.embedded._binaries import Binaries

_PORT_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Address:
    """
    Where a server listens: the folder of its unix socket and its loopback port.
    """

    sockets: Path
    port: int


@dataclass(frozen=True, slots=True)
class Spec:
    """
    What a cluster is to be; checked by whoever makes it.
    """

    folder: Folder
    binaries: Binaries
    settings: Mapping[str, str]
    port: int | None = None
    is_durable: bool = True
    is_throwaway: bool = False
    can_share: bool = False
    start_timeout: float = 120.0
    stop_timeout: float = 10.0


@dataclass(slots=True)
class Owner:
    """
    Holds the folder's lock from start to stop; of a throw-away cluster until it is discarded.

    Attributes:
        spec: What was asked for.
        abort: Set by another thread to end a start soon.
        address: Of the last successful start; kept while stopped, because a restart is likely to keep it.
        is_shared: The server is another process's; it is neither started nor stopped here.
    """

    spec: Spec
    abort: threading.Event
    address: Address | None = None
    is_shared: bool = False
    _lock: FolderLock = field(init=False)
    _child: subprocess.Popen[bytes] | None = None
    _process: int = 0

    def __post_init__(self) -> None:
        self._lock = FolderLock(self.spec.folder.lock)

    @property
    def is_started(self) -> bool:
        """
        Whether a server that this process started is alive; one that is just dying is not.
        """
        if self._child is None or self._process != os.getpid() or self._child.poll() is not None:
            return False
        return _postmaster.is_process_of(self._child.pid, self.spec.folder.data)

    @property
    def is_held_here(self) -> bool:
        """
        Whether this process has the folder; a forked copy of it has not.
        """
        return self._lock.is_held and self._process == os.getpid()

    def hold(self) -> bool:
        """
        Make and lock the folder without starting anything. False when another process has it.
        """
        self._disown_after_fork()
        self.spec.folder.create(self._account())
        if not self._lock.try_acquire():
            return False
        self._process = os.getpid()
        return True

    def hold_or_refuse(self) -> None:
        """
        As `hold`.

        Raises:
            ClusterError: another process has it; the error names that process.
        """
        if not self.hold():
            where, holder = self.spec.folder.root, self._lock.holder()
            message = f"{where} is already served by process {holder}; stop that one, or choose another folder"
            raise ClusterError(message, reason="in_use", pid=holder)

    def start(self) -> None:
        """
        Start the server, or find the one that another process holds when that is wanted.

        Raises:
            ClusterError, OSError: nothing is left running, and the lock is as it was.
        """
        if self.is_started:
            return
        if not self._hold_or_share():
            return
        try:
            self._reap()
            self._start_own()
        except BaseException:
            self._let_go()
            raise

    def stop(self) -> None:
        """
        Stop the own server; forget a shared one.

        Raises:
            ClusterError: it would not end even when killed.
        """
        self._disown_after_fork()
        try:
            if self._child is not None:
                self._end(self._child)
        finally:
            self._child = None
            self.is_shared = False
            self._let_go()

    def discard(self) -> None:
        """
        Stop, and delete everything. A shared cluster is only forgotten.
        """
        is_mine = not self.is_shared
        self.stop()
        if not is_mine or not self.hold():
            return
        try:
            for folder in {self.spec.folder.root, self.address.sockets if self.address else self.spec.folder.root}:
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(folder)
        finally:
            self._lock.release()

    def _disown_after_fork(self) -> None:
        """
        In a forked copy: leave the server and the lock to the process that made them.
        """
        if self._process in {0, os.getpid()}:
            return
        if self._child is not None:
            self._child.poll()
        self._lock.release()
        self._child, self._process = None, 0

    def _account(self) -> Account:
        return server_account(self.spec.folder.data)

    def _hold_or_share(self) -> bool:
        """
        True with the lock held, False with the address of a server that another process holds.
        """
        if not self.spec.can_share:
            self.hold_or_refuse()
            return True
        if self.hold():
            return True
        where, holder = self.spec.folder.root, self._lock.holder()
        if not _postmaster.wait_until(self._is_settled, self.spec.start_timeout):
            message = f"{where} is held by process {holder}, but its server is not ready"
            raise ClusterError(message, reason="timeout", pid=holder)
        return not self.is_shared

    def _is_settled(self) -> bool:
        """
        Whether the other process's server is ready, or the other process is gone and the lock is ours.
        """
        if self.abort.is_set():
            raise ClusterError("the start was given up", reason="aborted")
        if self.hold():
            return True
        found = _postmaster.running(self.spec.folder.data)
        if found is None or not found.is_ready or found.port is None or found.socket_folder is None:
            return False
        self.address = Address(self.spec.folder.root / found.socket_folder, found.port)
        self.is_shared = True
        return True

    def _start_own(self) -> None:
        spec, account = self.spec, self._account()
        binaries = spec.binaries.reachable_for(account, store=lambda: data_home(os.environ) / "binaries")
        launch = _server.Launch(binaries, account, spec.folder, self.abort)
        if spec.folder.is_initialised:
            self._check_version()
            _server.end_leftovers(launch)
        else:
            _server.initialise(launch, is_durable=spec.is_durable)
        write_atomically(spec.folder.root / _conf.FILE, _conf.render(spec.settings), mode=0o644)
        self._launch(launch)

    def _reap(self) -> None:
        """
        Take leave of a server that died on its own.
        """
        if self._child is not None:
            _postmaster.end_child(self._child, signals=((_server.KILL, 5.0),))
            self._child = None

    def _check_version(self) -> None:
        data, binaries = self.spec.folder.data, self.spec.binaries
        found = (data / "PG_VERSION").read_text().strip()
        if found != str(binaries.version):
            message = (
                f"{data} was made by PostgreSQL {found}, these programs are {binaries.release}: use programs of "
                f"version {found}, or move {self.spec.folder.root} away to begin anew; nothing was changed"
            )
            raise ClusterError(message, reason="version")

    def _launch(self, launch: _server.Launch) -> None:
        """
        Start on a port that is free. Between the look and the bind another program may take it: then on the next one.
        """
        sockets = launch.folder.prepare_sockets(launch.account, os.environ)
        for attempts_left in reversed(range(_PORT_ATTEMPTS)):
            port = self._choose_port()
            try:
                child = _server.launch_server(launch, sockets=sockets, port=port, timeout=self.spec.start_timeout)
            except ClusterError as error:
                if error.reason != "port" or self.spec.port or not attempts_left:
                    raise
            else:
                self._child, self.address = child, Address(sockets, port)
                write_atomically(launch.folder.port, f"{port}\n", mode=0o600)
                return

    def _choose_port(self) -> int:
        wanted = self.spec.port
        if wanted:
            if not _server.is_free(wanted):
                raise ClusterError(f"port {wanted} is taken by another program", reason="port")
            return wanted
        last = self.spec.folder.last_port()
        return last if last and _server.is_free(last) else _server.free_port()

    def _end(self, child: subprocess.Popen[bytes]) -> None:
        signals = ((_server.FAST, self.spec.stop_timeout), (_server.IMMEDIATE, 5.0), (_server.KILL, 5.0))
        if not _postmaster.end_child(child, signals=signals):
            raise ClusterError(f"PostgreSQL process {child.pid} would not end", reason="stop", pid=child.pid)
        data = self.spec.folder.data
        # Whoever restarted the server meanwhile (the optimizer does) left one that is not our child, but ours to stop.
        other = _postmaster.running(data)
        if other is not None and not _postmaster.end(other.pid, data, signals=signals):
            raise ClusterError(f"PostgreSQL process {other.pid} would not end", reason="stop", pid=other.pid)
        # A postmaster that was killed leaves its backends for a moment.
        _postmaster.wait_until(lambda: not _postmaster.processes_of(data), 5.0)

    def _let_go(self) -> None:
        """
        A throw-away folder that nobody holds may be removed by anybody, so it is held until it is discarded.
        """
        if not self.spec.is_throwaway:
            self._lock.release()
