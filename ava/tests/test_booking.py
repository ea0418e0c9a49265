"""Booking an order: what makes two requests the same, how few round trips it takes, and what a cut leaves behind."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import asyncpg
import pytest
from service import ANNA, assert_clean, seed

from ava import housekeeping
from ava.money import plain
from ava.services import booking
from ava.services.booking import Booked, Order, book
from ava.services.rules import Reason, Side
from magnus import AlreadyExecuted, Database, DatabaseConfig, KeyReused, OutcomeUnknown, _commit

pytest_plugins = ("service_fixtures",)

D = Decimal
BUY = Order("AAAA", Side.BUY, D(1))


@pytest.fixture
async def db(migrated):
    """The seeded schema, connected as its owner; audited afterwards."""
    await seed(migrated)
    async with Database(DatabaseConfig(dsn=migrated.owner, min_pool_size=2, max_pool_size=4)) as found:
        yield found
    await assert_clean(migrated)


def test_equal_orders_have_equal_digests():
    """By value: zeros at the end are no difference, a limit or none is."""
    same = [Order("AAAA", Side.BUY, D("10"), D("1.5")), Order("AAAA", Side.BUY, D("10.000"), D("1.50"))]
    other = [
        Order("AAAA", Side.BUY, D(10)),
        Order("AAAA", Side.SELL, D(10), D("1.5")),
        Order("AAAB", Side.BUY, D(10), D("1.5")),
        Order("AAAA", Side.BUY, D(100), D("1.5")),
        Order("AAAA", Side.BUY, D("1.5"), D(10)),
    ]
    digests = [order.digest() for order in (*same, *other)]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 6


def test_decimals_are_written_plainly():
    """Never with an exponent, never with zeros at the end."""
    values = ("0E-8", "10.00000000", "1E+3", "0.00000001", "-1.50", "100")
    assert [plain(D(value)) for value in values] == ["0", "10", "1000", "0.00000001", "-1.5", "100"]


async def test_an_order_takes_five_round_trips(migrated):
    """
    BEGIN with its settings and the key, lock, read, write, COMMIT with the answer: a lock is held for four of them. A
    repeat takes three.
    """
    await seed(migrated)
    async with Database(DatabaseConfig(dsn=migrated.owner, min_pool_size=1, max_pool_size=1)) as one:
        await book(one, ANNA, "first", BUY)  # what is prepared and learned at first sight is not counted
        async with one.acquire() as con:
            raw = con._execution.raw
        sent = []
        raw.add_query_logger(lambda query: sent.append(query.query.split(maxsplit=1)[0]))
        await book(one, ANNA, "k", BUY)
        await book(one, ANNA, "k", BUY)
        await book(one, ANNA, "s", Order("AAAA", Side.SELL, D("0.5")))
        await asyncio.sleep(0)  # the driver tells its loggers a turn of the loop later
        calls = [word for word in sent if not word.startswith("RESET")]

    assert calls == [
        "BEGIN;",
        "--",
        "--",
        "--",
        "UPDATE",
        "BEGIN;",
        "UPDATE",
        "COMMIT",
        "BEGIN;",
        "--",
        "--",
        "--",
        "UPDATE",
    ]


async def test_a_sale_over_many_lots_reads_them_all(db, monkeypatch):
    """More lots than an order reads at once; the cost is that of all of them."""
    monkeypatch.setattr(booking, "_LOTS", 3)
    for number in range(7):
        await book(db, ANNA, f"b{number}", Order("AAAA", Side.BUY, D(1)))
    answer = await book(db, ANNA, "s", Order("AAAA", Side.SELL, D("5.5")))
    assert isinstance(answer.outcome, Booked)
    assert answer.outcome.realised_pnl == D("0.00")
    last = await book(db, ANNA, "t", Order("AAAA", Side.SELL, D("1.5")))
    assert isinstance(last.outcome, Booked)
    assert (await book(db, ANNA, "u", Order("AAAA", Side.SELL, D(1)))).outcome is Reason.INSUFFICIENT_HOLDINGS


@pytest.mark.one_version
async def test_a_booking_that_is_cancelled_while_it_waits_leaves_nothing(ava):
    """The key is free, and the same request books afterwards."""
    db = ava.app.state.magnus.database
    lock = ava.admin.transaction()
    await lock.start()
    await ava.admin.execute("select from cash where account_id = 1 for update")
    waiting = asyncio.create_task(book(db, ANNA, "k", BUY))
    pid = await ava.admin.fetchval("select pg_backend_pid()")
    while not await db.fetchval("select exists(select from pg_locks where $1 = any(pg_blocking_pids(pid)))", pid):
        assert not waiting.done()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await lock.rollback()
    assert await ava.count("orders") == 0
    answer = await book(db, ANNA, "k", BUY)
    assert isinstance(answer.outcome, Booked)
    assert not answer.is_replayed


@pytest.mark.one_version
async def test_a_fault_in_the_middle_takes_everything_back(db, monkeypatch):
    """Cash, lots and the order come together or not at all."""

    async def fault(*args):
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(booking, "_fill", fault)
        with pytest.raises(RuntimeError):
            await book(db, ANNA, "k", BUY)
    assert not (await book(db, ANNA, "k", BUY)).is_replayed


async def test_a_reused_key_is_an_error_of_its_own(db):
    """Not a refusal: it is not stored, and the first answer stays."""
    first = await book(db, ANNA, "k", BUY)
    with pytest.raises(KeyReused):
        await book(db, ANNA, "k", Order("AAAA", Side.BUY, D(2)))
    assert (await book(db, ANNA, "k", BUY)).outcome == first.outcome


async def test_a_key_of_an_older_version_is_found_in_orders(db, migrated):
    """It knew no table of keys: the answer is the trade's, and is kept from then on."""
    first = await book(db, ANNA, "k", BUY)
    con = await asyncpg.connect(migrated.superuser)
    await con.execute("delete from magnus_once")

    again = await book(db, ANNA, "k", BUY)
    assert (again.outcome, again.is_replayed) == (first.outcome, True)
    await con.execute("delete from magnus_once")
    with pytest.raises(KeyReused):
        await book(db, ANNA, "k", Order("AAAA", Side.BUY, D(2)))
    assert await con.fetchval("select count(*) from trades") == 1
    await con.close()


