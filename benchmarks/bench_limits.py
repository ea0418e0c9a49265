"""What a mix of lanes costs: how many statements had to change their session's limit first, a round trip each.

Every lane has a server-side limit of its own. The pool gives a caller an idle connection whose session has its limit
already, when there is one; the second row is the same pool without that choice.
"""

from __future__ import annotations

import math
import random
import statistics
from typing import TYPE_CHECKING, Any, ClassVar

import _rounds
from _peers import READ, MagnusDatabase
from _report import Column, Report, Row, arguments, environment, run
from _rounds import Case
from _server import accounts

from magnus.lanes import LANES
from magnus.session import SessionLimit

if TYPE_CHECKING:
    import argparse

_NONE_HAS_IT = math.nan
WEIGHTS = (1, 3, 6, 2, 1)  # of the lanes, most important first
COLUMNS = (
    Column("per s"),
    Column("worst"),
    Column("client cpu us", ",.1f"),
    Column("limits changed %", ",.1f"),
)


class Mixed(MagnusDatabase):
    """
    Reads in lanes drawn at random. `changes` counts the SETs of all pools of this kind.
    """

    counted: ClassVar[dict[Any, Mixed]] = {}

    async def setup(self) -> None:
        await super().setup()
        self.draw = random.Random(11)
        self.done = self.changes = 0
        pool: Any = self.database._pool  # noqa: SLF001  # only the inside knows what was sent
        for slot in pool._state.slots:  # noqa: SLF001
            self.counted[slot.session] = self

    async def read(self, worker: int) -> object:
        del worker
        self.done += 1
        (lane,) = self.draw.choices(LANES, WEIGHTS)
        return await self.database.fetchrow(READ, self.key(), priority=lane)


class AnyIdle(Mixed):
    """
    The same without the choice: callers get the connection that was used last.
    """

    async def setup(self) -> None:
        await super().setup()
        pool: Any = self.database._pool  # noqa: SLF001
        take, obtain = pool.take, pool.obtain
        pool.take = lambda rank, now, _wanted: take(rank, now, _NONE_HAS_IT)
        pool.obtain = lambda *args, **options: obtain(*args, **{**options, "wanted": _NONE_HAS_IT})


def count_changes() -> None:
    plain = SessionLimit.changed

    def changed(self: SessionLimit, value: float | None, **flags: bool) -> None:
        found = Mixed.counted.get(self)
        if found is not None:
            found.changes += 1
        plain(self, value, **flags)

    SessionLimit.changed = changed  # type: ignore[method-assign]


async def compare(dsn: str, options: argparse.Namespace) -> None:
    report = Report("bench_limits", options, await environment(dsn))
    count_changes()
    for title, workers, most in (("free connections", options.few, 0.5), ("none free", options.many, 0.9)):
        peers = {
            "an idle one that has it": Mixed(dsn, options.connections),
            "any idle one": AnyIdle(dsn, options.connections),
        }
        cases = [Case(name, peer, peer.read, workers) for name, peer in peers.items()]
        async with _rounds.opened(list(peers.values())) as absent:
            await _rounds.measure(
                cases, rounds=options.rounds, seconds=options.seconds, seed=options.seed, absent=absent
            )
            rows = [
                Row(
                    case.name,
                    (case.median, min(case.rates), 1e6 * statistics.median(case.cpu), 100 * peer.changes / peer.done),
                    raw={"per_second": case.rates, "changes": peer.changes, "statements": peer.done},
                )
                for case, peer in zip(cases, peers.values(), strict=True)
            ]
            chosen, unchosen = (peer.changes / peer.done for peer in peers.values())
            report.table(f"{title}: {workers} workers, {options.connections} connections", COLUMNS, rows)
            kept = chosen / unchosen if unchosen else None
            report.goal(f"limits changed, {title}, beside any idle connection", kept, most=most)
    report.save()


def main() -> None:
    options = arguments(
        __doc__ or "", rounds=25, quick_rounds=2, seconds=0.2, quick_seconds=0.05, connections=10, few=6, many=32
    )
    with accounts() as dsn:
        run(compare(dsn, options))


if __name__ == "__main__":
    main()
