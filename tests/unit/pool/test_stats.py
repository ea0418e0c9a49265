"""Histograms and snapshots."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from magnus.lanes import QueryPriority
from magnus.pool._stats import Histogram, LaneCounters, summed


def test_an_empty_histogram_has_percentiles_of_zero():
    """Nothing waited for nothing."""
    assert Histogram().percentiles(50, 99) == (0.0, 0.0)


@given(st.lists(st.floats(0.0, 100_000.0), min_size=1, max_size=200), st.sampled_from([1, 50, 90, 95, 99, 100]))
def test_a_percentile_is_at_most_a_sixteenth_too_high_and_never_too_low(durations, percent):
    """To the microsecond below which nothing is told apart."""
    histogram = Histogram()
    for duration in durations:
        histogram.record(duration)

    (found,) = histogram.percentiles(percent)

    rank = max(1, -(-percent * len(durations) // 100))
    exact = int(sorted(durations)[rank - 1] * 1e6) / 1e6
    assert exact - 1e-9 <= found <= exact * 17 / 16 + 1e-6


@pytest.mark.parametrize("duration", [-5.0, 0.0, 1e-9])
def test_nothing_and_less_count_as_zero(duration):
    """A clock moved by hand does no harm."""
    histogram = Histogram()

    histogram.record(duration)

    assert histogram.percentiles(100) == (0.0,)


def test_what_is_longer_than_the_longest_bucket_is_counted_in_it():
    """Months stay months."""
    histogram = Histogram()

    histogram.record(1e12)

    assert histogram.percentiles(100)[0] > 4e6


def test_counters_are_frozen_into_a_snapshot():
    """Beside what the lane holds now."""
    counters = LaneCounters()
    counters.acquired_total, counters.timeouts, counters.rejected = 7, 2, 1
    counters.wait.record(0.5)

    found = counters.snapshot(QueryPriority.LOW, acquired=1, waiting=3, cap=6)

    assert (found.lane, found.acquired, found.waiting, found.cap) == (QueryPriority.LOW, 1, 3, 6)
    assert (found.acquired_total, found.timeouts, found.rejected) == (7, 2, 1)
    assert found.p50 == found.p99 == pytest.approx(0.5, rel=1 / 16)


@given(st.lists(st.floats(0.0, 20.0), max_size=300), st.integers(0, 50))
def test_a_distribution_counts_what_is_up_to_a_bound_and_a_little_more(durations, zeros):
    """Never fewer than there are, never one that is more than a sixteenth above the bound; the sum is exact."""
    bounds = (0.001, 0.01, 0.1, 1.0, 10.0)
    histogram = Histogram()
    for duration in durations:
        histogram.record(duration)
    for _ in range(zeros):
        histogram.record_zero()

    found = histogram.cumulative(bounds)

    for bound, count in zip(bounds, found.counts, strict=True):
        at_most = sum(int(duration * 1e6) <= bound * 1e6 for duration in durations) + zeros
        nearly = sum(duration <= bound * 17 / 16 + 1e-6 for duration in durations) + zeros
        assert at_most <= count <= nearly
    assert found.total == len(durations) + zeros
    assert found.seconds == pytest.approx(sum(durations))


@given(st.lists(st.lists(st.floats(0.0, 20.0), max_size=300), min_size=1, max_size=5))
def test_merging_before_or_after_counting_is_the_same(parts):
    """And the parts are left as they were."""
    bounds = (0.001, 0.1, 10.0)
    histograms = [Histogram() for _ in parts]
    for histogram, durations in zip(histograms, parts, strict=True):
        for duration in durations:
            histogram.record(duration)

    merged = Histogram.merged(histograms).cumulative(bounds)
    added = summed([histogram.cumulative(bounds) for histogram in histograms])

    assert (merged.counts, merged.total) == (added.counts, added.total)
    assert merged.seconds == pytest.approx(added.seconds)
    assert [histogram.total for histogram in histograms] == [len(durations) for durations in parts]
