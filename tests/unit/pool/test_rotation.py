"""Ends of life: within the lifetime, apart from each other."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
from hypothesis import given

from magnus.pool._rotation import end_of_life, pace

LIFETIME = 1800.0


def latest(_low: float, high: float) -> float:
    return high


def test_connections_opened_together_die_one_by_one():
    """A lifetime divided by the size lies between two."""
    ends: list[float] = []
    for _ in range(10):
        ends.append(end_of_life(0.0, LIFETIME, 10, ends, latest))

    ends.sort()
    assert ends[-1] == LIFETIME
    assert all(abs(after - before - 180.0) < 1.0 for before, after in itertools.pairwise(ends))


@given(
    st.integers(1, 30).flatmap(
        lambda size: st.tuples(st.just(size), st.lists(st.floats(-3000, 3000), max_size=size - 1))
    ),
    st.floats(0.0, 1.0),
)
def test_an_end_is_ahead_within_the_lifetime_and_apart_from_all_others(case, chance):
    """Whatever the others are."""
    size, others = case

    end = end_of_life(0.0, LIFETIME, size, others, lambda low, high: low + (high - low) * chance)

    assert 0.0 < end <= LIFETIME
    assert all(abs(end - other) >= pace(LIFETIME, size) * 0.999 for other in others)


@given(st.lists(st.floats(0.0, 1.0), min_size=200, max_size=200))
def test_rotation_never_comes_in_bursts(chances):
    """Replacing each at its end, for many generations, two ends are never closer than the pace."""
    size, draw = 5, iter(chances)
    ends: list[float] = []
    for _ in range(size):
        ends.append(end_of_life(0.0, LIFETIME, size, ends, lambda low, high: low + (high - low) * next(draw)))
    for _ in range(150):
        now = min(ends)
        ends.remove(now)
        end = end_of_life(now, LIFETIME, size, ends, lambda low, high: low + (high - low) * next(draw))
        assert end <= now + LIFETIME
        assert all(abs(end - other) >= pace(LIFETIME, size) * 0.999 for other in ends)
        ends.append(end)
