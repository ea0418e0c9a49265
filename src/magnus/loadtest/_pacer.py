"""When each request is due: pure arithmetic on seconds since the start (the open model of load).

Request n is due at a time that no answer can change, and its latency counts from then: a server that stalls cannot
hide the requests that it kept from being sent (coordinated omission; the idea of vegeta's pacers and of wrk2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from magnus.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Pacer:
    """
    An arrival rate that goes evenly from `start` to `end` requests a second within `seconds`, and the run is then over.
    """

    start: float
    end: float
    seconds: float

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
        How many requests are due within the run.
        """
        return max(1, round((self.start + self.end) / 2 * self.seconds))

    def due(self, index: int) -> float:
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

    def share(self, part: int, parts: int) -> Pacer:
        """
        Return the pacer of one of `parts` processes; `offset` staggers them.
        """
        if not 0 <= part < parts:
            raise ConfigError("processes", parts, "has no such part")
        return Pacer(self.start / parts, self.end / parts, self.seconds)

    def offset(self, part: int, parts: int) -> float:
        """
        Return by how many seconds process `part` of `parts` starts later, so that requests do not come in clumps.
        """
        return part / (parts * self.share(part, parts).start)
