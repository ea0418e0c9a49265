"""50 processes on one server: started at once, five killed, all restarted: what they hold, what had to be refused.

    python benchmarks/bench_fleet.py [--processes 50] [--max_connections 350]

Each process has DB_POOL_MIN=5 and DB_POOL_MAX=30 and eight tasks that keep it busy. Three fleets, one after the other,
on a server each: plain asyncpg pools; Magnus without `fleet_size`, which only warns; Magnus with it, the processes of
a restart included, and with everything on that takes a connection beside the pool: the control connection, the
slow-query log, the cache that listens. Refused is what the server's log says; held is read every 10 ms.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _report import Column, Report, Row, arguments, environment, run

from magnus.cache import install
from magnus.embedded import Binaries, throwaway

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.fleet import SETTINGS, Fleet

if TYPE_CHECKING:
    import argparse

    from magnus.embedded import Cluster

RESERVED = 3
WATCHER = 1
AT_ONCE = 5
BUCKET = 0.1
GRANTS = """
CREATE ROLE fleet LOGIN;
GRANT CREATE ON SCHEMA public TO fleet;
GRANT SELECT ON magnus_cache TO fleet
"""


@dataclass
class Phase:
    """
    What was seen between two moments.
    """

    name: str
    most: int
    refused: int
    came: int
    burst: int
    seconds: float


async def campaign(fleet: Fleet, options: argparse.Namespace) -> list[Phase]:
    found: list[Phase] = []
    refused, at_once = 0, min(AT_ONCE, options.processes)

    async def phase(name: str, work: Any) -> None:
        nonlocal refused
        fleet.most, began = 0, time.time()
        await work
        came = [moment for moment in fleet.came() if moment >= began]
        now = fleet.refused()
        bursts = Counter(int((moment - began) / BUCKET) for moment in came)
        found.append(
            Phase(name, fleet.most, now - refused, len(came), max(bursts.values(), default=0), time.time() - began)
        )
        refused = now

    async def killed() -> None:
        await fleet.kill(fleet.instances[:at_once])
        await fleet.start(at_once)

    async with fleet.watched():
        await phase("started at once", fleet.start(options.processes))
        await phase(f"{options.seconds:g} seconds of work", asyncio.sleep(options.seconds))
        await phase(f"{at_once} killed (-9) and replaced", killed())
        await phase(f"all restarted, {at_once} at once", fleet.replace_all(at_once))
        await phase("stopped", fleet.stop())
    return found


async def measure(name: str, server: Cluster, options: argparse.Namespace) -> tuple[Fleet, list[Phase]]:
    async with server.connect() as con:
        await con.execute(install([]) + GRANTS)
    is_shared = name == "magnus, fleet_size"
    fleet = Fleet(
        server,
        server.dsn(user="fleet"),
        kind="asyncpg" if name == "asyncpg.Pool" else "magnus",
        fleet_size=options.processes + AT_ONCE if is_shared else 0,
        listen=name != "asyncpg.Pool",
        patience=30.0 if is_shared else 5.0,
        sleep=0.1,
        interval=5.0,
    )
    return fleet, await campaign(fleet, options)


def main() -> None:
    options = arguments(
        __doc__.splitlines()[0], processes=50, quick_processes=2, max_connections=350, quick_max_connections=80,
        seconds=10.0, quick_seconds=0.5,
    )  # fmt: skip
    budget = options.max_connections - RESERVED - WATCHER
    report: Report | None = None
    for name in ("asyncpg.Pool", "magnus, warning only", "magnus, fleet_size"):
        with throwaway(Binaries.bundled(), max_connections=options.max_connections, settings=SETTINGS) as server:
            if report is None:
                report = Report("bench_fleet", options, run(environment(server.dsn())))
            fleet, phases = run(measure(name, server, options))
        columns = [
            Column("most held"), Column("of"), Column("refused"), Column("came"), Column("most in 0.1 s"),
            Column("seconds", ",.1f"),
        ]  # fmt: skip
        rows = [
            Row(phase.name, (phase.most, budget, phase.refused, phase.came, phase.burst, phase.seconds))
            for phase in phases
        ]
        report.table(f"{name}: connections", columns, rows)
        done = fleet.total()
        ok = done.pop("ok", 0)
        print(f"   statements: {ok:,} done, {sum(done.values()):,} failed {dict(done)}; not open in time: {fleet.late}")
        if name == "magnus, fleet_size":
            report.goal("most connections, of the budget", max(p.most for p in phases), most=budget)
            report.goal("connections refused", sum(p.refused for p in phases), most=0)
            report.goal("statements failed", sum(done.values()), most=0)
            report.goal("processes not open in time", fleet.late, most=0)
    assert report is not None
    report.save()


if __name__ == "__main__":
    main()
