"""The queue of the slow-query log: bounded in number and rate, and exact in what it counts."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from magnus.slowlog._buffer import OTHERS, Buffer
from magnus.slowlog._entry import Entry


def entry(text):
    """An entry of which only the text matters."""
    return Entry(text, datetime.now(UTC), 1.0, 0.0, "normal", 1, 1, "ok", None, None, None, None, None, None)


def texts(entries):
    return [found.text for found in entries]


def test_the_oldest_gives_way_and_is_counted():
    """The queue never holds more than its limit."""
    buffer = Buffer(3, 0.0)
    for text in "abcde":
        buffer.put(entry(text))
    assert len(buffer) == 3
    assert texts(buffer.take(9)) == ["c", "d", "e"]
    assert (buffer.dropped, buffer.left_out()) == (2, {"a": 1, "b": 1})
    assert buffer.left_out() == {}


def test_what_could_not_be_written_goes_back_to_the_front():
    """As far as there is room; again the oldest are lost."""
    buffer = Buffer(4, 0.0)
    for text in "abc":
        buffer.put(entry(text))
    taken = buffer.take(3)
    buffer.put(entry("d"))
    buffer.put(entry("e"))
    buffer.put_back(taken)
    assert texts(buffer.take(9)) == ["b", "c", "d", "e"]
    assert buffer.dropped == 1


def test_a_burst_of_five_seconds_is_taken_and_then_the_rate():
    """What is over is counted by text."""
    buffer = Buffer(10_000, 10.0)
    assert sum(buffer.admits("a", 100.0) for _ in range(80)) == 50
    assert (buffer.capped, buffer.left_out()) == (30, {"a": 30})
    assert sum(buffer.admits("a", 101.0) for _ in range(80)) == 10
    assert sum(buffer.admits("a", 1000.0) for _ in range(80)) == 50


def test_time_that_stands_still_or_goes_back_gives_nothing():
    """Not one row more."""
    buffer = Buffer(10, 1.0)
    assert sum(buffer.admits("a", now) for now in (10.0,) * 9 + (5.0,) * 9) == 5


def test_no_rate_is_no_limit():
    """Only the queue's."""
    assert all(Buffer(1, 0.0).admits("a", 0.0) for _ in range(1000))


def test_too_many_different_texts_are_counted_together():
    """So that counting is bounded too."""
    buffer = Buffer(1, 1.0)
    for number in range(2_005):
        buffer.admits(str(number), 0.0)
    found = buffer.left_out()
    assert len(found) == 201
    assert found[OTHERS] == 2_000 - 200
    assert sum(found.values()) == buffer.capped == 2_000


@given(st.lists(st.sampled_from(["put", "take", "back", "clear"]), max_size=60), st.integers(1, 4))
def test_nothing_is_lost_without_being_counted(steps, limit):
    """Put in = taken out + waiting + dropped, and never more than the limit waits."""
    buffer, put, out, taken = Buffer(limit, 0.0), 0, 0, []
    for step in steps:
        if step == "put":
            buffer.put(entry("x"))
            put += 1
        elif step == "take":
            out += len(taken)
            taken = buffer.take(2)
        elif step == "back":
            buffer.put_back(taken)
            taken = []
        else:
            buffer.clear()
        assert len(buffer) <= limit
        assert put == out + len(taken) + len(buffer) + buffer.dropped
    assert sum(buffer.left_out().values()) == buffer.dropped
