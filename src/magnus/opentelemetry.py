"""Spans and metrics of a database by OpenTelemetry's conventions, through its API alone; it knows no SDK and no exporter.

Theory of operation. A span is made when its statement has ended, with the times it had: nothing happens before a
statement is sent, and nothing of the user's runs inside. Durations of statements are recorded one by one; those of
waiting, use and opening come from the pool's own histograms in batches, and are recorded a few in each turn of the
event loop. Numbers of connections are read when a reader asks, on the loop, whichever thread the reader is in.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from magnus import _driver
from magnus._normalise import normalised
from magnus.errors import ConfigError

try:
    from opentelemetry import metrics, trace
    from opentelemetry.trace import Link, SpanKind, Status, StatusCode
except ImportError:
    raise ConfigError(
        "opentelemetry", "opentelemetry.trace", "is missing: pip install 'magnus-db[opentelemetry]'"
    ) from None

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation
    from opentelemetry.trace import SpanContext, TracerProvider

    from magnus._normalise import Normal
    from magnus._watching import Statement
    from magnus.database import Database
    from magnus.lanes import QueryPriority
    from magnus.observe import Event

__all__ = ["BOUNDS", "OpenTelemetry"]

BOUNDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
"""Upper bounds that the conventions advise for `db.client.operation.duration`, seconds; the others have them too."""

_SCHEMA: Final = "https://opentelemetry.io/schemas/1.44.0"
_POOL: Final = "db.client.connection.pool.name"
_STATE: Final = "db.client.connection.state"
_LANE: Final = "magnus.lane"
_TEXTS: Final = 2_000
_SHORT: Final = 10_000
_SUMMARIES: Final = 200  # that metrics tell apart; an application whose texts are made up has no end of them
_SLICE: Final = 32  # durations recorded in one turn of the loop: a tenth of a millisecond
_KEPT: Final = 0.5  # one reading serves all instruments of a collection
_PATIENCE: Final = 1.0
_NANO: Final = 1_000_000_000

Attributes = dict[str, Any]


class _Gauge(NamedTuple):
    name: str
    unit: str
    description: str
    is_counter: bool
    read: Callable[[Mapping[str, Any]], list[tuple[float, Attributes]]]


def _whole(key: str) -> Callable[[Mapping[str, Any]], list[tuple[float, Attributes]]]:
    return lambda pool: [(pool[key], {})]


def _by_lane(key: str) -> Callable[[Mapping[str, Any]], list[tuple[float, Attributes]]]:
    return lambda pool: [(figures[key], {_LANE: lane}) for lane, figures in pool["lanes"].items()]


_COUNTED: Final = (
    _Gauge("db.client.connection.count", "{connection}", "Connections that are open, by state.", False,
           lambda pool: [(pool["free"], {_STATE: "idle"}), (pool["used"], {_STATE: "used"})]),
    _Gauge("db.client.connection.max", "{connection}", "Connections that there may be.", False, _whole("max_size")),
    _Gauge("db.client.connection.idle.max", "{connection}", "Connections that may be idle.", False, _whole("max_size")),
    _Gauge("db.client.connection.idle.min", "{connection}", "Connections kept open.", False, _whole("min_size")),
    _Gauge("db.client.connection.pending_requests", "{request}", "Callers that wait for a connection.", False,
           _by_lane("waiting")),
    _Gauge("db.client.connection.timeouts", "{timeout}", "Callers that got no connection in their time.", True,
           _by_lane("timeouts")),
    _Gauge("magnus.pool.rejected", "{request}", "Callers refused at once: queue full or shed.", True,
           _by_lane("rejected")),
)  # fmt: skip
_MEASURED: Final = {
    "wait": ("db.client.connection.wait_time", "Time that callers waited for a connection."),
    "use": ("db.client.connection.use_time", "Time that callers kept their connection."),
    "create": ("db.client.connection.create_time", "Time it took to open a connection."),
}
_DURATION: Final = ("db.client.operation.duration", "Time of statements, waiting for a connection not included.")
_RETRIES: Final = ("magnus.retries", "Units of work that were tried again, by the error's type.")
_EVENTS: Final = ("magnus.events", "What happened, by the event's name.")


class OpenTelemetry:
    """
    An observer that makes spans and metrics: `Database(config, observers=[OpenTelemetry()])`.

    One may be given to several databases when they share a name. Providers that are not given are the global ones, as
    they are when the database connects.

    Args:
        pool: The pool's name in metrics.
        spans: Whether statements become spans.
        metrics: Whether there are metrics.
        comments: Whether statements inside a sampled trace carry its context to the server, as a comment at their end
            (sqlcommenter's `traceparent`). Each is another text then, and prepared anew: see docs/opentelemetry.md.
    """

    def __init__(
        self,
        *,
        pool: str = "main",
        spans: bool = True,
        metrics: bool = True,
        comments: bool = False,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self.has_comments = comments
        self._pool = pool
        self._has_spans = spans
        self._has_metrics = metrics
        self._tracer_provider = tracer_provider
        self._meter_provider = meter_provider
        self._known = _Known()
        self._courses: WeakKeyDictionary[Any, _Course] = WeakKeyDictionary()
        self._sources: dict[int, _Source] = {}
        self._tracer = trace.get_tracer("magnus", tracer_provider=tracer_provider, schema_url=_SCHEMA)
        self._meters: _Meters | None = None

    # --- life

    def opened(self, database: Database, /) -> None:
        """
        Begin to read the figures of a database that is connected.
        """
        if self._has_metrics:
            provider = self._meter_provider or metrics.get_meter_provider()
            self._meters = meters = _meters_of(provider)
            source = self._sources[id(database)] = _Source(database, self._pool, meters)
            meters.sources.append(source)
            database.tap(source.take)

    def closed(self, database: Database, /) -> None:
        """
        Read them for the last time.
        """
        source = self._sources.pop(id(database), None)
        if source is not None:
            source.finish()

    # --- what happens

    def __call__(self, event: Event, /) -> None:
        if self._meters is not None:
            self._meters.happened(event, self._pool)

    def comment(self) -> str:
        """
        Return the context of the trace that the task is in, where that is sampled.
        """
        context = trace.get_current_span().get_span_context()
        if not context.is_valid or not context.trace_flags.sampled:
            return ""
        return f"/*traceparent='00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}'*/"

    def saw(self, statement: Statement, /) -> None:
        """
        Make a span, and record the duration.
        """
        described = self._known.described(statement)
        failure = _failure(statement.error)
        if self._meters is not None:
            self._meters.durations.record(statement.seconds, described.measured(statement, self._known, failure))
        if self._has_spans:
            self._trace(statement, described, failure)

    def _trace(self, statement: Statement, described: _Described, failure: Attributes) -> None:
        course = None
        if statement.unit is not None:
            course = self._courses.setdefault(statement.unit, _Course())
        ended = time.time_ns()
        attributes = {**described.traced, **failure, _LANE: statement.lane.value, "magnus.wait": statement.wait}
        if statement.attempt > 1:
            attributes["magnus.attempt"] = statement.attempt
        span = self._tracer.start_span(
            described.name,
            kind=SpanKind.CLIENT,
            attributes=attributes,
            links=() if course is None else course.links(statement.attempt),
            start_time=ended - int(statement.seconds * _NANO),
            record_exception=False,  # its text may hold values
            set_status_on_exception=False,
        )
        if failure:
            span.set_status(Status(StatusCode.ERROR))
        span.end(ended)
        if course is not None:
            course.last = span.get_span_context()


class _Course:
    """
    The attempts at one unit: the first span of each but the first is linked to the last one of the attempt before.
    """

    __slots__ = ("_attempt", "last")

    def __init__(self) -> None:
        self._attempt = 1
        self.last: SpanContext | None = None

    def links(self, attempt: int) -> Sequence[Link]:
        before, self._attempt = self._attempt, attempt
        if attempt == before or self.last is None or not self.last.is_valid:
            return ()
        return (Link(self.last, {"magnus.link": "retry_of"}),)


def _failure(error: BaseException | None) -> Attributes:
    """
    Return what is said of an error: the server's code, else the name of its class; never its text.
    """
    if error is None:
        return {}
    sqlstate = _driver.sqlstate_of(error)
    if sqlstate is not None:
        return {"error.type": sqlstate, "db.response.status_code": sqlstate}
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return {"error.type": name}


class _Described:
    """
    What is the same for all calls of one text at one server.
    """

    __slots__ = ("_measured", "name", "traced")

    def __init__(self, normal: Normal, place: tuple[str, int | None, str]) -> None:
        address, port, database = place
        self.name = normal.summary or normal.text.partition(" ")[0] or "postgresql"
        where: Attributes = {"db.system.name": "postgresql", "server.address": address, "db.namespace": database}
        if port is not None:
            where["server.port"] = port
        where = {name: value for name, value in where.items() if value != ""}
        operation = self.name.partition(" ")[0]
        self.traced = {
            **where, "db.operation.name": operation, "db.query.summary": self.name, "db.query.text": normal.text,
        }  # fmt: skip
        self._measured: dict[QueryPriority, Attributes] = {}

    def measured(self, statement: Statement, known: _Known, failure: Attributes) -> Attributes:
        """
        Return the attributes that a duration is recorded with.
        """
        found = self._measured.get(statement.lane)
        if found is None:
            left_out = {"db.query.text"} if known.tells_apart(self.name) else {"db.query.text", "db.query.summary"}
            found = {name: value for name, value in self.traced.items() if name not in left_out}
            found[_LANE] = statement.lane.value
            self._measured[statement.lane] = found
        return {**found, **failure} if failure else found


class _Known:
    """
    Descriptions by text and server: a text is normalised once, as long as there are not too many.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[str, tuple[str, int | None, str]], _Described] = {}
        self._names: set[str] = set()

    def described(self, statement: Statement) -> _Described:
        key = (statement.text, statement.place)
        found = self._found.get(key)
        if found is None:
            found = _Described(normalised(statement.text), statement.place)
            if len(statement.text) <= _SHORT:
                while len(self._found) >= _TEXTS:
                    del self._found[next(iter(self._found))]
                self._found[key] = found
        return found

    def tells_apart(self, name: str) -> bool:
        """
        Say whether metrics have a series of their own for a summary: the first ones do.
        """
        if len(self._names) < _SUMMARIES:
            self._names.add(name)
        return name in self._names


