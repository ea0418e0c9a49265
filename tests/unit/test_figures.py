"""What `get_stats` shows is made of counters and snapshots alone."""

from magnus._figures import QueryStats, pool_figures
from magnus.lanes import LANES, QueryPriority
from magnus.pool import LaneSnapshot
from tests.facade_fakes import figures

NORMAL = QueryPriority.NORMAL


def test_statements_are_counted_by_outcome_and_duration():
    """Total is successful plus failed; slow is over the threshold; the average is of what ran."""
    stats = QueryStats(slow_after=0.1)
    stats.ran(0.010, NORMAL, is_successful=True)
    stats.ran(0.200, QueryPriority.LOW, is_successful=True)
    stats.ran(0.030, NORMAL, is_successful=False)
    stats.never_ran()

    found = stats.snapshot()

    assert (found["total"], found["successful"], found["failed"]) == (4, 2, 2)
    assert (found["slow_queries"], found["outcome_unknown"], found["timeouts"]) == (1, 0, 0)
    assert found["avg_time_ms"] == 80.0


def test_percentiles_are_within_a_sixteenth_of_the_truth():
    """A histogram of buckets, not of every value."""
    stats = QueryStats(slow_after=1.0)
    for micros in range(1, 10_001):
        stats.ran(micros / 1e6, LANES[micros % 5], is_successful=True)

    found = stats.snapshot()

    for name, truth in (("p50_ms", 5.0), ("p95_ms", 9.5), ("p99_ms", 9.9)):
        assert truth <= found[name] <= truth * 1.07


def test_nothing_yet_is_zero():
    """No division, no missing key."""
    assert set(QueryStats(0.1).snapshot().values()) == {0}


def test_a_pool_is_shown_with_its_lanes():
    """`size` is what is open, `free` what is idle, `used` what is out."""
    lane = LaneSnapshot(QueryPriority.LOW, 1, 2, 6, 10, 3, 4, 2, 0.001, 0.002, 0.003, 0.004, 0.005, 0.006)

    found = pool_figures(
        figures(size=12, idle=7, acquired=3, connecting=2, waiting=2, lanes=(lane,)), is_connected=True, max_size=30
    )

    assert (found["connected"], found["size"], found["free"], found["used"]) == (True, 10, 7, 3)
    assert (found["max_size"], found["waiting"], found["utilization"]) == (30, 2, 0.1)
    assert found["lanes"] == {
        "low": {
            "used": 1, "waiting": 2, "cap": 6, "acquired": 10, "timeouts": 3, "rejected": 4, "shed": 2,
            "wait_p50_ms": 1.0, "wait_p95_ms": 2.0, "wait_p99_ms": 3.0,
            "use_p50_ms": 4.0, "use_p95_ms": 5.0, "use_p99_ms": 6.0,
        }
    }  # fmt: skip
