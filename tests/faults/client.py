"""A client of its own, to be killed: `python -m tests.faults.client write DSN JOURNAL SEED`, or `sleep DSN GUARD`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from magnus import Database
from magnus.testing import Journal
from tests.faults.stage import Book, Writers, configured


async def write(dsn: str, journal: str, seed: str) -> None:
    book = Book.__new__(Book)
    book.journal = Journal(Path(journal))
    async with Database(configured(dsn)) as db:
        await Writers(db, book, seed=int(seed), count=4).run()


async def sleep(dsn: str, guard: str) -> None:
    settings = {"client_connection_check_interval": guard} if guard else {}
    config = configured(dsn, min_pool_size=1, command_timeout=60.0, server_settings=settings)
    async with Database(config) as db:
        await db.execute("SELECT pg_sleep(60) /* orphan */")


if __name__ == "__main__":
    asyncio.run({"write": write, "sleep": sleep}[sys.argv[1]](*sys.argv[2:]))
