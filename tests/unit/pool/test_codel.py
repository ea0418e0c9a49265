"""Shedding: a burst passes, a standing queue is cut, and nobody is shed who did not ask for a lane."""

from __future__ import annotations

import random

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from magnus import LaneSettings
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


def lanes_of(*, is_eager: bool, targets=TARGETS) -> Lanes:
    """
    The lanes of ten slots; eager ones have a target of their own.
    """
    own = {lane: LaneSettings(wait_target=target) for lane, target in targets.items()} if is_eager else {}
    return Lanes(lane_table(10, wait_targets=targets, settings=own))


def standing(
    lanes: Lanes, rank: int, *, apart: float = 1.0, patience: float | None = None, may_be_shed: bool = True
) -> list[Waiter]:
    """
    Serve one waiter a second, the first of whom has waited five, for thirty seconds; return those that were shed.
    """
    for number in range(200):
        since = -5.0 + number * apart
        deadline = None if patience is None else since + patience
        lanes.join(waiter(rank, since, deadline, may_be_shed=may_be_shed))
    shed: list[Waiter] = []
    for second in range(30):
        found = lanes.next(float(second), shed)
        if found is not None:
            lanes.leave(found.rank)
    return shed


def looks(codel: Codel, since: float, now: float, *, deadline=None, behind: int = 1) -> bool:
    """
    Look at the one whose turn it is, and judge it.
    """
    codel.look(since, now, is_last=not behind)
    return codel.is_shed(since, deadline, now, behind=behind, left=None)


@pytest.mark.parametrize("rank", [NORMAL, LOW, BACKGROUND])
def test_a_queue_that_stands_is_cut_where_a_longer_wait_is_worthless(rank):
    """Only after an interval, and only those that waited more than twice the target; they know that they were shed."""
    shed = standing(lanes_of(is_eager=True), rank)

    assert shed
    assert all(each.is_shed for each in shed)
    assert min(each.since for each in shed) >= 4.0


@pytest.mark.parametrize("rank", [NORMAL, LOW, BACKGROUND])
def test_a_queue_that_stands_is_cut_when_its_newest_would_come_too_late(rank):
    """200 wait and one a second is served: who has 100 s is lost, so the oldest make room, but no more than needed."""
    lanes = lanes_of(is_eager=False)

    shed = standing(lanes, rank, apart=0.0, patience=100.0)

    assert shed
    assert all(each.is_shed for each in shed)
    assert 60 < lanes.waiting(rank) < 80


@pytest.mark.parametrize("patience", [None, 1000.0])
def test_a_queue_that_stands_is_let_be_when_all_will_be_served(patience):
    """However long it stands: saturation alone is no reason to refuse anybody."""
    assert standing(lanes_of(is_eager=False), LOW, apart=0.0, patience=patience) == []


def test_one_impatient_waiter_costs_nobody_a_place():
    """The newest has a second, all before it have hours."""
    lanes = lanes_of(is_eager=False)
    for second in range(200):
        lanes.join(waiter(LOW, float(second - 5), second + 10_000.0))
    lanes.join(waiter(LOW, 194.5, 210.0))
    shed: list[Waiter] = []

    for second in range(195, 215):
        found = lanes.next(float(second), shed)
        assert found is not None
        lanes.leave(found.rank)

    assert shed == []


def test_the_best_rate_of_late_counts():
    """A server that stood still for an interval is taken to go on as before."""
    lanes = lanes_of(is_eager=False)
    for _ in range(1000):
        lanes.join(waiter(LOW, 0.0, 200.0))
    shed: list[Waiter] = []
    turns = [second / 10 for second in range(50, 400)] + [60.0, 61.0, 62.0, 63.0]

    for turn in turns:
        found = lanes.next(turn, shed)
        assert found is not None
        lanes.leave(found.rank)

    assert shed == []


@pytest.mark.parametrize("rank", [CRITICAL, HIGH])
def test_critical_and_high_are_never_shed(rank):
    """However long they stand."""
    assert standing(lanes_of(is_eager=True), rank, patience=100.0) == []


def test_who_named_no_lane_is_not_shed():
    """The queue stands all the same."""
    assert standing(lanes_of(is_eager=True), NORMAL, patience=100.0, may_be_shed=False) == []


def test_without_targets_nobody_is_shed():
    """Shedding that is switched off."""
    assert standing(lanes_of(is_eager=True, targets={}), BACKGROUND, patience=100.0) == []


def test_a_burst_is_served_to_its_end():
    """Long waits that end within an interval are no standing queue."""
    codel = Codel(1.0, is_eager=True)

    assert not any(looks(codel, 0.0, second / 10, behind=90 - second) for second in range(91))


def test_one_short_wait_in_an_interval_proves_that_the_queue_runs_empty():
    """The shortest wait counts, not the mean."""
    codel = Codel(1.0, is_eager=True)

    for second in range(100):
        wait = 0.5 if second % 10 == 5 else 9.0
        assert not looks(codel, second - wait, float(second))


