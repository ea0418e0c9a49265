"""What one scrape of `/metrics` costs the event loop: its time, its samples, its size; of a pool with everything in it.

All lanes are in use, every kind of event has been counted and the slow-query log is on. `fresh` makes the text anew, as
the first scrape in a second does; `kept` is what the others in that second get.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

from _peers import READ, keys
from _report import Column, Report, Row, arguments, environment, quantile, run
from _server import accounts

from magnus.config import DatabaseConfig
from magnus.database import Database
from magnus.lanes import QueryPriority
from magnus.metrics import DatabaseCollector, Exposition, registry_of

if TYPE_CHECKING:
    import argparse

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


async def measure(dsn: str, options: argparse.Namespace) -> None:
    report = Report("bench_scrape", options, await environment(dsn))
    clock, key = [0.0], keys()
    config = DatabaseConfig(dsn=dsn, min_pool_size=options.connections, max_pool_size=options.connections)
    async with Database(config) as db:
        exposition = Exposition(registry_of(DatabaseCollector.of(db)), now=lambda: clock[0])
        rows: list[Row] = []
        worst = samples = 0.0
        median = float("inf")
        for name, accept, step in (("fresh", "", 1.0), ("fresh, OpenMetrics", OPEN_METRICS, 1.0), ("kept", "", 0.0)):
            taken: list[float] = []
            for _ in range(options.scrapes):
                for lane in QueryPriority:  # something new to count, as there is between two scrapes
                    await db.fetchrow(READ, key(), priority=lane)
                clock[0] += step
                began = time.perf_counter()
                text, _kind = exposition.render(accept)
                taken.append(1000 * (time.perf_counter() - began))
            lines = [line for line in text.splitlines() if not line.startswith(b"#")]
            rows.append(
                Row(name, (statistics.median(taken), quantile(taken, 0.95), max(taken), len(lines), len(text) / 1024))
            )
            if name == "fresh":
                median, worst, samples = statistics.median(taken), max(taken), len(lines)
        columns = [Column("median ms", ".3f"), Column("p95 ms", ".3f"), Column("worst ms", ".3f"),
                   Column("samples", ",d"), Column("KB", ".0f")]  # fmt: skip
        report.table(f"{options.scrapes} scrapes", columns, rows)
    report.goal("median of a fresh scrape, milliseconds", median, most=5)
    report.goal("samples", samples, most=600)
    report.note(f"worst of a fresh scrape: {worst:.3f} ms")
    report.save()


def main() -> None:
    options = arguments(__doc__ or "", rounds=1, quick_rounds=1, connections=10, scrapes=500, quick_scrapes=20)
    with accounts() as dsn:
        run(measure(dsn, options))


if __name__ == "__main__":
    main()