async def test_an_answer_that_has_expired_leaves_the_trades_id(db):
    """The key is kept for ever: nothing is booked again."""
    first = await book(db, ANNA, "k", BUY)
    refused = await book(db, ANNA, "r", Order("NONE", Side.BUY, D(1)))
    assert refused.outcome is Reason.UNKNOWN_INSTRUMENT

    assert await housekeeping.expire(db, 0) == (2, 0)

    with pytest.raises(AlreadyExecuted) as caught:
        await book(db, ANNA, "k", BUY)
    assert caught.value.reference == str(first.outcome.id)
    with pytest.raises(AlreadyExecuted) as caught:
        await book(db, ANNA, "r", Order("NONE", Side.BUY, D(1)))
    assert caught.value.reference is None


def lose_commit(monkeypatch, *, stored):
    """Lose the answer of the next COMMIT, after it was carried out, or before it was sent."""
    commit, left = _commit.commit, [1]

    async def lose(con, **options):
        if not left:
            return await commit(con, **options)
        left.clear()
        if stored:
            await commit(con, **options)
        con.terminate()
        raise OutcomeUnknown

    monkeypatch.setattr(_commit, "commit", lose)


@pytest.mark.one_version
@pytest.mark.parametrize("stored", [True, False])
async def test_an_order_whose_commit_was_not_answered_is_one_trade(db, migrated, monkeypatch, stored):
    """Whether it was stored or lost: the caller gets the trade, and there is one."""
    lose_commit(monkeypatch, stored=stored)

    answer = await book(db, ANNA, "k", BUY)

    assert not answer.is_replayed
    con = await asyncpg.connect(migrated.superuser)
    assert await con.fetchval("select array_agg(id) from trades") == [answer.outcome.id]
    assert await con.fetchval("select count(*) from outbox") == 1
    await con.close()
