"""Faults 19 and 20: what was written is seen by the reads that follow, whichever standby answers them."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from magnus import Database
from magnus.embedded import throwaway
from magnus.testing import kill, promote, standby_of, until_replayed
from tests.faults.stage import Row, configured, timed

if TYPE_CHECKING:
    from magnus.embedded import Cluster
    from tests.faults.stage import Stage

READERS = 16
CHANGE = "UPDATE account SET balance = $2 WHERE id = $1"
READ = "SELECT balance FROM account WHERE id = $1"
WHO = "SELECT pg_is_in_recovery()"


async def own_writes(stage: Stage) -> Row:
    """
    Two standbys that lag: whoever wrote reads what it wrote, or something newer, from whomever answers.
    """
    row = Row(19, "reads that follow one's own writes, on standbys", "async")
    rounds = stage.times(100, 10)
    stale = 0
    async with AsyncExitStack() as stack:
        primary, standbys = await _trio(stage, stack)
        book = await stage.book(primary)
        for standby in standbys:
            await until_replayed(primary, standby)
        targets = [standby.dsn(database=book.name) for standby in standbys]
        config = configured(book.dsn(), max_pool_size=READERS)
        async with Database(config, replicas=targets) as db:

            async def reader(number: int) -> None:
                nonlocal stale
                for value in range(1, rounds + 1):
                    with db.reads_after():
                        await db.execute(CHANGE, number, value)
                        seconds, found = await _read(db, number)
                        stale += found != value
                        row.longest = max(row.longest, seconds)

            await asyncio.gather(*(reader(number) for number in range(1, READERS + 1)))
            figures = db.get_stats()["replicas"]
    row.cycles = READERS * rounds
    answered = sum(member["reads"] for member in figures["members"])
    row.figures["answered by a standby"] = f"{answered} of {row.cycles}"
    row.figures["stale"] = stale
    row.expect(not stale, f"stale: {stale}")
    row.expect(answered, "no standby was asked, so nothing was shown")
    return row


async def _trio(stage: Stage, stack: AsyncExitStack) -> tuple[Cluster, list[Cluster]]:
    """
    Return a primary and two standbys, one of which lags more.
    """
    primary = await stack.enter_async_context(throwaway(stage.cluster.binaries, max_connections=100))
    lags = ({"recovery_min_apply_delay": delay} for delay in ("20ms", "60ms"))
    return primary, [await stack.enter_async_context(standby_of(primary, settings=lag)) for lag in lags]


async def _read(db: Database, number: int) -> tuple[float, int | None]:
    found: int | None = None

    async def ask() -> None:
        nonlocal found
        found = await db.fetchval(READ, number, read=True)

    seconds, outcome = await timed(ask())
    return seconds, found if outcome == "success" else None


async def other_timeline(stage: Stage) -> Row:
    """
    A token from before a promotion names a place on a timeline that is over, and places on two timelines do not
    compare: only the primary may answer who shows it, however far its standby is.
    """
    row = Row(20, "position from another timeline", "async", cycles=stage.times(100, 10))
    asked = Counter[bool]()
    async with AsyncExitStack() as stack:
        old = await stack.enter_async_context(throwaway(stage.cluster.binaries, max_connections=100))
        new = await stack.enter_async_context(standby_of(old))
        book = await stage.book(old)
        await until_replayed(old, new)
        async with _with_standby(book.name, old, new) as before:
            with before.reads_after():
                await before.execute(CHANGE, 1, 1)
                token = await before.read_token()
        await until_replayed(old, new)
        await kill(old)
        await promote(new)
        next_one = await stack.enter_async_context(standby_of(new))
        async with _with_standby(book.name, new, next_one) as after:
            await served_by_standby(after)
            for value in range(row.cycles):
                await after.execute(CHANGE, 2, value)  # the new timeline passes the old one's places
                await until_replayed(new, next_one)
                with after.reads_after(token=token):
                    asked[await after.fetchval(WHO, read=True)] += 1
    row.figures["answered by a standby, with the old token"] = asked[True]
    row.figures["answered by the primary, with the old token"] = asked[False]
    row.expect(token, "there was no token")
    row.expect(not asked[True], "a standby was taken to be far enough")
    return row


async def served_by_standby(db: Database) -> None:
    """
    Wait until reads that need nothing in particular go to a standby.
    """
    async with asyncio.timeout(30.0):
        with db.reads_after():
            while not await db.fetchval(WHO, read=True):  # noqa: ASYNC110  # the layer finds out by itself
                await asyncio.sleep(0.05)


def _with_standby(name: str, primary: Cluster, standby: Cluster) -> Database:
    return Database(configured(primary.dsn(database=name), min_pool_size=1), replicas=[standby.dsn(database=name)])
