"""Whether queries became faster or slower: counters before and after, with a noise band; pure.

The counters of pg_stat_statements only grow, so what happened after a moment is a difference of two snapshots. Nothing
is ever reset for it.
"""

from __future__ import annotations

import enum
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

# 95 % of a normal distribution; a difference below 5 % is never called one.
_WIDTH: Final = 1.96
_LEAST_CHANGE: Final = 0.05


class Verdict(enum.StrEnum):
    """
    What a comparison came to.
    """

    BETTER = "better"
    WORSE = "worse"
    SAME = "same"
    UNKNOWN = "not enough data"


@dataclass(frozen=True, slots=True)
class Counter:
    """
    One row of pg_stat_statements: times in milliseconds, `squares` the sum of the squared times.

    Attributes:
        key: User, database, level and queryid.
        since: When the row began, where the extension says it (1.11+).
    """

    key: str
    calls: int
    total: float
    squares: float
    query: str = ""
    since: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    The counters at one moment. `reset`: when they began, which must not change between two snapshots.
    """

    reset: str
    counters: tuple[Counter, ...]

    def to_json(self) -> dict[str, Any]:
        return {"reset": self.reset, "counters": [list(asdict(counter).values()) for counter in self.counters]}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Snapshot:
        return cls(found["reset"], tuple(Counter(*row) for row in found["counters"]))


@dataclass(frozen=True, slots=True)
class Compared:
    """
    One query, or all of them together: mean times in milliseconds and the change as a part (-0.5: half). `queryid` is
    the server's, empty for all together.
    """

    query: str
    calls: int
    before: float
    after: float
    verdict: Verdict
    queryid: str = ""

    @property
    def change(self) -> float:
        return self.after / self.before - 1 if self.before else 0.0


@dataclass(frozen=True, slots=True)
class _Sample:
    calls: int
    mean: float
    variance: float


def compare(
    before: Snapshot | None, after: Snapshot | None, *, min_calls: int = 30, max_regression: float = 0.1
) -> tuple[Compared, tuple[Compared, ...]]:
    """
    Compare what ran until the first snapshot with what ran since; the whole first, then each query, worst first.

    A row whose counters began anew in between is left out, and all of them when somebody reset the statistics. The
    whole weighs each query by its calls since, so that a change of the mix of queries is no change of speed.
    """
    if before is None or after is None or before.reset != after.reset:
        return Compared("all", 0, 0.0, 0.0, Verdict.UNKNOWN), ()
    old = {counter.key: counter for counter in before.counters}
    pairs = [
        (counter, sample, later)
        for counter in after.counters
        if (earlier := old.get(counter.key)) is not None
        and (sample := _sample(earlier)) is not None
        and (later := _since(earlier, counter)) is not None
    ]
    rows = [_judged(counter, one, other, min_calls, max_regression) for counter, one, other in pairs]
    known = [(one, other) for _, one, other in pairs if min(one.calls, other.calls) >= min_calls]
    rows.sort(key=lambda row: (row.verdict is Verdict.UNKNOWN, -row.calls * (row.after - row.before)))
    return _whole(known, max_regression), tuple(rows)


def _sample(counter: Counter) -> _Sample | None:
    if counter.calls <= 0:
        return None
    mean = counter.total / counter.calls
    return _Sample(counter.calls, mean, max(0.0, counter.squares / counter.calls - mean * mean))


def _since(before: Counter, after: Counter) -> _Sample | None:
    if before.since != after.since or after.calls < before.calls or after.total < before.total:
        return None
    squares = max(0.0, after.squares - before.squares)
    return _sample(Counter(after.key, after.calls - before.calls, after.total - before.total, squares))


def gain(statements: Collection[str], rows: Iterable[Compared]) -> Verdict:
    """
    Say whether something that was made for these statements (queryids) pays: it does when one of them became faster.
    """
    found = {row.verdict for row in rows if row.queryid in statements}
    for verdict in (Verdict.BETTER, Verdict.WORSE, Verdict.SAME):
        if verdict in found:
            return verdict
    return Verdict.UNKNOWN


def _judged(counter: Counter, one: _Sample, other: _Sample, min_calls: int, max_regression: float) -> Compared:
    query, queryid = counter.query, counter.key.rpartition("/")[-1]
    if min(one.calls, other.calls) < min_calls:
        return Compared(query, other.calls, one.mean, other.mean, Verdict.UNKNOWN, queryid)
    error = math.sqrt(one.variance / one.calls + other.variance / other.calls)
    verdict = _verdict(one.mean, other.mean, error, max_regression)
    return Compared(query, other.calls, one.mean, other.mean, verdict, queryid)


def _whole(known: Iterable[tuple[_Sample, _Sample]], max_regression: float) -> Compared:
    pairs = list(known)
    calls = sum(other.calls for _, other in pairs)
    if not calls:
        return Compared("all", 0, 0.0, 0.0, Verdict.UNKNOWN)
    before = sum(one.mean * other.calls for one, other in pairs) / calls
    after = sum(other.mean * other.calls for _, other in pairs) / calls
    variance = sum(
        (other.calls / calls) ** 2 * (one.variance / one.calls + other.variance / other.calls) for one, other in pairs
    )
    return Compared("all", calls, before, after, _verdict(before, after, math.sqrt(variance), max_regression))


def _verdict(before: float, after: float, error: float, max_regression: float) -> Verdict:
    """
    Outside of the noise, and large enough to matter.
    """
    noise = max(_WIDTH * error, _LEAST_CHANGE * before)
    if after - before > max(noise, max_regression * before):
        return Verdict.WORSE
    return Verdict.BETTER if before - after > noise else Verdict.SAME
