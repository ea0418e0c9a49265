"""Delays are pure arithmetic."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnus._backoff import full_jitter


@pytest.mark.parametrize(("attempt", "bound"), [(1, 0.05), (2, 0.1), (3, 0.2), (10, 1.0), (65, 1.0), (10_000, 1.0)])
def test_the_bound_grows_to_the_cap(attempt, bound):
    """The delay is drawn between 0 and the bound; a huge attempt overflows nothing."""
    drawn = []

    full_jitter(attempt, base=0.05, factor=2.0, cap=1.0, uniform=lambda low, high: drawn.append((low, high)) or low)

    assert drawn == [(0.0, pytest.approx(bound))]


@given(
    attempt=st.integers(1, 10**9),
    base=st.floats(0, 1e3),
    factor=st.floats(1, 1e4),
    cap=st.floats(0, 1e3),
    seed=st.integers(),
)
def test_a_delay_is_never_negative_and_never_above_the_cap(attempt, base, factor, cap, seed):
    """For every setting that can be configured."""
    delay = full_jitter(attempt, base=base, factor=factor, cap=cap, uniform=random.Random(seed).uniform)

    assert 0.0 <= delay <= cap
