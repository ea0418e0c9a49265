"""Does `magnus prove` say "no difference" when there is none, and does it find a tenth?

Twenty real runs of the same pool against itself, and twenty in which B's statements are held up by a tenth of A's mean.
Then a thousand more of the first kind, drawn from the pairs of all real runs: pairs in random turns.
"""

from __future__ import annotations

import random
import statistics
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from _report import Column, Report, Row, arguments, environment, run
from _server import accounts

from magnus.loadtest import Design, Side, Target, prove
from magnus.loadtest import workload as workloads
from magnus.loadtest.builtin import Select
from magnus.loadtest.proof import summed_up

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from magnus.loadtest import Client

SLOWER = "slower"


class Held(Select):
    """
    The workload `select`; a target that asks for it holds every statement up for so many seconds.
    """

    @asynccontextmanager
    async def open(self, target: Target, process: int) -> AsyncIterator[Client]:
        async with super().open(target, process) as client:
            yield _Held(client, float(target.options.get(SLOWER, "0")))


class _Held:
    def __init__(self, client: Client, seconds: float) -> None:
        self._client = client
        self._seconds = seconds

    async def run(self, operation: str, rng: random.Random) -> None:
        await self._client.run(operation, rng)
        end = time.perf_counter() + self._seconds
        while time.perf_counter() < end:  # timers are too coarse for microseconds, and there is one client
            pass


async def bench(dsn: str, options: Any) -> None:
    report = Report("aa", options, await environment(dsn))
    from magnus.loadtest import builtin

    builtin.Held = Held  # type: ignore[attr-defined]
    workloads._BUILT_IN["held"] = "builtin:Held"  # type: ignore[index]  # noqa: SLF001  # for this run
    design = Design("held", pairs=options.pairs, seconds=options.slice, clients=1)
    plain = Target(dsn, connections=1)
    await prove(Side(plain), Side(plain), design)  # warms both up
    proofs = [await prove(Side(plain), Side(plain), design) for _ in range(options.runs)]
    mean = statistics.median(pair[0]["mean"] for proof in proofs for pair in proof.slices)
    held = Target(dsn, connections=1, options={SLOWER: str(mean / 10)})
    slowed = [await prove(Side(plain), Side(held), design) for _ in range(options.runs)]
    chance = random.Random(options.seed)
    pool = [pair for proof in proofs for pair in proof.slices]
    drawn = []
    for _ in range(options.resampled):
        pairs = [(b, a) if chance.random() < 0.5 else (a, b) for a, b in chance.choices(pool, k=options.pairs)]
        drawn.append(summed_up(pairs, design))
    kinds = {"A against A": proofs, "A against A, resampled": drawn, "B a tenth slower": slowed}
    columns = [Column("runs"), Column("better"), Column("worse"), Column("no difference"), Column("ratio", ".3f")]
    rows = []
    for name, found in kinds.items():
        counts = [sum(proof.verdict == word for proof in found) for word in ("better", "worse", "no difference")]
        ratio = sorted(proof.comparisons["mean"].ratio.estimate for proof in found)[len(found) // 2]
        rows.append(Row(name, (len(found), *counts, ratio)))
    report.table(f"{options.pairs} pairs of slices of {options.slice:g} s, alpha 1 %", columns, rows)
    report.goal("differences among equals, of the real ones", sum(p.verdict != "no difference" for p in proofs), most=1)
    share = 100 * sum(proof.verdict != "no difference" for proof in drawn) / max(1, len(drawn))
    report.goal("differences among equals, % of the resampled", share, most=2.0)
    report.goal("a tenth found, of 20", 20 * sum(p.verdict == "worse" for p in slowed) / options.runs, least=19)
    report.save()


if __name__ == "__main__":
    chosen = arguments(
        "Does magnus prove say no difference when there is none, and find a tenth?",
        runs=20, quick_runs=1, pairs=20, quick_pairs=5, slice=0.5, quick_slice=0.1, resampled=1000, quick_resampled=100,
    )  # fmt: skip
    with accounts() as server:
        run(bench(server, chosen))
