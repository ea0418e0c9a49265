"""When each request starts and when the run is over: pure arithmetic on seconds since the start."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """
    The shape of a run in time.

    Without `rate` the loop is closed: a client sends its next request when the last is answered. With it the loop is
    open: request n is due at n / rate whatever the server does, and its latency counts from then, so that a stalled
    server cannot hide the requests it kept from being sent (coordinated omission).

    Attributes:
        requests: Stop after this many; None: no limit.
        duration: Start none later than this, seconds; None: no limit.
        rate: Requests per second; None: as fast as answers come.
    """

    requests: int | None = 10_000
    duration: float | None = None
    rate: float | None = None

    def __post_init__(self) -> None:
        if self.requests is None and self.duration is None:
            raise ValueError("a run needs a number of requests or a duration")
        for name, value in (("requests", self.requests), ("duration", self.duration), ("rate", self.rate)):
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} must be above 0 (got {value:g})")

    def due(self, index: int) -> float | None:
        """
        Return when request `index` (from 0) is to start, in seconds from the start of the run; None: at once.
        """
        return None if self.rate is None else index / self.rate

    def has(self, index: int, elapsed: float) -> bool:
        """
        Tell whether request `index` still belongs to the run when asked `elapsed` seconds after its start.
        """
        if self.requests is not None and index >= self.requests:
            return False
        return self.duration is None or max(elapsed, self.due(index) or 0.0) < self.duration

    def share(self, done: int, elapsed: float) -> float:
        """
        Return how much of the run is over, 0 to 1.
        """
        shares = []
        if self.requests is not None:
            shares.append(done / self.requests)
        if self.duration is not None:
            shares.append(elapsed / self.duration)
        return min(1.0, max(shares))
