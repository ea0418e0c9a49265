"""What an operator does to an open pool: expire, resize, limit, pause, resume; and what follows a refused write.

Each is one event of the state. How it is carried out, and by whom, is the business of the state and the keeper.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from magnus import _driver
from magnus.observe import PoolPaused, PoolResized, PoolResumed, StandbyEvicted
from magnus.pool._slots import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from magnus.observe import Event
    from magnus.pool._keeper import Keeper
    from magnus.pool._lanes import LaneLimits
    from magnus.pool._lease import Lease
    from magnus.pool._life import PoolLife
    from magnus.pool._limits import Limits
    from magnus.pool._slots import Action

_LOOK: Final = 0.01
_EVICTION_PAUSE: Final = 1.0  # when the address still leads to the standby, new connections are no better


class Operations:
    """
    Base of `Pool`, which sets these fields.
    """

    _state: PoolLife
    _keeper: Keeper
    _limits: Limits
    _lanes: tuple[LaneLimits, ...]
    _now: Callable[[], float]
    _notify: Callable[[Event], None]
    _apply: Callable[[Sequence[Action]], None]
    _is_open: bool
    _evicted_at: float = float("-inf")
    _full: Limits | None = None
    _most: int | None = None

    def expire(self, within: float = 0.0) -> None:
        """
        Replace every present connection: idle ones now, the others when they are released; or all within so many
        seconds, one after the other, each after its replacement is there. Cheap.
        """
        self._keeper.opener.forget_types()
        if self._is_open:
            self._apply(self._state.expire_within(within, self._now()))

    def resize(self, min_size: int, max_size: int) -> None:
        """
        Put other sizes in force; what is too much is closed, idle ones now, the others when they are released.

        The lanes' caps follow. `min_size` is at most `max_size`, which is at least 1.
        """
        self._full = replace(self._full or self._limits, min_size=min_size, max_size=max_size)
        self._put_in_force()

    def limit(self, most: int) -> None:
        """
        Let there be `most` connections at most (at least 1), whatever sizes were asked for, until another limit is set.
        Before `open` it is only noted.
        """
        self._full = self._full or self._limits
        if most != self._most:
            self._most = most
            if self._is_open:
                self._put_in_force()

    @property
    def sizes(self) -> tuple[int, int]:
        """
        The size that is in force, and the one that was asked for.
        """
        asked = (self._full or self._limits).max_size
        return (asked if self._most is None else min(asked, self._most)), asked

    def _put_in_force(self) -> None:
        full, most, before = self._full or self._limits, self._most, self._limits
        self._limits = limits = full if most is None else full.within(most)
        self._lanes = limits.lanes()
        self._apply(self._state.resize(limits, self._now()))
        if (limits.min_size, limits.max_size) != (before.min_size, before.max_size):
            self._notify(PoolResized(limits.min_size, limits.max_size))

    async def pause(self, timeout: float) -> bool:  # not the caller's: what it waits for is the leases' return
        """
        Hand out nothing from now on; callers queue, within their limits. Wait `timeout` seconds for all leases to
        come back and return whether they did. Cancelled, the pool stays paused.
        """
        if not self._state.is_paused:
            self._state.pause()
            self._notify(PoolPaused(self._state.count(State.ACQUIRED)))
        until = self._now() + timeout
        while self._state.count(State.ACQUIRED) and self._now() < until:  # noqa: ASYNC110  # no cost for who releases
            await asyncio.sleep(_LOOK)
        return not self._state.count(State.ACQUIRED)

    def resume(self) -> None:
        """
        Hand out connections again, to those who wait first. Does nothing when not paused.
        """
        if self._state.is_paused:
            self._notify(PoolResumed(self._state.lanes.total_waiting))
            self._apply(self._state.resume(self._now()))

    def wasted(self, lease: Lease) -> None:
        """
        Take note that a lease's holder ran out of time before its work was done.
        """
        self._state.wasted(lease.slot, self._now())

    def refused_write(self, lease: Lease) -> None:
        """
        Take note that a write was refused as read-only. When the server is a standby (it was the primary once, or the
        address led there), every connection is replaced; else it was the user's own doing.
        """
        if not _driver.is_on_standby(lease.con):
            return
        now = self._now()
        if now - self._evicted_at >= _EVICTION_PAUSE:
            self._evicted_at = now
            self._notify(StandbyEvicted(self._state.open_count))
            self.expire()
