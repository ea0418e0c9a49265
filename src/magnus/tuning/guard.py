"""The dead-man: restarts the server with new settings and, when it does not come back, puts the old ones there again.

It runs in a process of its own, in a session of its own, so that it goes on when the operator's terminal, ssh or magnus
itself is gone. It gets everything it needs at its start, the connection string by a pipe, and tells what came of it in
the journal. Carried out twice, it does not restart twice.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from magnus.embedded import PidFile, processes_of, running
from magnus.errors import MagnusError
from magnus.tuning import autoconf, files, service
from magnus.tuning.journal import Author, Journal
from magnus.tuning.local import Site
from magnus.tuning.reach import Reach
from magnus.tuning.service import RestartFailed, Service

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from magnus.tuning.journal import Entry

_POLL: Final = 0.1
_GONE_PATIENCE: Final = 3.0
_LAST_WORDS: Final = 4000


@dataclass(frozen=True, slots=True)
class Orders:
    """
    What the dead-man is to do; plain data.

    Attributes:
        run: The run that restarts.
        keys: "RUN|ID" of the settings' changes that go back with the file.
        is_rollback: What is restarted for is a rollback, so that going back means that the changes stand again.
        service: How to restart.
        before: postgresql.auto.conf as it was, base64.
        names: The settings that are ours in the file.
        timeout: Seconds without a healthy session, and without progress of a recovery, until it is put back.
        old_pid: The postmaster that is to be replaced.
        folder: The journal's folder.
        system_identifier: The cluster.
        author: Who restarts.
    """

    run: str
    keys: tuple[str, ...]
    is_rollback: bool
    service: Service
    before: str
    names: tuple[str, ...]
    timeout: float
    old_pid: int | None
    folder: str
    system_identifier: str
    author: Author

    def to_json(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Orders:
        own = {"service": Service.from_json(found["service"]), "author": Author(**found["author"])}
        return cls(**{**found, **own, "keys": tuple(found["keys"]), "names": tuple(found["names"])})

    def journal(self) -> Journal:
        return Journal.open(Path(self.folder), self.system_identifier, self.author)


def spawn(orders: Orders, reach: Reach) -> subprocess.Popen[bytes]:
    """
    Start the dead-man. It outlives this process and everything that ends with the terminal.
    """
    log = Path(orders.folder) / f"guard-{orders.run}.log"
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "magnus.tuning.guard"],
            stdin=subprocess.PIPE,
            stdout=descriptor,
            stderr=descriptor,
            cwd="/",
            env=dict(reach.environ),
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    assert child.stdin is not None
    with child.stdin:
        child.stdin.write(json.dumps({"orders": orders.to_json(), "dsn": reach.dsn}).encode())
    return child


def main() -> int:
    """
    Carry out the orders on standard input.
    """
    given = json.load(sys.stdin)
    orders = Orders.from_json(given["orders"])
    carry_out(orders, Reach(given["dsn"], dict(os.environ), "magnus guard"))
    return 0


def carry_out(orders: Orders, reach: Reach) -> str:
    """
    Restart unless that was done, wait for a healthy session, else put the old settings back; say which it was. When
    another process is at it, or was, its verdict counts.

    Returns "restarted", "restored" or "stuck" (nothing brought the server up; it says so in the journal).
    """
    with _alone(orders):
        journal = orders.journal()
        verdict = verdict_after(journal, orders.run, 0)
        return verdict.kind if verdict is not None else _carry_out(orders, reach, journal)


VERDICTS: Final = frozenset({"restarted", "restored", "stuck"})


def verdict_after(journal: Journal, run: str, seq: int) -> Entry | None:
    """
    Return the dead-man's verdict on a run's last restart, if it is in the journal by now.
    """
    last: Entry | None = None
    for entry in journal.reread():
        if entry.run == run and entry.seq > seq:
            if entry.kind == "restart":
                last = None
            elif entry.kind in VERDICTS:
                last = entry
    return last


@contextlib.contextmanager
def _alone(orders: Orders) -> Iterator[None]:
    """
    Wait until no other process carries out the same orders; one that was killed holds nothing up.
    """
    path = Path(orders.folder) / f"guard-{orders.run}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _carry_out(orders: Orders, reach: Reach, journal: Journal) -> str:
    log = _Log(orders.service)
    why = _restart(orders)
    if not why and _comes_up(orders, reach):
        journal.write("restarted", orders.run)
        return "restarted"
    why = log.last_words() or why or f"no healthy session within {orders.timeout:g} s"
    journal.write("restoring", orders.run, why=why)
    problem = _restore(orders)
    if not problem and _comes_up(orders, reach):
        journal.write("restored", orders.run, keys=list(orders.keys), is_rollback=orders.is_rollback, why=why)
        return "restored"
    journal.write("stuck", orders.run, why=why, problem=problem or log.last_words() or "it does not answer")
    return "stuck"


def _restart(orders: Orders) -> str:
    """
    Return why it failed; nothing when the server was told to start.
    """
    found = running(orders.service.folder)
    try:
        if found is not None and found.pid == orders.old_pid:
            service.restart(orders.service)
        elif found is None:
            service.start(orders.service)
    except RestartFailed as error:
        return f"{error}: {error.output}" if error.output else str(error)
    return ""


def _restore(orders: Orders) -> str:
    """
    Put the file back and start the server with it; return what went wrong.
    """
    try:
        site = Site.at(orders.service.folder)
        files.replace(site, merged(site.auto_conf.read_bytes(), orders))
        if site.pid is not None:
            service.stop(replace(orders.service, kind="own", argv=orders.service.argv or site.argv))
        service.start(orders.service)
    except (MagnusError, OSError) as error:
        output = getattr(error, "output", "")
        return f"{error}: {output}" if output else str(error)
    return ""


def merged(now: bytes, orders: Orders) -> bytes:
    """
    Return the file with our settings taken back: the very bytes from before, unless others are in it by now.
    """
    before = base64.b64decode(orders.before)
    had = autoconf.values(before)
    wanted = {name.lower(): had.get(name.lower()) for name in orders.names}
    edited = autoconf.edit(now, wanted)
    return before if autoconf.values(edited) == had else edited


def _comes_up(orders: Orders, reach: Reach) -> bool:
    """
    Wait for a healthy session. Time only runs while nothing moves: crash recovery is progress, not death.
    """
    data = orders.service.folder
    seen: object = None
    last_move = last_alive = time.monotonic()
    while True:
        if asyncio.run(reach.is_alive()):
            return True
        now = time.monotonic()
        if running(data) is not None:
            last_alive = now
        elif now - last_alive > _GONE_PATIENCE and orders.service.kind != "systemd":
            return False
        marker = recovery(data)
        if marker != seen:
            seen, last_move = marker, now
        if now - last_move > orders.timeout:
            return False
        time.sleep(_POLL)


def recovery(data: Path) -> tuple[object, ...]:
    """
    Return what changes while a recovery moves: the startup process's title (the WAL file it reads), how much it has
    read and worked, and the control file.
    """
    marks: list[object] = []
    found = PidFile.read(data)
    marks.append(None if found is None else (found.pid, found.is_ready))
    for pid in processes_of(data):
        with contextlib.suppress(OSError):
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"startup" in title:
                stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                marks.append((pid, title, stat[11], stat[12]))
    with contextlib.suppress(OSError):
        marks.append((data / "global" / "pg_control").stat().st_mtime_ns)
    return tuple(marks)


class _Log:
    """
    What the server writes to its standard error from now on.
    """

    def __init__(self, own: Service) -> None:
        self._path = None if own.output is None else Path(own.output)
        self._offset = 0
        with contextlib.suppress(OSError):
            self._offset = self._path.stat().st_size if self._path else 0

    def last_words(self) -> str:
        """
        The FATAL and PANIC lines with their details; empty when there is no log or no such line.
        """
        if self._path is None:
            return ""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        words = [line for line in lines if any(mark in line for mark in ("FATAL:", "PANIC:", "DETAIL:", "HINT:"))]
        # Sessions that came while it was down are told so; that is no reason.
        words = [line for line in words if "the database system is" not in line]
        return " ".join(" ".join(words).split())[-_LAST_WORDS:]


if __name__ == "__main__":
    sys.exit(main())
