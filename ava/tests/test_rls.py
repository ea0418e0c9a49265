"""Row-level security, the second lock: it binds whoever forgot a WHERE, and whoever forgot the role."""

from __future__ import annotations

from typing import NamedTuple

import asyncpg
import pytest

from magnus import Database, DatabaseConfig

OWN_ROWS = {
    "accounts": "id",
    "cash": "account_id",
    "cash_movements": "account_id",
    "orders": "account_id",
    "trades": "account_id",
    "lots": "account_id",
    "positions": "account_id",
    "imports": "account_id",
}


class Books(NamedTuple):
    owner: str
    superuser: str


def as_account(account_id: object) -> dict[str, str]:
    return {"role": "ava_account", "ava.account_id": str(account_id)}


@pytest.fixture(scope="module")
def books(server, databases, loaded_template, owner, background_loop):
    """
    Loaded data, with an order and an import for two of the accounts; shared, for hardly a test here can change it.
    """

    async def add(name):
        async with server.connect(database=name) as con:
            await con.execute("""
                insert into orders (account_id, idempotency_key, request_hash, symbol, side, quantity, status, reason)
                select id, 'k', '', 'ALAE', 'buy', 1, 'rejected', 'no-price' from accounts where id in (1, 2);
                insert into imports (account_id, idempotency_key, request_hash, mode, response)
                select id, 'k', '', 'all', '{}' from accounts where id in (1, 2);
            """)

    with databases.fresh(loaded_template, owner) as name:
        background_loop.run(add(name))
        yield Books(server.dsn(user=owner, database=name), server.dsn(database=name))


@pytest.fixture
async def db(books):
    """
    The books as their owner, who is no superuser.
    """
    async with Database(DatabaseConfig(dsn=books.owner, min_pool_size=1, max_pool_size=2)) as found:
        yield found


@pytest.mark.parametrize(("table", "column"), OWN_ROWS.items())
async def test_account_sees_its_own_rows_without_any_where(db, table, column):
    """All of its rows, and nobody else's."""
    async with db.transaction(settings={"role": "ava_operator"}) as tx:
        expected = await tx.fetchval(f"select count(*) from {table} where {column} = 2")
        assert await tx.fetchval(f"select count(*) from {table}") > expected

    async with db.transaction(settings=as_account(2)) as tx:
        rows = await tx.fetch(f"select {column} as account from {table}")

    assert expected > 0
    assert [row["account"] for row in rows] == [2] * expected


@pytest.mark.parametrize("table", OWN_ROWS)
async def test_forgotten_role_or_account_finds_nothing(db, table):
    """The owner without a role, the role without an account, an account that is not there: no rows, no error."""
    assert await db.fetchval(f"select count(*) from {table}") == 0
    for settings in ({"role": "ava_account"}, as_account(""), as_account(999_999)):
        async with db.transaction(settings=settings) as tx:
            assert await tx.fetchval(f"select count(*) from {table}") == 0


async def test_binds_the_superuser_who_takes_the_role(books):
    """A service that logs in as superuser is bound all the same."""
    async with (
        Database(DatabaseConfig(dsn=books.superuser, min_pool_size=1, max_pool_size=2)) as db,
        db.transaction(settings=as_account(1)) as tx,
    ):
        assert await tx.fetchval("select array_agg(id) from accounts") == [1]


async def test_role_and_account_end_with_the_transaction(db):
    """Nothing of it is left on the connection for the next caller."""
    async with db.acquire() as con:
        async with con.transaction(settings=as_account(1)):
            assert await con.fetchval("select count(*) from accounts") == 1

        assert await con.fetchval("select current_user::text") == "ava"
        assert await con.fetchval("select nullif(current_setting('ava.account_id', true), '')") is None


