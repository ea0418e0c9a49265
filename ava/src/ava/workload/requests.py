"""The requests of the workload as they go over the wire: seeded, pure, no I/O."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Final

from ava.workload.mix import MIX, Operation, Weighted, zipf

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REPEATED: Final = 0.1
"""Share of the requests with an Idempotency-Key that are sent twice."""

_FOLLOWED: Final = 0.5
"""Share of the requests for trades that go on from a page seen before, when there is one."""

_PAGE: Final = "50"
_IMPORT_ROWS: Final = 5
_QUANTITIES: Final = ("1", "0.5", "0.25")  # of buys and sales alike, so that cash and holdings last
_IDEMPOTENT: Final = frozenset({Operation.BUY, Operation.SELL, Operation.IMPORT})


@dataclass(frozen=True, slots=True)
class Holding:
    """
    What an account holds, as its positions page says; `price` is the quote.
    """

    symbol: str
    price: str


Market = dict[int, tuple[Holding, ...]]
"""The accounts of a run, busiest first, and what each holds."""


@dataclass(frozen=True, slots=True)
class Request:
    """
    One HTTP request of one account. `is_repeated`: the same is to be sent once more, and answered the same.
    """

    operation: Operation
    account_id: int
    method: str
    path: str
    query: Mapping[str, str] | None = None
    body: bytes | None = None
    content_type: str | None = None
    idempotency_key: str | None = None
    is_repeated: bool = False

    @property
    def may_be_refused(self) -> bool:
        """
        True when the trading rules may say no.
        """
        return self.operation in _IDEMPOTENT


class Workload:
    """
    An endless row of requests. Seed and market fix it, apart from the run's name in keys and from the pages that the
    answers lead to: keys must be new in every run, or the server would only repeat itself.
    """

    def __init__(
        self, market: Market, *, seed: int, run: str | None = None, mix: Mapping[Operation, int] = MIX
    ) -> None:
        self._market = market
        self._rng = Random(f"{seed} workload")  # noqa: S311  # reproducible, not secret
        self._run = run or secrets.token_hex(4)
        self._operations = Weighted(tuple(mix), tuple(mix.values()))
        self._accounts = zipf(tuple(market))
        self._cursors: dict[int, str] = {}
        self._count = 0

    def next(self) -> Request:
        """
        Return the next request.
        """
        return self.make(self._operations.draw(self._rng))

    def make(self, operation: Operation) -> Request:
        """
        Return a request of that kind.
        """
        self._count += 1
        account = self._accounts.draw(self._rng)
        match operation:
            case Operation.BUY | Operation.SELL:
                return self._order(operation, account)
            case Operation.IMPORT:
                return self._import(account)
            case Operation.POSITIONS:
                return Request(operation, account, "GET", "/api/positions")
            case Operation.TRADES:
                return Request(operation, account, "GET", "/api/trades", query=self._page(account))
            case Operation.REPORT:
                return Request(operation, account, "GET", "/api/reports/monthly")

    def learn(self, request: Request, body: bytes) -> bool:
        """
        Remember from an answer where the account's next page of trades begins; False when it is not readable.
        """
        if request.operation is not Operation.TRADES:
            return True
        try:
            cursor = json.loads(body)["next_cursor"]
        except (ValueError, TypeError, KeyError):
            return False
        if cursor is None:
            self._cursors.pop(request.account_id, None)
        else:
            self._cursors[request.account_id] = cursor
        return True

    def _page(self, account: int) -> dict[str, str]:
        cursor = self._cursors.get(account)
        if cursor is not None and self._rng.random() < _FOLLOWED:
            return {"limit": _PAGE, "cursor": cursor}
        return {"limit": _PAGE}

    def _order(self, operation: Operation, account: int) -> Request:
        holding = self._rng.choice(self._market[account])
        quantity = self._rng.choice(_QUANTITIES)
        order = {"symbol": holding.symbol, "side": operation.value, "quantity": quantity}
        return self._keyed(operation, account, "/api/trades", json.dumps(order).encode(), "application/json")

    def _import(self, account: int) -> Request:
        rows = [self._row(account, number) for number in range(_IMPORT_ROWS)]
        return self._keyed(Operation.IMPORT, account, "/api/import", csv_file(rows), "text/csv")

    def _row(self, account: int, number: int) -> dict[str, str]:
        holding = self._rng.choice(self._market[account])
        return {
            "external_id": f"drive-{self._run}-{self._count}-{number}",
            "symbol": holding.symbol,
            "side": "buy",
            "quantity": "0.1",
            "price": holding.price,
            "fee": "0.01",
            "executed_at": "2026-01-05T10:00:00Z",
        }

    def _keyed(self, operation: Operation, account: int, path: str, body: bytes, content_type: str) -> Request:
        return Request(
            operation,
            account,
            "POST",
            path,
            body=body,
            content_type=content_type,
            idempotency_key=f"drive-{self._run}-{self._count}",
            is_repeated=self._rng.random() < REPEATED,
        )


def csv_file(rows: Sequence[Mapping[str, str]]) -> bytes:
    """
    Return rows as the file that POST /api/import takes. Values hold no comma, quote or line end.
    """
    columns = list(rows[0])
    lines = [",".join(columns), *(",".join(row[column] for column in columns) for row in rows)]
    return ("\n".join(lines) + "\n").encode()