class _Meters:
    """
    The instruments of one provider, made once however many databases there are, and those whose figures they show.
    """

    def __init__(self, meter: Meter) -> None:
        self.sources: list[_Source] = []
        self.durations = _histogram(meter, *_DURATION)
        self.measured = {what: _histogram(meter, *named) for what, named in _MEASURED.items()}
        self._retries = meter.create_counter(_RETRIES[0], "{retry}", _RETRIES[1])
        self._events = meter.create_counter(_EVENTS[0], "{event}", _EVENTS[1])
        for gauge in _COUNTED:
            make = meter.create_observable_counter if gauge.is_counter else meter.create_observable_up_down_counter
            make(gauge.name, [self._asked(gauge)], gauge.unit, gauge.description)

    def happened(self, event: Event, pool: str) -> None:
        self._events.add(1, {_POOL: pool, "magnus.event": event.name})
        if event.name == "database_retry":
            self._retries.add(1, {_POOL: pool, "error.type": event.fields()["error_type"]})  # type: ignore[dict-item]

    def _asked(self, gauge: _Gauge) -> Callable[[CallbackOptions], Iterator[Observation]]:
        def observe(_: CallbackOptions) -> Iterator[Observation]:
            for source in tuple(self.sources):
                for value, attributes in source.counted(gauge):
                    yield metrics.Observation(value, {_POOL: source.pool, **attributes})

        return observe


