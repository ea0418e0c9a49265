"""Faults 1 to 9: whatever happens around COMMIT, what was acknowledged is there, once, and nobody is lied to."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections import Counter
from statistics import median
from typing import TYPE_CHECKING

import asyncpg

from magnus import CommitRolledBack, Database, _commit
from magnus.testing import COMMIT, Action, Direction, Rule, Word, frozen, kill, read, until_replayed
from tests.faults.couple import couple
from tests.faults.stage import ROOT, Row, Writers, configured, once, patched, proxied, timed

if TYPE_CHECKING:
    from magnus.testing import Link
    from tests.faults.stage import Book, Stage


async def commit_reply_cut(stage: Stage, *, unit=once, cycles: int | None = None) -> Row:
    """
    The reply to COMMIT is lost: the transaction is stored, and the client cannot know.
    """
    return await _cut(stage, Row(1, "commit reply cut"), Direction.REPLY, unit, cycles or stage.times(200, 40))


async def commit_request_cut(stage: Stage, *, unit=once, cycles: int | None = None) -> Row:
    """
    COMMIT itself is lost: the transaction is not stored, and the client cannot know.
    """
    return await _cut(stage, Row(2, "commit request cut"), Direction.REQUEST, unit, cycles or stage.times(200, 40))


async def _cut(stage: Stage, row: Row, direction: Direction, unit, cycles: int) -> Row:
    row.cycles = cycles
    cuts = 0

    def count() -> None:
        nonlocal cuts
        cuts += 1

    def program(link: Link) -> None:
        # Each connection dies at its first, second or third COMMIT, so that repeats are cut as well as first attempts.
        if cuts < cycles:
            link.rules.append(Rule(direction, COMMIT, Action.CUT, skip=link.number % 3, heard=count))

    async with stage.bank() as (proxy, db, book):
        proxy.on_link = program
        for link in proxy.links:
            program(link)
        writers = Writers(db, book, unit=unit)
        async with writers.running():
            while cuts < cycles:
                await writers.acknowledged(1)
        writers.report(row)
        await book.audit(row)
    row.figures["cuts"] = cuts
    row.expect(cuts >= cycles, f"only {cuts} of {cycles} were cut")
    return row


async def async_loss(stage: Stage, *, unit=once, resolve=once) -> Row:
    """
    An asynchronous standby that lags takes over: what it never got is lost, and the campaign must be able to say so.

    The layer cannot prevent it. It must not double anything, and what was lost must be repeatable with its key.
    """
    row = Row(3, "loss window of async. standby; 6: ids used again", "async")
    async with couple(stage.cluster.binaries, is_synchronous=False) as both:
        book = await stage.book(both.primary)
        assert both.standby is not None
        await until_replayed(both.primary, both.standby)
        async with proxied(both.primary) as proxy, Database(configured(book.dsn(proxy))) as db:
            writers = Writers(db, book, unit=unit)
            with frozen(both.primary, "walsender"):
                async with writers.running():
                    await writers.acknowledged(stage.times(200, 50))
                    row.figures["promotion"] = round(await both.fail_over(proxy), 3)
                    book.cluster = both.primary
                    await writers.acknowledged(20)
            found = await book.audit(row, may_lose=True)
            row.expect(found.lost, "nothing was lost, so nothing was shown")
            stored = await _repeat(stage, db, book, found.lost, resolve)
            row.expect(stored == len(found.lost), f"{len(found.lost) - stored} lost keys could not be repeated once")
        writers.report(row)
    row.cycles = 1
    row.figures["loss window"] = f"{len(found.lost)} of {found.acknowledged} acknowledged; all repeated by their keys"
    return row


async def _repeat(stage: Stage, db: Database, book: Book, lost: tuple[str, ...], resolve) -> int:
    """
    Fault 6 too: the new timeline has used the lost transactions' ids again, and the key still tells the truth.

    Returns how many of the lost keys are stored once after their repeat.
    """
    for _ in range(stage.times(300, 60)):
        await book.ask("SELECT pg_current_xact_id()")
    chance = random.Random(6)
    for key in lost:
        await resolve(db, key, chance)
    once = "SELECT count(*) FROM (SELECT FROM effect WHERE key = ANY($1) GROUP BY key HAVING count(*) = 1) AS once"
    return int(await book.ask(once, list(lost)))


async def sync_crash(stage: Stage) -> Row:
    """
    The primary is killed and the synchronous standby takes over, again and again, while eight clients write.
    """
    row = Row(4, "kill and promote", "sync")
    row.cycles = stage.times(50, 2)
    gaps: list[float] = []
    async with couple(stage.cluster.binaries, is_synchronous=True) as both:
        book = await stage.book(both.primary)
        async with proxied(both.primary) as proxy, Database(configured(book.dsn(proxy))) as db:
            writers = Writers(db, book)
            async with writers.running():
                for _ in range(row.cycles):
                    if both.standby is None:
                        await both.join()
                    await writers.acknowledged(20)
                    await both.fail_over(proxy)
                    book.cluster = both.primary
                    began = time.monotonic()
                    await writers.acknowledged(1)
                    gaps.append(time.monotonic() - began)
            writers.report(row)
            await book.audit(row)
    row.within("gap after promotion, median", median(gaps), 0.5)
    row.within("gap after promotion, worst", max(gaps), 1.0)
    return row


async def sync_cancel(stage: Stage) -> Row:
    """
    COMMIT waits for a standby that is frozen; somebody loses patience: the caller, its deadline, an operator.
    """
    row = Row(5, "patience lost while COMMIT waits for the standby", "sync")
    # In the short form COMMIT gets one second instead of its ten.
    with patched(_commit, "COMMIT_LEAST", 1.0 if stage.is_short else _commit.COMMIT_LEAST):
        async with couple(stage.cluster.binaries, is_synchronous=True) as both:
            book = await stage.book(both.primary)
            # All wait at the same time, each on a connection of its own.
            limits = {"max_pool_size": 32, "command_timeout": 1.0}
            async with proxied(both.primary) as proxy, Database(configured(book.dsn(proxy), **limits)) as db:
                assert both.standby is not None
                await until_replayed(both.primary, both.standby)
                ways = [(f"{name} {n}", way) for n in range(stage.times(5, 1)) for name, way in _IMPATIENT]
                with frozen(both.primary, "walsender"):
                    told = await asyncio.gather(*(way(db, book, name) for name, way in ways))
                    row.longest = max(seconds for seconds, _ in told)
                    await both.fail_over(proxy)
                    book.cluster = both.primary
    for (name, _), (_, outcome) in zip(ways, told, strict=True):
        row.expect(outcome == "OutcomeUnknown", f"{name}: {outcome}")
        row.unknown += outcome == "OutcomeUnknown"
    row.cycles = len(told)
    row.figures["told"] = dict(Counter(outcome for _, outcome in told))
    return row


async def _by_deadline(db: Database, book: Book, key: str) -> tuple[float, str]:
    async def work() -> None:
        async with db.transaction(timeout=0.5) as tx:
            await tx.execute("INSERT INTO done VALUES ($1)", key)

    return await timed(work())


async def _by_scope(db: Database, book: Book, key: str) -> tuple[float, str]:
    async def work() -> None:
        async with asyncio.timeout(0.5), db.transaction() as tx:
            await tx.execute("INSERT INTO done VALUES ($1)", key)

    return await timed(work())


async def _by_cancel(db: Database, book: Book, key: str) -> tuple[float, str]:
    is_sent = asyncio.Event()

    async def work() -> None:
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO done VALUES ($1)", key)
            is_sent.set()

    task, began = asyncio.ensure_future(timed(work())), time.monotonic()
    task.add_done_callback(lambda _: is_sent.set())
    await is_sent.wait()
    await asyncio.sleep(0.2)
    task.cancel()
    try:
        return await task
    except asyncio.CancelledError:
        return time.monotonic() - began, "CancelledError"


async def _by_operator(db: Database, book: Book, key: str) -> tuple[float, str]:
    pid = asyncio.get_running_loop().create_future()

    async def work() -> None:
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO done VALUES ($1)", key)
            pid.set_result(await tx.fetchval("SELECT pg_backend_pid()"))

    task = asyncio.ensure_future(timed(work()))
    await asyncio.wait({task, pid}, return_when=asyncio.FIRST_COMPLETED)
    waits = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep'"
    while not task.done() and not await book.ask(waits, pid.result()):  # noqa: ASYNC110  # the server tells nobody
        await asyncio.sleep(0.02)
    if not task.done():
        await book.ask("SELECT pg_cancel_backend($1)", pid.result())
    return await task


_IMPATIENT = (
    ("deadline", _by_deadline), ("asyncio.timeout", _by_scope), ("cancel", _by_cancel), ("operator", _by_operator)
)  # fmt: skip


async def zombie(stage: Stage, *, is_synchronous: bool) -> Row:
    """
    The primary stands still, the standby takes over, the primary wakes: old connections lead onto a dead timeline.
    """
    row = Row(7, "zombie primary", "sync" if is_synchronous else "async", cycles=1)
    with patched(_commit, "COMMIT_LEAST", 1.0 if stage.is_short else 3.0):
        async with couple(stage.cluster.binaries, is_synchronous=is_synchronous) as both:
            book = await stage.book(both.primary)
            async with proxied(both.primary) as proxy, Database(configured(book.dsn(proxy), command_timeout=1.0)) as db:
                writers = Writers(db, book)
                old = both.primary
                async with writers.running():
                    await writers.acknowledged(20)
                    with frozen(old):
                        await both.fail_over(proxy, has_kill=False)
                        book.cluster = both.primary
                    woke = len(writers.moments)
                    await asyncio.sleep(stage.times(30, 6) / 10)
                    await kill(old)
                    await writers.acknowledged(20)
                    row.figures["acknowledged while it was awake"] = len(writers.moments) - woke
                found = await book.audit(row, may_lose=not is_synchronous)
                writers.report(row)
    row.figures["acknowledged onto the dead timeline"] = len(found.lost)
    if found.lost:
        row.note = (
            "nothing tells the layer that its server is no primary any more: fence it, or replicate synchronously"
        )
    return row


async def swallowed(stage: Stage) -> Row:
    """
    A statement fails, its error is swallowed, the block ends well: the server answers COMMIT with ROLLBACK.
    """
    row = Row(8, "error swallowed, then COMMIT", cycles=stage.times(100, 20))
    async with stage.bank() as (_, db, book):
        silent = 0
        for number in range(row.cycles):
            try:
                async with db.transaction() as tx:
                    await tx.execute("INSERT INTO done VALUES ($1)", f"s{number}")
                    with contextlib.suppress(asyncpg.PostgresError):
                        await tx.execute("SELECT 1 / 0")
                silent += 1
            except CommitRolledBack:
                row.figures["CommitRolledBack"] = row.figures.get("CommitRolledBack", 0) + 1
        row.expect(not silent, f"{silent} silent losses")
        row.expect(await book.ask("SELECT count(*) FROM done") == 0, "something was stored all the same")
    return row


async def client_killed(stage: Stage) -> Row:
    """
    The client is killed (-9) somewhere between its journal and the answer to COMMIT, and resumes with the same keys.
    """
    row = Row(9, "client killed between journal and COMMIT", cycles=stage.times(20, 2))
    book = await stage.book()
    chance = random.Random(9)
    for seed in range(1, row.cycles + 1):
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.faults.client",
            "write",
            book.dsn(),
            str(book.journal.path),
            str(seed),
            cwd=ROOT,
        )
        before = book.journal.path.stat().st_size
        async with asyncio.timeout(60.0):
            while book.journal.path.stat().st_size < before + 2000:  # noqa: ASYNC110  # a file tells nobody
                await asyncio.sleep(0.005)
        await asyncio.sleep(chance.uniform(0.0, 0.05))
        child.kill()
        await child.wait()
    begun = {key for key, word in read(book.journal.path)}
    done = {key for key, word in read(book.journal.path) if word is Word.ACKNOWLEDGED}
    async with Database(configured(book.dsn())) as db:
        writers = Writers(db, book)
        for key in sorted(begun - done):
            await writers.write(key, random.Random(key))
    row.figures["resumed"] = len(begun - done)
    row.expect(begun - done, "no client was killed in the middle")
    writers.report(row)
    await book.audit(row)
    return row
