"""Which server answers a read: by timeline, by position, by lag, by latency."""

import pytest

from magnus._routing import NOWHERE, Position, Primary, Standing, choose, is_ahead, is_for_primary, lag, may_become_fit

PRIMARY = Primary(Position(2, 1000), 50.0)
NOW = 50.0


def standing(lsn=1000, *, timeline=2, age=0.0, latency=0.001, busy=0):
    return Standing(Position(timeline, lsn), age, NOW, latency, busy)


def chosen(*standings, need=None, max_lag=10.0, primary=PRIMARY, now=NOW):
    return choose(standings, primary, need, now=now, max_lag=max_lag)


def test_a_position_is_a_token_and_back():
    """As short as it can be, and nothing else is read."""
    assert str(Position(1, 255)) == "1-ff"
    assert Position.parse("1-ff") == Position(1, 255)


@pytest.mark.parametrize("token", ["", "1", "1-", "-1", "1-g", "1-ff ", "1-FF", "1-" + "f" * 17, "x" * 1000])
def test_what_is_no_token_is_none(token):
    """It comes from a client."""
    assert Position.parse(token) is None


def test_a_standby_that_has_not_what_must_be_seen_is_passed_over():
    """The primary answers when none has it."""
    need = Position(2, 900)
    assert chosen(standing(899), standing(900), need=need) == 1
    assert chosen(standing(899), standing(0), need=need) is None


def test_a_standby_on_another_timeline_is_passed_over_however_far_it_is():
    """Its history is over, and places on two timelines cannot be compared."""
    assert chosen(standing(10_000, timeline=1)) is None
    assert chosen(standing(10_000, timeline=3)) is None
    assert chosen(standing(10_000), need=Position(1, 5)) is None


def test_what_was_written_after_a_promotion_that_nobody_noticed_here_is_read_where_it_is():
    """The old primary goes on and cannot have it; a standby of the new timeline that has come so far does."""
    need = Position(3, 900)
    assert chosen(standing(2000), standing(900, timeline=3), need=need) == 1
    assert chosen(standing(2000), standing(899, timeline=3), need=need) is None
    assert chosen(standing(2000, timeline=4), need=need) is None
    assert chosen(standing(900, timeline=3), need=need, now=NOW + 11) is None  # it has not been seen for so long
    assert is_ahead(PRIMARY, need)
    assert not may_become_fit([standing(899, timeline=3)], PRIMARY, need)


def test_without_a_primary_nobody_can_say_which_timeline_holds():
    """So no standby is chosen."""
    assert chosen(standing(), primary=None) is None


def test_the_one_whose_queue_is_over_first_answers():
    """By latency and by how many reads it has."""
    assert chosen(standing(latency=0.002), standing(latency=0.001)) == 1
    assert chosen(standing(latency=0.001, busy=3), standing(latency=0.002)) == 1
    assert chosen(None, standing()) == 1


def test_lag_is_the_age_of_what_was_replayed_but_none_where_all_was():
    """An idle primary makes nobody late; a sight of the primary that is old makes everybody so."""
    assert lag(standing(1000, age=500.0), PRIMARY, NOW) == 0.0
    assert lag(standing(999, age=5.0), PRIMARY, NOW) == 5.0
    assert lag(standing(1000), PRIMARY, NOW + 3.0) == 3.0
    assert chosen(standing(999, age=11.0), standing(999, age=9.0)) == 1
    assert chosen(standing(), now=NOW + 11.0) is None


def test_waiting_is_worth_it_where_a_standby_follows_the_right_timeline():
    """And only for something that must be seen."""
    need = Position(2, 1000)
    assert may_become_fit([None, standing(1)], PRIMARY, need)
    assert not may_become_fit([standing(1, timeline=1)], PRIMARY, need)
    assert not may_become_fit([standing(1)], PRIMARY, Position(1, 2000))
    assert not may_become_fit([standing(1)], PRIMARY, None)
    assert not may_become_fit([standing(1)], None, need)


@pytest.mark.parametrize("sqlstate", ["40001", "57P01", "42P01", "0A000", "55000", "08006", None])
def test_what_only_a_standby_refuses_is_for_the_primary(sqlstate):
    """A conflict with its recovery, or what it has not got yet."""
    assert is_for_primary(sqlstate)


@pytest.mark.parametrize("sqlstate", ["22012", "23505", "57014"])
def test_what_every_server_refuses_is_not_asked_twice(sqlstate):
    """The answer would be the same."""
    assert not is_for_primary(sqlstate)


def test_a_place_that_the_primary_has_not_written_is_worth_no_wait():
    """Somebody made it up; one of an older timeline it has passed."""
    assert is_ahead(PRIMARY, Position(2, 1001))
    assert not may_become_fit([standing()], PRIMARY, Position(2, 1001))
    for need in (Position(2, 1000), Position(1, 5000), NOWHERE, None):
        assert not is_ahead(PRIMARY, need)
    assert not is_ahead(None, Position(2, 1001))
    assert chosen(standing(), need=NOWHERE) is None
    assert not may_become_fit([standing()], PRIMARY, NOWHERE)
