"""A hundred instances and one primary that fails over: who connects when, and what repeats add. In virtual time.

The pool, its prober, the retries, their jitter and their budget are the real code, on an event loop whose clock jumps;
the server is a model: it forks a backend in 5 ms one after the other, answers in 5 ms on average, has
`max_connections`, and refuses everybody while it is away. Beside it the same clients with a plain pool: three attempts,
pauses of 50 and 100 ms without jitter, and a connect for whoever finds no connection.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import asyncpg
from _report import Column, Report, Row, arguments, environment, run

from magnus._backoff import Budget
from magnus.config import DatabaseConfig
from magnus.lanes import QueryPriority
from magnus.pool import Pool
from magnus.retry import READ, Attempts, Progress, Retrier, RetryPolicy
from magnus.testing import SimLoop, simulate

if TYPE_CHECKING:
    from collections.abc import Callable

FORK: Final = 0.005
ANSWER: Final = 0.005
LIMIT: Final = 5.0
AWAY_AT: Final = 5.0
BUCKET: Final = 0.1


class Session:
    """
    A connection to the model, with what the pool asks of the driver's.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.is_lost = False
        self._listeners: list[Callable[[Any], None]] = []

    def is_closed(self) -> bool:
        return self.is_lost

    def get_settings(self) -> object:
        return object()

    def is_in_transaction(self) -> bool:
        return False

    def add_termination_listener(self, listener: Callable[[Any], None]) -> None:
        self._listeners.append(listener)

    def terminate(self) -> None:
        if not self.is_lost:
            self.is_lost = True
            self._server.sessions.discard(self)
            for listener in self._listeners:
                asyncio.get_running_loop().call_soon(listener, self)

    async def close(self) -> None:
        self.terminate()

    async def reset(self) -> None:
        await self.execute("")

    async def fetchval(self, _sql: str) -> None:
        await self.execute("")

    async def execute(self, sql: str) -> str:
        if self.is_lost:
            raise asyncpg.InterfaceError("connection is closed")
        if sql:
            self._server.statements += 1
        await asyncio.sleep(self._server.chance.expovariate(1 / ANSWER))
        if self.is_lost:
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        return "SELECT 1"


class Server:
    """
    One primary, its address, and the moment at which its successor takes over.
    """

    def __init__(self, loop: SimLoop, max_connections: int) -> None:
        self.loop = loop
        self.chance = loop.chance
        self.max_connections = max_connections
        self.sessions: set[Session] = set()
        self.is_away = False
        self.statements = 0
        self.asked: Counter[int] = Counter()
        self.refused: Counter[str] = Counter()
        self._forked = 0.0

    async def connect(self, **_arguments: Any) -> Session:
        self.asked[int(self.loop.time() / BUCKET)] += 1
        if self.is_away:
            await asyncio.sleep(0.001)
            self.refused["away"] += 1
            raise ConnectionRefusedError("the server is away")
        self._forked = max(self._forked, self.loop.time()) + FORK
        await asyncio.sleep(self._forked - self.loop.time())
        if self.is_away:
            self.refused["away"] += 1
            raise ConnectionRefusedError("the server is away")
        if len(self.sessions) >= self.max_connections:
            self.refused["full"] += 1
            raise asyncpg.TooManyConnectionsError("sorry, too many clients already")
        session = Session(self)
        self.sessions.add(session)
        return session

    def leave(self) -> None:
        self.is_away = True
        for session in list(self.sessions):
            session.terminate()


class Magnus:
    """
    One instance: the real pool and the real retries.
    """

    def __init__(self, server: Server, size: int) -> None:
        self.server = server
        self.units = 0
        config = DatabaseConfig(dsn="postgresql://u@/d", min_pool_size=min(5, size), max_pool_size=size)
        self.pool = Pool(config, notify=lambda _event: None, clock=server.loop.clock, connect=server.connect)
        self.pool._state._uniform = server.chance.uniform  # noqa: SLF001  # else no run could be repeated
        budget = Budget()
        self.retrier = Retrier(
            RetryPolicy.of(config), notify=lambda _event: None, clock=server.loop.clock,
            uniform=server.chance.uniform, budget=lambda now: budget.take(now, units=self.units, size=size),
        )  # fmt: skip

    async def open(self) -> None:
        await self.pool.open()

    async def close(self) -> None:
        await self.pool.close(0.0)

    async def ask(self) -> None:
        self.units += 1
        deadline = self.server.loop.time() + LIMIT

        async def unit(progress: Progress) -> None:
            lease = await self.pool.acquire(QueryPriority.HIGH, deadline)
            try:
                progress.is_sent = True
                await lease.con.execute("SELECT 1")
            except BaseException:
                await self.pool.discard(lease)
                raise
            await self.pool.release(lease)

        await self.retrier.run(unit, Progress(), deadline=deadline, rights=lambda: READ, attempts=Attempts())


