"""Random histories of readers and writers through the cache, each read held against what had been acknowledged.

python -m tests.cache_histories [--histories 100000] [--seed 1] [--json FILE]      on a real server, and simulated
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import random
import sys
import time
from contextlib import suppress
from pathlib import Path

import asyncpg

from magnus import Database, DatabaseConfig, cached
from magnus.cache import QueryCache
from magnus.testing import SimLoop, simulate

SCHEMA = "CREATE TABLE history (id int PRIMARY KEY, version int NOT NULL)"


class Ledger:
    """
    What one history has acknowledged, and every read that was older than that when it was begun.
    """

    def __init__(self) -> None:
        self.acknowledged = 0
        self.reads = 0
        self.stale: list[tuple[int, int]] = []

    async def read(self, call) -> None:
        least = self.acknowledged
        found = await call()
        self.reads += 1
        if found < least:
            self.stale.append((found, least))


# --- simulated: every order of events that a seed can make


class Imagined:
    """
    A database whose every step takes a random time: snapshots, commits and their acknowledgements.
    """

    def __init__(self, loop: SimLoop) -> None:
        self._chance = loop.chance
        self.version = 0
        self.is_writing = False
        self.cache = QueryCache(5_000, now=loop.time, is_writing=lambda: False)
        self.cache.open()

    async def pause(self) -> None:
        await asyncio.sleep(self._chance.choice((0.0, 0.0, self._chance.random())))

    async def read(self) -> int:
        await self.pause()
        found = self.version
        await self.pause()
        return found

    async def write(self, version: int, *, is_lost: bool) -> None:
        """
        Commit, perhaps without an answer: then it may come later.
        """
        await self.pause()
        if is_lost:
            self.cache.committed(("history",), is_certain=False)
            await self.pause()
        self.version = version
        await self.pause()
        if not is_lost:
            self.cache.committed(("history",), is_certain=True)


@cached(ttl=0.7, tags=["history"])
async def imagined(db: Imagined, extra: int) -> int:
    return await db.read() + 0 * extra


@cached(ttl=5.0)
async def made_of_it(db: Imagined, extra: int) -> int:
    await db.pause()
    found = await imagined(db, extra)
    await db.pause()
    return found


async def imagine(loop: SimLoop) -> Ledger:
    """
    One history: a few readers, and one writer after the other.
    """
    db, ledger, chance = Imagined(loop), Ledger(), loop.chance

    async def reader() -> None:
        for _ in range(chance.randrange(1, 6)):
            function = chance.choice((imagined, made_of_it))
            task = asyncio.ensure_future(ledger.read(lambda f=function: f(db, chance.randrange(2))))
            if chance.random() < 0.1:
                await db.pause()
                task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await db.pause()

    async def writer() -> None:
        for version in range(1, chance.randrange(2, 6)):
            await db.pause()
            await db.write(version, is_lost=chance.random() < 0.2)
            ledger.acknowledged = version

    await asyncio.gather(writer(), *(reader() for _ in range(chance.randrange(1, 5))))
    await asyncio.sleep(0)
    return ledger


def simulated(count: int, seed: int) -> Ledger:
    """
    Run so many histories, one seed each, and add them up.
    """
    total = Ledger()
    for number in range(count):
        loop = SimLoop(seed + number)
        found = simulate(imagine(loop), loop)
        total.reads += found.reads
        total.stale += found.stale
    return total


# --- on a server


@cached(ttl=0.004, tags=lambda id: [f"history:{id}"])  # short, so that there is always something under way
async def version_of(db: Database, id: int) -> int:
    return await db.fetchval("SELECT version FROM history WHERE id = $1", id)


async def write(db: Database, id: int, version: int, chance: random.Random) -> None:
    """
    Change one row, in one of the ways that there are; some attempts are rolled back first.
    """
    update = "UPDATE history SET version = $2 WHERE id = $1"

    async def unit(tx):
        await tx.execute(update, id, version)
        tx.invalidate(f"history:{id}")

    match chance.randrange(5):
        case 0:
            await db.run_in_transaction(unit)
        case 1:
            async with db.transaction() as tx:
                await tx.execute(update, id, version)
                async with tx.transaction() as inner:
                    inner.invalidate(f"history:{id}")
        case 2:
            await db.execute(update, id, version)
            db.invalidate(f"history:{id}")
        case 3:
            with suppress(ZeroDivisionError):
                async with db.transaction() as tx:
                    await unit(tx)
                    raise ZeroDivisionError
            async with db.transaction() as tx:
                await unit(tx)
        case _:
            async with db.acquire() as con, con.transaction() as tx:
                await unit(tx)


async def history(db: Database, id: int, seed: int) -> Ledger:
    """
    One history on one row: readers beside a writer.
    """
    chance, ledger = random.Random(seed), Ledger()

    async def reader() -> None:
        for _ in range(chance.randrange(1, 8)):
            await ledger.read(lambda: version_of(db, id))
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)

    async def writer() -> None:
        for version in range(ledger.acknowledged + 1, ledger.acknowledged + chance.randrange(2, 4)):
            await write(db, id, version, chance)
            ledger.acknowledged = version
            await ledger.read(lambda: version_of(db, id))

    ledger.acknowledged = await db.fetchval("SELECT version FROM history WHERE id = $1", id)
    await asyncio.gather(writer(), *(reader() for _ in range(chance.randrange(1, 4))))
    return ledger


async def on_a_server(dsn: str, count: int, seed: int, *, width: int = 20) -> tuple[Ledger, dict]:
    """
    Run so many histories, `width` at a time, and add them up; with the cache's figures.
    """
    total = Ledger()
    config = DatabaseConfig(dsn=dsn, max_pool_size=10, slow_log="off")
    async with Database(config) as db:
        await db.execute(SCHEMA)
        await db.execute("INSERT INTO history SELECT id, 0 FROM generate_series(1, $1) AS id", width)
        numbers = iter(range(count))

        async def lane(id: int) -> None:
            for number in numbers:
                found = await history(db, id, seed + number)
                total.reads += found.reads
                total.stale += found.stale

        await asyncio.gather(*(lane(id) for id in range(1, width + 1)))
        return total, db.get_stats()["cache"]


async def environment(dsn: str) -> dict[str, str]:
    """
    What the figures were found with.
    """
    con = await asyncpg.connect(dsn)
    server = (await con.fetchval("SHOW server_version")).split()[0]
    await con.close()
    return {"python": platform.python_version(), "asyncpg": asyncpg.__version__, "PostgreSQL": server}


def document(facts: dict[str, str], options: argparse.Namespace, rows: dict[str, tuple[Ledger, float]]) -> dict:
    """
    What was found, as the benchmarks write it.
    """
    stale = sum(len(found.stale) for found, _ in rows.values())
    columns = ["histories", "reads", "stale", "seconds"]
    cells = {name: (options.histories, found.reads, len(found.stale), taken) for name, (found, taken) in rows.items()}
    return {
        "title": "cache_histories",
        "environment": facts,
        "options": {"histories": options.histories, "seed": options.seed},
        "tables": [
            {
                "title": "random histories of readers and writers in one process",
                "columns": columns,
                "rows": [
                    {
                        "name": name,
                        "note": "",
                        "cells": dict(zip(columns, values, strict=True)),
                        "shown": [f"{value:,.0f}" for value in values],
                    }
                    for name, values in cells.items()
                ],
            }
        ],
        "goals": [
            {
                "claim": "reads older than a commit that had been acknowledged",
                "measured": stale,
                "least": None,
                "most": 0,
                "is_met": stale == 0,
            }
        ],
    }


def main() -> int:
    """
    Print what came of it; 1 when a read was stale.
    """
    from magnus.embedded import Binaries, throwaway

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--histories", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found to FILE")
    options = parser.parse_args()
    began = time.monotonic()
    rows = {"simulated": (simulated(options.histories, options.seed), time.monotonic() - began)}
    began = time.monotonic()
    with throwaway(Binaries.bundled(), max_connections=50) as cluster:
        facts = asyncio.run(environment(cluster.dsn()))
        real, figures = asyncio.run(on_a_server(cluster.dsn(), options.histories, options.seed))
    rows["PostgreSQL"] = (real, time.monotonic() - began)
    for name, (found, taken) in rows.items():
        sys.stdout.write(
            f"{name}: {options.histories:,} histories, {found.reads:,} reads, {len(found.stale)} stale, {taken:.0f} s\n"
        )
    sys.stdout.write(f"{figures}\n")
    if options.json is not None:
        options.json.write_text(json.dumps(document(facts, options, rows), indent=1) + "\n")
    return any(found.stale for found, _ in rows.values())


if __name__ == "__main__":
    sys.exit(main())
