"""Every side in every round, in an order that turns round: the proof itself. It knows no file and prints nothing."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from typing import TYPE_CHECKING, Any, Final

from ava.proof import servers
from ava.proof.plain import MAX_SIZE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ava.proof.script import Script
    from magnus.embedded import Cluster

SIDES: Final = ("before", "pool", "settings")


async def nothing(_dsn: str) -> Mapping[str, str]:
    """
    Describe nothing.
    """
    return {}


async def prove(
    script: Script,
    say: Callable[[str], None],
    *,
    document: dict[str, Any] | None = None,
    save: Callable[[dict[str, Any]], None] = lambda _: None,
    describe: Callable[[str], Awaitable[Mapping[str, str]]] = nothing,
) -> dict[str, Any]:
    """
    Measure all rounds that a document does not hold yet, on two servers that are thrown away at the end.

    Args:
        script: What is measured.
        say: Gets a line about what goes on.
        document: Rounds that were measured before, by the same script.
        save: Gets the document when a round is over.
        describe: Says of the server and the machine what a reader should know.
    """
    document = {"script": plain(script), "rounds": []} if document is None else document
    with servers.pair() as (stock, tuned):
        say(f"loading AVA's data, scale {script.scale:g}, on two servers")
        await stock.start()
        await servers.fill(stock, script.scale)
        await stock.stop()
        await asyncio.to_thread(servers.copy, stock, tuned)
        await stock.start()
        await tuned.start()
        changes = await servers.tune(tuned)
        document["plan"] = {change["name"]: change["after"] for change in changes}
        document["environment"] = dict(await describe(stock.dsn()))
        if "rate" not in document:
            async with servers.Process("before", stock.dsn(database=servers.DATABASE)) as process:
                capacity = (await process.ask("load", seconds=script.calibrate))["per_second"]
                under_way = round(script.in_use * MAX_SIZE)
                found = await process.ask("load", seconds=script.calibrate, clients=under_way)
            document |= {"capacity": capacity, "rate": round(script.share * capacity, 1)}
            document["think"] = round(thinking(script.users, under_way, found["per_second"]), 4)
        say(
            f"before can do {document['capacity']:,.0f}/s; calm is {document['rate']:,.0f}/s, "
            f"busy are {script.users} users who think {document['think']:g} s"
        )
        for number in range(len(document["rounds"]), script.rounds):
            found = await one_round(script, (stock, tuned), document, number=number, say=say)
            document["rounds"].append(found)
            document["indexes"] = await asyncio.to_thread(servers.proposed, tuned.dsn(database=servers.DATABASE))
            document["environment"]["loop"] = found["settings"]["loop"]
            save(document)
    return document


def thinking(users: int, under_way: int, per_second: float) -> float:
    """
    Return the seconds that each of `users` has to think for `under_way` requests to be under way, when so many are
    answered a second then (Little's law, for those under way and for those who think).
    """
    return (users - under_way) / per_second


async def one_round(
    script: Script,
    clusters: tuple[Cluster, Cluster],
    document: Mapping[str, Any],
    *,
    number: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """
    Measure every side once, on the stock server or the tuned one.
    """
    stock, tuned = clusters
    found = {}
    for name in SIDES if number % 2 == 0 else SIDES[::-1]:
        began = time.monotonic()
        cluster = tuned if name == "settings" else stock
        found[name] = await side_round(name, cluster, script, document, number + 1)
        say(f"round {number + 1}: {name} in {time.monotonic() - began:.0f} s")
    return found


async def side_round(
    name: str, cluster: Cluster, script: Script, document: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """
    Measure one side once. "pool" is Magnus on the stock server, for its contribution alone: only the two loads.
    """
    rate = document["rate"]
    kind = "before" if name == "before" else "after"
    dsn = cluster.dsn(database=servers.DATABASE)
    async with servers.Process(kind, dsn) as process:
        found: dict[str, Any] = {**process.ready, **await process.ask("first")}
        found["load"] = _lean(await process.ask("load", seconds=script.load, rate=rate, seed=seed))
        users = {"clients": script.users, "think": document["think"]}
        found["busy"] = _lean(await process.ask("load", seconds=script.busy, seed=seed, **users))
        if name == "pool":
            return found
        found |= await process.ask("slow", count=script.slow)
        found["overload"] = _lean(await process.ask("overload", seconds=script.overload, rate=rate, seed=seed))
    async with servers.Process(kind, dsn) as process:
        await process.ask("load", seconds=1.0, rate=rate, seed=seed)
        began = time.monotonic()
        asked = asyncio.create_task(process.ask("load", seconds=script.hiccups, rate=rate, seed=seed))
        back = await servers.hiccups(cluster, script, began)
        heavy = await asked
        answered = sorted(heavy["answered"])
        waits = [next((at - moment for at in answered if at >= moment), script.hiccups) for moment in back]
        found["hiccups"] = {**_lean(heavy), "recovery_s": waits}
    return found


def plain(script: Script) -> dict[str, Any]:
    """
    Return a script as JSON gives it back.
    """
    found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(script)))
    return found


def _lean(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name not in {"answered", "began"}}
