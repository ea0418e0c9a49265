"""Finds out which generated accounts a server has and what they hold, by asking it as they would."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final, Protocol

from ava.workload.mix import Operation
from ava.workload.requests import Holding, Market, Request
from ava.workload.verdict import Answer, reason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_ENOUGH: Final = 300
"""Accounts of one run: enough that most requests do not meet on one row."""

_AT_ONCE: Final = 20
_LARGEST: Final = 1 << 40
_OK: Final = 200
_UNAUTHENTICATED: Final = 401


class DiscoveryError(Exception):
    """
    The server cannot be driven; the text says why. `is_unreachable`: nothing answers there.
    """

    def __init__(self, text: str, *, is_unreachable: bool = False) -> None:
        super().__init__(text)
        self.is_unreachable = is_unreachable


class Sender(Protocol):
    """
    What sends a request.
    """

    async def send(self, request: Request, /) -> Answer: ...


async def discover(api: Sender, *, enough: int = _ENOUGH) -> Market:
    """
    Return up to `enough` accounts, busiest first, that hold something. Generated accounts are numbered from 1.

    Raises:
        DiscoveryError: nothing answers, or the server knows none of these tokens.
    """
    answer = await _positions(api, 1)
    if answer.status == _UNAUTHENTICATED:
        raise DiscoveryError("the server does not know the tokens of this seed: load data there, or name its --seed")
    count = await last_known(lambda account: _is_known(api, account))
    gate = asyncio.Semaphore(_AT_ONCE)

    async def ask(account: int) -> tuple[Holding, ...]:
        async with gate:
            return holdings((await _positions(api, account)).body)

    accounts = range(1, min(count, enough) + 1)
    found = await asyncio.gather(*(ask(account) for account in accounts))
    market = {account: held for account, held in zip(accounts, found, strict=True) if held}
    if not market:
        raise DiscoveryError("no account holds anything to trade: load data first")
    return market


async def last_known(is_known: Callable[[int], Awaitable[bool]]) -> int:
    """
    Return the largest n for which 1 … n are known, by doubling and halving; at least 1.
    """
    low, high = 1, 2
    while high < _LARGEST and await is_known(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        if await is_known(middle):
            low = middle
        else:
            high = middle
    return low


async def _is_known(api: Sender, account: int) -> bool:
    return (await _positions(api, account)).status != _UNAUTHENTICATED


async def _positions(api: Sender, account: int) -> Answer:
    answer = await api.send(Request(Operation.POSITIONS, account, "GET", "/api/positions"))
    if not answer.status:
        raise DiscoveryError(f"nothing answers there ({answer.error}); start it with: ava serve", is_unreachable=True)
    if answer.status not in {_OK, _UNAUTHENTICATED}:
        raise DiscoveryError(f"GET /api/positions: {reason(answer)}; is that AVA, and is it ready?")
    return answer


def holdings(body: bytes) -> tuple[Holding, ...]:
    """
    Return what a positions page shows as held and quoted.
    """
    items = json.loads(body)["items"]
    return tuple(Holding(item["symbol"], item["price"]) for item in items if item["price"] is not None)
