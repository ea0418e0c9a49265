"""Who is answered from where, with loads that are held up on purpose."""

from __future__ import annotations

import asyncio

import pytest

from magnus import ConfigError, QueryPriority, QueryTimeout, cached, scope
from magnus.cache import QueryCache, is_loading


class Database:
    """
    A database with one number in it; reads wait for `gate`.
    """

    def __init__(self, max_bytes=1_000_000, watcher=None):
        self.number = 0
        self.reads = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_writing = False
        self.time = 0.0
        self.cache = QueryCache(max_bytes, now=lambda: self.time, is_writing=lambda: self.is_writing, watcher=watcher)
        self.cache.open()

    async def read(self):
        self.reads += 1
        found = self.number
        await self.gate.wait()
        return found

    def write(self, number, *tags):
        self.number = number
        self.cache.committed(tags, is_certain=True)

    @property
    def figures(self):
        return self.cache.snapshot()


@cached(ttl=10.0, tags=["number"])
async def number(db, plus=0):
    """The number."""
    return await db.read() + plus


@pytest.fixture
def db():
    return Database()


async def ready():
    for _ in range(10):
        await asyncio.sleep(0)


async def test_the_second_call_asks_nobody(db):
    assert [await number(db), await number(db), await number(db, 1), await number(db, plus=1)] == [0, 0, 1, 1]
    assert db.reads == 2
    assert (db.figures["hits"], db.figures["misses"], db.figures["entries"]) == (2, 2, 2)


async def test_a_call_with_defaults_is_the_call_that_names_them(db):
    assert await number(db) == await number(db, 0) == await number(db, plus=0)
    assert db.reads == 1


async def test_a_thousand_who_miss_at_once_ask_once(db):
    assert await asyncio.gather(*(number(db) for _ in range(1_000))) == [0] * 1_000
    assert db.reads == 1
    assert (db.figures["misses"], db.figures["shared"]) == (1, 999)


async def test_after_a_commit_nobody_gets_the_old_answer(db):
    await number(db)
    db.write(7, "number")
    assert await number(db) == 7


async def test_a_load_from_before_a_commit_is_neither_kept_nor_joined(db):
    """Those who waited since before the commit may have it; who comes later loads anew."""
    db.gate.clear()
    early = asyncio.create_task(number(db))
    await ready()
    db.write(7, "number")
    late = asyncio.create_task(number(db))
    await ready()
    db.gate.set()
    assert await early == 0
    assert await late == 7
    assert await number(db) == 7
    assert db.reads == 2


async def test_the_old_load_does_not_take_the_new_ones_place(db):
    """However late it comes in."""
    db.gate.clear()
    early = asyncio.create_task(number(db))
    await ready()
    db.write(7, "number")
    held, db.gate = db.gate, asyncio.Event()
    db.gate.set()
    assert await number(db) == 7
    held.set()
    assert await early == 0
    assert await number(db) == 7
    assert db.reads == 2


async def test_inside_a_transaction_that_writes_nothing_comes_from_the_cache(db):
    """What is decided there must be read there; and what is read there is not kept for others."""
    await number(db)
    db.number = 7
    db.is_writing = True
    assert await number(db) == 7
    assert await number(db, 1) == 8
    db.is_writing = False
    assert await number(db) == 0
    assert db.figures["entries"] == 1
    assert db.figures["bypassed"] == 2


async def test_errors_are_kept_for_nobody(db):
    @cached(ttl=10.0)
    async def failing(db):
        await db.read()
        raise LookupError("no such number")

    results = await asyncio.gather(failing(db), failing(db), return_exceptions=True)
    assert [str(error) for error in results] == ["no such number"] * 2
    assert db.reads == 1
    with pytest.raises(LookupError):
        await failing(db)
    assert db.reads == 2


async def test_a_caller_who_leaves_takes_nothing_from_the_others(db):
    """And when the last one leaves, the load is given up."""
    db.gate.clear()
    tasks = [asyncio.create_task(number(db)) for _ in range(3)]
    await ready()
    tasks[0].cancel()
    await ready()
    assert db.reads == 1
    tasks[1].cancel()
    tasks[2].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await ready()
    again = asyncio.create_task(number(db))
    await ready()
    assert db.reads == 2
    db.gate.set()
    assert await again == 0


async def test_a_callers_deadline_is_its_own(db):
    """It ends the waiting of one caller, and not the load that others wait for."""
    db.gate.clear()

    async def hasty():
        with scope(timeout=60.0) as found:
            found.deadline = db.time
            await number(db)

    patient = asyncio.create_task(number(db))
    await ready()
    with pytest.raises(QueryTimeout):
        await hasty()
    db.gate.set()
    assert await patient == 0
    assert db.reads == 1


