"""Loading: all or nothing, once; the schema afterwards is the schema before."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime

import asyncpg
import pytest

from ava.audit import audit
from ava.data.dataset import LoadError
from ava.data.load import TABLES, dataset_of, load
from ava.migrations import migrate
from ava.tokens import demo_token, digest
from magnus import Database, DatabaseConfig

AS_OF = date(2026, 7, 15)
SMALL = {"scale": 0.002, "seed": 42, "as_of": AS_OF}

SCHEMA = """
select 'constraint ' || conrelid::regclass || '.' || conname || ' ' || pg_get_constraintdef(oid) || convalidated
from pg_constraint where connamespace = 'public'::regnamespace
union all
select 'index ' || indexrelid::regclass || ' ' || pg_get_indexdef(indexrelid) || indisvalid
from pg_index where indrelid in (select oid from pg_class where relnamespace = 'public'::regnamespace)
union all
select 'table ' || oid::regclass || ' ' || relrowsecurity || relforcerowsecurity || coalesce(relacl::text, '')
from pg_class where relnamespace = 'public'::regnamespace
union all
select 'policy ' || polrelid::regclass || ' ' || polname || pg_get_expr(polqual, polrelid) from pg_policy
union all
select 'column ' || attrelid::regclass || '.' || attname || attnotnull || attidentity::text
from pg_attribute join pg_class c on c.oid = attrelid
where c.relnamespace = 'public'::regnamespace and relkind = 'r' and attnum > 0
order by 1
"""


async def schema_of(dsn: str) -> list[str]:
    con = await asyncpg.connect(dsn)
    try:
        return [row[0] for row in await con.fetch(SCHEMA)]
    finally:
        await con.close()


async def counts_of(dsn: str) -> dict[str, int]:
    con = await asyncpg.connect(dsn)
    try:
        return {table: await con.fetchval(f"select count(*) from {table}") for table in TABLES}
    finally:
        await con.close()


async def test_load_fills_every_table_and_says_what_it_did(migrated_db, migrated):
    """The sizes of the scale, the row that remembers them, and a clean audit."""
    told: list[tuple[str, int, int]] = []

    done = await load(migrated_db, **SMALL, progress=lambda *event: told.append(event))

    counts = await counts_of(migrated.superuser)
    assert done.is_fresh
    assert (str(done.dataset), done.dataset.as_of) == ("scale 0.002, seed 42", AS_OF)
    assert (done.dataset.accounts, done.dataset.trades) == (5, 2_000) == (counts["accounts"], counts["trades"])
    assert counts["instruments"] == counts["quotes"] == 40
    assert counts["prices"] == 40 * 792
    assert counts["cash"] == counts["api_tokens"] == 5
    assert min(counts["lots"], counts["positions"], counts["cash_movements"]) > 5
    assert counts["orders"] == counts["imports"] == 0
    assert await dataset_of(migrated_db) == done.dataset
    assert (await audit(migrated_db)).is_clean
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages == ["market", "trades", "books", "indexes", "statistics"]
    for stage in stages:
        steps = [(step, total) for name, step, total in told if name == stage]
        assert steps == sorted(steps)
        assert steps[-1][0] == steps[-1][1]


async def test_schema_after_a_load_is_the_schema_before(migrated_db, migrated):
    """Keys, indexes, grants, policies and FORCE: what was set aside is back, valid."""
    before = await schema_of(migrated.superuser)

    await load(migrated_db, **SMALL)

    assert await schema_of(migrated.superuser) == before
    assert sum(line.startswith("constraint") for line in before) > 60
    assert sum(line.startswith("index") for line in before) > 20


async def test_works_as_superuser(bare):
    """Who bypasses row-level security needs nothing else."""
    async with Database(DatabaseConfig(dsn=bare.superuser, min_pool_size=1, max_pool_size=2)) as db:
        await migrate(db)

        assert (await load(db, **SMALL)).is_fresh
        assert (await audit(db)).is_clean


async def test_second_load_keeps_what_is_there(loaded_db, loaded):
    """Also what was traded since; another day is no reason to begin again."""
    con = await asyncpg.connect(loaded.superuser)
    await con.execute("update quotes set price = 123 where instrument_id = 1")
    await con.close()

    again = await load(loaded_db, scale=0.002, seed=42)

    assert not again.is_fresh
    assert again.dataset.as_of == AS_OF
    assert await loaded_db.fetchval("select price from quotes where instrument_id = 1") == 123


@pytest.mark.one_version
@pytest.mark.parametrize("other", [{"scale": 0.003}, {"seed": 43}, {"as_of": date(2026, 7, 16)}])
async def test_other_data_is_refused_until_it_is_to_be_replaced(loaded_db, loaded, other):
    """Nothing is thrown away without a word that says so."""
    before = await counts_of(loaded.superuser)
    with pytest.raises(LoadError, match=r"already loaded: scale 0\.002, seed 42, as of 2026-07-15"):
        await load(loaded_db, **SMALL | other)
    assert await counts_of(loaded.superuser) == before

    done = await load(loaded_db, **SMALL | other, replace=True)

    assert done.is_fresh
    assert await dataset_of(loaded_db) == done.dataset
    assert (await audit(loaded_db)).is_clean


async def test_accounts_that_were_not_generated_are_never_touched(migrated_db, migrated):
    """Somebody's books are not a place for test data."""
    async with migrated_db.transaction(settings={"role": "ava_operator"}) as tx:
        await tx.execute("insert into accounts (owner_name, currency, time_zone) values ('Real', 'EUR', 'UTC')")
    before = await schema_of(migrated.superuser)

    with pytest.raises(LoadError, match="accounts that were not generated"):
        await load(migrated_db, **SMALL)

    assert (await counts_of(migrated.superuser))["accounts"] == 1
    assert await schema_of(migrated.superuser) == before


