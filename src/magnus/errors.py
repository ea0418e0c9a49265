"""The exception tree; it knows no other module.

A query that the server refuses raises the driver's own exception, unwrapped: `except asyncpg.UniqueViolationError`
goes on working. The classes here are for what the layer itself decides: bad settings, no slot, no time, no answer.
Data is on the attributes; the text of an exception never holds a password, a DSN or a bind value.
"""

from __future__ import annotations


class MagnusError(Exception):
    """
    Base of everything that this library raises on its own account.
    """


class ConfigError(MagnusError, ValueError):
    """
    A setting has an impossible value.

    Attributes:
        field: Name of the setting or environment variable.
        value: The refused value, already redacted when the field may hold a secret.
    """

    def __init__(self, field: str, value: object, reason: str) -> None:
        super().__init__(f"{field}: {reason} (got {value!r})")
        self.field = field
        self.value = value
        self.reason = reason


class DatabaseError(MagnusError):
    """
    The server, or the way to it, failed in a phase that the driver's exception cannot name.

    Attributes:
        sqlstate: The server's five-character code, or None when no answer arrived.
        phase: What was under way: "connect", "query", "commit", "release".
    """

    def __init__(self, message: str, *, sqlstate: str | None = None, phase: str = "query") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.phase = phase


class ConnectError(DatabaseError):
    """
    No connection could be opened. `reason` is a fixed word: "unreachable", "credentials", "database", "too_many",
    "starting", "read_only", "tls", "timeout", "pooler" or "other".
    """

    def __init__(self, message: str, *, reason: str = "other", sqlstate: str | None = None) -> None:
        super().__init__(message, sqlstate=sqlstate, phase="connect")
        self.reason = reason


class NeedsSession(DatabaseError):
    """
    A statement needs a session of its own, and behind a pooler in transaction mode there is none; nothing was sent.

    Attributes:
        feature: What needs one: "LISTEN", "SET", "an advisory lock of the session" ….
    """

    def __init__(self, feature: str, instead: str) -> None:
        super().__init__(
            f"{feature} needs a session of its own, and behind a pooler in transaction mode the next statement may run "
            f"in another one: {instead}",
            sqlstate="0A000",
        )
        self.feature = feature


class CommitRolledBack(DatabaseError):
    """
    COMMIT was answered with ROLLBACK: an error inside the block was swallowed and nothing was stored.
    """

    def __init__(self) -> None:
        super().__init__(
            "COMMIT was answered with ROLLBACK: a statement of this transaction had failed and its error was "
            "swallowed; nothing was stored",
            sqlstate="25P02",
            phase="commit",
        )


class QueryTimeout(DatabaseError, TimeoutError):
    """
    A statement did not end within the limit of its lane.

    Attributes:
        priority: The lane's name.
        timeout: The limit, seconds.
        elapsed: Seconds from the call to the error.
    """

    def __init__(self, *, priority: str, timeout: float, elapsed: float) -> None:
        super().__init__(f"query exceeded its {timeout:g} s limit in lane {priority} (ended after {elapsed:.3f} s)")
        self.priority = priority
        self.timeout = timeout
        self.elapsed = elapsed


class OutcomeUnknown(DatabaseError):
    """
    COMMIT was sent and no reply came: the transaction is stored, or it is not. Ask the key, do not repeat blindly.

    Also raised when somebody called off the wait for a synchronous standby, for COMMIT and for a statement outside any
    transaction: what its server has stored may be gone with that server.

    Attributes:
        key: The idempotency key of the unit of work, when it had one.
        xid: The transaction's id, when it was asked for.
    """

    def __init__(self, *, key: str | None = None, xid: str | None = None) -> None:
        super().__init__("COMMIT was sent but not acknowledged: the outcome is unknown", phase="commit")
        self.key = key
        self.xid = xid


class KeyReused(MagnusError):
    """
    The key of a unit of work that happens once belongs to another request; nothing was done. Use a new key.

    Attributes:
        key: The key.
    """

    def __init__(self, key: str) -> None:
        super().__init__("the key belongs to another request of the same scope and operation")
        self.key = key


class InProgress(MagnusError):
    """
    The same unit of work is being carried out elsewhere and was not over in time; nothing was done here.

    Attributes:
        key: The key.
        retry_after: Seconds after which a repeat is likely to find the answer.
    """

    def __init__(self, key: str, *, retry_after: float) -> None:
        super().__init__(f"the unit of work with this key is in progress; repeat it after {retry_after:g} s")
        self.key = key
        self.retry_after = retry_after


class AlreadyExecuted(MagnusError):
    """
    The unit of work was carried out so long ago that its answer is not kept any more; nothing was done.

    Attributes:
        key: The key.
        reference: What it made, such as the id of a trade; None when it named nothing.
    """

    def __init__(self, key: str, reference: str | None) -> None:
        super().__init__("the unit of work with this key was carried out before, and its answer has expired")
        self.key = key
        self.reference = reference


