"""What happens to a leader of Patroni, under load: handed over, killed, brought back, its Patroni stopped.

Patroni decides and promotes; what is judged is what the layer told its callers meanwhile.
"""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from magnus.testing import send
from tests.faults.stage import WRITERS, Row
from tests.patroni.load import load
from tests.patroni.members import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.patroni.load import Load
    from tests.patroni.members import Group, Member

BACK = 15.0
"""Seconds within which writes must be back once the new leader takes them: generous, this machine runs everything."""
BESIDE = 5.0
"""Seconds that a leader whose Patroni stands still is left beside the new one."""
_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


async def switchover(group: Group) -> Row:
    """
    A planned one, by Patroni's API.
    """
    row = Row(1, "planned switchover", "sync")
    async with load(group, row) as running:
        old, began = await group.leader(), time.monotonic()
        watching = asyncio.create_task(group.new_leader(old))
        await group.order(old, "POST", "switchover", {"leader": old.name})
        _, moment = await watching
        await _back(row, running, began, moment)
        row.figures["all three again"] = round(await group.whole(), 2)
    return row


async def killed(group: Group) -> Row:
    """
    The leader's server and its Patroni are killed, with a log that no standby has; then they come back.
    """
    row = Row(2, "leader killed with unsent log, and back", "sync")
    async with load(group, row) as running:
        old = await group.leader()
        send(old, signal.SIGSTOP, "walsender")  # type: ignore[arg-type]  # it has a pid and data

        async def is_stuck() -> bool:
            return bool(await group.ask(old, _WAITING) >= WRITERS // 2)

        await until(is_stuck, 30.0, "commits wait for a standby")
        await _fail_over(group, row, running, old)
        await _bring_back(group, row, old)
    return row


async def stalled(group: Group) -> Row:
    """
    The leader's Patroni stands still, and without a watchdog its server goes on; then Patroni goes on too.
    """
    row = Row(3, "leader's Patroni stands still, no watchdog", "sync")
    async with load(group, row) as running:
        old, began = await group.leader(), time.monotonic()
        old.signal(signal.SIGSTOP)
        try:
            _, moment = await group.new_leader(old)
            row.figures["new leader after"] = round(moment - began, 2)
            await asyncio.sleep(BESIDE)  # how long there are two is the fault's own size
            row.expect(await group.is_primary(old), "the old one does not go on, so there were never two")
            row.figures["acknowledged while there were two"] = sum(each >= moment for each in running.writers.moments)
        finally:
            woken = time.monotonic()
            old.signal(signal.SIGCONT)
        await running.writers.acknowledged(20, 120.0)
        row.within("writes back after the old one gave up", running.back(woken), BACK)
        row.figures["all three again"] = round(await group.whole(), 2)
    return row


async def asynchronous(group: Group) -> Row:
    """
    As `killed`, without synchronous_mode: what that setting is for.
    """
    row = Row(4, "leader killed, synchronous_mode off", "async")
    async with _asynchronous(group):
        async with load(group, row, may_lose=True) as running:
            old = await group.leader()
            send(old, signal.SIGSTOP, "walsender")  # type: ignore[arg-type]
            await running.writers.acknowledged(50)
            await _fail_over(group, row, running, old)
            await _bring_back(group, row, old, is_synchronous=False)
        row.expect(row.lost, "nothing was lost, so the rows above show nothing")
    return row


@asynccontextmanager
async def _asynchronous(group: Group) -> AsyncIterator[None]:
    await group.order(await group.leader(), "PATCH", "config", {"synchronous_mode": False})
    try:
        await group.whole(is_synchronous=False)
        yield
    finally:
        await group.order(await group.leader(), "PATCH", "config", {"synchronous_mode": True})
        await group.whole()


async def _fail_over(group: Group, row: Row, running: Load, old: Member) -> None:
    began = time.monotonic()
    await asyncio.to_thread(old.kill)
    _, moment = await group.new_leader(old)
    await _back(row, running, began, moment)


async def _back(row: Row, running: Load, began: float, moment: float) -> None:
    await running.writers.acknowledged(50, 120.0)
    row.figures["new leader after"] = round(moment - began, 2)
    row.within("writes back after that", running.back(moment), BACK)


async def _bring_back(group: Group, row: Row, old: Member, *, is_synchronous: bool = True) -> None:
    told = len(old.log)
    old.start()
    row.figures["old leader streams after"] = round(await group.whole(is_synchronous=is_synchronous), 2)
    row.figures["by pg_rewind"] = "running pg_rewind" in old.log[told:]
    row.expect(not await group.is_primary(old), "the old leader is one again")
    row.expect(row.figures["by pg_rewind"], "its log was not ahead, so nothing was rewound")


FAULTS = (switchover, killed, stalled, asynchronous)