@pytest.mark.parametrize(
    "statement",
    [
        (
            "insert into orders (account_id, idempotency_key, request_hash, symbol, side, quantity, status, reason)"
            " values (2, 'x', '', 'ALAE', 'buy', 1, 'rejected', 'no-price')"
        ),
        (
            "insert into trades (account_id, instrument_id, side, quantity, price, amount, idempotency_key, source)"
            " values (2, 1, 'buy', 1, 1, 1, 'x', 'api')"
        ),
        (
            "insert into imports (account_id, idempotency_key, request_hash, mode, response)"
            " values (2, 'x', '', 'all', '{}')"
        ),
        "insert into positions (account_id, instrument_id, quantity, cost_basis) values (2, 40, 0, 0)",
        "update positions set account_id = 2",
        "insert into outbox (account_id, kind, payload) values (2, 'trade-executed', '{}')",
        (
            "insert into magnus_once (scope, operation, key, request_hash)"
            " values ('account:2', 'trade', 'x', sha256(''))"
        ),
        "insert into magnus_once (scope, operation, key, request_hash) values ('other', 'trade', 'x', sha256(''))",
    ],
)
async def test_account_cannot_write_rows_of_another(db, statement):
    """Neither a new row nor one of its own moved over."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        async with db.transaction(settings=as_account(1)) as tx:
            await tx.execute(statement)


async def test_account_cannot_change_cash_or_lots_of_another(db):
    """They are not there for it."""
    async with db.transaction(settings=as_account(1)) as tx:
        assert await tx.execute("update cash set balance = 0 where account_id = 2") == "UPDATE 0"
        assert await tx.execute("delete from lots where account_id = 2") == "DELETE 0"


@pytest.mark.parametrize(
    "statement",
    [
        "select * from api_tokens",
        "select * from ava_migrations",
        "update trades set amount = 1",
        "delete from trades",
        "update orders set status = 'filled'",
        "delete from orders",
        "update accounts set currency = 'XXX'",
        "select * from outbox",
        "delete from outbox",
        "delete from magnus_once",
        "update magnus_once set key = 'x'",
        "update magnus_once set request_hash = sha256('')",
        "update cash set account_id = 2",
        "delete from cash",
        "insert into cash_movements (account_id, amount, kind) values (1, 1, 'deposit')",
        "update quotes set price = 1",
        "update instruments set is_tradable = true",
        "insert into prices values (1, '2030-01-01', 1)",
        "truncate trades",
        "alter table trades no force row level security",
    ],
)
async def test_account_may_not(db, statement):
    """The role holds no more than booking needs: the ledger is only ever appended to."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with db.transaction(settings=as_account(1)) as tx:
            await tx.execute(statement)


@pytest.mark.parametrize("statement", ["update trades set amount = 1", "delete from trades", "delete from accounts"])
async def test_operator_may_not_rewrite_the_ledger(db, statement):
    """Seeing every account is not changing what happened."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with db.transaction(settings={"role": "ava_operator"}) as tx:
            await tx.execute(statement)


async def test_operator_opens_an_account(db):
    """With its cash, its first deposit and a token, in one transaction; the identifier comes back."""
    async with db.transaction(settings={"role": "ava_operator"}) as tx:
        account = await tx.fetchval(
            "insert into accounts (owner_name, currency, time_zone) values ('New', 'EUR', 'UTC') returning id"
        )
        await tx.execute("insert into cash (account_id, balance) values ($1, 5)", account)
        await tx.execute("insert into cash_movements (account_id, amount, kind) values ($1, 5, 'deposit')", account)
        await tx.execute("insert into api_tokens (account_id, token_sha256) values ($1, $2)", account, bytes(32))

    assert account > 5
    async with db.transaction(settings=as_account(account)) as tx:
        assert await tx.fetchval("select balance from cash") == 5


async def test_every_table_of_an_account_is_locked(db):
    """A table that a later migration adds is not forgotten: it has the two policies, and binds its owner."""
    tables = await db.fetch("""
        select c.relname as name, c.relrowsecurity and c.relforcerowsecurity as is_bound,
            (select count(*) from pg_policy where polrelid = c.oid) as policies
        from pg_class as c
        where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace and c.relname <> 'api_tokens'
            and (c.relname = 'accounts' or exists (
                select from pg_attribute where attrelid = c.oid and attname = 'account_id' and not attisdropped
            ))
    """)

    assert {row["name"] for row in tables} == {*OWN_ROWS, "outbox"}
    assert {(row["is_bound"], row["policies"]) for row in tables} == {(True, 2)}


async def test_keys_and_answers_are_those_of_the_account(books, db):
    """Another account's answer is not there, neither to read nor to change; without an account there is none at all."""
    con = await asyncpg.connect(books.superuser)
    await con.execute(
        "insert into magnus_once (scope, operation, key, request_hash, status, response)"
        " select 'account:' || n, 'trade', 'k', sha256(''), 'done', '1' from generate_series(1, 2) as n"
    )
    try:
        async with db.transaction(settings=as_account(1)) as tx:
            assert await tx.fetchval("select array_agg(scope) from magnus_once") == ["account:1"]
            assert await tx.execute("update magnus_once set response = null where scope = 'account:2'") == "UPDATE 0"
        for settings in ({"role": "ava_account"}, as_account("")):
            async with db.transaction(settings=settings) as tx:
                assert await tx.fetchval("select count(*) from magnus_once") == 0
        assert await db.fetchval("select count(*) from magnus_once") == 0
    finally:
        await con.execute("delete from magnus_once")
        await con.close()


async def test_policy_is_looked_up_once_a_statement(db):
    """A page of trades still begins at its place in the index, and the setting is not read row by row."""
    async with db.transaction(settings=as_account(1)) as tx:
        await tx.execute("set local enable_seqscan = off")
        plan = await tx.fetch(
            "explain select * from trades where account_id = 1 order by executed_at desc, id desc limit 10"
        )
    text = "\n".join(row[0] for row in plan)

    assert "Index Scan using trades_account_time" in text
    assert "InitPlan 1" in text
    assert "Sort" not in text
    assert "current_setting" not in text.split("Index Scan")[1]
