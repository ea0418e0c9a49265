"""Values for parameters: as a column's statistics say, in order, beyond what is there, or made up."""

from __future__ import annotations

import datetime as dt
import random
from collections import Counter
from decimal import Decimal

import pytest

from magnus.loadtest._draws import Spread, fresh, listed, made_up, prefix


def test_common_values_come_as_often_as_they_are_there():
    """A share of 0.3 is three in ten; the rest is spread over the histogram's steps."""
    draw = Spread([7, 8], [0.3, 0.2], [100, 200, 300]).draw(is_between=True)
    found = [draw(random.Random(seed)) for seed in range(4000)]
    counts = Counter(found)
    assert 0.26 < counts[7] / 4000 < 0.34
    assert 0.17 < counts[8] / 4000 < 0.23
    rest = [value for value in found if value not in {7, 8}]
    assert len(set(rest)) > 150
    assert (min(rest) >= 100, max(rest) <= 300) == (True, True)
    assert 0.4 < sum(value < 200 for value in rest) / len(rest) < 0.6


def test_only_values_that_are_there_where_others_would_find_nothing():
    """The ends of the steps alone."""
    draw = Spread([], [], ["a", "k", "z"]).draw(is_between=False)
    assert {draw(random.Random(seed)) for seed in range(100)} == {"a", "k"}


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (1, 9),
        (0.5, 1.5),
        (Decimal("1.00"), Decimal("2.00")),
        (dt.date(2020, 1, 1), dt.date(2021, 1, 1)),
        (dt.datetime(2020, 1, 1, tzinfo=dt.UTC), dt.datetime(2021, 1, 1, tzinfo=dt.UTC)),
        ("a", "b"),
        (False, True),
    ],
)
def test_a_value_within_a_step_is_of_its_type_and_between_its_ends(low, high):
    """With as many decimals as the ends have."""
    draw = Spread([], [], [low, high]).draw(is_between=True)
    for seed in range(50):
        found = draw(random.Random(seed))
        assert type(found) is type(low)
        assert low <= found <= high
        assert not isinstance(found, Decimal) or found.as_tuple().exponent == -2


def test_a_range_is_one_step():
    """Its ends in order, never the same twice; without two values there is none."""
    draw = Spread([], [], [1, 5, 9]).step()
    assert {draw(random.Random(seed)) for seed in range(50)} == {(1, 5), (5, 9)}
    assert Spread([3], [1.0], []).step() is None
    assert Spread([], [], [{}, {}]).step() is None


def test_new_keys_are_beyond_those_that_are_there():
    """So that an INSERT meets no other row; a type that has no such values says so."""
    draw = fresh("int4", Spread([], [], [1, 1000]))
    assert all(draw(random.Random(seed)) > 1000 for seed in range(50))
    assert len({fresh("uuid", Spread([], [], []))(random.Random(seed)) for seed in range(50)}) == 50
    assert fresh("date", Spread([], [], [])) is None


def test_lists_patterns_and_what_nothing_is_known_of():
    """As many values as asked for; a prefix; None for a type of somebody's own."""
    assert listed(lambda _: 1, 3)(random.Random(1)) == [1, 1, 1]
    assert prefix(lambda _: "owner7")(random.Random(1)) == "own%"
    assert len(made_up("text[]")(random.Random(1))) == 1
    assert made_up("polygon") is None
