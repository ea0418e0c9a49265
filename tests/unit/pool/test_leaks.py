"""When a lease is a leak, who holds what, and what of its SQL is shown."""

from __future__ import annotations

from types import SimpleNamespace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from magnus.lanes import QueryPriority
from magnus.pool import Lease
from magnus.pool._leaks import Holding, Holdings, LeakLimits, Verdict


def lease(at=0.0):
    return Lease(SimpleNamespace(con=None), QueryPriority.NORMAL, at)


@pytest.mark.parametrize(
    ("threshold", "limit", "silent", "is_reported", "verdict"),
    [
        (30.0, 600.0, 29.9, False, Verdict.FINE),
        (30.0, 600.0, 30.0, False, Verdict.REPORT),
        (30.0, 600.0, 599.0, True, Verdict.FINE),
        (30.0, 600.0, 600.0, True, Verdict.RECLAIM),
        (0.0, 600.0, 599.0, False, Verdict.FINE),
        (30.0, 0.0, 1e6, True, Verdict.FINE),
        (0.0, 0.0, 1e6, False, Verdict.FINE),
        (30.0, 10.0, 10.0, False, Verdict.RECLAIM),
    ],
)
def test_silence_is_judged_by_threshold_and_limit(threshold, limit, silent, is_reported, verdict):
    """Once reported, once taken back; 0 is never."""
    assert LeakLimits(threshold, limit).judge(silent, is_reported=is_reported) is verdict


@pytest.mark.parametrize(
    ("threshold", "limit", "pause"), [(30.0, 600.0, 5.0), (1.0, 600.0, 0.25), (0.0, 2.0, 0.5), (0.0, 0.0, 0.0)]
)
def test_a_sweep_is_no_more_often_than_the_limits_need(threshold, limit, pause):
    """And there is none when both are off."""
    assert LeakLimits(threshold, limit).pause == pause


def test_a_lease_is_silent_since_nothing_runs_on_it():
    """A statement under way, or one that ended since the last look, starts the silence anew."""
    held = lease(at=100.0)
    holding = Holding(held, None, (), None)
    assert holding.silence(110.0) == 10.0

    held.steps += 1
    assert holding.silence(500.0) == 0.0
    assert holding.silence(900.0) == 0.0
    held.steps += 1
    assert holding.silence(905.0) == 0.0
    assert holding.silence(935.0) == 30.0
    held.steps += 2
    assert holding.silence(940.0) == 0.0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=40))
def test_the_register_knows_exactly_what_is_held(program):
    """Any order of acquires and returns, by any task; the newest of a task first."""
    register, model = Holdings(), []
    for task, action in program:
        if action < 5 or not model:
            model.append((task, register.add(lease(), task, ())))
        else:
            register.remove(model.pop(action % len(model))[1])
        assert set(register) == {holding for _, holding in model}
        assert bool(register) is bool(model)
        for each in range(4):
            own = [holding for other, holding in model if other == each]
            assert register.of(each) is (own[-1] if own else None)