def test_a_queue_that_runs_empty_is_not_standing():
    """Even if those that empty it waited long."""
    codel = Codel(1.0, is_eager=True)

    assert not any(looks(codel, now - 5.0, float(now), behind=now % 9) for now in range(60))


def test_what_was_long_ago_says_nothing_about_today():
    """A queue that stood yesterday does not shed this morning's first burst."""
    codel = Codel(1.0, is_eager=True)
    for second in range(30):
        looks(codel, second - 5.0, float(second))
    assert codel.is_overloaded

    assert not looks(codel, 5000.0, 5009.0)
    assert not codel.is_overloaded


def test_the_last_in_the_queue_is_never_shed_for_its_wait():
    """Behind it nobody waits who would be served sooner."""
    codel = Codel(1.0, is_eager=True)
    for second in range(30):
        looks(codel, second - 5.0, float(second))

    assert not looks(codel, 25.0, 30.0, behind=0)


def test_an_outage_sheds_nobody():
    """Waits begin anew when there is a server again."""
    own = {lane: LaneSettings(wait_target=1.0) for lane in TARGETS}
    state = PoolState(Limits(0, 1, lane_settings=own, wait_targets=TARGETS), uniform=lambda low, _high: low)
    waiters = [waiter(NORMAL, 0.0) for _ in range(20)]
    actions = [action for each in waiters for action in state.wait(each, 0.0)]
    (connect,) = (action for action in actions if isinstance(action, Connect))
    (retry,) = state.connect_failed(connect.slot, 1.0)
    (again,) = state.tick(retry.at)

    actions = state.opened(again.slot, object(), 500.0)
    for second in range(1, 20):
        actions += state.release(again.slot, 500.0 + second * 0.75)

    assert not [action for action in actions if isinstance(action, Expire)]
    assert [action.waiter for action in actions if isinstance(action, HandOff)] == waiters


def test_who_has_less_time_than_nine_of_ten_services_take_is_shed_first():
    """Once enough services were seen; its answer would come too late. Only where the queue stands."""
    codel = Codel(1.0, is_eager=True)
    for _ in range(16):
        codel.took(4.0)
    assert not looks(codel, 0.0, 0.0, deadline=1.5)
    for second in range(1, 30):
        looks(codel, second - 1.5, float(second))

    assert looks(codel, 28.5, 30.0, deadline=30.5)
    assert not looks(codel, 28.5, 30.0, deadline=35.0)


def late() -> Codel:
    """Return what a lane knows whose queue stands and whose callers ran out of time after four seconds."""
    codel = Codel(1.0)
    for _ in range(16):
        codel.wasted(4.0)
    for second in range(1, 30):
        looks(codel, second - 1.5, float(second))
    return codel


def is_hopeless(codel: Codel, since: float, deadline: float | None, *, behind: int = 100, left: float = 1.0) -> bool:
    codel.look(since, 30.0, is_last=False)
    return codel.is_hopeless(since, deadline, 30.0, behind=behind, left=left)


def test_who_has_less_left_than_was_not_enough_is_hopeless():
    """Half as much again is asked for, since nobody knows how much more it would have needed."""
    assert is_hopeless(late(), 17.0, 35.9)
    assert not is_hopeless(late(), 17.0, 36.1)


def test_nobody_is_hopeless_who_has_half_of_its_time_left():
    """Whatever its lane's services took."""
    assert is_hopeless(late(), 28.5, 31.4)
    assert not is_hopeless(late(), 28.5, 31.6)


def test_nobody_is_hopeless_where_all_will_be_served_or_the_queue_does_not_stand_or_without_a_deadline():
    """Only when somebody is lost anyway, the slot is better given to the next one."""
    assert not is_hopeless(late(), 17.0, 35.9, behind=1, left=30.0)
    assert not is_hopeless(late(), 17.0, None)
    calm = Codel(1.0)
    for _ in range(16):
        calm.wasted(4.0)
    assert not is_hopeless(calm, 17.0, 35.9)
    assert not Codel(None).is_hopeless(17.0, 31.0, 30.0, behind=100, left=1.0)


def test_an_estimate_from_few_services_is_not_believed():
    """Fifteen are too few."""
    codel = Codel(1.0, is_eager=True)
    for _ in range(15):
        codel.took(4.0)
    for second in range(30):
        looks(codel, second - 1.5, float(second))

    assert not looks(codel, 28.5, 30.0, deadline=30.5)


@given(st.floats(0.1, 5.0), st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_what_nine_of_ten_services_take_is_found(usual, seed):
    """Near enough, whatever the others take."""
    draw = random.Random(seed)
    codel = Codel(1.0)
    for _ in range(2000):
        codel.took(usual * draw.uniform(0.5, 1.0) if draw.random() < 0.9 else usual * draw.uniform(1.0, 10.0))

    assert usual * 0.5 <= codel._needed <= usual * 4.0


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
        own = {LANES[LOW]: LaneSettings(wait_target=1.0)}  # which makes it eager
        self.lanes = Lanes(lane_table(4, wait_targets=TARGETS, settings=own))
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
                assert self.queued
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
