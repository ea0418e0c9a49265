"""The observer: a span and a duration for every statement, and what its database is to tell the meters.

A span is made when its statement has ended, with the times it had: nothing happens before a statement is sent.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from opentelemetry import metrics, trace
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from magnus import _driver
from magnus._normalise import normalised
from magnus.opentelemetry._meters import LANE, SCHEMA, Meters, Source, meters_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import SpanContext, TracerProvider

    from magnus._normalise import Normal
    from magnus._watching import Statement
    from magnus.database import Database
    from magnus.lanes import QueryPriority
    from magnus.observe import Event
    from magnus.opentelemetry._meters import Attributes

_TEXTS: Final = 2_000
_SHORT: Final = 10_000
_SUMMARIES: Final = 200  # that metrics tell apart; an application whose texts are made up has no end of them
_NANO: Final = 1_000_000_000


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
        self._sources: dict[int, Source] = {}
        self._tracer = trace.get_tracer("magnus", tracer_provider=tracer_provider, schema_url=SCHEMA)
        self._meters: Meters | None = None

    # --- life

    def opened(self, database: Database, /) -> None:
        """
        Begin to read the figures of a database that is connected.
        """
        if self._has_metrics:
            provider = self._meter_provider or metrics.get_meter_provider()
            self._meters = meters = meters_of(provider)
            source = self._sources[id(database)] = Source(database, self._pool, meters)
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
        is_traced = self._has_spans and _may_be_traced()
        if not is_traced and self._meters is None:
            return
        described = self._known.described(statement)
        failure = _failure(statement.error)
        if self._meters is not None:
            self._meters.durations.record(statement.seconds, described.measured(statement, self._known, failure))
        if is_traced:
            self._trace(statement, described, failure)

    def _trace(self, statement: Statement, described: _Described, failure: Attributes) -> None:
        course = None
        if statement.unit is not None:
            course = self._courses.setdefault(statement.unit, _Course())
        ended = time.time_ns()
        attributes = {**described.traced, **failure, LANE: statement.lane.value, "magnus.wait": statement.wait}
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


def _may_be_traced() -> bool:
    """
    Say whether the span around is sampled, or there is none. A trace that is not sampled gets none of ours, whatever
    the sampler would say of it: asking costs more than all the rest.
    """
    context = trace.get_current_span().get_span_context()
    return not context.is_valid or context.trace_flags.sampled


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
            found[LANE] = statement.lane.value
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
