"""A driver's connection, a pool and a clock that do what a test says; no server."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from magnus._execution import Execution
from magnus._figures import QueryStats
from magnus._terms import Terms
from magnus.config import DatabaseConfig
from magnus.connection import Connection
from magnus.lanes import QueryPriority
from magnus.pool import Lease, PoolSnapshot, Slot
from magnus.pool._slots import State
from magnus.session import TransactionMode
from magnus.transaction import Transaction, on_lease


class ManualClock:
    """
    Time that moves only when somebody sleeps on it or `advance`s it.
    """

    def __init__(self, now=1000.0):
        self.time = now
        self.slept = []

    def now(self):
        return self.time

    def advance(self, seconds):
        self.time += seconds

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)


class FakeConnection:
    """
    Answers `replies` by statement: a text is a status, an exception is raised, a callable is awaited.

    It follows BEGIN, COMMIT and ROLLBACK as a server's transaction status would.
    """

    def __init__(self, *, version=18):
        self.sent = []
        self.timeouts = []
        self.replies = {}
        self.is_terminated = False
        self.status = "idle"
        self.version = version

    async def execute(self, query, *args, timeout=None):
        if self.is_terminated:
            raise AssertionError("used after terminate")
        self.sent.append(query)
        self.timeouts.append(timeout)
        reply = self.replies.get(query, query.split(";", maxsplit=1)[0].split(" ", maxsplit=1)[0])
        if callable(reply):
            reply = await reply()
        if isinstance(reply, BaseException):
            raise reply
        self._follow(query)
        return reply

    async def fetch(self, query, *args, timeout=None, **options):
        return await self.execute(query, *args, timeout=timeout)

    async def fetchval(self, query, *args, timeout=None, **options):
        return await self.execute(query, *args, timeout=timeout)

    def _follow(self, query):
        if query.startswith("BEGIN"):
            self.status = "in transaction"
        elif query in {"COMMIT", "ROLLBACK"}:
            self.status = "idle"

    def is_closed(self):
        return self.is_terminated

    def is_in_transaction(self):
        assert not self.is_terminated, "the driver's own method fails here"
        return self.status != "idle"

    def terminate(self):
        self.is_terminated = True

    def get_server_version(self):
        return SimpleNamespace(major=self.version)


def lease_of(con, lane):
    """
    A lease of a connection, in its lane.
    """
    slot = Slot(0)
    slot.con, slot.state = con, State.ACQUIRED
    return Lease(slot, lane, 0.0)


class FakePool:
    """
    Hands out the connections it is given, in order; an exception among them is raised in place of one.
    """

    def __init__(self, *connections):
        self.connections = list(connections)
        self.acquired = []
        self.released = []
        self.held = []
        self.refused = []
        self.wasted_leases = []
        self.ready = None
        self.last_connect_error = None
        self.figures = figures()
        no = lambda *_: False  # noqa: E731  # then the driver's timer is used
        self.sweep = SimpleNamespace(enter=no, guard=no)

    async def open(self):
        return None

    async def close(self, timeout):
        return None

    async def warmup(self, n):
        return n if self.ready is None else self.ready

    async def acquire(self, lane, deadline, *, is_named=False, wanted=None):
        self.acquired.append((lane, deadline))
        found = self.connections.pop(0)
        if isinstance(found, BaseException):
            raise found
        return lease_of(found, lane)

    sizes = (30, 30)

    def limit(self, most):
        """Every size is right."""

    def hold(self, lease, inside=0):
        self.held.append(lease.con)

    def wasted(self, lease):
        self.wasted_leases.append(lease.con)

    def tap(self, tap):
        """Nobody is told of durations."""

    def statements(self):
        return {}

    def refused_write(self, lease):
        self.refused.append(lease.con)

    def give(self, _lease):
        return False

    async def release(self, lease, *, timeout=None):
        self.released.append(lease.con)

    def snapshot(self):
        return self.figures


def figures(**changes):
    """
    A pool's snapshot: everything zero but the sizes, and what the test changes.
    """
    fields = {
        "size": 0, "idle": 0, "acquired": 0, "connecting": 0, "closing": 0, "min": 5, "max": 30, "waiting": 0,
        "lanes": (), "connects": 0, "connect_failures": 0, "discarded": 0, "last_handoff": None,
        "is_full_since": None,
    }  # fmt: skip
    return PoolSnapshot(**{**fields, **changes})


def config(**changes):
    """
    A configuration of a server that does not exist.
    """
    return DatabaseConfig(dsn="postgresql://user@127.0.0.1:1/nowhere", **{"reset": "always"} | changes)


class Bench:
    """One connection on the bench: a lease of it, and what was told."""

    def __init__(self, lane=QueryPriority.NORMAL, version=18, **changes):
        self.raw = FakeConnection(version=version)
        self.pool = FakePool()
        self.clock = ManualClock()
        self.events = []
        self.committed = []
        self.settings = config(**changes)
        self.terms = Terms.of(
            self.settings,
            stats=QueryStats(0.1),
            notify=self.events.append,
            clock=self.clock,
            make_transaction=on_lease,
            committed=lambda tags, *, is_certain: self.committed.append((set(tags), is_certain)),
        )
        self.execution = Execution(self.pool, lease_of(self.raw, lane), self.terms)
        self.connection = Connection(self.execution)

    def owned(self, mode=None, timeout=None):
        """A transaction that gives the lease back, as `Database.transaction` makes it."""

        async def begin(_):
            deadline = self.execution.transaction_deadline(timeout)
            await self.execution.begin(mode or TransactionMode(), timeout, deadline=deadline)
            return self.execution

        return Transaction(begin, Execution.give_back)


async def settle():
    """
    Let everything run that is ready to.
    """
    for _ in range(20):
        await asyncio.sleep(0)


async def until(condition, limit=20.0):
    """
    Ask again until it is so: for what another process does, which sends no event.
    """
    async with asyncio.timeout(limit):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
