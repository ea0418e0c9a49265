"""What holds for every statement of one database: limits by lane, where to count, whom to tell; it runs nothing."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from magnus._clock import MonotonicClock
from magnus.session import LaneLimit, lane_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from magnus._clock import Clock
    from magnus._execution import Execution
    from magnus._figures import QueryStats
    from magnus._trace import Knowledge
    from magnus.config import DatabaseConfig
    from magnus.lanes import QueryPriority
    from magnus.observe import Event
    from magnus.session import TransactionMode
    from magnus.transaction import Transaction

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
        slow: Is told of statements that were slow, while the exception that ends one is being handled (`SlowLog.saw`);
            None where nobody listens.
        idle_limit: Seconds that a transaction may be idle; only sent where sessions cannot begin with it.
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
    slow: Callable[..., None] | None = None
    idle_limit: float = 60.0
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
            limits,
            reading,
            config.statement_timeout,
            transactions,
            clock=clock,
            knowledge=knowledge,
            now=now,
            idle_limit=config.idle_in_transaction_session_timeout,
            **others,
        )

    async def begin_to(self, work: Coroutine[Any, Any, None]) -> None:
        """
        Start work that must be finished, wait a moment for it, and leave the rest of it to the background.
        """
        task = asyncio.get_running_loop().create_task(work)
        self.background.add(task)
        task.add_done_callback(self.background.discard)
        await asyncio.wait({task}, timeout=_GRACE)
