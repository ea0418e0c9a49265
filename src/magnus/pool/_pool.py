"""What callers see of the pool: acquire, release, snapshot. Asks `PoolState` for every decision and makes none.

The rule beside the state: it is touched between awaits only, one event at a time, and every answer goes through
`Keeper.apply` before anything else happens. Whoever holds a slot across an await gives it back, also when cancelled.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from asyncio import get_running_loop
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from magnus import _driver
from magnus._clock import Clock, MonotonicClock
from magnus._effects import NO_RESET, Action
from magnus.errors import ConnectError, Overloaded, PoolTimeout
from magnus.lanes import LANES, QueryPriority
from magnus.pool._custody import Custody
from magnus.pool._deadlines import Deadlines
from magnus.pool._guard import Home
from magnus.pool._keeper import PING_LIMIT, Keeper
from magnus.pool._lanes import RANK, Waiter
from magnus.pool._leaks import LeakLimits
from magnus.pool._lease import EVERYTHING, Lease, has_settled, is_answering, is_reset
from magnus.pool._life import PoolLife
from magnus.pool._limits import Limits
from magnus.pool._operations import Operations
from magnus.pool._slots import Slot, State, Watch
from magnus.pool._stats import BATCH, Distribution, LaneCounters, PoolSnapshot
from magnus.pool._sweep import Sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from magnus.config import DatabaseConfig
    from magnus.observe import Event
    from magnus.session import Need

_CLOCK: Final = MonotonicClock()
_ACQUIRED: Final = State.ACQUIRED
_QUIET: Final = 0.001  # idle for less: nothing can have arrived that the event loop has not seen
_RETIRED: Final = -1  # no generation of a pool
_SILENT: Final = 30.0  # idle for longer: the network may have forgotten the connection, ask the server
_RESET_LIMIT: Final = 5.0
_LEAST_TICK: Final = 0.02


class Pool(Operations):
    """
    Connections to one server, handed out by lane and deadline.

    `notify` is told what happens; it must not raise. `clock` and `connect` (the driver's) are replaced in tests.
    With `is_checked` every event is followed by a check of all invariants. `limits` are in place of those that the
    configuration gives, `opener` of the one that makes the library's own connections; with `is_telling` a connect
    that fails is raised by the callers who waited for it.
    """

    def __init__(
        self,
        config: DatabaseConfig,
        *,
        notify: Callable[[Event], None],
        clock: Clock = _CLOCK,
        connect: Callable[..., Any] | None = None,
        is_checked: bool = False,
        limits: Limits | None = None,
        opener: _driver.Opener | None = None,
        is_telling: bool = False,
    ) -> None:
        self._limits = limits or Limits(
            min_size=config.min_pool_size,
            max_size=config.max_pool_size,
            retry_delay=config.retry_delay,
            retry_backoff=config.retry_backoff,
            max_waiting=config.max_waiting,
            lane_settings=config.lanes,
            wait_targets=config.wait_targets(),
            max_idle=config.max_idle,
            max_lifetime=config.max_lifetime,
        )
        self._config = config
        self._sheds_unset = config.shed_unset
        self._now = time.monotonic if isinstance(clock, MonotonicClock) else clock.now
        self._state = PoolLife(self._limits, uniform=random.SystemRandom().uniform)
        self._keeper = Keeper(
            self._state,
            now=self._now,
            notify=notify,
            connect=connect or _driver.driver_connect,
            connect_timeout=config.connect_timeout,
            keepalive=config.keepalive_interval,
            is_checked=is_checked,
            tick=max(self._limits.max_idle / 4, _LEAST_TICK),
            is_telling=is_telling,
        )
        self._keeper.opener = opener or self._keeper.opener
        self._apply = self._keeper.apply
        self._is_checked = is_checked
        self.sweep = Sweep(self._now, self._watches)
        self._lanes = self._limits.lanes()
        self._counters = [LaneCounters() for _ in LANES]
        self._deadlines: Deadlines[Waiter] = Deadlines()
        self._is_open = False
        self._is_doubtful = False  # `take` found an idle slot and was not sure of it
        self._home = Home()
        self._custody = Custody(
            LeakLimits(config.leak_threshold, config.leak_limit),
            self._state,
            self._keeper,
            now=self._now,
            notify=notify,
        )
        self._notify = notify

    @property
    def last_connect_error(self) -> ConnectError | None:
        """
        Why the last failed connect failed; None as long as none did.
        """
        return self._keeper.last_connect_error

    def refused(self, since: float) -> ConnectError | None:
        """
        Why the pool cannot connect at present, when its last attempt has failed `since` then (monotonic seconds).
        """
        keeper = self._keeper
        return keeper.last_connect_error if self._state.failures and keeper.last_refused_at >= since else None

    # --- life

    async def open(self, *, wait: float | None = None) -> None:
        """
        Start the pool. It connects in the background and goes on trying while no server answers.

        Args:
            wait: Return only when one connection is open, at most after so many seconds. None: return at once.

        Raises:
            ConnectError: `wait` ran out; the pool is closed again.
            PoolClosed: it was closed before; a pool is opened once.
        """
        if self._state.is_closing:
            raise _driver.PoolClosed("the pool was closed; make a new one")
        if not self._is_open:
            self._keeper.opener.arguments = self._config.connect_arguments(os.environ)
            self._keeper.opener.hot.texts = tuple(self._config.prepare)
            self._keeper.opener.hot.learn = self._config.prepare_learned
            self._is_open = True
            self._home.settle(self)
            if self._most is not None:
                self._put_in_force()
            self._keeper.start()
        if wait is not None and not await self._keeper.reach(1, self._now() + wait):
            await self.close(0.0)
            raise self.last_connect_error or _driver.connect_error(TimeoutError())

    async def warmup(self, n: int) -> int:
        """
        Open connections until `n` (at most the pool's size) are ready, each proven idle, its types known.

        Returns how many are ready. A failing server is no exception here: the count is lower, and
        `last_connect_error` says why. Cancelled, what was begun goes on in the background.

        Raises:
            PoolClosed: the pool is not open.
        """
        if not self._is_open:
            raise self._home.stranger() or self._closed()
        wanted = min(n, self._limits.max_size)
        await self._keeper.reach(wanted, None)
        return min(self._state.open_count, wanted)

    async def close(self, timeout: float | None) -> None:  # how long to drain
        """
        Refuse new callers and those who wait, wait `timeout` seconds (None: for ever) for leases to come back,
        terminate the rest.

        Calling it again is harmless. Cancelled, it terminates at once what is left.
        """
        self._is_open = False
        self._home.leave()
        try:
            if not self._home.is_inherited:
                await self._keeper.close(timeout)
        finally:
            self.sweep.stop()

    def terminate(self) -> None:
        """
        As `close`, without waiting for anything: leases lose their connections at once.
        """
        self._is_open = False
        self._home.leave()
        self._keeper.terminate()

    def forked(self) -> None:
        """
        Become unusable, in a child process: every call raises `WrongProcess`, and no connection is touched any more.
        """
        self._is_open = False
        self._home.inherited()
        self._custody.disown()
        for slot in self._state.slots:
            if slot.con is not None:
                _driver.disown(slot.con)

    # --- callers

    async def acquire(
        self, lane: QueryPriority, deadline: float | None, *, is_named: bool = False, wanted: Need = None
    ) -> Lease:
        """
        Return a connection of one's own, at the latest at `deadline` (monotonic seconds; None waits without end).

        Cancelled, the caller leaves its queue; a connection already on its way to it goes to the next. `is_named`: the
        lane was asked for, and is not merely where a call that asks for none belongs; only then may NORMAL be shed.
        `wanted` is the limit that the session should have already, if there is a choice.

        Raises:
            PoolTimeout: none came free in time; `phase` is "connect" when there is no server to connect to, and the
                cause is then its error.
            Overloaded: the lane's queue is full, or it stands and the caller was shed.
            NestedAcquire: the task holds a connection of this pool, and waiting for another would never end.
            WrongProcess, WrongLoop: the pool was opened before a fork, or on another event loop.
            PoolClosed: the pool is not open.
        """
        rank = RANK[lane]
        now = self._now()
        slot = self.take(rank, now, wanted)
        if slot is None:
            slot = await self.obtain(rank, now, deadline, is_named=is_named, wanted=wanted)
        return Lease(slot, lane, now)

    def take(self, rank: int, now: float, wanted: Need = None) -> Slot | None:
        """
        Return a slot that is free this moment, its connection certainly alive; None when that takes an `obtain`.

        One whose session has the `wanted` limit goes first. Who takes a slot without a lease gives it to `put`, or to a
        lease, before anybody else can have it.

        Raises:
            PoolClosed: the pool is not open.
        """
        home, state = self._home.loop, self._state
        if home is None or home is not get_running_loop():
            raise self._home.stranger() or self._closed()
        slot = state.candidate(rank, wanted)
        if slot is None:
            return None
        if slot.con.is_closed() or (now - slot.idle_since >= _QUIET and not self._is_quiet(slot, now)):
            self._is_doubtful = True
            return None
        state.occupy(slot, rank, now)
        slot.given_at = now
        counters = self._counters[rank]
        counters.acquired_total += 1
        counters.wait.record_zero()
        return slot

    # Written out, because every call less is felt in how many hand-offs a second there can be.
    async def obtain(
        self,
        rank: int,
        since: float,
        deadline: float | None,
        *,
        is_named: bool = False,
        wanted: Need = None,
    ) -> Slot:
        """
        Return a slot, waiting for it if need be: called right after `take` gave none, with nothing in between. `since`
        is when it was asked for.
        """
        state = self._state
        now = since
        while True:
            waiter: Waiter | None = None
            slot = state.take(rank, now, wanted) if self._is_doubtful else None
            self._is_doubtful = False
            if slot is None:
                waiter = self._join(rank, since, now, deadline, is_named)
                waiter.wanted = wanted
                try:
                    await waiter.signal
                except asyncio.CancelledError:
                    self._apply(state.withdraw(waiter, self._now()))
                    raise
                finally:
                    if deadline is not None:
                        self._deadlines.discard(waiter, deadline)
                    if waiter.holding is not None:
                        waiter.holding.waiter = None
                slot = waiter.slot
                if slot is None or slot.state is not _ACQUIRED:
                    raise self._refusal(waiter)
                now = self._now()
            if slot.con.is_closed():
                self._keeper.drop(slot)
            elif (
                (waiter is not None and not waiter.was_idle)
                or now - slot.idle_since < _QUIET
                or await self._is_alive(slot, now, deadline)
            ):
                counters = self._counters[rank]
                counters.wait.record(now - since)
                counters.acquired_total += 1
                slot.given_at = now
                return slot
            now = self._now()
            self._is_doubtful = True

    def put(self, slot: Slot, now: float) -> None:
        """
        Give back a slot whose session is as it was taken: nothing is sent.
        """
        use = self._counters[slot.rank].use
        use.fresh.append(now - slot.given_at)  # as `record` does, which is felt
        if len(use.fresh) >= BATCH:
            use.digest()
        waiter = self._state.hand_over(slot, now)
        if waiter is not None:
            waiter.signal.set_result(None)
        else:
            actions = self._state.release(slot, now)
            if actions or self._state.is_closing:
                self._apply(actions)
        if self._is_checked:
            self._state.check()

    def give(self, lease: Lease) -> bool:
        """
        As `release`, at once: when nothing has to be sent. False: nothing was done, `release` has to do it.
        """
        con = lease.con
        if lease.is_released or con.is_closed() or con.is_in_transaction() or lease.reset is not NO_RESET:
            return False
        lease.is_released = True
        if lease.holding is not None:
            self._custody.returned(lease)
        self.put(lease.slot, self._now())
        return True

    def hold(self, lease: Lease, inside: int = 0) -> None:
        """
        Say that the running task's code holds a lease for a while, so that it is watched. Single statements need not.

        `inside` is how many frames of this library's there are at least above the user's code; this one is none.
        """
        self._custody.hold(lease, self._home.loop, inside + 3)

    def statements(self) -> dict[str, Any]:
        """
        Return what there is to say of prepared statements, ready for JSON.
        """
        cons = [slot.con for slot in self._state.slots if slot.con is not None]
        return self._keeper.opener.hot.figures(cons, self._config.statement_cache_size)

    def transactions_of_task(self) -> int:
        """
        Return how many connections in an open transaction the running task's code holds, however it was begun.
        """
        return self._custody.transactions_of_task() if self._custody.holdings.by_task else 0

    async def release(self, lease: Lease, *, timeout: float | None = None) -> None:  # not the caller's
        """
        Give a connection back; its session is reset first. The slot is free afterwards, whatever happens.

        A reset that fails or takes longer than `timeout` (5 s when not given) ends the connection instead, silently.
        Cancelled, the reset goes on in the background within the same bound.

        Raises:
            AlreadyReleased: it was given back before; nothing was changed.
        """
        if lease.is_released:
            self._given_back(lease)
            return
        lease.is_released = True
        if lease.holding is not None:
            self._custody.returned(lease)
        slot, con = lease.slot, lease.con
        if con.is_closed():
            self._throw_away(slot)
            return
        reset = EVERYTHING if con.is_in_transaction() else lease.reset
        if reset.action is Action.NONE:
            self.put(slot, self._now())
            return
        limit = _RESET_LIMIT if timeout is None else timeout
        try:
            is_clean = reset.action is not Action.CLOSE and await is_reset(slot, reset, limit)
        except asyncio.CancelledError:
            self._was_used(slot)
            self._keeper.finish_release(slot, limit)
            raise
        if is_clean:
            self.put(slot, self._now())
        else:
            self._throw_away(slot)

    async def discard(self, lease: Lease) -> None:
        """
        Give a slot back and throw its connection away: the socket is closed without a word to the server.

        Raises:
            AlreadyReleased: it was given back before; nothing was changed.
        """
        self.drop(lease)

    def drop(self, lease: Lease) -> None:
        """
        As `discard`; nothing in it waits.
        """
        if lease.is_released:
            self._given_back(lease)
            return
        lease.is_released = True
        if lease.holding is not None:
            self._custody.returned(lease)
        self._throw_away(lease.slot)

    def retire(self, lease: Lease) -> None:
        """
        Give a slot back and close its connection in order, in the background.

        Raises:
            AlreadyReleased: it was given back before; nothing was changed.
        """
        if lease.con.is_closed():
            self.drop(lease)
            return
        if lease.is_released:
            self._given_back(lease)
            return
        lease.is_released = True
        if lease.holding is not None:
            self._custody.returned(lease)
        lease.slot.generation = _RETIRED
        self._was_used(lease.slot)
        self._apply(self._state.release(lease.slot, self._now()))

    def is_current(self, lease: Lease) -> bool:
        """
        Say whether a lease's connection was opened after the last `expire`.
        """
        return lease.slot.generation == self._state.generation

    @property
    def open_count(self) -> int:
        """
        Connections that are open and in service, idle or acquired.
        """
        return self._state.open_count

    @property
    def idle_count(self) -> int:
        """
        Connections that are open and in nobody's hands.
        """
        return self._state.count(State.IDLE)

    def waits(self, bounds: Sequence[float]) -> dict[QueryPriority, Distribution]:
        """
        Return how long callers waited for their connection, by lane.
        """
        return {lane: counters.wait.cumulative(bounds) for lane, counters in zip(LANES, self._counters, strict=True)}

    def uses(self, bounds: Sequence[float]) -> dict[QueryPriority, Distribution]:
        """
        Return how long callers kept their connection, by lane.
        """
        return {lane: counters.use.cumulative(bounds) for lane, counters in zip(LANES, self._counters, strict=True)}

    def connects(self, bounds: Sequence[float]) -> Distribution:
        """
        Return how long it took to open a connection, all its set-up included; those that failed are not in it.
        """
        return self._keeper.connect_times.cumulative(bounds)

    def tap(self, tap: Callable[[str, QueryPriority | None, list[float]], None] | None) -> None:
        """
        Give `tap` every wait, use and opening of a connection from now on, many at once; it must not raise.
        """
        taken = (lambda _name, _lane: None) if tap is None else (lambda name, lane: partial(tap, name, lane))
        for lane, counters in zip(LANES, self._counters, strict=True):
            counters.wait.tap(taken("wait", lane))
            counters.use.tap(taken("use", lane))
        self._keeper.connect_times.tap(taken("create", None))

    def snapshot(self) -> PoolSnapshot:
        """
        Return the pool's figures at this moment.
        """
        state, lanes = self._state, self._state.lanes
        return PoolSnapshot(
            size=state.size,
            idle=state.count(State.IDLE),
            acquired=state.count(State.ACQUIRED),
            connecting=state.count(State.CONNECTING),
            closing=state.count(State.CLOSING),
            min=self._limits.min_size,
            max=self._limits.max_size,
            waiting=lanes.total_waiting,
            lanes=tuple(
                self._counters[rank].snapshot(
                    limits.lane, acquired=lanes.used(rank), waiting=lanes.waiting(rank), cap=limits.cap
                )
                for rank, limits in enumerate(self._lanes)
            ),
            connects=state.connects,
            connect_failures=state.connect_failures,
            discarded=state.discarded,
            last_handoff=state.last_handoff,
            is_full_since=state.full_since,
            failing_since=self._keeper.failing_since,
        )

    # --- the inside

    def _was_used(self, slot: Slot) -> None:
        self._counters[slot.rank].use.record(self._now() - slot.given_at)

    def _throw_away(self, slot: Slot) -> None:
        self._was_used(slot)
        self._keeper.drop(slot)

    def _watches(self) -> Iterator[Watch]:
        return (slot.watch for slot in self._state.slots)

    @staticmethod
    def _is_quiet(slot: Slot, now: float) -> bool:
        """
        Say whether nothing speaks against an idle connection: it was used lately, and nothing waits in its socket.
        """
        return now - slot.idle_since < _SILENT and not slot.probe()

    def _join(self, rank: int, since: float, now: float, deadline: float | None, is_named: bool) -> Waiter:  # noqa: FBT001
        """
        Queue the running task, unless its time is over or the queue is full.
        """
        state, loop = self._state, self._home.loop
        if loop is None:
            raise self._closed()
        if deadline is not None and deadline <= now:
            raise self._timed_out(rank, since)
        if state.lanes.is_queue_full(rank):
            raise self._overloaded(rank)
        holding = self._custody.asks(rank) if self._custody.holdings.by_task else None
        waiter = Waiter(rank, since, deadline, loop.create_future())
        waiter.may_be_shed = is_named or self._sheds_unset
        if holding is not None:
            holding.waiter, waiter.holding = waiter, holding
        actions = state.wait(waiter, now)
        if actions or self._is_checked:
            self._apply(actions)
        if deadline is not None and self._deadlines.add(waiter, deadline):
            self._arm_deadlines()
        return waiter

    def _refusal(self, waiter: Waiter) -> Exception:
        """
        Return why a waiter was woken without a connection.
        """
        if waiter.error is not None:
            return waiter.error
        if waiter.is_shed:
            self._counters[waiter.rank].shed += 1
            return self._overloaded(waiter.rank)
        return self._timed_out(waiter.rank, waiter.since) if self._is_open else self._closed()

    def _timed_out(self, rank: int, since: float) -> PoolTimeout:
        self._counters[rank].timeouts += 1
        state, waited = self._state, self._now() - since
        error = PoolTimeout(
            f"no connection for lane {LANES[rank]} within {waited:.3f} s: {state.count(State.ACQUIRED)} acquired, "
            f"{state.count(State.IDLE)} idle, {state.count(State.CONNECTING)} connecting of {self._limits.max_size}, "
            f"{state.lanes.total_waiting} waiting{', paused' if state.is_paused else ''}",
            phase="connect" if state.failures and not state.open_count else "wait",
            waited=waited,
        )
        error.__cause__ = self.last_connect_error if state.failures else None
        return error

    def _overloaded(self, rank: int) -> Overloaded:
        counters = self._counters[rank]
        counters.rejected += 1
        lanes = self._state.lanes
        waiting = lanes.waiting(rank)
        return Overloaded(lane=LANES[rank].value, waiting=waiting, retry_after=lanes.codels[rank].retry_after(waiting))

    async def _is_alive(self, slot: Slot, now: float, deadline: float | None) -> bool:
        """
        Say whether a slot just taken from the idle ones can be used; when not, or when cancelled, it is given up.
        """
        con, is_alive = slot.con, False
        try:
            has_answered = await has_settled(slot) and now - slot.idle_since < _SILENT
            if not has_answered and not con.is_closed():
                limit = PING_LIMIT if deadline is None else min(PING_LIMIT, deadline - now)
                has_answered = await is_answering(con, limit)
                if not has_answered and limit == PING_LIMIT:  # the caller's haste says nothing about the others
                    self._apply(self._state.retire_silent(now - _SILENT, now))
            is_alive = has_answered and not con.is_closed()
        finally:
            if not is_alive:
                self._keeper.drop(slot)
        return is_alive

    def _arm_deadlines(self) -> None:
        due = self._deadlines.next_due()
        if due is not None:
            self._keeper.timers.arm(self._on_deadlines, due)

    def _on_deadlines(self) -> None:
        now = self._now()
        for waiter in self._deadlines.due(now):
            if not waiter.signal.done():
                self._apply(self._state.withdraw(waiter, now))
                waiter.signal.set_result(None)
        self._arm_deadlines()

    @staticmethod
    def _closed() -> _driver.PoolClosed:
        return _driver.PoolClosed("the pool is closed, closing or was never opened")

    def _given_back(self, lease: Lease) -> None:
        """
        Answer a second release: harmless when it is the holder's first and the pool took the connection back before.
        """
        if lease.holding is not None and lease.reclaimed is not None:
            self._custody.returned(lease)
        elif not self._home.is_inherited:
            raise _driver.AlreadyReleased("the connection was already released to its pool")
