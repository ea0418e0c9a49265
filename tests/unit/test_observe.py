"""Events: names and fields as the contract has them, frozen."""

import dataclasses

import pytest

from magnus import observe


@pytest.mark.parametrize(
    ("event", "name", "level", "fields"),
    [
        (observe.PoolWarmed(10, 30), "database_pool_warmed", "info", {"connections", "pool_size"}),
        (
            observe.WarmupFailed(0, 10, "OSError", "refused"),
            "database_warmup_failed",
            "error",
            {"connections", "wanted", "error_type", "error"},
        ),
        (
            observe.Retry(1, 0.05, "OSError", "refused"),
            "database_retry",
            "warning",
            {"attempt", "delay", "error_type", "error"},
        ),
        (
            observe.QueryTimedOut("low", 60.0, 60.1, "SELECT"),
            "query_timeout",
            "error",
            {"priority", "timeout", "elapsed", "query"},
        ),
        (
            observe.HealthCheckFailed(1, "OSError"),
            "database_health_check_failed",
            "warning",
            {"failures", "error_type", "reason"},
        ),
        (observe.HealthCheckRecovered(3, 2.5), "database_health_check_recovered", "info", {"failures", "seconds"}),
        (
            observe.PoolHighUtilization(0.95, 29, 30, 1),
            "pool_high_utilization",
            "warning",
            {"utilization", "used", "total", "free"},
        ),
        (
            observe.PoolUtilizationNormal(0.5, 15, 30, 15),
            "pool_utilization_normal",
            "info",
            {"utilization", "used", "total", "free"},
        ),
        (
            observe.ConnectFailed("unreachable", "OSError", 1),
            "database_connect_failed",
            "warning",
            {"reason", "error_type", "failures"},
        ),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_an_event_has_its_name_level_and_fields(event, name, level, fields):
    """These are the words in logs; dashboards and alerts hang on them."""
    assert (event.name, event.level, set(event.fields())) == (name, level, fields)


def test_an_event_cannot_be_changed():
    """Every observer gets the same object."""
    event = observe.PoolWarmed(10, 30)

    with pytest.raises(dataclasses.FrozenInstanceError):
        event.connections = 11


def test_every_event_has_a_name_of_its_own():
    """And a level that logging knows."""
    kinds = [kind for kind in vars(observe).values() if isinstance(kind, type)]
    events = [kind for kind in kinds if issubclass(kind, observe.Event) and kind is not observe.Event]

    assert len({event.name for event in events}) == len(events) > 8
    assert {event.level for event in events} <= {"info", "warning", "error"}
