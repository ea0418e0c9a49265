"""Differences of counters that are reset, evicted and restarted by others."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnus.insight import ORDERS, Counters, Entry, Key, Snapshot, Statement, delta, seconds_of, total
from magnus.insight._counters import ranked
from magnus.insight._reading import query_of

START = datetime(2026, 1, 1, tzinfo=UTC)
A, B = Key(10, 1, 111, True), Key(10, 1, -222, True)


def counted(calls, seconds=None, **more):
    seconds = calls * 0.5 if seconds is None else seconds
    return Counters(calls=calls, seconds=seconds, squares=calls * 0.25, **more)


def taken(minute, entries, *, since=None, reset=START, dealloc=0, started=START):
    found = {key: Entry(counters, since.get(key) if since else None) for key, counters in entries.items()}
    return Snapshot(START + timedelta(minutes=minute), started, reset, dealloc, "1.12", found)


def test_what_happened_is_the_difference():
    """Entries in which nothing happened are left out; new ones count from zero."""
    found = delta(
        taken(0, {A: counted(5), B: counted(3)}),
        taken(1, {A: counted(9), B: counted(3), B._replace(dbid=2): counted(2)}),
    )
    assert found.seconds == 60
    assert {key: counters.calls for key, counters in found.counted.items()} == {A: 4, B._replace(dbid=2): 2}
    assert seconds_of(found) == 3.0
    assert (found.lost, found.restarted, found.notes) == (0, 0, ())


def test_a_reset_by_somebody_else_makes_nothing_negative():
    """What was counted since is what is left; that something is missing is said."""
    found = delta(taken(0, {A: counted(500)}), taken(1, {A: counted(2)}, reset=START + timedelta(seconds=30)))
    assert found.counted[A].calls == 2
    assert found.restarted == 1
    assert "reset" in found.notes[0]


def test_a_reset_of_one_entry_is_seen_by_its_counters_or_its_own_start():
    """Smaller counters in any version; from 1.11 on the start of an entry, even when it has overtaken itself."""
    assert delta(taken(0, {A: counted(500)}), taken(1, {A: counted(2)})).counted[A].calls == 2
    before = taken(0, {A: counted(5)}, since={A: START})
    after = taken(1, {A: counted(8)}, since={A: START + timedelta(seconds=40)})
    found = delta(before, after)
    assert (found.counted[A].calls, found.restarted) == (8, 1)


def test_evicted_entries_are_counted_as_lost():
    """And the server's own count of evictions is passed on."""
    found = delta(taken(0, {A: counted(5), B: counted(1)}, dealloc=3), taken(1, {A: counted(6)}, dealloc=5))
    assert (found.lost, found.counted[A].calls) == (1, 1)
    assert "evicted 2 times" in found.notes[0]


def test_a_restart_that_kept_the_counters_goes_on_and_is_said():
    """A clean shutdown saves them; a crash loses them, which looks like a reset of each."""
    later = START + timedelta(seconds=30)
    kept = delta(taken(0, {A: counted(5)}), taken(1, {A: counted(7)}, started=later))
    assert (kept.counted[A].calls, kept.notes) == (2, ("the server was restarted in between",))
    lost = delta(taken(0, {A: counted(5)}), taken(1, {A: counted(1)}, started=later))
    assert lost.counted[A].calls == 1


def test_servers_that_do_not_tell_are_judged_by_the_counters_alone():
    """1.8 knows neither resets nor evictions."""
    found = delta(
        taken(0, {A: counted(5)}, reset=None, dealloc=None), taken(1, {A: counted(1)}, reset=None, dealloc=None)
    )
    assert (found.counted[A].calls, found.notes) == (1, ())


def test_the_deviation_of_an_interval_is_its_own():
    """From sums of squares: 100 calls of 1 s before say nothing about two of 1 s and 3 s since."""
    before, after = Counters(100, 100, 100.0, 100.0), Counters(102, 102, 104.0, 110.0)
    found = after.since(before)
    assert (found.mean, found.deviation) == (2.0, 1.0)
    assert Counters().deviation == Counters().mean == 0.0


def test_since_counting_began_everything_counts():
    """Evictions are said."""
    found = total(taken(0, {A: counted(5), B: counted(0)}, dealloc=9))
    assert (set(found.counted), found.seconds) == ({A}, None)
    assert "evicted 9 times" in found.notes[0]


@pytest.mark.parametrize(
    ("order", "first"),
    [("total", A), ("mean", B), ("calls", A), ("io", B), ("wal", B), ("temp", B), ("variance", B)],
)
def test_every_order_has_its_own_first(order, first):
    """The largest comes first."""
    entries = {
        A: Counters(calls=10, seconds=5.0, squares=2.5),
        B: Counters(calls=1, seconds=3.0, squares=10.0, blocks_read=1, temp_written=1, wal_bytes=1),
    }
    assert order in ORDERS
    assert next(iter(ranked(entries, order)))[0] == first


def test_ids_are_texts_for_machines():
    """JavaScript rounds whole numbers above 2^53; times are in milliseconds."""
    found = Statement(-6156775673107494367, "db", "role", "SELECT $1", 0.5, counted(2)).as_dict()
    assert (found["queryid"], found["total_ms"], found["mean_ms"]) == ("-6156775673107494367", 1000.0, 500.0)


def test_the_query_reads_what_is_there():
    """Columns that a version lacks count as zero, under whatever name it has them."""
    old = query_of({"calls", "blk_read_time", "blk_write_time"}, '"public".pg_stat_statements')
    assert "(s.blk_read_time + s.blk_write_time)::float8 AS io_time" in old
    assert "true AS toplevel" in old
    assert "0::float8 AS wal_bytes" in old
    new = query_of({"toplevel", "stats_since", "shared_blk_read_time", "temp_blk_read_time"}, "x")
    assert "(s.shared_blk_read_time + s.temp_blk_read_time)::float8 AS io_time" in new
    assert "s.stats_since AS since" in new


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=8))
def test_no_difference_is_ever_negative(steps):
    """Whatever is run and reset between any two looks."""
    calls, looks = 0, [taken(0, {A: counted(0)})]
    for minute, (more, is_reset) in enumerate(steps, 1):
        calls = more if is_reset else calls + more
        looks.append(taken(minute, {A: counted(calls)}))
    for before, after in itertools.pairwise(looks):
        found = delta(before, after).counted.get(A, Counters())
        assert 0 <= found.calls <= after.entries[A].counters.calls
        assert found.seconds >= 0
