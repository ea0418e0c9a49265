"""Can the load generator be believed? Its own lateness at a high rate, and the same load sent by pgbench beside it.

First `select` at a fixed rate in the open model: how late the generator itself was. Then TPC-B at half of what the
slower of both can do, in turns: the means must agree. Both have one bare connection a client, prepared statements and
requests that are due at random (Poisson), and count from when one was due. Beside it what the two pools add, and what
the same rate costs when it comes evenly. A mean of a run that did not keep its rate says nothing, so it is told.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import statistics
import subprocess
from typing import TYPE_CHECKING, Any, Final

from _report import Absent, Column, Report, Row, arguments, environment, run
from _server import accounts

from magnus.config import DatabaseConfig
from magnus.loadtest import Load, Pacer, Target
from magnus.loadtest import run as send

if TYPE_CHECKING:
    from magnus.loadtest import Result

LATE: Final = 0.005
CLIENTS: Final = 16
SCALE: Final = 10
POOLS: Final = {"no pool": "none", "no pool, evenly": "none", "its pool": "magnus", "asyncpg's": "asyncpg"}
KEPT: Final = 0.9
PLACES: Final = ("/usr/lib/postgresql/15/bin", "/usr/lib/postgresql/16/bin", "/usr/lib/postgresql/17/bin")
_LATENCY: Final = re.compile(r"latency average = ([0-9.]+) ms")
_RATE: Final = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)


def pgbench() -> str:
    found = shutil.which("pgbench", path=os.pathsep.join([*PLACES, os.environ.get("PATH", "")]))
    if found is None:
        raise Absent("pgbench is not installed")
    return found


def theirs(dsn: str, seconds: float, rate: float | None) -> tuple[float, float]:
    """
    Return pgbench's rate and mean latency, seconds.
    """
    target = DatabaseConfig(dsn=dsn).connect_arguments()["dsn"]
    command = [pgbench(), "-n", "-M", "prepared", "-c", str(CLIENTS), "-j", "1", "-T", str(max(1, round(seconds)))]
    if rate is not None:
        command += ["-R", f"{rate:.0f}"]
    done = subprocess.run([*command, target], check=True, capture_output=True, text=True)
    latency, tps = _LATENCY.search(done.stdout), _RATE.search(done.stdout)
    if latency is None or tps is None:
        raise RuntimeError(done.stdout)
    return float(tps[1]), float(latency[1]) / 1000


async def ours(
    dsn: str, workload: str, seconds: float, rate: float | None,
    clients: int = CLIENTS, processes: int = 1, pool: str = "magnus", *, is_random: bool = False,
) -> Result:  # fmt: skip
    target = Target(dsn, CLIENTS // processes, pool, options={"scale": str(SCALE)})
    pacer = None if rate is None else Pacer(rate, rate, seconds, is_random)
    return (await send(Load(workload, target, seconds, clients, pacer, processes))).result(warm_up=0.1 * seconds)


def row(name: str, found: Result) -> Row:
    cells = (found.per_second, 1000 * found.total.mean, 1000 * found.total.p99, 1000 * found.late_p99)
    note = "" if found.has_kept_up else "did not keep up: its own delay is in the times"
    return Row(name, cells, note)


async def alone(dsn: str, report: Report, options: Any) -> None:
    rows, late = [], []
    for processes in (1, 2):
        found = await ours(dsn, "select", options.seconds, options.rate, 256, processes)
        late.append(found.late_p99)
        rows.append(row(f"{processes} process{'es' if processes > 1 else ''} at {options.rate:,.0f}/s", found))
    columns = [Column("per s"), Column("mean ms", ".3f"), Column("p99 ms", ".2f"), Column("late p99 ms", ".2f")]
    report.table("one row by key, open model", columns, rows)
    report.goal("the generator's own lateness, p99 ms", 1000 * min(late), most=1000 * LATE)


async def beside(dsn: str, report: Report, options: Any) -> None:
    try:
        pgbench()
    except Absent as reason:
        report.note(f"not compared: {reason}")
        report.goal("mean beside pgbench's, ms apart beyond 10 %", None, most=0.3)
        return
    await ours(dsn, "tpcb", 1.0, None)  # makes the tables
    capacities = []
    for _ in range(2):  # the machine is not always the same
        capacities.append((await ours(dsn, "tpcb", options.seconds / 2, None, pool="none")).per_second)
        capacities.append((await asyncio.to_thread(theirs, dsn, options.seconds / 2, None))[0])
    rate = min(capacities) / 2
    means: dict[str, list[float]] = {"pgbench": [], **{f"magnus bench, {words}": [] for words in POOLS}}
    kept = dict.fromkeys(means, 1.0)
    for number in range(options.rounds):
        for name in sorted(means, reverse=number % 2 == 1):
            if name == "pgbench":
                per_second, mean = await asyncio.to_thread(theirs, dsn, options.seconds, rate)
            else:
                words = name.removeprefix("magnus bench, ")
                is_random = not words.endswith("evenly")
                found = await ours(dsn, "tpcb", options.seconds, rate, pool=POOLS[words], is_random=is_random)
                per_second, mean = found.per_second, found.total.mean
            means[name].append(mean)
            kept[name] = min(kept[name], per_second / rate)
    title = f"TPC-B at {rate:,.0f}/s, half of what both do at most with {CLIENTS} clients; medians of rounds"
    rows = [
        Row(
            name, (1000 * statistics.median(found), 1000 * min(found), 1000 * max(found)),
            "" if kept[name] > KEPT else f"kept {kept[name]:.0%} of the rate at worst: its mean is that of a queue",
            raw=found,
        )
        for name, found in means.items()
    ]  # fmt: skip
    report.table(title, [Column("mean ms", ".3f"), Column("least", ".3f"), Column("most", ".3f")], rows)
    a, b = (statistics.median(means[name]) for name in ("pgbench", "magnus bench, no pool"))
    report.goal("mean beside pgbench's, ms apart", 1000 * abs(a - b), most=max(0.3, 100 * a))


async def bench(dsn: str, options: Any) -> None:
    report = Report("generator", options, await environment(dsn))
    await alone(dsn, report, options)
    await beside(dsn, report, options)
    report.save()


if __name__ == "__main__":
    chosen = arguments(
        "Can the load generator be believed?",
        rate=5000.0, quick_rate=500.0, seconds=10.0, quick_seconds=1.0, rounds=5, quick_rounds=1,
    )  # fmt: skip
    with accounts() as server:
        run(bench(server, chosen))
