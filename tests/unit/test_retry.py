"""Which failures are repeated, when, and what is said of them."""

import asyncpg
import pytest

from magnus._driver import PoolClosed
from magnus.errors import ConfigError, ConnectError, Overloaded, PoolTimeout, QueryTimeout
from magnus.observe import Retry
from magnus.retry import Progress, Retrier, RetryPolicy, is_repeatable, next_delay
from tests.facade_fakes import ManualClock, config

LOST = asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
CLOSED = asyncpg.InterfaceError("connection is closed")
STUCK = asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress")


@pytest.mark.parametrize(
    "error",
    [
        LOST,
        CLOSED,
        STUCK,
        ConnectionResetError(),
        asyncpg.AdminShutdownError("terminating connection"),
        ConnectError("", reason="unreachable"),
        ConnectError("", reason="starting"),
        ConnectError("", reason="too_many"),
        ConnectError("", reason="timeout"),
    ],
    ids=repr,
)
def test_a_lost_connection_is_repeated_while_nothing_was_sent(error):
    """No byte of the user's had left, so a second attempt cannot double anything."""
    assert is_repeatable(error, is_sent=False)


@pytest.mark.parametrize(
    "error",
    [
        PoolTimeout("", phase="wait", waited=1.0),
        QueryTimeout(priority="normal", timeout=1.0, elapsed=1.0),
        Overloaded(lane="low", waiting=1, retry_after=1.0),
        PoolClosed(""),
        ConfigError("a", 1, "is wrong"),
        ConnectError("", reason="credentials"),
        ConnectError("", reason="database"),
        ConnectError("", reason="tls"),
        asyncpg.UndefinedObjectError("role does not exist"),
        ValueError(),
    ],
    ids=repr,
)
def test_what_was_decided_or_answered_is_final(error):
    """No slot, no time, shed, closed, refused: a repeat would only add load."""
    assert not is_repeatable(error, is_sent=False)


@pytest.mark.parametrize(
    "error",
    [
        LOST,
        ConnectionResetError(),
        asyncpg.AdminShutdownError(""),
        asyncpg.SerializationError(""),
        asyncpg.QueryCanceledError(""),
        TimeoutError(),
        asyncpg.InternalClientError("got result for unknown protocol state 3"),
    ],
    ids=repr,
)
def test_nothing_is_repeated_once_it_was_sent(error):
    """The server may have done it: a repeat could book a trade twice."""
    assert not is_repeatable(error, is_sent=True)


@pytest.mark.parametrize("error", [CLOSED, STUCK], ids=repr)
def test_what_the_driver_refused_before_writing_is_repeated(error):
    """The driver checks its own state first; these two say that the statement stayed here."""
    assert is_repeatable(error, is_sent=True)


def test_delays_are_drawn_between_zero_and_a_growing_bound():
    """Full jitter: a jitter that only adds would keep the herd together."""
    policy = RetryPolicy(attempts=10, delay=0.05, backoff=2.0)
    bounds = []
    for failed in range(1, 9):
        next_delay(policy, failed=failed, remaining=99.0, uniform=lambda low, high: bounds.append((low, high)) or low)

    assert bounds == [(0.0, bound) for bound in (0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0)]


@pytest.mark.parametrize(
    ("failed", "remaining", "expected"),
    [(1, 1.0, 0.05), (3, 1.0, None), (1, 0.05, None), (1, -1.0, None)],
    ids=["again", "no attempt left", "too late after the pause", "too late already"],
)
def test_no_attempt_beyond_their_number_or_the_deadline(failed, remaining, expected):
    """The last pause must end before the deadline; an attempt after it would be wasted."""
    policy = RetryPolicy(attempts=3, delay=0.05, backoff=1.0)

    assert next_delay(policy, failed=failed, remaining=remaining, uniform=lambda _, high: high) == expected


class Unit:
    """Fails with each of `outcomes` that is an exception; returns the first that is not."""

    def __init__(self, *outcomes, is_sent=False):
        self.outcomes = list(outcomes)
        self.is_sent = is_sent
        self.calls = 0

    async def __call__(self, progress):
        assert not progress.is_sent, "each attempt starts anew"
        self.calls += 1
        progress.is_sent = self.is_sent
        found = self.outcomes.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


def retrier(clock, events, **changes):
    policy = RetryPolicy.of(config(**changes))
    return Retrier(policy, notify=events.append, clock=clock, uniform=lambda _, high: high)


async def test_a_unit_is_repeated_until_it_succeeds():
    """Two dead connections, then a live one: the caller sees the result, observers see two retries."""
    clock, events, unit = ManualClock(), [], Unit(LOST, CLOSED, "rows")
    loop = retrier(clock, events)

    assert await loop.run(unit, Progress(), deadline=clock.now() + 30) == "rows"

    assert clock.slept == [0.05, 0.1]
    assert events == [
        Retry(attempt=1, delay=0.05, error_type="ConnectionDoesNotExistError", error=str(LOST)),
        Retry(attempt=2, delay=0.1, error_type="InterfaceError", error="connection is closed"),
    ]
    assert loop.retries == 2


async def test_the_last_error_is_raised_as_it_is_with_a_note_of_the_attempts():
    """Not None, not a wrapper: the original exception, and how often it was tried."""
    clock = ManualClock()
    last = asyncpg.InterfaceError("connection is closed")

    with pytest.raises(asyncpg.InterfaceError) as caught:
        await retrier(clock, [], max_retries=3).run(Unit(LOST, LOST, last), Progress(), deadline=clock.now() + 30)

    assert caught.value is last
    assert caught.value.__notes__ == ["magnus: failed in 3 attempts; nothing had been sent in the earlier ones"]


async def test_a_single_attempt_leaves_the_error_untouched():
    """One attempt is no story worth a note."""
    clock, events = ManualClock(), []

    with pytest.raises(asyncpg.InterfaceError) as caught:
        await retrier(clock, events, max_retries=1).run(Unit(CLOSED), Progress(), deadline=clock.now() + 30)

    assert not hasattr(caught.value, "__notes__") or not caught.value.__notes__
    assert events == []


async def test_what_was_sent_is_not_repeated():
    """One call, no pause, no event."""
    clock, events, unit = ManualClock(), [], Unit(ConnectionResetError(), is_sent=True)

    with pytest.raises(ConnectionResetError):
        await retrier(clock, events).run(unit, Progress(), deadline=clock.now() + 30)

    assert (unit.calls, clock.slept, events) == (1, [], [])


async def test_a_unit_that_read_its_source_is_not_repeated():
    """Rows taken from an iterator cannot be taken again."""
    clock, progress = ManualClock(), Progress()

    async def unit(progress):
        progress.is_final = progress.is_sent = True
        raise asyncpg.InternalClientError(str(STUCK))

    with pytest.raises(asyncpg.InternalClientError):
        await retrier(clock, []).run(unit, progress, deadline=clock.now() + 30)

    assert clock.slept == []


async def test_the_deadline_ends_the_attempts():
    """A pause that would pass the deadline is not begun."""
    clock, unit = ManualClock(), Unit(LOST, LOST, LOST, LOST)

    with pytest.raises(asyncpg.ConnectionDoesNotExistError):
        await retrier(clock, [], max_retries=99).run(unit, Progress(), deadline=clock.now() + 0.2)

    assert unit.calls == 3
    assert clock.now() < 1000.2
