"""Faults 11 to 23: a dead peer is noticed, calls end at their deadlines, slots come back, and so does service."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from magnus import Database
from magnus.testing import (
    Action,
    Direction,
    RefusingServer,
    Shape,
    crash,
    frozen,
    restart_immediately,
    socket_of,
    until_replayed,
)
from tests.faults.couple import couple
from tests.faults.network import severed
from tests.faults.stage import ROOT, Row, Writers, configured, is_classified, proxied, timed

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.stage import Book, Stage


def used(db: Database) -> int:
    found: int = db.get_stats()["pool_stats"]["used"]
    return found


async def served(db: Database, patience: float = 20.0) -> None:
    """
    Wait until the database serves again, however its connections fared.
    """
    async with asyncio.timeout(patience):
        while (await timed(db.fetchval("SELECT 1")))[1] != "success":  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.02)


async def _full(db: Database, patience: float = 20.0) -> None:
    """
    Wait until the pool has all its connections.
    """
    async with asyncio.timeout(patience):
        while (pool := db.get_stats()["pool_stats"])["free"] + pool["used"] < pool["max_size"]:  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.01)


async def slots_back(db: Database, patience: float = 30.0) -> float:
    """
    Wait until no slot is out; return the seconds it took.
    """
    began = time.monotonic()
    async with asyncio.timeout(patience):
        while used(db):  # noqa: ASYNC110  # the pool tells nobody
            await asyncio.sleep(0.005)
    return time.monotonic() - began


async def half_open(stage: Stage) -> Row:
    """
    The network drops every packet: while a connection is idle, in flight, or waits for an answer to what was received.
    """
    row = Row(11, "network drops silently", cycles=4)
    found = await severed(stage)
    if found is None:
        row.note = "needs root and ip netns; a proxy that holds back stands for it in the next row"
        return row
    async with found as (dsn, network):
        for case in ("idle", "called after idleness", "in flight", "received"):
            async with Database(configured(dsn, min_pool_size=1, max_pool_size=1, command_timeout=20.0)) as db:
                await db.fetchval("SELECT 1")
                async with network.healed():
                    seconds, error = await _lose(db, network, case)
                    row.within(case, seconds + await slots_back(db), 3.0)
                    row.expect(error != "success", f"{case}: no error")
                    row.longest = max(row.longest, seconds)
    return row


async def _lose(db: Database, network: Any, case: str) -> tuple[float, str]:
    if case == "received":
        task = asyncio.create_task(timed(db.fetchval("SELECT pg_sleep(15)")))
        await asyncio.sleep(0.3)
        network.sever()
        began = time.monotonic()
        _, outcome = await task
        return time.monotonic() - began, outcome
    network.sever()
    if case == "idle":
        # The keepalive ends an idle connection by itself; the pool then has none.
        began = time.monotonic()
        async with asyncio.timeout(30.0):
            while db.get_stats()["pool_stats"]["size"]:  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.01)
        return time.monotonic() - began, "lost"
    if case == "called after idleness":
        await asyncio.sleep(1.5)
    return await timed(db.fetchval("SELECT 1"))


async def black_hole(stage: Stage) -> Row:
    """
    The peer's kernel acknowledges and its program says nothing: no keepalive helps, every call ends at its deadline.
    """
    row = Row(11, "peer acknowledges and says nothing", cycles=4)
    async with stage.bank(command_timeout=1.0, min_pool_size=4, max_pool_size=4) as (proxy, db, _):
        await asyncio.gather(*(db.fetchval("SELECT pg_sleep(0.05)") for _ in range(4)))
        proxy.hold()
        outcomes = await asyncio.gather(*(timed(db.fetchval("SELECT 1")) for _ in range(8)))
        row.longest = max(seconds for seconds, _ in outcomes)
        row.within("slots back after the last error", await slots_back(db), 3.0)
        row.within("longest, deadline 1 s", row.longest, 2.0)
        row.figures["told"] = dict(Counter(outcome for _, outcome in outcomes))
        row.expect(all(outcome in {"QueryTimeout", "PoolTimeout"} for _, outcome in outcomes), "another error")
        proxy.release()
        row.within("served again", (await timed(db.fetchval("SELECT 1", timeout=10.0)))[0], 1.5)
        row.expect(await db.fetchval("SELECT 1") == 1, "no service afterwards")
    return row


async def first_host_silent(stage: Stage) -> Row:
    """
    The first of two hosts swallows everything: the second one must be asked soon.
    """
    row = Row(12, "first host is a black hole", cycles=stage.times(5, 1))
    book = await stage.book()
    async with proxied(stage.cluster) as silent, proxied(stage.cluster) as good:
        silent.is_silent = True
        for _ in range(row.cycles):
            dsn = _two_hosts(book, silent.port, good.port)
            db = Database(configured(dsn, connect_timeout=3.0, min_pool_size=1))
            seconds, outcome = await timed(db.connect())
            row.longest = max(row.longest, seconds)
            row.expect(outcome == "success", f"connect: {outcome}")
            await db.close()
    row.within("connected to the second host", row.longest, 1.0)
    return row


def _two_hosts(book: Book, first: int, second: int) -> str:
    return f"postgresql://postgres@127.0.0.1:{first},127.0.0.1:{second}/{book.name}?sslmode=disable"


async def refusals(stage: Stage) -> Row:
    """
    The first host answers: starting (next host), full (next host), wrong credentials (stop).
    """
    row = Row(13, "first host starts, is full, knows no such user", cycles=3)
    book = await stage.book()
    for sqlstate, wanted in (("57P03", "success"), ("53300", "success"), ("28P01", "ConnectError")):
        async with RefusingServer(sqlstate) as first, proxied(stage.cluster) as good:
            db = Database(configured(_two_hosts(book, first.port, good.port), min_pool_size=1))
            seconds, outcome = await timed(db.connect())
            await db.close()
            row.figures[sqlstate] = f"{outcome} after {seconds:.2f} s, asked {first.asked} and {good.accepted}"
            row.expect(outcome == wanted, f"{sqlstate}: {outcome}, not {wanted}")
            row.expect(first.asked, f"{sqlstate}: the first host was never asked")
            row.longest = max(row.longest, seconds)
    return row


async def terminated(stage: Stage) -> Row:
    """
    An operator ends random sessions at random moments, under writers and readers.
    """
    row = Row(14, "pg_terminate_backend at random", cycles=stage.times(1000, 60))
    chance, seen, unclassified = random.Random(14), Counter[str](), Counter[str]()
    kills = 0
    async with stage.bank(max_pool_size=16) as (_, db, book):
        writers = Writers(db, book)
        is_over = False

        async def read_on() -> None:
            while not is_over:
                try:
                    await db.fetch("SELECT count(*) FROM effect")
                    seen["success"] += 1
                except Exception as error:  # noqa: BLE001  # its kind is what is asked for
                    seen[type(error).__name__] += 1
                    if not is_classified(error):
                        unclassified[f"{type(error).__name__}: {error}"] += 1

        async with asyncio.TaskGroup() as group, stage.cluster.connect(database=book.name) as admin, writers.running():
            for _ in range(4):
                group.create_task(read_on())
            victims = "SELECT pid FROM pg_stat_activity WHERE application_name = 'faults' AND datname = $1"
            while kills < row.cycles:
                pids = [found["pid"] for found in await admin.fetch(victims, book.name)]
                if pids:
                    kills += bool(await admin.fetchval("SELECT pg_terminate_backend($1)", chance.choice(pids)))
                await asyncio.sleep(chance.uniform(0.0, 0.03))
            is_over = True
        writers.report(row)
        row.figures["writers told"] = dict(writers.errors)
        row.figures["readers told"] = dict(seen)
        row.figures["of an unclassified kind"] = unclassified.total() + writers.unclassified.total()
        row.expect(not unclassified, f"unclassified: {dict(unclassified)}")
        row.expect(not used(db), f"{used(db)} slots are missing")
        await book.audit(row)
    return row


async def backend_stopped(stage: Stage) -> Row:
    """
    One backend is stopped in the middle of a statement (SIGSTOP).
    """
    row = Row(15, "one backend stopped", cycles=stage.times(5, 2))
    async with stage.bank(command_timeout=1.0, min_pool_size=2, max_pool_size=2) as (_, db, book):
        for _ in range(row.cycles):
            async with db.acquire() as con:
                pid = await con.fetchval("SELECT pg_backend_pid()")
                with _stopped(pid):
                    seconds, outcome = await timed(con.fetchval("SELECT 1"))
                    row.longest = max(row.longest, seconds)
                    row.expect(outcome == "QueryTimeout", f"told {outcome}")
                    back = time.monotonic()
                    await con.give_back()
                    row.figures["slot back"] = round(time.monotonic() - back + await slots_back(db), 3)
            row.expect(await book.ask("SELECT 1") == 1, "the server is gone")
            row.expect(await db.fetchval("SELECT 1") == 1, "no service afterwards")
        row.within("ended, deadline 1 s", row.longest, 1.5)
        row.within("slot back", row.figures["slot back"], 3.0)
    return row


@contextlib.contextmanager
def _stopped(pid: int) -> Any:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


async def server_stopped(stage: Stage) -> Row:
    """
    The whole server is stopped: it accepts connections and packets and says nothing. Calls of every kind, on TCP.
    """
    row = Row(16, "whole server stopped", cycles=stage.times(3, 1))
    limit = 1.0
    async with stage.bank(command_timeout=limit, connect_timeout=1.0, transaction_timeout=1.0) as (_, db, _):
        for _ in range(row.cycles):
            with frozen(stage.cluster):
                outcomes = await asyncio.gather(
                    *(timed(db.fetchval("SELECT 1")) for _ in range(16)),
                    *(timed(_transact(db, f"stopped {n}")) for n in range(4)),
                    *(timed(_hold(db)) for _ in range(4)),
                )
                row.longest = max(row.longest, *(seconds for seconds, _ in outcomes))
                row.figures["told"] = dict(Counter(outcome for _, outcome in outcomes))
                row.within("slots back after the last call", await slots_back(db), 3.0)
            row.within("served again", (await timed(db.fetchval("SELECT 1", timeout=10.0)))[0], 1.5)
        row.expect("success" not in row.figures["told"], "a stopped server cannot have answered")
        row.within("longest, deadline 1 s", row.longest, limit + 1.0)
    return row


async def _transact(db: Database, key: str) -> None:
    async with db.transaction() as tx:
        await tx.execute("INSERT INTO done VALUES ($1)", key)


async def _hold(db: Database) -> None:
    async with db.acquire(timeout=1.0) as con:
        await con.fetchval("SELECT 1")


async def backend_killed(stage: Stage) -> Row:
    """
    One backend is killed (SIGKILL): the server ends all sessions and recovers.
    """
    row = Row(17, "one backend killed, crash recovery", cycles=stage.times(20, 2))
    gaps = []
    async with stage.bank() as (_, db, book):
        writers = Writers(db, book)
        async with writers.running():
            for _ in range(row.cycles):
                await writers.acknowledged(20)
                before = time.monotonic()
                await crash(stage.cluster)
                await writers.acknowledged(8)
                gaps.append(_longest_gap(writers.moments, before))
        writers.report(row)
        await book.audit(row)
    row.figures["gap, recovery included, median"] = round(median(gaps), 3)
    row.within("gap, recovery included, worst", max(gaps), 3.0)
    return row


def _longest_gap(moments: list[float], since: float) -> float:
    seen = [since, *(moment for moment in moments if moment >= since)]
    return max((after - before for before, after in itertools.pairwise(seen)), default=0.0)


@dataclass
class Outage:
    """
    What 32 readers saw of an outage, and how often the pool tried to connect meanwhile.
    """

    done: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    longest: float = 0.0


async def _read_on(db: Database, seen: Outage, deadline: float, is_over: Callable[[], bool]) -> None:
    while not is_over():
        began = time.monotonic()
        try:
            await _read(db, deadline)
            seen.done.append(time.monotonic())
        except Exception as error:  # noqa: BLE001  # counted
            seen.failed[type(error).__name__] += 1
        seen.longest = max(seen.longest, time.monotonic() - began)
        await asyncio.sleep(0.002)


async def _read(db: Database, deadline: float) -> None:
    await db.fetchval("SELECT count(*) FROM account", timeout=deadline, read=True)


async def immediate_restart(stage: Stage) -> Row:
    """
    `pg_ctl restart -m immediate` under 32 readers: each read ends well within its deadline.
    """
    row = Row(22, "immediate restart under 32 readers", cycles=stage.times(10, 2))
    gaps, attempts = [], []
    async with stage.bank(max_pool_size=16, min_pool_size=16) as (proxy, db, _):
        seen, is_over = Outage(), False
        starting = proxy.when(Direction.REPLY, b"57P03\0", Action.PASS, times=None)
        async with asyncio.TaskGroup() as group:
            for _ in range(32):
                group.create_task(_read_on(db, seen, 10.0, lambda: is_over))
            for _ in range(row.cycles):
                await asyncio.sleep(0.5)
                await _full(db)  # a connect that is under way when the server goes is no attempt in the outage
                refused = proxy.refused + starting.hits
                down = await restart_immediately(stage.cluster)
                back = time.monotonic()
                attempts.append((proxy.refused + starting.hits - refused) / max(down, 1.0))
                while not seen.done or seen.done[-1] < back:  # noqa: ASYNC110  # readers append to it
                    await asyncio.sleep(0.005)
                gaps.append(seen.done[-1] - back)
            is_over = True
        row.longest, row.acknowledged = seen.longest, len(seen.done)
        row.expect(not seen.failed, f"reads failed: {dict(seen.failed)}")
    row.within("gap after the server is back, median", median(gaps), 0.5)
    row.within("gap after the server is back, worst", max(gaps), 1.0)
    row.within("connection attempts a second in the outage, all of the client's", max(attempts), 2.0)
    return row


async def outage(stage: Stage) -> Row:
    """
    Seconds without a server, 32 readers waiting: it is asked seldom, and service is back soon.
    """
    row = Row(22, "outage under 32 readers", cycles=stage.times(5, 1))
    seconds = 5.0 if not stage.is_short else 3.0
    gaps, rates = [], []
    async with stage.bank(max_pool_size=16, min_pool_size=4, health_check_interval=60.0) as (proxy, db, _):
        seen, is_over = Outage(), False
        async with asyncio.TaskGroup() as group:
            for _ in range(32):
                group.create_task(_read_on(db, seen, 20.0, lambda: is_over))
            for _ in range(row.cycles):
                await asyncio.sleep(0.5)
                # Accepted and at once cut, so that attempts can be counted.
                kept, proxy.upstream = proxy.upstream, "/nonexistent"
                proxy.cut()
                await asyncio.sleep(0.2)
                accepted = proxy.accepted
                await asyncio.sleep(seconds)
                rates.append((proxy.accepted - accepted) / seconds)
                proxy.upstream = kept
                back = time.monotonic()
                while not seen.done or seen.done[-1] < back:  # noqa: ASYNC110  # as above
                    await asyncio.sleep(0.005)
                gaps.append(seen.done[-1] - back)
            is_over = True
        row.longest, row.acknowledged = seen.longest, len(seen.done)
        row.expect(not seen.failed, f"reads failed: {dict(seen.failed)}")
    row.figures["connection attempts a second, all of the client's"] = [round(rate, 2) for rate in rates]
    row.expect(max(rates) <= 2.0, f"{max(rates):.1f} connection attempts a second")
    row.within("gap, worst", max(gaps), 1.0)
    return row


async def read_only_node(stage: Stage) -> Row:
    """
    Idle connections lead to a node that has become a standby: a write must reach the primary, and nobody hears of it.
    """
    row = Row(18, "idle connections lead to a standby", "async", cycles=1)
    async with couple(stage.cluster.binaries, is_synchronous=False) as both:
        book = await stage.book(both.primary)
        assert both.standby is not None
        await until_replayed(both.primary, both.standby)
        async with proxied(both.standby) as proxy, Database(configured(book.dsn(proxy))) as db:
            proxy.upstream = socket_of(both.primary.socket_folder, both.primary.port)
            outcomes = await asyncio.gather(
                *(timed(db.execute("INSERT INTO done VALUES ($1)", f"node {n}")) for n in range(16))
            )
            row.figures["told"] = dict(Counter(outcome for _, outcome in outcomes))
            row.longest = max(seconds for seconds, _ in outcomes)
            row.acknowledged = await book.ask("SELECT count(*) FROM done")
            row.expect(row.acknowledged == 16, f"{row.acknowledged} of 16 writes are stored")
            row.expect(row.figures["told"] == {"success": 16}, f"told {row.figures['told']}")
    return row


async def slow_lines(stage: Stage) -> Row:
    """
    Bytes come one by one, late, slowly: results are the same. Cut after so many bytes: an error, never half a result.
    """
    row = Row(21, "slow, sliced and limited lines", cycles=4)
    query = "SELECT n, repeat('x', 100) AS text FROM generate_series(1, $1::int) n"
    many = stage.times(200, 50)
    async with stage.bank(min_pool_size=1, max_pool_size=1, command_timeout=30.0, connect_timeout=10.0) as (
        proxy,
        db,
        _,
    ):
        plain = await db.fetch(query, many)
        for name, shape in (
            ("1 byte", Shape(slice=1)),
            ("200 ms", Shape(delay=0.2 if not stage.is_short else 0.05)),
            ("64 KB/s", Shape(rate=65_536.0, slice=1024)),
        ):
            proxy.shapes = {Direction.REQUEST: Shape(), Direction.REPLY: shape}
            proxy.cut()
            await served(db)
            began = time.monotonic()
            row.expect(await db.fetch(query, many) == plain, f"{name}: another result")
            row.figures[name] = round(time.monotonic() - began, 3)
        proxy.shapes = {direction: Shape() for direction in Direction}
        proxy.cut()
        await served(db)
        for link in proxy.links:
            link.shapes[Direction.REPLY].limit = link.passed[Direction.REPLY] + 1000
        seconds, outcome = await timed(db.fetch(query, many, timeout=5.0))
        row.figures["cut after 1000 bytes"] = outcome
        row.longest = seconds
        row.expect(outcome != "success", "half a result was a success")
        await served(db)
        row.expect(await db.fetch(query, many) == plain, "another result after the cut")
    return row


async def client_dies(stage: Stage, *, guard: str = "") -> Row:
    """
    A client is killed (-9) while its query runs: the query is gone from the server soon.
    """
    row = Row(23, "client killed with its query running", cycles=stage.times(5, 1))
    book = await stage.book()
    running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%orphan%' AND pid <> pg_backend_pid()"
    async with stage.cluster.connect(database=book.name) as con:
        for _ in range(row.cycles):
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.faults.client", "sleep", book.dsn(), guard, cwd=ROOT
            )
            async with asyncio.timeout(30.0):
                while not await con.fetchval(running):  # noqa: ASYNC110  # the server tells nobody
                    await asyncio.sleep(0.02)
            child.kill()
            began = time.monotonic()
            while await con.fetchval(running) and time.monotonic() - began < 10.0:  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.01)
            row.longest = max(row.longest, time.monotonic() - began)
            await child.wait()
    row.within("gone from the server", row.longest, 1.0)
    row.expect(row.longest < 10.0, "the query outlived its client")
    return row
