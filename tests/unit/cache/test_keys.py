from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from magnus import ConfigError
from magnus.cache._keys import key_of


@dataclass(frozen=True)
class Frozen:
    number: int


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (1, True), (1, 1.0), (1, Decimal(1)), (0.0, -0.0), (Decimal("1.0"), Decimal("1.00")), ((1,), (True,)),
        ("1", 1), (b"a", "a"), (None, False), (((1,),), ((1.0,),)), (Frozen(1), Frozen(2)),
        (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))),
    ],
)  # fmt: skip
def test_what_is_not_written_alike_is_another_question(one, two):
    """Also where Python calls it equal: the answer may show the difference."""
    assert key_of("f", [one], {}) != key_of("f", [two], {})


@pytest.mark.parametrize("value", [1, "a", (1, ("b", Decimal("1.10"))), None, Frozen(1), frozenset({1, 2})])
def test_the_same_arguments_are_the_same_question(value):
    assert key_of("f", [value, 2], {"role": "r"}) == key_of("f", [value, 2], {"role": "r"})
    assert hash(key_of("f", [value], {})) == hash(key_of("f", [value], {}))


def test_function_and_settings_are_part_of_it():
    """One tenant's answer is never another's."""
    keys = {
        key_of("f", [1], {}), key_of("g", [1], {}), key_of("f", [1], {"role": "a"}), key_of("f", [1], {"role": "b"}),
        key_of("f", [1], {"app.tenant": "a"}), key_of("f", [1, 1], {}),
    }  # fmt: skip
    assert len(keys) == 6


@pytest.mark.parametrize("value", [[1], {"a": 1}, {1}, ([1],)])
def test_what_can_be_changed_is_refused(value):
    with pytest.raises(ConfigError, match="can be changed"):
        key_of("f", [1, value], {})
