"""Events of the slow-query log: what was slow, and what it could not write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from magnus.observe._event import Event


@dataclass(frozen=True, slots=True)
class SlowQuery(Event):
    """
    A statement took longer than the threshold. Raised in place of a row, where the log writes no table.

    `query` has no literals, `fingerprint` is the same for all statements like it, `outcome` is "ok", "failed",
    "timed_out" or "cancelled". Times are milliseconds; `skipped` others like it were left out since the last one.
    """

    name: ClassVar[str] = "slow_query"
    level: ClassVar[str] = "warning"
    query: str
    fingerprint: str
    duration_ms: float
    threshold_ms: float
    wait_ms: float
    priority: str
    rows: int | None
    outcome: str
    sqlstate: str | None
    caller: str | None
    route: str | None
    skipped: int


@dataclass(frozen=True, slots=True)
class SlowLogEventsOnly(Event):
    """
    The slow-query log cannot use its table, and raises `slow_query` for each statement instead. Raised when it begins.

    `reason` is "no_table" (and it may not be created), "no_permission" or "read_only"; `advice` says what to do.
    """

    name: ClassVar[str] = "slow_log_events_only"
    level: ClassVar[str] = "warning"
    reason: str
    advice: str


@dataclass(frozen=True, slots=True)
class SlowLogLeftOut(Event):
    """
    Statements are missing in the slow-query log: `capped` because more came than its rate allows, `dropped` because
    they could not be written in time. Both since the last such event; raised once a minute at most.
    """

    name: ClassVar[str] = "slow_log_left_out"
    level: ClassVar[str] = "warning"
    capped: int
    dropped: int


@dataclass(frozen=True, slots=True)
class SlowLogRecovered(Event):
    """
    The slow-query log writes its table again, after `seconds` without.
    """

    name: ClassVar[str] = "slow_log_recovered"
    seconds: float
