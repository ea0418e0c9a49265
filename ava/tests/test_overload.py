"""Campaigns: a real service, a real PostgreSQL, real HTTP; load, kills and outages, and the books after each."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from typing import NamedTuple

import aiohttp
import asyncpg
import pytest

from ava.tokens import demo_token
from magnus.embedded import throwaway
from tests.ava_service import ava, ava_json, environment, served

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("campaign")]

SEED = 42
ROWS = 6_000


class Platform(NamedTuple):
    """
    A loaded database on a server of its own.
    """

    cluster: object
    dsn: str
    env: dict[str, str]


@pytest.fixture(scope="module")
def platform():
    with throwaway() as cluster:
        asyncio.run(cluster.bootstrap("ava"))
        dsn = cluster.dsn(user="ava", database="ava")
        env = environment(DATABASE_URL=dsn)
        loaded = ava("load", "--scale", "0.01", "--seed", str(SEED), env=env)
        assert loaded.returncode == 0, loaded.stderr
        yield Platform(cluster, dsn, env)


@pytest.fixture
def service(platform):
    with served(platform.dsn) as found:
        yield found


@pytest.fixture
async def client(service):
    async with client_of(service) as found:
        yield found


def client_of(service, account: int = 1) -> aiohttp.ClientSession:
    headers = {"Authorization": f"Bearer {demo_token(SEED, account)}"}
    connector = aiohttp.TCPConnector(limit=0)
    return aiohttp.ClientSession(service.url, headers=headers, connector=connector)


def audited(platform) -> dict:
    """
    The audit's report, which must be clean.
    """
    report = ava_json("audit", env=platform.env)
    assert report["is_clean"], report["mismatches"]
    return report


def drive(platform, service, *arguments: str) -> dict:
    found = ava_json("drive", "--url", service.url, "--seed", str(SEED), *arguments, env=platform.env, timeout=240)
    figures = {name: found[name] for name in ("seconds", "requests", "per_second", "statuses", "retries", "shed",
                                              "refused", "repeats", "failures")}  # fmt: skip
    sys.stderr.write(json.dumps(figures) + "\n")
    return found


# --- load


def test_ten_thousand_mixed_requests_200_in_flight_see_no_5xx(platform, service):
    """Every request is served, every repeated key is answered as the first time, and the books are exact."""
    found = drive(platform, service, "--requests", "10000", "--concurrency", "200")
    assert found["exit_code"] == 0
    assert found["requests"] == 10_000
    assert found["repeats"] > 100
    assert {status for status in found["statuses"] if not status.startswith("2")} <= {"409", "422"}
    audited(platform)


def test_ten_thousand_at_once_are_served_or_told_when_to_come_back(platform, service):
    """Nothing but right answers and 503 with Retry-After, and the books are exact."""
    found = drive(platform, service, "--requests", "12000", "--concurrency", "10000", "--no-retry", "--timeout", "120")
    assert found["exit_code"] == 0, found["failures"]
    assert set(found["statuses"]) <= {"200", "201", "409", "422", "503"}
    assert found["statuses"].get("503", 0) == found["shed"]
    assert found["statuses"]["200"] > 0
    audited(platform)


# --- exactly once


async def test_one_key_fifty_times_at_once_is_one_trade_and_fifty_equal_answers(platform, client):
    """Forty-nine of them say that they are the first one's."""
    held = (await (await client.get("/api/positions")).json())["items"][0]
    order = {"symbol": held["symbol"], "side": "buy", "quantity": "0.5"}

    async def send() -> tuple[int, bytes, str | None]:
        async with client.post("/api/trades", json=order, headers={"Idempotency-Key": "fifty"}) as response:
            return response.status, await response.read(), response.headers.get("Idempotency-Replayed")

    answers = await asyncio.gather(*(send() for _ in range(50)))
    assert {(status, body) for status, body, _ in answers} == {(201, answers[0][1])}
    assert [replayed for _, _, replayed in answers].count(None) == 1
    assert await count(platform, "idempotency_key = 'fifty'") == 1
    async with client.post(
        "/api/trades", json={**order, "quantity": "1"}, headers={"Idempotency-Key": "fifty"}
    ) as other:
        assert other.status == 422
    async with client_of_other(client) as stranger:
        held = (await (await stranger.get("/api/positions")).json())["items"][0]
        order = {**order, "symbol": held["symbol"]}
        async with stranger.post("/api/trades", json=order, headers={"Idempotency-Key": "fifty"}) as theirs:
            assert theirs.status == 201
    assert await count(platform, "idempotency_key = 'fifty'") == 2
    audited(platform)


def client_of_other(client: aiohttp.ClientSession) -> aiohttp.ClientSession:
    headers = {"Authorization": f"Bearer {demo_token(SEED, 2)}"}
    return aiohttp.ClientSession(client._base_url, headers=headers)


async def count(platform, where: str) -> int:
    """
    How many trades there are, seen by the superuser.
    """
    con = await asyncpg.connect(platform.cluster.dsn(database="ava"))
    try:
        return await con.fetchval(f"select count(*) from trades where {where}")
    finally:
        await con.close()


def import_file(name: str, symbol: str, rows: int = ROWS) -> bytes:
    """
    Cheap buys; the external ids begin with `name`.
    """
    lines = [f"{name}-{row},{symbol},buy,0.01,1.00,0.01,2026-01-05T10:00:00Z" for row in range(rows)]
    return "\n".join(["external_id,symbol,side,quantity,price,fee,executed_at", *lines, ""]).encode()


