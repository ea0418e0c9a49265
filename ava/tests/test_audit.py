"""The audit: silent on sound books, and for each kind of corruption exactly that one finding."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import asyncpg
import pytest

from ava.audit import AuditError, audit
from magnus import Database, DatabaseConfig

# Books a buy of one unit at 10.00 for account 1 as the service does, and a refused order and an import beside it.
BOOK = """
with instrument as (
    select i.* from instruments as i join accounts as a on a.currency = i.currency where a.id = 1 order by i.id limit 1
),
trade as (
    insert into trades (account_id, instrument_id, side, quantity, price, amount, idempotency_key, source)
    select 1, id, 'buy', 1, 10, 10, 'key-1', 'api' from instrument
    returning *
),
ordered as (
    insert into orders (
        account_id, idempotency_key, request_hash, instrument_id, symbol, side, quantity, limit_price, status, trade_id
    )
    select 1, 'key-1', '', instrument_id, symbol, 'buy', 1, 11, 'filled', trade.id
    from trade, instrument
),
lot as (
    insert into lots select id, 1, instrument_id, 1, 10 from trade
),
position as (
    insert into positions (account_id, instrument_id, quantity, cost_basis)
    select 1, id, 1, 10 from instrument
    on conflict (account_id, instrument_id) do update
    set quantity = positions.quantity + 1, cost_basis = positions.cost_basis + 10
)
update cash set balance = balance - 10 where account_id = 1;
insert into orders (account_id, idempotency_key, request_hash, symbol, side, quantity, status, reason)
values (1, 'key-2', '', 'NONE', 'buy', 1, 'rejected', 'unknown-instrument');
insert into imports (account_id, idempotency_key, request_hash, mode, response) values (1, 'key-3', '', 'all', '{}');
"""

A_LOT = "(select max(trade_id) from lots where account_id = 2)"
A_SALE = "(select max(id) from trades where account_id = 2 and side = 'sell')"
A_BUY = "(select max(id) from trades where account_id = 2 and side = 'buy')"
A_SPENT_BUY = (
    "(select min(id) from trades t where account_id = 2 and side = 'buy' and id not in (select trade_id from lots))"
)
A_POSITION = "account_id = 2 and instrument_id = (select min(instrument_id) from positions where account_id = 2)"
FOREIGN = "(select i.id from instruments i join accounts a on a.currency <> i.currency where a.id = 2 limit 1)"

CORRUPTIONS = {
    "cash a cent too high": ("update cash set balance = balance + 0.01 where account_id = 2", ["cash"]),
    "cash row gone": ("delete from cash where account_id = 2", ["cash"]),
    "cash below zero": (
        ("alter table cash drop constraint cash_balance_check;"
        "insert into cash_movements (account_id, amount, kind)"
        " select 2, -balance - 1, 'withdrawal' from cash where account_id = 2;"
        "update cash set balance = -1 where account_id = 2"),
        ["cash"],
    ),
    "deposit doubled": (
        ("insert into cash_movements (account_id, amount, kind)"
        " select account_id, amount, kind from cash_movements where account_id = 2 and kind = 'deposit' limit 1"),
        ["cash"],
    ),
    "withdrawal lost": (
        ("delete from cash_movements where id ="
        " (select max(id) from cash_movements where account_id = 2 and kind = 'deposit')"),
        ["cash"],
    ),
    "position quantity": (f"update positions set quantity = quantity + 0.00000001 where {A_POSITION}", ["position"]),
    "position cost": (
        ("update positions set cost_basis = cost_basis + 0.01 where account_id = 2 and quantity > 0"
        " and instrument_id = (select max(instrument_id) from positions where account_id = 2 and quantity > 0)"),
        ["position"],
    ),
    "position profit": (f"update positions set realised_pnl = realised_pnl - 0.01 where {A_POSITION}", ["position"]),
    "position gone": (f"delete from positions where {A_POSITION}", ["position"]),
    "position from nowhere": (f"insert into positions select 2, {FOREIGN}, 1, 1, 0", ["position"]),
    "lot quantity": (f"update lots set quantity_open = quantity_open + 0.00000001 where trade_id = {A_LOT}", ["lot"]),
    "lot cost": (f"update lots set cost_open = cost_open + 0.01 where trade_id = {A_LOT}", ["lot"]),
    "lot gone": (f"delete from lots where trade_id = {A_LOT}", ["lot"]),
    "lot of a buy that is used up": (
        f"insert into lots select id, account_id, instrument_id, quantity, amount from trades where id = {A_SPENT_BUY}",
        ["lot"],
    ),
    "lot of another account": (f"update lots set account_id = 3 where trade_id = {A_LOT}", ["lot"]),
    "amount off by a cent": (f"update trades set amount = amount + 0.01 where id = {A_BUY}", ["amount"]),
    "profit off by a cent": (
        f"update trades set realised_pnl = realised_pnl + 0.01 where id = {A_SALE}",
        ["realised_pnl"],
    ),
    "profit of a buy": (
        ("alter table trades drop constraint trades_realised_on_sale;"
        f"update trades set realised_pnl = 0 where id = {A_BUY}"),
        ["realised_pnl"],
    ),
    "profit of a sale gone": (
        ("alter table trades drop constraint trades_realised_on_sale;"
        f"update trades set realised_pnl = null where id = {A_SALE}"),
        ["realised_pnl"],
    ),
    "sale of what is not held": (
        ("insert into trades (account_id, instrument_id, side, quantity, price, amount, realised_pnl, source)"
        " select 2, instrument_id, 'sell', quantity + 0.00000001, 1, round(quantity, 2), 0, 'seed'"
        " from positions where account_id = 2 and quantity >= 1"
        " and quantity + 0.00000001 < round(quantity, 2) + 0.005 and quantity > round(quantity, 2) - 0.005 limit 1"),
        ["cash", "holding"],
    ),
    "sale booked without its proceeds": (
        "update cash set balance = balance - (select amount - fee from trades where id = " + A_SALE + ")"
        " where account_id = 2",
        ["cash"],
    ),
    "trade gone, that has not been used": (
        ("delete from lots where trade_id = (select max(id) from trades where source = 'api');"
        "delete from orders where status = 'filled';"
        "delete from trades where source = 'api'"),
        ["cash", "position"],
    ),
    "trade in a foreign currency": (
        (f"with t as (insert into trades (account_id, instrument_id, side, quantity, price, amount, source)"
        f" values (2, {FOREIGN}, 'buy', 1, 1, 1, 'seed') returning *),"
        " l as (insert into lots select id, 2, instrument_id, 1, 1 from t),"
        " p as (insert into positions select 2, instrument_id, 1, 1, 0 from t)"
        " update cash set balance = balance - 1 where account_id = 2"),
        ["currency"],
    ),
    "order gone": ("delete from orders where status = 'filled'", ["trade_order"]),
    "order of another quantity": ("update orders set quantity = 2 where status = 'filled'", ["order_trade"]),
    "order of the other side": (
        "update orders set side = 'sell', limit_price = null where status = 'filled'", ["order_trade"],
    ),
    "order with another key": ("update orders set idempotency_key = 'key-9' where status = 'filled'", ["order_trade"]),
    "order of another account": ("update orders set account_id = 2 where status = 'filled'", ["order_trade"]),
    "order above its limit": ("update orders set limit_price = 9.99 where status = 'filled'", ["order_trade"]),
    "order filled by nothing": (
        ("alter table orders drop constraint orders_filled_by_trade;"
        "update orders set status = 'filled', reason = null where status = 'rejected'"),
        ["order_trade"],
    ),
    "trade with two orders": (
        ("alter table orders drop constraint orders_trade_id_key;"
        "insert into orders (account_id, idempotency_key, request_hash, instrument_id, symbol, side, quantity, status,"
        " trade_id) select account_id, 'key-8', '', instrument_id, symbol, side, quantity, status, trade_id"
        " from orders where status = 'filled'"),
        ["order_trade", "trade_order"],
    ),
    "order key used twice": (
        ("alter table orders drop constraint orders_idempotency_key;"
        "insert into orders (account_id, idempotency_key, request_hash, symbol, side, quantity, status, reason)"
        " values (1, 'key-2', '', 'NONE', 'buy', 1, 'rejected', 'unknown-instrument')"),
        ["unique_key"],
    ),
    "import key used twice": (
        ("alter table imports drop constraint imports_idempotency_key;"
        "insert into imports (account_id, idempotency_key, request_hash, mode, response)"
        " values (1, 'key-3', '', 'all', '{}')"),
        ["unique_key"],
    ),
    "external id used twice": (
        ("drop index trades_external_id;"
        "update trades set source = 'import', external_id = 'same' where account_id = 2"
        " and id in (select id from trades where account_id = 2 order by id limit 2)"),
        ["unique_key"],
    ),
}  # fmt: skip


@pytest.fixture
async def superuser(loaded):
    """
    A connection that may corrupt the books, in which account 1 has booked by the API.
    """
    con = await asyncpg.connect(loaded.superuser)
    await con.execute(BOOK)
    yield con
    await con.close()


async def test_sound_books_are_clean_and_everything_was_looked_at(superuser, loaded_db):
    """The report says how much it compared, so that an empty ledger is not taken for a sound one."""
    told: list[tuple[str, int, int]] = []

    report = await audit(loaded_db, progress=lambda *event: told.append(event))

    assert report.is_clean
    assert (report.mismatches, report.mismatch_count) == ((), 0)
    assert (report.accounts, report.trades, report.orders, report.imports) == (5, 2_001, 2, 1)
    for table, count in (("lots", report.lots), ("positions", report.positions), ("cash_movements", report.movements)):
        assert count == await superuser.fetchval(f"select count(*) from {table}") > 0
    assert told[-1] == ("trades", 2_001, 2_001)
    assert report.elapsed > 0


@pytest.mark.one_version
@pytest.mark.parametrize("name", CORRUPTIONS)
async def test_corruption_is_found_and_nothing_else(superuser, loaded_db, name):
    """One fault, its own findings, for the account it is in."""
    statement, expected = CORRUPTIONS[name]
    await superuser.execute(statement)

    report = await audit(loaded_db)

    assert sorted({mismatch.check for mismatch in report.mismatches}) == expected
    assert report.mismatch_count == len(report.mismatches) <= 2
    assert len({mismatch.account_id for mismatch in report.mismatches}) == 1
    assert all(mismatch.expected != mismatch.found for mismatch in report.mismatches)


async def test_finding_names_account_subject_and_both_figures(superuser, loaded_db):
    """Enough to look it up by hand."""
    balance = await superuser.fetchval("select balance from cash where account_id = 2")
    await superuser.execute("update cash set balance = balance + 0.01 where account_id = 2")

    (found,) = (await audit(loaded_db)).mismatches

    assert (found.check, found.account_id, found.subject) == ("cash", 2, "cash")
    assert (found.expected, found.found) == (f"{balance}", f"{balance + Decimal('0.01')}")


async def test_list_is_bounded_and_the_count_is_not(superuser, loaded_db):
    """A wrong deploy must not fill the terminal, nor look like one fault."""
    await superuser.execute("update trades set amount = amount + 0.01")
    await superuser.execute("update orders set limit_price = 1 where status = 'filled'")

    report = await audit(loaded_db, limit=3)

    assert len(report.mismatches) == 3
    assert report.mismatch_count == 2_002


async def test_audit_sees_one_moment_beside_a_booking(superuser, loaded_db):
    """What is committed while it reads is of no concern to it, and everything to the next one."""
    at_trades = asyncio.Event()
    await superuser.execute("begin; lock table lots in access exclusive mode")
    task = asyncio.create_task(audit(loaded_db, progress=lambda *_: at_trades.set()))
    await at_trades.wait()
    await superuser.execute("update cash set balance = balance - 1 where account_id = 3; commit")

    assert (await task).is_clean
    assert not (await audit(loaded_db)).is_clean


async def test_schema_must_be_current(bare):
    """One clear line instead of a missing table."""
    async with Database(DatabaseConfig(dsn=bare.owner, min_pool_size=1, max_pool_size=2)) as db:
        with pytest.raises(AuditError, match="migrate first"):
            await audit(db)


async def test_user_who_may_not_take_the_role_is_told_so(loaded, server):
    """Seeing every account needs the operator's role."""
    await server.create_role("nobody_special")
    con = await asyncpg.connect(loaded.superuser)
    await con.execute("grant select on ava_migrations to nobody_special")
    await con.close()
    dsn = loaded.owner.replace("//ava@", "//nobody_special@")
    async with Database(DatabaseConfig(dsn=dsn, min_pool_size=1, max_pool_size=2)) as db:
        with pytest.raises(AuditError, match="audit as the owner"):
            await audit(db)
