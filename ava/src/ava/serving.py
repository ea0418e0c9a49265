"""Serves an ASGI application in this process: the port first, then uvicorn, then a drain that is not an error.

It knows no database and no command line; signals are the caller's, who calls `Serving.drain`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvicorn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

BACKLOG: Final = 4096
"""Connections that may wait to be accepted; Linux caps it at net.core.somaxconn, which is 4096 since 5.4."""

_KEEP_ALIVE: Final = 75  # longer than clients keep an idle connection, so a request never meets a closing one
_LISTEN: Final = "0A"  # TCP_LISTEN in /proc/net/tcp


class ListenError(Exception):
    """
    The address cannot be served on. The text is one line that says what to do.
    """


def listen(host: str, port: int) -> socket.socket:
    """
    Return a listening TCP socket on `host` and `port` (0: any free port).

    It listens at once, before anything slow, so that a taken port is known in milliseconds and early clients wait in
    the backlog instead of being refused.

    Raises:
        ListenError: the port is taken, not permitted, or the host is none of this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError):
        raise ListenError(f"cannot resolve {host!r}; use --host 127.0.0.1 or an address of this machine") from None
    found = socket.socket(family, kind, protocol)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(BACKLOG)
        found.setblocking(False)
    except OSError as error:
        found.close()
        raise ListenError(_refusal(error, host, port)) from None
    return found


def _refusal(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        owner = listener_pid(port)
        by = "" if owner is None else f" by process {owner}"
        return f"port {port} is already in use{by}; stop it or choose another with --port"
    if error.errno == errno.EACCES:
        return f"no permission to listen on port {port}; choose one above 1023 with --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine; choose another with --host"
    return f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}"


def listener_pid(port: int, proc: Path = Path("/proc")) -> int | None:
    """
    Return the process that listens on a TCP port, or None when that cannot be seen.
    """
    inodes = {inode for name in ("tcp", "tcp6") for inode in listening_inodes(_lines(proc / "net" / name), port)}
    wanted = {f"socket:[{inode}]" for inode in inodes}
    if not wanted:
        return None
    for folder in proc.glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):  # processes come, go, and belong to others
            if any(_target(descriptor) in wanted for descriptor in folder.iterdir()):
                return int(folder.parent.name)
    return None


def listening_inodes(lines: Iterable[str], port: int) -> Iterator[str]:
    """
    Yield the inode of every listening socket on `port` in the lines of /proc/net/tcp.
    """
    suffix = f":{port:04X}"
    for line in lines:
        columns = line.split()
        if len(columns) > 9 and columns[1].endswith(suffix) and columns[3] == _LISTEN:
            yield columns[9]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except OSError:
        return ""


def raise_file_limit() -> int:
    """
    Raise this process' limit of open files to what it is allowed, and return it: every client is an open file.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Serving(uvicorn.Server):
    """
    One run of an application on one listening socket.

    Theory of operation. `drain()` is the only way to stop it. The first call announces (readiness says "draining"),
    accepts for `notice` seconds more so that balancers can see it, then closes the port and lets requests in flight
    finish for at most `grace` seconds, then ends the application's lifespan. A second call cuts the requests short.
    uvicorn's own signal handling is off: it would raise the signal again at the end and turn a clean stop into one
    by signal.
    """

    def __init__(
        self, app: Any, sock: socket.socket, *, announce: Callable[[], None], notice: float = 0.5, grace: float = 10.0
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="none",
                http="httptools",
                ws="none",
                lifespan="on",
                log_config=None,
                log_level="warning",  # its every step is no news
                access_log=False,
                backlog=BACKLOG,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE,
                timeout_graceful_shutdown=max(1, round(grace)),
            )
        )
        self._socket = sock
        self._announce = announce
        self._notice = notice
        self.is_draining = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """
        Leave the signals to the caller.
        """
        yield

    def drain(self) -> None:
        """
        Begin to stop; the second call stops without waiting for requests in flight.
        """
        if self.is_draining:
            self.force_exit = True
            self.should_exit = True
            return
        self.is_draining = True
        self._announce()
        asyncio.get_running_loop().call_later(self._notice, self._stop)

    def _stop(self) -> None:
        self.should_exit = True

    async def run_until_drained(self) -> bool:
        """
        Serve until `drain()`; return False when requests in flight were cut off.
        """
        await self.serve(sockets=[self._socket])
        return not self.force_exit

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """
        As uvicorn's, but the lifespan ends in every case: a pool that is not closed leaves sessions behind.
        """
        await super().shutdown(sockets)
        if self.force_exit:
            for task in self.server_state.tasks:
                task.cancel()
            await self.lifespan.shutdown()
