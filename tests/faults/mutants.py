"""Each protection switched off in this process, and the fault that must notice: one that does not is a fault of ours.

A mutant is caught when its fault fails, misses a bound of time, or hangs.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import asyncpg

from magnus import Database, _commit, _driver, retry
from magnus._backoff import Budget
from magnus._hosts import first_of
from magnus._marks import Mark
from magnus._routing import Position
from magnus.pool import _keeper, _state
from magnus.pool._codel import Codel
from magnus.pool._operations import Operations
from magnus.pool._sweep import Sweep
from tests.faults import detection, durability, overload, standbys
from tests.faults.stage import Row, keyed, keyless, move, patched
from tests.unit.pool.test_brown_out import CAPACITY, SECONDS, Model

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from tests.faults.stage import Stage

PATIENCE = 20.0


@dataclass(frozen=True)
class Mutant:
    """
    A protection, how it is switched off, and the fault that must notice.
    """

    protection: str
    off: Callable[[], AbstractContextManager[Any]]
    fault: Callable[[Stage], Awaitable[Row]]


async def _cancellable(con: Any, *, limit: float, last: str = "", **_: Any) -> None:
    await con.execute(f"{last}; COMMIT" if last else "COMMIT", timeout=limit)


async def _impatient(con: Any, *, limit: float, last: str = "", **_: Any) -> None:
    """
    The driver's own timeout around COMMIT, with its CancelRequest; its answer is believed.
    """
    await con.execute(f"{last}; COMMIT" if last else "COMMIT", timeout=min(limit, 0.5))


def _denying(error: Exception, con: Any) -> None:
    """
    No answer is taken for a refusal.
    """
    con.terminate()
    raise asyncpg.InterfaceError("COMMIT failed") from error


async def _believing(con: Any, *, last: str = "", **_: Any) -> None:
    """
    No answer is taken for a good one.
    """
    with suppress(Exception):
        await con.execute(f"{last}; COMMIT" if last else "COMMIT")


def _deaf(self: Any, fields: object, last_query: str) -> None:
    """
    The server's warning that it gave up waiting for the standby is not heard.
    """


async def remembering(db: Database, key: str, chance: random.Random) -> bool:
    """
    The unit of work, with the transaction's id noted down.
    """
    async with db.transaction() as tx:
        claimed = await tx.fetchval("INSERT INTO done VALUES ($1) ON CONFLICT DO NOTHING RETURNING key", key)
        if claimed is not None:
            durability.XIDS[key] = await tx.fetchval("SELECT pg_current_xact_id()::text")
            await move(tx, key, chance)
    return claimed is None


async def by_xid(db: Database, key: str, chance: random.Random) -> bool:
    """
    Repeat a unit unless the server says that its transaction is committed; after a failover or a crash that may be
    another's id.
    """
    if await db.fetchval("SELECT pg_xact_status($1::text::xid8)", durability.XIDS[key]) == "committed":
        return True
    return await remembering(db, key, chance)


def _patch(owner: Any, name: str, value: Any) -> Callable[[], AbstractContextManager[Any]]:
    return partial(patched, owner, name, value)


def _on_the_second(_: type[Position], token: str) -> Position:
    """
    A token's place is taken for one on the timeline after the first promotion.
    """
    return Position(2, int(token.partition("-")[2], 16))


def _at_once(*_: object, **__: object) -> float:
    return 0.0


async def modelled(_stage: Stage) -> Row:
    """
    Fault 26 without a clock: whether a queue without shedding recovers by itself is chance on a real machine.
    """
    row = Row(26, "brown-out at 90 % load, modelled")
    for penalty in (0.0, 0.01, 0.02, 0.05):
        served = Model(0.9 * CAPACITY, penalty).run()
        row.expect(min(served[4:SECONDS]) >= 0.95 * 0.9 * CAPACITY, f"served in each second: {served[:SECONDS]}")
    return row


few = {"cycles": 8}
MUTANTS = (
    Mutant(
        "A unit that is repeated after an unknown outcome has a key",
        nullcontext, partial(durability.commit_reply_cut, unit=keyless, **few),
    ),
    Mutant(
        "COMMIT without an answer is not called a success",
        _patch(_commit, "commit", _believing), partial(durability.commit_request_cut, **few),
    ),
    Mutant(
        "COMMIT without an answer is not called a failure",
        _patch(_commit, "_judge_error", _denying), partial(durability.commit_reply_cut, unit=keyed, **few),
    ),
    Mutant(
        "COMMIT that was answered with ROLLBACK is no success",
        _patch(_commit, "_judge_tag", lambda *_, **__: None), durability.swallowed,
    ),
    Mutant(
        "COMMIT is never cancelled, whoever cancels its caller",
        _patch(_commit, "commit", _cancellable), durability.sync_cancel,
    ),
    Mutant(
        "COMMIT has no timer that sends a CancelRequest",
        _patch(_commit, "commit", _impatient), durability.sync_cancel,
    ),
    Mutant(
        "The server's warning that it stopped waiting for the standby is heard",
        _patch(_driver.PooledConnection, "_process_log_message", _deaf), durability.sync_cancel,
    ),
    Mutant(
        "The key is believed, not the transaction's id",
        nullcontext, partial(durability.async_loss, unit=remembering, resolve=by_xid),
    ),
    Mutant(
        "The key is believed, not the id on the same timeline",
        nullcontext, partial(durability.ids_used_again, resolve=by_xid),
    ),
    Mutant(
        "Reads that are declared so are repeated",
        _patch(retry, "may_repeat", lambda *_, **__: False), detection.immediate_restart,
    ),
    Mutant(
        "Repeats have a budget",
        _patch(Budget, "take", lambda *_, **__: True), overload.everything_fails,
    ),
    Mutant(
        "A write that meets a standby has all connections replaced",
        _patch(Operations, "refused_write", lambda *_: None), detection.read_only_node,
    ),
    Mutant(
        "A read waits for what its scope wrote",
        _patch(Mark, "wrote", lambda _: None), standbys.own_writes,
    ),
    Mutant(
        "Places on two timelines are not compared",
        _patch(Position, "parse", classmethod(_on_the_second)), standbys.other_timeline,
    ),
    Mutant(
        "The next host is tried while the first one is silent",
        _patch(_driver, "first_of", partial(first_of, stagger=60.0)), detection.first_host_silent,
    ),
    Mutant(
        "A statement ends at its deadline",
        _patch(Sweep, "_fire", lambda _: None), detection.backend_stopped,
    ),
    Mutant(
        "Idle connections are probed, unacknowledged data is bounded",
        _patch(_driver, "guard_socket", lambda _: None), detection.half_open,
    ),
    Mutant(
        "Connects are paced in an outage",
        _patch(_state, "probe_delay", _at_once), detection.outage,
    ),
    Mutant(
        "The server looks whether its client is still there",
        nullcontext, partial(detection.client_dies, guard="0"),
    ),
    Mutant(
        "A standing queue is shed",
        _patch(Codel, "is_shed", lambda *_, **__: False), modelled,
    ),
    Mutant(
        "A slot that served nobody in time is no sign that the queue moves",
        _patch(Codel, "wasted", lambda _: None), modelled,
    ),
    Mutant(
        "A cancelled caller's slot comes back",
        _patch(_keeper.Keeper, "finish_release", lambda *_: None), overload.cancel_storm,
    ),
)  # fmt: skip


async def hunt(stage: Stage, mutant: Mutant) -> tuple[bool, str, float]:
    """
    Play the fault with the protection off; return whether it was noticed, by what, and the seconds it took.
    """
    began = time.monotonic()
    with mutant.off():  # outside of what is caught: a protection that is not there any more is no mutant
        try:
            async with asyncio.timeout(PATIENCE):
                row = await mutant.fault(stage)
        except TimeoutError:
            return True, "it hangs", time.monotonic() - began
    seen = [*row.failures, *row.late]
    return bool(seen), seen[0].splitlines()[-1][:120] if seen else row.note, time.monotonic() - began
