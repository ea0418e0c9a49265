"""AVA's operations called in this process, as a load: buys, sales, positions, trades, reports, each in its lane."""

from __future__ import annotations

import itertools
import secrets
import time
from array import array
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, cast

from ava.services import booking, reporting
from ava.services.rules import Side
from ava.workload.mix import MIX, Operation, zipf
from ava.workload.requests import Holding
from magnus import QueryPriority, scope

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

    from ava.workload.requests import Market
    from magnus import Database

LANES: Final[Mapping[Operation, QueryPriority]] = {
    Operation.BUY: QueryPriority.CRITICAL, Operation.SELL: QueryPriority.CRITICAL,
    Operation.POSITIONS: QueryPriority.HIGH, Operation.TRADES: QueryPriority.NORMAL,
    Operation.REPORT: QueryPriority.LOW,
}  # fmt: skip
WEIGHTS: Final[Mapping[str, float]] = {operation.value: float(MIX[operation]) for operation in LANES}
_PAGE: Final = 50
_ACCOUNTS: Final = 300
_QUANTITIES: Final = (Decimal(1), Decimal("0.5"), Decimal("0.25"))

_MARKET: Final = """
select p.account_id, i.symbol, q.price::text as price
from positions as p
inner join instruments as i on i.id = p.instrument_id
inner join quotes as q on q.instrument_id = p.instrument_id
where p.quantity > 0 and p.account_id <= $1
order by p.account_id, i.symbol
"""


async def market(db: Any) -> Market:
    """
    Return the first accounts and what they hold.
    """

    async def read(tx: Any) -> Any:
        return await tx.fetch(_MARKET, _ACCOUNTS)

    rows = await db.run_in_transaction(read, readonly=True, settings={"role": "ava_operator"})
    found: Market = {}
    for row in rows:
        found[row["account_id"]] = (*found.get(row["account_id"], ()), Holding(row["symbol"], row["price"]))
    return found


class Mix:
    """
    One operation after another on a database that is plain or Magnus'; it notes when each of them was answered.

    Attributes:
        answered: Moments of the monotonic clock.
    """

    def __init__(self, db: Any, found: Market) -> None:
        self._db = cast("Database", db)
        self._market = found
        self._accounts = zipf(tuple(found))
        self._run = secrets.token_hex(4)
        self._numbers = itertools.count()
        self.answered: array[float] = array("d")

    async def run(self, operation: str, rng: Random) -> None:
        kind = Operation(operation)
        with scope(LANES[kind]):
            await self._do(kind, rng)
        self.answered.append(time.monotonic())

    async def _do(self, kind: Operation, rng: Random) -> None:
        account = self._accounts.draw(rng)
        if kind in {Operation.BUY, Operation.SELL}:
            holding = rng.choice(self._market[account])
            side = Side.BUY if kind is Operation.BUY else Side.SELL
            order = booking.Order(holding.symbol, side, rng.choice(_QUANTITIES))
            await booking.book(self._db, account, f"proof-{self._run}-{next(self._numbers)}", order)
        elif kind is Operation.POSITIONS:
            await reporting.positions(self._db, account)
        elif kind is Operation.TRADES:
            await reporting.trades(self._db, account, reporting.TradeFilter(), after=None, limit=_PAGE)
        else:
            today = datetime.now(UTC).date()
            await reporting.monthly(self._db, account, today.replace(year=today.year - 1, day=1), today)
