"""Which units are repeated, when, and what is said of them."""

import asyncio
import functools

import asyncpg
import pytest

from magnus._backoff import Budget
from magnus._verdicts import Phase, Verdict
from magnus.errors import OutcomeUnknown, PoolTimeout
from magnus.observe import Retry, RetryBudgetSpent, ServerFault
from magnus.retry import (
    IN_PARTS,
    ORDINARY,
    READ,
    REPEATABLE,
    Attempts,
    Progress,
    Retrier,
    RetryPolicy,
    idempotent,
    is_declared,
    is_idempotent,
    may_repeat,
    next_delay,
)
from tests.facade_fakes import ManualClock, config

LOST = asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
CLOSED = asyncpg.InterfaceError("connection is closed")
STUCK = asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress")


@pytest.mark.parametrize(
    ("verdict", "ordinary", "read", "repeatable", "in_parts"),
    [
        (Verdict.NOT_SENT, True, True, True, True),
        (Verdict.ROLLED_BACK, True, True, True, False),
        (Verdict.ROLLED_BACK_ONCE, True, True, True, False),
        (Verdict.PERHAPS, False, True, True, False),
        (Verdict.UNKNOWN, False, True, True, False),
        (Verdict.NEVER, False, False, False, False),
    ],
)
def test_what_may_be_repeated_is_what_was_declared(verdict, ordinary, read, repeatable, in_parts):
    """After sending only reads and what is idempotent; what may have committed half-way not even after an error."""
    found = [may_repeat(verdict, rights) for rights in (ORDINARY, READ, REPEATABLE, IN_PARTS)]

    assert found == [ordinary, read, repeatable, in_parts]


def test_what_is_worth_one_repeat_gets_one():
    """No memory, no disk: a second repeat would find the same."""
    assert not may_repeat(Verdict.ROLLED_BACK_ONCE, ORDINARY, was_once=True)
    assert may_repeat(Verdict.ROLLED_BACK, ORDINARY, was_once=True)


# --- declared idempotent


async def test_a_declaration_holds_inside_the_function_and_not_after_it():
    """Nor in a task that outlives it."""
    gate = asyncio.Event()

    async def late():
        await gate.wait()
        return is_declared()

    @idempotent
    async def work():
        return is_declared(), asyncio.create_task(late())

    inside, task = await work()
    gate.set()

    assert (inside, is_declared(), await task) == (True, False, False)


def test_a_declaration_is_found_under_bound_arguments():
    """`functools.partial` hides the function, not what it declared; a plain function declares nothing."""

    @idempotent
    async def work(_db, _tx):
        return None

    assert is_idempotent(work)
    assert is_idempotent(functools.partial(functools.partial(work, 1), 2))
    assert not is_idempotent(functools.partial(print))


# --- the budget


def test_the_budget_is_a_tenth_of_the_units():
    """Everything fails for two seconds, 1,000 units a second on two slots: a tenth is repeated, and the floor."""
    budget, taken = Budget(), 0
    for unit in range(2_000):
        taken += budget.take(unit / 1000, units=unit, size=2)

    assert 195 <= taken <= 210


def test_the_budget_is_never_below_the_pools_size():
    """All slots fail at once, and the units before them were few: each gets its repeat."""
    budget = Budget()

    assert [budget.take(100.0, units=30, size=30) for _ in range(40)].count(True) >= 30


def test_the_budget_does_not_save_up():
    """A busy hour pays for one repeat of each slot, not for an hour of failures."""
    budget = Budget()
    budget.take(0.0, units=0, size=3)

    allowed = [budget.take(3600.0, units=360_000, size=3) for _ in range(2_000)].count(True)

    assert allowed == 3


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

    def __init__(self, *outcomes, is_sent=False, is_in_block=False):
        self.outcomes = list(outcomes)
        self.is_sent = is_sent
        self.is_in_block = is_in_block
        self.calls = 0

    async def __call__(self, progress):
        assert not progress.is_sent, "each attempt starts anew"
        self.calls += 1
        progress.is_sent, progress.is_in_block = self.is_sent, self.is_in_block
        found = self.outcomes.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


def retrier(clock, events, *, budget=lambda _now: True, **changes):
    policy = RetryPolicy.of(config(**changes))
    return Retrier(policy, notify=events.append, clock=clock, uniform=lambda _, high: high, budget=budget)


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
    assert loop.figures()["retries"] == 2


async def test_the_last_error_is_raised_as_it_is_with_a_note_of_the_attempts():
    """Not None, not a wrapper: the original exception, and how often it was tried."""
    clock = ManualClock()
    last = asyncpg.InterfaceError("connection is closed")

    with pytest.raises(asyncpg.InterfaceError) as caught:
        await retrier(clock, [], max_retries=3).run(Unit(LOST, LOST, last), Progress(), deadline=clock.now() + 30)

    assert caught.value is last
    assert caught.value.__notes__ == ["magnus: failed in 3 attempts"]


async def test_a_single_attempt_leaves_the_error_untouched():
    """One attempt is no story worth a note."""
    clock, events = ManualClock(), []

    with pytest.raises(asyncpg.InterfaceError) as caught:
        await retrier(clock, events, max_retries=1).run(Unit(CLOSED), Progress(), deadline=clock.now() + 30)

    assert not hasattr(caught.value, "__notes__") or not caught.value.__notes__
    assert events == []


