"""Faults 24 to 28: too much work, a server that stands still, callers that go away, a service that stops."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

from magnus import Database, QueryPriority
from magnus.testing import Action, Direction, brown_out
from tests.faults.detection import slots_back, used
from tests.faults.stage import Row, configured, timed

if TYPE_CHECKING:
    from tests.faults.stage import Stage

CRITICAL, BACKGROUND = QueryPriority.CRITICAL, QueryPriority.BACKGROUND


async def _critical(db: Database, count: int) -> list[float]:
    found = []
    for _ in range(count):
        seconds, outcome = await timed(db.fetchval("SELECT 1", priority=CRITICAL))
        assert outcome == "success", outcome
        found.append(seconds)
        await asyncio.sleep(0.005)
    return found


async def flood(stage: Stage) -> Row:
    """
    Hundreds of background tasks want every slot; CRITICAL is served all the same, and BACKGROUND not starved.
    """
    row = Row(24, "flood of background work")
    for tasks in (200, 2000) if not stage.is_short else (200,):
        async with stage.bank(max_pool_size=8, min_pool_size=8, command_timeout=30.0) as (_, db, _):
            count = stage.times(300, 60)
            calm = await _critical(db, count)
            done, is_over = 0, False

            async def work() -> None:
                nonlocal done
                while not is_over:  # noqa: B023  # bound in this round
                    await db.fetchval("SELECT pg_sleep(0.005)", priority=BACKGROUND)
                    done += 1

            flooding = [asyncio.create_task(work()) for _ in range(tasks)]
            await asyncio.sleep(0.3)
            began, before = time.monotonic(), done
            flooded = await _critical(db, count)
            rate = (done - before) / (time.monotonic() - began)
            is_over = True
            await asyncio.gather(*flooding)
        row.cycles += count
        row.longest = max(row.longest, *flooded)
        p50, p99 = median(flooded), quantiles(flooded, n=100)[98]
        row.figures[f"{tasks} tasks"] = (
            f"CRITICAL p50 {median(calm) * 1e3:.1f} -> {p50 * 1e3:.1f} ms, p99 "
            f"{quantiles(calm, n=100)[98] * 1e3:.1f} -> {p99 * 1e3:.1f} ms; BACKGROUND {rate:.0f}/s"
        )
        row.expect(rate > 0, "BACKGROUND was starved")
    return row


async def row_lock(stage: Stage) -> Row:
    """
    Background work holds the lock of a row that CRITICAL needs, and forgets about it.
    """
    row = Row(25, "row lock held by background work", cycles=1)
    async with stage.bank() as (_, db, _):
        is_locked, may_go = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            async with db.transaction(priority=BACKGROUND, timeout=2.0) as tx:
                await tx.execute("UPDATE account SET balance = balance WHERE id = 1")
                is_locked.set()
                await may_go.wait()

        holder = asyncio.create_task(hold())
        await is_locked.wait()
        update = "UPDATE account SET balance = balance WHERE id = 1"
        seconds, outcome = await timed(db.execute(update, priority=CRITICAL, timeout=1.0))
        row.longest = seconds
        row.figures["CRITICAL"] = f"{outcome} after {seconds:.2f} s"
        may_go.set()
        await asyncio.gather(holder, return_exceptions=True)
        row.expect(outcome == "QueryTimeout", f"told {outcome}")
        row.expect(seconds < 3.0, "it did not end at its deadline")
        row.expect(await db.execute(update, priority=CRITICAL) == "UPDATE 1", "no service afterwards")
        row.note = "lanes have no lock_timeout: a lock is waited for until the deadline of the call, not 200 ms"
    return row


@dataclass
class Load:
    """
    Requests at a fixed rate, each within its own deadline whatever became of the others (an open loop).
    """

    done: list[float] = field(default_factory=list)
    asked: int = 0
    told: Counter[str] = field(default_factory=Counter)

    async def drive(self, db: Database, rate: float, seconds: float, **options: Any) -> None:
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                due = began + number / rate
                if due - began > seconds:
                    break
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                self.asked += 1
                group.create_task(self._one(db, **options))

    async def _one(self, db: Database, query: str, **options: Any) -> None:
        _, outcome = await timed(db.fetchval(query, read=True, **options))
        self.told[outcome] += 1
        if outcome == "success":
            self.done.append(time.monotonic())


async def brown_out_named(stage: Stage, *, lane: QueryPriority | None = QueryPriority.NORMAL) -> Row:
    """
    The server stands still for five seconds at 90 % load: service comes back with it, and repeats do not pile up.
    """
    row = Row(26, "brown-out at 90 % load", cycles=1)
    pause, before, after = (5.0, 2.0, 4.0) if not stage.is_short else (2.0, 1.0, 3.0)
    query = "SELECT pg_sleep(0.01) /* brown-out */"  # 4 slots and 10 ms: the capacity is known, whatever the machine
    async with stage.bank(min_pool_size=4, max_pool_size=4, command_timeout=0.5, statement_timeout=2.0) as (
        _,
        db,
        _,
    ):
        rate = 0.9 * await _capacity(db, query)
        load = Load()
        driving = asyncio.create_task(
            load.drive(db, rate, before + pause + after, query=query, timeout=0.5, priority=lane)
        )
        await asyncio.sleep(before)
        async with brown_out(stage.cluster, pause):
            await asyncio.sleep(pause)
        ended = time.monotonic()
        await driving
        row.longest = await slots_back(db)
        repeats = db.get_stats()["query_stats"]["retries"]
    row.figures |= {"rate": round(rate), "told": dict(load.told)}
    row.acknowledged = len(load.done)
    row.within("goodput back to 95 %", _recovered(load.done, ended, rate, after), 2.0)
    row.figures["goodput of each half second afterwards"] = _bins(load.done, ended, after)
    attempts = 1.0 + repeats / load.asked
    row.figures["attempts per request"] = round(attempts, 3)
    row.expect(attempts <= 1.2, f"{attempts:.2f} attempts per request")
    return row


async def brown_out_unnamed(stage: Stage) -> Row:
    """
    The same with calls that name no lane, which nobody sheds unless `shed_unset` says so.
    """
    row = await brown_out_named(stage, lane=None)
    row.name += ", no lane named"
    if row.late:
        row.note = f"calls that name no lane are not shed without shed_unset: {row.late.pop()}"
    return row


async def everything_fails(stage: Stage) -> Row:
    """
    Every read is cut on its way to the server: the budget bounds what repeats add.
    """
    row = Row(26, "every read fails", cycles=1)
    async with stage.bank(min_pool_size=4, max_pool_size=4, command_timeout=1.0) as (proxy, db, _):
        cuts = proxy.when(Direction.REQUEST, b"doomed", Action.CUT, times=None)
        load = Load()
        await load.drive(db, 100.0, stage.times(10, 3), query="SELECT 1 /* doomed */", timeout=1.0)
        repeats = db.get_stats()["query_stats"]["retries"]
        proxy.rules.clear()
        row.longest = await slots_back(db)
        row.expect((await timed(db.fetchval("SELECT 1")))[1] == "success", "no service afterwards")
    row.figures |= {"requests": load.asked, "sent": cuts.hits, "told": dict(load.told)}
    attempts = 1.0 + repeats / load.asked
    row.figures["attempts per request"] = round(attempts, 3)
    row.expect(attempts <= 1.2, f"{attempts:.2f} attempts per request")
    row.expect(cuts.hits, "nothing was cut")
    return row


def _bins(done: list[float], since: float, seconds: float) -> list[int]:
    edges = [since + 0.5 * step for step in range(int(seconds * 2) + 1)]
    return [sum(low <= moment < high for moment in done) for low, high in itertools.pairwise(edges)]


async def _capacity(db: Database, query: str) -> float:
    count = 0
    until = time.monotonic() + 1.0

    async def work() -> None:
        nonlocal count
        while time.monotonic() < until:
            await db.fetchval(query)
            count += 1

    await asyncio.gather(*(work() for _ in range(4)))
    return float(count)


def _recovered(done: list[float], ended: float, rate: float, after: float) -> float:
    """
    Return the first moment after the end from which half a second of goodput reached 95 % of the rate.
    """
    width = 0.5
    for step in range(int((after - width) / 0.1)):
        start = ended + step * 0.1
        if sum(start <= moment < start + width for moment in done) >= 0.95 * rate * width:
            return step * 0.1
    return after


async def cancel_storm(stage: Stage) -> Row:
    """
    Thousands of callers are cancelled at random moments, waiting, running or releasing: every slot is accounted for.
    """
    row = Row(27, "storm of cancels", cycles=stage.times(10_000, 800))
    chance = random.Random(27)
    told = Counter[str]()
    async with stage.bank(command_timeout=5.0) as (_, db, book):

        async def one(number: int) -> None:
            if number % 3 == 0:
                async with db.transaction() as tx:
                    await tx.execute("UPDATE account SET balance = balance WHERE id = $1", number % 16 + 1)
            elif number % 3 == 1:
                async with db.acquire() as con:
                    await con.execute("SET work_mem = '5MB'")  # so that the release has something to undo
            else:
                await db.fetchval("SELECT 1")

        async def cancelled(number: int) -> None:
            task = asyncio.ensure_future(timed(one(number)))
            await asyncio.sleep(chance.expovariate(200.0))
            task.cancel()
            told[(await asyncio.gather(task, return_exceptions=True))[0].__class__.__name__] += 1

        for batch in range(0, row.cycles, 100):
            await asyncio.gather(*(cancelled(batch + number) for number in range(100)))
        row.longest = await slots_back(db)
        pool = db.get_stats()["pool_stats"]
        row.expect(not used(db), f"{used(db)} slots leaked")
        row.expect(pool["size"] <= pool["max_size"], f"the pool has {pool['size']} connections")
        row.expect(await db.fetchval("SELECT 1") == 1, "no service afterwards")
        idle = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND state LIKE 'idle in transaction%'"
        row.expect(await book.ask(idle, book.name) == 0, "an open transaction was left behind")
        await asyncio.gather(*(db.fetchval("SELECT pg_sleep(0.01)") for _ in range(8)))
    return row


async def drain(stage: Stage) -> Row:
    """
    The service stops in the middle of work: what is under way is finished, what comes is refused.
    """
    row = Row(28, "close with work under way", cycles=stage.times(10, 2))
    book = await stage.book()
    told = Counter[str]()
    for number in range(row.cycles):
        db = Database(configured(book.dsn()))
        await db.connect()
        begun = [asyncio.create_task(timed(_book(db, f"drain {number} {n}"))) for n in range(8)]
        while used(db) < 8:  # noqa: ASYNC110  # the pool tells nobody
            await asyncio.sleep(0.001)
        seconds, _ = await timed(db.close())
        late = await timed(db.fetchval("SELECT 1"))
        row.longest = max(row.longest, seconds)
        told += Counter(outcome for _, outcome in await asyncio.gather(*begun))
        row.expect(late[1] == "PoolClosed", f"new work was told {late[1]}")
    row.acknowledged = await book.ask("SELECT count(*) FROM done")
    row.figures["told"] = dict(told)
    row.expect(told["success"] == 8 * row.cycles == row.acknowledged, f"{told}, {row.acknowledged} stored")
    return row


async def _book(db: Database, key: str) -> None:
    async with db.transaction(priority=CRITICAL) as tx:
        await tx.execute("INSERT INTO done VALUES ($1)", key)
        await tx.fetchval("SELECT pg_sleep(0.3)")
