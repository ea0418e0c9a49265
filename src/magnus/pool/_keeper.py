"""Does in the world what `PoolState` says: opens, closes and watches connections in tasks of the pool's own.

It wakes waiters but makes no ordering decision, and it serves no caller: that is `_pool`'s part. A task may be
cancelled before its first step, so it is `_on_task_done`, not a `finally`, that frees the slot of a cancelled one.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from magnus import _driver
from magnus.errors import ConnectError
from magnus.observe import PoolMended
from magnus.pool._lease import EVERYTHING, is_answering, is_reset
from magnus.pool._outage import Outage
from magnus.pool._slots import Close, Connect, Expire, HandOff, Refuse, Retry, Slot, State
from magnus.pool._stats import Histogram
from magnus.pool._timers import Timers

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from magnus.observe import Event
    from magnus.pool._life import PoolLife
    from magnus.pool._slots import Action

_TICK: Final = 5.0  # between two looks at ages, at most; everything urgent comes as an event
_CLOSE_LIMIT: Final = 1.0
PING_LIMIT: Final = 1.0


class Keeper:
    """
    The hands of a `PoolState`. Every answer of the state goes through `apply` before anything else happens.

    `connect` opens a bare connection; `connect_timeout` bounds it together with all its set-up. With `is_telling` a
    caller hears of a connect that failed while it waited; otherwise it waits until its deadline. An idle connection is
    asked for a sign of life every `keepalive` seconds (0: never).
    """

    def __init__(
        self,
        state: PoolLife,
        *,
        now: Callable[[], float],
        notify: Callable[[Event], None],
        connect: Callable[..., Any],
        connect_timeout: float,
        keepalive: float = 0.0,
        is_checked: bool,
        tick: float = _TICK,
        is_telling: bool = False,
    ) -> None:
        self.opener = _driver.Opener(self._connections, connect)
        self.timers = Timers(now)
        self.last_connect_error: ConnectError | None = None
        self.connect_times = Histogram()
        self.last_refused_at = 0.0
        self._state = state
        self._now = now
        self._notify = notify
        self._connect_timeout = connect_timeout
        self._keepalive = keepalive
        self._is_checked = is_checked
        self._tick = min(tick, _TICK)
        self._is_telling = is_telling
        self._outage = Outage()
        self._pinged: Slot | None = None
        self._targets: list[int] = []
        self._outcomes: list[asyncio.Future[None]] = []
        self._tasks: dict[asyncio.Task[None], Slot] = {}
        self._empty = asyncio.Event()

    @property
    def failing_since(self) -> float | None:
        """
        Since when connects fail (monotonic seconds); None when they do not.
        """
        return self._outage.since

    def apply(self, actions: Sequence[Action]) -> None:
        """
        Do what the state answered to an event.
        """
        for action in actions:
            match action:
                case HandOff(waiter) | Expire(waiter):
                    waiter.signal.set_result(None)  # not done: the state passes over those who went away
                case Refuse(waiter):
                    if not waiter.signal.done():
                        waiter.signal.set_result(None)
                case Connect(slot):
                    self._spawn(slot, self._connect(slot))
                case Close(slot):
                    self._spawn(slot, self._close(slot))
                case Retry(at):
                    self.timers.arm(self._on_retry, at)
        if self._state.is_closing and not self._state.slots:
            self._empty.set()
        if self._is_checked:
            self._state.check()

    def drop(self, slot: Slot) -> None:
        """
        End a slot that a caller holds, with its connection.
        """
        if slot.con is not None:
            slot.con.terminate()
        self.apply(self._state.discard(slot, self._now()))

    def finish_release(self, slot: Slot, limit: float) -> None:
        """
        Take over a slot whose holder was cancelled while it was being reset: `limit` seconds more, in the background.
        """
        if slot.state is State.ACQUIRED:
            self._spawn(slot, self._finish_release(slot, limit))

    def start(self) -> None:
        """
        Begin to keep the floor and to look at ages.
        """
        self._on_tick()

    async def reach(self, wanted: int, deadline: float | None) -> bool:
        """
        Wait until `wanted` connections are open: until `deadline`, or, without one, until a connect fails.
        """
        state, failures = self._state, self._state.connect_failures
        self._targets.append(wanted)
        self.apply(state.warm(max(self._targets), self._now()))
        try:
            async with asyncio.timeout(None if deadline is None else max(deadline - self._now(), 0.0)):
                while state.open_count < wanted and not state.is_closing:
                    has_failed = state.connect_failures > failures and not state.count(State.CONNECTING)
                    if deadline is None and has_failed:
                        break
                    outcome = asyncio.get_running_loop().create_future()
                    self._outcomes.append(outcome)
                    await outcome
        except TimeoutError:
            return False
        finally:
            self._targets.remove(wanted)
            self.apply(state.warm(max(self._targets, default=0), self._now()))
        return state.open_count >= wanted

    async def close(self, limit: float | None) -> None:
        """
        Refuse waiters, close what is idle, wait `limit` seconds (None: for ever) for the rest to come back, terminate
        what did not.
        """
        self._begin_closing()
        for task, slot in self._tasks.items():
            if slot.state is State.CONNECTING:
                task.cancel()
        try:
            async with asyncio.timeout(None if limit is None else max(limit, 0.0)):
                await self._empty.wait()
        except TimeoutError:
            pass
        finally:
            self._terminate_all()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def terminate(self) -> None:
        """
        Refuse waiters and end every connection, at once and without a word to the server.
        """
        self._begin_closing()
        self._terminate_all()

    def _begin_closing(self) -> None:
        self.timers.drop_all()
        self.apply(self._state.close(self._now()))
        self._report_outcome()

    # --- the pool's own tasks

    def _spawn(self, slot: Slot, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = slot
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        slot = self._tasks.pop(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            context = {"message": "a task of the pool failed", "exception": error, "task": task}
            task.get_loop().call_exception_handler(context)
        if error is not None or task.cancelled():
            self._abandon(slot)

    def _abandon(self, slot: Slot) -> None:
        """
        Free a slot whose owner is gone; its connection is terminated. Harmless when it is free already.
        """
        now = self._now()
        if slot.con is not None:
            slot.con.terminate()
        match slot.state:
            case State.CONNECTING:
                self.apply(self._state.connect_failed(slot, now))
            case State.ACQUIRED:
                self.apply(self._state.discard(slot, now))
            case State.CLOSING:
                self.apply(self._state.closed(slot, now))

    def _terminate_all(self) -> None:
        for task in self._tasks:
            task.cancel()
        for slot in list(self._state.slots):
            self._abandon(slot)

    async def _connect(self, slot: Slot) -> None:
        began = self._now()
        try:
            async with asyncio.timeout(_driver.connect_limit(self._connect_timeout, self.opener.arguments)):
                con = await self.opener.open()
        except Exception as error:  # noqa: BLE001  # named and reported
            self._on_connect_failed(slot, error)
        else:
            self.connect_times.record(self._now() - began)
            self._on_connected(slot, con)

    def _on_connected(self, slot: Slot, con: _driver.Connection) -> None:
        if slot.state is not State.CONNECTING:  # given up while the last step was under way
            con.terminate()
            return
        slot.probe = _driver.arrival_probe(con)
        con.add_termination_listener(partial(self._on_lost, slot))
        self.apply(self._state.opened(slot, con, self._now()))
        self._report_outcome()
        recovered = self._outage.opened(self._now())
        if recovered is not None:  # not from here: a failing observer must not cost a connection that is handed out
            asyncio.get_running_loop().call_soon(self._notify, recovered)

    def _on_connect_failed(self, slot: Slot, error: Exception) -> None:
        actions = self._state.connect_failed(slot, self._now())
        found = error if isinstance(error, ConnectError) else _driver.connect_error(error)
        self.last_connect_error, self.last_refused_at = found, self._now()
        self.apply(actions)
        if self._is_telling:
            self.apply(self._state.refuse(error))
        self._report_outcome()
        self._tell(self._outage.failed(self._now(), found.reason, type(error).__name__))

    async def _close(self, slot: Slot) -> None:
        con = slot.con
        try:
            async with asyncio.timeout(_CLOSE_LIMIT):
                await con.close()
        except Exception:  # noqa: BLE001  # no farewell then
            con.terminate()
        self.apply(self._state.closed(slot, self._now()))

    async def _finish_release(self, slot: Slot, limit: float) -> None:
        if await is_reset(slot, EVERYTHING, limit):
            self.apply(self._state.release(slot, self._now()))
        else:
            self.drop(slot)

    # --- callbacks

    def _on_lost(self, slot: Slot, _con: object) -> None:
        self.apply(self._state.lost(slot, self._now()))

    def _on_retry(self) -> None:
        self.apply(self._state.tick(self._now()))

    def _on_tick(self) -> None:
        now = self._now()
        for slot in [slot for slot in self._state.idle_slots if slot.con.is_closed()]:
            self.apply(self._state.lost(slot, now))
        self.reconcile()
        self.apply(self._state.tick(now))
        self._keep_alive()
        self.timers.arm(self._on_tick, now + self._tick)

    def reconcile(self) -> None:
        """
        Compare the books with the slots and the tasks; mend what is wrong, and tell.
        """
        found, orphans, actions = self._state.mend(set(self._tasks.values()), self._now())
        self.apply(actions)
        for slot in orphans:
            self._abandon(slot)
        if found:
            self._notify(PoolMended(tuple(found)))

    def _keep_alive(self) -> None:
        """
        Ask the connection that has been silent longest for a sign of life, when it is time; one at a time.
        """
        if self._keepalive and self._pinged is None:
            self._pinged = self._state.reserve(self._keepalive, self._now())
            if self._pinged is not None:
                self._spawn(self._pinged, self._ping(self._pinged))

    async def _ping(self, slot: Slot) -> None:
        is_alive = False
        try:
            is_alive = await is_answering(slot.con, PING_LIMIT)
        finally:
            self._pinged = None
        if is_alive and not slot.con.is_closed():
            self.apply(self._state.restore(slot, self._now()))
        else:
            self.drop(slot)
        self._keep_alive()

    def _tell(self, event: Event | None) -> None:
        if event is not None:
            self._notify(event)

    def _report_outcome(self) -> None:
        outcomes, self._outcomes = self._outcomes, []
        for outcome in outcomes:
            if not outcome.done():
                outcome.set_result(None)

    def _connections(self) -> list[_driver.Connection]:
        return [slot.con for slot in self._state.slots if slot.con is not None]
