"""AVA's slow-query log: statements of every route, with route, request and line, and nobody's secrets or figures."""

from __future__ import annotations

import asyncio

from service import ANNA, seed, serving, token_of

from magnus import insight
from tests.facade_fakes import until

EVERYTHING = {"slow_query_threshold": 0.0, "slow_log_rate": 0.0}
CSV = "external_id,symbol,side,quantity,price,fee,executed_at\nx-canary,AAAA,buy,7.77,12.34,0,2026-07-01T10:00:00Z\n"


async def test_every_routes_statements_are_in_it(migrated):
    """Which request, which route, which line of AVA; each joins the server's own statistics."""
    await seed(migrated)
    async with serving(migrated, database=EVERYTHING) as ava:
        answer = await ava.order("AAAA", "buy", "7.77", key="canary-key")
        assert answer.status_code == 201
        uploaded = await ava.upload(CSV)
        assert uploaded.status_code < 300, uploaded.text
        await asyncio.gather(*(ava.get(path) for path in ("/api/positions", "/api/trades", "/api/account")))
        await ava.get("/api/reports/monthly")
        request = answer.headers["X-Request-ID"]

        async def is_written():
            return not ava.app.state.magnus.database.get_stats()["slow_log"]["waiting"]

        await until(is_written)
        by_request = await ava.admin.fetch("SELECT * FROM slow_query_log WHERE request_id = $1 ORDER BY id", request)
        rows = await ava.admin.fetch("SELECT * FROM slow_query_log")
        groups = await insight.groups(ava.admin, limit=500)
        plans = await ava.admin.fetch("SELECT * FROM slow_query_plan")
    assert {row["route"] for row in by_request} == {"POST /api/trades"}
    assert {row["lane"] for row in by_request} >= {"critical"}
    routes = {row["route"] for row in rows}
    assert routes >= {
        "POST /api/trades", "POST /api/import", "GET /api/positions", "GET /api/trades", "GET /api/account",
        "GET /api/reports/monthly",
    }  # fmt: skip
    assert all(row["caller"].startswith("ava.") for row in rows if row["caller"])
    booked = next(group for group in groups if group.signature.startswith("INSERT trades"))
    assert booked.caller.startswith("ava.services.")
    known = [row for row in rows if row["queryid"] is not None]
    assert len(known) > len(rows) / 2
    assert plans
    written = repr([dict(row) for row in [*rows, *plans]])
    for secret in (token_of(ANNA), "canary", "7.77", "Anna"):
        assert secret not in written
