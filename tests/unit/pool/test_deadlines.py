"""Many deadlines on one timer."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from magnus.pool._deadlines import Deadlines


def test_an_entry_is_due_after_its_deadline_and_within_a_bucket():
    """Never early, at most 10 ms late."""
    deadlines: Deadlines[str] = Deadlines()
    deadlines.add("a", 5.004)

    due = deadlines.next_due()

    assert due is not None
    assert 5.004 <= due <= 5.0141
    assert deadlines.due(5.003) == []
    assert deadlines.due(due) == ["a"]
    assert deadlines.next_due() is None


def test_a_discarded_entry_is_never_reported():
    """And does not keep the timer busy."""
    deadlines: Deadlines[str] = Deadlines()
    deadlines.add("a", 1.0)
    deadlines.add("b", 2.0)

    deadlines.discard("a", 1.0)
    deadlines.discard("unknown", 77.0)

    assert deadlines.next_due() == 2.01
    assert deadlines.due(10.0) == ["b"]


def test_only_an_earlier_entry_moves_the_timer():
    """The answer of `add` tells the shell whether to look."""
    deadlines: Deadlines[str] = Deadlines()

    assert deadlines.add("a", 5.0)
    assert not deadlines.add("b", 5.0)
    assert not deadlines.add("c", 6.0)
    assert deadlines.add("d", 4.0)


@given(st.lists(st.floats(0.0, 100.0), max_size=60), st.sets(st.integers(0, 59)), st.floats(0.0, 110.0))
def test_due_is_what_has_passed_and_was_not_discarded(deadlines, discarded, now):
    """Against a plain list."""
    wheel: Deadlines[int] = Deadlines()
    for entry, deadline in enumerate(deadlines):
        wheel.add(entry, deadline)
    for entry in discarded & set(range(len(deadlines))):
        wheel.discard(entry, deadlines[entry])

    found = wheel.due(now)

    kept = {entry: deadline for entry, deadline in enumerate(deadlines) if entry not in discarded}
    assert len(found) == len(set(found))
    assert all(kept[entry] <= now for entry in found)
    assert {entry for entry, deadline in kept.items() if deadline + 0.011 <= now} <= set(found)
