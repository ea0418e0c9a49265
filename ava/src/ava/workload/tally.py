"""Counts and latencies of a run; knows no HTTP and no clock."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Figures:
    """
    What one operation did. Latencies are milliseconds from the request's (due) start to its last answer's end.
    """

    operation: str
    requests: int
    failed: int
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class Result:
    """
    What a run did. `statuses` counts every HTTP answer, retries included; `failures` counts reasons.
    """

    seconds: float
    requests: int
    per_second: float
    operations: tuple[Figures, ...]
    total: Figures
    statuses: Mapping[str, int]
    retries: int
    shed: int
    refused: int
    repeats: int
    failures: Mapping[str, int]

    @property
    def is_clean(self) -> bool:
        """
        True when the server kept its promises: no unexpected answer, no unequal repeat.
        """
        return not self.failures


@dataclass
class Tally:
    """
    Collects a run's outcomes, then or meanwhile says what they amount to.
    """

    latencies: dict[str, array[float]] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    retries: int = 0
    shed: int = 0
    refused: int = 0
    repeats: int = 0

    def finish(self, operation: str, seconds: float) -> None:
        """
        Count one request as over, `seconds` after it was due.
        """
        self.requests += 1
        self.latencies.setdefault(operation, array("d")).append(seconds)

    def fail(self, operation: str, reason: str) -> None:
        """
        Count one broken promise. `reason` is one of few, not an exception's text.
        """
        self.failures[reason] += 1
        self.failed[operation] += 1

    def result(self, seconds: float) -> Result:
        """
        Sum up after `seconds` of run time.
        """
        operations = tuple(self._figures(name, values) for name, values in sorted(self.latencies.items()))
        everything = array("d", [second for values in self.latencies.values() for second in values])
        total = summarise("all", everything, sum(self.failed.values()))
        return Result(
            seconds=seconds,
            requests=self.requests,
            per_second=self.requests / seconds if seconds > 0 else 0.0,
            operations=operations,
            total=total,
            statuses=dict(sorted(self.statuses.items())),
            retries=self.retries,
            shed=self.shed,
            refused=self.refused,
            repeats=self.repeats,
            failures=dict(sorted(self.failures.items())),
        )

    def _figures(self, name: str, values: array[float]) -> Figures:
        return summarise(name, values, self.failed[name])


def summarise(operation: str, seconds: Sequence[float], failed: int) -> Figures:
    """
    Return the figures of one operation from its latencies in seconds.
    """
    ordered = sorted(seconds)
    mean = math.fsum(ordered) / len(ordered) if ordered else 0.0
    p50, p95, p99, largest = (1000 * percentile(ordered, share) for share in (0.50, 0.95, 0.99, 1.0))
    return Figures(operation, len(ordered), failed, 1000 * mean, p50, p95, p99, largest)


def percentile(ordered: Sequence[float], share: float) -> float:
    """
    Return the smallest value that at least `share` of the sorted values do not exceed (nearest rank); 0 for none.
    """
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
