"""SQLAlchemy on both sources: connections are reused, given back in every case, and nothing of it stays on them."""

from __future__ import annotations

import asyncio
import gc
import warnings

import asyncpg
import pytest

sqlalchemy = pytest.importorskip("sqlalchemy")

from sqlalchemy import ForeignKey, event, exc, select, text  # noqa: E402  # only where it is installed
from sqlalchemy.dialects.postgresql import JSONB  # noqa: E402
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine  # noqa: E402
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload  # noqa: E402

from magnus import ConfigError, Database, DatabaseConfig, QueryPriority, QueryTimeout, create_pool, scope  # noqa: E402
from magnus.sqlalchemy import create_engine  # noqa: E402


async def until(is_so):
    """Let the loop run until something has happened; fail after ten seconds."""
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110  # the pool sends no event
            await asyncio.sleep(0.005)


class Base(DeclarativeBase):
    """Tables of these tests."""


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    facts: Mapped[dict] = mapped_column(JSONB, default=dict)
    books: Mapped[list[Book]] = relationship(back_populates="author")


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"))
    author: Mapped[Author] = relationship(back_populates="books")


class OnDatabase:
    """The engine on the facade."""

    def __init__(self, dsn, size):
        self.source = Database(DatabaseConfig(dsn=dsn, min_pool_size=1, max_pool_size=size))

    def held(self):
        return self.source.get_stats()["pool_stats"]["used"]


class OnPool:
    """The engine on the drop-in pool."""

    def __init__(self, dsn, size):
        self.source = create_pool(dsn, min_size=1, max_size=size)

    def held(self):
        return self.source.get_size() - self.source.get_idle_size()


@pytest.fixture(params=[OnDatabase, OnPool])
async def bench(request, dsn):
    """A source of two connections and an engine on it; at the end nothing is held."""
    made = request.param(dsn, 2)
    async with made.source:
        made.engine = create_engine(made.source)
        yield made
        await until(lambda: made.held() == 0)
        await made.engine.dispose()


@pytest.fixture
async def sessions(bench):
    async with bench.engine.begin() as con:
        await con.run_sync(Base.metadata.create_all)
    return async_sessionmaker(bench.engine, expire_on_commit=False)


async def pid(con):
    return (await con.execute(text("SELECT pg_backend_pid()"))).scalar_one()


@pytest.mark.one_version
async def test_one_backend_serves_twenty_checkouts(bench):
    """The pool's connection is reused; SQLAlchemy's close does not end it."""
    found = set()
    for _ in range(20):
        async with bench.engine.connect() as con:
            found.add(await pid(con))

    assert len(found) == 1


@pytest.mark.one_version
async def test_a_bare_lease_would_be_closed_at_every_return(dsn):
    """Why the engine is made here: the obvious way opens twenty backends."""
    async with create_pool(dsn, min_size=1, max_size=2) as pool:

        async def acquire():
            return await pool.acquire()

        engine = create_async_engine("postgresql+asyncpg://", async_creator=acquire, poolclass=sqlalchemy.NullPool)
        found = set()
        for _ in range(20):
            async with engine.connect() as con:
                found.add(await pid(con))

    assert len(found) == 20


@pytest.mark.one_version
async def test_checkouts_never_exceed_the_pool(bench):
    """Thirty at once, two backends."""

    async def work():
        async with bench.engine.connect() as con:
            return await pid(con)

    found = await asyncio.gather(*(work() for _ in range(30)))

    assert len(set(found)) <= 2


async def test_objects_are_stored_and_loaded(sessions):
    """ORM, relationships, JSON."""
    async with sessions.begin() as session:
        session.add(Author(name="Ann", facts={"born": 1900}, books=[Book(title="One"), Book(title="Two")]))

    async with sessions() as session:
        author = (await session.scalars(select(Author).options(selectinload(Author.books)))).one()

    assert (author.name, author.facts) == ("Ann", {"born": 1900})
    assert [book.title for book in author.books] == ["One", "Two"]


@pytest.mark.one_version
async def test_savepoints_roll_back_alone(sessions):
    """`begin_nested`."""
    async with sessions.begin() as session:
        session.add(Author(name="kept"))
        savepoint = await session.begin_nested()
        session.add(Author(name="lost"))
        await session.flush()
        await savepoint.rollback()

    async with sessions() as session:
        assert (await session.scalars(select(Author.name))).all() == ["kept"]


@pytest.mark.one_version
async def test_an_error_rolls_back_and_gives_the_connection_back(bench, sessions):
    """SQLAlchemy's exception around the driver's."""
    with pytest.raises(exc.IntegrityError) as caught:  # noqa: PT012  # the end of the block is the point
        async with sessions.begin() as session:
            session.add(Author(id=1, name="a"))
            await session.flush()
            await session.execute(text("INSERT INTO author (id, name, facts) VALUES (1, 'b', '{}')"))

    assert caught.value.orig.sqlstate == "23505"
    assert bench.held() == 0
    async with sessions() as session:
        assert (await session.scalars(select(Author))).all() == []


async def test_rows_can_be_streamed(bench):
    """A server-side cursor."""
    async with bench.engine.connect() as con:
        rows = await con.stream(text("SELECT generate_series(1, 1000)"))
        assert sum([row[0] async for row in rows]) == 500_500


async def test_autocommit_and_isolation_levels(bench):
    """As execution options."""
    async with bench.engine.connect() as con:
        await con.execution_options(isolation_level="SERIALIZABLE")
        assert (await con.execute(text("SHOW transaction_isolation"))).scalar() == "serializable"
    async with bench.engine.connect() as con:
        await con.execution_options(isolation_level="AUTOCOMMIT")
        await con.execute(text("VACUUM"))