async def test_who_began_a_load_leaves_no_deadline_to_it(db):
    seen = []

    @cached(ttl=10.0)
    async def look(db):
        from magnus import lanes

        found = lanes.current()
        seen.append((lanes.resolve(None), found.deadline, is_loading()))
        return 1

    with scope(QueryPriority.LOW, timeout=60.0) as found:
        found.deadline = db.time + 60.0
        await look(db)
    assert seen == [(QueryPriority.LOW, None, True)]
    assert not is_loading()


async def test_the_important_do_not_wait_for_the_load_of_the_less_important(db):
    """The less important join theirs."""
    db.gate.clear()
    with scope(QueryPriority.LOW):
        low = asyncio.create_task(number(db))
        await ready()
    with scope(QueryPriority.CRITICAL):
        critical = asyncio.create_task(number(db))
        await ready()
    assert db.reads == 2
    with scope(QueryPriority.LOW):
        joins = asyncio.create_task(number(db))
        await ready()
    assert db.reads == 2
    db.gate.set()
    assert await asyncio.gather(low, critical, joins) == [0, 0, 0]


async def test_a_cached_function_in_another_passes_its_tags_on(db):
    """Whatever the inner one depends on, the outer one depends on; and it never lives longer."""

    @cached(ttl=100.0, tags=["outer"])
    async def double(db):
        return 2 * await number(db)

    assert await double(db) == 0
    db.write(4, "number")
    assert await double(db) == 8
    db.number = 5
    db.time = 11.0
    assert await double(db) == 10


async def test_an_invalidation_between_the_inner_and_the_outer_end_is_not_lost(db):
    gate = asyncio.Event()

    @cached(ttl=100.0)
    async def double(db):
        found = 2 * await number(db)
        await gate.wait()
        return found

    task = asyncio.create_task(double(db))
    await ready()
    db.write(4, "number")
    gate.set()
    assert await task == 0
    assert await double(db) == 8


async def test_tags_can_follow_from_the_arguments(db):
    @cached(ttl=10.0, tags=lambda account: [f"account:{account}"])
    async def of(db, account):
        return await db.read()

    await of(db, 1)
    await of(db, 2)
    db.write(3, "account:1")
    assert await of(db, 1) == 3
    assert await of(db, 2) == 0


@pytest.mark.parametrize("value", [[1], {"a": 1}, {1}, bytearray(b"a")])
async def test_an_answer_that_can_be_changed_is_refused(db, value):
    @cached(ttl=10.0)
    async def changing(db):
        return value

    with pytest.raises(TypeError, match="return a tuple"):
        await changing(db)


async def test_without_bytes_nothing_is_kept():
    db = Database(max_bytes=0)
    await number(db)
    await number(db)
    assert db.reads == 2
    assert db.figures["bypassed"] == 2


async def test_a_closed_cache_is_asked_nothing(db):
    await number(db)
    await db.cache.close()
    db.number = 3
    assert await number(db) == 3
    assert db.figures["entries"] == 0


async def test_an_outcome_that_is_unknown_is_waited_for(db):
    """The commit may take effect after the next read; so that read is not kept."""
    await number(db)
    db.cache.committed(["number"], is_certain=False)
    assert await number(db) == 0
    db.number = 9
    assert await number(db) == 9
    db.time = 10.0
    await number(db)
    await number(db)
    assert db.reads == 4


async def test_while_an_outcome_is_unknown_nobody_joins_a_load(db):
    """It may have read what was there before, and the commit may be known by now."""
    db.cache.committed(["number"], is_certain=False)
    db.gate.clear()
    early = asyncio.create_task(number(db))
    await ready()
    db.number = 9
    late = asyncio.create_task(number(db))
    await ready()
    db.gate.set()
    assert [await early, await late] == [0, 9]


async def test_figures_say_what_was_saved(db):
    @cached(ttl=10.0)
    async def slow(db):
        db.time += 2.0
        return 1

    await slow(db)
    await slow(db)
    await slow(db)
    assert db.figures["saved_s"] == pytest.approx(4.0)
    assert db.figures["hit_ratio"] == pytest.approx(0.6667)
    assert Database().figures is None


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"ttl": 0}, "ttl"),
        ({"ttl": "soon"}, "ttl"),
        ({"ttl": 1, "tags": "a"}, "tags"),
        ({"ttl": 1, "tags": [""]}, "tags"),
    ],
)
def test_impossible_arguments_are_refused_at_once(arguments, field):
    with pytest.raises(ConfigError) as found:
        cached(**arguments)(number._fn)
    assert found.value.field == field


def test_only_coroutine_functions_of_a_database_can_be_cached():
    with pytest.raises(ConfigError, match="coroutine"):
        cached(ttl=1)(lambda db: 1)

    async def nothing():
        return 1

    with pytest.raises(ConfigError, match="first parameter"):
        cached(ttl=1)(nothing)


def test_it_looks_like_the_function_that_it_was_made_of():
    assert number.__name__ == "number"
    assert number.__doc__ == "The number."