async def test_what_was_sent_is_not_repeated_and_the_error_says_so():
    """One call, no pause, no event; the caller reads that it may have been carried out."""
    clock, events, unit = ManualClock(), [], Unit(ConnectionResetError(), is_sent=True)

    with pytest.raises(ConnectionResetError) as caught:
        await retrier(clock, events).run(unit, Progress(), deadline=clock.now() + 30)

    assert (unit.calls, clock.slept, events) == (1, [], [])
    (note,) = caught.value.__notes__
    assert "may have been carried out" in note


async def test_what_only_reads_is_sent_again():
    """Twice is as good as once, and no note says that it may have been carried out."""
    clock, unit = ManualClock(), Unit(LOST, "rows", is_sent=True)

    assert await retrier(clock, []).run(unit, Progress(), deadline=clock.now() + 30, rights=lambda: READ) == "rows"

    again = Unit(*[asyncpg.ConnectionDoesNotExistError("gone") for _ in range(3)], is_sent=True)
    with pytest.raises(asyncpg.ConnectionDoesNotExistError) as caught:
        await retrier(clock, []).run(again, Progress(), deadline=clock.now() + 30, rights=lambda: READ)
    assert caught.value.__notes__ == ["magnus: failed in 3 attempts"]


async def test_a_transaction_that_lost_its_connection_before_commit_runs_again():
    """The server rolls back what nobody committed."""
    clock, unit = ManualClock(), Unit(LOST, asyncpg.SerializationError("40001"), "done", is_in_block=True)

    assert await retrier(clock, []).run(unit, Progress(), deadline=clock.now() + 30) == "done"
    assert unit.calls == 3


async def test_an_unknown_commit_is_not_repeated_unless_that_was_declared():
    """A trade would be booked twice."""
    clock, unit = ManualClock(), Unit(OutcomeUnknown(), "done", is_in_block=True)

    with pytest.raises(OutcomeUnknown):
        await retrier(clock, []).run(unit, Progress(), deadline=clock.now() + 30)
    again = Unit(OutcomeUnknown(), "done", is_in_block=True)
    found = await retrier(clock, []).run(again, Progress(), deadline=clock.now() + 30, rights=lambda: REPEATABLE)

    assert (unit.calls, found) == (1, "done")


async def test_what_lacks_memory_or_disk_is_repeated_once():
    """And the event for a full disk goes out, for somebody must look at it."""
    clock, events = ManualClock(), []
    unit = Unit(*[asyncpg.DiskFullError("no space left") for _ in range(3)], is_sent=True)

    with pytest.raises(asyncpg.DiskFullError):
        await retrier(clock, events).run(unit, Progress(), deadline=clock.now() + 30)

    assert unit.calls == 2
    assert [event.sqlstate for event in events if isinstance(event, ServerFault)] == ["53100", "53100"]


async def test_a_spent_budget_ends_the_attempts_but_not_those_of_what_was_not_sent():
    """The error says why; a connection that was found dead costs the server nothing."""
    clock = ManualClock()
    poor = retrier(clock, [], budget=lambda _now: False)

    with pytest.raises(asyncpg.SerializationError) as caught:
        await poor.run(
            Unit(asyncpg.SerializationError("x"), "done", is_sent=True), Progress(), deadline=clock.now() + 30
        )
    assert "retry budget" in caught.value.__notes__[0]
    assert await poor.run(Unit(CLOSED, "done"), Progress(), deadline=clock.now() + 30) == "done"


async def test_what_the_budget_refused_is_counted_and_told_once_a_minute():
    """With how many there were since; repeats are counted by what their failure had left behind."""
    clock, events = ManualClock(), []
    poor = retrier(clock, events, budget=lambda _now: False)

    async def fail():
        with pytest.raises(asyncpg.SerializationError):
            await poor.run(Unit(asyncpg.SerializationError("x"), is_sent=True), Progress(), deadline=clock.now() + 30)

    for _ in range(3):
        await fail()
    assert [event.refused for event in events if isinstance(event, RetryBudgetSpent)] == [1]
    clock.advance(61)
    await fail()
    await poor.run(Unit(CLOSED, "done"), Progress(), deadline=clock.now() + 30)

    assert [event.refused for event in events if isinstance(event, RetryBudgetSpent)] == [1, 3]
    figures = poor.figures()
    assert (figures["retries"], figures["retries_refused"]) == (1, 4)
    assert {name: n for name, n in figures["retries_by_class"].items() if n} == {"not_sent": 1}


async def test_a_refusal_of_the_pools_is_not_repeated():
    """It waited as long as it might."""
    clock, unit = ManualClock(), Unit(PoolTimeout("", phase="wait", waited=1.0))

    with pytest.raises(PoolTimeout):
        await retrier(clock, []).run(unit, Progress(), deadline=clock.now() + 30, rights=lambda: READ)
    assert unit.calls == 1


async def test_the_first_attempt_may_have_been_another_ones():
    """Who begins with one attempt behind him has one fewer before him."""
    clock, attempts = ManualClock(), Attempts(Phase.UNSENT)
    loop = retrier(clock, [])
    assert loop.decide(CLOSED, attempts, ORDINARY, clock.now() + 30) is not None

    with pytest.raises(asyncpg.InterfaceError):
        await loop.run(Unit(CLOSED, CLOSED, "done"), Progress(), deadline=clock.now() + 30, attempts=attempts)


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
        await retrier(clock, [], max_retries=9).run(unit, Progress(), deadline=clock.now() + 0.2)

    assert unit.calls == 3
    assert clock.now() < 1000.2