def _histogram(meter: Meter, name: str, description: str) -> Any:
    return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=BOUNDS)


_all_meters: WeakKeyDictionary[MeterProvider, _Meters] = WeakKeyDictionary()


def _meters_of(provider: MeterProvider) -> _Meters:
    found = _all_meters.get(provider)
    if found is None:
        meter = provider.get_meter("magnus", schema_url=_SCHEMA)
        found = _all_meters[provider] = _Meters(meter)
    return found


class _Source:
    """
    The figures of one database, read on its event loop.
    """

    def __init__(self, database: Database, pool: str, meters: _Meters) -> None:
        self.pool = pool
        self._database = database
        self._meters = meters
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._read_at = float("-inf")
        self._figures: Mapping[str, Any] | None = None
        self._due: deque[tuple[Any, float, int, Attributes]] = deque()
        self._is_awake = False

    def counted(self, gauge: _Gauge) -> list[tuple[float, Attributes]]:
        """
        Return what an instrument shows; nothing when the loop does not answer in a second.
        """
        if time.monotonic() - self._read_at >= _KEPT:
            self._refresh()
        return [] if self._figures is None else gauge.read(self._figures)

    def _refresh(self) -> None:
        if threading.get_ident() == self._thread:
            self._read()
            return
        asked: Future[None] = Future()

        def read() -> None:
            self._read()
            asked.set_result(None)

        try:
            self._loop.call_soon_threadsafe(read)
            asked.result(_PATIENCE)
        except (RuntimeError, TimeoutError):  # the loop is closed, or blocked: then there are no new figures
            self._figures = None

    def _read(self) -> None:
        if self in self._meters.sources:
            self._figures = self._database.get_stats()["pool_stats"]  # which also tells `take` of what is due
            self._read_at = time.monotonic()

    def take(self, what: str, lane: QueryPriority | None, seconds: Sequence[float], zeros: int) -> None:
        """
        Take in durations, to be recorded a few at a time.
        """
        instrument = self._meters.measured[what]
        attributes: Attributes = {_POOL: self.pool} if lane is None else {_POOL: self.pool, _LANE: lane.value}
        self._due.extend((instrument, each, 1, attributes) for each in seconds)
        if zeros:
            self._due.append((instrument, 0.0, zeros, attributes))
        if self._due and not self._is_awake:
            self._is_awake = True
            self._loop.call_soon(self._some)

    def _some(self) -> None:
        self._record(_SLICE)
        self._is_awake = bool(self._due)
        if self._is_awake:
            self._loop.call_soon(self._some)

    def _record(self, most: float) -> None:
        while self._due and most > 0:
            instrument, value, times, attributes = self._due.popleft()
            now = int(min(times, most))
            for _ in range(now):
                instrument.record(value, attributes)
            most -= now
            if now < times:
                self._due.appendleft((instrument, value, times - now, attributes))

    def finish(self) -> None:
        """
        Record what is left, and show nothing any more.
        """
        self._database.tap(None)
        self._record(float("inf"))
        self._meters.sources.remove(self)
        self._figures = None
