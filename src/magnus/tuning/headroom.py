"""The memory that there is for a server and for a trial of it, and whether the sessions' could exceed it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from magnus.tuning import host
from magnus.tuning.units import MB, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Memory:
    """
    What the numeric proof compares with. Bytes; None: not known.

    Attributes:
        limit: The machine's memory or the least limit above the server.
        available: What is free for a trial.
        shared_now: The running server's shared memory.
    """

    limit: int | None
    available: int | None
    shared_now: int | None

    @classmethod
    def here(cls, pid: int | None, shared_now: int | None) -> Memory:
        """
        Look at this machine, within the limits of the server's own process.
        """
        found = host.memory_of(host.read_text, str(pid or "self"))
        text = host.read_text("/proc/meminfo") or ""
        room = [amount for amount in (_meminfo(text, "MemAvailable"), _commit_room(text)) if amount is not None]
        return cls(None if found is None else int(found.value), min(room, default=None), shared_now)


def shortage(settings: Mapping[str, float | None], shared_memory: int, limit: int) -> str | None:
    """
    Say why sessions could need more than there is, None when they cannot; bytes and counts in `settings`.

    The part for the system and the 8 MB a session are the optimizer's own budget (see the docs on formulas).
    """
    sessions, each = settings.get("max_connections") or 0.0, settings.get("work_mem") or 0.0
    vacuum = settings.get("autovacuum_work_mem") or -1
    vacuum = (settings.get("maintenance_work_mem") or 0.0) if vacuum < 0 else vacuum
    rest = min(max(limit * 0.1, 512 * MB), 8192 * MB)
    room = limit - shared_memory - rest - (settings.get("autovacuum_max_workers") or 0) * vacuum - sessions * 8 * MB
    if sessions * each <= max(room, 0.0):
        return None
    return (
        f"{math.floor(sessions)} sessions x {shown(each)} = {shown(sessions * each)} is more than the "
        f"{shown(max(room, 0.0))} that {shown(limit)} leave for them"
    )


def worst(names: Sequence[str]) -> str:
    """
    Return which of the changed settings to name for a shortage of memory.
    """
    order = ("work_mem", "max_connections", "maintenance_work_mem", "autovacuum_work_mem", "autovacuum_max_workers")
    return next((name for name in order if name in names), "")


def _meminfo(text: str, name: str) -> int | None:
    match = re.search(rf"^{name}:\s*([0-9]+)\s*kB", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def _commit_room(text: str) -> int | None:
    """
    Where the kernel does not overcommit, mapped memory counts whether it is touched or not.
    """
    if (host.read_text("/proc/sys/vm/overcommit_memory") or "").strip() != "2":
        return None
    limit, used = _meminfo(text, "CommitLimit"), _meminfo(text, "Committed_AS")
    return None if limit is None or used is None else max(0, limit - used)