class Refused(MagnusError):
    """
    Raised by a unit of work that happens once: its effects are taken back, and the refusal is its final answer.

    Attributes:
        value: The refusal, in a form that JSON can hold; a repeat gets it again.
        is_replayed: It was given before.
    """

    def __init__(self, value: object, *, is_replayed: bool = False) -> None:
        super().__init__("the unit of work was refused")
        self.value = value
        self.is_replayed = is_replayed


class PoolError(MagnusError):
    """
    The pool could not serve a caller.
    """


class PoolTimeout(PoolError, TimeoutError):
    """
    No connection became available in time.

    Attributes:
        phase: "wait" (all slots in use) or "connect" (no server reachable).
        waited: Seconds waited.
    """

    def __init__(self, message: str, *, phase: str, waited: float) -> None:
        super().__init__(message)
        self.phase = phase
        self.waited = waited


class Overloaded(PoolError):
    """
    The lane's queue is full and the call was refused at once, or it stands and the call was shed; nothing was sent.

    Attributes:
        lane: The lane's name.
        waiting: How many callers wait in it.
        retry_after: Seconds after which a repeat is likely to be served.
    """

    def __init__(self, *, lane: str, waiting: int, retry_after: float) -> None:
        super().__init__(f"lane {lane} is overloaded: {waiting} waiting; retry after {retry_after:g} s")
        self.lane = lane
        self.waiting = waiting
        self.retry_after = retry_after


class NestedAcquire(PoolError, TimeoutError):
    """
    A task that holds a connection asked the same pool for another one, and none can come free before somebody fails.

    Every slot that could serve it is held by tasks that wait for this pool themselves. It is raised at once, in the
    task that came last; the text shows where it acquired what it holds and where it asked for more.

    Attributes:
        lane: The lane it asked in.
        held_at: Where it acquired the connection that it holds, innermost first.
        asked_at: Where it asked for another one, innermost first.
    """

    def __init__(self, *, lane: str, held_at: tuple[str, ...], asked_at: tuple[str, ...]) -> None:
        super().__init__(
            f"this task holds a connection and asks for another in lane {lane}, but every slot that could serve it is "
            f"held by tasks that wait for this pool: use the connection it has, or release it first\n"
            f"holds one since: {' < '.join(held_at)}\nasks for one at: {' < '.join(asked_at)}"
        )
        self.lane = lane
        self.held_at = held_at
        self.asked_at = asked_at


class WrongProcess(PoolError, RuntimeError):
    """
    The pool was opened before a fork, in the parent. Its connections are the parent's; open a pool of your own.
    """

    def __init__(self) -> None:
        super().__init__("this pool was opened in another process, before a fork: open one in this process")


class WrongLoop(PoolError, RuntimeError):
    """
    The pool was opened on another event loop. Its connections work only there; open a pool on this loop.
    """

    def __init__(self) -> None:
        super().__init__("this pool was opened on another event loop: open one on the loop that uses it")


class TuningError(MagnusError):
    """
    The optimizer refused or could not finish a change.
    """


class PlanStale(TuningError):
    """
    The server is not as it was when the plan was made; nothing was changed.

    Attributes:
        digest: The plan's.
        differences: What differs, one sentence each.
    """

    def __init__(self, digest: str, differences: tuple[str, ...]) -> None:
        super().__init__(f"the plan is stale: {'; '.join(differences)}")
        self.digest = digest
        self.differences = differences


class ApplyRefused(TuningError):
    """
    A plan may not be applied to this server; nothing was changed.

    Attributes:
        reasons: Each with what to do instead.
    """

    def __init__(self, reasons: tuple[str, ...]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


class PreflightFailed(TuningError):
    """
    PostgreSQL would not start, or could not live, with the resulting settings; nothing was changed.

    Attributes:
        setting: The one to blame, "" when that is not known.
        reason: Why, in the server's own words where it has some.
    """

    def __init__(self, setting: str, reason: str) -> None:
        super().__init__(f"{setting}: {reason}" if setting else reason)
        self.setting = setting
        self.reason = reason


class ApplyFailed(TuningError):
    """
    A change could not be made. What was made before it stands in the journal.

    Attributes:
        change: The id of the change that failed, "" when it was not one change.
        applied: Ids of the changes of this run that are made and not taken back.
        is_settled: The journal knows already how the run ended.
    """

    def __init__(
        self, message: str, *, change: str = "", applied: tuple[str, ...] = (), is_settled: bool = False
    ) -> None:
        super().__init__(message)
        self.change = change
        self.applied = applied
        self.is_settled = is_settled


class NotReversible(TuningError):
    """
    A change is not taken back, because it is not ours any more or something else hangs on it.

    Attributes:
        change: Its id.
    """

    def __init__(self, change: str, reason: str) -> None:
        super().__init__(f"{change} is not taken back: {reason}")
        self.change = change
