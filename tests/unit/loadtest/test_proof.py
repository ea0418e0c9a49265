"""A verdict over slices in turns."""

from __future__ import annotations

import math
import random

import pytest

from magnus.errors import ConfigError
from magnus.loadtest import Design
from magnus.loadtest.proof import summed_up, turns


def pairs(seed: int, factor: float, count: int = 10, noise: float = 0.03):
    """
    Slices on a machine that drifts by far more than what is looked for.
    """
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        drift = math.exp(rng.gauss(0, 0.3))
        a, b = drift * math.exp(rng.gauss(0, noise)), factor * drift * math.exp(rng.gauss(0, noise))
        found.append(({"mean": a, "p50": a, "p99": 3 * a}, {"mean": b, "p50": b, "p99": 3 * b}))
    return found


def test_turns_go_a_b_b_a():
    """Each side is first as often as the other, so that a steady drift favours neither."""
    assert [side for _, side in turns(4)] == [0, 1, 1, 0, 0, 1, 1, 0]


def test_an_equal_pair_differs_as_often_as_alpha_promises():
    """A thousand times at 1 %: about ten."""
    wrong = sum(summed_up(pairs(seed, 1.0), Design("x")).verdict != "no difference" for seed in range(1000))

    assert 1 <= wrong <= 25


def test_a_tenth_slower_is_found_in_nineteen_of_twenty():
    """And a tenth faster is better."""
    found = [summed_up(pairs(seed, 1.1), Design("x")).verdict for seed in range(200)]

    assert found.count("worse") >= 190
    assert summed_up(pairs(1, 0.9), Design("x")).verdict == "better"


def test_more_failures_are_worse_however_fast():
    """A server that answers errors at once has not become better."""
    fast = summed_up(pairs(1, 0.5), Design("x"), failed=(0, 300), requests=(1000, 1000))
    few = summed_up(pairs(1, 0.5), Design("x"), failed=(1, 2), requests=(1000, 1000))

    assert (fast.verdict, few.verdict) == ("worse", "better")
    assert fast.as_dict()["comparisons"]["mean"]["verdict"] == "better"


@pytest.mark.parametrize("bad", [{"pairs": 4}, {"by": "p42"}])
def test_a_design_that_says_nothing_is_refused(bad):
    """Before anything is sent."""
    with pytest.raises(ConfigError):
        Design("x", **bad)