@pytest.mark.one_version
async def test_what_a_checkout_sets_does_not_reach_the_next(bench):
    """The pool's reset."""
    async with bench.engine.connect() as con:
        first = await pid(con)
        await con.execute(text("SET work_mem = '1234kB'"))
        await con.commit()
    async with bench.engine.connect() as con:
        assert await pid(con) == first
        assert (await con.execute(text("SHOW work_mem"))).scalar() == "4MB"


@pytest.mark.one_version
async def test_json_is_read_as_before_by_everybody_else(bench, sessions):
    """The engine leaves no codec on a connection that it shares."""
    async with sessions.begin() as session:
        session.add(Author(name="Ann", facts={"a": 1}))

    assert await bench.source.fetchval("SELECT facts FROM author") == '{"a": 1}'
    assert await bench.source.fetchval("SELECT '[1]'::json") == "[1]"


@pytest.mark.one_version
async def test_pre_ping_is_accepted(bench):
    """It has nothing to do here, the pool proves its connections itself."""
    engine = create_engine(bench.source, pool_pre_ping=True)

    async with engine.connect() as con:
        assert (await con.execute(text("SELECT 1"))).scalar() == 1


@pytest.mark.one_version
async def test_dispose_leaves_the_source_alone(bench):
    """It belongs to its owner."""
    await bench.engine.dispose()

    assert await bench.source.fetchval("SELECT 1") == 1
    async with bench.engine.connect() as con:
        assert (await con.execute(text("SELECT 1"))).scalar() == 1


@pytest.mark.one_version
async def test_a_killed_connection_is_replaced(bench, dsn):
    """The checkout at hand fails, the next one works."""
    admin = await asyncpg.connect(dsn)
    with pytest.raises((exc.DBAPIError, OSError)):  # noqa: PT012  # so is it here
        async with bench.engine.connect() as con:
            assert await admin.fetchval("SELECT pg_terminate_backend($1, 5000)", await pid(con))
            await con.execute(text("SELECT 1"))
    await admin.close()

    async with bench.engine.connect() as con:
        assert (await con.execute(text("SELECT 1"))).scalar() == 1


@pytest.mark.one_version
async def test_cancelled_requests_give_their_slots_back(bench, dsn, caplog):
    """In a query, over and over; the pool is whole afterwards, and the log is silent."""
    admin = await asyncpg.connect(dsn)

    async def request():
        async with bench.engine.begin() as con:
            await con.execute(text("SELECT pg_sleep(60)"))

    async def running():
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)' AND state = 'active'"
        async with asyncio.timeout(10):
            while await admin.fetchval(sleeping) < 2:  # noqa: ASYNC110  # nor does the server
                await asyncio.sleep(0.005)

    with scope(QueryPriority.CRITICAL):  # of a pool of two, the other lanes may have one
        for _ in range(5):
            tasks = [asyncio.create_task(request()) for _ in range(4)]
            await running()
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(end) for end in ends} == {asyncio.CancelledError}
            await until(lambda: bench.held() == 0)
        await admin.close()

        async with bench.engine.connect() as one, bench.engine.connect() as two:
            assert await pid(one) != await pid(two)
    assert [record for record in caplog.records if record.name == "asyncio"] == []


@pytest.mark.one_version
async def test_a_forgotten_connection_gives_its_slot_back_when_it_is_collected(bench):
    """SQLAlchemy warns and terminates; the pool does not shrink."""
    con = await bench.engine.connect()
    await pid(con)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        del con
        gc.collect()
        await until(lambda: bench.held() == 0)


@pytest.mark.one_version
async def test_a_connect_event_sees_an_asyncpg_connection(bench):
    """SQLAlchemy's own way to the driver."""
    seen = []

    @event.listens_for(bench.engine.sync_engine, "connect")
    def connected(dbapi_connection, _record):
        seen.append(dbapi_connection.driver_connection.get_server_pid())

    async with bench.engine.connect() as con:
        assert seen == [await pid(con)]


@pytest.mark.one_version
async def test_the_scopes_lane_and_deadline_hold(dsn):
    """On a Database: the lane of the checkout, the deadline of every statement, on the server too."""
    async with Database(DatabaseConfig(dsn=dsn, min_pool_size=1, max_pool_size=4)) as db:
        engine = create_engine(db)
        with scope(QueryPriority.CRITICAL):
            async with engine.connect() as con:
                assert (await con.execute(text("SHOW statement_timeout"))).scalar() in {"5s", "6s"}
                lanes = db.get_stats()["pool_stats"]["lanes"]
                assert lanes["critical"]["acquired"] == 1
        with scope(timeout=0.2):
            async with engine.connect() as con:
                with pytest.raises(QueryTimeout):
                    await con.execute(text("SELECT pg_sleep(60)"))
        await until(lambda: db.get_stats()["pool_stats"]["used"] == 0)
        async with engine.connect() as con:
            assert (await con.execute(text("SELECT 1"))).scalar() == 1


@pytest.mark.one_version
@pytest.mark.parametrize("option", ["pool_size", "max_overflow", "poolclass", "async_creator", "connect_args"])
async def test_options_of_another_pool_are_refused(dsn, option):
    """There is only one."""
    with pytest.raises(ConfigError, match=option):
        create_engine(create_pool(dsn), **{option: 1})


@pytest.mark.one_version
async def test_a_foreign_source_is_refused(dsn):
    """Also asyncpg's own pool."""
    with pytest.raises(ConfigError, match="source"):
        create_engine(asyncpg.create_pool(dsn))
    with pytest.raises(ConfigError, match="native_inet_types"):
        create_engine(create_pool(dsn), native_inet_types=False)
