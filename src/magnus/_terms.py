"""What holds for every statement of one database: limits by lane, where to count, whom to tell; it runs nothing."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from magnus._clock import MonotonicClock
from magnus.observe import Ended, OutcomeNotKnown
from magnus.session import LaneLimit, lane_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence

    from magnus._clock import Clock
    from magnus._execution import Execution
    from magnus._figures import QueryStats
    from magnus._trace import Knowledge
    from magnus.config import DatabaseConfig
    from magnus.lanes import QueryPriority
    from magnus.observe import Event
    from magnus.session import TransactionMode
    from magnus.transaction import Transaction


class Committed(Protocol):
    """
    Told when a transaction ends that changed what some tags stand for.
    """

    def __call__(self, tags: Collection[str], *, is_certain: bool) -> None: ...


_GRACE: Final = 0.2  # a cancel takes a few milliseconds on a server that answers


@dataclass(frozen=True, slots=True)
class Terms:
    """
    What holds for every statement of one database.

    Attributes:
        limits: By lane.
        reading: The same, for statements that run READ ONLY.
        startup_limit: The session's own statement_timeout, seconds.
        transaction_limits: Of a whole transaction, by the lane it runs in.
        stats: Where statements are counted.
        notify: Who is told of events.
        clock: Whose seconds all deadlines are in.
        make_transaction: Makes one on a lease that is out; here because transactions are built on top of connections.
        knowledge: What statements do to sessions; None where every session is reset whatever it did.
        now: The clock's.
        committed: Is told which tags of cached answers a transaction has changed, when it ends; whether that is
            certain.
        slow: Is told of statements that were slow (`SlowLog.saw`); None where nobody listens.
        watched: Is told of every statement while `stats.is_watched`; it never raises.
        background: What goes on after its caller was answered.
    """

    limits: Mapping[QueryPriority, LaneLimit]
    reading: Mapping[QueryPriority, LaneLimit]
    startup_limit: float
    transaction_limits: Mapping[QueryPriority, LaneLimit]
    stats: QueryStats
    notify: Callable[[Event], None]
    clock: Clock
    make_transaction: Callable[[Execution, TransactionMode, float | None], Transaction]
    knowledge: Knowledge | None
    now: Callable[[], float]
    committed: Committed
    slow: Callable[..., None] | None = None
    watched: Callable[[Ended], None] = lambda _: None
    background: set[asyncio.Task[None]] = field(default_factory=set)

    @classmethod
    def of(cls, config: DatabaseConfig, *, clock: Clock, knowledge: Knowledge | None = None, **others: Any) -> Terms:
        """
        Return the terms that a configuration gives.
        """
        limits = lane_limits(config)
        transactions = {
            lane: LaneLimit(longest, longest)
            for lane, limit in limits.items()
            for longest in [max(config.transaction_timeout, limit.client)]
        }
        now = time.monotonic if isinstance(clock, MonotonicClock) else clock.now
        reading = {lane: limit.reading for lane, limit in limits.items()}
        return cls(
            limits, reading, config.statement_timeout, transactions, clock=clock, knowledge=knowledge, now=now, **others
        )

    def tell(  # noqa: PLR0917  # as `SlowLog.saw`
        self,
        text: str,
        seconds: float,
        method: str,
        result: object,
        lane: QueryPriority,
        wait: float,
        attempts: int,
        args: Sequence[Any],
        error: BaseException | None,
    ) -> None:
        """
        Tell of a statement that was sent and has ended, when `stats.ran` said that somebody wants to know.
        """
        stats = self.stats
        if self.slow is not None and seconds > stats.slow_after:
            self.slow(text, seconds, method, result, lane, wait, attempts, args, error)
        if stats.is_watched:
            self.watched(Ended(text, seconds, lane, wait, attempts, error))

    def never_ran(self, text: str, lane: QueryPriority, started: float, attempts: int) -> None:
        """
        Count a statement that could not be sent; the exception that ended it is being handled.
        """
        self.stats.never_ran()
        if self.stats.is_watched:
            waited = max(0.0, self.now() - started)
            self.watched(Ended(text, 0.0, lane, waited, attempts, sys.exception(), is_sent=False))

    def outcome_unknown(self, what: str, error: Exception, xid: str | None = None) -> None:
        """
        Count and tell that a caller is told an error of something that may have been carried out.
        """
        self.stats.unknown += 1
        self.notify(OutcomeNotKnown(what, type(error).__name__, xid))

    async def begin_to(self, work: Coroutine[Any, Any, None]) -> None:
        """
        Start work that must be finished, wait a moment for it, and leave the rest of it to the background.
        """
        task = asyncio.get_running_loop().create_task(work)
        self.background.add(task)
        task.add_done_callback(self.background.discard)
        await asyncio.wait({task}, timeout=_GRACE)
