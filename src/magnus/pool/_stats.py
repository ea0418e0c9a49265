"""Counters, histograms and the frozen snapshots made of them; knows neither the pool's states nor its connections."""

from __future__ import annotations

from dataclasses import dataclass
from operator import add
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from magnus.lanes import QueryPriority

_SUB_BITS: Final = 4  # 16 steps to each power of two: a percentile is at most 1/16 above the truth
_SUB: Final = 1 << _SUB_BITS
BATCH: Final = 256
_BUCKETS: Final = 640  # up to 2**43 microseconds


@dataclass(frozen=True, slots=True)
class Distribution:
    """
    A histogram with bounds of somebody's choice, at one moment.

    Attributes:
        bounds: Ascending, in seconds.
        counts: Durations of at most each bound; cumulative.
        total: All durations.
        seconds: Their sum.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: int
    seconds: float


def summed(parts: Iterable[Distribution]) -> Distribution:
    """
    Add distributions over the same bounds, at least one.
    """
    found = list(parts)
    counts = tuple(map(sum, zip(*(part.counts for part in found), strict=True)))
    return Distribution(found[0].bounds, counts, sum(p.total for p in found), sum(p.seconds for p in found))


class Histogram:
    """
    Durations in buckets of equal relative width, from a microsecond to months (the layout of HdrHistogram).
    """

    __slots__ = ("_counts", "_seconds", "_tap", "_told", "_total", "fresh")

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self.fresh: list[float] = []  # not yet sorted into buckets: that is cheaper for many at once
        self._seconds = 0.0
        self._total = 0
        self._tap: Callable[[list[float]], None] | None = None
        self._told = 0  # of `_total`, when there is a tap

    def tap(self, tap: Callable[[list[float]], None] | None) -> None:
        """
        Give `tap` every duration from now on, at each `digest`; None ends that. It must not raise.
        """
        self.digest()
        self._tap, self._told = tap, self._total

    @classmethod
    def merged(cls, parts: Iterable[Histogram]) -> Histogram:
        """
        Return one of all durations of others, which stay as they are.
        """
        whole = cls()
        for part in parts:
            part.add_to(whole)
        return whole

    def add_to(self, whole: Histogram) -> None:
        """
        Count all durations of this one in another one too.
        """
        self.digest()
        whole._counts = [*map(add, whole._counts, self._counts)]  # the same class
        whole._total += self._total
        whole._seconds += self._seconds

    @property
    def total(self) -> int:
        """
        How many durations were counted.
        """
        return self._total + len(self.fresh)

    def record(self, seconds: float) -> None:
        """
        Count one duration. Negative ones, from a clock that was moved by hand, count as zero.
        """
        self.fresh.append(seconds)
        if len(self.fresh) >= BATCH:
            self.digest()

    def record_zero(self) -> None:
        """
        Count a duration of nothing: the hot path's shortcut.
        """
        self._counts[0] += 1
        self._total += 1

    def digest(self) -> None:
        """
        Sort what is fresh into buckets: to be called when there are `BATCH`.
        """
        counts = self._counts
        if self._tap is not None:
            self._tap([0.0] * (self._total - self._told) + self.fresh)
            self._told = self._total + len(self.fresh)
        for seconds in self.fresh:
            micros = int(seconds * 1e6)
            counts[_SHORT[micros] if 0 <= micros < _LONG else _bucket(micros)] += 1
        self._total += len(self.fresh)
        self._seconds += sum(self.fresh)
        self.fresh.clear()

    def cumulative(self, bounds: Sequence[float]) -> Distribution:
        """
        Return how many durations were at most each of `bounds` (ascending seconds), and all of them together.

        A bound inside one of this histogram's buckets (1/16 wide) has all of the bucket below it.
        """
        self.digest()
        found: list[int] = []
        seen, index = 0, 0
        for bound in bounds:
            while index < _BUCKETS and _lower(index) / 1e6 <= bound:
                seen += self._counts[index]
                index += 1
            found.append(seen)
        return Distribution(tuple(bounds), tuple(found), self._total, self._seconds)

    def percentiles(self, *wanted: float) -> tuple[float, ...]:
        """
        Return the upper bounds, in seconds, of the buckets that hold these percentiles (ascending, 0..100).
        """
        self.digest()
        if not self._total:
            return (0.0,) * len(wanted)
        found: list[float] = []
        seen, index = self._counts[0], 0
        for percent in wanted:
            need = percent / 100.0 * self._total
            while seen < need and index < _BUCKETS - 1:
                index += 1
                seen += self._counts[index]
            found.append(_upper(index) / 1e6)
        return tuple(found)


def _lower(index: int) -> int:
    return _upper(index - 1) + 1 if index else 0


def _bucket(micros: int) -> int:
    if micros < _SUB:
        return max(micros, 0)
    shift = micros.bit_length() - _SUB_BITS - 1
    return min((shift << _SUB_BITS) + (micros >> shift), _BUCKETS - 1)


_LONG: Final = 1 << 13
_SHORT: Final = tuple(map(_bucket, range(_LONG)))  # most are short, and looking up is cheaper than computing


def _upper(index: int) -> int:
    if index < _SUB:
        return index
    shift = (index >> _SUB_BITS) - 1
    return ((index - (shift << _SUB_BITS) + 1) << shift) - 1


@dataclass(frozen=True, slots=True)
class LaneSnapshot:
    """
    One lane at one moment. Waits are seconds from `acquire` to the hand-off, those of nobody waiting included; use is
    seconds from there until the connection was given back.

    Attributes:
        lane: Which one.
        acquired: Slots held by it now.
        waiting: Callers queued in it now.
        cap: Slots that it and the lanes below it may hold together.
        acquired_total: Leases given since the start.
        timeouts: Calls that ended in `PoolTimeout`.
        rejected: Calls that ended in `Overloaded`.
        shed: Those of them that had queued already.
        p50: Median wait; `p95` and `p99` alike.
        use_p50: Median use; `use_p95` and `use_p99` alike.
    """

    lane: QueryPriority
    acquired: int
    waiting: int
    cap: int
    acquired_total: int
    timeouts: int
    rejected: int
    shed: int
    p50: float
    p95: float
    p99: float
    use_p50: float
    use_p95: float
    use_p99: float


class LaneCounters:
    """
    What happened in one lane since the pool was opened.
    """

    __slots__ = ("acquired_total", "rejected", "shed", "timeouts", "use", "wait")

    def __init__(self) -> None:
        self.acquired_total = 0
        self.timeouts = 0
        self.rejected = 0
        self.shed = 0
        self.wait = Histogram()
        self.use = Histogram()

    def snapshot(self, lane: QueryPriority, *, acquired: int, waiting: int, cap: int) -> LaneSnapshot:
        """
        Return the counters, frozen, beside what the lane holds now.
        """
        return LaneSnapshot(
            lane, acquired, waiting, cap, self.acquired_total, self.timeouts, self.rejected, self.shed,
            *self.wait.percentiles(50, 95, 99), *self.use.percentiles(50, 95, 99),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """
    The pool at one moment; `idle + acquired + connecting + closing == size <= max` always holds.

    Attributes:
        size: Slots in being.
        min: Connections kept open in the background.
        max: Slots never exceeded.
        waiting: Callers queued, all lanes.
        lanes: One entry a lane, most important first.
        connects: Connections opened since the start.
        connect_failures: Attempts that failed since the start.
        discarded: Connections thrown away instead of returned: dead, not resettable, or discarded by their holder.
        last_handoff: When a caller last got a connection (monotonic seconds), None before the first.
        is_full_since: Since when every caller has had to wait and none was served (monotonic seconds); None otherwise.
        failing_since: Since when connects have failed, without one that succeeded (monotonic seconds); None otherwise.
    """

    size: int
    idle: int
    acquired: int
    connecting: int
    closing: int
    min: int
    max: int
    waiting: int
    lanes: tuple[LaneSnapshot, ...]
    connects: int
    connect_failures: int
    discarded: int
    last_handoff: float | None
    is_full_since: float | None
    failing_since: float | None = None
