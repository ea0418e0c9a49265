"""docs/benchmarks.md, all of it from a run of the proof. Pure."""

from __future__ import annotations

from typing import Any

from ava.proof.figures import markdown

PAGE = """# What was measured

## Before and after
{warning}
The same code of AVA (its services, called in one process: buys 20 parts, sales 20, positions 30, pages of trades 20,
monthly reports 8) on two sides, in turns, {rounds} rounds:

- **before**: asyncpg's pool of at most 50, opened by the first request, 60 s for every statement, three attempts with
  pauses of 50 and 100 ms, a server as initdb leaves it, no statistics;
- **after**: Magnus with its defaults (at most 30, ten warm), lanes, limits, exactly once, slow-query log, months of
  reports that are over kept by `@cached`; the same bytes of data, on a server with the plan of
  `magnus plan --memory 4GB`.

Loads and hiccups are fixed in `ava/src/ava/proof/script.py` before anything is measured, and found on "before" alone:

- **busy**, the mission's load: its starting point uses 60 to 90 % of its pool, so {users} users ask such that "before"
  has {in_use:.0%} of its 50 connections in use (each thinks {think:g} s, at random, between an answer and the next
  request). Average query time and utilisation are of this load.
- **calm**: {rate:,.0f} requests a second, {share:.0%} of what "before" can do at most ({capacity:,.0f}/s); times count
  from when a request was due. So are the hiccups, which stand for an hour's ({restarts} restarts, {kills} killed
  backends, a stall of {stall:g} s within {hiccups:g} s), and the overload: 200 tasks that each hold a connection for
  0.2 s, again and again.

Medians, in brackets the interval of the median over the rounds.

{table}
In the calm load nobody waits for anybody, and what is left is the work itself. "After" does more for its time: each
order (40 of the 98 parts) has a key under which it happens once, which is a row more that is written and found, and
each COMMIT is checked. The busy load is at the edge of what one process and two cores can do: there a few percent of
work more or less, and any other load of the machine, are many of waiting. Read the intervals. After a restart one
prober looks for the server, at most twice a second, where "before" lets every request try for itself: it finds the
server later, and a hundred instances do not trample it.
What is not met is not met; nothing was chosen after the measurement.

    make proof

| | |
|---|---|
{facts}
Every round is in `benchmarks/results/proof.json`.

The plan's settings: {plan}.
"""


def page(document: dict[str, Any]) -> str:
    """
    Return docs/benchmarks.md, all of it from the run.
    """
    script = document["script"]
    facts = "".join(f"| {name} | {value} |\n" for name, value in document["environment"].items())
    few = "\n**Fewer than five rounds, on a machine that was not quiet: it shows the form, and proves nothing.**\n"
    return PAGE.format(
        warning="" if len(document["rounds"]) >= 5 else few,
        rounds=len(document["rounds"]), rate=document["rate"], share=script["share"], capacity=document["capacity"],
        users=script["users"], in_use=script["in_use"], think=document["think"],
        restarts=len(script["restarts"]), kills=len(script["kills"]), stall=script["stall"][1],
        hiccups=script["hiccups"], table=markdown(document), facts=facts,
        plan=", ".join(f"`{name} = {value}`" for name, value in document["plan"].items()),
    )  # fmt: skip
