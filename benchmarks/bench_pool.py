"""What a pool costs: one row by primary key, and transactions of two statements, with every default on.

32 workers share 10 connections over a unix socket. Bare connections (10 workers, one each) are the limit of the driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import _rounds
from _peers import (
    AsyncpgPool,
    AsyncpgPoolWithoutReset,
    Bare,
    FifoHandOff,
    LifoQueue,
    MagnusDatabase,
    MagnusPool,
    Peer,
    PsycopgPool,
    SqlAlchemyEngine,
)
from _report import Report, arguments, environment, run
from _rounds import Case
from _server import accounts

if TYPE_CHECKING:
    import argparse

PEERS: dict[str, type[Peer]] = {
    "bare": Bare,
    "LIFO": LifoQueue,
    "FIFO hand-off": FifoHandOff,
    "asyncpg.Pool": AsyncpgPool,
    "asyncpg.Pool, reset=noop": AsyncpgPoolWithoutReset,
    "psycopg_pool": PsycopgPool,
    "SQLAlchemy engine": SqlAlchemyEngine,
    "magnus.Database": MagnusDatabase,
    "magnus.create_pool": MagnusPool,
}
BARE_NOTE = "no pool: one worker a connection"
WORKLOADS = {
    "read": "fetchrow by primary key",
    "transact": "transaction() of two reads",
    "transfer": "transaction() of a read and an update",
}


def cases(peers: dict[str, Peer], operation: str, workers: int) -> dict[str, Case]:
    """
    Return a case for every peer, and the LIFO queue once more: that is the A/A row.
    """
    found = {name: Case(name, peer, getattr(peer, operation), workers) for name, peer in peers.items()}
    bare = found["bare"]
    bare.workers, bare.note = min(workers, peers["bare"].size), BARE_NOTE
    queue = peers["LIFO"]
    again = Case("LIFO again (A/A)", queue, getattr(queue, operation), workers, note="the noise of this method")
    return {"bare": bare, "LIFO": found["LIFO"], again.name: again} | found


async def compare(dsn: str, options: argparse.Namespace) -> None:
    report = Report("bench_pool", options, await environment(dsn))
    peers = {name: kind(dsn, options.connections) for name, kind in PEERS.items()}
    async with _rounds.opened(list(peers.values())) as absent:
        for operation, title in WORKLOADS.items():
            found = cases(peers, operation, options.workers)
            await _rounds.measure(
                list(found.values()), rounds=options.rounds, seconds=options.seconds, seed=options.seed, absent=absent
            )
            bases = [found["asyncpg.Pool"], found["LIFO"]]
            heading = (
                f"{title}: {options.workers} workers, {options.connections} connections, "
                f"{options.rounds} rounds of {options.seconds:g} s"
            )
            report.table(heading, _rounds.columns(bases), _rounds.rows(list(found.values()), bases, absent))
            verdict(report, operation, found)
    report.save()


def verdict(report: Report, operation: str, found: dict[str, Case]) -> None:
    ours, theirs, queue = found["magnus.Database"], found["asyncpg.Pool"], found["LIFO"]
    if operation == "read":
        report.goal("magnus.Database beside asyncpg.Pool, the goal", _rounds.ratio(ours, theirs), least=2.2)
        report.goal("magnus.Database beside asyncpg.Pool, the floor", _rounds.ratio(ours, theirs), least=2.0)
        report.goal("magnus.Database beside a LIFO queue, the goal", _rounds.ratio(ours, queue), least=0.95)
        report.goal("magnus.Database beside a LIFO queue, the floor", _rounds.ratio(ours, queue), least=0.85)
    else:
        report.goal("magnus.Database beside asyncpg.Pool", _rounds.ratio(ours, theirs), least=1.3)


def main() -> None:
    options = arguments(
        __doc__ or "", rounds=25, quick_rounds=2, seconds=0.2, quick_seconds=0.05, workers=32, connections=10
    )
    with accounts() as dsn:
        run(compare(dsn, options))


if __name__ == "__main__":
    main()
