"""Events of the servers and of who else uses them: reachable or not, primary, standbys, pooler, the fleet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from magnus.observe._event import Event


@dataclass(frozen=True, slots=True)
class HealthCheckFailed(Event):
    """
    The control connection's probe failed; `failures` in a row. Raised when the state begins.

    `reason` is a word of `ConnectError`: whether the server is away, full or read only, or the credentials are wrong.
    """

    name: ClassVar[str] = "database_health_check_failed"
    level: ClassVar[str] = "warning"
    failures: int
    error_type: str
    reason: str = "unreachable"


@dataclass(frozen=True, slots=True)
class HealthCheckRecovered(Event):
    """
    The probe succeeds again after `failures` failures and `seconds` without the database.
    """

    name: ClassVar[str] = "database_health_check_recovered"
    failures: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ConnectFailed(Event):
    """
    The pool cannot open connections: raised when that begins, then once a minute while it lasts.

    `reason` is a word of `ConnectError`, `failures` the attempts that have failed since it began.
    """

    name: ClassVar[str] = "database_connect_failed"
    level: ClassVar[str] = "warning"
    reason: str
    error_type: str
    failures: int


@dataclass(frozen=True, slots=True)
class ConnectRecovered(Event):
    """
    The pool opens connections again, after `failures` failed attempts in `seconds`.
    """

    name: ClassVar[str] = "database_connect_recovered"
    failures: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ServerFault(Event):
    """
    The server reported what somebody must look at: no space left (53100), or damaged data (XX001, XX002).
    """

    name: ClassVar[str] = "database_server_fault"
    level: ClassVar[str] = "error"
    sqlstate: str
    error_type: str


@dataclass(frozen=True, slots=True)
class StandbyEvicted(Event):
    """
    A write was refused because its server is a standby: all connections are being replaced.
    """

    name: ClassVar[str] = "database_standby_evicted"
    level: ClassVar[str] = "warning"
    connections: int


@dataclass(frozen=True, slots=True)
class PoolerMisjudged(Event):
    """
    The setting `pooler` does not fit what stands between; found when the database answered after the start. `error`
    says the fix.
    """

    name: ClassVar[str] = "database_pooler_misjudged"
    level: ClassVar[str] = "error"
    error: str


@dataclass(frozen=True, slots=True)
class GuardsMissing(Event):
    """
    Behind the pooler sessions begin without a limit for statements or for idle transactions, and no client of a pooler
    can give them one. `advice` is the SQL that does.
    """

    name: ClassVar[str] = "database_guards_missing"
    level: ClassVar[str] = "warning"
    advice: str


@dataclass(frozen=True, slots=True)
class ReplicaReady(Event):
    """
    A standby answers, and is given reads that it may answer.
    """

    name: ClassVar[str] = "database_replica_ready"
    target: str


@dataclass(frozen=True, slots=True)
class ReplicaLost(Event):
    """
    A standby does not answer, or is none any more ("promoted"); its reads go elsewhere.
    """

    name: ClassVar[str] = "database_replica_lost"
    level: ClassVar[str] = "warning"
    target: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReadTokenIgnored(Event):
    """
    A client came with a read token that is none, and reads without it; told once a minute at most. `count` is how many
    were ignored since the start.
    """

    name: ClassVar[str] = "database_read_token_ignored"
    level: ClassVar[str] = "warning"
    count: int


@dataclass(frozen=True, slots=True)
class FleetOverBudget(Event):
    """
    All `instances` on this server together may open `connections`, and there is only the `budget` for them: `limit`
    ("max_connections", "role" or "database") allows `most`, of which `reserved` are kept for operators and `others`
    are in use by other clients. Raised when it begins.
    """

    name: ClassVar[str] = "database_fleet_over_budget"
    level: ClassVar[str] = "warning"
    instances: int
    connections: int
    budget: int
    limit: str
    most: int
    reserved: int
    others: int
    advice: str


@dataclass(frozen=True, slots=True)
class FleetWithinBudget(Event):
    """
    The instances' `connections` fit into the `budget` again.
    """

    name: ClassVar[str] = "database_fleet_within_budget"
    instances: int
    connections: int
    budget: int


@dataclass(frozen=True, slots=True)
class FleetUnseen(Event):
    """
    The other instances cannot be seen, so the pool keeps the size that it has, `pool_size`. Raised by instances that
    share, when it begins.
    """

    name: ClassVar[str] = "database_fleet_unseen"
    level: ClassVar[str] = "warning"
    reason: str
    pool_size: int
