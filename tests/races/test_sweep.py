"""The shared timer against answers, errors and cancellations of others, at the worst moments; made with futures."""

import asyncio
import contextlib

import pytest

from magnus.pool._slots import Watch
from magnus.pool._sweep import Sweep
from tests.unit.pool.fake_driver import HandClock


class Bench:
    """One watch under a sweep, whose timer fires when the test says so; a statement that waits for `answer`."""

    def __init__(self):
        self.clock = HandClock()
        self.watch = Watch()
        self.sweep = Sweep(self.clock.now, lambda: [self.watch])
        self.answer = asyncio.get_running_loop().create_future()
        self.seen = []

    async def statement(self):
        assert self.sweep.enter(self.watch, self.clock.now() + 10.0)
        try:
            found = await self.answer
        except asyncio.CancelledError:
            if self.watch.leave():
                raise TimeoutError from None
            raise
        finally:
            self.watch.leave()
        return found

    async def begin(self):
        task = asyncio.create_task(self.statement())
        await asyncio.sleep(0)
        return task

    def fire(self, seconds=11.0):
        self.clock.time += seconds
        self.sweep._fire()


@pytest.fixture
async def bench():
    made = Bench()
    yield made
    made.sweep.stop()


async def test_an_overdue_statement_is_ended_and_its_task_lives_on(bench):
    """The cancellation is taken back: the task may go on and be cancelled by others later."""

    async def caller():
        with pytest.raises(TimeoutError):
            await bench.statement()
        await asyncio.sleep(0)
        return asyncio.current_task().cancelling()

    task = asyncio.create_task(caller())
    await asyncio.sleep(0)
    bench.fire()

    assert await task == 0
    assert bench.answer.cancelled(), "the driver hears of it"


async def test_an_answer_in_time_is_kept(bench):
    """The timer that fires afterwards finds nobody."""
    task = await bench.begin()
    bench.answer.set_result("row")

    assert await task == "row"
    bench.fire()
    assert bench.watch.task is None


async def test_an_answer_in_the_same_turn_leaves_no_cancellation_behind(bench):
    """Answered, not yet resumed, then overdue: the limit has won, and the task's count is even."""
    task = await bench.begin()
    bench.answer.set_result("row")
    bench.fire()

    with pytest.raises(TimeoutError):
        await task
    assert task.cancelling() == 0


async def test_an_error_in_the_same_turn_leaves_no_cancellation_behind(bench):
    """As with an answer."""
    task = await bench.begin()
    bench.answer.set_exception(ValueError())
    bench.fire()

    with pytest.raises(TimeoutError):
        await task
    assert task.cancelling() == 0


@pytest.mark.parametrize("is_first", [True, False], ids=["before the sweep", "after the sweep"])
async def test_somebody_elses_cancellation_prevails(bench, is_first):
    """In the same turn, in either order: it is never swallowed."""
    task = await bench.begin()
    if is_first:
        task.cancel("shutdown")
    bench.fire()
    if not is_first:
        task.cancel("shutdown")

    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelling() == 1, "theirs stays"


async def test_a_task_that_is_cleaning_up_after_a_cancellation_has_limits_too(bench):
    """One cancellation that was caught before is not taken for a second one."""

    async def cleaning():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            with pytest.raises(TimeoutError):
                await bench.statement()
            raise

    task = asyncio.create_task(cleaning())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    bench.fire()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_enclosing_timeout_that_expires_in_the_same_turn_prevails(bench):
    """`asyncio.timeout` counts cancellations the same way; its TimeoutError comes out of its own block."""
    order = []

    async def caller():
        try:
            async with asyncio.timeout(None) as outer:
                order.append(outer)
                await bench.statement()
        except TimeoutError:
            order.append(outer.expired())
        return asyncio.current_task().cancelling()

    task = asyncio.create_task(caller())
    await asyncio.sleep(0)
    order[0].reschedule(asyncio.get_running_loop().time() - 1.0)
    await asyncio.sleep(0)
    bench.fire()

    assert await task == 0
    assert order[1:] == [True]


async def test_a_watch_in_use_is_refused_and_untouched(bench):
    """Two tasks on one connection: the second has the driver's timer, the first keeps its own."""
    task = await bench.begin()

    assert not bench.sweep.enter(bench.watch, bench.clock.now() + 1.0)
    assert bench.watch.task is task

    bench.answer.set_result(None)
    await task


async def test_a_swallowed_cancellation_is_taken_back_all_the_same(bench):
    """A driver that answers in spite of it leaves no debt."""

    async def deaf():
        assert bench.sweep.enter(bench.watch, bench.clock.now() + 10.0)
        with contextlib.suppress(asyncio.CancelledError):
            await bench.answer
        bench.watch.leave()
        return asyncio.current_task().cancelling()

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    bench.fire()

    assert await task == 0


async def test_the_timer_stands_at_the_earliest_deadline_and_ends_nobody_early(bench):
    """Armed for the nearest; when it fires too early it stands again; with nobody left it is gone."""
    task = await bench.begin()
    assert bench.sweep.next_at == bench.watch.deadline

    bench.fire(5.0)
    assert not bench.watch.is_swept
    assert bench.sweep.next_at == bench.watch.deadline

    bench.answer.set_result(None)
    await task
    bench.fire(5.0)
    assert bench.sweep.next_at == float("inf")


async def test_a_nearer_deadline_moves_the_timer(bench):
    """A statement of 1 s behind one of 10 s."""
    other = Watch()
    bench.sweep._watches = lambda: [bench.watch, other]
    task = await bench.begin()

    assert bench.sweep.enter(other, bench.clock.now() + 1.0)
    assert bench.sweep.next_at == bench.clock.now() + 1.0
    other.leave()
    bench.fire(1.0)

    assert bench.sweep.next_at == bench.watch.deadline
    bench.answer.set_result(None)
    await task


async def test_what_must_not_be_cancelled_is_cut_when_it_is_overdue(bench):
    """Its task is left alone, whatever is awaited in it, and the cut happens once."""
    cuts = []

    async def commit():
        assert bench.sweep.guard(bench.watch, 10.0, lambda: cuts.append(bench.clock.now()))
        found = await bench.answer
        return found, bench.watch.leave()

    task = asyncio.create_task(commit())
    await asyncio.sleep(0)
    bench.fire(5.0)
    assert cuts == []
    bench.fire(6.0)
    bench.fire(6.0)
    assert len(cuts) == 1
    bench.answer.set_result("late")

    assert await task == ("late", False)
    assert task.cancelling() == 0


async def test_after_a_cut_the_watch_is_as_new(bench):
    """The next statement on it is cancelled when overdue, not cut."""
    cuts = []
    assert bench.sweep.guard(bench.watch, 1.0, lambda: cuts.append(1))
    bench.watch.leave()
    task = await bench.begin()
    bench.fire()

    with pytest.raises(TimeoutError):
        await task
    assert cuts == []
