"""The durable record of what was done to a server, and of how it was before: append-only lines, chained by hashes.

Every intention is on disk (file and folder fsynced) before it is carried out, so that whatever happens afterwards,
`magnus rollback` knows what to look at. It applies nothing and knows no server.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import hashlib
import json
import os
import socket
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from magnus.errors import ConfigError, TuningError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_GENESIS = "0" * 64


class JournalUnusable(TuningError):
    """
    The journal cannot be written or read; raised before anything is changed on the server.
    """


class JournalBroken(TuningError):
    """
    The chain of hashes does not hold: an entry was changed, removed or put in.
    """


class JournalBusy(TuningError):
    """
    Another magnus on this machine is changing the same server.
    """


@dataclass(frozen=True, slots=True)
class Author:
    """
    Who writes: the person at the operating system, the role in the database, the machine, the program.
    """

    actor: str
    role: str
    host: str
    version: str

    @classmethod
    def here(cls, role: str, version: str, environ: Mapping[str, str]) -> Self:
        """
        The person of this process (behind sudo: whoever called it) and its machine.
        """
        try:
            user = getpass.getuser()
        except (KeyError, OSError):
            user = f"uid {os.getuid()}"
        behind = environ.get("SUDO_USER")
        actor = f"{behind} (as {user})" if behind and behind != user else user
        return cls(actor, role, socket.gethostname(), version)


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One line of the journal.

    Attributes:
        seq: From 1, without gaps.
        time: UTC, ISO 8601.
        kind: What happened: begin, step, done, failed, ... (the kinds are `record`'s).
        run: The run it belongs to.
        author: Who wrote it.
        data: What this kind carries.
        prev: The hash of the entry before.
        hash: Over everything above.
    """

    seq: int
    time: str
    kind: str
    run: str
    author: Author
    data: Mapping[str, Any]
    prev: str
    hash: str = ""

    def sealed(self) -> Entry:
        """
        Return the entry with its hash.
        """
        return Entry(self.seq, self.time, self.kind, self.run, self.author, self.data, self.prev, self._digest())

    @property
    def is_intact(self) -> bool:
        return self.hash == self._digest()

    def line(self) -> bytes:
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self | None:
        """
        None for what is no entry: the half of a line that a crash or a full disk left.
        """
        try:
            found = json.loads(line)
            author = Author(**found.pop("author"))
            return cls(author=author, **found)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None

    def _digest(self) -> str:
        body = {**asdict(self)}
        del body["hash"]
        return hashlib.sha256(json.dumps(body, separators=(",", ":"), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Reading:
    """
    What a journal's file holds.

    Attributes:
        entries: The intact chain.
        torn: Numbers of lines that were not finished; they hold no entry.
        ends_torn: The last line has no end.
    """

    entries: tuple[Entry, ...]
    torn: tuple[int, ...] = ()
    ends_torn: bool = False


def read(content: bytes) -> Reading:
    """
    Check the chain and return its entries.

    A line that is no entry is tolerated when the chain goes on across it: it was never finished.

    Raises:
        JournalBroken: naming the first line that does not fit.
    """
    entries: list[Entry] = []
    torn = []
    previous = _GENESIS
    for number, line in enumerate(content.splitlines(), start=1):
        entry = Entry.from_line(line)
        if entry is None:
            torn.append(number)
            continue
        if not entry.is_intact or entry.prev != previous or entry.seq != len(entries) + 1:
            raise JournalBroken(
                f"the journal's line {number} does not fit to the one before it: it was changed, removed or put in by "
                "hand; nothing was changed. Restore the file from a copy, or move it away to begin a new one"
            )
        entries.append(entry)
        previous = entry.hash
    return Reading(tuple(entries), tuple(torn), bool(content) and not content.endswith(b"\n"))


def default_folder(environ: Mapping[str, str]) -> Path:
    """
    $XDG_STATE_HOME/magnus, else ~/.local/state/magnus.

    Raises:
        ConfigError: neither is known, or the path is relative.
    """
    if xdg := environ.get("XDG_STATE_HOME"):
        if not Path(xdg).is_absolute():
            raise ConfigError("XDG_STATE_HOME", xdg, "must be an absolute path; or name a folder with --journal")
        return Path(xdg) / "magnus"
    if home := environ.get("HOME"):
        return Path(home) / ".local" / "state" / "magnus"
    raise ConfigError("HOME", None, "not set; name a folder for the journal with --journal DIR")


@dataclass(slots=True)
class Journal:
    """
    The journal of one cluster (primary and standbys have the same system identifier), in a folder of journals.
    """

    folder: Path
    system_identifier: str
    author: Author
    _entries: list[Entry] = field(default_factory=list)
    _read_to: int = 0
    _ends_torn: bool = False
    torn: tuple[int, ...] = ()

    @property
    def path(self) -> Path:
        return self.folder / f"{self.system_identifier}.jsonl"

    @classmethod
    def open(cls, folder: Path, system_identifier: str, author: Author) -> Self:
        """
        Read the journal there; it need not exist yet.

        Raises:
            JournalUnusable: it cannot be read.
            JournalBroken: it was tampered with.
        """
        journal = cls(folder, system_identifier, author)
        journal.reread()
        return journal

    @property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(self._entries)

    def reread(self) -> tuple[Entry, ...]:
        """
        Take in what other processes wrote.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            content = b""
        except OSError as error:
            raise _unusable(self.path, error) from error
        found = read(content)
        self._entries, self._read_to = list(found.entries), len(content)
        self._ends_torn, self.torn = found.ends_torn, found.torn
        return self.entries

    def prepare(self) -> None:
        """
        Make the folder, private to this account, and prove that the journal can be written and flushed there.

        Raises:
            JournalUnusable: no permission, full disk, read-only; naming the folder and what to do.
        """
        probe = self.folder / f".probe-{os.getpid()}"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with probe.open("wb") as file:
                file.write(b"\0" * 65_536)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unusable(self.folder, error) from error
        finally:
            with contextlib.suppress(OSError):
                probe.unlink(missing_ok=True)
        if self.path.exists() and not os.access(self.path, os.R_OK | os.W_OK):
            raise JournalUnusable(f"{self.path} cannot be written by this account; nothing was changed")

    @contextlib.contextmanager
    def exclusively(self) -> Iterator[None]:
        """
        Keep every other magnus on this machine from changing this cluster while the block lasts.

        Raises:
            JournalBusy: another one is at work.
        """
        path = self.path.with_suffix(".lock")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(path, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.reread()
            yield
        except BlockingIOError as error:
            raise JournalBusy(
                "another magnus on this machine is changing this server; wait for it, nothing was changed"
            ) from error
        finally:
            os.close(descriptor)

    def write(self, kind: str, run: str, **data: Any) -> Entry:
        """
        Append an entry; it is on disk when this returns.

        Raises:
            JournalUnusable: it is not; the file holds no half of it unless the machine stopped.
        """
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(self.path, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_size != self._read_to:
                self.reread()
            entry = self._next(kind, run, data)
            self._append(descriptor, entry)
        finally:
            os.close(descriptor)
        self._entries.append(entry)
        return entry

    def _next(self, kind: str, run: str, data: Mapping[str, Any]) -> Entry:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        previous = self._entries[-1].hash if self._entries else _GENESIS
        return Entry(len(self._entries) + 1, now, kind, run, self.author, data, previous).sealed()

    def _append(self, descriptor: int, entry: Entry) -> None:
        size = os.fstat(descriptor).st_size
        line = (b"\n" if self._ends_torn else b"") + entry.line()
        try:
            _write_all(descriptor, line)
            os.fsync(descriptor)
            if size == 0:
                _fsync_folder(self.folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, size)
            raise _unusable(self.path, error) from error
        self._read_to, self._ends_torn = size + len(line), False


def _write_all(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def _fsync_folder(folder: Path) -> None:
    for place in (folder, folder.parent):
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _unusable(path: Path, error: OSError) -> JournalUnusable:
    return JournalUnusable(
        f"the journal {path} cannot be used: {error.strerror or error}; nothing more is changed without it. "
        "Make room or permission there, or name another folder with --journal DIR"
    )
