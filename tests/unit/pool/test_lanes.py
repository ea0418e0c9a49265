"""Lanes: the table, the caps, the order."""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from magnus.errors import ConfigError
from magnus.lanes import LANES, QueryPriority
from magnus.pool import lane_table
from magnus.pool._lanes import Lanes, Waiter

CRITICAL, HIGH, NORMAL, LOW, BACKGROUND = range(5)


class Signal:
    def __init__(self) -> None:
        self.is_done = False

    def done(self) -> bool:
        return self.is_done

    def set_result(self, _result: None, /) -> None:
        self.is_done = True


def waiter(rank: int, deadline: float | None = None) -> Waiter:
    return Waiter(rank, 0.0, deadline, Signal())


def served(lanes: Lanes, now: float = 0.0) -> Waiter | None:
    return lanes.next(now, [])


@pytest.mark.parametrize(
    ("size", "caps"),
    [
        (1, (1, 1, 1, 1, 1)),
        (2, (2, 1, 1, 1, 1)),
        (3, (3, 2, 2, 1, 1)),
        (4, (4, 3, 3, 2, 1)),
        (10, (10, 9, 8, 2, 1)),
        (30, (30, 26, 23, 6, 3)),
        (100, (100, 87, 75, 20, 10)),
    ],
)
def test_table_of_usual_sizes(size, caps):
    """The documented figures."""
    assert tuple(limits.cap for limits in lane_table(size)) == caps


