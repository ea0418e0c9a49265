"""Who may hold how many slots, and who is next: pure, no clock, no asyncio, no connection.

Theory of operation. Caps are nested: a lane's cap bounds the slots held by that lane *and all lanes below it*. The
difference between one cap and the next is therefore a reserve that nothing below can touch, so CRITICAL finds a slot
while everything else is saturated. A caller that finds callers of its own lane waiting queues behind them (FIFO);
across lanes nobody queues behind anybody: a lane at its cap does not block the others.

A free slot goes to CRITICAL first. The other lanes share the hand-offs by stride scheduling: each lane has a pass,
the smallest pass among the lanes that wait and have room is served and advances by its stride (the inverse of its
weight), from the present pass at least, so absence and time at the cap earn no credit. When CRITICAL alone keeps
the queue full, every 16th hand-off still goes to the others: floors are shares of hand-offs, never held slots.

In a lane that has a wait target, a waiter may be shed when its turn comes (`_codel`), never before.

Waiters stand in ordered dicts: joining, leaving from the middle (cancel, deadline) and serving are O(1), and nothing
is left behind to be swept.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import chain, islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

from magnus.errors import ConfigError
from magnus.lanes import LANES, QueryPriority
from magnus.pool._codel import Codel

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from magnus.config import LaneSettings
    from magnus.session import Need

RANK: Final[Mapping[QueryPriority, int]] = MappingProxyType({lane: rank for rank, lane in enumerate(LANES)})
_WEIGHTS: Final = (0, 8, 4, 2, 1)  # CRITICAL is outside the shares
_RELIEF: Final = 16
_STRIDE: Final = 840 * 1000  # fine enough for any whole weight up to 100
_AS_COMPUTED: Final[Mapping[QueryPriority, LaneSettings]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """
    What one lane may use of a pool.

    Attributes:
        lane: Which one.
        cap: Slots that this lane and all lanes below it may hold together; at least 1.
        weight: Its share of hand-offs when several lanes wait; 0 is served before all others.
        max_waiting: Callers that may queue; the next one is refused.
        wait_target: Seconds of waiting beyond which a queue stands; None: it is never shed.
        is_eager: A queue that stands is shed although everybody in it could be served in time.
    """

    lane: QueryPriority
    cap: int
    weight: int
    max_waiting: int
    wait_target: float | None = None
    is_eager: bool = False


def lane_table(
    max_size: int,
    *,
    max_waiting: int = 10_000,
    settings: Mapping[QueryPriority, LaneSettings] = _AS_COMPUTED,
    wait_targets: Mapping[QueryPriority, float] = MappingProxyType({}),
) -> tuple[LaneLimits, ...]:
    """
    Return the limits of the five lanes for a pool of `max_size` slots, most important first.

    A quarter of the slots (at least one) is out of reach for NORMAL and below; half of that quarter, rounded up, is
    CRITICAL's alone. LOW and BACKGROUND together get a fifth, BACKGROUND a tenth: what they run competes for the
    server's cores, which no queue can undo. A pool of one slot has no reserve. What `settings` gives stands in place of
    what is computed; a computed cap is lowered to the cap of the lane above it.

    Raises:
        ConfigError: `max_size` is below 1, or a given cap is above it or above the cap of the lane above.
    """
    if max_size < 1:
        raise ConfigError("max_size", max_size, "must be at least 1")
    found: list[LaneLimits] = []
    for lane, usual, weight in zip(LANES, _caps(max_size), _WEIGHTS, strict=True):
        own = settings.get(lane)
        highest = found[-1].cap if found else max_size
        cap = usual if own is None or own.cap is None else own.cap
        if own is not None and own.cap is not None and cap > highest:
            raise ConfigError(f"lanes[{lane}].cap", cap, f"is above what the lane above it may hold ({highest})")
        found.append(
            LaneLimits(
                lane,
                min(cap, highest),
                weight if own is None or own.weight is None else own.weight,
                max_waiting if own is None or own.max_waiting is None else own.max_waiting,
                wait_targets.get(lane),
                own is not None and own.wait_target is not None,
            )
        )
    return tuple(found)


def _caps(max_size: int) -> tuple[int, ...]:
    reserve = max(1, max_size // 4) if max_size > 1 else 0
    high = max_size - (reserve + 1) // 2
    normal = max_size - reserve
    background = max(1, max_size // 10)
    low = max(1, min(max(background + 1, max_size // 5), normal - 1))
    return (max_size, high, normal, low, min(background, low))


class Signal(Protocol):
    """
    What a waiter waits on. Done while still queued means that the caller has gone away.
    """

    def done(self) -> bool: ...

    def set_result(self, result: None, /) -> None: ...

    def __await__(self) -> Generator[Any, None, None]: ...


class Waiter:
    """
    One queued caller. `slot` is set when it was handed one; from then on the slot is the caller's to return. `error`
    is what to raise instead, when it was refused for a reason.

    It is shed only when it `may_be_shed`; it then finds `is_shed` set. `wanted` is the limit that the slot's session
    should have, `was_idle` says that the slot was idle before; `holding` is the shell's note of what its task holds.
    """

    __slots__ = (
        "deadline", "error", "holding", "is_shed", "may_be_shed", "rank", "signal", "since", "slot", "wanted",
        "was_idle",
    )  # fmt: skip

    def __init__(self, rank: int, since: float, deadline: float | None, signal: Signal) -> None:
        self.rank = rank
        self.since = since
        self.deadline = deadline
        self.signal = signal
        self.slot: Any = None
        self.error: Exception | None = None
        self.may_be_shed = False
        self.is_shed = False
        self.wanted: Need = None
        self.was_idle = False
        self.holding: Any = None


class Lanes:
    """
    Slots in use and waiters, by rank (0 is CRITICAL).
    """

    __slots__ = (
        "_caps", "_ceilings", "_is_tight", "_last", "_max_waiting", "_pass", "_present", "_queues", "_strict",
        "_strides", "_table", "_used", "codels", "total_waiting",
    )  # fmt: skip

    def __init__(self, table: Sequence[LaneLimits]) -> None:
        self._table = [limits.cap for limits in table]
        self._caps = self._table  # others while paused
        self._is_tight = False  # caps were lowered: a lane may hold more than its cap
        self._ceilings = list(self._table)  # what a lane held when its cap was lowered, if that is more
        self._max_waiting = [limits.max_waiting for limits in table]
        self._strides = [_STRIDE // limits.weight if limits.weight else 0 for limits in table]
        self._queues: list[OrderedDict[Waiter, None]] = [OrderedDict() for _ in table]
        self._used = [0] * len(table)  # by this lane and all below it
        self._pass = [0] * len(table)
        self._present = 0
        self._strict = 0
        self._last = len(table) - 1
        self.total_waiting = 0
        self.codels = [Codel(limits.wait_target, is_eager=limits.is_eager) for limits in table]

    @property
    def caps(self) -> tuple[int, ...]:
        """
        The caps by rank, as they are when nothing is paused.
        """
        return tuple(self._table)

    def set_caps(self, caps: Sequence[int]) -> None:
        """
        Put other caps in force. A lane that holds more than its new cap keeps it and takes nothing.
        """
        is_paused = self._caps is not self._table
        self._table = list(caps)
        self._caps = [0] * len(caps) if is_paused else self._table
        self._ceilings = [max(cap, used) for cap, used in zip(caps, self._used, strict=True)]
        self._is_tight = True

    def pause(self) -> None:
        """
        Let nobody take a slot.
        """
        self._caps = [0] * len(self._table)
        self._is_tight = True

    def resume(self) -> None:
        """
        Put the caps in force again.
        """
        self._caps = self._table

    def recount(self, ranks: Sequence[int]) -> bool:
        """
        Count anew: one slot is held by each of these lanes. Returns whether that differs from what was counted.
        """
        used = [sum(held >= rank for held in ranks) for rank in range(self._last + 1)]
        was, self._used = self._used, used
        return was != used

    # --- slots in use

    def can_enter(self, rank: int) -> bool:
        """
        Say whether a lane may hold one more slot.
        """
        used, caps = self._used, self._caps
        while rank >= 0:
            if used[rank] >= caps[rank]:
                return False
            rank -= 1
        return True

    def enter(self, rank: int) -> None:
        """
        Count a slot that a lane takes. `can_enter` was asked before.
        """
        used = self._used
        while rank >= 0:
            used[rank] += 1
            rank -= 1

    def leave(self, rank: int) -> None:
        """
        Count a slot that a lane gives back.
        """
        used = self._used
        while rank >= 0:
            used[rank] -= 1
            rank -= 1

    def used(self, rank: int) -> int:
        """
        Return how many slots a lane holds by itself.
        """
        return self._used[rank] - (self._used[rank + 1] if rank < self._last else 0)

    @property
    def total_used(self) -> int:
        return self._used[0]

    # --- waiters

    def is_queue_full(self, rank: int) -> bool:
        return len(self._queues[rank]) >= self._max_waiting[rank]

    def waiting(self, rank: int) -> int:
        return len(self._queues[rank])

    def join(self, waiter: Waiter) -> None:
        """
        Queue a waiter at the end of its lane.
        """
        self._queues[waiter.rank][waiter] = None
        self.total_waiting += 1

    def remove(self, waiter: Waiter) -> bool:
        """
        Take a waiter out of its queue; False when it is in none.
        """
        queue = self._queues[waiter.rank]
        if waiter not in queue:
            return False
        del queue[waiter]
        self.total_waiting -= 1
        return True

    def drain(self, most: int | None = None) -> list[Waiter]:
        """
        Take out `most` waiters, or all, and return them: most important first, oldest first.
        """
        found = list(islice(chain.from_iterable(self._queues), most))
        for waiter in found:
            del self._queues[waiter.rank][waiter]
        self.total_waiting -= len(found)
        return found

    def demand(self) -> int:
        """
        Return how many waiters more slots could serve, caps considered.
        """
        found = 0
        for rank in range(self._last, -1, -1):
            found = max(min(found + len(self._queues[rank]), self._caps[rank] - self._used[rank]), 0)
        return found

    def restart(self, now: float) -> None:
        """
        There is a server again: waits up to now say nothing about load.
        """
        for codel in self.codels:
            codel.restart(now)

    def next(self, now: float, expired: list[Waiter]) -> Waiter | None:
        """
        Take out the waiter that a free slot goes to and count the slot as its lane's; None when nobody may have it.

        Waiters whose deadline has passed or comes too soon, and those that are shed, are dropped into `expired`; those
        who have gone away are dropped silently.
        """
        while True:
            rank = self._next_rank()
            if rank < 0:
                return None
            waiter, _ = self._queues[rank].popitem(last=False)
            self.total_waiting -= 1
            if waiter.signal.done():
                continue
            if waiter.deadline is not None and waiter.deadline <= now:
                expired.append(waiter)
                continue
            codel = self.codels[rank]
            if codel.target is not None and self._is_given_up(codel, waiter, now):
                expired.append(waiter)
                continue
            codel.served(waiter.since, now)
            self._charge(rank)
            self.enter(rank)
            return waiter

    def _is_given_up(self, codel: Codel, waiter: Waiter, now: float) -> bool:
        """
        Say whether a slot is better given to somebody else; who is shed finds that out by `is_shed`.
        """
        queue = self._queues[waiter.rank]
        codel.look(waiter.since, now, is_last=not queue)
        if not codel.is_overloaded:
            return False
        newest, left = next(reversed(queue)), None
        if waiter.deadline is not None and newest.deadline is not None:
            # One that is less patient than the others is no reason to give them up.
            left = max(newest.deadline, newest.since + waiter.deadline - waiter.since) - now
        if not waiter.may_be_shed:
            return codel.is_hopeless(waiter.since, waiter.deadline, now, behind=len(queue), left=left)
        waiter.is_shed = codel.is_shed(waiter.since, waiter.deadline, now, behind=len(queue), left=left)
        return waiter.is_shed

    def successor(self, rank: int, now: float) -> Waiter | None:
        """
        Take out the waiter that inherits a slot of its own lane, usage unchanged; None when `next` has to decide.

        That is when somebody waits in another lane, nobody in this one, its first one's deadline has passed, or its
        queue may be standing.
        """
        queue, codel = self._queues[rank], self.codels[rank]
        if not queue or len(queue) != self.total_waiting or codel.is_overloaded:
            return None
        if self._is_tight and self._is_over():
            return None
        while queue:
            waiter, _ = queue.popitem(last=False)
            self.total_waiting -= 1
            if waiter.signal.done():
                continue
            if (waiter.deadline is None or waiter.deadline > now) and not self._is_standing(codel, waiter, now):
                self._strict = 0
                codel.served(waiter.since, now)
                return waiter
            queue[waiter] = None
            queue.move_to_end(waiter, last=False)
            self.total_waiting += 1
            break
        return None

    def _is_standing(self, codel: Codel, waiter: Waiter, now: float) -> bool:
        if codel.target is None:
            return False
        codel.look(waiter.since, now, is_last=not self._queues[waiter.rank])
        return codel.is_overloaded

    def _is_over(self) -> bool:
        """
        Say whether some lane holds more than its cap: sizes were lowered, or the pool is paused.
        """
        self._is_tight = any(used > cap for used, cap in zip(self._used, self._caps, strict=True))
        return self._is_tight

    def _next_rank(self) -> int:
        queues, used, caps = self._queues, self._used, self._caps
        if used[0] >= caps[0]:
            return -1
        is_strict = bool(queues[0])
        if is_strict and self._strict < _RELIEF - 1:
            return 0
        best, least = -1, 0
        for rank in range(1, len(caps)):
            if used[rank] >= caps[rank]:
                break
            if queues[rank] and (best < 0 or self._pass[rank] < least):
                best, least = rank, self._pass[rank]
        if is_strict and best < 0:  # nobody else could be served, so nobody was passed over
            self._strict = 0
            return 0
        return best

    def _charge(self, rank: int) -> None:
        if rank == 0:
            self._strict = self._strict + 1 if any(self._queues[1:]) else 0
            return
        self._strict = 0
        # A pass that was left behind, by absence or at the cap, is no credit.
        self._present = max(self._present, self._pass[rank])
        self._pass[rank] = self._present + self._strides[rank]

    def check(self) -> None:
        """
        Assert the invariants: no lane group above its cap (or what it held when that was lowered), none below zero; the
        count of waiters is right.
        """
        assert self.total_waiting == sum(map(len, self._queues)), f"{self.total_waiting} waiters"
        for rank, (used, cap) in enumerate(zip(self._used, self._ceilings, strict=True)):
            assert 0 <= used <= cap, f"rank {rank}: {used} of {cap} slots"
            assert self.used(rank) >= 0, f"rank {rank}: {self._used}"
