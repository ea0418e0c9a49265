"""Spans and metrics as the SDK of OpenTelemetry gets them, of statements on a real server."""

import asyncio
import contextlib
import threading

import asyncpg
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, use_span

from magnus import Database, DatabaseConfig, PoolTimeout, QueryPriority, QueryTimeout
from magnus.opentelemetry import instrument, with_traceparent
from tests.facade_fakes import until

pytestmark = pytest.mark.one_version

LANES = {"critical", "high", "normal", "low", "background"}


class Telemetry:
    """The SDK with everything in memory, on one database."""

    def __init__(self, db):
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider(sampler=ALWAYS_ON)  # which asks no parent
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader])
        self.on = self.instrument(db)

    def instrument(self, db, **changes):
        return instrument(db, tracer_provider=self.tracers, meter_provider=self.meters, **changes)

    @property
    def spans(self):
        return self.exporter.get_finished_spans()

    def collect(self):
        """All points, by the metric's name."""
        data = self.reader.get_metrics_data()
        found = {}
        for resource in [] if data is None else data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found[metric.name] = metric
        return found

    def points(self, name, found=None):
        """The points of one metric."""
        metric = (self.collect() if found is None else found).get(name)
        return [] if metric is None else list(metric.data.data_points)


@contextlib.asynccontextmanager
async def opened(dsn, **changes):
    """A connected database and its telemetry."""
    config = DatabaseConfig(**{"dsn": dsn, "min_pool_size": 1, "max_pool_size": 2, "slow_log": "off"} | changes)
    async with Database(config) as db:
        telemetry = Telemetry(db)
        yield db, telemetry
        telemetry.on.stop()


async def test_a_statement_is_a_client_span_named_by_operation_and_table(dsn):
    """With what the conventions ask for and without its constants; it is inside the span of its caller."""
    async with opened(dsn) as (db, telemetry):
        await db.execute("CREATE TABLE trades (id int, note text)")
        telemetry.exporter.clear()
        with telemetry.tracers.get_tracer("service").start_as_current_span("request") as request:
            await db.fetch("SELECT * FROM trades WHERE id = $1 AND note = 'canary'", 4711, priority=QueryPriority.HIGH)

    span, _ = telemetry.spans
    attributes = dict(span.attributes)
    wait = attributes.pop("magnus.wait_time")
    host, port, database = db.config.destination()
    where = {"server.address": host, "server.port": port} if host else {}
    assert attributes == {
        **where,
        "db.system.name": "postgresql",
        "db.namespace": database,
        "db.operation.name": "SELECT",
        "db.collection.name": "trades",
        "db.query.summary": "SELECT trades",
        "db.query.text": "SELECT * FROM trades WHERE id = $1 AND note = $2",
        "db.client.connection.pool.name": "main",
        "magnus.lane": "high",
    }
    assert where
    assert 0 <= wait < 30
    assert (span.name, span.kind, span.status.status_code) == ("SELECT trades", SpanKind.CLIENT, StatusCode.UNSET)
    assert span.parent.span_id == request.get_span_context().span_id
    assert span.start_time < span.end_time


async def test_a_refused_statement_has_its_sqlstate_and_no_text_of_the_server(dsn):
    """On every path: by itself, on a lease, in a transaction, and with a retry."""
    async with opened(dsn) as (db, telemetry):
        with pytest.raises(asyncpg.DivisionByZeroError):
            await db.fetch("SELECT 1 / $1::int", 0)
        async with db.transaction() as transaction:
            with pytest.raises(asyncpg.InvalidTextRepresentationError):
                async with transaction.transaction():
                    await transaction.fetch("SELECT 'canary'::text::int")

    refused = [span for span in telemetry.spans if span.status.status_code is StatusCode.ERROR]
    assert [span.attributes["db.response.status_code"] for span in refused] == ["22012", "22P02"]
    assert [span.attributes["error.type"] for span in refused] == ["22012", "22P02"]
    assert [span.status.description for span in refused] == ["DivisionByZeroError", "InvalidTextRepresentationError"]
    assert not any("canary" in span.to_json() for span in telemetry.spans)


