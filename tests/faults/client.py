"""A client of its own, to be killed: `python -m tests.faults.client write|sleep DSN [JOURNAL SEED]`."""

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


async def sleep(dsn: str) -> None:
    async with Database(configured(dsn, min_pool_size=1, application_name="victim", command_timeout=60.0)) as db:
        await db.execute("SELECT pg_sleep(60) /* orphan */")


if __name__ == "__main__":
    asyncio.run({"write": write, "sleep": sleep}[sys.argv[1]](*sys.argv[2:]))
