"""What a service may set of a lane, and what `docs/lanes.md` says of them all."""

from __future__ import annotations

from pathlib import Path

import pytest

from magnus import DatabaseConfig, LaneSettings
from magnus.errors import ConfigError
from magnus.lanes import LANES, QueryPriority
from magnus.pool import lane_table

DOC = Path(__file__).parents[2] / "docs" / "lanes.md"
NORMAL, LOW = QueryPriority.NORMAL, QueryPriority.LOW


def test_what_is_set_stands_in_place_of_what_is_computed():
    """Lanes below a lowered cap are lowered with it."""
    table = lane_table(30, settings={NORMAL: LaneSettings(cap=2, weight=7, max_waiting=9)})

    assert [(limits.cap, limits.weight, limits.max_waiting) for limits in table] == [
        (30, 0, 10_000), (26, 8, 10_000), (2, 7, 9), (2, 2, 10_000), (2, 1, 10_000),
    ]  # fmt: skip


def test_a_lane_is_named_by_its_word_too():
    """As everywhere."""
    assert DatabaseConfig(lanes={"low": LaneSettings(cap=3)}).lanes[LOW].cap == 3


@pytest.mark.parametrize(
    ("lanes", "field"),
    [
        ({"urgent": LaneSettings()}, "priority"),
        ({"low": LaneSettings(cap=0)}, "lanes[low].cap"),
        ({"low": LaneSettings(cap=31)}, "lanes[low].cap"),
        ({"low": LaneSettings(cap=True)}, "lanes[low].cap"),
        ({"high": LaneSettings(cap=4), "low": LaneSettings(cap=5)}, "lanes[low].cap"),
        ({"low": LaneSettings(weight=0)}, "lanes[low].weight"),
        ({"low": LaneSettings(weight=101)}, "lanes[low].weight"),
        ({"low": LaneSettings(max_waiting=-1)}, "lanes[low].max_waiting"),
        ({"critical": LaneSettings(cap=5)}, "lanes[critical].cap"),
        ({"critical": LaneSettings(weight=5)}, "lanes[critical].weight"),
        ({"high": LaneSettings(shedding=True)}, "lanes[high].shedding"),
        ({"low": LaneSettings(shedding="yes")}, "lanes[low].shedding"),
        ({"low": LaneSettings(wait_target=0.0)}, "lanes[low].wait_target"),
        ({"low": 5}, "lanes[low]"),
        (7, "lanes"),
    ],
)
def test_impossible_lanes_are_refused(lanes, field):
    """By the name of what is wrong."""
    with pytest.raises(ConfigError) as caught:
        DatabaseConfig(lanes=lanes)
    assert caught.value.field == field


def test_shedding_is_for_normal_and_below_and_can_be_switched_by_lane():
    """A hundredth of the limit, unless it is set; then who waits longer is shed whether or not it could be served."""
    assert DatabaseConfig().wait_targets() == {"normal": 0.3, "low": 0.6, "background": 1.2}
    assert DatabaseConfig(shedding=False).wait_targets() == {}
    one = DatabaseConfig(shedding=False, lanes={LOW: LaneSettings(shedding=True, wait_target="250ms")})
    assert one.wait_targets() == {"low": 0.25}
    table = lane_table(10, settings=one.lanes, wait_targets=one.wait_targets())
    assert [limits.lane for limits in table if limits.is_eager] == [LOW]
    assert not any(limits.is_eager for limits in lane_table(10, wait_targets=DatabaseConfig().wait_targets()))


@pytest.mark.parametrize(("text", "value"), [("false", False), ("0", False), ("On", True), ("yes", True)])
def test_switches_are_read_from_the_environment(text, value):
    """In the usual words."""
    assert DatabaseConfig.from_environ({"MAGNUS_SHED_UNSET": text}).shed_unset is value


def test_a_switch_that_is_neither_is_refused():
    """By the variable's name."""
    with pytest.raises(ConfigError, match="MAGNUS_SHEDDING"):
        DatabaseConfig.from_environ({"MAGNUS_SHEDDING": "perhaps"})


def test_the_documented_table_is_the_computed_one():
    """Caps and reserves of five sizes, as printed in the docs."""
    config = DatabaseConfig()
    lines = [line for line in DOC.read_text().splitlines() if line.startswith("| ") and " / " in line]
    sizes = {size: lane_table(size, wait_targets=config.wait_targets()) for size in (1, 2, 5, 10, 30)}
    expected = []
    for rank, lane in enumerate(LANES):
        cells = []
        for table in sizes.values():
            below = table[rank + 1].cap if rank + 1 < len(table) else 0
            cells.append(f"{table[rank].cap} / {table[rank].cap - below}")
        weight, target = table[rank].weight, table[rank].wait_target
        share = f"{weight / 15:.0%}" if weight else "first"
        shed = "never" if target is None else f"{target:g} s"
        cells += [share, f"{table[rank].max_waiting:,}", shed]
        expected.append(f"| {lane.upper()} | {' | '.join(cells)} |")
    assert lines == expected
