"""Priorities, and the scope that carries priority and deadline."""

import asyncio
import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnus import lanes
from magnus.errors import ConfigError
from magnus.lanes import LANES, QUERY_TIMEOUTS, QueryPriority

maybe_lane = st.none() | st.sampled_from(LANES)


def test_priorities_and_limits_are_those_of_the_contract():
    """Five words, five limits."""
    assert {lane.value: QUERY_TIMEOUTS[lane] for lane in QueryPriority} == {
        "critical": 5.0, "high": 10.0, "normal": 30.0, "low": 60.0, "background": 120.0,
    }  # fmt: skip


@pytest.mark.parametrize("word", ["low", "LOW", "Low", QueryPriority.LOW])
def test_a_lane_is_read_from_its_word(word):
    """In any case."""
    assert lanes.parse(word) is QueryPriority.LOW


@pytest.mark.parametrize("word", ["", "urgent", " low", None, 1])
def test_an_unknown_lane_is_refused(word):
    """The error lists the lanes there are."""
    with pytest.raises(ConfigError, match="critical, high, normal, low, background"):
        lanes.parse(word)


def test_without_a_scope_a_call_is_normal_or_what_it_says():
    """NORMAL is the default."""
    assert lanes.current() is None
    assert lanes.resolve(None) is QueryPriority.NORMAL
    assert lanes.resolve(QueryPriority.HIGH) is QueryPriority.HIGH


@given(maybe_lane, maybe_lane)
def test_a_scope_can_only_lower(outer, own):
    """Whatever a call asks for, it never runs above the scope around it."""
    with lanes.scope(outer):
        found = lanes.resolve(own)

    assert found is lanes.lower(outer, own) or (found is QueryPriority.NORMAL and outer is own is None)
    if outer is not None:
        assert LANES.index(found) >= LANES.index(outer)


@given(st.lists(maybe_lane, max_size=4))
def test_nested_scopes_add_up_to_the_lowest(nested):
    """However deep."""
    scopes = [lanes.scope(lane) for lane in nested]
    for one in scopes:
        one.__enter__()
    found = lanes.resolve(None)
    for one in reversed(scopes):
        one.__exit__(None, None, None)

    asked = [lane for lane in nested if lane is not None]
    assert found is (max(asked, key=LANES.index) if asked else QueryPriority.NORMAL)
    assert lanes.current() is None


def test_a_nested_deadline_is_the_earlier_one():
    """An inner scope cannot outlast the outer."""
    with lanes.scope(timeout=1.0) as outer:
        with lanes.scope(timeout=100.0) as longer:
            assert longer.deadline == outer.deadline
        with lanes.scope(timeout=0.1) as shorter:
            assert shorter.deadline < outer.deadline
        with lanes.scope(QueryPriority.LOW) as silent:
            assert silent.deadline == outer.deadline
    assert abs(outer.deadline - time.monotonic()) < 2.0


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_an_impossible_timeout_is_refused(timeout):
    """Before the block begins."""
    with pytest.raises(ConfigError, match="timeout"):
        lanes.scope(timeout=timeout).__enter__()


async def test_gathered_tasks_are_inside_the_scope():
    """They inherit it."""

    async def child():
        return lanes.resolve(None)

    with lanes.scope(QueryPriority.LOW):
        assert set(await asyncio.gather(child(), child())) == {QueryPriority.LOW}


async def test_a_task_that_outlives_its_scope_falls_back_to_defaults():
    """It never inherits a dead deadline."""
    is_over = asyncio.Event()

    async def straggler():
        inside = lanes.current()
        await is_over.wait()
        return inside, lanes.current(), lanes.resolve(None)

    with lanes.scope(QueryPriority.CRITICAL, timeout=0.001) as scope:
        task = asyncio.create_task(straggler())
        await asyncio.sleep(0)
    is_over.set()

    assert await task == (scope, None, QueryPriority.NORMAL)


def test_a_scope_closes_with_its_block_even_when_that_raises():
    """The context is as it was."""
    with pytest.raises(KeyError), lanes.scope(QueryPriority.LOW):
        raise KeyError

    assert lanes.current() is None


@pytest.mark.parametrize(("a", "b"), list(itertools.product([None, 1.0, 2.0], repeat=2)))
def test_the_earlier_of_two_deadlines(a, b):
    """None is no deadline."""
    ends = [end for end in (a, b) if end is not None]

    assert lanes.earlier(a, b) == (min(ends) if ends else None)