async def test_schema_must_be_current(bare):
    """One clear line instead of a missing table."""
    async with Database(DatabaseConfig(dsn=bare.owner, min_pool_size=1, max_pool_size=2)) as db:
        with pytest.raises(LoadError, match="migrate first"):
            await load(db, **SMALL)


async def test_user_who_does_not_own_the_tables_is_told_so(migrated, server):
    """The load sets keys aside, which only the owner may."""
    await server.create_role("reader", member_of=("ava_operator",))
    con = await asyncpg.connect(migrated.superuser)
    await con.execute("grant select on ava_migrations to reader")
    await con.close()
    dsn = migrated.owner.replace("//ava@", "//reader@")
    async with Database(DatabaseConfig(dsn=dsn, min_pool_size=1, max_pool_size=2)) as db:
        with pytest.raises(LoadError, match="load as the owner"):
            await load(db, **SMALL)


@pytest.mark.one_version
async def test_load_that_is_cancelled_leaves_nothing_and_the_next_one_does_it_all(migrated_db, migrated):
    """Half-way through the trades."""
    before = await schema_of(migrated.superuser)
    at_trades = asyncio.Event()
    task = asyncio.create_task(
        load(migrated_db, **SMALL, progress=lambda stage, *_: at_trades.set() if stage == "trades" else None)
    )
    await at_trades.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert set((await counts_of(migrated.superuser)).values()) == {0}
    assert await schema_of(migrated.superuser) == before
    assert await dataset_of(migrated_db) is None

    assert (await load(migrated_db, **SMALL)).is_fresh
    assert (await audit(migrated_db)).is_clean


