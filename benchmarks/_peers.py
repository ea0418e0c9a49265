"""The pools that are compared, each used as its documentation says, over the same number of connections.

`read` is one row by primary key; `transact` is a transaction of two reads, `transfer` one of a read and a write.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar

import asyncpg
from _report import Absent
from _server import ACCOUNTS

from magnus.config import DatabaseConfig
from magnus.database import Database

if TYPE_CHECKING:
    from collections.abc import Callable

READ = "select id, owner, cents from account where id = $1"
SEE = "select cents from account where id = $1"
WRITE = "update account set cents = cents + 1 where id = $1"


def keys() -> Callable[[], int]:
    """
    Return a source of account numbers in a fixed random order, for ever.
    """
    order = random.Random(7).sample(range(1, ACCOUNTS + 1), ACCOUNTS)
    return itertools.cycle(order).__next__


class Peer:
    """
    What a pool under test offers; a subclass without an operation leaves it None.
    """

    transact: Any = None
    transfer: Any = None

    def __init__(self, dsn: str, size: int) -> None:
        self.dsn = dsn
        self.size = size
        self.key = keys()

    async def setup(self) -> None:
        raise NotImplementedError

    async def teardown(self) -> None:
        raise NotImplementedError

    async def read(self, worker: int) -> object:
        raise NotImplementedError


class Bare(Peer):
    """
    Every worker has a connection of its own: nothing can be faster through this driver.
    """

    async def setup(self) -> None:
        self.connections = [await asyncpg.connect(self.dsn) for _ in range(self.size)]

    async def teardown(self) -> None:
        for con in self.connections:
            await con.close()

    async def read(self, worker: int) -> object:
        return await self.connections[worker].fetchrow(READ, self.key())

    async def transact(self, worker: int) -> None:
        con = self.connections[worker]
        async with con.transaction():
            await con.fetchval(SEE, self.key())
            await con.fetchval(SEE, self.key())

    async def transfer(self, worker: int) -> None:
        con = self.connections[worker]
        async with con.transaction():
            await con.fetchval(SEE, self.key())
            await con.execute(WRITE, self.key())


class LifoQueue(Peer):
    """
    The least that can be called a pool: bare connections in an asyncio.LifoQueue.
    """

    async def setup(self) -> None:
        self.queue: asyncio.LifoQueue[asyncpg.Connection[Any]] = asyncio.LifoQueue()
        for _ in range(self.size):
            self.queue.put_nowait(await asyncpg.connect(self.dsn))

    async def teardown(self) -> None:
        while not self.queue.empty():
            await self.queue.get_nowait().close()

    async def read(self, worker: int) -> object:
        del worker
        con = await self.queue.get()
        try:
            return await con.fetchrow(READ, self.key())
        finally:
            self.queue.put_nowait(con)

    async def transact(self, worker: int) -> None:
        del worker
        con = await self.queue.get()
        try:
            async with con.transaction():
                await con.fetchval(SEE, self.key())
                await con.fetchval(SEE, self.key())
        finally:
            self.queue.put_nowait(con)

    async def transfer(self, worker: int) -> None:
        del worker
        con = await self.queue.get()
        try:
            async with con.transaction():
                await con.fetchval(SEE, self.key())
                await con.execute(WRITE, self.key())
        finally:
            self.queue.put_nowait(con)


class FifoHandOff(Peer):
    """
    The least that can be called a fair pool: a released connection goes to whoever waits longest.

    A task that releases to a LIFO queue and asks again gets the same connection before anyone who waits: without
    hand-off there is nothing to wait for, and the others starve. This is what fairness alone costs.
    """

    async def setup(self) -> None:
        self.idle = [await asyncpg.connect(self.dsn) for _ in range(self.size)]
        self.waiters: deque[asyncio.Future[asyncpg.Connection[Any]]] = deque()

    async def teardown(self) -> None:
        for con in self.idle:
            await con.close()

    async def acquire(self) -> asyncpg.Connection[Any]:
        if self.idle and not self.waiters:
            return self.idle.pop()
        waiter: asyncio.Future[asyncpg.Connection[Any]] = asyncio.get_running_loop().create_future()
        self.waiters.append(waiter)
        return await waiter

    def release(self, con: asyncpg.Connection[Any]) -> None:
        if self.waiters:
            self.waiters.popleft().set_result(con)
        else:
            self.idle.append(con)

    async def read(self, worker: int) -> object:
        del worker
        con = await self.acquire()
        try:
            return await con.fetchrow(READ, self.key())
        finally:
            self.release(con)

    async def transact(self, worker: int) -> None:
        del worker
        con = await self.acquire()
        try:
            async with con.transaction():
                await con.fetchval(SEE, self.key())
                await con.fetchval(SEE, self.key())
        finally:
            self.release(con)

    async def transfer(self, worker: int) -> None:
        del worker
        con = await self.acquire()
        try:
            async with con.transaction():
                await con.fetchval(SEE, self.key())
                await con.execute(WRITE, self.key())
        finally:
            self.release(con)


class AsyncpgPool(Peer):
    """
    asyncpg's own; a subclass makes another pool with the same methods.
    """

    pool: Any

    async def make(self) -> Any:
        return await asyncpg.create_pool(self.dsn, min_size=self.size, max_size=self.size)

    async def setup(self) -> None:
        self.pool = await self.make()

    async def teardown(self) -> None:
        await self.pool.close()

    async def read(self, worker: int) -> object:
        del worker
        return await self.pool.fetchrow(READ, self.key())

    async def transact(self, worker: int) -> None:
        del worker
        async with self.pool.acquire() as con, con.transaction():
            await con.fetchval(SEE, self.key())
            await con.fetchval(SEE, self.key())

    async def transfer(self, worker: int) -> None:
        del worker
        async with self.pool.acquire() as con, con.transaction():
            await con.fetchval(SEE, self.key())
            await con.execute(WRITE, self.key())


class AsyncpgPoolWithoutReset(AsyncpgPool):
    """
    What asyncpg's pool costs without the round trip of its reset: not safe to use, an estimate of the rest.
    """

    async def make(self) -> Any:
        async def no_reset(con: object) -> None:
            pass

        return await asyncpg.create_pool(self.dsn, min_size=self.size, max_size=self.size, reset=no_reset)


class PsycopgPool(Peer):
    """
    psycopg_pool in autocommit, so that a read is not a transaction of three statements.
    """

    async def setup(self) -> None:
        try:
            import psycopg_pool
        except ImportError:
            raise Absent("psycopg_pool is not installed") from None
        self.pool = psycopg_pool.AsyncConnectionPool(
            self.dsn, min_size=self.size, max_size=self.size, open=False, kwargs={"autocommit": True}
        )
        await self.pool.open(wait=True)

    async def teardown(self) -> None:
        await self.pool.close()

    async def read(self, worker: int) -> object:
        del worker
        async with self.pool.connection() as con:
            cursor = await con.execute("select id, owner, cents from account where id = %s", (self.key(),))
            return await cursor.fetchone()

    async def transact(self, worker: int) -> None:
        del worker
        async with self.pool.connection() as con, con.transaction():
            for _ in range(2):
                cursor = await con.execute("select cents from account where id = %s", (self.key(),))
                await cursor.fetchone()

    async def transfer(self, worker: int) -> None:
        del worker
        async with self.pool.connection() as con, con.transaction():
            cursor = await con.execute("select cents from account where id = %s", (self.key(),))
            await cursor.fetchone()
            await con.execute("update account set cents = cents + 1 where id = %s", (self.key(),))


class SqlAlchemyEngine(Peer):
    """
    SQLAlchemy's engine on asyncpg, reads in autocommit for the same reason.
    """

    async def setup(self) -> None:
        try:
            import sqlalchemy
            from sqlalchemy.ext.asyncio import create_async_engine
        except ImportError:
            raise Absent("SQLAlchemy is not installed") from None

        async def connect() -> asyncpg.Connection[Any]:
            return await asyncpg.connect(self.dsn)

        self.engine = create_async_engine(
            "postgresql+asyncpg://", async_creator=connect, pool_size=self.size, max_overflow=0
        )
        self.reader = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self.sql_read = sqlalchemy.text("select id, owner, cents from account where id = :id")
        self.sql_see = sqlalchemy.text("select cents from account where id = :id")
        self.sql_write = sqlalchemy.text("update account set cents = cents + 1 where id = :id")

    async def teardown(self) -> None:
        await self.engine.dispose()

    async def read(self, worker: int) -> object:
        del worker
        async with self.reader.connect() as con:
            return (await con.execute(self.sql_read, {"id": self.key()})).first()

    async def transact(self, worker: int) -> None:
        del worker
        async with self.engine.begin() as con:
            (await con.execute(self.sql_see, {"id": self.key()})).scalar()
            (await con.execute(self.sql_see, {"id": self.key()})).scalar()

    async def transfer(self, worker: int) -> None:
        del worker
        async with self.engine.begin() as con:
            (await con.execute(self.sql_see, {"id": self.key()})).scalar()
            await con.execute(self.sql_write, {"id": self.key()})


class MagnusDatabase(Peer):
    """
    The facade with every default on: lanes, deadlines, statistics, smart reset, and an observer for slow statements.
    """

    settings: ClassVar[dict[str, Any]] = {}

    async def setup(self) -> None:
        self.slow = 0
        config = DatabaseConfig(dsn=self.dsn, min_pool_size=self.size, max_pool_size=self.size, **self.settings)
        self.database = Database(config, observers=[self.count])
        await self.database.connect()
        await self.database.warmup_pool(self.size)

    def count(self, event: object) -> None:
        del event
        self.slow += 1

    async def teardown(self) -> None:
        await self.database.close()

    async def read(self, worker: int) -> object:
        del worker
        return await self.database.fetchrow(READ, self.key())

    async def transact(self, worker: int) -> None:
        del worker
        async with self.database.transaction() as tx:
            await tx.fetchval(SEE, self.key())
            await tx.fetchval(SEE, self.key())

    async def transfer(self, worker: int) -> None:
        del worker
        async with self.database.transaction() as tx:
            await tx.fetchval(SEE, self.key())
            await tx.execute(WRITE, self.key())


class MagnusPool(AsyncpgPool):
    """
    `magnus.create_pool`, the drop-in for asyncpg's pool, with its full reset on every release.
    """

    async def make(self) -> Any:
        import magnus

        create_pool = getattr(magnus, "create_pool", None)
        if create_pool is None:
            raise Absent("this version of magnus has no create_pool")
        return await create_pool(self.dsn, min_size=self.size, max_size=self.size)
