"""The life of a pool's connections, as more events of its state: rotation, keepalive, new sizes, pause, mending.

Theory of operation. A connection whose end has come is *due*. Where there is room, its replacement is opened first and
the due one retired when that is there (make before break); in a full pool an idle one is closed, and an acquired one
when it comes back (break first). One at a time, with a pause between, and only while connects succeed: in an outage an
old connection is worth more than none. A slot whose generation is RETIRED is closed when it is next free.

A pause sets every lane's cap to zero: nothing is handed out, nothing else changes. A slot that is asked for a sign of
life is acquired meanwhile, by nobody's lane, and goes back to where it stood.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from magnus.pool._rotation import end_of_life, pace
from magnus.pool._slots import Connect, Event, Retry, Slot, State
from magnus.pool._state import PoolState

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from magnus.pool._limits import Limits
    from magnus.pool._slots import Action, Actions

RETIRED: Final = -1
_UNHURRIED: Final = float("inf")
_FREE: Final = 0  # the rank whose cap is the pool's size


class PoolLife(PoolState):
    """
    A pool's state that also ages. `uniform(a, b)` is the source of chance.
    """

    __slots__ = ("_ceiling", "_hurry_until", "_replaced", "_rotated_at", "_spread", "is_paused")

    def __init__(self, limits: Limits, *, uniform: Callable[[float, float], float]) -> None:
        super().__init__(limits, uniform=uniform)
        self._ceiling = limits.max_size
        self._replaced: dict[Slot, Slot] = {}  # the connecting one -> the due one; at most one
        self._rotated_at = float("-inf")
        self._spread = _UNHURRIED  # the pace while an expiry is spread
        self._hurry_until = 0.0
        self.is_paused = False

    # --- rotation

    def opened(self, slot: Slot, con: object, now: float) -> Actions:
        """
        A connect succeeded; when it was made for a connection that is due, that one goes.
        """
        limits = self._limits
        others = [other.expires for other in self.slots if other.con is not None and other.state is not State.CLOSING]
        actions = super().opened(slot, con, now)
        slot.expires = end_of_life(now, limits.max_lifetime, limits.max_size, others, self._uniform)
        slot.patience = self._uniform(0.75, 1.0)
        due = self._replaced.pop(slot, None)
        if due is not None and slot.state is not State.CLOSING:
            if due.state is State.IDLE:
                actions.append(self._retire(due))
            elif due.state is State.ACQUIRED:
                due.generation = RETIRED
            actions += self._rotate(now)
        return actions

    def connect_failed(self, slot: Slot, now: float) -> Actions:
        """
        A connect failed; what it was to replace stays.
        """
        self._replaced.pop(slot, None)
        return super().connect_failed(slot, now)

    def tick(self, now: float) -> Actions:
        """
        Time has passed: retire what is idle too long, keep the floor, replace what is due.
        """
        return [*super().tick(now), *self._rotate(now)]

    def expire_within(self, seconds: float, now: float) -> Actions:
        """
        Replace every present connection within about so many seconds, spread evenly; 0 is at once.
        """
        if seconds <= 0:
            return self.expire(now)
        present = sorted((slot for slot in self.slots if slot.con is not None), key=_age)
        for place, slot in enumerate(present):
            slot.expires = min(slot.expires, now + seconds * (place + self._uniform(0.0, 1.0)) / len(present))
        self._spread = seconds / (2 * max(len(present), 1))
        self._hurry_until = now + 2 * seconds
        return self._rotate(now)

    def _rotate(self, now: float) -> Actions:
        has_room = len(self.slots) < self._limits.max_size
        is_busy = self._replaced or self._count[State.CONNECTING] >= self._window or now < self._retry_at
        if self.is_closing or is_busy or (self._failures and not has_room):
            return []
        # In a full pool an acquired one is closed by `release`, when it comes back.
        if now > self._hurry_until:
            self._spread = _UNHURRIED
        states = {State.IDLE, State.ACQUIRED} if has_room else {State.IDLE}
        live = [slot for slot in self.slots if slot.state in states and not self._is_leaving(slot)]
        due = min(live, key=lambda slot: (slot.expires, slot.number), default=None)
        if due is None:
            return []
        at = max(due.expires, self._paced_until())
        if now < at:
            return [Retry(at)] if self._spread < _UNHURRIED else []  # else the next tick is soon enough
        self._rotated_at = now
        return [self._open_for(due)] if has_room else [self._retire(due), *self._rotate(now)]

    def _open_for(self, due: Slot) -> Action:
        slot = Slot(self.generation)
        self.slots.add(slot)
        self._count[State.CONNECTING] += 1
        self._replaced[slot] = due
        return Connect(slot)

    def _paced_until(self) -> float:
        """
        Return when the next replacement may begin.
        """
        return self._rotated_at + min(pace(self._limits.max_lifetime, self._limits.max_size), self._spread)

    def _is_leaving(self, slot: Slot) -> bool:
        return slot.generation != self.generation

    def _is_stale(self, slot: Slot, now: float) -> bool:
        if self.is_closing or self._is_leaving(slot):
            return True
        is_due = now >= slot.expires and slot not in self._replaced.values()
        # With room, it goes when its replacement is there; without a server, when there is one.
        is_alone = len(self.slots) >= self._limits.max_size and not self._failures
        if slot.state is not State.ACQUIRED or not is_due or not is_alone or now < self._paced_until():
            return False
        self._rotated_at = now
        return True

    # --- keepalive

    def reserve(self, interval: float, now: float) -> Slot | None:
        """
        Take the connection that has been silent longest, when that is longer than `interval`, to ask it for a sign of
        life; None when there is none, or all that is idle may be needed.
        """
        if self.is_closing or not self._idle or not self.lanes.can_enter(_FREE):
            return None
        slot = min(self._idle, key=_heard)
        if now - _heard(slot) < interval * slot.patience:
            return None
        self._move(slot, Event.TAKEN)
        self._take_out(slot)
        self.lanes.enter(_FREE)
        slot.rank = _FREE
        return slot

    def restore(self, slot: Slot, now: float) -> Actions:
        """
        Put a reserved connection back that gave a sign of life: to a waiter, or to its old place among the idle ones.
        """
        since = slot.idle_since
        slot.heard_at = now
        actions = self.release(slot, now)
        if slot.state is State.IDLE:
            slot.idle_since = since
            self._list_idle(self._idle)
        return actions

    # --- operators

    def resize(self, limits: Limits, now: float) -> Actions:
        """
        Put other sizes in force. What is too much is closed: idle ones now, the others when they come back.
        """
        self._limits = limits
        self.floor = limits.min_size
        self.lanes.set_caps([lane.cap for lane in limits.lanes()])
        surplus = len(self.slots) - self._count[State.CLOSING] - limits.max_size
        self._ceiling = max(limits.max_size, len(self.slots))
        actions: Actions = []
        while surplus > 0 and self._idle:
            actions.append(self._retire(next(iter(self._idle))))
            surplus -= 1
        rest = [slot for slot in self.slots if slot.state in {State.CONNECTING, State.ACQUIRED}]
        for slot in sorted(rest, key=lambda slot: (slot.state, slot.number))[: max(surplus, 0)]:
            slot.generation = RETIRED
        return actions + self._serve(now)

    def pause(self) -> None:
        """
        Hand out nothing until `resume`.
        """
        self.is_paused = True
        self.lanes.pause()

    def resume(self, now: float) -> Actions:
        """
        Hand out again, to those who wait first.
        """
        self.is_paused = False
        self.lanes.resume()
        return self._serve(now)

    # --- mending

    def mend(self, owned: Container[Slot], now: float) -> tuple[list[str], list[Slot], Actions]:
        """
        Put the books right where they are wrong. `owned` are the slots that a task of the pool works on.

        Returns what was found, in words, the slots that nobody would ever have freed (to be abandoned by the shell),
        and what follows.
        """
        found: list[str] = []
        counts = [0] * len(State)
        for slot in self.slots:
            counts[slot.state] += 1
        counts[State.GONE] = self._count[State.GONE]
        if counts != self._count:
            found.append(f"counts were {self._count}, are {counts}")
            self._count = counts
        idle = {slot for slot in self.slots if slot.state is State.IDLE}
        filed = {slot for slots in self._idle_by.values() for slot in slots}
        if set(self._idle) != idle or filed != idle:
            found.append(f"{len(self._idle)} slots were listed as idle, {len(idle)} are")
            self._list_idle(idle)
        ranks = [slot.rank for slot in self.slots if slot.state is State.ACQUIRED]
        if self.lanes.recount(ranks):
            found.append(f"lanes now hold {len(ranks)} slots")
        orphans = [slot for slot in self.slots if slot.state in {State.CONNECTING, State.CLOSING} and slot not in owned]
        found += [f"a slot was {slot.state.name.lower()} by nobody" for slot in orphans]
        return found, orphans, self._serve(now) if found else []

    def check(self) -> None:
        """
        Assert the invariants. After a shrink the slots may be more than `max_size`, never more than they were.
        """
        self._ceiling = max(self._limits.max_size, min(self._ceiling, len(self.slots)))
        super().check()

    def _size_allowed(self) -> int:
        return self._ceiling


def _age(slot: Slot) -> int:
    return slot.number


def _heard(slot: Slot) -> float:
    return max(slot.idle_since, slot.heard_at)
