"""The mission's table, measured: a service as it was before, and with everything applied, in turns on one machine.

    python benchmarks/proof [--short] [--rounds N] [--out benchmarks/results/proof.json]

Every round is saved when it is over; a run that was stopped goes on where it was when it is started again with the
same script. What is measured, how often and under which hiccups is in script.py.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import servers  # noqa: E402
from _report import environment  # noqa: E402
from figures import markdown, page, table  # noqa: E402
from script import FULL, SHORT, Script  # noqa: E402

SIDES = ("before", "pool", "settings")
RESULTS = HERE.parent / "results"


async def side_round(name: str, cluster: Any, script: Script, rate: float, seed: int) -> dict[str, Any]:
    """
    Measure one side once. "pool" is Magnus on the stock server, for its contribution alone: only the calm load.
    """
    kind = "before" if name == "before" else "after"
    dsn = cluster.dsn(database=servers.DATABASE)
    async with servers.Process(kind, dsn) as process:
        found: dict[str, Any] = {**process.ready, **await process.ask("first")}
        found["load"] = lean(await process.ask("load", seconds=script.load, rate=rate, seed=seed))
        if name == "pool":
            return found
        found |= await process.ask("slow", count=script.slow)
        found["overload"] = lean(await process.ask("overload", seconds=script.overload, rate=rate, seed=seed))
    async with servers.Process(kind, dsn) as process:
        await process.ask("load", seconds=1.0, rate=rate, seed=seed)
        began = time.monotonic()
        asked = asyncio.create_task(process.ask("load", seconds=script.hiccups, rate=rate, seed=seed))
        back = await servers.hiccups(cluster, script, began)
        heavy = await asked
        answered = sorted(heavy["answered"])
        waits = [next((at - moment for at in answered if at >= moment), script.hiccups) for moment in back]
        found["hiccups"] = {**lean(heavy), "recovery_s": waits}
    return found


def lean(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name not in {"answered", "began"}}


async def prove(script: Script, out: Path) -> dict[str, Any]:
    document = resumed(script, out)
    with servers.pair() as (stock, tuned):
        print(f"loading AVA's data, scale {script.scale:g}", flush=True)
        await stock.start()
        await servers.fill(stock, script.scale)
        await stock.stop()
        await asyncio.to_thread(servers.copy, stock, tuned)
        await stock.start()
        await tuned.start()
        changes = await servers.tune(tuned)
        document["plan"] = {change["name"]: change["after"] for change in changes}
        document["environment"] = {**await environment(stock.dsn()), "platform": platform.platform(), **host()}
        if "rate" not in document:
            async with servers.Process("before", stock.dsn(database=servers.DATABASE)) as process:
                capacity = (await process.ask("load", seconds=script.calibrate))["per_second"]
            document |= {"capacity": capacity, "rate": round(script.share * capacity, 1)}
        print(f"before can do {document['capacity']:,.0f}/s; everything runs at {document['rate']:,.0f}/s", flush=True)
        for number in range(len(document["rounds"]), script.rounds):
            order = SIDES if number % 2 == 0 else SIDES[::-1]
            found = {}
            for name in order:
                began = time.monotonic()
                cluster = tuned if name == "settings" else stock
                found[name] = await side_round(name, cluster, script, document["rate"], number + 1)
                print(f"round {number + 1}: {name} in {time.monotonic() - began:.0f} s", flush=True)
            document["rounds"].append(found)
            document["indexes"] = await asyncio.to_thread(servers.proposed, tuned.dsn(database=servers.DATABASE))
            document["environment"]["loop"] = found["settings"]["loop"]
            save(document, out)
    return document


def save(document: dict[str, Any], out: Path) -> None:
    out.write_text(json.dumps(document, indent=1) + "\n")


def resumed(script: Script, out: Path) -> dict[str, Any]:
    """
    Return what an earlier run with the same script has measured, else nothing.
    """
    wanted = json.loads(json.dumps(dataclasses.asdict(script)))
    try:
        found: dict[str, Any] = json.loads(out.read_text())
    except (OSError, ValueError):
        found = {}
    if found.get("script") == wanted and len(found.get("rounds", [])) < script.rounds:
        return found
    return {"script": wanted, "rounds": []}


def host() -> dict[str, str]:
    found = {}
    for name, key, path in (("cpu", "model name", "/proc/cpuinfo"), ("memory", "MemTotal", "/proc/meminfo")):
        try:
            lines = Path(path).read_text().splitlines()
        except OSError:
            continue
        found[name] = next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--short", action="store_true", help="one round of seconds; shows, proves nothing")
    parser.add_argument("--rounds", type=int, help=f"default: {FULL.rounds}")
    parser.add_argument("--page", action="store_true", help="only write docs/benchmarks.md from --out again")
    parser.add_argument("--out", type=Path, help="where every figure is saved")
    options = parser.parse_args()
    script = SHORT if options.short else FULL
    if options.page:
        document = json.loads((options.out or RESULTS / "proof.json").read_text())
        (HERE.parent.parent / "docs" / "benchmarks.md").write_text(page(document))
        return
    if options.rounds:
        script = dataclasses.replace(script, rounds=options.rounds)
    out = options.out or RESULTS / ("proof-short.json" if options.short else "proof.json")
    out.parent.mkdir(exist_ok=True)
    began = time.monotonic()
    document = asyncio.run(prove(script, out))
    for line in table(document):
        print(line)
    out.with_suffix(".md").write_text(markdown(document))
    if script == FULL:
        (HERE.parent.parent / "docs" / "benchmarks.md").write_text(page(document))
    print(f"{time.monotonic() - began:.0f} s; every figure is in {out}, the table in {out.with_suffix('.md')}")


if __name__ == "__main__":
    main()
