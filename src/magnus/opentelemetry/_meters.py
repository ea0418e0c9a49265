"""Metrics: what is counted one by one, what comes in batches from the pool, and what is read when a reader asks.

It knows instruments and the figures of a database; neither spans nor statements.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from opentelemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation

    from magnus.database import Database
    from magnus.lanes import QueryPriority
    from magnus.observe import Event

BOUNDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
"""Upper bounds that the conventions advise for `db.client.operation.duration`, seconds; the others have them too."""

SCHEMA: Final = "https://opentelemetry.io/schemas/1.44.0"
LANE: Final = "magnus.lane"
_POOL: Final = "db.client.connection.pool.name"
_STATE: Final = "db.client.connection.state"
_SLICE: Final = 32  # durations recorded in one turn of the loop: a tenth of a millisecond
_LAST: Final = 1_000  # and before a collection, which should hold what has happened
_KEPT: Final = 0.5  # one reading serves all instruments of a collection
_PATIENCE: Final = 1.0

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
    return lambda pool: [(figures[key], {LANE: lane}) for lane, figures in pool["lanes"].items()]


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


class Meters:
    """
    The instruments of one provider, made once however many databases there are, and those whose figures they show.
    """

    def __init__(self, meter: Meter) -> None:
        self.sources: list[Source] = []
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


_all_meters: WeakKeyDictionary[MeterProvider, Meters] = WeakKeyDictionary()


def meters_of(provider: MeterProvider) -> Meters:
    found = _all_meters.get(provider)
    if found is None:
        meter = provider.get_meter("magnus", schema_url=SCHEMA)
        found = _all_meters[provider] = Meters(meter)
    return found


class Source:
    """
    The figures of one database, read on its event loop.
    """

    def __init__(self, database: Database, pool: str, meters: Meters) -> None:
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
            self._record(_LAST)

    def take(self, what: str, lane: QueryPriority | None, seconds: Sequence[float], zeros: int) -> None:
        """
        Take in durations, to be recorded a few at a time.
        """
        instrument = self._meters.measured[what]
        attributes: Attributes = {_POOL: self.pool} if lane is None else {_POOL: self.pool, LANE: lane.value}
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
