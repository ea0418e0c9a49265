"""What happened, as frozen events, and who is told; knows no logger and no metrics library.

An observer is any callable that takes one event. It is called on the event loop, in order, and must not block.
An observer that raises is reported once to the loop's exception handler and never disturbs the call it observed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar, Protocol


@dataclass(frozen=True, slots=True)
class Event:
    """
    Base of all events. `name` is the name in logs, `level` the severity word of a log line.
    """

    name: ClassVar[str] = ""
    level: ClassVar[str] = "info"

    def fields(self) -> dict[str, object]:
        """
        Return the event's data as a plain dict, for a log line.
        """
        return asdict(self)


class Observer(Protocol):
    """
    Anything that takes an event.
    """

    def __call__(self, event: Event, /) -> None: ...


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
class Retry(Event):
    """
    A unit of work failed and will be tried again after `delay` seconds. `attempt` counts from 1.
    """

    name: ClassVar[str] = "database_retry"
    level: ClassVar[str] = "warning"
    attempt: int
    delay: float
    error_type: str
    error: str


@dataclass(frozen=True, slots=True)
class QueryTimedOut(Event):
    """
    A statement was ended at the limit of its lane. `query` is the statement's first 200 characters, no bind values.
    """

    name: ClassVar[str] = "query_timeout"
    level: ClassVar[str] = "error"
    priority: str
    timeout: float
    elapsed: float
    query: str


@dataclass(frozen=True, slots=True)
class HealthCheckFailed(Event):
    """
    The control connection's probe failed; `failures` in a row. Raised when the state begins.
    """

    name: ClassVar[str] = "database_health_check_failed"
    level: ClassVar[str] = "warning"
    failures: int
    error_type: str


@dataclass(frozen=True, slots=True)
class HealthCheckRecovered(Event):
    """
    The probe succeeds again after `failures` failures and `seconds` without the database.
    """

    name: ClassVar[str] = "database_health_check_recovered"
    failures: int
    seconds: float


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
class ConnectFailed(Event):
    """
    The pool could not open a connection. `reason` is a word of `ConnectError`.
    """

    name: ClassVar[str] = "database_connect_failed"
    level: ClassVar[str] = "warning"
    reason: str
    error_type: str
    failures: int
