"""Reads the whole ledger in one snapshot and tells whether every figure follows from the trades, to the last digit.

It reads; what must hold is decided in `replay` and in the statements under sql/audit. It prints nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from ava.migrations import MigrationError, status
from ava.replay import Findings, Mismatch, Replay
from ava.sql import statement
from magnus import QueryPriority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from magnus import Database, Transaction

__all__ = ["AuditError", "AuditReport", "Mismatch", "audit"]

_PAGE: Final = 5_000
"""Rows read and replayed at a time: a dozen milliseconds in which the event loop is busy."""
_BY_QUERY: Final = (("order_trade", "order_trade"), ("trade_order", "trade_order"), ("unique_key", "unique_keys"))


class AuditError(Exception):
    """
    The ledger cannot be read; the text says why and what to do.
    """


@dataclass(frozen=True, slots=True)
class AuditReport:
    """
    What was found, and what was looked at.

    Attributes:
        mismatches: The first of them, at most as many as asked for.
        mismatch_count: All of them.
        elapsed: Seconds.
    """

    mismatches: tuple[Mismatch, ...]
    mismatch_count: int
    accounts: int
    trades: int
    lots: int
    positions: int
    movements: int
    orders: int
    imports: int
    elapsed: float

    @property
    def is_clean(self) -> bool:
        return self.mismatch_count == 0


async def audit(
    db: Database, *, limit: int = 100, progress: Callable[[str, int, int], None] | None = None
) -> AuditReport:
    """
    Replay every trade and compare: amounts, first-in-first-out lots, positions, realised profit, cash, orders, keys.

    It reads one snapshot, so it may run beside any traffic, and writes nothing. `limit` bounds the mismatches that are
    listed, not those that are counted. `progress` is called with "trades", how many are done, and their total.

    Raises:
        AuditError: the schema is not current, or the user may not take role ava_operator.
    """
    begin = time.perf_counter()
    try:
        if not (await status(db)).is_current:
            raise AuditError("the schema is not current: migrate first")
        async with db.transaction(
            isolation="repeatable_read",
            readonly=True,
            priority=QueryPriority.BACKGROUND,
            settings={"role": "ava_operator"},
        ) as tx:
            return await _examine(tx, Findings(limit), progress or _silent, begin)
    except MigrationError as error:
        raise AuditError(str(error)) from error
    except (asyncpg.InsufficientPrivilegeError, asyncpg.InvalidParameterValueError) as error:
        raise AuditError(f"{error}; audit as the owner of AVA's tables, after migrating") from None


async def _examine(
    tx: Transaction, findings: Findings, progress: Callable[[str, int, int], None], begin: float
) -> AuditReport:
    await tx.execute(statement("lift_transaction_limit"))
    instruments = {row["id"]: row["currency"] for row in await tx.fetch(statement("audit/instruments"))}
    totals = await tx.fetchrow(statement("audit/totals"))
    assert totals is not None
    replay = Replay(instruments, findings)
    async for rows in _pages(tx, "audit/trades", 0):
        replay.feed_trades(rows)
        progress("trades", replay.trades, totals["trades"])
    replay.end_trades()
    async for rows in _pages(tx, "audit/lots", 0):
        replay.feed_lots(rows)
    replay.end_lots()
    async for rows in _pages(tx, "audit/positions", 0, 0):
        replay.feed_positions(rows)
    replay.end_positions()
    async for rows in _pages(tx, "audit/accounts", 0):
        replay.feed_accounts(rows)
    replay.end_accounts()
    for check, name in _BY_QUERY:
        await _query(tx, findings, check, name)
    return AuditReport(
        mismatches=tuple(findings.kept),
        mismatch_count=findings.count,
        accounts=replay.accounts,
        trades=replay.trades,
        lots=replay.lots,
        positions=replay.positions,
        movements=replay.movements,
        orders=totals["orders"],
        imports=totals["imports"],
        elapsed=time.perf_counter() - begin,
    )


async def _pages(tx: Transaction, name: str, *after: int) -> AsyncIterator[list[Any]]:
    """
    Yield a statement's rows page by page; its first parameters are the key to start after, its first columns the key.
    """
    while rows := await tx.fetch(statement(name), *after, _PAGE):
        yield rows
        after = tuple(rows[-1][: len(after)])


async def _query(tx: Transaction, findings: Findings, check: str, name: str) -> None:
    rows = await tx.fetch(statement(f"audit/{name}"), findings.limit)
    for row in rows:
        findings.add(check, row["account_id"], row["subject"], row["expected"], row["found"])
    if rows:
        findings.count += rows[0]["total"] - len(rows)


def _silent(stage: str, done: int, total: int) -> None:
    """
    Progress that nobody watches.
    """
