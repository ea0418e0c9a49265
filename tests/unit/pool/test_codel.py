"""Shedding: a burst passes, a standing queue is cut, and nobody is shed who did not ask for a lane."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from magnus.lanes import LANES
from magnus.pool import lane_table
from magnus.pool._codel import Codel
from magnus.pool._lanes import Lanes, Waiter
from magnus.pool._limits import Limits
from magnus.pool._slots import Connect, Expire, HandOff
from magnus.pool._state import PoolState

CRITICAL, HIGH, NORMAL, LOW, BACKGROUND = range(5)
TARGETS = dict.fromkeys(LANES[NORMAL:], 1.0)  # an interval is ten seconds


class Signal:
    def __init__(self) -> None:
        self.is_done = False

    def done(self) -> bool:
        return self.is_done

    def set_result(self, _result: None, /) -> None:
        self.is_done = True


def waiter(rank: int, since: float, deadline: float | None = None, *, may_be_shed: bool = True) -> Waiter:
    found = Waiter(rank, since, deadline, Signal())
    found.may_be_shed = may_be_shed
    return found


def standing(rank: int, *, may_be_shed: bool = True, **table) -> list[Waiter]:
    """
    Serve one waiter a second, each of whom has waited five, for thirty seconds; return those that were shed.
    """
    lanes = Lanes(lane_table(10, **({"wait_targets": TARGETS} | table)))
    for number in range(200):
        lanes.join(waiter(rank, -5.0 + number, may_be_shed=may_be_shed))
    shed: list[Waiter] = []
    for second in range(30):
        found = lanes.next(float(second), shed)
        if found is not None:
            lanes.leave(found.rank)
    return shed


@pytest.mark.parametrize("rank", [NORMAL, LOW, BACKGROUND])
def test_a_queue_that_stands_is_cut(rank):
    """Only after an interval, and only those that waited more than twice the target; they know that they were shed."""
    shed = standing(rank)

    assert shed
    assert all(each.is_shed for each in shed)
    assert min(each.since for each in shed) >= 4.0


@pytest.mark.parametrize("rank", [CRITICAL, HIGH])
def test_critical_and_high_are_never_shed(rank):
    """However long they stand."""
    assert standing(rank) == []


def test_who_named_no_lane_is_not_shed():
    """The queue stands all the same."""
    assert standing(NORMAL, may_be_shed=False) == []


def test_without_targets_nobody_is_shed():
    """Shedding that is switched off."""
    assert standing(BACKGROUND, wait_targets={}) == []


def test_a_burst_is_served_to_its_end():
    """Long waits that end within an interval are no standing queue."""
    codel = Codel(1.0)

    assert not any(codel.is_shed(0.0, None, second / 10, is_last=second == 90) for second in range(91))


def test_one_short_wait_in_an_interval_proves_that_the_queue_runs_empty():
    """The shortest wait counts, not the mean."""
    codel = Codel(1.0)

    for second in range(100):
        wait = 0.5 if second % 10 == 5 else 9.0
        assert not codel.is_shed(second - wait, None, float(second), is_last=False)


def test_a_queue_that_runs_empty_is_not_standing():
    """Even if those that empty it waited long."""
    codel = Codel(1.0)

    assert not any(codel.is_shed(now - 5.0, None, float(now), is_last=now % 9 == 0) for now in range(60))


def test_what_was_long_ago_says_nothing_about_today():
    """A queue that stood yesterday does not shed this morning's first burst."""
    codel = Codel(1.0)
    for second in range(30):
        codel.is_shed(second - 5.0, None, float(second), is_last=False)
    assert codel.is_overloaded

    assert not codel.is_shed(5000.0, None, 5009.0, is_last=False)
    assert not codel.is_overloaded


def test_the_last_in_the_queue_is_never_shed_for_its_wait():
    """Behind it nobody waits who would be served sooner."""
    codel = Codel(1.0)
    for second in range(30):
        codel.is_shed(second - 5.0, None, float(second), is_last=False)

    assert not codel.is_shed(25.0, None, 30.0, is_last=True)


