"""Spans and metrics as an SDK exports them, of statements that a real server ran."""

from __future__ import annotations

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
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, use_span

from magnus import Database, DatabaseConfig, QueryPriority, QueryTimeout
from magnus.opentelemetry import BOUNDS, OpenTelemetry
from tests.facade_fakes import until

SECRET = "hunter2"


class Telescope:
    """What an application with an SDK sees of one database."""

    def __init__(self, dsn, *, sampler=None, others=(), changes=None, **options):
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider(metric_readers=[self.reader])
        self.observer = OpenTelemetry(tracer_provider=self.provider, meter_provider=self.meters, **options)
        settings = {"min_pool_size": 1, "max_pool_size": 3, "retry_delay": 0.01, "slow_log": "off", **(changes or {})}
        self.db = Database(DatabaseConfig(dsn=dsn, **settings), observers=[self.observer, *others])
        self.tracer = self.provider.get_tracer("application")

    async def __aenter__(self):
        await self.db.connect()
        return self

    async def __aexit__(self, *_):
        await self.db.close()
        self.provider.shutdown()
        self.meters.shutdown()

    def spans(self):
        """The layer's, oldest first."""
        return [span for span in self.exporter.get_finished_spans() if span.instrumentation_scope.name == "magnus"]

    def points(self):
        """Data points by metric, in one collection."""
        data = self.reader.get_metrics_data()
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


async def test_a_statement_is_a_span_by_the_conventions_without_its_values(dsn):
    """Named by its summary, a child of the caller's span, with the text masked."""
    async with Telescope(dsn) as scope:
        with scope.tracer.start_as_current_span("GET /positions") as caller:
            await scope.db.fetchval(f"SELECT count(*) FROM pg_class WHERE relname <> '{SECRET}' AND oid > $1", 7)
        (span,) = scope.spans()

    assert (span.name, span.kind, span.status.status_code) == ("SELECT pg_class", SpanKind.CLIENT, StatusCode.UNSET)
    assert span.parent.span_id == caller.get_span_context().span_id
    assert 0 <= span.end_time - span.start_time < 60e9
    found = dict(span.attributes)
    assert found.pop("magnus.wait") >= 0
    address = found.pop("server.address")
    assert address.startswith("/") or found.pop("server.port") > 0
    assert found == {
        "db.system.name": "postgresql",
        "db.namespace": await database_of(dsn),
        "db.operation.name": "SELECT",
        "db.query.summary": "SELECT pg_class",
        "db.query.text": "SELECT count(*) FROM pg_class WHERE relname <> $2 AND oid > $1",
        "magnus.lane": "normal",
    }


async def database_of(dsn):
    con = await asyncpg.connect(dsn)
    try:
        return await con.fetchval("SELECT current_database()")
    finally:
        await con.close()


async def test_every_path_makes_a_span_and_commit_too(dsn):
    """Pool and lease, cursor, COPY, many, prepared, inside a transaction."""
    async with Telescope(dsn) as scope:
        db = scope.db
        await db.execute("CREATE TABLE t (a int)")
        await db.executemany("INSERT INTO t VALUES ($1)", [(1,), (2,)])
        await db.copy_records_to_table("t", records=[(3,)])
        async with db.acquire(priority=QueryPriority.HIGH) as con:
            await con.fetch("TABLE t")
        async with db.transaction() as tx:
            statement = await tx.prepare("SELECT a FROM t")
            await statement.fetch()
            assert [row["a"] async for row in tx.cursor("SELECT a FROM t")] == [1, 2, 3]
        spans = scope.spans()

    names = [span.name for span in spans]
    assert names[:4] == ["CREATE TABLE", "INSERT t", "COPY t", "TABLE t"]
    assert names.count("SELECT t") >= 4
    assert names[-1] == "COMMIT"
    assert spans[3].attributes["magnus.lane"] == "high"


async def test_what_fails_says_how_and_never_with_what(dsn):
    """The server's code, or the class of an error that the server did not give; no message, no stack."""
    async with Telescope(dsn) as scope:
        await scope.db.fetchval("SELECT 1")
        with pytest.raises(asyncpg.InvalidTextRepresentationError):
            await scope.db.fetch(f"SELECT '{SECRET}'::int")
        with pytest.raises(QueryTimeout):
            await scope.db.fetch("SELECT pg_sleep(9)", timeout=0.05)
        task = asyncio.create_task(scope.db.fetch("SELECT pg_sleep(9)"))
        await until(lambda: waiting(scope.db, 1))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        _, refused, late, cancelled = scope.spans()
        counted = scope.points()["db.client.operation.duration"]

    assert refused.attributes["error.type"] == refused.attributes["db.response.status_code"] == "22P02"
    assert late.attributes["error.type"] in {"magnus.errors.QueryTimeout", "57014"}
    assert cancelled.attributes["error.type"] == "asyncio.exceptions.CancelledError"
    for span in (refused, late, cancelled):
        assert (span.status.status_code, span.status.description, list(span.events)) == (StatusCode.ERROR, None, [])
        assert SECRET not in span.to_json()
    assert sorted(point.attributes.get("error.type", "") for point in counted)[:2] == ["", "22P02"]


