"""What a load test measured: every request's times, and what they amount to; knows no clock and no target."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from magnus.loadtest._numbers import percentile, steady_from

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_SLICE = 0.1  # seconds of one point of the course, by which warm-up is found


@dataclass
class Samples:
    """
    One request an index: when it was due (seconds from the start), how late it began, how long it took from being due.

    Attributes:
        operations: Of each request, by number in `names`.
        failed: Requests that failed, by operation.
        refused: Requests that the target declined, by operation.
        faults: Why they failed, "operation: word".
        notes: What the workload says of what it sent.
    """

    names: list[str]
    due: array[float] = field(default_factory=lambda: array("d"))
    late: array[float] = field(default_factory=lambda: array("d"))
    took: array[float] = field(default_factory=lambda: array("d"))
    operations: array[int] = field(default_factory=lambda: array("H"))
    failed: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    def add(self, operation: int, due: float, late: float, took: float) -> None:
        self.operations.append(operation)
        self.due.append(due)
        self.late.append(late)
        self.took.append(took)

    @classmethod
    def merged(cls, parts: Iterable[Samples]) -> Samples:
        """
        Return the samples of several processes as one.
        """
        first, *others = list(parts)
        for other in others:
            for name in ("due", "late", "took", "operations"):
                getattr(first, name).extend(getattr(other, name))
            first.failed.update(other.failed)
            first.refused.update(other.refused)
            first.faults.update(other.faults)
            first.seconds = max(first.seconds, other.seconds)
        return first

    def steady_after(self) -> float:
        """
        Return the second from which on the course of latencies is steady; what was due before is warm-up.
        """
        slices: dict[int, list[float]] = {}
        for due, took in zip(self.due, self.took, strict=True):
            slices.setdefault(int(due / _SLICE), []).append(took)
        course = [math.fsum(values) / len(values) for _, values in sorted(slices.items())]
        return steady_from(course) * _SLICE

    def result(self, *, warm_up: float) -> Result:
        """
        Sum up what was due after `warm_up` seconds.
        """
        kept = [index for index, due in enumerate(self.due) if due >= warm_up]
        by_operation: dict[int, list[float]] = {}
        for index in kept:
            by_operation.setdefault(self.operations[index], []).append(self.took[index])
        seconds = max(self.seconds - warm_up, 1e-9)
        rows = [
            Figures.of(self.names[number], values, self.failed[self.names[number]], self.refused[self.names[number]])
            for number, values in sorted(by_operation.items())
        ]
        everything = [value for values in by_operation.values() for value in values]
        total = Figures.of("all", everything, sum(self.failed.values()), sum(self.refused.values()))
        lateness = sorted(self.late[index] for index in kept)
        return Result(
            seconds=seconds,
            warm_up=warm_up,
            per_second=len(kept) / seconds,
            late_p99=percentile(lateness, 99) if lateness else 0.0,
            total=total,
            operations=tuple(rows),
            failures=dict(sorted(self.faults.items())),
            course=self._course(warm_up),
            notes=self.notes,
        )

    def _course(self, warm_up: float) -> tuple[tuple[float, int, float, float, float], ...]:
        """
        Return second, requests, p50, p99 and mean of each second.
        """
        seconds: dict[int, list[float]] = {}
        for due, took in zip(self.due, self.took, strict=True):
            if due >= warm_up:
                seconds.setdefault(int(due), []).append(took)
        return tuple(
            (second, len(values), percentile(ordered, 50), percentile(ordered, 99), math.fsum(ordered) / len(ordered))
            for second, values in sorted(seconds.items())
            if (ordered := sorted(values))
        )


@dataclass(frozen=True, slots=True)
class Figures:
    """
    One operation; times in seconds from when a request was due to its answer.
    """

    name: str
    requests: int
    failed: int
    refused: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    p999: float
    longest: float

    @classmethod
    def of(cls, name: str, values: Sequence[float], failed: int, refused: int) -> Figures:
        ordered = sorted(values)
        mean = math.fsum(ordered) / len(ordered) if ordered else math.nan
        found = (percentile(ordered, percent) for percent in (50, 90, 95, 99, 99.9, 100))
        return cls(name, len(ordered), failed, refused, mean, *found)


@dataclass(frozen=True, slots=True)
class Result:
    """
    What a run amounts to.

    Attributes:
        seconds: Measured, warm-up not included.
        warm_up: Seconds left out at the start.
        late_p99: By how many seconds the generator itself was late, 99th percentile. Beyond 5 ms it could not keep up,
            and latencies have its own delay in them.
        course: Second, requests, p50, p99, mean.
        notes: What the workload says of what it sent.
    """

    seconds: float
    warm_up: float
    per_second: float
    late_p99: float
    total: Figures
    operations: tuple[Figures, ...]
    failures: Mapping[str, int]
    course: tuple[tuple[float, int, float, float, float], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def has_kept_up(self) -> bool:
        return self.late_p99 <= 0.005

    def as_dict(self) -> dict[str, Any]:
        """
        Return it ready for JSON; times in milliseconds.
        """
        return {
            "seconds": round(self.seconds, 3),
            "warm_up_seconds": round(self.warm_up, 3),
            "per_second": round(self.per_second, 2),
            "generator_late_p99_ms": round(1000 * self.late_p99, 3),
            "generator_has_kept_up": self.has_kept_up,
            "total": _row(self.total),
            "operations": [_row(row) for row in self.operations],
            "failures": dict(self.failures),
            "notes": list(self.notes),
            "course": [[at, count, *map(_ms, times)] for at, count, *times in self.course],
        }


def _row(found: Figures) -> dict[str, Any]:
    times = {name: _ms(getattr(found, name)) for name in ("mean", "p50", "p90", "p95", "p99", "p999", "longest")}
    return {
        "name": found.name, "requests": found.requests, "failed": found.failed, "refused": found.refused,
        **{f"{name}_ms": value for name, value in times.items()},
    }  # fmt: skip


def _ms(seconds: float) -> float | None:
    return None if math.isnan(seconds) else round(1000 * seconds, 3)
