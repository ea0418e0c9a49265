"""Counters of the statements that one database ran, and the figures that `get_stats` shows; pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final

from magnus.lanes import LANES
from magnus.pool._stats import BATCH, Histogram

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from magnus.lanes import QueryPriority
    from magnus.pool import Distribution, LaneSnapshot, PoolSnapshot


BOUNDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
"""Upper bounds of all histograms, seconds: those that the conventions advise for `db.client.operation.duration`."""


@dataclass(frozen=True, slots=True)
class Distributions:
    """
    How long what took, since the start, by lane. Without a pool only statements are known.

    Attributes:
        statements: Of those that were sent, on the server and the way there.
        waits: From asking for a connection to having it.
        uses: From having a connection to giving it back.
        connects: Opening a connection, all its set-up included; None without a pool.
    """

    statements: Mapping[QueryPriority, Distribution]
    waits: Mapping[QueryPriority, Distribution]
    uses: Mapping[QueryPriority, Distribution]
    connects: Distribution | None


class QueryStats:
    """
    Statements by outcome, lane and duration. What never got a connection is counted as failed and has no duration.
    """

    __slots__ = (
        "_lanes", "_seconds", "failed", "is_watched", "slow", "slow_after", "successful", "tell_after", "timeouts",
        "unknown",
    )  # fmt: skip

    def __init__(self, slow_after: float) -> None:
        self.slow_after = self.tell_after = slow_after
        self.is_watched = False
        self._lanes = {lane: Histogram() for lane in LANES}
        self._seconds = 0.0
        self.successful = 0
        self.failed = 0
        self.timeouts = 0
        self.slow = 0
        self.unknown = 0

    def ran(self, seconds: float, lane: QueryPriority, *, is_successful: bool) -> bool:
        """
        Count a statement that was sent and took `seconds`, waiting for a connection not included; say whether somebody
        is to be told: it was slow, or all are watched.
        """
        if is_successful:
            self.successful += 1
        else:
            self.failed += 1
        self._seconds += seconds
        durations = self._lanes[lane]
        durations.fresh.append(seconds)  # as `record` does, which is felt
        if len(durations.fresh) >= BATCH:
            durations.digest()
        if seconds > self.tell_after:
            if seconds > self.slow_after:
                self.slow += 1
            return True
        return False

    def watch(self, *, is_watched: bool) -> None:
        """
        Tell of every statement, or of slow ones alone. What is not watched costs the one comparison it always did.
        """
        self.is_watched = is_watched
        self.tell_after = -inf if is_watched else self.slow_after

    def never_ran(self) -> None:
        """
        Count a statement that could not be sent.
        """
        self.failed += 1

    def durations(self, bounds: Sequence[float]) -> dict[QueryPriority, Distribution]:
        """
        Return how long the statements that were sent took, by lane.
        """
        return {lane: durations.cumulative(bounds) for lane, durations in self._lanes.items()}

    def snapshot(self) -> dict[str, int | float]:
        """
        Return the figures, ready for JSON; durations in milliseconds.
        """
        durations = Histogram.merged(self._lanes.values())
        count = durations.total
        p50, p95, p99 = durations.percentiles(50.0, 95.0, 99.0)
        return {
            "total": self.successful + self.failed,
            "successful": self.successful,
            "failed": self.failed,
            "timeouts": self.timeouts,
            "slow_queries": self.slow,
            "outcome_unknown": self.unknown,
            "avg_time_ms": round(1000 * self._seconds / count, 3) if count else 0.0,
            "p50_ms": round(1000 * p50, 3),
            "p95_ms": round(1000 * p95, 3),
            "p99_ms": round(1000 * p99, 3),
        }


def pool_figures(pool: PoolSnapshot | None, *, is_connected: bool, max_size: int) -> dict[str, object]:
    """
    Return a pool's figures, ready for JSON; without a pool everything is zero. Waits in milliseconds.
    """
    if pool is None:
        return {"connected": False, "size": 0, "free": 0, "used": 0, "max_size": max_size, "waiting": 0, "lanes": {}}
    return {
        "connected": is_connected,
        "size": pool.idle + pool.acquired,
        "free": pool.idle,
        "used": pool.acquired,
        "min_size": pool.min,
        "max_size": pool.max,
        "connecting": pool.connecting,
        "waiting": pool.waiting,
        "utilization": round(pool.acquired / pool.max, 4),
        "connects": pool.connects,
        "connect_failures": pool.connect_failures,
        "discarded": pool.discarded,
        "is_failing": pool.failing_since is not None,
        "lanes": {lane.lane.value: _lane_figures(lane) for lane in pool.lanes},
    }


def _lane_figures(lane: LaneSnapshot) -> dict[str, object]:
    return {
        "used": lane.acquired,
        "waiting": lane.waiting,
        "cap": lane.cap,
        "acquired": lane.acquired_total,
        "timeouts": lane.timeouts,
        "rejected": lane.rejected,
        "shed": lane.shed,
        "wait_p50_ms": round(1000 * lane.p50, 3),
        "wait_p95_ms": round(1000 * lane.p95, 3),
        "wait_p99_ms": round(1000 * lane.p99, 3),
        "use_p50_ms": round(1000 * lane.use_p50, 3),
        "use_p95_ms": round(1000 * lane.use_p95, 3),
        "use_p99_ms": round(1000 * lane.use_p99, 3),
    }