class Plain:
    """
    One instance as it often is.
    """

    def __init__(self, server: Server, size: int) -> None:
        self.server = server
        self.idle: deque[Session] = deque()
        self.room = asyncio.Semaphore(size)

    async def open(self) -> None:
        self.idle.extend([await self.server.connect() for _ in range(5)])

    async def close(self) -> None:
        for session in self.idle:
            session.terminate()

    async def ask(self) -> None:
        async with asyncio.timeout(LIMIT):
            for attempt in range(3):
                try:
                    await self._once()
                except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                    if attempt == 2:
                        raise
                    await asyncio.sleep(0.05 * 2**attempt)
                else:
                    return

    async def _once(self) -> None:
        async with self.room:
            session = self.idle.pop() if self.idle else await self.server.connect()
            await session.execute("SELECT 1")
            await session.execute("")  # its reset
            self.idle.append(session)


@dataclass
class Story:
    """
    What happened in one run.
    """

    units: int = 0
    failed: int = 0
    late: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)


async def fleet(kind: type[Magnus | Plain], server: Server, options: Any) -> Story:
    """
    Open all instances, send at the rate through a failover, and go on until all is answered.
    """
    loop, story = server.loop, Story()
    instances = [kind(server, options.size) for _ in range(options.instances)]
    await asyncio.gather(*(instance.open() for instance in instances))
    await asyncio.sleep(2.0)  # until everybody has connected
    begin = loop.time()
    loop.call_at(begin + AWAY_AT, server.leave)
    loop.call_at(begin + AWAY_AT + options.outage, setattr, server, "is_away", False)

    async def send(instance: Magnus | Plain) -> None:
        story.units += 1
        try:
            await instance.ask()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            story.failed += 1
        else:
            story.answered.append(loop.time() - begin)

    async def drive(instance: Magnus | Plain) -> None:
        tasks = []
        while loop.time() < begin + options.seconds:
            await asyncio.sleep(loop.chance.expovariate(options.rate))
            tasks.append(asyncio.create_task(send(instance)))
        await asyncio.gather(*tasks)

    await asyncio.gather(*(drive(instance) for instance in instances))
    await asyncio.gather(*(instance.close() for instance in instances))
    await asyncio.sleep(2.0)
    server.asked = Counter({bucket: n for bucket, n in server.asked.items() if bucket * BUCKET >= begin})
    story.late = [at - AWAY_AT - options.outage for at in story.answered if at >= AWAY_AT + options.outage]
    return story


def play(kind: type[Magnus | Plain], options: Any) -> tuple[Server, Story]:
    loop = SimLoop(options.seed)
    server = Server(loop, options.max_connections)
    return server, simulate(fleet(kind, server, options), loop)


def restored(story: Story, options: Any) -> float:
    """
    Return after how many seconds a whole second's answers were 95 % of those sent, counted from the server's return.
    """
    expected = 0.95 * options.rate * options.instances
    step = 0.1
    for number in range(int((options.seconds - AWAY_AT - options.outage - 1) / step)):
        begin = number * step
        if sum(begin <= at < begin + 1 for at in story.late) >= expected:
            return begin
    return float("inf")


COLUMNS = (
    Column("failed %", ",.2f"),
    Column("sent / unit", ".3f"),
    Column("connects", ",.0f"),
    Column("most in 0.1 s", ",.0f"),
    Column("refused", ",.0f"),
    Column("restored s", ".1f"),
)


def main() -> None:
    options = arguments(
        __doc__ or "", instances=100, quick_instances=10, size=30, rate=20.0, outage=5.0, quick_outage=2.0,
        seconds=20.0, quick_seconds=10.0, max_connections=500,
    )  # fmt: skip
    report = Report("bench_scale", options, run(environment(None)))
    found = {}
    for name, kind in (("magnus", Magnus), ("plain pool", Plain)):
        server, story = play(kind, options)
        found[name] = (
            100 * story.failed / story.units, server.statements / story.units, server.asked.total(),
            max(server.asked.values(), default=0), server.refused.total(), restored(story, options),
        )  # fmt: skip
    title = (
        f"{options.instances} instances of at most {options.size} connections, {options.rate * options.instances:,.0f} "
        f"requests/s, away for {options.outage:g} s, limit {LIMIT:g} s, max_connections {options.max_connections}"
    )
    report.table(title, COLUMNS, [Row(name, cells) for name, cells in found.items()])
    report.goal("statements sent for a unit, magnus", found["magnus"][1], most=1.2)
    report.goal("connects asked for, magnus / plain", found["magnus"][2] / found["plain pool"][2], most=0.5)
    report.goal("seconds until 95 % are answered again, magnus", found["magnus"][5], most=2.0)
    report.save()


if __name__ == "__main__":
    main()
