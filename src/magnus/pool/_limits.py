"""Sizes and times of a pool, and the pause between failed connects: pure numbers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from magnus._backoff import full_jitter
from magnus.pool._lanes import lane_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from magnus.config import LaneSettings
    from magnus.lanes import QueryPriority
    from magnus.pool._lanes import LaneLimits


@dataclass(frozen=True, slots=True)
class Limits:
    """
    The sizes and times of a pool; durations are seconds.

    Attributes:
        min_size: Connections kept open.
        max_size: Slots never exceeded.
        connect_limit: Connects under way at once.
        max_idle: An idle connection above `min_size` is closed after this.
        max_lifetime: A connection is replaced at this age, less up to a quarter of it, so that they do not all
            expire together.
        retry_delay: Upper bound of the first pause after a failed connect.
        retry_backoff: Factor by which that bound grows.
        max_waiting: Callers that may queue in one lane.
        table: The lanes, in place of those computed from `max_size` and `max_waiting`.
        lane_settings: What was set in place of what is computed, by lane.
        wait_targets: By lane, the wait above which a standing queue is shed; a lane that is missing is never shed.
    """

    min_size: int
    max_size: int
    connect_limit: int = 4
    max_idle: float = 600.0
    max_lifetime: float = 1800.0
    retry_delay: float = 0.05
    retry_backoff: float = 2.0
    max_waiting: int = 10_000
    table: tuple[LaneLimits, ...] | None = None
    lane_settings: Mapping[QueryPriority, LaneSettings] = field(default_factory=lambda: MappingProxyType({}))
    wait_targets: Mapping[QueryPriority, float] = field(default_factory=lambda: MappingProxyType({}))

    def within(self, most: int) -> Limits:
        """
        Return these limits for a pool of at most `most` slots; a lane's own cap is lowered to that.
        """
        own = {
            lane: each if each.cap is None else replace(each, cap=min(each.cap, most))
            for lane, each in self.lane_settings.items()
        }
        sizes = min(self.min_size, most), min(self.max_size, most)
        return replace(self, min_size=sizes[0], max_size=sizes[1], lane_settings=own)

    def lanes(self) -> tuple[LaneLimits, ...]:
        if self.table is not None:
            return self.table
        return lane_table(
            self.max_size, max_waiting=self.max_waiting, settings=self.lane_settings, wait_targets=self.wait_targets
        )


_GAPS: Final = {1: 0.2, 2: 0.8}
_LATER_GAP: Final = 0.55
_JITTER: Final = 0.1
_PATIENT_AFTER: Final = 10.0
_MOST_PATIENT: Final = 6.0


def probe_delay(
    failures: int, limits: Limits, uniform: Callable[[float, float], float], *, lasted: float = 0.0
) -> float:
    """
    Seconds until the next connect after `failures` failures in a row, the first of them `lasted` seconds ago.

    No second has more than two attempts. A promotion, a crash recovery or a quick restart is over within the first
    pause; the second makes up for it; from then on they are even: of all ways to ask twice a second that one finds a
    server soonest. After ten seconds the pauses grow with the outage, to six times that.
    """
    base, factor = limits.retry_delay, limits.retry_backoff
    gap = _GAPS.get(failures, _LATER_GAP) + full_jitter(
        failures, base=base, factor=factor, cap=_JITTER, uniform=uniform
    )
    return gap * min(max(lasted / _PATIENT_AFTER, 1.0), _MOST_PATIENT)
