"""Hears what other processes change, on one connection of its own (LISTEN), and knows for how long it has not heard.

Theory of operation. A trigger raises the version of its tag and tells it on a channel, in the transaction of the
change. Twice a second all versions are read on the listening connection: that proves that it is alive, and finds what
no notification told. While the last proof is older than `BOUND` the cache is bypassed, so a connection that was cut,
even without a word, makes nobody's answer older than that. A new connection listens first, then everything that was
kept is dropped, then the cache answers again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from magnus import _driver
from magnus._beside import open_beside
from magnus.cache._versions import CHANNEL, VERSIONS
from magnus.pool import watch_forks

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from magnus._clock import Clock
    from magnus._driver import Connect, Connection
    from magnus.config import DatabaseConfig

BEAT: Final = 0.5
"""Seconds between two readings of the versions."""

BOUND: Final = 2.0
"""Seconds for which the cache is trusted after the last answer."""

_AGAIN: Final = 1.0
_CLOSE_LIMIT: Final = 1.0


class Watcher:
    """
    Listens from `start` to `close`. `changed` is told tags, `lost` that anything may have changed.
    """

    def __init__(
        self,
        config: DatabaseConfig,
        *,
        changed: Callable[[Collection[str]], None],
        lost: Callable[[], None],
        clock: Clock,
        connect: Connect = _driver.driver_connect,
    ) -> None:
        self._config = config
        self._changed = changed
        self._lost = lost
        self._clock = clock
        self._connect = connect
        self._con: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._gone = asyncio.Event()
        self._versions: dict[str, int] = {}
        self._heard: float | None = None
        self._reason: str | None = None
        self.losses = 0
        self.notifications = 0
        self.found_by_reading = 0

    def start(self) -> None:
        """
        Begin to listen, in the background. Harmless the second time.
        """
        if self._task is None:
            watch_forks(self)
            self._task = asyncio.get_running_loop().create_task(self._keep())

    async def close(self) -> None:
        """
        Stop listening.
        """
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        con, self._con = self._con, None
        self._heard = None
        if con is not None:
            try:
                await con.close(timeout=_CLOSE_LIMIT)
            finally:
                con.terminate()

    def forked(self) -> None:
        """
        Let go of everything, in a child process: it is the parent's.
        """
        if self._con is not None:
            _driver.disown(self._con)
        self._con = self._task = self._heard = None

    def is_current(self, now: float) -> bool:
        """
        Say whether everything was heard that was committed longer than `BOUND` ago.
        """
        return self._heard is not None and now - self._heard < BOUND

    def figures(self, now: float) -> dict[str, Any]:
        """
        Return what there is to say, ready for JSON.
        """
        return {
            "state": "current" if self.is_current(now) else "bypassed",
            "reason": self._reason,
            "bound_s": BOUND,
            "silent_s": None if self._heard is None else round(now - self._heard, 3),
            "notifications": self.notifications,
            "found_by_reading": self.found_by_reading,
            "losses": self.losses,
        }

    async def _keep(self) -> None:
        while True:
            try:
                await self._listen()
            except Exception as error:  # noqa: BLE001  # whatever it is, nothing is heard; it is named in the figures
                found = error if hasattr(error, "reason") else _driver.connect_error(error)
                self._drop(str(found.reason))
            await self._clock.sleep(_AGAIN)

    async def _listen(self) -> None:
        self._gone = asyncio.Event()
        con = await open_beside(self._config, self._connect, "cache")
        self._con = con
        con.add_termination_listener(self._on_gone)
        async with asyncio.timeout(BOUND):
            await con.add_listener(CHANNEL, self._on_notified)
        self._lost()  # whatever was kept or is being loaded is from before anybody listened
        await self._read(con, is_first=True)
        while not self._gone.is_set():
            try:
                async with asyncio.timeout(BEAT):
                    await self._gone.wait()
            except TimeoutError:
                await self._read(con, is_first=False)
        raise ConnectionResetError("the connection was lost")

    async def _read(self, con: Connection, *, is_first: bool) -> None:
        sent = self._clock.now()
        async with asyncio.timeout(BOUND):
            rows = await con.fetch(VERSIONS)
        found: dict[str, int] = {row["tag"]: row["version"] for row in rows}
        missed = [tag for tag, version in found.items() if self._versions.get(tag) != version]
        self._versions = found
        if missed and not is_first:
            self.found_by_reading += len(missed)
            self._changed(missed)
        self._heard, self._reason = sent, None

    def _on_notified(self, _con: object, _pid: int, _channel: str, payload: object) -> None:
        tag, _, version = str(payload).rpartition(" ")
        self.notifications += 1
        self._versions[tag] = int(version)
        self._changed((tag,))

    def _on_gone(self, con: object) -> None:
        if con is self._con:
            self._drop("unreachable")
            self._gone.set()

    def _drop(self, reason: str) -> None:
        con, self._con = self._con, None
        if self._heard is not None:
            self.losses += 1
        self._heard, self._reason = None, reason
        self._lost()
        if con is not None:
            con.terminate()
