"""Tells others what was executed: reads the outbox, hands each event to a receiver, marks it; it writes no event.

An event is in the outbox exactly when its trade is in the books, for both were written in one transaction. It is told
at least once: a relay that stops between telling and its COMMIT tells it again, so a receiver keeps the `id` of what it
has dealt with. Several relays may run; each takes events that no other one holds.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ava.sql import statement
from magnus import QueryPriority

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from magnus import Database

BATCH: Final = 100
_OPERATOR: Final = {"role": "ava_operator"}


@dataclass(frozen=True, slots=True)
class Event:
    """
    One event. `id` names it for ever; a smaller one of the same account happened before.
    """

    id: int
    account_id: int
    kind: str
    payload: dict[str, Any]
    created_at: datetime

    def to_json(self) -> str:
        """
        Return the event as one line of JSON.
        """
        head = {"id": self.id, "kind": self.kind, "created_at": self.created_at.isoformat()}
        return json.dumps({**head, **self.payload})


async def relay(db: Database, tell: Callable[[Event], Awaitable[None]]) -> int:
    """
    Tell the oldest pending events, at most `BATCH`, and return how many there were.

    What `tell` raises is raised, and the events of this call are told again by the next one.
    """
    async with db.transaction(priority=QueryPriority.BACKGROUND, settings=_OPERATOR) as tx:
        rows = await tx.fetch(statement("queries/outbox_next"), BATCH)
        for row in rows:
            await tell(Event(row["id"], row["account_id"], row["kind"], json.loads(row["payload"]), row["created_at"]))
        if rows:
            await tx.execute(statement("queries/outbox_published"), [row["id"] for row in rows])
    return len(rows)


async def follow(db: Database, tell: Callable[[Event], Awaitable[None]], *, interval: float) -> None:
    """
    Tell events as they come, until cancelled; with nothing to tell, look again every `interval` seconds.

    Raises:
        Exception: what `relay` raises; nothing is lost, and it may be called again.
    """
    while True:
        if await relay(db, tell) < BATCH:
            await asyncio.sleep(interval)


async def expire(db: Database, after: float) -> int:
    """
    Delete events that were told more than `after` seconds ago, and return how many.
    """
    async with db.transaction(priority=QueryPriority.BACKGROUND, settings=_OPERATOR) as tx:
        tag = await tx.execute(statement("queries/outbox_expire"), after)
    return int(tag.rpartition(" ")[2])
