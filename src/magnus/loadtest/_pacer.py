"""When each request is due: pure arithmetic on seconds since the start (the open model of load).

Request n is due at a time that no answer can change, and its latency counts from then: a server that stalls cannot
hide the requests that it kept from being sent (coordinated omission; the idea of vegeta's pacers and of wrk2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from magnus.errors import ConfigError

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Pacer:
    """
    An arrival rate that goes evenly from `start` to `end` requests a second within `seconds`, and the run is then over.

    Attributes:
        is_random: Requests come as from many users who know nothing of each other (a Poisson process), in clumps and
            gaps, and not one by one.
    """

    start: float
    end: float
    seconds: float
    is_random: bool = False

    def __post_init__(self) -> None:
        for name, value in (("rate", self.start), ("rate", self.end), ("duration", self.seconds)):
            if not 0 < value < math.inf:
                raise ConfigError(name, value, "must be above 0")

    @classmethod
    def constant(cls, rate: float, seconds: float) -> Pacer:
        return cls(rate, rate, seconds)

    @property
    def total(self) -> int:
        """
        How many requests are due within the run; at random, in the mean.
        """
        return max(1, round(self._expected))

    @property
    def _expected(self) -> float:
        return (self.start + self.end) / 2 * self.seconds

    def due(self, index: float) -> float:
        """
        Return when request `index` (from 0) is due, seconds from the start.

        The rate is a line, so the count is a parabola: index = start t + (end - start) t² / (2 seconds), solved for t
        in the form that loses no digits when the slope is small.
        """
        slope = (self.end - self.start) / self.seconds
        if slope == 0:
            return index / self.start
        root = math.sqrt(max(0.0, self.start * self.start + 2 * slope * index))
        return 2 * index / (self.start + root)

    def dues(self, rng: random.Random) -> Iterator[float]:
        """
        Return when each request is due, in order, seconds from the start.

        At random, `due` is asked for the times of a Poisson process of rate 1: that makes one of any rate of them
        (time rescaling; Daley and Vere-Jones, An Introduction to the Theory of Point Processes, 7.4).
        """
        if not self.is_random:
            yield from map(self.due, range(self.total))
            return
        place = rng.expovariate(1.0)
        while place < self._expected:
            yield self.due(place)
            place += rng.expovariate(1.0)

    def share(self, part: int, parts: int) -> Pacer:
        """
        Return the pacer of one of `parts` processes; `offset` staggers them.
        """
        if not 0 <= part < parts:
            raise ConfigError("processes", parts, "has no such part")
        return replace(self, start=self.start / parts, end=self.end / parts)

    def offset(self, part: int, parts: int) -> float:
        """
        Return by how many seconds process `part` of `parts` starts later, so that requests do not come in clumps.
        """
        return 0.0 if self.is_random else part / (parts * self.share(part, parts).start)
