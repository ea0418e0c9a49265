"""AVA's mix for `magnus bench`, under the name "ava": the same requests that `ava drive` sends."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from ava.tokens import demo_token
from ava.workload import discovery, verdict
from ava.workload.mix import MIX, Operation
from ava.workload.requests import Workload
from ava.workload.runner import Api, connect
from ava.workload.verdict import Verdict
from magnus import ConfigError
from magnus.loadtest import Refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from random import Random

    from ava.workload.requests import Market
    from magnus.loadtest import Target

_LANES: Final = {
    Operation.BUY: "critical", Operation.SELL: "critical", Operation.POSITIONS: "high", Operation.TRADES: "normal",
    Operation.REPORT: "low", Operation.IMPORT: "background",
}  # fmt: skip


class AvaMix:
    """
    Buys, sales, positions, trades, reports and imports over HTTP; the target is the URL of a running AVA.

    Options: `seed`, the one that its data was generated with (42).
    """

    def __init__(self, options: Mapping[str, str]) -> None:
        text = options.get("seed", "42")
        if not text.isdecimal():
            raise ConfigError("seed", text, "must be a whole number")
        self._seed = int(text)
        self.weights: Mapping[str, float] = {operation.value: float(part) for operation, part in MIX.items()}

    def lane(self, operation: str) -> str:  # of the protocol
        return _LANES[Operation(operation)]

    async def prepare(self, target: Target) -> None:
        """
        See that AVA answers there and knows the accounts.

        Raises:
            ConfigError: nothing answers, or it knows none of the tokens.
        """
        async with self._connected(target) as api:
            await self._market(api, target)

    @asynccontextmanager
    async def open(self, target: Target, process: int) -> AsyncIterator[_Trading]:
        async with self._connected(target) as api:
            market = await self._market(api, target)
            yield _Trading(api, Workload(market, seed=self._seed + process))

    @asynccontextmanager
    async def _connected(self, target: Target) -> AsyncIterator[Api]:
        if not target.address.startswith(("http://", "https://")):
            raise ConfigError("target", "(hidden)", "must be the URL of a running AVA, like http://127.0.0.1:8000")
        async with connect(
            target.address, lambda account: demo_token(self._seed, account), concurrency=target.connections
        ) as api:
            yield api

    async def _market(self, api: Api, target: Target) -> Market:
        try:
            return await discovery.discover(api)
        except discovery.DiscoveryError as error:
            raise ConfigError("target", target.address, str(error)) from None


class _Trading:
    def __init__(self, api: Api, workload: Workload) -> None:
        self._api = api
        self._workload = workload

    async def run(self, operation: str, rng: Random) -> None:  # noqa: ARG002  # the workload draws by its own
        request = self._workload.make(Operation(operation))
        answer = await self._api.send(request)
        match verdict.judge(answer, may_refuse=request.may_be_refused):
            case Verdict.OK:
                if not self._workload.learn(request, answer.body):
                    raise ValueError("unreadable answer")
            case Verdict.REFUSED | Verdict.SHED:
                raise Refused(str(answer.status))
            case Verdict.FAILED:
                raise RuntimeError(verdict.reason(answer))
