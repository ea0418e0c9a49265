"""The last quarter of an hour of a database, a point a second, and its last events; read from snapshots, never asked.

It knows no HTTP and opens no connection.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from magnus.pool import Distribution, summed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from magnus._figures import Distributions
    from magnus.database import Database
    from magnus.observe import Event

EVERY: Final = 1.0
KEPT: Final = 900
EVENTS: Final = 200
BOUNDS: Final = tuple(round(base * 10.0**power, 9) for power in range(-5, 2) for base in (1.0, 1.5, 2.2, 3.3, 4.7, 6.8))
"""Bounds that percentiles of one second are read from, seconds: six to a decade, from 10 microseconds to a minute."""

Point = dict[str, Any]


class Recorder:
    """
    Keeps `points` and `events` of the database that `find` returns. An observer: give it to the database too.
    """

    def __init__(self, find: Callable[[], Database], *, now: Callable[[], float] = time.time) -> None:
        self._find = find
        self._now = now
        self._points: deque[Point] = deque(maxlen=KEPT)
        self._events: deque[Point] = deque(maxlen=EVENTS)
        self._numbers = count(1)
        self._before: tuple[Distribution, Distributions, Mapping[str, Any]] | None = None

    def __call__(self, event: Event, /) -> None:
        self._events.append({
            "seq": next(self._numbers), "at": self._now(), "name": event.name, "level": event.level,
            "fields": {name: _plain(value) for name, value in event.fields().items()},
        })  # fmt: skip

    async def run(self) -> None:
        """
        Take a point a second until cancelled.
        """
        while True:
            self.sample()
            await asyncio.sleep(EVERY)

    def sample(self) -> None:
        """
        Take a point now: what the pool holds, and what happened since the point before.
        """
        db = self._find()
        stats = db.get_stats()
        found = db.distributions(BOUNDS)
        operations = summed(found.statements.values())
        before, self._before = self._before, (operations, found, stats)
        if before is None or before[0].total > operations.total:
            return  # the first point, or another database: nothing to compare with
        pool, queries, earlier = stats["pool_stats"], stats["query_stats"], before[2]
        self._points.append({
            "seq": next(self._numbers),
            "at": self._now(),
            "used": pool["used"],
            "free": pool["free"],
            "waiting": pool["waiting"],
            "connecting": pool.get("connecting", 0),
            "max": pool["max_size"],
            "statements": operations.total - before[0].total,
            "failed": queries["failed"] - earlier["query_stats"]["failed"],
            "slow": queries["slow_queries"] - earlier["query_stats"]["slow_queries"],
            "retries": queries["retries"] - earlier["query_stats"]["retries"],
            "duration": percentiles(before[0], operations),
            "lanes": dict(_lanes(pool["lanes"], earlier["pool_stats"]["lanes"], before[1], found)),
        })

    def points(self, since: int) -> list[Point]:
        """
        Return the points that came after number `since`.
        """
        return [point for point in self._points if point["seq"] > since]

    def events(self, since: int) -> list[Point]:
        """
        Return the events that came after number `since`.
        """
        return [event for event in self._events if event["seq"] > since]


def _lanes(
    now: Mapping[str, Mapping[str, Any]],
    then: Mapping[str, Mapping[str, Any]],
    times_then: Distributions,
    times: Distributions,
) -> Iterator[tuple[str, Point]]:
    for lane, wait in times.waits.items():
        figures, earlier = now[lane.value], then.get(lane.value, {})
        since = {name: figures[name] - earlier.get(name, 0) for name in ("acquired", "timeouts", "rejected")}
        has_before = lane in times_then.waits
        yield lane.value, {
            "used": figures["used"], "waiting": figures["waiting"], "cap": figures["cap"], **since,
            "wait": percentiles(times_then.waits[lane], wait) if has_before else [None, None, None],
            "duration": percentiles(times_then.statements[lane], times.statements[lane]),
        }  # fmt: skip


def percentiles(before: Distribution, after: Distribution) -> list[float | None]:
    """
    Return p50, p95 and p99 in seconds of what came between two distributions over the same bounds; None for nothing.

    Each is the upper bound that holds it; beyond the last bound, that bound.
    """
    total = after.total - before.total
    if total <= 0:
        return [None, None, None]
    counts = [later - earlier for later, earlier in zip(after.counts, before.counts, strict=True)]
    return [_bound(after.bounds, counts, share * total) for share in (0.5, 0.95, 0.99)]


def _bound(bounds: Sequence[float], counts: Sequence[int], need: float) -> float:
    return next((bound for bound, seen in zip(bounds, counts, strict=True) if seen >= need), bounds[-1])


def _plain(value: object) -> object:
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)
