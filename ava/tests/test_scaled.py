"""AVA on standbys and behind a pooler: the same answers, and what a caller wrote is seen by their next request."""

from __future__ import annotations

import asyncpg
from service import assert_clean, seed, serving

from magnus.testing import standby_of, until_replayed
from tests.pgbouncer import pgbouncer


async def name_of(dsns):
    """The database's."""
    con = await asyncpg.connect(dsns.superuser)
    try:
        return await con.fetchval("select current_database()")
    finally:
        await con.close()


async def test_what_was_traded_is_seen_with_its_token_on_a_standby_that_lags(server, migrated, owner):
    """The header of the trade's response goes with the next request; the answer is a standby's."""
    await seed(migrated)
    async with standby_of(server, settings={"recovery_min_apply_delay": "30ms", "max_connections": "200"}) as standby:
        await until_replayed(server, standby)
        target = standby.dsn(user=owner, database=await name_of(migrated))
        async with serving(migrated, database={"replicas": (target,)}) as ava:
            for number in range(1, 6):
                traded = await ava.order("AAAA", "buy", "1")
                assert traded.status_code == 201
                carried = {"Magnus-Read-Token": traded.headers["Magnus-Read-Token"]}
                found = (await ava.send("GET", "/api/positions", headers=carried)).json()
                assert [item["quantity"] for item in found["items"]] == [str(number)]
            stats = (await ava.get("/api/health/stats")).json()
            assert sum(member["reads"] for member in stats["replicas"]["members"]) > 0
    await assert_clean(migrated)


async def test_behind_a_pooler_ava_trades_imports_and_reports(server, migrated, owner):
    """In transaction mode; the control connection and the slow log go past it."""
    await seed(migrated)
    name = await name_of(migrated)
    entry = {name: f"dbname={name} user={owner}"}
    async with pgbouncer(server, databases=entry) as pooler:
        behind = {"dsn": pooler.dsn(name, owner), "pooler": "transaction", "direct_dsn": migrated.owner}
        async with serving(migrated, database=behind) as ava:
            first = await ava.order("AAAA", "buy", "10", key="one")
            again = await ava.order("AAAA", "buy", "10", key="one")
            assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())
            assert (await ava.order("AAAA", "sell", "4")).status_code == 201
            (position,) = (await ava.get("/api/positions")).json()["items"]
            assert position["quantity"] == "6"
            assert len((await ava.get("/api/trades")).json()["items"]) == 2
            assert (await ava.get("/api/reports/monthly")).status_code == 200
            assert "Magnus-Read-Token" not in first.headers
    await assert_clean(migrated)
