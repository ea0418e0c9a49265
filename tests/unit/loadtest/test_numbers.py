"""The arithmetic behind a verdict."""

from __future__ import annotations

import math
import random
from statistics import median

import hypothesis.strategies as st
import pytest
from hypothesis import given

from magnus.loadtest import compare, compare_apart, compare_shares, interval, stretches
from magnus.loadtest._numbers import percentile, steady_from, t_probability, t_quantile


@pytest.mark.parametrize(
    ("freedom", "p", "expected"),
    [(1, 0.975, 12.7062), (5, 0.995, 4.0321), (9, 0.995, 3.2498), (29, 0.975, 2.0452), (99, 0.975, 1.9842)],
)
def test_students_quantiles_are_those_of_the_tables(freedom, p, expected):
    """Of any textbook."""
    assert t_quantile(p, freedom) == pytest.approx(expected, abs=1e-4)
    assert t_probability(expected, freedom) == pytest.approx(p, abs=1e-5)
    assert t_probability(-expected, freedom) == pytest.approx(1 - p, abs=1e-5)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.floats(0.1, 100))
def test_a_percentile_is_the_smallest_value_that_enough_do_not_exceed(values, percent):
    """Nearest rank, as HDR histograms have it."""
    found = percentile(sorted(values), percent)

    assert sum(value <= found for value in values) >= percent / 100 * len(values) - 1e-9
    assert sum(value < found for value in values) < percent / 100 * len(values) + 1e-9


def test_nothing_has_no_percentile():
    """Rather than one of zero, which would look like a fast answer."""
    assert math.isnan(percentile([], 50))
    assert math.isnan(interval([]).estimate)


def test_a_warm_up_is_found_and_a_steady_course_is_left_whole():
    """Fifty slow slices before five hundred steady ones; noise alone is no warm-up."""
    rng = random.Random(5)
    steady = [1 + rng.gauss(0, 0.05) for _ in range(500)]

    assert 45 <= steady_from([10 - 0.15 * n for n in range(50)] + steady) <= 60
    assert steady_from(steady) <= 100
    assert steady_from([1.0, 2.0]) == 0


def test_equal_sides_differ_as_often_as_alpha_promises():
    """A thousand comparisons of the same with the same, at 1 %: about ten, and never thirty."""
    rng = random.Random(7)

    def rounds():
        drift = [math.exp(rng.gauss(0, 0.3)) for _ in range(8)]  # of the machine, in both neighbours
        a = [base * math.exp(rng.gauss(0, 0.05)) for base in drift]
        b = [base * math.exp(rng.gauss(0, 0.05)) for base in drift]
        return compare(a, b, alpha=0.01)

    found = [rounds() for _ in range(1000)]

    assert sum(one.is_different for one in found) <= 25
    assert sum(one.ratio.has(1.0) for one in found) >= 975


def test_a_tenth_more_is_found():
    """In at least 19 of 20, and the interval has the truth in it."""
    rng = random.Random(11)
    found = []
    for _ in range(20):
        drift = [math.exp(rng.gauss(0, 0.3)) for _ in range(10)]
        found.append(
            compare(
                [base * math.exp(rng.gauss(0, 0.02)) for base in drift],
                [1.1 * base * math.exp(rng.gauss(0, 0.02)) for base in drift],
            )
        )

    assert sum(one.is_different and one.ratio.low > 1 for one in found) >= 19
    assert sum(one.ratio.has(1.1) for one in found) >= 18


@pytest.mark.parametrize(("a", "b"), [([1, 2], [1, 2]), ([1, 2, 3], [1, 2]), ([1, 2, 0], [1, 2, 3])])
def test_too_few_rounds_or_impossible_ones_have_no_verdict(a, b):
    """Rather than a wrong one."""
    with pytest.raises(ValueError, match=r"pairs|above 0"):
        compare(a, b)


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=60))
def test_an_interval_holds_its_median(values):
    """And its bounds are values that were measured."""
    found = interval(values)

    assert found.low <= found.estimate <= found.high
    assert found.estimate == median(values)
    assert {found.low, found.high} <= set(values)


def test_runs_apart_that_are_equal_differ_as_often_as_alpha_promises():
    """A thousand comparisons of stretches of the same, with sides of unequal length, at 1 %."""
    rng = random.Random(11)

    def run(size):
        return [math.exp(rng.gauss(0, 0.08)) for _ in range(size)]

    wrong = sum(compare_apart(run(20), run(14)).is_different for _ in range(1000))

    assert 1 <= wrong <= 25


def test_a_run_that_is_a_tenth_slower_is_worse_and_the_other_way_round_better():
    """With the true ratio in the interval."""
    rng = random.Random(12)
    a = [math.exp(rng.gauss(0, 0.03)) for _ in range(20)]
    b = [1.1 * math.exp(rng.gauss(0, 0.03)) for _ in range(20)]

    assert compare_apart(a, b).verdict == "worse"
    assert compare_apart(b, a).verdict == "better"
    assert compare_apart(a, b).ratio.has(1.1)
    assert compare_apart([1.0] * 3, [1.0] * 3).verdict == "no difference"
    assert compare_apart([1.0] * 3, [2.0] * 3).as_dict()["effect"] is None
    with pytest.raises(ValueError, match="three stretches"):
        compare_apart([1.0] * 2, [1.0] * 9)


def test_shares_of_failures_are_told_apart_when_there_are_enough_of_them():
    """One of a thousand against two is nothing; one of ten thousand against fifty is something."""
    assert compare_shares(1, 1000, 2, 1000) > 0.5
    assert compare_shares(1, 10_000, 50, 10_000) < 1e-9
    assert compare_shares(0, 100, 0, 100) == compare_shares(0, 0, 5, 5) == 1.0


def test_stretches_are_weighted_means_of_equal_parts():
    """Forty seconds make twenty stretches of two; an empty second counts for nothing."""
    course = [(1, 1.0), (3, 5.0)] * 20

    assert stretches(course) == [4.0] * 20
    assert stretches([(0, 0.0), (2, 3.0)]) == [3.0]
