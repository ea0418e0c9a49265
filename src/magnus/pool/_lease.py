"""A connection in a caller's hands, and what is done to it between two callers; knows no other connection."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from magnus._effects import FULL_RESET, Action, Reset

if TYPE_CHECKING:
    from magnus._driver import Connection, LeaseReclaimed
    from magnus.lanes import QueryPriority
    from magnus.pool._leaks import Holding
    from magnus.pool._slots import Slot

EVERYTHING: Final = Reset(Action.FULL, FULL_RESET)
_TURNS: Final = 10  # of the event loop: the server's farewell and the end of its stream take a few


class Lease:
    """
    One connection in one caller's hands; the object itself is the proof of ownership.

    Attributes:
        con: The driver's connection.
        lane: The lane it was given to.
        acquired_at: When (monotonic seconds).
        reset: What the session needs before the next caller; set it to less than everything only when nothing that
            ran on it can have left more.
        is_released: It was given back; `con` belongs to somebody else.
        steps: Counts what runs on it: odd while something does.
        text: The statement that runs, or ran last; empty when nobody said.
        holding: What the pool notes of it while user code holds it, None for a single statement's.
        reclaimed: Why the pool took it back, None when it did not.
    """

    __slots__ = (
        "__weakref__", "acquired_at", "con", "holding", "is_released", "lane", "reclaimed", "reset", "slot", "steps",
        "text",
    )  # fmt: skip

    def __init__(self, slot: Slot, lane: QueryPriority, acquired_at: float) -> None:
        self.slot = slot
        self.con: Connection = slot.con
        self.lane = lane
        self.acquired_at = acquired_at
        self.reset = EVERYTHING
        self.is_released = False
        self.steps = 0
        self.text = ""
        self.holding: Holding | None = None
        self.reclaimed: LeaseReclaimed | None = None


async def has_settled(slot: Slot) -> bool:
    """
    Let the event loop see what waits in the socket of an idle connection. False: something is still unexplained.
    """
    con = slot.con
    for _ in range(_TURNS):
        if con.is_closed() or not slot.probe():
            return True
        await asyncio.sleep(0)
    return False


async def is_answering(con: Connection, limit: float) -> bool:
    """
    Ask the server for a sign of life, for `limit` seconds at most.
    """
    try:
        async with asyncio.timeout(limit):
            await con.execute("SELECT 1")
    except Exception:  # noqa: BLE001  # whatever it is, this connection is not for use
        return False
    return True


async def is_reset(slot: Slot, reset: Reset, limit: float) -> bool:
    """
    Reset the session, in `limit` seconds at most. False: the connection must not be used again.
    """
    con: Connection = slot.con
    try:
        async with asyncio.timeout(limit):
            if reset.action is Action.FULL or con.is_in_transaction():
                await con.reset()
            else:
                await con.execute(reset.sql)
    except Exception:  # noqa: BLE001  # whatever it is, this session is not for the next caller
        return False
    # A BEGIN whose caller was cancelled may have been answered after the driver looked whether to roll back.
    if con.is_closed() or con.is_in_transaction():
        return False
    if reset.action is Action.FULL or "RESET ALL" in reset.sql:
        slot.session.reset()
    return True
