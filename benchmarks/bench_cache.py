"""The query cache: what a hit costs, one query for a thousand misses, AVA's report with and without it, how old answers
get when another process writes, also when nothing is heard of it, and what the trigger costs who writes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import asyncpg
from _report import Column, Report, Row, arguments, environment, quantile, run
from _server import accounts

from ava.config import Settings
from ava.data.load import load
from ava.main import create_app
from ava.migrations import migrate
from ava.tokens import demo_token
from magnus import Database, DatabaseConfig, cached
from magnus._clock import MonotonicClock
from magnus.cache import Watcher, install
from magnus.embedded import Binaries, throwaway
from magnus.testing import FaultProxy

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

SYNCS = {"fsync": "on", "full_page_writes": "on"}
SCHEMA = "create table item (id int primary key, version bigint not null); insert into item values (1, 0)"
WRITER = """
import asyncio, asyncpg, json, sys, time
async def main(dsn, count, pause):
    con = await asyncpg.connect(dsn)
    await con.execute("update item set version = 0")
    acknowledged = []
    for version in range(1, count + 1):
        await asyncio.sleep(pause)
        await con.execute("update item set version = $1", version)
        acknowledged.append(time.monotonic())
    print(json.dumps(acknowledged))
    await con.close()
asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
"""


@cached(ttl=3600.0, tags=["item"])
async def version(db: Database) -> int:
    found: int = await db.fetchval("select version from item where id = 1")
    return found


@cached(ttl=3600.0, tags=["item"])
async def slow(db: Database) -> int:
    found: int = await db.fetchval("select 1 from pg_sleep(0.2)")
    return found


def config(dsn: str, **more: Any) -> DatabaseConfig:
    return DatabaseConfig(dsn=dsn, min_pool_size=4, max_pool_size=8, slow_log="off", **more)


# --- hits, and many at once


async def hits(report: Report, dsn: str, options: argparse.Namespace) -> None:
    async with Database(config(dsn)) as db:
        await db.warmup_pool(4)
        rows = []
        for name, call in (
            ("a hit", lambda: version(db)),
            ("the query that it saves", lambda: db.fetchval("select version from item where id = 1")),
        ):
            await call()
            taken = []
            for _ in range(options.rounds):
                began = time.perf_counter()
                for _ in range(1_000):
                    await call()
                taken.append((time.perf_counter() - began) * 1_000)
            rows.append(Row(name, (statistics.median(taken), min(taken)), raw=taken))
        report.table("one call", (Column("median us", ".2f"), Column("least us", ".2f")), rows)
        before = db.get_stats()["query_stats"]["total"]
        await asyncio.gather(*(slow(db) for _ in range(1_000)))
        report.goal("queries for 1,000 misses at once", db.get_stats()["query_stats"]["total"] - before, most=1)


# --- AVA's report


class Client:
    """
    Asks the application itself: no socket, so what is measured is AVA and the database.
    """

    def __init__(self, app: Any, token: str) -> None:
        self._app = app
        self._headers = [(b"authorization", f"Bearer {token}".encode()), (b"host", b"ava")]

    async def get(self, path: str, query: str) -> bytes:
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
            "headers": self._headers, "client": ("127.0.0.1", 1), "server": ("ava", 80),
        }  # fmt: skip
        answer: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            answer.append(message)

        await self._app(scope, receive, send)
        assert answer[0]["status"] == 200, answer
        return b"".join(message.get("body", b"") for message in answer[1:])


async def asked_for(db: Database, client: Client, query: str, account: int, requests: int) -> list[float]:
    """
    Ask in a closed loop of eight, and return the milliseconds of each request. Before one in twenty what is kept of the
    account is dropped, as an import would.
    """
    taken: list[float] = []
    numbers = iter(range(requests))

    async def ask() -> None:
        for number in numbers:
            if number % 20 == 0:
                db.invalidate(f"report:{account}")
            asked = time.perf_counter()
            await client.get("/api/reports/monthly", query)
            taken.append(1_000 * (time.perf_counter() - asked))

    await asyncio.gather(*(ask() for _ in range(8)))
    return taken


async def reports(report: Report, dsn: str, options: argparse.Namespace) -> None:
    async with Database(config(dsn)) as db:
        await migrate(db)
        await load(db, scale=options.scale, seed=42)
    con = await asyncpg.connect(dsn)
    account, trades = await con.fetchrow("select account_id, count(*) from trades group by 1 order by 2 desc limit 1")
    await con.close()
    query, rows, rates, share = "from=2000-01&to=2026-06", [], {}, 0.0
    for name, size in (("kept", 67_108_864), ("not kept", 0)):
        app = create_app(Settings(warmup_connections=4, relay_interval=0), config=config(dsn, cache_bytes=size))
        async with app.router.lifespan_context(app):
            db, client = app.state.magnus.database, Client(app, demo_token(42, account))
            for _ in range(50):
                await client.get("/api/reports/monthly", query)
            before = db.get_stats().get("cache") or {}
            began = time.perf_counter()
            taken = await asked_for(db, client, query, account, options.requests)
            rates[name] = options.requests / (time.perf_counter() - began)
            after = db.get_stats()["cache"]
            asked = sum(after[part] - before.get(part, 0) for part in ("hits", "shared", "misses"))
            share = 100 * (1 - (after["misses"] - before.get("misses", 0)) / asked) if asked else 0.0
            rows.append(Row(name, (rates[name], quantile(taken, 0.5), quantile(taken, 0.99), share), raw=taken))
    columns = (Column("requests/s"), Column("p50 ms", ".2f"), Column("p99 ms", ".2f"), Column("hits %", ".1f"))
    report.table(f"GET /api/reports/monthly, an account with {trades:,} trades", columns, rows)
    report.goal("throughput with the cache, of that without", rates["kept"] / rates["not kept"], least=5)


# --- across processes


@contextlib.contextmanager
def writing(dsn: str, count: int, pause: float) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, dsn, str(count), str(pause)], stdout=subprocess.PIPE, text=True
    ) as found:
        yield found


async def staleness(report: Report, dsn: str, options: argparse.Namespace) -> None:
    con = await asyncpg.connect(dsn)
    await con.execute(install(["item"]))
    await con.close()
    rows = []
    for name, call, more in (
        ("cache_notify", version, {"cache_notify": True}),
        ("fresh=True", version.fresh, {}),
    ):
        async with Database(config(dsn, **more)) as db:
            if more:
                await current(db)
            reads: list[tuple[float, int]] = []
            with writing(dsn, options.writes, 0.004) as writer:
                ended = asyncio.get_running_loop().run_in_executor(None, writer.communicate)
                while not ended.done():
                    begun = time.monotonic()
                    reads.append((begun, await call(db)))
                    await asyncio.sleep(0.0002)
                acknowledged = json.loads((await ended)[0])
            stats = db.get_stats()["cache"]
        ages = ages_of(reads, acknowledged)
        stale = sum(age > 0 for age in ages)
        cells = (len(reads), stale, quantile(ages, 0.5), quantile(ages, 0.99), max(ages), 100 * stats["hit_ratio"])
        rows.append(Row(name, cells, raw=ages))
        if name == "fresh=True":
            report.goal("stale reads with fresh=True", stale, most=0)
        else:
            report.goal("the oldest answer with cache_notify, ms", max(ages), most=2_000)
    columns = (
        Column("reads"), Column("stale"), Column("p50 ms", ".3f"), Column("p99 ms", ".3f"), Column("max ms", ".2f"),
        Column("hits %", ".1f"),
    )  # fmt: skip
    report.table(
        f"another process changes a row {options.writes:,} times; for how long each change was still missed",
        columns, rows,
    )  # fmt: skip


async def current(db: Database) -> None:
    """
    Ask until the cache answers by itself.
    """
    while (db.get_stats().get("cache") or {}).get("notify", {}).get("state") != "current":
        await version(db)
        await asyncio.sleep(0.01)
    await version(db)


def listen_through(db: Database, proxy: FaultProxy, dsn: str) -> None:
    """
    Let the cache, and nothing else, listen through the proxy.
    """
    db.cache.watcher = Watcher(
        config(proxy.dsn(dsn)), changed=db.cache.changed, lost=db.cache.clear, clock=MonotonicClock()
    )


async def cut_off(report: Report, dsn: str, options: argparse.Namespace) -> None:
    """
    The listening connection is cut, or swallowed without a word, and another process changes the row.
    """
    con = await asyncpg.connect(dsn)
    parts = dict(parse_qsl(urlsplit(dsn).query))
    rows, oldest = [], 0.0
    for name in ("cut", "swallowed"):
        ages = []
        for number in range(1, options.cuts + 1):
            async with FaultProxy(f"{parts['host']}/.s.PGSQL.{parts['port']}") as proxy, Database(config(dsn)) as db:
                await con.execute("update item set version = 0")
                listen_through(db, proxy, dsn)
                await current(db)
                if name == "cut":
                    await proxy.refuse()
                    proxy.cut()
                else:
                    proxy.hold()
                await con.execute("update item set version = $1", number)
                acknowledged, age = time.monotonic(), 0.0
                while (begun := time.monotonic()) < acknowledged + 2.5:
                    if await version(db) != number:
                        age = 1_000 * (begun - acknowledged)
                    await asyncio.sleep(0.0005)
                ages.append(age)
        oldest = max(oldest, *ages)
        rows.append(Row(name, (len(ages), quantile(ages, 0.5), max(ages)), raw=ages))
    columns = (Column("times"), Column("p50 ms", ".1f"), Column("max ms", ".1f"))
    report.table("the connection that listens is lost: for how long a change was missed", columns, rows)
    report.goal("the oldest answer while nothing is heard, ms", oldest, most=2_000)
    await con.close()


def ages_of(reads: list[tuple[float, int]], acknowledged: list[float]) -> list[float]:
    """
    Return, for each change, the milliseconds after its acknowledgement at which the last read began that missed it.
    """
    ages = [0.0] * len(acknowledged)
    for begun, seen in reads:
        for missed in range(seen, len(acknowledged)):  # the change to version n is at place n - 1
            if acknowledged[missed] > begun:
                break
            ages[missed] = max(ages[missed], 1_000 * (begun - acknowledged[missed]))
    return ages


# --- what the trigger costs


async def committed(con: asyncpg.Connection, dsn: str, writers: int, count: int, *, is_told: bool) -> float:
    """
    Return the microseconds that one of `count` updates takes, by so many writers on rows of their own.
    """
    await con.execute(
        "drop table if exists watched; create table watched (id int primary key, n int not null);"
        "insert into watched select g, 0 from generate_series(1, 8) g"
    )
    if is_told:
        await con.execute(install(["watched"]))
    cons = [await asyncpg.connect(dsn) for _ in range(writers)]

    async def write(own: asyncpg.Connection, number: int) -> None:
        for _ in range(count // writers):
            await own.execute("update watched set n = n + 1 where id = $1", number)

    began = time.perf_counter()
    await asyncio.gather(*(write(own, number) for number, own in enumerate(cons, 1)))
    taken = 1e6 * (time.perf_counter() - began) / count
    for own in cons:
        await own.close()
    return taken


async def commits(report: Report, dsn: str, options: argparse.Namespace) -> None:
    con = await asyncpg.connect(dsn)
    rows = []
    for writers in (1, 8):
        taken: dict[str, list[float]] = {"no trigger": [], "trigger": []}
        for _ in range(options.rounds):
            for name, found in taken.items():
                found.append(await committed(con, dsn, writers, options.commits, is_told=name == "trigger"))
        plain, told = (statistics.median(values) for values in taken.values())
        rows.append(Row(f"{writers} at once", (plain, told, told - plain, told / plain), raw=taken))
    columns = (
        Column("without us", ".0f"), Column("trigger us", ".0f"), Column("more us", ".0f"), Column("factor", ".2f"),
    )  # fmt: skip
    title = "an update of one row, committed on a server that syncs: time for each with a trigger and without"
    report.table(title, columns, rows)
    await con.close()


async def measure(dsn: str, durable: str, options: argparse.Namespace) -> None:
    report = Report("bench_cache", options, await environment(dsn))
    con = await asyncpg.connect(dsn)
    await con.execute(SCHEMA)
    await con.close()
    await hits(report, dsn, options)
    await staleness(report, dsn, options)
    await cut_off(report, dsn, options)
    await commits(report, durable, options)
    await reports(report, dsn, options)
    report.save()


def main() -> None:
    options = arguments(
        __doc__ or "", rounds=7, quick_rounds=1, writes=2_000, quick_writes=50, commits=800, quick_commits=80,
        requests=2_000, quick_requests=40, scale=0.2, quick_scale=0.01, cuts=10, quick_cuts=1,
    )  # fmt: skip
    with accounts() as dsn, throwaway(Binaries.bundled(), settings=SYNCS) as durable:
        run(measure(dsn, durable.dsn(), options))


if __name__ == "__main__":
    main()
