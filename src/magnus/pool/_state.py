"""The pool's state machine: an event goes in, actions come out; no await, no clock, no driver, no event loop.

Theory of operation. A *slot* is the right to hold one server connection. It is created when a connect begins and is
gone when its connection is; `_slots.TABLE` lists every state and every event it may meet. The methods of `PoolState`
are the events of the whole pool. Each one changes the state at once and completely, and returns what the shell has to
do in the world (`Action`); whatever the shell does later comes back as another event. Cancel is an event like any
other: `withdraw`.

Ownership. CONNECTING and CLOSING slots belong to the pool's own tasks, IDLE ones to the pool, ACQUIRED ones to exactly
one caller, from the moment of the hand-off, even if that caller has not run yet. A slot handed to a caller that was
cancelled in the meantime comes back through `withdraw`, which passes it on.

Connects belong to the pool. Demand (waiters that another slot could serve) and the floor (`min_size`) decide how many
are under way, never more than `window` at once. A waiter takes whatever comes first, an opened connection or a
released one; a connection that finds nobody waiting becomes idle. After a failure the window is one: a single prober,
paced by jittered backoff; each success doubles the window up to `connect_limit` (slow start).

Invariants, after every event (`check`):
  connecting + idle + acquired + closing == slots <= max_size
  no idle slot while a waiter exists that could take it
  the lanes' usage equals the acquired slots
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from magnus.pool._lanes import Lanes
from magnus.pool._limits import Limits, probe_delay
from magnus.pool._slots import (
    TABLE,
    Action,
    Actions,
    Close,
    Connect,
    Event,
    Expire,
    HandOff,
    IllegalEvent,
    Refuse,
    Retry,
    Slot,
    State,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from magnus.pool._lanes import Waiter
    from magnus.session import Need

_IDLE: Final = State.IDLE  # an attribute of an enum costs more than what is done with it
_ACQUIRED: Final = State.ACQUIRED
_KINDS: Final = 16  # limits that are remembered although no idle session has them


class PoolState:
    """
    All slots and waiters of one pool. `uniform(a, b)` is the source of jitter.
    """

    __slots__ = (
        "_count", "_failing_since", "_failures", "_idle", "_idle_by", "_limits", "_next_expiry", "_retry_at",
        "_uniform", "_window", "connect_failures", "connects", "discarded", "floor", "full_since", "generation",
        "is_closing", "lanes", "last_handoff", "slots",
    )  # fmt: skip

    def __init__(self, limits: Limits, *, uniform: Callable[[float, float], float]) -> None:
        self._limits = limits
        self._uniform = uniform
        self.lanes = Lanes(limits.lanes())
        self.slots: set[Slot] = set()
        self._idle: dict[Slot, None] = {}  # in order; the last one is used first: the rest may shrink away
        self._idle_by: dict[Need, dict[Slot, None]] = {}  # the same, by the limit that their session has
        self._count = [0] * len(State)
        self.floor = limits.min_size
        self.generation = 0
        self.is_closing = False
        self._window = limits.connect_limit
        self._failures = 0
        self._retry_at = self._failing_since = 0.0
        self._next_expiry = 0.0
        self.connects = self.connect_failures = self.discarded = 0
        self.last_handoff: float | None = None
        self.full_since: float | None = None

    # --- what the pool looks like

    def count(self, state: State) -> int:
        return self._count[state]

    @property
    def size(self) -> int:
        return len(self.slots)

    @property
    def open_count(self) -> int:
        """
        Connections that are open and in service.
        """
        return self._count[State.IDLE] + self._count[State.ACQUIRED]

    @property
    def failures(self) -> int:
        """
        Connects that failed in a row; 0 while the server is reachable.
        """
        return self._failures

    @property
    def idle_slots(self) -> Sequence[Slot]:
        return list(self._idle)

    # --- events from callers

    def candidate(self, rank: int, wanted: Need = None) -> Slot | None:
        """
        Return the idle slot that a caller would be given: one whose session has the `wanted` limit if there is one,
        the one used last in either case. None: it has to `wait`.
        """
        if not self._idle or not self.lanes.can_enter(rank):
            return None
        return next(reversed(self._idle_by.get(wanted) or self._idle))

    def occupy(self, slot: Slot, rank: int, now: float) -> None:
        """
        A caller takes its `candidate`.
        """
        del self._idle[slot]
        del self._idle_by[slot.filed][slot]
        # The hottest edges of `TABLE` are written out: IDLE, TAKEN here, and ACQUIRED, RETURNED in `_place`.
        slot.state = _ACQUIRED
        self._count[_IDLE] -= 1
        self._count[_ACQUIRED] += 1
        self.lanes.enter(rank)
        slot.rank = rank
        self.last_handoff = now
        self.full_since = None

    def take(self, rank: int, now: float, wanted: Need = None) -> Slot | None:
        """
        A caller arrives: give it an idle slot, or None, when it has to `wait`.
        """
        slot = self.candidate(rank, wanted)
        if slot is not None:
            self.occupy(slot, rank, now)
        return slot

    def wait(self, waiter: Waiter, now: float) -> Actions:
        """
        A caller queues, after `take` gave it nothing.
        """
        self.lanes.join(waiter)
        if self.full_since is None:
            self.full_since = now
        return self._plan(now) if len(self.slots) < self._limits.max_size else []

    def withdraw(self, waiter: Waiter, now: float) -> Actions:
        """
        A queued caller goes away (cancelled, or out of time). A slot that it was already handed is passed on.
        """
        slot, waiter.slot = waiter.slot, None
        if slot is not None:
            slot.handed_at = None  # it was not used: that is no service time
            return self.release(slot, now)
        self.lanes.remove(waiter)
        return []

    def hand_over(self, slot: Slot, now: float) -> Waiter | None:
        """
        A holder returns a slot: give it straight to the next waiter when only its own lane has any.

        None: nothing was changed, and `release` decides.
        """
        if not self.lanes.total_waiting or slot.state is not _ACQUIRED or slot.is_dead:
            return None
        if now >= slot.expires or slot.generation != self.generation or self.is_closing:  # as in `_is_suspect`
            return None
        waiter = self.lanes.successor(slot.rank, now)
        if waiter is not None:
            waiter.slot = slot
            slot.handed_at = None  # how long it is kept from here on is not measured
            self.last_handoff = now
            self.full_since = None
        return waiter

    def wasted(self, slot: Slot, now: float) -> None:
        """
        A holder ran out of time: its slot served nobody, and so long was not enough for its work.
        """
        if slot.state is _ACQUIRED:
            self.lanes.codels[slot.rank].wasted(None if slot.handed_at is None else now - slot.handed_at)
            slot.handed_at = None

    def release(self, slot: Slot, now: float) -> Actions:
        """
        A holder returns a slot whose connection is fit for the next caller.
        """
        if slot.state is not _ACQUIRED:
            if slot.state is State.GONE:
                return []
            raise IllegalEvent(f"release of a slot that is {slot.state.name}")
        if slot.is_dead:
            return self.discard(slot, now)
        self.lanes.leave(slot.rank)
        if slot.handed_at is not None:
            self.lanes.codels[slot.rank].took(now - slot.handed_at)
            slot.handed_at = None
        if self._is_suspect(slot, now) and self._is_stale(slot, now):
            self._move(slot, Event.RETIRED)
            return [Close(slot), *self._serve(now)]
        # One place in the lanes became free, so at most one waiter can be served, and it gets this slot.
        return self._place(slot, now)

    def discard(self, slot: Slot, now: float) -> Actions:
        """
        A holder gives back a slot whose connection it terminated. Again, or after the pool did so: nothing happens.
        """
        if slot.state is State.GONE:
            return []
        rank = slot.rank
        self._move(slot, Event.DISCARDED)
        self.lanes.leave(rank)
        self.discarded += 1
        return self._serve(now)

    # --- events from connections

    def opened(self, slot: Slot, con: object, now: float) -> Actions:
        """
        A connect succeeded.
        """
        if slot.state is not State.CONNECTING:
            raise IllegalEvent(f"connection opened for a slot that is {slot.state.name}")
        if not any(each.con is not None and not each.is_dead for each in self.slots):
            self.lanes.restart(now)
        slot.con = con
        slot.expires = now + self._limits.max_lifetime * self._uniform(0.75, 1.0)
        self.connects += 1
        self._failures = 0
        self._retry_at = 0.0
        self._window = min(self._limits.connect_limit, self._window * 2)
        if self.is_closing or slot.generation != self.generation:
            self._move(slot, Event.RETIRED)
            return [Close(slot), *self._plan(now)]
        return [*self._place(slot, now), *self._plan(now)]

    def connect_failed(self, slot: Slot, now: float) -> Actions:
        """
        A connect failed, ran out of time or was given up.
        """
        if slot.state is State.GONE:
            return []
        self._move(slot, Event.FAILED)
        if self.is_closing:
            return []
        self.connect_failures += 1
        self._window = 1
        if now >= self._retry_at:  # several that fail together are one failure
            self._failures += 1
            if self._failures == 1:
                self._failing_since = now
            lasted = now - self._failing_since
            self._retry_at = now + probe_delay(self._failures, self._limits, self._uniform, lasted=lasted)
        return self._plan(now)

    def refuse(self, error: Exception) -> Actions:
        """
        A connect failed in a pool whose callers are told: the oldest of them, or all when no other connect is under
        way and nobody holds a connection that could come back.
        """
        is_hopeless = not self.open_count and not self._count[State.CONNECTING]
        refused = self.lanes.drain(None if is_hopeless else 1)
        for waiter in refused:
            waiter.error = error
        return [Refuse(waiter) for waiter in refused]

    def lost(self, slot: Slot, now: float) -> Actions:
        """
        A connection was terminated from outside. An idle slot is freed at once, an acquired one is marked.
        """
        was = slot.state
        if was in {State.IDLE, State.ACQUIRED}:
            self._window = 1  # seldom comes alone: one connect finds out how the server is
        self._move(slot, Event.LOST)
        slot.is_dead = True
        if was is not State.IDLE:
            return []
        self._take_out(slot)
        self.discarded += 1
        return self._plan(now)

    def closed(self, slot: Slot, now: float) -> Actions:
        """
        A connection that was being closed is closed.
        """
        self._move(slot, Event.CLOSED)
        return self._plan(now)

    # --- events from time and operators

    def tick(self, now: float) -> Actions:
        """
        Time has passed: retire what is idle too long or too old (from the oldest end, paced) and keep the floor.
        """
        actions: Actions = []
        spare = self.open_count - self.floor
        for slot in list(self._idle):
            is_spare = spare > 0 and now - slot.idle_since >= self._limits.max_idle
            if is_spare or self._is_stale(slot, now):
                actions.append(self._retire(slot))
                spare -= 1
        return actions + self._plan(now)

    def warm(self, floor: int, now: float) -> Actions:
        """
        Keep `floor` connections open from now on (never below `min_size`, never above `max_size`).
        """
        self.floor = max(self._limits.min_size, min(floor, self._limits.max_size))
        return self._plan(now)

    def expire(self, now: float) -> Actions:
        """
        Close every present connection: idle ones now, the others when they come back.
        """
        self.generation += 1
        return self.tick(now)

    def retire_silent(self, silent_since: float, now: float) -> Actions:
        """
        Close the idle connections that nobody has used since `silent_since`: one like them was found dead.
        """
        found: Actions = [self._retire(slot) for slot in list(self._idle) if slot.idle_since <= silent_since]
        return found + self._plan(now)

    def close(self, now: float) -> Actions:
        """
        Refuse everyone who waits, close what is idle; the rest is closed when it comes back.
        """
        self.is_closing = True
        refused: Actions = [Refuse(waiter) for waiter in self.lanes.drain()]
        return refused + self.tick(now)

    # --- the inside

    def _move(self, slot: Slot, event: Event) -> None:
        was = slot.state
        now_is = TABLE.get((was, event))
        if now_is is None:
            raise IllegalEvent(f"{event.name} of a slot that is {was.name}")
        if now_is is was:
            return
        slot.state = now_is
        self._count[was] -= 1
        self._count[now_is] += 1
        if now_is is State.GONE:
            self.slots.discard(slot)
            slot.con = None

    def _place(self, slot: Slot, now: float) -> Actions:
        """
        Give a free slot (ACQUIRED without a lane, or CONNECTING) to the next waiter, or put it among the idle ones.
        """
        actions: Actions = []
        waiter: Waiter | None = None
        if self.lanes.total_waiting:
            expired: list[Waiter] = []
            waiter = self.lanes.next(now, expired)
            actions += map(Expire, expired)
        self.full_since = None
        if waiter is None:
            if slot.state is _ACQUIRED:
                slot.state = _IDLE
                self._count[_ACQUIRED] -= 1
                self._count[_IDLE] += 1
            else:
                self._move(slot, Event.OPENED)
            slot.idle_since = now
            self._file(slot)
            return actions
        better = self._idle_by.get(waiter.wanted) if slot.session.present != waiter.wanted else None
        if better and slot.state is State.ACQUIRED:
            # An idle session has the limit already: the two change places, and a round trip is saved.
            waiter.was_idle = True
            self._move(slot, Event.RETURNED)
            slot.idle_since = now
            self._file(slot)
            slot = next(reversed(better))
            self._take_out(slot)
        self._move(slot, Event.TAKEN)
        slot.rank = waiter.rank
        slot.handed_at = now
        waiter.slot = slot
        self.last_handoff = now
        actions.append(HandOff(waiter))
        return actions

    def _serve(self, now: float) -> Actions:
        """
        A lane gave up a place without giving its slot to anyone: let idle slots meet waiters, then plan connects.
        """
        actions: Actions = []
        expired: list[Waiter] = []
        while self._idle and (waiter := self.lanes.next(now, expired)) is not None:
            slot = next(reversed(self._idle_by.get(waiter.wanted) or self._idle))
            self._take_out(slot)
            waiter.was_idle = True
            self._move(slot, Event.TAKEN)
            slot.rank = waiter.rank
            slot.handed_at = now
            waiter.slot = slot
            self.last_handoff = now
            self.full_since = None
            actions.append(HandOff(waiter))
        actions += [Expire(gone) for gone in expired]
        return actions + self._plan(now)

    def _plan(self, now: float) -> Actions:
        """
        Start the connects that demand and floor ask for, as far as room, window and backoff allow.
        """
        if self.is_closing:
            return []
        connecting = self._count[State.CONNECTING]
        room = min(self._limits.max_size - len(self.slots), self._window - connecting)
        if room <= 0:
            return []
        count = min(room, max(self.lanes.demand(), self.floor - self.open_count) - connecting)
        if count <= 0:
            return []
        if now < self._retry_at:
            return [Retry(self._retry_at)]
        started: Actions = []
        for _ in range(count):
            slot = Slot(self.generation)
            self.slots.add(slot)
            self._count[State.CONNECTING] += 1
            started.append(Connect(slot))
        return started

    def _is_suspect(self, slot: Slot, now: float) -> bool:
        """
        Say whether a slot that comes back may have to be closed: cheap, and true before `_is_stale` can be.
        """
        return now >= slot.expires or slot.generation != self.generation or self.is_closing

    def _is_stale(self, slot: Slot, now: float) -> bool:
        if self.is_closing or slot.generation != self.generation:
            return True
        if now < slot.expires or now < self._next_expiry:
            return False
        # Paced: a whole pool of the same age is replaced one by one, over a quarter of the lifetime at most.
        self._next_expiry = now + self._limits.max_lifetime / (4 * self._limits.max_size)
        return True

    def _retire(self, slot: Slot) -> Action:
        self._move(slot, Event.RETIRED)
        self._take_out(slot)
        return Close(slot)

    def _file(self, slot: Slot) -> None:
        """
        Put a slot that became idle where it is found.
        """
        self._idle[slot] = None
        slot.filed = filed = slot.session.present
        same = self._idle_by.get(filed)
        if same is None:
            if len(self._idle_by) >= _KINDS:
                self._idle_by = {limit: slots for limit, slots in self._idle_by.items() if slots}
            same = self._idle_by[filed] = {}
        same[slot] = None

    def _list_idle(self, slots: Iterable[Slot]) -> None:
        """
        List the idle slots anew, those first that were used longest ago.
        """
        ordered = sorted(slots, key=_since)
        self._idle, self._idle_by = {}, {}
        for slot in ordered:
            self._file(slot)

    def _take_out(self, slot: Slot) -> None:
        del self._idle[slot]
        del self._idle_by[slot.filed][slot]

    def check(self) -> None:
        """
        Assert the invariants listed above.
        """
        by_state = [0] * len(State)
        for slot in self.slots:
            by_state[slot.state] += 1
        by_state[State.GONE] = self._count[State.GONE]
        assert by_state == self._count, f"counts {self._count}, slots {by_state}"
        assert len(self.slots) <= self._size_allowed(), f"{len(self.slots)} slots"
        assert len(self._idle) == self._count[State.IDLE], "the idle list is not the idle slots"
        assert all(slot.state is State.IDLE for slot in self._idle), "an idle slot is not idle"
        filed = [slot for slots in self._idle_by.values() for slot in slots]
        assert len(filed) == len(self._idle), "the idle slots are not those filed by limit"
        assert set(filed) == set(self._idle), "the idle slots are not those filed by limit"
        self.lanes.check()
        held = self.lanes.total_used
        assert held == self._count[State.ACQUIRED], f"lanes hold {held}, acquired {self._count[State.ACQUIRED]}"
        assert not self._idle or self.lanes.demand() == 0, "an idle slot and a waiter that could take it"

    def _size_allowed(self) -> int:
        return self._limits.max_size


def _since(slot: Slot) -> float:
    return slot.idle_since
