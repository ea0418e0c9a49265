"""A database's statements as OpenTelemetry spans, its figures as metrics, by the API alone: the SDK is the service's.

Names, units and buckets are those of the stable database conventions (semantic conventions 1.44); what they have no
word for is called `magnus.…`. No literal and no bind value is in what is sent. Knows no exporter.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from concurrent.futures import Future
from functools import lru_cache
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from magnus._figures import BOUNDS
from magnus._normalise import normalised
from magnus.errors import ConfigError

try:
    from opentelemetry import metrics, trace
except ImportError:
    advice = "is missing: pip install 'magnus-db[opentelemetry]'"
    raise ConfigError("opentelemetry", "opentelemetry-api", advice) from None

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from opentelemetry.metrics import CallbackOptions, Histogram, MeterProvider, Observation
    from opentelemetry.trace import TracerProvider

    from magnus.database import Database
    from magnus.lanes import QueryPriority
    from magnus.observe import Ended

    Attributes = dict[str, str | int | float]
    Figures = Mapping[str, Any]

_POOL: Final = "db.client.connection.pool.name"
_STATE: Final = "db.client.connection.state"
_LANE: Final = "magnus.lane"
_VERSION: Final = metadata.version("magnus-db")
_ON_TABLES: Final = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "COPY"})
_FLUSH: Final = 256  # statements: so many waits and uses are recorded at once, which takes about a millisecond
_ANSWER: Final = 1.0  # seconds that an exporter's thread waits for the event loop
_KEPT: Final = 0.5


def instrument(
    db: Database,
    *,
    pool: str = "main",
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> Instrumentation:
    """
    Make spans and metrics of a database from now on, called `pool`; providers are the process's own if not given.

    To be called on the event loop that the database works on.
    """
    tracers = trace.get_tracer_provider() if tracer_provider is None else tracer_provider
    meters = metrics.get_meter_provider() if meter_provider is None else meter_provider
    instruments = _instruments.get(meters)
    if instruments is None:
        instruments = _instruments[meters] = _Instruments(meters)
    return Instrumentation(db, pool, tracers, instruments)


def with_traceparent(text: str) -> str:
    """
    Return a statement with the trace that this task is in as a comment, in the form of sqlcommenter; as it was without.

    The server and this layer keep what they know of a statement by its text, so each trace makes a new statement of it:
    it is parsed and planned anew, and takes the place of another in the cache. For single statements, not for all.
    """
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return text
    return f"{text}\n/*traceparent='00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}'*/"


class Instrumentation:
    """
    What `instrument` began: a watcher of one database (see `magnus.observe.Watcher`), until `stop`.
    """

    def __init__(self, db: Database, pool: str, tracers: TracerProvider, instruments: _Instruments) -> None:
        self._db = db
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._tracer = tracers.get_tracer("magnus", _VERSION)
        self._instruments = instruments
        self._target = _target(db)
        self.pool: Final = {_POOL: pool}
        self._since_flush = 0
        self._figures: tuple[float, Figures] = (float("-inf"), {})
        db.watch(self)
        instruments.watching.append(self)

    def stop(self) -> None:
        """
        End it; what was not recorded yet is. A second time does nothing.
        """
        if self in self._instruments.watching:
            self._db.distributions(())
            self._db.unwatch(self)
            self._instruments.watching.remove(self)

    # --- what the database tells

    def ended(self, statement: Ended) -> None:
        """
        Make a span of a statement, and record its duration.
        """
        text, told = _described(statement.text)
        shared = {**self._target, **told, _LANE: statement.lane.value, **_outcome(statement.error)}
        now = time.time_ns()
        lasted = statement.seconds if statement.is_sent else statement.wait
        more: Attributes = {"db.query.text": text, "magnus.wait_time": statement.wait, **self.pool}
        if statement.attempts > 1:
            more["magnus.attempt"] = statement.attempts
        span = self._tracer.start_span(
            str(told.get("db.query.summary", "postgresql")),
            kind=trace.SpanKind.CLIENT,
            attributes={**shared, **more},
            start_time=now - int(lasted * 1e9),
        )
        if statement.error is not None:
            span.set_status(trace.StatusCode.ERROR, type(statement.error).__name__)  # its text may hold a value
        span.end(now)
        if statement.is_sent:
            self._instruments.durations["operation"].record(statement.seconds, shared)
        self._since_flush += 1
        if self._since_flush >= _FLUSH:
            self._since_flush = 0
            self._db.distributions(())

    def took(self, what: str, lane: QueryPriority | None, seconds: list[float]) -> None:
        """
        Record how long connections were waited for, used, and opened.
        """
        attributes = self.pool if lane is None else {**self.pool, _LANE: lane.value}
        record = self._instruments.durations[what].record
        for each in seconds:
            record(each, attributes)

    # --- what an exporter asks

    def figures(self) -> Figures:
        """
        Return the pool's figures. An exporter asks from a thread of its own: they are made on the event loop, and when
        that does not answer within a second, those from before are returned.
        """
        if threading.get_ident() == self._thread:
            self._read()
            return self._figures[1]
        made, found = self._figures
        if time.monotonic() - made < _KEPT:
            return found
        answer: Future[None] = Future()
        try:
            self._loop.call_soon_threadsafe(self._answer, answer)
            answer.result(_ANSWER)
        except (RuntimeError, TimeoutError):  # the loop is closed, or busy
            self._figures = (time.monotonic(), found)  # the next instruments of this collection do not wait again
        return self._figures[1]

    def _answer(self, answer: Future[None]) -> None:
        try:
            self._read()
        finally:
            answer.set_result(None)

    def _read(self) -> None:
        self._db.distributions(())  # records what is not recorded yet
        self._figures = (time.monotonic(), self._db.get_stats()["pool_stats"])


class _Instruments:
    """
    The instruments of one provider of meters, shared by all databases: a second instrument of a name is not made.
    """

    def __init__(self, meters: MeterProvider) -> None:
        self.watching: list[Instrumentation] = []
        meter = meters.get_meter("magnus", _VERSION)

        def histogram(name: str, help: str) -> Histogram:  # noqa: A002
            return meter.create_histogram(
                f"db.client.{name}", "s", help, explicit_bucket_boundaries_advisory=list(BOUNDS)
            )

        self.durations: Final = {
            "operation": histogram("operation.duration", "Time of statements on the server and the way there."),
            "wait": histogram("connection.wait_time", "Time that callers waited for a connection."),
            "use": histogram("connection.use_time", "Time that callers kept their connection."),
            "create": histogram("connection.create_time", "Time it took to open a connection."),
        }
        gauge, counter = meter.create_observable_up_down_counter, meter.create_observable_counter
        for make, name, unit, help, read in (  # noqa: A001
            (gauge, "count", "{connection}", "Connections that are open, by state.", _by_state),
            (gauge, "max", "{connection}", "Connections that there may be.", _one("max_size")),
            (gauge, "idle.min", "{connection}", "Connections kept open in the background.", _one("min_size")),
            (gauge, "pending_requests", "{request}", "Callers that wait for a connection.", _by_lane("waiting")),
            (counter, "timeouts", "{timeout}", "Callers that got no connection in their time.", _by_lane("timeouts")),
        ):
            make(f"db.client.connection.{name}", [self._observing(read)], unit, help)

    def _observing(self, read: _Read) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            for each in tuple(self.watching):
                for attributes, value in read(each.figures()):
                    yield metrics.Observation(value, {**each.pool, **attributes})

        return observe


_instruments: WeakKeyDictionary[MeterProvider, _Instruments] = WeakKeyDictionary()

if TYPE_CHECKING:
    _Read = Callable[[Figures], list[tuple[Attributes, float]]]


def _by_state(pool: Figures) -> list[tuple[Attributes, float]]:
    return [({_STATE: state}, pool[key]) for state, key in (("idle", "free"), ("used", "used")) if key in pool]


def _one(key: str) -> _Read:
    return lambda pool: [({}, pool[key])] if key in pool else []


def _by_lane(key: str) -> _Read:
    return lambda pool: [({_LANE: lane}, found[key]) for lane, found in pool.get("lanes", {}).items()]


def _target(db: Database) -> Attributes:
    host, port, database = db.config.destination(os.environ)
    found: Attributes = {"db.system.name": "postgresql"}
    if database:
        found["db.namespace"] = database
    if host:
        found |= {"server.address": host, "server.port": port}
    return found


@lru_cache(1024)
def _described(text: str) -> tuple[str, Attributes]:
    """
    Return a statement without its constants, and what the conventions say of it.
    """
    normal = normalised(text)
    words = normal.summary.split(" ")
    found: Attributes = {}
    if normal.summary:
        found = {"db.query.summary": normal.summary, "db.operation.name": words[0]}
        if len(words) == 2 and words[0] in _ON_TABLES:
            found["db.collection.name"] = words[1]
    return normal.text, found


def _outcome(error: BaseException | None) -> Attributes:
    if error is None:
        return {}
    sqlstate = getattr(error, "sqlstate", None)
    if sqlstate:
        return {"db.response.status_code": sqlstate, "error.type": sqlstate}
    module, name = type(error).__module__, type(error).__qualname__
    return {"error.type": name if module == "builtins" else f"{module}.{name}"}