@given(st.integers(1, 5000))
def test_every_lane_can_work_and_critical_has_a_reserve(size):
    """Caps are at least 1, never grow downwards, and a quarter is out of reach for NORMAL."""
    table = lane_table(size)
    caps = [limits.cap for limits in table]

    assert [limits.lane for limits in table] == list(LANES)
    assert caps[0] == size
    assert caps == sorted(caps, reverse=True)
    assert caps[-1] >= 1
    if size > 1:
        assert size - caps[1] >= 1
        assert size - caps[2] >= max(1, size // 4)


def test_table_of_nothing_is_refused():
    """A pool without slots has no lanes."""
    with pytest.raises(ConfigError, match="max_size"):
        lane_table(0)


def test_critical_finds_a_slot_when_all_others_are_saturated():
    """BACKGROUND, LOW, NORMAL and HIGH together cannot take the reserve."""
    lanes = Lanes(lane_table(10))

    taken = Counter()
    for rank in (BACKGROUND, LOW, NORMAL, HIGH):
        while lanes.can_enter(rank):
            lanes.enter(rank)
            taken[rank] += 1

    assert taken == {BACKGROUND: 1, LOW: 1, NORMAL: 6, HIGH: 1}
    assert lanes.can_enter(CRITICAL)


def test_waiters_of_one_lane_are_served_in_order():
    """First come, first served."""
    lanes = Lanes(lane_table(10))
    queued = [waiter(NORMAL) for _ in range(5)]
    for each in queued:
        lanes.join(each)

    assert [served(lanes) for _ in range(5)] == queued


def test_critical_goes_first():
    """Whoever waited longer in another lane."""
    lanes = Lanes(lane_table(10))
    for rank in (BACKGROUND, LOW, NORMAL, HIGH, CRITICAL):
        lanes.join(waiter(rank))

    found = served(lanes)

    assert found is not None
    assert found.rank == CRITICAL


def test_a_lane_at_its_cap_does_not_block_the_others():
    """No head of line across lanes."""
    lanes = Lanes(lane_table(10))
    lanes.enter(BACKGROUND)
    lanes.join(waiter(BACKGROUND))
    lanes.join(waiter(NORMAL))

    first, second = served(lanes), served(lanes)

    assert first is not None
    assert first.rank == NORMAL
    assert second is None
    assert lanes.waiting(BACKGROUND) == 1


def shares(rounds: int, ranks: tuple[int, ...]) -> Counter[int]:
    lanes = Lanes(lane_table(100))
    for rank in ranks:
        for _ in range(rounds):
            lanes.join(waiter(rank))
    found: Counter[int] = Counter()
    for _ in range(rounds):
        each = served(lanes)
        assert each is not None
        lanes.leave(each.rank)
        found[each.rank] += 1
    return found


def test_hand_offs_are_shared_by_weight():
    """8 : 4 : 2 : 1 when all four wait all the time."""
    found = shares(1500, (HIGH, NORMAL, LOW, BACKGROUND))

    assert found == pytest.approx({HIGH: 800, NORMAL: 400, LOW: 200, BACKGROUND: 100}, abs=2)


def test_endless_critical_work_does_not_starve_the_rest():
    """One hand-off in sixteen goes to the others, shared among them."""
    found = shares(1600, (CRITICAL, NORMAL, BACKGROUND))

    assert found == pytest.approx({CRITICAL: 1500, NORMAL: 80, BACKGROUND: 20}, abs=2)


def test_critical_is_not_held_up_for_others_that_were_absent():
    """Hand-offs while nobody else waited earn the others no turn."""
    lanes = Lanes(lane_table(100))
    for _ in range(40):
        lanes.join(waiter(CRITICAL))
        each = served(lanes)
        assert each is not None
        lanes.leave(each.rank)
    for _ in range(10):
        lanes.join(waiter(CRITICAL))
    lanes.join(waiter(NORMAL))

    ranks = [each.rank for each in (served(lanes) for _ in range(8)) if each is not None]

    assert ranks == [CRITICAL] * 8


def test_absence_earns_no_credit():
    """A lane that comes late shares from then on; it does not catch up."""
    lanes = Lanes(lane_table(100))
    for _ in range(400):
        lanes.join(waiter(NORMAL))
    for _ in range(200):
        assert served(lanes) is not None
        lanes.leave(NORMAL)
    for _ in range(200):
        lanes.join(waiter(BACKGROUND))

    found: Counter[int] = Counter()
    for _ in range(50):
        each = served(lanes)
        assert each is not None
        lanes.leave(each.rank)
        found[each.rank] += 1

    assert found == pytest.approx({NORMAL: 40, BACKGROUND: 10}, abs=1)


def test_time_at_the_cap_earns_no_credit():
    """A lane that stood at its cap takes up its share, not what it missed."""
    lanes = Lanes(lane_table(100))
    for _ in range(10):
        lanes.enter(BACKGROUND)
    for _ in range(200):
        lanes.join(waiter(BACKGROUND))
        lanes.join(waiter(NORMAL))
        lanes.join(waiter(NORMAL))
    for _ in range(100):
        assert served(lanes) is not None
        lanes.leave(NORMAL)
    for _ in range(10):
        lanes.leave(BACKGROUND)

    found: Counter[int] = Counter()
    for _ in range(50):
        each = served(lanes)
        assert each is not None
        lanes.leave(each.rank)
        found[each.rank] += 1

    assert found == pytest.approx({NORMAL: 40, BACKGROUND: 10}, abs=2)


def test_expired_waiters_are_dropped_when_their_turn_comes():
    """A slot is never spent on somebody whose time is over."""
    lanes = Lanes(lane_table(10))
    late, good = waiter(NORMAL, deadline=5.0), waiter(NORMAL, deadline=15.0)
    lanes.join(late)
    lanes.join(good)

    expired: list[Waiter] = []
    found = lanes.next(10.0, expired)

    assert found is good
    assert expired == [late]
    assert lanes.used(NORMAL) == 1


def test_waiters_that_went_away_are_dropped_silently():
    """A cancelled caller is passed over even before it has run."""
    lanes = Lanes(lane_table(10))
    gone, good = waiter(NORMAL), waiter(NORMAL)
    lanes.join(gone)
    lanes.join(good)
    gone.signal.set_result(None)

    expired: list[Waiter] = []

    assert lanes.next(0.0, expired) is good
    assert expired == []


def test_a_removed_waiter_is_gone():
    """Removing twice says so."""
    lanes = Lanes(lane_table(10))
    each = waiter(LOW)
    lanes.join(each)

    assert lanes.remove(each)
    assert not lanes.remove(each)
    assert served(lanes) is None


@pytest.mark.parametrize(
    ("queued", "used", "demand"),
    [
        ({}, {}, 0),
        ({NORMAL: 3}, {}, 3),
        ({NORMAL: 30}, {}, 8),
        ({BACKGROUND: 1000}, {}, 1),
        ({BACKGROUND: 1000}, {BACKGROUND: 1}, 0),
        ({BACKGROUND: 1000, NORMAL: 2}, {BACKGROUND: 1}, 2),
        ({CRITICAL: 5, NORMAL: 50}, {NORMAL: 8}, 2),
        ({LOW: 9, HIGH: 1}, {LOW: 1}, 2),
    ],
)
def test_demand_counts_who_could_be_served(queued, used, demand):
    """Waiters beyond their caps ask for no connection."""
    lanes = Lanes(lane_table(10))
    for rank, count in used.items():
        for _ in range(count):
            lanes.enter(rank)
    for rank, count in queued.items():
        for _ in range(count):
            lanes.join(waiter(rank))

    assert lanes.demand() == demand


class LanesModel(RuleBasedStateMachine):
    """
    Random joins, leaves, cancels and hand-offs, beside a model of plain queues.
    """

    waiters = Bundle("waiters")

    def __init__(self) -> None:
        super().__init__()
        self.size = 6
        self.table = lane_table(self.size, max_waiting=4)
        self.lanes = Lanes(self.table)
        self.queues: list[list[Waiter]] = [[] for _ in LANES]
        self.held: list[int] = []

    def room(self, rank: int) -> bool:
        return all(sum(held >= group for held in self.held) < self.table[group].cap for group in range(rank + 1))

    def live(self, rank: int) -> list[Waiter]:
        return [each for each in self.queues[rank] if not each.signal.done()]

    @rule(target=waiters, rank=st.integers(0, 4))
    def join(self, rank):
        each = waiter(rank)
        if not self.lanes.is_queue_full(rank):
            self.lanes.join(each)
            self.queues[rank].append(each)
        return each

    @rule(each=consumes(waiters))
    def remove(self, each):
        is_live = each in self.live(each.rank)
        was_queued = self.lanes.remove(each)
        assert was_queued or not is_live
        if each in self.queues[each.rank]:
            self.queues[each.rank].remove(each)

    @rule(each=waiters)
    def go_away(self, each):
        each.signal.set_result(None)

    @rule()
    def serve(self):
        servable = [rank for rank in range(5) if self.live(rank) and self.room(rank)]
        found = served(self.lanes)
        if found is None:
            assert servable == []
            return
        assert found.rank in servable
        assert found is self.live(found.rank)[0]
        self.queues[found.rank].remove(found)
        self.held.append(found.rank)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def leave(self, data):
        rank = data.draw(st.sampled_from(self.held))
        self.held.remove(rank)
        self.lanes.leave(rank)

    @invariant()
    def caps_hold(self):
        self.lanes.check()
        assert [self.lanes.used(rank) for rank in range(5)] == [self.held.count(rank) for rank in range(5)]
        assert all(self.lanes.can_enter(rank) is self.room(rank) for rank in range(5))
        assert all(len(self.live(rank)) <= self.lanes.waiting(rank) <= 4 for rank in range(5))


TestLanesModel = LanesModel.TestCase
TestLanesModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_lane_names_are_the_contract_s():
    """Five lanes, most important first."""
    assert [limits.lane for limits in lane_table(8)] == [
        QueryPriority.CRITICAL, QueryPriority.HIGH, QueryPriority.NORMAL, QueryPriority.LOW, QueryPriority.BACKGROUND,
    ]  # fmt: skip
