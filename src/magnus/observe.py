"""What happened, as frozen events, and who is told; knows no logger and no metrics library.

An observer is any callable that takes one event. It is called on the event loop, in order, and must not block.
An observer that raises is reported once to the loop's exception handler and never disturbs the call it observed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from magnus.lanes import QueryPriority


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


@dataclass(frozen=True, slots=True)
class Ended:
    """
    One statement that has ended, each attempt for itself: what a watcher is told. No event: there are too many.

    Attributes:
        text: As it was written, with its constants: normalise it before anybody sees it.
        seconds: On the server and the way there; 0 when it was not sent.
        lane: In which it ran.
        wait: Seconds from asking for the connection to having it; not `is_sent`: to giving up.
        attempts: Of the unit of work, this one included.
        error: What ended it, or None.
        is_sent: The server was asked.
        unit: The same for all attempts at a unit that was, or may be, repeated; None for what is not.
    """

    text: str
    seconds: float
    lane: QueryPriority
    wait: float
    attempts: int
    error: BaseException | None
    is_sent: bool = True
    unit: object | None = None


class Watcher(Protocol):
    """
    Is told of every statement and of every lease; called on the event loop, and must not block.
    """

    def ended(self, statement: Ended, /) -> None:
        """
        Take note of a statement, in the task and the context that it ran in.
        """

    def took(self, what: str, lane: QueryPriority | None, seconds: list[float], /) -> None:
        """
        Take note of durations: of a "wait" for a connection, of its "use", or of the "create" of one (`lane` is None).

        Many come at once, up to minutes late and in anybody's context; `Database.distributions` brings all that there
        are.
        """


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
class RetryBudgetSpent(Event):
    """
    Units that might have been tried again were not, because too much is being repeated: `refused` since the last such
    event, which comes once a minute at most.
    """

    name: ClassVar[str] = "retry_budget_spent"
    level: ClassVar[str] = "warning"
    refused: int


@dataclass(frozen=True, slots=True)
class OutcomeNotKnown(Event):
    """
    The caller was told an error, and what it asked for may have been carried out: its connection was lost after it was
    sent. `what` is "commit", "unit" (a function in a transaction) or "statement" (one that writes, by itself).
    """

    name: ClassVar[str] = "database_outcome_unknown"
    level: ClassVar[str] = "error"
    what: str
    error_type: str
    xid: str | None = None


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
class QueryTimedOut(Event):
    """
    A statement was ended at the limit of its lane. `query` is the statement's first 200 characters, without
    constants and bind values.
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


@dataclass(frozen=True, slots=True)
class PoolMended(Event):
    """
    The pool's periodic check found its books wrong and put them right. Please report it: it is a bug.
    """

    name: ClassVar[str] = "pool_mended"
    level: ClassVar[str] = "error"
    found: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StandbyEvicted(Event):
    """
    A write was refused because its server is a standby: all connections are being replaced.
    """

    name: ClassVar[str] = "database_standby_evicted"
    level: ClassVar[str] = "warning"
    connections: int


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


@dataclass(frozen=True, slots=True)
class SlowQuery(Event):
    """
    A statement took longer than the threshold. Raised in place of a row, where the log writes no table.

    `query` has no literals, `fingerprint` is the same for all statements like it, `outcome` is "ok", "failed",
    "timed_out" or "cancelled". Times are milliseconds; `skipped` others like it were left out since the last one.
    """

    name: ClassVar[str] = "slow_query"
    level: ClassVar[str] = "warning"
    query: str
    fingerprint: str
    duration_ms: float
    threshold_ms: float
    wait_ms: float
    priority: str
    rows: int | None
    outcome: str
    sqlstate: str | None
    caller: str | None
    route: str | None
    skipped: int


@dataclass(frozen=True, slots=True)
class SlowLogEventsOnly(Event):
    """
    The slow-query log cannot use its table, and raises `slow_query` for each statement instead. Raised when it begins.

    `reason` is "no_table" (and it may not be created), "no_permission" or "read_only"; `advice` says what to do.
    """

    name: ClassVar[str] = "slow_log_events_only"
    level: ClassVar[str] = "warning"
    reason: str
    advice: str


@dataclass(frozen=True, slots=True)
class SlowLogLeftOut(Event):
    """
    Statements are missing in the slow-query log: `capped` because more came than its rate allows, `dropped` because
    they could not be written in time. Both since the last such event; raised once a minute at most.
    """

    name: ClassVar[str] = "slow_log_left_out"
    level: ClassVar[str] = "warning"
    capped: int
    dropped: int


@dataclass(frozen=True, slots=True)
class SlowLogRecovered(Event):
    """
    The slow-query log writes its table again, after `seconds` without.
    """

    name: ClassVar[str] = "slow_log_recovered"
    seconds: float
