"""Statement statistics as frozen snapshots, and what happened between two of them. Pure.

The server's counters only grow, until somebody resets them, an entry is evicted to make room and comes back from
zero, or a crash loses the file. A difference that takes none of this into account is wrong, sometimes negative; here
each entry is judged by itself, and nothing is ever reset to make the arithmetic easier.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime


class Key(NamedTuple):
    """
    What the server keeps counters for.
    """

    userid: int
    dbid: int
    queryid: int
    toplevel: bool


@dataclass(frozen=True, slots=True)
class Counters:
    """
    What one entry counted: times in seconds, blocks of `block_size` bytes, WAL in bytes.

    `squares` is the sum of squared times, of which a variance over any interval can be made.
    """

    calls: int = 0
    rows: int = 0
    seconds: float = 0.0
    squares: float = 0.0
    plans: int = 0
    plan_seconds: float = 0.0
    blocks_hit: int = 0
    blocks_read: int = 0
    blocks_dirtied: int = 0
    blocks_written: int = 0
    temp_read: int = 0
    temp_written: int = 0
    io_seconds: float = 0.0
    wal_records: int = 0
    wal_bytes: int = 0
    wal_fpi: int = 0
    jit_seconds: float = 0.0

    def since(self, before: Counters) -> Counters:
        """
        Return what was counted since `before`, which must be an earlier state of the same entry.
        """
        return Counters(**{name: getattr(self, name) - getattr(before, name) for name in _NAMES})

    def follows(self, before: Counters) -> bool:
        """
        Say whether these can be `before`, and something more. What is computed, `squares`, only nearly grows.
        """
        return all(getattr(self, name) >= getattr(before, name) for name in _NAMES if name != "squares")

    @property
    def mean(self) -> float:
        return self.seconds / self.calls if self.calls else 0.0

    @property
    def deviation(self) -> float:
        """
        The standard deviation of the times, seconds.
        """
        if not self.calls:
            return 0.0
        return math.sqrt(max(self.squares / self.calls - self.mean**2, 0.0))


_NAMES: Final = tuple(item.name for item in fields(Counters))


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One statement in a snapshot. `since` is when the server began to count it, where it says so (from 1.11 on); `least`
    and `most` are its shortest and longest time in seconds, which have no meaning between two snapshots.
    """

    counters: Counters
    since: datetime | None = None
    least: float = 0.0
    most: float = 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    All entries at one moment of the server's.

    Attributes:
        taken_at: By the server's clock.
        started_at: When the server was started.
        reset_at: When all counters were last reset, where it says so (from 1.9 on).
        deallocated: How often entries were evicted to make room, where it says so.
        version: Of the extension.
        entries: By key.
    """

    taken_at: datetime
    started_at: datetime
    reset_at: datetime | None
    deallocated: int | None
    version: str
    entries: Mapping[Key, Entry] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Delta:
    """
    What happened between two snapshots, or since counting began.

    Attributes:
        seconds: How long that was; None since counting began.
        counted: By key; entries in which nothing happened are left out.
        lost: Entries that were evicted in between: what they counted last is unknown, and missing.
        restarted: Entries that began from zero in between: what they had counted before that is missing too.
        notes: What a reader should know, in sentences.
    """

    seconds: float | None
    counted: Mapping[Key, Counters]
    lost: int = 0
    restarted: int = 0
    notes: tuple[str, ...] = ()


def total(snapshot: Snapshot) -> Delta:
    """
    Return everything that a snapshot has counted.
    """
    counted = {key: entry.counters for key, entry in snapshot.entries.items() if entry.counters.calls}
    return Delta(None, counted, notes=_evictions(snapshot.deallocated))


def delta(before: Snapshot, after: Snapshot) -> Delta:
    """
    Return what happened between two snapshots of one server.
    """
    is_reset = after.reset_at is not None and before.reset_at is not None and after.reset_at > before.reset_at
    counted: dict[Key, Counters] = {}
    restarted = 0
    for key, now in after.entries.items():
        then = before.entries.get(key)
        if then is None:
            found = now.counters
        elif is_reset or _began_again(then, now):
            found, restarted = now.counters, restarted + 1
        else:
            found = now.counters.since(then.counters)
        if found.calls or found.plans:
            counted[key] = found
    lost = sum(key not in after.entries for key in before.entries)
    notes = [
        *(["statistics were reset in between: what was counted before that is missing"] if is_reset else []),
        *(["the server was restarted in between"] if after.started_at > before.started_at else []),
        *_evictions((after.deallocated or 0) - (before.deallocated or 0) if not is_reset else None),
    ]
    seconds = (after.taken_at - before.taken_at).total_seconds()
    return Delta(seconds, counted, lost, restarted, tuple(notes))


def _began_again(then: Entry, now: Entry) -> bool:
    if then.since is not None and now.since is not None:
        return now.since > then.since
    return not now.counters.follows(then.counters)


def _evictions(times: int | None) -> tuple[str, ...]:
    if not times or times < 0:
        return ()
    return (f"entries were evicted {times} times to make room: raise pg_stat_statements.max",)


# --- the order of a list ---------------------------------------------------------------------------------------------

ORDERS: Final[Mapping[str, Callable[[Counters], float]]] = MappingProxyType({
    "total": lambda found: found.seconds,
    "mean": lambda found: found.mean,
    "calls": lambda found: found.calls,
    "io": lambda found: found.blocks_read + found.blocks_written + found.temp_read + found.temp_written,
    "wal": lambda found: found.wal_bytes,
    "temp": lambda found: found.temp_read + found.temp_written,
    "variance": lambda found: found.deviation,
})
"""What statements can be sorted by, the largest first."""


@dataclass(frozen=True, slots=True)
class Statement:
    """
    One line of a list. `share` is of all time in the interval, `query` without constants.
    """

    queryid: int
    database: str
    role: str
    query: str
    share: float
    counters: Counters
    is_toplevel: bool = True

    def as_dict(self) -> dict[str, Any]:
        """
        Return it ready for JSON: times in milliseconds, and `queryid` as a text, which JavaScript would round.
        """
        counters = self.counters
        rest = asdict(counters)
        for name in ("seconds", "squares", "plan_seconds", "io_seconds", "jit_seconds"):
            del rest[name]
        return {
            "queryid": str(self.queryid),
            "database": self.database,
            "role": self.role,
            "query": self.query,
            "share": round(self.share, 4),
            "total_ms": round(counters.seconds * 1000, 3),
            "mean_ms": round(counters.mean * 1000, 3),
            "stddev_ms": round(counters.deviation * 1000, 3),
            "plan_ms": round(counters.plan_seconds * 1000, 3),
            "io_ms": round(counters.io_seconds * 1000, 3),
            "jit_ms": round(counters.jit_seconds * 1000, 3),
            "is_toplevel": self.is_toplevel,
            **rest,
        }


def ranked(counted: Mapping[Key, Counters], order: str) -> list[tuple[Key, Counters]]:
    """
    Return entries in an order of `ORDERS`; equal ones by their keys, so that a list is stable.
    """
    measure = ORDERS[order]
    return sorted(counted.items(), key=lambda item: (-measure(item[1]), item[0]))


def seconds_of(found: Delta) -> float:
    """
    Return the time of all statements in an interval.
    """
    return sum(counters.seconds for counters in found.counted.values())


def calls_of(found: Delta) -> int:
    """
    Return how many statements ran in an interval.
    """
    return sum(counters.calls for counters in found.counted.values())
