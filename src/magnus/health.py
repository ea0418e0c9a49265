"""Probes and pool snapshots -> HealthReport, with fixed reasons only; no I/O, no HTTP codes.

The reasons are the whole vocabulary: an exception's text never gets in. Saturation alone is no reason: a full pool
that still hands connections on does its work, and taking it out of service would push its load onto the next one.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from magnus.database import Database, ProbeState


class NotReady(enum.StrEnum):
    """
    Why a service should get no traffic.
    """

    STARTING = "starting"
    DRAINING = "draining"
    DATABASE_CHECK_FAILED = "database_check_failed"
    POOL_EXHAUSTED = "pool_exhausted"


@dataclass(frozen=True, slots=True)
class HealthReport:
    """
    The verdict and the figures it is shown with. `reason` is None exactly when `status` is "ready"; `cause` is why the
    database did not answer, a word of `ConnectError.reason`, where that is the reason.
    """

    status: Literal["ready", "not_ready"]
    reason: NotReady | None
    pool_size: int
    pool_free: int
    cause: str | None = None

    @property
    def is_ready(self) -> bool:
        return self.reason is None


def liveness() -> Literal["alive"]:
    """
    Return the one answer there is: who can ask, on the loop, has it. A dead database is no reason to be restarted.
    """
    return "alive"


def readiness(db: Database, *, now: float, is_draining: bool = False) -> HealthReport:
    """
    Judge a database by the snapshots it keeps; nothing is opened, sent or waited for.

    `now` is monotonic seconds, the clock of the probe's times. `is_draining` adds what only the service knows: that
    it is about to stop, although the database still serves its last requests.
    """
    pool = db.get_stats()["pool_stats"]
    probe = db.health
    reason = reason_against(
        probe,
        is_connected=db.is_connected,
        is_draining=is_draining or db.is_draining,
        grace=db.config.ready_grace,
        now=now,
    )
    cause = probe.cause if reason is NotReady.DATABASE_CHECK_FAILED else None
    return HealthReport("ready" if reason is None else "not_ready", reason, pool["size"], pool["free"], cause)


def reason_against(
    probe: ProbeState, *, is_connected: bool, is_draining: bool, grace: float, now: float
) -> NotReady | None:
    """
    Return the first reason that holds, or None. `grace` is how many seconds without a single hand-off may pass while
    callers wait.

    A probe that failed outweighs a start that is not finished: "starting" promises that waiting is enough.
    """
    if is_draining:
        return NotReady.DRAINING
    if not probe.is_ok and probe.failures > 0:
        return NotReady.DATABASE_CHECK_FAILED
    if not (is_connected and probe.is_ok and probe.is_warm):
        return NotReady.STARTING
    if probe.no_handoff_since is not None and now - probe.no_handoff_since > grace:
        return NotReady.POOL_EXHAUSTED
    return None