@pytest.mark.one_version
async def test_load_whose_session_is_killed_leaves_nothing_and_the_next_one_does_it_all(migrated_db, migrated):
    """As after a crash: the server ends the transaction, nobody cleans up."""
    before = await schema_of(migrated.superuser)
    killed: list[int] = []

    async def end_the_writer() -> None:
        con = await asyncpg.connect(migrated.superuser)
        killed.append(
            await con.fetchval(
                "select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity"
                " where datname = current_database() and backend_xid is not null"
            )
        )
        await con.close()

    def kill(stage: str, done: int, total: int) -> None:
        if stage == "books" and not killed:
            with ThreadPoolExecutor(1) as other:  # the load stands still until its session is gone
                other.submit(asyncio.run, end_the_writer()).result()

    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)):
        await load(migrated_db, **SMALL, progress=kill)
    assert killed == [1]

    assert set((await counts_of(migrated.superuser)).values()) == {0}
    assert await schema_of(migrated.superuser) == before

    assert (await load(migrated_db, **SMALL)).is_fresh
    assert (await audit(migrated_db)).is_clean


@pytest.mark.one_version
async def test_two_loads_at_once_load_once(migrated_db):
    """The second waits and then finds the first one's data."""
    done = await asyncio.gather(load(migrated_db, **SMALL), load(migrated_db, **SMALL))

    assert sorted(one.is_fresh for one in done) == [False, True]
    assert done[0].dataset == done[1].dataset


async def test_ids_go_on_after_the_generated_ones(loaded_db):
    """The next account and the next trade do not collide with what was copied."""
    async with loaded_db.transaction(settings={"role": "ava_operator"}) as tx:
        account = await tx.fetchval(
            "insert into accounts (owner_name, currency, time_zone) values ('New', 'EUR', 'UTC') returning id"
        )
    async with loaded_db.transaction(settings={"role": "ava_account", "ava.account_id": "1"}) as tx:
        trade = await tx.fetchval(
            "insert into trades (account_id, instrument_id, side, quantity, price, amount, idempotency_key, source)"
            " values (1, 1, 'buy', 1, 1, 1, 'k', 'api') returning id"
        )

    assert (account, trade) == (6, 2_001)


async def test_every_account_has_its_demo_token(loaded_db):
    """Stored as a digest, never as itself."""
    rows = await loaded_db.fetch("select account_id, token_sha256, label from api_tokens order by account_id")

    assert [(row["account_id"], row["token_sha256"], row["label"]) for row in rows] == [
        (account, digest(demo_token(42, account)), "demo") for account in range(1, 6)
    ]


async def test_quotes_are_the_last_closes(loaded_db):
    """An order executes where the history ends."""
    wrong = await loaded_db.fetchval(
        "select count(*) from quotes q where price is distinct from"
        " (select close from prices p where p.instrument_id = q.instrument_id order by price_date desc limit 1)"
    )

    assert wrong == 0
    assert await loaded_db.fetchval("select min(as_of) from quotes") == datetime(2026, 7, 14, 21, tzinfo=UTC)


async def test_planner_knows_the_tables_and_needs_no_heap_for_a_month(loaded_db, loaded):
    """Statistics are there, all pages are marked visible, and the report's figures come from the index alone."""
    await loaded_db.fetchval("select 1")
    con = await asyncpg.connect(loaded.superuser)
    try:
        row = await con.fetchrow(
            "select reltuples::int, relpages, relallvisible from pg_class where relname = 'trades'"
        )
        await con.execute("set enable_seqscan = off; set enable_bitmapscan = off")
        plan = await con.fetch(
            "explain (analyze, costs off, timing off) select date_trunc('month', executed_at at time zone 'UTC'),"
            " sum(realised_pnl), sum(fee), sum(amount) filter (where side = 'buy') from trades"
            " where account_id = 1 and executed_at >= '2026-01-01' group by 1"
        )
    finally:
        await con.close()
    text = "\n".join(line[0] for line in plan)

    assert row["reltuples"] == 2_000
    assert row["relallvisible"] == row["relpages"] > 0
    assert "Index Only Scan using trades_account_time" in text
    assert "Heap Fetches: 0" in text
