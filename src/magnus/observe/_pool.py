"""Events of the pool: its size and use, and leases that are held for too long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from magnus.observe._event import Event


@dataclass(frozen=True, slots=True)
class PoolWarmed(Event):
    """
    Warm-up is over: `connections` are open and proven idle, of `pool_size` in the pool.
    """

    name: ClassVar[str] = "database_pool_warmed"
    connections: int
    pool_size: int


@dataclass(frozen=True, slots=True)
class WarmupFailed(Event):
    """
    Warm-up could not open what was asked; the service starts all the same and readiness says so.
    """

    name: ClassVar[str] = "database_warmup_failed"
    level: ClassVar[str] = "error"
    connections: int
    wanted: int
    error_type: str
    error: str


@dataclass(frozen=True, slots=True)
class PoolHighUtilization(Event):
    """
    More than 90 % of the slots are in use. Raised when the state begins.
    """

    name: ClassVar[str] = "pool_high_utilization"
    level: ClassVar[str] = "warning"
    utilization: float
    used: int
    total: int
    free: int


@dataclass(frozen=True, slots=True)
class PoolUtilizationNormal(Event):
    """
    Utilisation is back at or below 90 %.
    """

    name: ClassVar[str] = "pool_utilization_normal"
    utilization: float
    used: int
    total: int
    free: int


@dataclass(frozen=True, slots=True)
class PoolPaused(Event):
    """
    The pool hands out nothing until it is resumed; `acquired` connections are still out.
    """

    name: ClassVar[str] = "pool_paused"
    level: ClassVar[str] = "warning"
    acquired: int


@dataclass(frozen=True, slots=True)
class PoolResumed(Event):
    """
    The pool hands out connections again; `waiting` callers had queued.
    """

    name: ClassVar[str] = "pool_resumed"
    waiting: int


@dataclass(frozen=True, slots=True)
class PoolResized(Event):
    """
    The pool has other sizes from now on.
    """

    name: ClassVar[str] = "pool_resized"
    min: int
    max: int


@dataclass(frozen=True, slots=True)
class PoolMended(Event):
    """
    The pool's periodic check found its books wrong and put them right. Please report it: it is a bug.
    """

    name: ClassVar[str] = "pool_mended"
    level: ClassVar[str] = "error"
    found: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LeakSuspected(Event):
    """
    A lease has been silent for longer than `leak_threshold`: no statement ran on it and nobody gave it back.

    Raised once a lease. `held` and `silent` are seconds, `query` its last statement without literals (empty when there
    was none), `acquired_at` where it was acquired and `stack` where its task is now, innermost first; both are empty
    when nothing is known, `stack` also when the task is over.
    """

    name: ClassVar[str] = "connection_leak_suspected"
    level: ClassVar[str] = "warning"
    task: str
    lane: str
    held: float
    silent: float
    query: str
    acquired_at: tuple[str, ...]
    stack: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LeakReclaimed(Event):
    """
    A lease was silent for longer than `leak_limit`: its connection was terminated and its slot is free again.
    """

    name: ClassVar[str] = "connection_leak_reclaimed"
    level: ClassVar[str] = "error"
    task: str
    lane: str
    held: float
    silent: float
    query: str
    acquired_at: tuple[str, ...]
    stack: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LeakReturned(Event):
    """
    A lease that was suspected came back by itself after `held` seconds; `was_reclaimed`: too late.
    """

    name: ClassVar[str] = "connection_leak_returned"
    task: str
    lane: str
    held: float
    was_reclaimed: bool


@dataclass(frozen=True, slots=True)
class NestedAcquireRisk(Event):
    """
    A task that holds a connection has to wait for another one of the same pool. Raised once for each place.

    It will be served when another caller gives one back; enough tasks that do the same lock each other out.
    """

    name: ClassVar[str] = "nested_acquire_risk"
    level: ClassVar[str] = "warning"
    task: str
    lane: str
    held_at: tuple[str, ...]
    asked_at: tuple[str, ...]
