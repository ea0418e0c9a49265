"""Who waits for whom: certain deadlocks are told from waits that somebody can end."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from magnus.pool._nested import Held, is_stuck

CAPS = (4, 3, 3, 2, 1)
N, B = 2, 4  # NORMAL, BACKGROUND


@pytest.mark.parametrize(
    ("owner", "held", "caps", "stuck"),
    [
        ("a", [Held(N, "a", N)], (1,) * 5, True),
        ("a", [Held(N, "a", N)], (2,) * 5, False),
        ("a", [Held(N, "a", N), Held(N, "b", None)], (2,) * 5, False),
        ("a", [Held(N, "a", N), Held(N, "b", N)], (2,) * 5, True),
        ("a", [Held(N, "a", N), Held(N, "a", N), Held(N, "b", N)], (3,) * 5, True),
        # b can be served in a lane that has room, and then gives back what a waits for
        ("a", [Held(N, "a", N), Held(N, "b", 0), Held(N, "c", N)], CAPS, False),
        # the lane's own cap binds, although the pool has room
        ("a", [Held(B, "a", B)], CAPS, True),
        ("a", [Held(B, "a", 0)], CAPS, False),
        # a free slot of a higher lane does not count under the cap that binds
        ("a", [Held(B, "a", B), Held(0, "b", None)], CAPS, True),
        ("a", [Held(N, "a", N), Held(N, "b", N), Held(B, "c", None)], CAPS, False),
    ],
)
def test_a_wait_is_hopeless_when_all_who_could_end_it_wait_too(owner, held, caps, stuck):
    """The pool's size and every lane's cap count."""
    assert is_stuck(owner, held, caps) is stuck


def simulate(owner, held, caps):
    """
    Let everybody who is free give back everything, and serve whoever can be served, as long as anything happens.
    """
    present = list(held)
    waiting = {slot.owner: slot.waits for slot in held if slot.waits is not None}
    while True:
        before = (len(present), len(waiting))
        present = [slot for slot in present if slot.owner in waiting]
        used = [sum(slot.rank >= rank for slot in present) for rank in range(5)]
        for other, rank in list(waiting.items()):
            if all(used[cap] < caps[cap] for cap in range(rank + 1)):
                del waiting[other]  # it gets a slot, does its work and gives it back with the rest
        if owner not in waiting:
            return False
        if (len(present), len(waiting)) == before:
            return True


@st.composite
def situations(draw):
    caps = sorted(draw(st.lists(st.integers(1, 6), min_size=5, max_size=5)), reverse=True)
    waits = {owner: draw(st.none() | st.integers(0, 4)) for owner in "abcdef"}
    waits["a"] = draw(st.integers(0, 4))
    held, used = [], [0] * 5
    for owner, rank in [
        ("a", draw(st.integers(0, 4))),
        *draw(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 4)), max_size=8)),
    ]:
        if all(used[cap] < caps[cap] for cap in range(rank + 1)):
            held.append(Held(rank, owner, waits[owner]))
            used = [count + (cap <= rank) for cap, count in enumerate(used)]
    return held, caps


@given(situations())
def test_the_verdict_is_that_of_playing_it_out(situation):
    """For any holders, waits and caps."""
    held, caps = situation

    assert is_stuck("a", held, caps) is simulate("a", held, caps)