async def waiting(db, number):
    return db.get_stats()["pool_stats"]["used"] >= number


async def test_a_repeat_is_a_span_of_its_own_that_is_linked_to_the_attempt_before(dsn):
    """A statement by itself whose connection is cut, and a unit that the server took back."""
    async with Telescope(dsn) as scope:
        db = scope.db
        other = await asyncpg.connect(dsn)
        await other.execute("SELECT pg_advisory_lock(1)")
        task = asyncio.create_task(db.fetchval("SELECT pg_advisory_xact_lock_shared(1)", read=True))
        query = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        await until(lambda: other.fetchval(f"SELECT EXISTS ({query})"))
        await other.execute(f"SELECT pg_terminate_backend(pid) FROM ({query}) AS waiting")
        await other.execute("SELECT pg_advisory_unlock(1)")
        await task
        await other.close()
        first, second = scope.spans()
        scope.exporter.clear()

        runs = []

        async def unit(tx):
            runs.append(1)
            await tx.execute("SELECT 1")
            if len(runs) == 1:
                await tx.execute("DO $$ BEGIN RAISE EXCEPTION SQLSTATE '40001'; END $$")

        await db.run_in_transaction(unit)
        ok, failed, again, commit = scope.spans()
        retries = {p.attributes["error.type"]: p.value for p in scope.points()["magnus.retries"]}

    assert first.attributes["error.type"]
    assert [link.context.span_id for link in second.links] == [first.context.span_id]
    assert (second.attributes["magnus.attempt"], list(first.links)) == (2, [])
    assert failed.attributes["db.response.status_code"] == "40001"
    assert [link.context.span_id for link in again.links] == [failed.context.span_id]
    assert [list(span.links) for span in (ok, failed, commit)] == [[], [], []]
    assert again.attributes["magnus.attempt"] == commit.attributes["magnus.attempt"] == 2
    assert retries["SerializationError"] == 1
    assert sum(retries.values()) == 2


async def test_the_metrics_are_those_of_the_conventions(dsn):
    """Every name with its figures: a histogram of each duration, connections by state, waiting, timed out."""
    async with Telescope(dsn, pool="trades") as scope:
        db = scope.db
        for _ in range(3):
            await db.fetchval("SELECT 1", priority=QueryPriority.HIGH)
        async with db.acquire():
            points = scope.points()

    pool = {"db.client.connection.pool.name": "trades"}
    (duration,) = points["db.client.operation.duration"]
    assert (duration.count, duration.explicit_bounds) == (3, BOUNDS)
    assert 0 < duration.sum < 60
    assert {"db.system.name": "postgresql", "magnus.lane": "high", "db.query.summary": "SELECT"}.items() <= dict(
        duration.attributes
    ).items()
    for name, count in (("wait_time", 3), ("use_time", 3), ("create_time", 1)):
        found = points[f"db.client.connection.{name}"]
        high = [point for point in found if point.attributes.get("magnus.lane") in {"high", None}]
        assert sum(point.count for point in high) >= count, name
        assert all(pool.items() <= dict(point.attributes).items() for point in found)
    states = {p.attributes["db.client.connection.state"]: p.value for p in points["db.client.connection.count"]}
    assert (set(states), states["used"]) == ({"idle", "used"}, 1)
    for name, value in (("max", 3), ("idle.max", 3), ("idle.min", 1)):
        (point,) = points[f"db.client.connection.{name}"]
        assert (point.value, dict(point.attributes)) == (value, pool)
    for name in ("pending_requests", "timeouts"):
        lanes = {p.attributes["magnus.lane"]: p.value for p in points[f"db.client.connection.{name}"]}
        assert lanes == dict.fromkeys(("critical", "high", "normal", "low", "background"), 0)


async def test_a_reader_in_another_thread_gets_what_the_loop_says(dsn):
    """As a periodic exporter does."""
    async with Telescope(dsn) as scope:
        for _ in range(700):
            await scope.db.fetchval("SELECT 1")
        found = await asyncio.to_thread(lambda: (threading.get_ident(), scope.points()))

    assert found[0] != threading.get_ident()
    points = found[1]
    assert points["db.client.connection.max"][0].value == 3
    assert points["db.client.operation.duration"][0].count == 700


async def test_waits_and_uses_are_all_recorded(dsn):
    """Thousands, most waits of which took no time at all."""
    async with Telescope(dsn, spans=False) as scope:
        for _ in range(1_000):
            await scope.db.fetchval("SELECT 1")
        scope.db.remove_observer(scope.observer)  # records what is due
        points = scope.points()

    assert [points[f"db.client.connection.{name}"][0].count for name in ("wait_time", "use_time")] == [1_000, 1_000]
    assert "db.client.connection.max" not in points