def test_an_outage_sheds_nobody():
    """Waits begin anew when there is a server again."""
    state = PoolState(Limits(0, 1, wait_targets=TARGETS), uniform=lambda low, _high: low)
    waiters = [waiter(NORMAL, 0.0) for _ in range(20)]
    actions = [action for each in waiters for action in state.wait(each, 0.0)]
    (connect,) = (action for action in actions if isinstance(action, Connect))
    (again,) = state.connect_failed(connect.slot, 1.0)

    actions = state.opened(again.slot, object(), 500.0)
    for second in range(1, 20):
        actions += state.release(again.slot, 500.0 + second * 0.75)

    assert not [action for action in actions if isinstance(action, Expire)]
    assert [action.waiter for action in actions if isinstance(action, HandOff)] == waiters


def test_who_has_less_time_than_the_median_service_is_shed():
    """Once enough services were seen; its answer would come too late."""
    codel = Codel(1.0)
    for _ in range(15):
        codel.took(2.0)
    assert not codel.is_shed(0.0, 1.5, 0.0, is_last=True)

    codel.took(2.0)

    assert codel.is_shed(0.0, 1.5, 0.0, is_last=True)
    assert not codel.is_shed(0.0, 2.5, 0.0, is_last=True)


@given(st.lists(st.floats(0.01, 10.0), min_size=400, max_size=400), st.floats(0.1, 5.0))
@settings(max_examples=30)
def test_the_median_service_is_found(noise, median):
    """Near enough, whatever the outliers are."""
    codel = Codel(1.0)
    for number, each in enumerate(noise):
        codel.took(median if number % 5 else each * median)

    assert median * 0.6 <= codel._service <= median * 1.7


@given(st.floats(0.001, 5.0), st.integers(0, 10_000))
def test_retry_after_is_the_queue_by_its_drain_rate(gap, waiting):
    """Within a tenth of a second and half a minute."""
    codel = Codel(None)
    assert codel.retry_after(waiting) == 1.0
    for number in range(10):
        codel.served(-1.0, number * gap)

    assert codel.retry_after(waiting) == pytest.approx(min(max((waiting + 1) * gap, 0.1), 30.0))


class Shedding(RuleBasedStateMachine):
    """
    Random arrivals, services and pauses in all lanes, beside the rules that shedding must keep.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.lanes = Lanes(lane_table(4, wait_targets=TARGETS))
        self.queued: list[Waiter] = []
        self.held: list[int] = []
        self.floor = 0.0

    @rule(rank=st.integers(0, 4), may=st.booleans(), patience=st.none() | st.floats(0.0, 40.0))
    def join(self, rank, may, patience):
        each = waiter(rank, self.now, None if patience is None else self.now + patience, may_be_shed=may)
        self.lanes.join(each)
        self.queued.append(each)

    @rule(seconds=st.floats(0.0, 15.0))
    def pause(self, seconds):
        self.now += seconds

    @rule()
    def restart(self):
        self.lanes.restart(self.now)
        self.floor = self.now

    @rule()
    def serve(self):
        dropped: list[Waiter] = []
        found = self.lanes.next(self.now, dropped)
        for each in dropped:
            self.queued.remove(each)
            assert each.is_shed or each.deadline <= self.now
            if each.is_shed:
                assert each.may_be_shed
                assert each.rank >= NORMAL
                assert self.now - max(each.since, self.floor) > 2.0
        if found is not None:
            assert all(each.since >= found.since for each in self.queued if each.rank == found.rank)
            self.queued.remove(found)
            self.held.append(found.rank)

    @precondition(lambda self: self.held)
    @rule()
    def leave(self):
        self.lanes.leave(self.held.pop())

    @invariant()
    def nobody_is_lost(self):
        self.lanes.check()
        assert self.lanes.total_waiting == len(self.queued)


TestShedding = Shedding.TestCase
TestShedding.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
