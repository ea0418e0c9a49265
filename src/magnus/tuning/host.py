"""The machine of a local server: memory and CPUs under every limit above its process, storage by measured reads.

What is parsed is parsed by pure functions; files come from a reader that is passed in, so that every kind of machine
can be put on a table.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from magnus.tuning import storage
from magnus.tuning.facts import Host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Read = Callable[[str], str | None]

UNLIMITED: Final = 1 << 62
"""Version 1 of cgroups says "no limit" as 2^63 - 4096, rounded to a page; more than 4 EB is none either."""
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """
    Where a hierarchy of cgroups is mounted: `root` is what of it one sees at `point`.
    """

    version: int
    controllers: frozenset[str]
    root: str
    point: str


class Limit(NamedTuple):
    """
    A limit and where it stands.
    """

    value: float
    source: str


def parse_meminfo(text: str) -> int | None:
    """
    Return MemTotal in bytes.
    """
    match = re.search(r"^MemTotal:\s*([0-9]+)\s*kB", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def parse_membership(text: str) -> list[tuple[frozenset[str], str]]:
    """
    Take /proc/PID/cgroup apart: controllers (none of them: version 2) and path.
    """
    found = []
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3 and parts[2].startswith("/"):
            found.append((frozenset(filter(None, parts[1].split(","))), parts[2]))
    return found


def parse_mounts(text: str) -> list[Mount]:
    """
    Take the mounts of cgroups out of /proc/PID/mountinfo.
    """
    found = []
    for line in text.splitlines():
        head, dash, tail = line.partition(" - ")
        fields, kind = head.split(), tail.split()
        if not dash or len(fields) < 5 or len(kind) < 3 or kind[0] not in {"cgroup", "cgroup2"}:
            continue
        version = 2 if kind[0] == "cgroup2" else 1
        controllers = frozenset(kind[2].split(",")) if version == 1 else frozenset[str]()
        found.append(Mount(version, controllers, _unescaped(fields[3]), _unescaped(fields[4])))
    return found


def _unescaped(path: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), path)


def folders(mount: Mount, path: str) -> Iterator[str]:
    """
    Yield the folders of a cgroup from its own up to the mount, as far as they can be seen from here.

    In a container the path may be that of the host while the mount shows only its lower part, or lie above what is
    mounted ("/../x"); then the mount's own folder is the nearest that there is.
    """
    root = mount.root.rstrip("/")
    if ".." in path.split("/"):
        inside = ""
    elif path == root or path.startswith(f"{root}/"):
        inside = path[len(root) :]
    else:
        inside = "" if root else path
    parts = [part for part in inside.split("/") if part]
    for depth in range(len(parts), -1, -1):
        yield "/".join([mount.point.rstrip("/"), *parts[:depth]]) or "/"


def parse_size(text: str | None) -> int | None:
    """
    Read memory.max or memory.limit_in_bytes; None: no file, no number, or no limit.
    """
    word = (text or "").strip()
    if not word.isascii() or not word.isdigit():
        return None
    value = int(word)
    return value if 0 < value < UNLIMITED else None


def parse_quota(text: str | None) -> float | None:
    """
    Read cpu.max ("max 100000" or "150000 100000") as a number of CPUs; None: no limit.
    """
    words = (text or "").split()
    return quota(words[0], words[1]) if len(words) == 2 else None


def quota(allowed: str | None, period: str | None) -> float | None:
    """
    Return microseconds of CPU time in each period as a number of CPUs; None: no limit (-1, max, nothing).
    """
    words = [(text or "").strip() for text in (allowed, period)]
    if not all(word.isascii() and word.isdigit() and int(word) > 0 for word in words):
        return None
    return int(words[0]) / int(words[1])


def limits(read: Read, pid: str) -> tuple[list[Limit], list[Limit]]:
    """
    Return every limit of memory (bytes) and of CPUs above a process, of both versions of cgroups.
    """
    memory: list[Limit] = []
    cpus: list[Limit] = []
    memberships = parse_membership(read(f"/proc/{pid}/cgroup") or "")
    for mount in parse_mounts(read(f"/proc/{pid}/mountinfo") or read("/proc/self/mountinfo") or ""):
        for controllers, path in memberships:
            if mount.version == 2 and not controllers:
                for folder in folders(mount, path):
                    _add(memory, parse_size(read(f"{folder}/memory.max")), f"{folder}/memory.max")
                    _add(cpus, parse_quota(read(f"{folder}/cpu.max")), f"{folder}/cpu.max")
            elif mount.version == 1 and "memory" in controllers & mount.controllers:
                for folder in folders(mount, path):
                    name = f"{folder}/memory.limit_in_bytes"
                    _add(memory, parse_size(read(name)), name)
            elif mount.version == 1 and "cpu" in controllers & mount.controllers:
                for folder in folders(mount, path):
                    found = quota(read(f"{folder}/cpu.cfs_quota_us"), read(f"{folder}/cpu.cfs_period_us"))
                    _add(cpus, found, f"{folder}/cpu.cfs_quota_us")
    return memory, cpus


def _add(found: list[Limit], value: float | None, source: str) -> None:
    if value is not None:
        found.append(Limit(value, source))


def memory_of(read: Read, pid: str) -> Limit | None:
    """
    Return the least of the machine's memory and of every limit above the process.
    """
    total = parse_meminfo(read("/proc/meminfo") or "")
    found = [] if total is None else [Limit(total, "MemTotal")]
    found += limits(read, pid)[0]
    return min(found, default=None)


def cpus_of(read: Read, pid: str, count: int) -> Limit:
    """
    Return the CPUs: the least of `count` (those that the process may run on) and of every quota, rounded up.
    """
    found = [Limit(count, "CPUs that it may run on")]
    found += [Limit(max(1, math.ceil(value - 1e-9)), source) for value, source in limits(read, pid)[1]]
    return min(found)


def is_process_here(read: Read, pid: int, client_port: int | None) -> bool:
    """
    Say whether a backend's process is on this machine: its title names our own end of the connection.

    A number alone would not do: behind a tunnel, or in a container, it is another process's here.
    """
    title = (read(f"/proc/{pid}/cmdline") or "").replace("\0", " ")
    where = "[local]" if client_port is None else f"({client_port})"
    return title.startswith("postgres: ") and where in title


def read_host(pid: int, data_directory: str | None, read: Read | None = None) -> Host | None:
    """
    Read the machine of the server whose backend is `pid` here. None: its memory cannot be found out.
    """
    read = read or read_text
    memory = memory_of(read, str(pid))
    if memory is None:
        return None
    cpus = cpus_of(read, str(pid), _affinity(pid))
    measured = storage.measure(Path(data_directory)) if data_directory else None
    return Host(
        memory=int(memory.value),
        memory_source=memory.source,
        cpus=int(cpus.value),
        cpus_source=cpus.source,
        storage=None if measured is None else storage.kind_of(measured),
        storage_source="" if measured is None else f"random reads took {measured * 1000:.2g} ms",
        read_latency=measured,
        wal_free=storage.free(Path(data_directory) / "pg_wal") if data_directory else None,
    )


def _affinity(pid: int) -> int:
    if hasattr(os, "sched_getaffinity"):
        try:
            return len(os.sched_getaffinity(pid))
        except OSError:
            return os.cpu_count() or 1
    return os.cpu_count() or 1


def read_text(path: str) -> str | None:
    """
    Return a file's text; None when there is none or it may not be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
