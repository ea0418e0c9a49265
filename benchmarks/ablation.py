"""What the plan's settings are worth, and which three of them carry most: AVA's mix and TPC-B, tuned against stock.

Each of the plan's settings is taken out alone (the server restarts with all the others), in turns with the whole plan
and with the stock server; what the load then loses is what that setting carried. Logging settings are left in.

    python benchmarks/ablation.py [--quick] [--json FILE]
"""

from __future__ import annotations

import asyncio
import math
import statistics
import sys
from typing import Any, Final

import asyncpg
from _report import Column, Report, Row, arguments, environment

from ava.proof import servers
from magnus.loadtest import Load, Target, compare
from magnus.loadtest import run as send

LEFT_IN: Final = ("log_", "shared_preload_libraries", "track_")


async def loads(dsn: str, options: Any, seed: int) -> dict[str, float]:
    """
    Return the mean time of an operation of each load, ms: closed model, what the server can do.
    """
    async with servers.Process("after", dsn) as process:
        mix = await process.ask("load", seconds=options.seconds, clients=8, seed=seed)
    target = Target(dsn, connections=8, options={"scale": str(options.scale)})
    samples = await send(Load("tpcb", target, options.seconds, 8, seed=seed))
    return {"AVA": mix["mean_ms"], "TPC-B": 1000 * samples.result(warm_up=0.2 * options.seconds).total.mean}


async def without(cluster: Any, plan: dict[str, str], left_out: str | None) -> None:
    """
    Restart with the whole plan but one setting, or with none of it ("").
    """
    async with cluster.connect() as con:
        await con.execute("ALTER SYSTEM RESET ALL")
        for name, value in plan.items() if left_out != "" else ():
            if name != left_out:
                await con.execute(f"ALTER SYSTEM SET {name} = {_value(name, value)}")
    await servers.restart(cluster)


def _value(name: str, value: str) -> str:
    from magnus.tuning.quoting import sql_value

    return sql_value(name, value)


async def bench(options: Any) -> None:
    with servers.pair() as (cluster, _):
        await cluster.start()
        report = Report("ablation", options, await environment(cluster.dsn()))
        await servers.fill(cluster, options.data)
        dsn = cluster.dsn(database=servers.DATABASE)
        plan = {change["name"]: change["after"] for change in await servers.tune(cluster)}
        single = [name for name in plan if not name.startswith(LEFT_IN)]
        kinds: list[str | None] = [None, "", *single]
        found: dict[str | None, dict[str, list[float]]] = {kind: {"AVA": [], "TPC-B": []} for kind in kinds}
        for number in range(options.rounds):
            for kind in kinds if number % 2 == 0 else kinds[::-1]:
                await without(cluster, plan, kind)
                for name, value in (await loads(dsn, options, number + 1)).items():
                    found[kind][name].append(value)
        rows = []
        for kind in kinds:
            name = "the whole plan" if kind is None else "stock" if kind == "" else f"without {kind}"
            rows.append(Row(name, cells(found, kind), raw=found[kind]))
        columns = [
            Column(head, spec) for load in ("AVA", "TPC-B")
            for head, spec in ((f"{load} ms", ".3f"), ("vs plan %", "+.1f"), ("5%..95%", "+.1f"))
        ]  # fmt: skip
        report.table(f"mean of an operation, 8 clients, medians of {options.rounds} rounds", columns, rows)
        for load in ("AVA", "TPC-B"):
            carried = sorted(single, key=lambda name: -ratio(found, name, load)[0])[:3]
            words = ", ".join(f"{name} ({ratio(found, name, load)[0]:+.1f} %)" for name in carried)
            certain = [name for name in carried if ratio(found, name, load)[1] > 0]
            beyond = "beyond the noise: " + ", ".join(certain) if certain else "none of them beyond the noise"
            report.note(f"{load}: most is lost without {words}; {beyond}")
        report.save()


def ratio(found: Any, kind: str | None, load: str) -> tuple[float, float, float]:
    """
    Return by how many percent more a load takes than with the whole plan, and the 90 % interval of that; without one
    when there are too few rounds for it.
    """
    whole, part = found[None][load], found[kind][load]
    if len(part) < 3:
        middle = statistics.median(b / a for a, b in zip(whole, part, strict=True))
        return 100 * (middle - 1), -math.inf, math.inf
    one = compare(whole, part, alpha=0.1).ratio
    return 100 * (one.estimate - 1), 100 * (one.low - 1), 100 * (one.high - 1)


def cells(found: Any, kind: str | None) -> tuple[object, ...]:
    result: list[object] = []
    for load in ("AVA", "TPC-B"):
        more, low, high = ratio(found, kind, load)
        between = None if kind is None or math.isinf(low) else (low, high)
        result += [statistics.median(found[kind][load]), None if kind is None else more, between]
    return tuple(result)


if __name__ == "__main__":
    chosen = arguments(
        "Which settings of the plan carry most?",
        rounds=5, quick_rounds=1, seconds=4.0, quick_seconds=0.6, data=0.2, quick_data=0.005, scale=10, quick_scale=1,
    )  # fmt: skip
    try:
        asyncio.run(bench(chosen))
    except asyncpg.PostgresError as error:
        sys.exit(f"the server refused: {error}")