async def send_import(client: aiohttp.ClientSession, file: bytes, mode: str, key: str) -> tuple[int, dict]:
    headers = {"Content-Type": "text/csv", "Idempotency-Key": key}
    async with client.post("/api/import", params={"mode": mode}, data=file, headers=headers) as response:
        return response.status, await response.json()


async def a_symbol(client: aiohttp.ClientSession) -> str:
    async with client.get("/api/positions") as response:
        return (await response.json())["items"][0]["symbol"]


@pytest.mark.parametrize("mode", ["all", "partial"])
async def test_a_file_sent_twice_changes_nothing_the_second_time(platform, client, mode):
    """With the same key the same report; with another key every row is a duplicate."""
    file = import_file(f"twice-{mode}", await a_symbol(client), rows=500)
    first = await send_import(client, file, mode, f"twice-{mode}")
    assert (first[0] // 100, first[1]["loaded"]) == (2, 500)
    assert await send_import(client, file, mode, f"twice-{mode}") == first
    again = await send_import(client, file, mode, f"again-{mode}")
    assert (again[1]["loaded"], again[1]["duplicates"]) == (0, 500)
    assert await count(platform, f"external_id like 'twice-{mode}-%'") == 500
    audited(platform)


@pytest.mark.parametrize("mode", ["all", "partial"])
async def test_an_import_that_was_killed_half_way_is_sent_again_and_nothing_is_doubled(platform, mode):
    """SIGKILL in the middle of the work, then the same file with the same key to the next process."""
    name = f"killed-{mode}"
    with served(platform.dsn) as victim:
        async with client_of(victim, account=3) as client:
            file = import_file(name, await a_symbol(client))
            sending = asyncio.create_task(send_import(client, file, mode, name))
            await half_way(platform, name, mode, sending)
            victim.process.kill()
            with pytest.raises(aiohttp.ClientError):
                await sending
        assert victim.wait() == -signal.SIGKILL
    left = await count(platform, f"external_id like '{name}-%'")
    assert left < ROWS
    assert left == 0 or mode == "partial"
    with served(platform.dsn) as heir:
        async with client_of(heir, account=3) as client:
            status, report = await send_import(client, file, mode, name)
    assert status // 100 == 2
    assert report["loaded"] + report["duplicates"] == ROWS
    assert report["rejected"] == 0
    assert await count(platform, f"external_id like '{name}-%'") == ROWS
    audited(platform)


async def half_way(platform, name: str, mode: str, sending: asyncio.Task) -> None:
    """
    Wait until some of the file is written: batches that were committed, or rows that one transaction holds.
    """
    begun = {
        "partial": f"select exists (select from trades where external_id like '{name}-%')",
        # Inserted rows of an open transaction are seen by nobody; its hold on the table, with an xid, is.
        "all": (
            "select exists (select from pg_stat_activity a join pg_locks l using (pid)"
            " where a.backend_xid is not null and l.relation = 'trades'::regclass and l.mode = 'RowExclusiveLock')"
        ),
    }[mode]
    con = await asyncpg.connect(platform.cluster.dsn(database="ava"))
    try:
        async with asyncio.timeout(30):
            while not await con.fetchval(begun):
                assert not sending.done(), sending.result()
                await asyncio.sleep(0.005)
    finally:
        await con.close()


# --- outage


async def status_of(client: aiohttp.ClientSession, path: str) -> tuple[int, dict]:
    async with client.get(path) as response:
        return response.status, await response.json()


async def until(client: aiohttp.ClientSession, path: str, wanted: int, within: float = 30.0) -> tuple[float, dict]:
    """
    Ask until the status is `wanted`; the seconds it took, and the body.
    """
    began = time.monotonic()
    async with asyncio.timeout(within):
        while (found := await status_of(client, path))[0] != wanted:  # noqa: ASYNC110  # it is another process
            await asyncio.sleep(0.02)
    return time.monotonic() - began, found[1]


@pytest.fixture
async def impatient(platform):
    """
    A client of a service whose calls end soon in an outage, at their lane's limit.
    """
    with served(platform.dsn, MAGNUS_LANE_TIMEOUTS='{"high": "4s"}') as found:
        async with client_of(found) as client:
            yield client


async def test_readiness_follows_postgresql_and_liveness_does_not(platform, impatient):
    """Stopped: 503 with a fixed reason. Back: 200 by itself, and trading goes on."""
    client = impatient
    await until(client, "/api/health/readiness", 200)
    await platform.cluster.stop()
    try:
        gone, body = await until(client, "/api/health/readiness", 503)
        assert body == {"status": "not_ready", "reason": "database_check_failed", "cause": "unreachable"}
        assert await status_of(client, "/api/health/liveness") == (200, {"status": "alive"})
        status, problem = await status_of(client, "/api/positions")
        assert (status, problem["status"]) == (503, 503)
    finally:
        await platform.cluster.start()
    back, body = await until(client, "/api/health/readiness", 200)
    assert body["database"] == "connected"
    assert await status_of(client, "/api/health/liveness") == (200, {"status": "alive"})
    assert (await status_of(client, "/api/positions"))[0] == 200
    sys.stderr.write(f"readiness: 503 {gone:.2f} s after the stop, 200 again {back:.2f} s after the return\n")
    audited(platform)
