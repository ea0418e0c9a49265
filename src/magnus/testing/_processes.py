"""Faults of a server's processes, on clusters of one's own: stopped, killed, restarted the hard way, promoted.

Signals go only to processes whose working directory is the cluster's data folder, so never to another server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from magnus.embedded import ClusterError, _postmaster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from magnus.embedded import Cluster

_POLL: Final = 0.01
_PATIENCE: Final = 30.0
_AUXILIARY: Final = (
    "checkpointer", "background writer", "walwriter", "walsummarizer", "walreceiver", "startup", "archiver", "logger",
    "stats collector", "autovacuum", "logical replication", "io worker", "slotsync",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Process:
    """
    One process of a server. `kind` is "postmaster", "backend", "walsender", or what its title says ("checkpointer").
    """

    pid: int
    kind: str


def processes(cluster: Cluster) -> list[Process]:
    """
    Return the live processes of a cluster, the postmaster first.
    """
    postmaster = cluster.pid
    found = [Process(pid, _kind(pid, postmaster)) for pid in _postmaster.processes_of(cluster.data)]
    return sorted(found, key=lambda process: (process.kind != "postmaster", process.pid))


def _kind(pid: int, postmaster: int | None) -> str:
    if pid == postmaster:
        return "postmaster"
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return "gone"
    return kind_of(title)


def kind_of(title: str) -> str:
    """
    Return what a process calls itself; the cluster's name stands before that where it has one (`cluster_name`).
    """
    words = title.removeprefix("postgres: ")
    after = words.partition(": ")[2]
    return next(
        (name for name in ("walsender", *_AUXILIARY) if words.startswith(name) or after.startswith(name)), "backend"
    )


def send(cluster: Cluster, signum: signal.Signals, *kinds: str) -> list[int]:
    """
    Send a signal to the processes of these kinds (none named: to all); return their ids.

    Raises:
        ClusterError: there is no such process: the fault would do nothing.
    """
    pids = [process.pid for process in processes(cluster) if not kinds or process.kind in kinds]
    if not pids:
        raise ClusterError(f"{cluster!r} has no process of kind {', '.join(kinds) or 'any'}", reason="signal")
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)
    return pids


@contextlib.contextmanager
def frozen(cluster: Cluster, *kinds: str) -> Iterator[list[int]]:
    """
    Stop processes (SIGSTOP) as long as the block lasts; they accept connections and packets, and say nothing.

    `frozen(cluster)` stops the whole server, `frozen(cluster, "backend")`, `"postmaster"`, `"walsender"`,
    `"walreceiver"` a part of it. Sessions that begin meanwhile are not stopped.
    """
    pids = send(cluster, signal.SIGSTOP, *kinds)
    try:
        yield pids
    finally:
        for pid in pids:
            if _postmaster.is_process_of(pid, cluster.data):
                os.kill(pid, signal.SIGCONT)


async def kill(cluster: Cluster) -> None:
    """
    Kill every process of the server at the same moment (SIGKILL), as a machine that loses its power does to them.

    `await cluster.start()` starts it again, with crash recovery.
    """
    await _gone(cluster, send(cluster, signal.SIGKILL))


async def crash(cluster: Cluster) -> int:
    """
    Kill one backend (SIGKILL): the postmaster ends all sessions and recovers. Returns the victim's process id.

    Raises:
        ClusterError: there is no backend.
    """
    victims = [process.pid for process in processes(cluster) if process.kind == "backend"]
    if not victims:
        raise ClusterError(f"{cluster!r} has no backend to kill", reason="signal")
    os.kill(victims[0], signal.SIGKILL)
    return victims[0]


async def restart_immediately(cluster: Cluster) -> float:
    """
    Restart as `pg_ctl restart -m immediate` does: no checkpoint, no farewell, crash recovery. Returns when it accepts
    connections again; the number is the seconds since the signal.
    """
    began = time.monotonic()
    pids = [process.pid for process in processes(cluster)]
    send(cluster, signal.SIGQUIT, "postmaster")
    await _gone(cluster, pids)
    await cluster.start()
    return time.monotonic() - began


async def promote(cluster: Cluster) -> float:
    """
    Make a standby the primary of a new timeline, and wait until it takes writes. Returns the seconds it took.

    Raises:
        ClusterError: it did not become one.
    """
    began = time.monotonic()
    async with cluster.connect() as con:
        is_primary = await con.fetchval("SELECT pg_promote(true, 30)")
    if not is_primary:
        raise ClusterError(f"{cluster!r} was not promoted", reason="promote")
    return time.monotonic() - began


async def _gone(cluster: Cluster, pids: list[int]) -> None:
    async with asyncio.timeout(_PATIENCE):
        while any(_postmaster.is_process_of(pid, cluster.data) for pid in pids):  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(_POLL)


@contextlib.asynccontextmanager
async def brown_out(cluster: Cluster, seconds: float) -> AsyncIterator[None]:
    """
    Stop the whole server for `seconds` while the block runs, at most until the block ends.
    """
    with frozen(cluster) as pids:
        waking = asyncio.get_running_loop().call_later(seconds, _wake, pids, cluster)
        try:
            yield
        finally:
            waking.cancel()


def _wake(pids: list[int], cluster: Cluster) -> None:
    for pid in pids:
        if _postmaster.is_process_of(pid, cluster.data):
            os.kill(pid, signal.SIGCONT)