async def test_statements_that_time_out_are_cancelled_or_never_sent_are_errors(dsn):
    """Their kind says which; what was never sent lasted as long as its wait and is not in the histogram."""
    async with opened(dsn, max_pool_size=1) as (db, telemetry):
        with pytest.raises(QueryTimeout):
            await db.fetch("SELECT pg_sleep(60)", timeout=0.05)
        telemetry.exporter.clear()
        async with db.acquire():
            with pytest.raises(PoolTimeout):
                # a task of its own: the holder's would be told of its nested acquire
                await asyncio.create_task(db.fetch("SELECT 1", timeout=0.05))
        (span,) = telemetry.spans
        recorded = telemetry.points("db.client.operation.duration")

    assert span.attributes["error.type"] == "magnus.errors.PoolTimeout"
    assert span.attributes["magnus.wait_time"] >= 0.05
    assert span.end_time - span.start_time >= 50_000_000
    assert [point.attributes["error.type"] for point in recorded] == ["magnus.errors.QueryTimeout"]


async def test_success_inside_the_handling_of_an_error_is_a_success(dsn):
    """What the caller is handling is not what ended the statement: for spans and for the slow-query log."""
    async with opened(dsn, slow_log="table", slow_query_threshold=0.0) as (db, telemetry):
        try:
            int("no number")
        except ValueError:
            await db.fetch("SELECT 7 AS handled")
    (span,) = telemetry.spans
    assert span.status.status_code is StatusCode.UNSET
    con = await asyncpg.connect(dsn)
    try:
        outcomes = await con.fetch("SELECT outcome FROM slow_query_log WHERE query LIKE '%handled%'")
    finally:
        await con.close()
    assert [row["outcome"] for row in outcomes] == ["ok"]


async def test_metrics_have_the_names_and_units_of_the_conventions(dsn):
    """And say what the pool says; every statement and lease is recorded, from wherever they are asked."""
    async with opened(dsn) as (db, telemetry):
        before = db.distributions(())
        for _ in range(300):
            await db.fetch("SELECT 1 AS counted")
        async with db.acquire() as con:
            await con.fetchval("SELECT 2 AS held")
            found = telemetry.collect()
            states = {
                point.attributes["db.client.connection.state"]: point.value
                for point in telemetry.points("db.client.connection.count", found)
            }
        after = db.distributions(())

    assert {name: metric.unit for name, metric in found.items()} == {
        "db.client.operation.duration": "s",
        "db.client.connection.wait_time": "s",
        "db.client.connection.use_time": "s",
        "db.client.connection.count": "{connection}",
        "db.client.connection.max": "{connection}",
        "db.client.connection.idle.max": "{connection}",
        "db.client.connection.idle.min": "{connection}",
        "db.client.connection.pending_requests": "{request}",
        "db.client.connection.timeouts": "{timeout}",
    }
    durations = telemetry.points("db.client.operation.duration", found)
    assert sum(point.count for point in durations) == 301
    assert durations[0].explicit_bounds == (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
    normal = QueryPriority.NORMAL
    (waits,) = telemetry.points("db.client.connection.wait_time", found)
    (uses,) = telemetry.points("db.client.connection.use_time", found)
    assert waits.count == after.waits[normal].total - before.waits[normal].total == 301
    assert uses.count == 300  # the lease is still out
    assert uses.sum <= after.uses[normal].seconds
    assert states["used"] == 1
    timeouts = telemetry.points("db.client.connection.timeouts", found)
    assert {point.attributes["magnus.lane"] for point in timeouts} == LANES
    (most,) = telemetry.points("db.client.connection.max", found)
    assert (most.value, most.attributes["db.client.connection.pool.name"]) == (2, "main")


async def test_opening_a_connection_is_recorded(dsn):
    """As soon as there is a pool, also of a database that was instrumented before it was connected."""
    db = Database(DatabaseConfig(dsn=dsn, min_pool_size=1, max_pool_size=2, slow_log="off"))
    telemetry = Telemetry(db)
    async with db:
        await db.fetch("SELECT 1")
    (waited,) = telemetry.points("db.client.connection.wait_time")
    assert waited.count == 1  # told at the latest when the pool is closed
    (created,) = telemetry.points("db.client.connection.create_time")
    assert created.count >= 1
    assert created.sum > 0


async def test_an_exporter_asks_from_its_own_thread(dsn):
    """The figures are made on the event loop; when that is busy or gone, those from before are told in time."""
    async with opened(dsn) as (db, telemetry):
        await db.fetch("SELECT 1")
        found = await asyncio.to_thread(telemetry.collect)
        assert telemetry.points("db.client.connection.max", found)
        assert sum(point.count for point in telemetry.points("db.client.connection.wait_time", found)) == 1

        late = []
        thread = threading.Thread(target=lambda: late.append(telemetry.collect()))
        thread.start()
        thread.join(60)  # the loop is blocked all this time
        assert not thread.is_alive()
        (most,) = telemetry.points("db.client.connection.max", late[0])
        assert most.value == 2


async def test_two_databases_share_the_instruments(dsn):
    """Each with its pool's name; one that was stopped is told of no more, and records nothing."""
    async with opened(dsn) as (db, telemetry):
        config = DatabaseConfig(dsn=dsn, min_pool_size=0, max_pool_size=3, slow_log="off")
        async with Database(config) as other:
            second = telemetry.instrument(other, pool="other")
            sizes = {
                point.attributes["db.client.connection.pool.name"]: point.value
                for point in telemetry.points("db.client.connection.max")
            }
            assert sizes == {"main": 2, "other": 3}
            second.stop()
            second.stop()
            telemetry.exporter.clear()
            await other.fetch("SELECT 1")
            assert telemetry.spans == ()
            assert [point.value for point in telemetry.points("db.client.connection.max")] == [2]
        assert db._stats.tell_after < 0
        telemetry.on.stop()
        assert db._stats.tell_after == db.config.slow_query_threshold


async def test_a_watcher_that_fails_is_reported_once_and_disturbs_nothing(dsn):
    """As an observer of events."""
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["message"]))

    class Broken:
        def ended(self, statement):
            raise ValueError(statement)

        def took(self, what, lane, seconds):
            raise ValueError(what, lane, seconds)

    async with Database(DatabaseConfig(dsn=dsn, min_pool_size=1, max_pool_size=1, slow_log="off")) as db:
        db.watch(Broken())
        assert await db.fetchval("SELECT 1") == 1
        assert await db.fetchval("SELECT 2") == 2
        db.distributions(())
    assert reported == ["an observer failed on a statement; further failures of it are not reported"]


