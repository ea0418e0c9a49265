"""What it costs to be watched: one database with no observer, beside the same with logs, Prometheus, OpenTelemetry.

32 workers read one row by primary key over 10 connections. Each row but the first two has one observer: log lines of
events, `/metrics` scraped once a second, and an OpenTelemetry SDK that aggregates, samples and batches as it does by
default, and exports to nowhere. The SDK's cost is its own: 3 durations and one span a statement.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import nullcontext
from typing import TYPE_CHECKING

import _rounds
from _peers import READ, keys
from _report import Absent, Report, arguments, environment, run
from _rounds import Case
from _server import accounts

from magnus.config import DatabaseConfig
from magnus.database import Database
from magnus.logs import log_events

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from magnus.observe import Observer

WORKERS = 32


class Watched:
    """
    A database, and what watches it.
    """

    def __init__(self, dsn: str, connections: int) -> None:
        self._db = Database(
            DatabaseConfig(dsn=dsn, min_pool_size=connections, max_pool_size=connections), observers=self.observers()
        )
        self._key = keys()

    def observers(self) -> Sequence[Observer]:
        return ()

    async def setup(self) -> None:
        await self._db.connect()

    async def teardown(self) -> None:
        await self._db.close()

    async def read(self, _: int) -> object:
        return await self._db.fetchrow(READ, self._key())


class Logged(Watched):
    def observers(self) -> Sequence[Observer]:
        logger = logging.getLogger("bench")
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
        return (log_events(logger),)


class Scraped(Watched):
    """
    By Prometheus, fifteen times as often as it does by default.
    """

    _task: asyncio.Task[None] | None = None

    async def setup(self) -> None:
        try:
            from magnus.metrics import DatabaseCollector, Exposition, registry_of
        except Exception as error:
            raise Absent(str(error)) from None
        await super().setup()
        exposition = Exposition(registry_of(DatabaseCollector.of(self._db)))
        self._task = asyncio.create_task(self._scrape(exposition.render))

    async def _scrape(self, render: Callable[[str], object]) -> None:
        while True:
            await asyncio.sleep(1.0)
            render("")

    async def teardown(self) -> None:
        if self._task is not None:
            self._task.cancel()
        await super().teardown()


class Telescope(Watched):
    """
    By an SDK; `is_unsampled`: each statement is in a trace that is not sampled.
    """

    def __init__(
        self, dsn: str, connections: int, *, spans: bool = True, metrics: bool = True, is_unsampled: bool = False
    ) -> None:
        self._has_spans, self._has_metrics = spans, metrics
        self._is_unsampled = is_unsampled
        self._around: Callable[[], AbstractContextManager[object]] = nullcontext
        self._close: list[Callable[[], object]] = []
        super().__init__(dsn, connections)

    async def setup(self) -> None:
        try:
            from opentelemetry.metrics import NoOpMeterProvider
            from opentelemetry.sdk.metrics import MeterProvider
            from opentelemetry.sdk.metrics.export import InMemoryMetricReader
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
            from opentelemetry.trace import NonRecordingSpan, NoOpTracerProvider, SpanContext, use_span

            from magnus.opentelemetry import instrument
        except Exception as error:
            raise Absent(str(error)) from None

        class Nowhere(SpanExporter):
            def export(self, spans: Sequence[object]) -> SpanExportResult:  # noqa: ARG002
                return SpanExportResult.SUCCESS

        tracers = TracerProvider(shutdown_on_exit=False)
        tracers.add_span_processor(BatchSpanProcessor(Nowhere()))
        meters = MeterProvider(metric_readers=[InMemoryMetricReader()], shutdown_on_exit=False)
        self._close = [tracers.shutdown, meters.shutdown]
        if self._is_unsampled:
            around = NonRecordingSpan(SpanContext(trace_id=1, span_id=1, is_remote=True))
            self._around = lambda: use_span(around)
        await super().setup()
        instrument(
            self._db,
            tracer_provider=tracers if self._has_spans else NoOpTracerProvider(),
            meter_provider=meters if self._has_metrics else NoOpMeterProvider(),
        )

    async def read(self, _: int) -> object:
        with self._around():
            return await super().read(_)

    async def teardown(self) -> None:
        await super().teardown()
        for close in self._close:
            close()


async def measure(dsn: str, options: argparse.Namespace) -> None:
    report = Report("bench_observers", options, await environment(dsn))
    off = Watched(dsn, options.connections)
    logged, scraped = Logged(dsn, options.connections), Scraped(dsn, options.connections)
    metrics = Telescope(dsn, options.connections, spans=False)
    spans = Telescope(dsn, options.connections, metrics=False)
    few = Telescope(dsn, options.connections, metrics=False, is_unsampled=True)
    async with _rounds.opened([off, logged, scraped, metrics, spans, few]) as absent:
        cases = [
            Case("off", off, off.read, WORKERS),
            Case("off again (A/A)", off, off.read, WORKERS),
            Case("logs", logged, logged.read, WORKERS),
            Case("Prometheus", scraped, scraped.read, WORKERS),
            Case("OpenTelemetry metrics", metrics, metrics.read, WORKERS),
            Case("OpenTelemetry spans", spans, spans.read, WORKERS),
            Case("OpenTelemetry spans, trace not sampled", few, few.read, WORKERS),
        ]
        await _rounds.measure(cases, rounds=options.rounds, seconds=options.seconds, seed=options.seed, absent=absent)
        base = cases[0]
        report.table("one row by primary key", _rounds.columns([base]), _rounds.rows(cases, [base], absent))
    report.goal("logs beside off", _rounds.ratio(cases[2], base), least=0.95)
    if scraped not in absent:
        report.goal("Prometheus beside off", _rounds.ratio(cases[3], base), least=0.95)
    report.save()


def main() -> None:
    options = arguments(__doc__ or "", rounds=25, quick_rounds=2, seconds=0.3, quick_seconds=0.05, connections=10)
    with accounts() as dsn:
        run(measure(dsn, options))


if __name__ == "__main__":
    main()
