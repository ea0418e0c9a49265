"""Leases in users' hands: who has which, since when it is silent, and when that is a leak; no timer, no event loop.

Theory of operation. Only leases that user code holds over several steps are noted (`hold`); those of single statements
end with their statement. A lease counts its steps: odd means that a statement, a COMMIT or a COPY is under way, so a
lease is *silent* from the moment its count stood still at an even number. One sweep looks at all of them; a count that
changed since the last look starts the silence anew, so nothing has to be timed while statements run. A silent lease is
reported once at the threshold and taken back at the limit, never during a step: those are bounded by limits of their
own. A lease on which somebody listens is silent by trade and left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import Task
    from collections.abc import Iterator

    from magnus.pool._lanes import Waiter
    from magnus.pool._lease import Lease
    from magnus.pool._places import Place


class Verdict(Enum):
    """
    What is to be done about a lease.
    """

    FINE = 0
    REPORT = 1
    RECLAIM = 2


@dataclass(frozen=True, slots=True)
class LeakLimits:
    """
    Seconds of silence after which a lease is reported (`threshold`) and taken back (`limit`); 0: never.
    """

    threshold: float
    limit: float

    @property
    def pause(self) -> float:
        """
        Seconds between two looks: a lease is found at most a quarter of the shorter limit late.
        """
        shortest = min((limit for limit in (self.threshold, self.limit) if limit), default=0.0)
        return min(max(shortest / 4, 0.05), 5.0) if shortest else 0.0

    def judge(self, silent: float, *, is_reported: bool) -> Verdict:
        """
        Say what is to be done about a lease that has been silent for so long.
        """
        if self.limit and silent >= self.limit:
            return Verdict.RECLAIM
        if self.threshold and silent >= self.threshold and not is_reported:
            return Verdict.REPORT
        return Verdict.FINE


class Holding:
    """
    One lease in a task's hands. `outer` is what the task held already, `waiter` its place in a queue of the same pool.
    `is_scoped`: a block of that task will give it back, so nobody else does.
    """

    __slots__ = ("is_reported", "is_scoped", "lease", "outer", "place", "seen", "silent_since", "task", "waiter")

    def __init__(self, lease: Lease, task: Task[object] | None, place: Place, outer: Holding | None) -> None:
        self.lease = lease
        self.task = task
        self.place = place
        self.outer = outer
        self.waiter: Waiter | None = None
        self.seen = lease.steps
        self.silent_since = lease.acquired_at
        self.is_reported = False
        self.is_scoped = False

    def silence(self, now: float) -> float:
        """
        Return for how long nothing has run on the lease: 0 while something does, and when something did since the
        last look.
        """
        steps = self.lease.steps
        if steps & 1 or steps != self.seen:
            self.seen = steps
            self.silent_since = now
        return now - self.silent_since


class Holdings:
    """
    Everything that is held, by task: what each acquired last.
    """

    __slots__ = ("by_task",)

    def __init__(self) -> None:
        self.by_task: dict[Task[object] | None, Holding] = {}

    def __bool__(self) -> bool:
        return bool(self.by_task)

    def __iter__(self) -> Iterator[Holding]:
        for newest in list(self.by_task.values()):
            holding: Holding | None = newest
            while holding is not None:
                yield holding
                holding = holding.outer

    def of(self, task: Task[object] | None) -> Holding | None:
        """
        Return what a task acquired last, of what it holds.
        """
        return self.by_task.get(task)

    def add(self, lease: Lease, task: Task[object] | None, place: Place) -> Holding:
        """
        Note that a task holds a lease from now on.
        """
        found = self.by_task[task] = Holding(lease, task, place, self.by_task.get(task))
        return found

    def remove(self, holding: Holding) -> None:
        """
        Forget a lease that was given back, by whichever task.
        """
        newest = self.by_task.get(holding.task)
        if newest is holding:
            if holding.outer is None:
                del self.by_task[holding.task]
            else:
                self.by_task[holding.task] = holding.outer
            return
        while newest is not None:
            if newest.outer is holding:
                newest.outer = holding.outer
                return
            newest = newest.outer
