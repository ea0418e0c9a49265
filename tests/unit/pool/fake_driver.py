"""A driver without a server: connections that do what a test tells them, and a gate before each of their steps."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import asyncpg

from magnus.config import DatabaseConfig
from magnus.lanes import QueryPriority
from magnus.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_pids = itertools.count(1)


class FakeConnection:
    """
    One connection. `on_reset` and `on_execute`, when set, are awaited in place of an immediate success.
    """

    def __init__(self) -> None:
        self.pid = next(_pids)
        self.is_lost = False
        self.is_in_block = False
        self.resets = 0
        self.executed: list[str] = []
        self.on_reset: Callable[[], Awaitable[None]] | None = None
        self.on_execute: Callable[[], Awaitable[None]] | None = None
        self.on_close: Callable[[], Awaitable[None]] | None = None
        self._termination: list[Callable[[Any], None]] = []

    def __repr__(self) -> str:
        return f"<con {self.pid}{' lost' if self.is_lost else ''}>"

    def is_closed(self) -> bool:
        return self.is_lost

    def get_settings(self) -> object:
        return object()

    def is_in_transaction(self) -> bool:
        return self.is_in_block

    def add_termination_listener(self, listener: Callable[[Any], None]) -> None:
        self._termination.append(listener)

    def terminate(self) -> None:
        """
        End it; listeners hear of it on the loop's next turn, as with the real one.
        """
        if not self.is_lost:
            self.is_lost = True
            for listener in self._termination:
                asyncio.get_running_loop().call_soon(listener, self)

    async def close(self) -> None:
        if self.on_close is not None:
            await self.on_close()
        self.terminate()

    async def reset(self) -> None:
        self._refuse_when_lost()
        if self.on_reset is not None:
            await self.on_reset()
        self.resets += 1
        self.is_in_block = False

    async def execute(self, sql: str) -> str:
        self._refuse_when_lost()
        if self.on_execute is not None:
            await self.on_execute()
        self.executed.append(sql)
        return "SELECT 1"

    async def fetchval(self, _sql: str) -> None:
        self._refuse_when_lost()

    def _refuse_when_lost(self) -> None:
        if self.is_lost:
            raise ConnectionResetError("connection is closed")


class FakeDriver:
    """
    Stands in for `connect`. With `gate` closed, connects wait until it opens; `errors` fail the next ones, `error`
    fails all; `room` is how many connections the server takes.
    """

    def __init__(self) -> None:
        self.opened: list[FakeConnection] = []
        self.errors: list[BaseException] = []
        self.attempts = 0
        self.cancelled = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: BaseException | None = None
        self.room: int | None = None
        self.given_up = asyncio.Event()

    async def __call__(self, **_arguments: Any) -> FakeConnection:
        self.attempts += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            self.given_up.set()
            raise
        if self.errors:
            raise self.errors.pop(0)
        if self.error is not None:
            raise self.error
        if self.room is not None and len(self.opened) >= self.room:
            raise asyncpg.TooManyConnectionsError("no")
        self.opened.append(FakeConnection())
        return self.opened[-1]


class HandClock:
    """
    Time that moves when a test says so.
    """

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


async def turns(count: int = 5) -> None:
    """
    Let everything that is ready run, `count` turns of the loop.
    """
    for _ in range(count):
        await asyncio.sleep(0)


class Bench:
    """
    A pool on a fake driver, with every invariant checked after every event.
    """

    def __init__(self, **config) -> None:
        self.driver = FakeDriver()
        self.clock = HandClock()
        self.events = []
        given = {"min_pool_size": 0, "max_pool_size": 1} | config
        self.pool = Pool(
            DatabaseConfig(**given), notify=self.events.append, clock=self.clock, connect=self.driver, is_checked=True
        )

    async def __aenter__(self):
        await self.pool.open()
        return self

    async def __aexit__(self, *_exc):
        await self.pool.close(0.0)
        await turns()
        assert self.pool.snapshot().size == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    def acquire(self, lane=QueryPriority.CRITICAL, timeout=None):
        deadline = None if timeout is None else self.clock.now() + timeout
        return asyncio.create_task(self.pool.acquire(lane, deadline))

    async def waiting(self, count, lane=QueryPriority.CRITICAL):
        """
        Start callers that all have to wait.
        """
        found = [self.acquire(lane) for _ in range(count)]
        await turns()
        assert self.pool.snapshot().waiting == count
        return found
