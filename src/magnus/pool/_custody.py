"""Watches the leases that user code holds: leaks by one shared sweep, nested acquires when somebody has to wait.

It decides by `_leaks` and `_nested` and acts through the keeper. Nothing here runs for single statements, and nothing
but a note is taken of a lease that comes back in good time.
"""

from __future__ import annotations

from asyncio import current_task
from typing import TYPE_CHECKING, Final

from magnus._driver import LeaseReclaimed, has_listeners
from magnus.errors import NestedAcquire
from magnus.lanes import LANES
from magnus.observe import LeakReclaimed, LeakReturned, LeakSuspected, NestedAcquireRisk
from magnus.pool._leaks import Holding, Holdings, Verdict, masked
from magnus.pool._nested import Held, is_stuck
from magnus.pool._places import described, here, name_of, stack_of
from magnus.pool._slots import Slot, State

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

    from magnus.observe import Event
    from magnus.pool._keeper import Keeper
    from magnus.pool._leaks import LeakLimits
    from magnus.pool._lease import Lease
    from magnus.pool._life import PoolLife

_WARNED: Final = 100  # places that are told of, then silence


class Custody:
    """
    What is held, by whom, and what follows from it.
    """

    def __init__(
        self,
        limits: LeakLimits,
        state: PoolLife,
        keeper: Keeper,
        *,
        now: Callable[[], float],
        notify: Callable[[Event], None],
    ) -> None:
        self.holdings = Holdings()
        self._limits = limits
        self._state = state
        self._keeper = keeper
        self._now = now
        self._notify = notify
        self._is_sweeping = False
        self._warned: set[object] = set()

    # --- leases

    def hold(self, lease: Lease, loop: AbstractEventLoop | None, inside: int) -> None:
        """
        Note that the running task's code holds a lease from now on, until it is released or discarded. The loop is
        the running one, if known: that is quicker. `inside`: see `here`.
        """
        lease.holding = self.holdings.add(lease, current_task(loop), here(inside))
        if not self._is_sweeping:
            self._arm()

    def returned(self, lease: Lease) -> None:
        """
        Forget a held lease that came back.
        """
        holding, lease.holding = lease.holding, None
        if holding is None:
            return
        if lease.reclaimed is None:
            self.holdings.remove(holding)
        if holding.is_reported or lease.reclaimed is not None:
            held = self._now() - lease.acquired_at
            was_reclaimed = lease.reclaimed is not None
            self._notify(LeakReturned(name_of(holding.task), lease.lane.value, held, was_reclaimed))

    def transactions_of_task(self) -> int:
        """
        Return how many leases of the running task are in a transaction.
        """
        count, holding = 0, self.holdings.of(current_task())
        while holding is not None:
            con = holding.lease.con
            count += not con.is_closed() and con.is_in_transaction()
            holding = holding.outer
        return count

    def disown(self) -> None:
        """
        Mark everything that is held as given back: this is a child process, it is the parent's.
        """
        for holding in self.holdings:
            holding.lease.is_released = True
            holding.lease.holding = None
        self.holdings = Holdings()

    # --- leaks

    def sweep(self) -> None:
        """
        Look at everything that is held: report and take back what is silent too long.
        """
        now = self._now()
        self._is_sweeping = False
        if self.holdings:
            self._arm()
        for holding in self.holdings:
            silent = holding.silence(now)
            verdict = self._limits.judge(silent, is_reported=holding.is_reported)
            if verdict is not Verdict.FINE and not has_listeners(holding.lease.con):
                self._act(holding, verdict, now, silent)

    def _arm(self) -> None:
        pause = self._limits.pause
        if pause:
            self._is_sweeping = True
            self._keeper.timers.arm(self.sweep, self._now() + pause)

    def _act(self, holding: Holding, verdict: Verdict, now: float, silent: float) -> None:
        lease, task = holding.lease, holding.task
        holding.is_reported = True
        held, place = now - lease.acquired_at, described(holding.place)
        kind = LeakReclaimed if verdict is Verdict.RECLAIM else LeakSuspected
        told = kind(
            task=name_of(task),
            lane=lease.lane.value,
            held=held,
            silent=silent,
            query=masked(lease.text),
            acquired_at=place,
            stack=stack_of(task),
        )
        if verdict is Verdict.RECLAIM:
            self.holdings.remove(holding)
            lease.is_released = True
            lease.reclaimed = LeaseReclaimed(held=held, acquired_at=place)
            self._keeper.drop(lease.slot)
        self._notify(told)

    # --- nested acquires

    def asks(self, rank: int) -> Holding | None:
        """
        Check a caller that is about to wait in a lane. Returns what its task holds, to be told of the waiter.

        Raises:
            NestedAcquire: the task would wait for itself, alone or with others like it.
        """
        task = current_task()
        holding = self.holdings.of(task)
        if holding is None:
            return None
        if self._state.is_paused or self._state.lanes.can_enter(rank):
            return holding  # what it waits for is no other caller: a connect, or the end of the pause
        lane, held_at, asked_at = LANES[rank].value, described(holding.place), here()
        if is_stuck(task, self._held(task, rank), self._state.lanes.caps):
            raise NestedAcquire(lane=lane, held_at=held_at, asked_at=described(asked_at))
        if asked_at not in self._warned and len(self._warned) < _WARNED:
            self._warned.add(asked_at)
            self._notify(NestedAcquireRisk(name_of(task), lane, held_at, described(asked_at)))
        return holding

    def _held(self, asking: object, rank: int) -> list[Held]:
        """
        Return every acquired slot with its owner. A slot that no block gives back, a single statement's or one that any
        task may release, is its own owner, and free.
        """
        waits: dict[object, int] = {}
        busy: set[object] = set()
        owners: dict[Slot, object] = {}
        for holding in self.holdings:
            if holding.is_scoped:
                owners[holding.lease.slot] = holding.task
            waiter = holding.waiter
            if waiter is not None and waiter.slot is None and not waiter.signal.done():
                waits[holding.task] = waiter.rank
            if holding.lease.steps & 1:
                busy.add(holding.task)  # somebody else works on it, and may be about to give it back
        waits[asking] = rank
        return [
            Held(slot.rank, owner, None if owner in busy else waits.get(owner))
            for slot in self._state.slots
            if slot.state is State.ACQUIRED
            for owner in [owners.get(slot, slot)]
        ]