async def test_the_trace_reaches_the_server_only_on_request(dsn):
    """As a comment behind the statement that asks for it; the span's text is without."""
    asked = "SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid() -- mine"
    async with opened(dsn) as (db, telemetry):
        assert with_traceparent(asked) == asked
        with telemetry.tracers.get_tracer("service").start_as_current_span("request") as request:
            context = request.get_span_context()
            plain = await db.fetchval(asked)
            told = await db.fetchval(with_traceparent(asked))
    assert "traceparent" not in plain
    wanted = f"/*traceparent='00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}'*/"
    assert told.endswith(wanted)
    texts = {span.attributes["db.query.text"] for span in telemetry.spans if "db.query.text" in span.attributes}
    assert texts == {"SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()"}


async def test_a_repeat_is_linked_to_the_attempt_before(dsn):
    """A statement by itself whose connection is cut, and a unit that the server took back; COMMIT is a span too."""
    async with opened(dsn, retry_delay=0.01) as (db, telemetry):
        other = await asyncpg.connect(dsn)
        await other.execute("SELECT pg_advisory_lock(1)")
        task = asyncio.create_task(db.fetchval("SELECT pg_advisory_xact_lock_shared(1)", read=True))
        query = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        await until(lambda: other.fetchval(f"SELECT EXISTS ({query})"))
        await other.execute(f"SELECT pg_terminate_backend(pid) FROM ({query}) AS waiting")
        await other.execute("SELECT pg_advisory_unlock(1)")
        await task
        await other.close()
        first, second = telemetry.spans
        telemetry.exporter.clear()
        runs = []

        async def unit(tx):
            runs.append(1)
            await tx.execute("SELECT 1")
            if len(runs) == 1:
                await tx.execute("DO $$ BEGIN RAISE EXCEPTION SQLSTATE '40001'; END $$")

        await db.run_in_transaction(unit)
        ok, failed, again, commit = telemetry.spans

    assert [link.context.span_id for link in second.links] == [first.context.span_id]
    assert (second.attributes["magnus.attempt"], list(first.links)) == (2, [])
    assert failed.attributes["db.response.status_code"] == "40001"
    assert [link.context.span_id for link in again.links] == [failed.context.span_id]
    assert [list(span.links) for span in (ok, failed, commit)] == [[], [], []]
    assert (commit.name, commit.attributes["magnus.attempt"]) == ("COMMIT", 2)


async def test_a_trace_that_is_not_sampled_gets_no_span_and_all_its_durations(dsn):
    """Whatever the sampler is."""
    unsampled = NonRecordingSpan(SpanContext(trace_id=1, span_id=1, is_remote=True))
    async with opened(dsn) as (db, telemetry):
        with use_span(unsampled):
            assert await db.fetchval("SELECT 1") == 1
        points = telemetry.points("db.client.operation.duration")

    assert telemetry.spans == ()
    assert sum(point.count for point in points) == 1