async def test_without_a_span_around_or_with_none_sampled_nothing_is_exported_and_all_works(dsn):
    """Metrics go on; the API without an SDK is no trouble either."""
    async with Telescope(dsn, sampler=ALWAYS_OFF) as scope:
        assert await scope.db.fetchval("SELECT 1") == 1
        assert scope.spans() == []
        unsampled = NonRecordingSpan(SpanContext(trace_id=1, span_id=1, is_remote=True))
    async with Telescope(dsn) as scope, contextlib.AsyncExitStack() as stack:
        stack.enter_context(use_span(unsampled))
        assert await scope.db.fetchval("SELECT 1") == 1
        assert scope.spans() == []
        assert scope.points()["db.client.operation.duration"][0].count == 1
    async with Database(DatabaseConfig(dsn=dsn, min_pool_size=1), observers=[OpenTelemetry()]) as db:
        assert await db.fetchval("SELECT 1") == 1


class Broken(OpenTelemetry):
    """Fails at everything that is asked of it."""

    has_comments = True

    def saw(self, statement, /):
        raise RuntimeError("no")

    comment = saw


async def test_an_instrument_that_fails_disturbs_no_statement_and_is_reported_once(dsn):
    """As every observer."""
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
    broken = Broken(metrics=False, comments=True)
    async with Database(DatabaseConfig(dsn=dsn, min_pool_size=1, slow_log="off"), observers=[broken]) as db:
        for _ in range(3):
            assert await db.fetchval("SELECT 1") == 1
        async with db.transaction() as tx:
            assert await tx.fetchval("SELECT 2") == 2
    assert len(told) == 1
    assert "an observer failed on" in told[0]


async def test_trace_context_goes_to_the_server_only_on_request_and_only_when_sampled(dsn):
    """At the end of the statement, as sqlcommenter writes it; not where there is a comment already."""
    async with Telescope(dsn) as plain:
        with plain.tracer.start_as_current_span("caller"):
            assert await plain.db.fetchval("SELECT current_query()") == "SELECT current_query()"
    async with Telescope(dsn, comments=True) as scope:
        db = scope.db
        assert await db.fetchval("SELECT current_query()") == "SELECT current_query()"
        with scope.tracer.start_as_current_span("caller") as span:
            sent = [await db.fetchval("SELECT current_query()")]
            async with db.acquire() as con:
                sent.append(await con.fetchval("SELECT current_query()"))
            hinted = await db.fetchval("/*+ SeqScan(t) */ SELECT current_query()")
        context = span.get_span_context()
        comment = f"/*traceparent='00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}'*/"
        assert sent == [f"SELECT current_query() {comment}"] * 2
        assert hinted == "/*+ SeqScan(t) */ SELECT current_query()"


async def test_a_comment_changes_neither_what_is_known_of_a_statement_nor_how_it_is_shown(dsn):
    """Sessions are judged, statements grouped and logged by the text that was written, on every path."""
    changes = {"slow_log": "table", "slow_query_threshold": 0.0, "slow_log_rate": 0.0, "slow_log_values": True}
    async with Telescope(dsn, comments=True, changes=changes) as scope:
        db = scope.db
        await db.execute("CREATE TABLE t (a int)")
        for _ in range(2):
            with scope.tracer.start_as_current_span("caller"):
                await db.fetch("SELECT $1::int AS found", 5)
                await db.executemany("INSERT INTO t VALUES ($1)", [(1,)])
                await db.execute("SELECT 6 -- the end")
                async with db.transaction() as tx:
                    assert await tx.fetchval("SELECT $1::int + 1", 7) == 8
                    assert [row[0] async for row in tx.cursor("SELECT a FROM t WHERE a = $1", 1)]
                    copied = bytearray()

                    async def take(data, into=copied):
                        into.extend(data)

                    await tx.copy_from_query("SELECT a, $1::int FROM t", 9, output=take)
                    assert b"9" in copied

        async def written():
            return not db.get_stats()["slow_log"]["waiting"]

        await until(written)
        rows = await db.fetch("SELECT query, query_signature, bind_values, trace_id FROM slow_query_log")
        names = {span.attributes["db.query.text"] for span in scope.spans()}

    shown = [(row["query"], row["bind_values"]) for row in rows if row["query"].startswith("SELECT $1::int AS")]
    assert shown == [("SELECT $1::int AS found", '["5"]')] * 2
    assert not [row for row in rows if "traceparent" in f"{row['query']}{row['bind_values']}"]
    assert not [name for name in names if "traceparent" in name]
    assert len({row["query_signature"] for row in rows if "found" in row["query"]}) == 1


async def test_a_database_that_connects_again_is_measured_again(dsn):
    """One observer, two lives; the instruments are made once."""
    async with Telescope(dsn) as scope:
        await scope.db.fetchval("SELECT 1")
        await scope.db.close()
        await scope.db.connect()
        await scope.db.fetchval("SELECT 1")
        points = scope.points()

    assert points["db.client.operation.duration"][0].count == 2
    assert len(points["db.client.connection.max"]) == 1
