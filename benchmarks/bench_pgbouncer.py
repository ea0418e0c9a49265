"""1,000 clients on 20 server connections, through a real PgBouncer in transaction mode: errors, leaks, throughput.

    python benchmarks/bench_pgbouncer.py [--clients 1000] [--seconds 10]

Ten `Database` objects of a hundred connections each, in every lane: statements, reads, transactions with settings of
their own. It ends with 1 when anything failed or a setting was left in a session of the server's.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg

from magnus import Database, DatabaseConfig, QueryPriority
from magnus.embedded import Binaries, throwaway

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.pgbouncer import pgbouncer

BACKENDS = 20
EACH = 100
LEFT = """
SELECT count(*) FROM pg_settings WHERE source = 'session' AND name NOT IN ('application_name', 'client_encoding',
       'DateStyle', 'TimeZone', 'standard_conforming_strings')
"""


async def client(db: Database, number: int, until: float, done: Counter[str]) -> None:
    while time.monotonic() < until:
        lane = random.choice(list(QueryPriority)[:3])
        try:
            await db.execute("UPDATE counter SET value = value + 1 WHERE id = $1", number, priority=lane)
            await db.fetchval("SELECT value FROM counter WHERE id = $1", number, read=True, priority=lane)
            async with db.transaction(priority=lane, settings={"work_mem": "1MB"}) as tx:
                done["settings lost"] += await tx.fetchval("SHOW work_mem") != "1MB"
                await tx.execute("UPDATE counter SET value = value + 1 WHERE id = $1", number)
            done["units"] += 1
        except Exception as error:  # counted by kind
            done[f"{type(error).__name__} {getattr(error, 'sqlstate', '')}"] += 1


async def main(clients: int, seconds: float) -> int:
    done: Counter[str] = Counter()
    async with throwaway(Binaries.bundled(), max_connections=60) as server:
        async with server.connect() as con:
            await con.execute("CREATE TABLE counter (id int PRIMARY KEY, value int)")
            await con.execute("INSERT INTO counter SELECT id, 0 FROM generate_series(0, 9999) id")
            await con.execute("ALTER ROLE postgres SET statement_timeout = '31s'")
            await con.execute("ALTER ROLE postgres SET idle_in_transaction_session_timeout = '60s'")
        async with AsyncExitStack() as stack:
            pooler = await stack.enter_async_context(pgbouncer(server, default_pool_size=BACKENDS))
            config = DatabaseConfig(
                dsn=pooler.dsn("postgres"), pooler="transaction", max_pool_size=EACH, min_pool_size=0, slow_log="off"
            )
            databases = [await stack.enter_async_context(Database(config)) for _ in range(clients // EACH)]
            ready = sum(await asyncio.gather(*(db.warmup_pool(EACH) for db in databases)))
            until = time.monotonic() + seconds
            work = (client(databases[n % len(databases)], n, until, done) for n in range(clients))
            await asyncio.gather(*work)
            async with server.connect() as con:
                text = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> $1"
                backends = await con.fetchval(text, con.get_server_pid())
            cons = [await asyncpg.connect(pooler.dsn("postgres"), statement_cache_size=0) for _ in range(BACKENDS)]
            left = 0
            for con in cons:  # each holds a session, so all are met
                await con.execute("BEGIN")
                left += await con.fetchval(LEFT)
            for con in cons:
                con.terminate()
    units = done.pop("units", 0)
    lost = done.pop("settings lost", 0)
    print(f"{ready} connections of clients on {backends} of the server's: {units / seconds:,.0f} units a second")
    print(f"errors: {dict(done) or 'none'}; settings lost: {lost}; settings left in sessions: {left}")
    return 1 if done or lost or left or ready != clients else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10.0)
    told = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)
    sys.exit(asyncio.run(main(told.clients, told.seconds)))
