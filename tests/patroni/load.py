"""What runs while Patroni is at work: writers with keys, readers who must see what they wrote, readers who need not.

Everything goes through `magnus.Database`, with all members in its DSN and each as a replica, and TLS verified in full.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from magnus import Database
from tests.faults.stage import Book, Row, Writers, configured, is_classified
from tests.patroni.members import APP, Group, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

READERS = 8
ONLOOKERS = 2
POOL = 16
LIMIT = 3.0
"""Seconds that a read, and a write of a reader, may take."""
SLACK = 2.0
"""Seconds by which a read may miss its deadline before it counts: this machine runs all servers too."""
PATIENCE = 240.0
_COUNTERS = f"""
CREATE TABLE counter (id int PRIMARY KEY, value int);
INSERT INTO counter SELECT n, 0 FROM generate_series(1, {READERS}) n;
"""
# Monotone: one that timed out may still be carried out, and must not undo a later one.
_CHANGE = "UPDATE counter SET value = greatest(value, $2) WHERE id = $1"
_READ = "SELECT value FROM counter WHERE id = $1"
_NAME = "faults"


@dataclass
class Readers:
    """
    Tasks that write a value each and read it, which must be that one or a newer one; and tasks that only read.

    Attributes:
        reads: That were answered.
        stale: That were older than what the same task had been told is stored.
        failed: That were not, by the error's type.
        late: That took longer than they were allowed to.
        longest: Seconds of the longest one.
        seen: Moments at which somebody who only reads was answered.
    """

    db: Database
    reads: int = 0
    stale: int = 0
    late: int = 0
    longest: float = 0.0
    failed: Counter[str] = field(default_factory=Counter)
    unclassified: Counter[str] = field(default_factory=Counter)
    seen: list[float] = field(default_factory=list)
    is_stopping: bool = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Readers]:
        """
        Read while the block runs.
        """
        async with asyncio.TaskGroup() as group:
            for number in range(1, READERS + 1):
                group.create_task(self._gated(number))
            for _ in range(ONLOOKERS):
                group.create_task(self._onlooker())
            try:
                yield self
            finally:
                self.is_stopping = True

    async def _gated(self, number: int) -> None:
        value = stored = 0
        with self.db.reads_after(f"account:{number}"):
            while not self.is_stopping:
                value += 1
                try:
                    await self.db.execute(_CHANGE, number, value, timeout=LIMIT)
                except Exception as error:  # noqa: BLE001  # not acknowledged: nobody may rely on it
                    self._note(error)
                else:
                    stored = value
                found = await self._read(number)
                if found is not None:
                    self.reads += 1
                    self.stale += found < stored
                await asyncio.sleep(0.01)

    async def _onlooker(self) -> None:
        while not self.is_stopping:
            with self.db.reads_after():
                if await self._read(1) is not None:
                    self.seen.append(time.monotonic())
            await asyncio.sleep(0.05)

    async def _read(self, number: int) -> int | None:
        began = time.monotonic()
        found: int | None = None
        try:
            found = await self.db.fetchval(_READ, number, read=True, timeout=LIMIT)
        except Exception as error:  # noqa: BLE001  # the kind is what is asked for
            self.failed[type(error).__name__] += 1
            self._note(error)
        seconds = time.monotonic() - began
        self.longest = max(self.longest, seconds)
        self.late += seconds > LIMIT + SLACK
        return found

    def _note(self, error: Exception) -> None:
        if not is_classified(error):
            self.unclassified[f"{type(error).__name__}: {error}"] += 1

    def report(self, row: Row, *, may_lose: bool) -> None:
        row.figures["gated reads"] = self.reads
        row.figures["stale"] = self.stale
        row.figures["reads that failed at their deadline"] = dict(self.failed) or 0
        row.figures["longest read"] = round(self.longest, 2)
        row.figures["longest time that nobody could read"] = round(_pause(self.seen), 2)
        row.expect(self.reads and self.seen, "nobody read")
        row.expect(may_lose or not self.stale, f"stale: {self.stale}")
        row.expect(not self.late, f"reads past their deadline: {self.late}")
        row.expect(not self.unclassified, f"unclassified: {dict(self.unclassified)}")


def _pause(moments: list[float]) -> float:
    return max((after - before for before, after in pairwise(moments)), default=0.0)


@dataclass
class Load:
    """
    What a fault may look at while it is played.
    """

    db: Database
    writers: Writers
    readers: Readers

    def back(self, since: float) -> float:
        """
        Seconds from a moment to the first write that was acknowledged after it.
        """
        return next(moment for moment in self.writers.moments if moment >= since) - since

    async def both_standbys(self) -> float:
        """
        Wait until both standbys are read from; return the seconds it took.
        """

        async def is_so() -> bool:
            members = self.db.get_stats()["replicas"]["members"]
            return sum(member["usable"] for member in members) == len(members) - 1

        return await until(is_so, PATIENCE, "two standbys are read from")


@asynccontextmanager
async def load(group: Group, row: Row, *, may_lose: bool = False) -> AsyncIterator[Load]:
    """
    Write and read while the block runs; then judge what was acknowledged, what was read, and what was left open.
    """
    book = await Book.open(group, group.folder)  # type: ignore[arg-type]  # it only connects
    async with group.connect(book.name) as con:
        await con.execute(_COUNTERS)
    config = configured(book.dsn(), min_pool_size=2, max_pool_size=POOL, application_name=_NAME)
    async with Database(config, replicas=group.replicas(book.name)) as db:
        found = Load(db, Writers(db, book, patience=PATIENCE), Readers(db))
        await found.both_standbys()
        async with found.writers.running(), found.readers.running():
            await found.writers.acknowledged(100, PATIENCE)
            yield found
            await found.writers.acknowledged(100, PATIENCE)
            await found.both_standbys()
        stats = db.get_stats()
    row.cycles += 1
    row.figures["longest time without a write"] = round(_pause(found.writers.moments), 2)
    row.figures["told"] = dict(found.writers.errors) or 0
    found.writers.report(row)
    found.readers.report(row, may_lose=may_lose)
    answered = sum(member["reads"] for member in stats["replicas"]["members"])
    row.figures["reads answered by a standby"] = answered
    row.expect(answered, "no standby was asked, so nothing was shown")
    pool = stats["pool_stats"]
    row.expect(pool["used"] == 0, f"leases left: {pool['used']}")
    row.expect(pool["size"] <= POOL, f"connections: {pool['size']} of {POOL}")
    row.expect(await _is_clean(group), "connections left on the servers")
    await book.audit(row, may_lose=may_lose)


async def _is_clean(group: Group) -> bool:
    async def is_so() -> bool:
        counted = [
            await group.ask(member, "SELECT count(*) FROM pg_stat_activity WHERE usename = $1", APP)
            for member in group.members
        ]
        return counted == [0] * len(counted)

    try:
        await until(is_so, 15.0, "nobody is connected")
    except AssertionError:
        return False
    return True
