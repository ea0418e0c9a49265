"""How statements and units of work ended: for watchers every one, as events what went wrong with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from magnus.observe._event import Event

if TYPE_CHECKING:
    from magnus.lanes import QueryPriority


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
