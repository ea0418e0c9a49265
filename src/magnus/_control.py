"""The control connection: one outside the pool, probed for health; and the events when a state begins and ends.

It knows the pool as a snapshot only. A probe through a busy pool would starve exactly when it is needed. Hardly
anything but probes runs on the connection: a loss that comes between two messages of a statement makes the driver end
it without telling anybody, and a probe is the one statement whose failure is a verdict. Whoever may look around on it
does so right after a probe, and when the connection is gone then, that is a loss.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from magnus import _driver
from magnus._beside import open_beside
from magnus.errors import ConnectError
from magnus.observe import HealthCheckFailed, HealthCheckRecovered, PoolHighUtilization, PoolUtilizationNormal
from magnus.pool import watch_forks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from magnus._clock import Clock
    from magnus._driver import Connect, Connection
    from magnus.config import DatabaseConfig
    from magnus.observe import Event
    from magnus.pool import PoolSnapshot

_PROBE_LIMIT: Final = 2.0
_AFTER_FAILURE: Final = 2.0
_REOPENED: Final = 1.0
_PRECEDENCE: Final = 0.1  # for the pool, which has lost its connections too and asks the server first
_ASKED_LATELY: Final = 1.0
_CLOSE_LIMIT: Final = 1.0
_HIGH: Final = 0.9
_PID: Final = "SELECT pg_catalog.pg_backend_pid()"
INCURABLE: Final = frozenset({"credentials", "database", "pooler"})
"""Reasons of a `ConnectError` that waiting does not heal."""


@dataclass(frozen=True, slots=True)
class ProbeState:
    """
    What is known of a database's health at one moment.

    Attributes:
        is_ok: The last probe succeeded, and the control connection has not been lost since.
        last_ok: When a probe last succeeded (monotonic seconds), None before the first.
        failures: Probes that failed since then.
        is_warm: The pool has had a connection to give.
        no_handoff_since: Since when every caller has had to wait and none was served (monotonic seconds), or None.
        cause: Why the last probe failed, a word of `ConnectError.reason`; None when it did not.
        failed_total: Probes that failed since the database was connected, losses of the control connection included.
        connect_failing_since: Since when the pool cannot open connections (monotonic seconds), or None.
    """

    is_ok: bool
    last_ok: float | None
    failures: int
    is_warm: bool
    no_handoff_since: float | None
    cause: str | None = None
    failed_total: int = 0
    connect_failing_since: float | None = None


class Verdicts:
    """
    Probe results in, events out: one when a state begins, one when it ends. Pure.
    """

    def __init__(self) -> None:
        self.is_ok = False
        self.last_ok: float | None = None
        self.failures = 0
        self.failed_total = 0
        self.cause: str | None = None
        self._failing_since = 0.0
        self._is_high = False

    def succeeded(self, now: float) -> Event | None:
        """
        Take note of a probe that succeeded.
        """
        failures, self.failures = self.failures, 0
        self.is_ok, self.last_ok, self.cause = True, now, None
        return HealthCheckRecovered(failures, now - self._failing_since) if failures else None

    def failed(self, now: float, error_type: str, reason: str = "unreachable") -> Event | None:
        """
        Take note of a probe that failed, or of the control connection's loss; `reason` is a word of `ConnectError`.
        """
        self.is_ok = False
        self.failures += 1
        self.failed_total += 1
        self.cause = reason
        if self.failures > 1:
            return None
        self._failing_since = now
        return HealthCheckFailed(self.failures, error_type, reason)

    def used(self, pool: PoolSnapshot) -> Event | None:
        """
        Take note of how many slots are in use.
        """
        utilization = pool.acquired / pool.max
        is_high = utilization > _HIGH
        if is_high == self._is_high:
            return None
        self._is_high = is_high
        kind = PoolHighUtilization if is_high else PoolUtilizationNormal
        return kind(utilization=round(utilization, 4), used=pool.acquired, total=pool.max, free=pool.idle)


class Control:
    """
    Opens, probes and watches the control connection, until it is closed.
    """

    def __init__(
        self,
        config: DatabaseConfig,
        *,
        notify: Callable[[Event], None],
        clock: Clock,
        snapshot: Callable[[], PoolSnapshot],
        refused: Callable[[float], ConnectError | None] = lambda _since: None,
        connect: Connect = _driver.driver_connect,
        purpose: Callable[[], str] = str,
        look: Callable[[Connection], Awaitable[None]] | None = None,
    ) -> None:
        """
        `purpose` says what is appended to the connection's name; `look` may use it for a moment after each probe in the
        background, and must not raise. `refused(since)` is why the pool cannot connect at present, when it has tried
        since then; None when it can.
        """
        self._config = config
        self._notify = notify
        self._clock = clock
        self._snapshot = snapshot
        self._refused = refused
        self._connect = connect
        self._purpose = purpose
        self._look = look
        self._in_use = asyncio.Lock()
        self._con: Connection | None = None
        self._flight: asyncio.Task[bool] | None = None
        self._loop: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._opened_at = 0.0
        self.verdicts = Verdicts()
        self.last_error: ConnectError | None = None
        self._is_inherited = False
        watch_forks(self)

    def forked(self) -> None:
        """
        Let go of everything, in a child process: the connection, the tasks and their loop are the parent's.
        """
        self._is_inherited = True
        self.verdicts.is_ok = False
        if self._con is not None:
            _driver.disown(self._con)
        self._con = self._flight = self._loop = None

    async def check(self) -> bool:
        """
        Probe now and return whether the database answers; callers at the same time share one probe. Never raises.
        """
        if self._is_inherited:
            return False
        if self._flight is None:
            self._flight = asyncio.get_running_loop().create_task(self._probe())
            self._flight.add_done_callback(self._land)
        return await asyncio.shield(self._flight)

    async def has_own_session(self) -> bool:
        """
        Say whether the connection has the server's process that it was told of at its start; else a pooler stands
        between. True where nobody answers.
        """
        con = self._con
        try:
            if con is None:
                return True
            asked = await con.prepare(_PID, name="", timeout=_PROBE_LIMIT)
            return bool(await asked.fetchval(timeout=_PROBE_LIMIT) == con.get_server_pid())
        except Exception:  # noqa: BLE001  # the next probe judges the connection
            return True

    async def look_around(self) -> None:
        """
        Let who may look around do so; nothing when the connection is not open.
        """
        async with self._in_use:
            con = self._con
            if con is None or self._look is None:
                return
            await self._look(con)
            if con.is_closed():
                self._on_lost(con)

    def start(self) -> None:
        """
        Begin to probe in the background.
        """
        self._loop = asyncio.get_running_loop().create_task(self._watch())

    def wake(self) -> None:
        """
        Probe soon: the server was heard of elsewhere.
        """
        if not self.verdicts.is_ok:
            self._wake.set()

    async def close(self) -> None:
        """
        Stop probing and close the connection.
        """
        tasks = [task for task in (self._loop, self._flight) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._loop = None
        con, self._con = self._con, None
        if con is not None:
            try:
                await con.close(timeout=_CLOSE_LIMIT)
            finally:
                con.terminate()

    def _land(self, _flight: asyncio.Task[bool]) -> None:
        self._flight = None

    async def _watch(self) -> None:
        while True:
            delay = self._config.health_check_interval
            await self._pause(delay if self.verdicts.is_ok else min(delay, _AFTER_FAILURE))
            if self._con is None and (refused := self._refused(self._clock.now() - _ASKED_LATELY)) is not None:
                self._failed(refused)  # there is one prober; a second one would only add to what the server has to bear
            elif not await self.check():
                self._wake.clear()  # it is looked at again soon anyway
            else:
                await self.look_around()
            self._tell(self.verdicts.used(self._snapshot()))

    async def _pause(self, seconds: float) -> None:
        """
        Wait, or less when the control connection is lost or somebody else's probe failed; one that keeps being lost is
        opened once a second.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()
        await self._clock.sleep(max(_PRECEDENCE, self._opened_at + _REOPENED - self._clock.now()))

    async def _probe(self) -> bool:
        try:
            async with self._in_use:
                con = self._con if self._con is not None else await self._open()
                async with asyncio.timeout(_PROBE_LIMIT):
                    await con.execute("SELECT 1")
        except Exception as error:  # noqa: BLE001  # whatever it is, the database did not answer
            self._drop()
            if self.verdicts.is_ok:
                self._wake.set()
            self._failed(error)
            return False
        self._tell(self.verdicts.succeeded(self._clock.now()))
        return True

    def _failed(self, error: Exception) -> None:
        self.last_error = error if isinstance(error, ConnectError) else _driver.connect_error(error)
        kind = type(error.__cause__ or error).__name__
        self._tell(self.verdicts.failed(self._clock.now(), kind, self.last_error.reason))

    async def _open(self) -> Connection:
        con = await open_beside(self._config, self._connect, self._purpose())
        con.add_termination_listener(self._on_lost)
        self._con = con
        self._opened_at = self._clock.now()
        return con

    def _drop(self) -> None:
        con, self._con = self._con, None
        if con is not None:
            con.terminate()

    def _on_lost(self, con: object) -> None:
        if con is self._con:
            self._con = None
            self._tell(self.verdicts.failed(self._clock.now(), "ConnectionLost"))
            self._wake.set()

    def _tell(self, event: Event | None) -> None:
        if event is not None:
            self._notify(event)
