"""Tries the full resulting configuration in a scratch cluster of the same programs, before anything is changed.

The scratch cluster has its own data, socket, log and pid file, listens nowhere, archives nothing, follows nobody and
runs no library outside of a short list, so it can touch nothing of the server it stands in for.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from magnus.embedded import Account, Binaries, ClusterError, PidFile, free_port, temporary_home
from magnus.errors import ConfigError, PreflightFailed
from magnus.tuning import host, quoting
from magnus.tuning.candidate import Candidate, candidate
from magnus.tuning.headroom import Memory, shortage, worst
from magnus.tuning.setting import split_list
from magnus.tuning.units import MB, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from magnus.tuning.local import Site

__all__ = ["Candidate", "Memory", "Report", "candidate", "shortage", "try_out", "worst"]

_LIMIT: Final = 60.0
_POLL: Final = 0.02
# More shared memory than this part of the machine's leaves too little for sessions and the system's file cache.
_SHARED_PART: Final = 0.4
# Libraries that change no file outside the data folder and open no connection; others run in no scratch server.
_HARMLESS: Final = frozenset({"pg_stat_statements", "auto_explain", "pg_prewarm", "auth_delay", "passwordcheck"})
# Where things are: never taken from the real configuration.
_PLACES: Final = frozenset({
    "config_file", "data_directory", "external_pid_file", "hba_file", "ident_file", "include", "include_dir",
    "include_if_exists", "listen_addresses", "port", "unix_socket_directories", "unix_socket_group",
})  # fmt: skip
# What would reach outside when the scratch server really starts. Names that a version lacks are left out.
_CUT_OFF: Final[Mapping[str, str]] = {
    "archive_cleanup_command": "",
    "archive_command": "",
    "archive_library": "",
    "archive_mode": "off",
    "bonjour": "off",
    "cluster_name": "magnus preflight",
    "default_tablespace": "",
    "fsync": "off",
    "huge_pages": "off",
    "local_preload_libraries": "",
    "log_destination": "stderr",
    "logging_collector": "off",
    "max_logical_replication_workers": "0",
    "primary_conninfo": "",
    "primary_slot_name": "",
    "promote_trigger_file": "",
    "recovery_end_command": "",
    "recovery_target": "",
    "recovery_target_lsn": "",
    "recovery_target_name": "",
    "recovery_target_time": "",
    "recovery_target_xid": "",
    "restore_command": "",
    "session_preload_libraries": "",
    "ssl": "off",
    "sync_replication_slots": "off",
    "synchronized_standby_slots": "",
    "synchronous_standby_names": "",
    "temp_tablespaces": "",
    "unix_socket_permissions": "0700",
}


@dataclass(frozen=True, slots=True)
class Report:
    """
    What the trial showed.

    Attributes:
        status: "passed", "partly checked" or "not tried".
        notes: What was not, or not fully, tried, and why.
        shared_memory: Bytes that the server will have; None when not tried.
        seconds: How long it took.
    """

    status: str
    notes: tuple[str, ...] = ()
    shared_memory: int | None = None
    seconds: float = 0.0


def try_out(wanted: Candidate, site: Site, memory: Memory) -> Report:
    """
    Run the server's own programs on the candidate: print a computed value, check, start and stop. Blocking.

    Raises:
        PreflightFailed: it would not start, or would have too little memory; naming the setting when that is known.
    """
    begin = time.monotonic()
    try:
        programs = _programs(site)
        home = temporary_home(site.account)
    except (ConfigError, ClusterError) as error:
        return Report("not tried", (str(error),))
    folder = Path(tempfile.mkdtemp(prefix="magnus-preflight-", dir=home))
    try:
        trial = _Trial(wanted, programs, site.account, folder, memory)
        notes = trial.run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    status = "partly checked" if notes else "passed"
    return Report(status, tuple(notes), trial.shared_memory, time.monotonic() - begin)


def _programs(site: Site) -> Binaries:
    """
    The programs that the server itself runs from.
    """
    if site.bindir is None:
        raise ConfigError("binaries", None, f"{site.data} does not say which programs it is served by")
    return Binaries.at(site.bindir)


@dataclass(slots=True)
class _Trial:
    wanted: Candidate
    programs: Binaries
    account: Account
    folder: Path
    memory: Memory
    shared_memory: int | None = None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def run(self) -> list[str]:
        """
        Make the cluster and put it through everything; return what could not be tried in full.
        """
        self._initialise()
        self.shared_memory = self._computed("shared_memory_size") * MB
        self._prove()
        foreign = [name for name in self._libraries() if Path(name).name not in _HARMLESS]
        notes = [f"library {name} was loaded for a check only, it does not run in a trial" for name in foreign]
        reduced = {} if self._has_room() else {"shared_buffers": "16MB"}
        if reduced:
            notes.append(
                f"there is no room for a second {shown(self.shared_memory)} of shared memory: started with 16 MB, and "
                "compared with the limit by numbers"
            )
        self._check(reduced)
        self._start(reduced)
        return notes

    def _libraries(self) -> tuple[str, ...]:
        return split_list(self.wanted.value("shared_preload_libraries"))

    def _initialise(self) -> None:
        self.account.own(self.folder, 0o700)
        code, output = self._call(
            "initdb", "--pgdata", self.data, "--auth=trust", "--no-sync", "--username=postgres", "--encoding=UTF8",
            "--locale=C", "--no-instructions",
        )  # fmt: skip
        if code:
            raise PreflightFailed("", f"the scratch cluster could not be made: {_last(output)}")
        lines = [
            quoting.conf_line(name, value)
            for name, value in self.wanted.settings.items()
            if name not in _PLACES and (name in self.wanted.known or "." in name)
        ]
        conf = self.data / "postgresql.conf"
        conf.write_text("\n".join([*lines, ""]))
        self.account.own(conf, 0o600)

    def _computed(self, name: str) -> int:
        """
        Ask the programs for a value that depends on all others; they read and check all of them for it.
        """
        given = {key: value for key, value in self.wanted.given.items() if key not in _PLACES}
        code, output = self._call("postgres", "-D", self.data, *_options(given), "-C", name)
        if code:
            raise self._failure(output)
        return int(output.split()[-1])

    def _prove(self) -> None:
        """
        A start proves nothing about memory: buffers are only touched later.
        """
        assert self.shared_memory is not None, "computed before"
        limit, now = self.memory.limit, self.memory.shared_now
        if limit and self.shared_memory > _SHARED_PART * limit and self.shared_memory > (now or 0):
            raise PreflightFailed(
                self._to_blame("shared_buffers"),
                f"{shown(self.shared_memory)} of shared memory is more than {_SHARED_PART:.0%} of the "
                f"{shown(limit)} that the server may use",
            )
        if self.wanted.value("huge_pages").lower() == "on":
            self._prove_pages()

    def _prove_pages(self) -> None:
        needed = self._computed("shared_memory_size_in_huge_pages")
        match = re.search(r"^HugePages_Total:\s*([0-9]+)", host.read_text("/proc/meminfo") or "", re.MULTILINE)
        total = int(match[1]) if match else 0
        if needed < 0 or needed > total:
            reason = f"on needs {needed} huge pages and this machine has {total}; the server would not start"
            raise PreflightFailed("huge_pages", reason)

    def _to_blame(self, name: str) -> str:
        if name in self.wanted.changed:
            return name
        return next(iter(sorted(self.wanted.changed & {"max_connections", "huge_pages"})), "")

    def _has_room(self) -> bool:
        available = self.memory.available
        return available is None or (self.shared_memory or 0) < available // 2

    def _cut_off(self, reduced: Mapping[str, str]) -> dict[str, str]:
        """
        Return what the command line of the trial says, over everything else.
        """
        kept = [name for name in self._libraries() if Path(name).name in _HARMLESS]
        own = {
            **_CUT_OFF,
            "shared_preload_libraries": ", ".join(kept),
            "unix_socket_directories": str(self.folder),
            "listen_addresses": "",
            "port": str(free_port()),
            "hba_file": str(self.data / "pg_hba.conf"),
            "ident_file": str(self.data / "pg_ident.conf"),
            "external_pid_file": "",
            **reduced,
        }
        given = {name: value for name, value in self.wanted.given.items() if name not in _PLACES}
        return {**given, **{name: value for name, value in own.items() if name in self.wanted.known}}

    def _check(self, reduced: Mapping[str, str]) -> None:
        code, output = self._call("postgres", "--check", "-D", self.data, *_options(self._cut_off(reduced)))
        if code:
            raise self._failure(output)

    def _start(self, reduced: Mapping[str, str]) -> None:
        log = self.folder / "log"
        with log.open("wb") as output:
            child = self._spawn("postgres", "-D", self.data, *_options(self._cut_off(reduced)), output=output.fileno())
        try:
            end = time.monotonic() + _LIMIT
            while child.poll() is None and not self._is_ready(child.pid) and time.monotonic() < end:
                time.sleep(_POLL)
            if child.poll() is not None or not self._is_ready(child.pid):
                raise self._failure(log.read_text(errors="replace"))
        finally:
            _end(child)

    def _is_ready(self, pid: int) -> bool:
        found = PidFile.read(self.data)
        return found is not None and found.pid == pid and found.is_ready

    def _failure(self, output: str) -> PreflightFailed:
        words = _last(output)
        named = [name for name in sorted(self.wanted.changed, key=len, reverse=True) if name in words]
        quoted = [name for name in self.wanted.changed if _mentions(words, self.wanted.settings.get(name, ""))]
        blamed = (named or quoted or [""])[0]
        if not blamed and any(mark in words for mark in ("could not access file", "could not load library")):
            blamed = next(iter(self.wanted.changed & {"shared_preload_libraries"}), "")
        if not blamed and "shared memory" in words:
            blamed = self._to_blame("shared_buffers")
        value = f" = {self.wanted.settings.get(blamed)!r}" if blamed in self.wanted.settings else ""
        return PreflightFailed(f"{blamed}{value}", f"PostgreSQL would not start: {words}")

    def _call(self, program: str, *arguments: str | Path) -> tuple[int, str]:
        with tempfile.TemporaryFile() as output:
            child = self._spawn(program, *arguments, output=output.fileno())
            try:
                child.wait(_LIMIT)
            except subprocess.TimeoutExpired:
                return 124, f"{program} did not end within {_LIMIT:g} s"
            finally:
                _end(child)
            output.seek(0)
            return child.returncode, output.read().decode(errors="replace")

    def _spawn(self, program: str, *arguments: str | Path, output: int) -> subprocess.Popen[bytes]:
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        return subprocess.Popen(  # noqa: S603 - the server's own programs
            [os.fspath(self.programs.bindir / program), *(os.fspath(word) for word in arguments)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env={**kept, "LC_ALL": "C", "TZ": "UTC"},
            start_new_session=True,
            **self.account.spawn_arguments(),
        )


def _options(settings: Mapping[str, str]) -> list[str]:
    return [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]


def _end(child: subprocess.Popen[bytes]) -> None:
    """
    End a program at once; nothing of the scratch cluster is kept.
    """
    for signum in (signal.SIGQUIT, signal.SIGKILL):
        if child.poll() is not None:
            return
        child.send_signal(signum)
        try:
            child.wait(5.0)
        except subprocess.TimeoutExpired:
            continue


def _last(output: str) -> str:
    """
    The lines that say why, without what the log puts before them.
    """
    lines = [line for line in output.splitlines() if any(mark in line for mark in _MARKS)] or output.splitlines()[-3:]
    cleaned = (re.sub(r"^.*?\b(LOG|FATAL|PANIC|ERROR|DETAIL|HINT):\s+", "", line) for line in lines[:6])
    return " ".join(" ".join(cleaned).split())[:800]


_MARKS: Final = (
    "FATAL:", "PANIC:", "ERROR:", "DETAIL:", "HINT:", "LOG:  invalid", "LOG:  could not", "LOG:  unrecognized",
    "is outside the valid range", "invalid value", "LOG:  parameter",
)  # fmt: skip


def _mentions(words: str, value: str) -> bool:
    return any(item and f'"{item}"' in words for item in (value, *split_list(value)))
