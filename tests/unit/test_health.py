"""Readiness is decided from snapshots, with four fixed reasons."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from magnus.health import NotReady, liveness, readiness, reason_against


@dataclass(frozen=True)
class Probe:
    """
    The snapshot of a database that is well.
    """

    is_ok: bool = True
    last_ok: float | None = 99.0
    failures: int = 0
    is_warm: bool = True
    no_handoff_since: float | None = None


@dataclass
class Snapshots:
    """
    What `readiness` may look at; anything else it touches is an AttributeError.
    """

    health: Probe = field(default_factory=Probe)
    is_connected: bool = True
    is_draining: bool = False
    config: Any = field(default_factory=lambda: SimpleNamespace(ready_grace=15.0))

    def get_stats(self) -> dict[str, Any]:
        return {"pool_stats": {"size": 10, "free": 0}}


def judge(probe: Probe, *, is_connected: bool = True, is_draining: bool = False, now: float = 100.0) -> NotReady | None:
    return reason_against(probe, is_connected=is_connected, is_draining=is_draining, grace=15.0, now=now)


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        (Probe(), None),
        (Probe(is_ok=False, last_ok=None, is_warm=False), NotReady.STARTING),
        (Probe(is_warm=False), NotReady.STARTING),
        (Probe(is_ok=False, last_ok=None, failures=1, is_warm=False), NotReady.DATABASE_CHECK_FAILED),
        (Probe(is_ok=False, failures=3), NotReady.DATABASE_CHECK_FAILED),
        (Probe(no_handoff_since=99.0), None),
        (Probe(no_handoff_since=85.0), None),
        (Probe(no_handoff_since=84.9), NotReady.POOL_EXHAUSTED),
        (Probe(is_ok=False, failures=1, no_handoff_since=0.0), NotReady.DATABASE_CHECK_FAILED),
    ],
)
def test_the_reason_follows_from_the_probe(probe, expected):
    """Saturation counts only after the grace period without one hand-off; a failed probe outweighs the rest."""
    assert judge(probe) is expected


def test_draining_outweighs_everything():
    """Who stops says so first, whatever the database does."""
    assert judge(Probe(), is_draining=True) is NotReady.DRAINING
    assert judge(Probe(is_ok=False, failures=9), is_connected=False, is_draining=True) is NotReady.DRAINING


def test_a_database_that_was_never_connected_is_starting():
    """Before the first connect there is nothing to blame."""
    assert judge(Probe(), is_connected=False) is NotReady.STARTING


def test_a_full_pool_that_hands_on_is_ready():
    """No connection free is no reason: the service does its work."""
    report = readiness(Snapshots(), now=100.0)
    assert (report.status, report.reason, report.pool_size, report.pool_free) == ("ready", None, 10, 0)
    assert report.is_ready


def test_the_service_may_drain_before_its_database():
    """Either of both that drains makes the service not ready."""
    assert readiness(Snapshots(), now=100.0, is_draining=True).reason is NotReady.DRAINING
    assert readiness(Snapshots(is_draining=True), now=100.0).reason is NotReady.DRAINING


def test_the_grace_period_is_the_configured_one():
    """`ready_grace` of the database's settings bounds the saturation."""
    snapshots = Snapshots(health=Probe(no_handoff_since=90.0))
    assert readiness(snapshots, now=100.0).is_ready
    snapshots.config = SimpleNamespace(ready_grace=5.0)
    report = readiness(snapshots, now=100.0)
    assert (report.status, report.reason) == ("not_ready", NotReady.POOL_EXHAUSTED)


def test_the_reasons_are_fixed_words():
    """Monitoring may match on them."""
    assert [str(reason) for reason in NotReady] == ["starting", "draining", "database_check_failed", "pool_exhausted"]


def test_liveness_asks_nobody():
    """It has no argument that could fail."""
    assert liveness() == "alive"
