"""What a run looks like while it goes on: the last seconds by lane, from one process or several; pure."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from magnus.loadtest._numbers import percentile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from magnus.loadtest.samples import Samples

    Usage = tuple[int, int, int]
    """Connections in use, open, and at most."""

_MOST: Final = 1000
"""Times that are kept of one look: sorting more would make the generator late."""
_LOOKS: Final = 20


@dataclass(frozen=True, slots=True)
class Look:
    """
    One look at one process.

    Attributes:
        requests: Answered so far; `failed` and `refused` of them.
        counts: Answered since the look before, by lane; `times`: of some of these, seconds.
        pool: The process' connections, where its target has any.
    """

    requests: int
    failed: int
    refused: int
    counts: Mapping[str, int]
    times: Mapping[str, Sequence[float]]
    pool: Usage | None = None


class Watch:
    """
    Looks at the samples of a process that is sending.
    """

    def __init__(self, samples: Samples, lanes: Sequence[str], usage: Callable[[], Usage] | None) -> None:
        self._samples = samples
        self._lanes = lanes
        self._usage = usage
        self._seen = 0

    def look(self) -> Look:
        samples, start = self._samples, self._seen
        self._seen = end = len(samples.took)
        counts = Counter(self._lanes[number] for number in samples.operations[start:end])
        times: dict[str, list[float]] = defaultdict(list)
        for index in range(start, end, 1 + (end - start) // _MOST):
            times[self._lanes[samples.operations[index]]].append(samples.took[index])
        pool = None if self._usage is None else self._usage()
        return Look(end, sum(samples.failed.values()), sum(samples.refused.values()), counts, times, pool)


@dataclass(frozen=True, slots=True)
class Row:
    """
    A lane's last seconds; times in seconds.
    """

    lane: str
    per_second: float
    p50: float
    p99: float
    p999: float


@dataclass
class Board:
    """
    What a person sees of a run: the looks of all processes, the last ten seconds of them.
    """

    share: float = 0.0
    requests: int = 0
    failed: int = 0
    refused: int = 0
    pool: Usage | None = None
    _looks: deque[tuple[float, Sequence[Look]]] = field(default_factory=lambda: deque(maxlen=_LOOKS))

    def see(self, share: float, seconds: float, looks: Iterable[Look]) -> None:
        """
        Take the looks of one moment, `seconds` after those before.
        """
        found = list(looks)
        self.share = share
        self._looks.append((seconds, found))
        self.requests, self.failed, self.refused = (
            sum(getattr(look, name) for look in found) for name in ("requests", "failed", "refused")
        )
        pools = [look.pool for look in found if look.pool is not None]
        self.pool = (sum(p[0] for p in pools), sum(p[1] for p in pools), sum(p[2] for p in pools)) if pools else None

    def rows(self) -> list[Row]:
        """
        Return the lanes in the order of their names, one that has none as "all".
        """
        counts: Counter[str] = Counter()
        times: dict[str, list[float]] = defaultdict(list)
        for look in (look for _, looks in self._looks for look in looks):
            counts.update(look.counts)
            for lane, values in look.times.items():
                times[lane].extend(values)
        seconds = sum(seconds for seconds, _ in self._looks) or 1.0
        found = []
        for lane in sorted(times):
            ordered = sorted(times[lane])
            tails = (percentile(ordered, percent) for percent in (50, 99, 99.9))
            found.append(Row(lane or "all", counts[lane] / seconds, *tails))
        return found
