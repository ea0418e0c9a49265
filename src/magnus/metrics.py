"""A database's figures as Prometheus metrics, made at the scrape from snapshots; the path of a statement pays nothing.

Names, units and buckets are those of the OpenTelemetry conventions for databases (semantic conventions 1.44), as its
Prometheus exporter translates them; what they have no word for is called `magnus_…`. Knows no HTTP.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from magnus import _figures
from magnus.errors import ConfigError
from magnus.observe import Event

try:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
    from prometheus_client.exposition import choose_encoder
except ImportError:
    raise ConfigError("metrics", "prometheus_client", "is missing: pip install 'magnus-db[prometheus]'") from None

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client.core import Metric

    from magnus.database import Database
    from magnus.pool import Distribution

BOUNDS: Final = _figures.BOUNDS
_POOL: Final = "db_client_connection_pool_name"
_STATE: Final = "db_client_connection_state"
_LANE: Final = "magnus_lane"
_CACHED: Final = 1.0


@dataclass(frozen=True, slots=True)
class Named:
    """
    One metric: what it is called, what it is, and what it means.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = (_POOL,)
    unit: str = ""


CATALOGUE: Final = (
    Named("db_client_operation_duration", "histogram",
          "Time of statements on the server and the way there, waiting for a connection not included.",
          (_POOL, _LANE), "seconds"),
    Named("db_client_connection_wait_time", "histogram", "Time that callers waited for a connection.",
          (_POOL, _LANE), "seconds"),
    Named("db_client_connection_use_time", "histogram", "Time that callers kept their connection.",
          (_POOL, _LANE), "seconds"),
    Named("db_client_connection_create_time", "histogram", "Time it took to open a connection.", unit="seconds"),
    Named("db_client_connection_count", "gauge", "Connections that are open, by state.", (_POOL, _STATE)),
    Named("db_client_connection_max", "gauge", "Connections that there may be."),
    Named("db_client_connection_idle_min", "gauge", "Connections kept open in the background."),
    Named("db_client_connection_pending_requests", "gauge", "Callers that wait for a connection.", (_POOL, _LANE)),
    Named("db_client_connection_timeouts", "counter", "Callers that got no connection in their time.", (_POOL, _LANE)),
    Named("magnus_pool_connecting", "gauge", "Connections on their way."),
    Named("magnus_pool_used", "gauge", "Connections held by a lane.", (_POOL, _LANE)),
    Named("magnus_pool_cap", "gauge", "Connections that a lane and those below it may hold.", (_POOL, _LANE)),
    Named("magnus_pool_acquired", "counter", "Connections given to callers.", (_POOL, _LANE)),
    Named("magnus_pool_rejected", "counter", "Callers refused at once: queue full or shed.", (_POOL, _LANE)),
    Named("magnus_pool_shed", "counter", "Callers refused after they had queued, because the queue stood.",
          (_POOL, _LANE)),
    Named("magnus_pool_connects", "counter", "Connections opened."),
    Named("magnus_pool_connect_failures", "counter", "Attempts to connect that failed."),
    Named("magnus_pool_discarded", "counter", "Connections thrown away instead of returned."),
    Named("magnus_pool_exhausted", "gauge", "For how long every caller has waited and none was served; 0: not so.",
          unit="seconds"),
    Named("magnus_pool_outage", "gauge", "For how long connects have failed, which one at a time tries; 0: not so.",
          unit="seconds"),
    Named("magnus_statements", "counter", "Statements, by outcome.", (_POOL, "outcome")),
    Named("magnus_statement_timeouts", "counter", "Statements ended at their limit."),
    Named("magnus_slow_queries", "counter", "Statements over the slow threshold."),
    Named("magnus_retries", "counter", "Units of work that were tried again, by what the failure had left behind.",
          (_POOL, "class")),
    Named("magnus_retries_refused", "counter", "Units that were not tried again because the retry budget was spent."),
    Named("magnus_outcome_unknown", "counter", "Errors after which nobody knows whether it was carried out."),
    Named("magnus_database_up", "gauge", "1 when the last probe of the control connection succeeded."),
    Named("magnus_health_check_failures", "gauge", "Probes that failed in a row."),
    Named("magnus_health_checks_failed", "counter", "Probes that failed."),
    Named("magnus_fleet_instances", "gauge", "Instances seen on this server, this one included."),
    Named("magnus_fleet_connections", "gauge", "Connections that all instances on this server may open together."),
    Named("magnus_fleet_budget", "gauge",
          "Connections that there are for them: without what is reserved, and what others use."),
    Named("magnus_pooler_up", "gauge", "1 when the pooler's console said last time how its pools stand."),
    Named("magnus_pooler_clients", "gauge",
          "Clients of the pooler: waiting for a server connection, or not (active, idle ones included).",
          (_POOL, "role", "state")),
    Named("magnus_pooler_servers", "gauge", "Connections to the server in the pooler's pools of this database.",
          (_POOL, "role", "state")),
    Named("magnus_pooler_max_wait", "gauge", "For how long the first client in the pooler's queue has waited; 0: none.",
          (_POOL, "role"), "seconds"),
    Named("magnus_slow_log_up", "gauge", "1 when slow statements are rows of the table, 0 when they are events."),
    Named("magnus_slow_log_written", "counter", "Slow statements that are rows."),
    Named("magnus_slow_log_waiting", "gauge", "Slow statements that are not written yet."),
    Named("magnus_slow_log_left_out", "counter",
          "Slow statements missing in the log: over its rate (capped), or not to be written in time (dropped).",
          (_POOL, "reason")),
    Named("magnus_events", "counter", "What happened, by the event's name.", (_POOL, "event")),
)  # fmt: skip
"""Every metric that there is; the docs, the dashboards and the alerts name no other."""

_BY_NAME: Final = {named.name: named for named in CATALOGUE}
Sample = tuple[tuple[str, ...], float]


class EventCounts:
    """
    An observer that counts events by name. Those that have not happened are there with 0, else a rate would miss the
    first of each.
    """

    def __init__(self) -> None:
        self.by_name: Counter[str] = Counter({kind.name: 0 for kind in Event.__subclasses__()})

    def __call__(self, event: Event, /) -> None:
        self.by_name[event.name] += 1


class DatabaseCollector:
    """
    A collector for `prometheus_client` registries: one database, its pool called `pool`.

    `find` returns the database at each scrape, for who replaces it; `events` has been told of its events. `of` is
    for everybody else.
    """

    def __init__(
        self,
        find: Callable[[], Database],
        events: EventCounts,
        *,
        pool: str = "main",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find = find
        self._events = events
        self._pool = pool
        self._now = now

    @classmethod
    def of(cls, db: Database, *, pool: str = "main") -> DatabaseCollector:
        """
        Return the collector of a database, which counts events from now on.
        """
        events = EventCounts()
        db.add_observer(events)
        return cls(lambda: db, events, pool=pool)

    def describe(self) -> Iterable[Metric]:
        """
        Return the families without samples: a registry need not scrape to know their names.
        """
        return [_family(named) for named in CATALOGUE]

    def collect(self) -> Iterator[Metric]:
        """
        Return all families with what the database says at this moment.
        """
        db = self._find()
        yield from self._histograms(db)
        for name, samples in self._samples(db).items():
            named = _BY_NAME[name]
            family = _family(named)
            for labels, value in samples:
                family.add_metric((self._pool, *labels), value)
            yield family

    def _histograms(self, db: Database) -> Iterator[Metric]:
        found = db.distributions(BOUNDS)
        for name, lanes in (
            ("db_client_operation_duration", found.statements),
            ("db_client_connection_wait_time", found.waits),
            ("db_client_connection_use_time", found.uses),
        ):
            family = _family(_BY_NAME[name])
            for lane, durations in lanes.items():
                _add(family, (self._pool, lane.value), durations)
            yield family
        family = _family(_BY_NAME["db_client_connection_create_time"])
        if found.connects is not None:
            _add(family, (self._pool,), found.connects)
        yield family

    def _seconds_since(self, moment: float | None) -> float:
        return 0.0 if moment is None else max(0.0, self._now() - moment)

    def _samples(self, db: Database) -> dict[str, list[Sample]]:
        stats, health = db.get_stats(), db.health
        pool, queries = stats["pool_stats"], stats["query_stats"]
        lanes: Mapping[str, Mapping[str, float]] = pool["lanes"]

        def by_lane(key: str) -> list[Sample]:
            return [((lane,), figures[key]) for lane, figures in lanes.items()]

        return {
            "db_client_connection_count": [(("idle",), pool["free"]), (("used",), pool["used"])],
            "db_client_connection_max": [((), pool["max_size"])],
            "db_client_connection_idle_min": [((), pool.get("min_size", 0))],
            "db_client_connection_pending_requests": by_lane("waiting"),
            "db_client_connection_timeouts": by_lane("timeouts"),
            "magnus_pool_connecting": [((), pool.get("connecting", 0))],
            "magnus_pool_used": by_lane("used"),
            "magnus_pool_cap": by_lane("cap"),
            "magnus_pool_acquired": by_lane("acquired"),
            "magnus_pool_rejected": by_lane("rejected"),
            "magnus_pool_shed": by_lane("shed"),
            "magnus_pool_connects": [((), pool.get("connects", 0))],
            "magnus_pool_connect_failures": [((), pool.get("connect_failures", 0))],
            "magnus_pool_discarded": [((), pool.get("discarded", 0))],
            "magnus_pool_exhausted": [((), self._seconds_since(health.no_handoff_since))],
            "magnus_pool_outage": [((), self._seconds_since(health.connect_failing_since))],
            "magnus_statements": [(("successful",), queries["successful"]), (("failed",), queries["failed"])],
            "magnus_statement_timeouts": [((), queries["timeouts"])],
            "magnus_slow_queries": [((), queries["slow_queries"])],
            "magnus_retries": [((kind,), count) for kind, count in queries["retries_by_class"].items()],
            "magnus_retries_refused": [((), queries["retries_refused"])],
            "magnus_outcome_unknown": [((), queries["outcome_unknown"])],
            "magnus_database_up": [((), float(health.is_ok))],
            "magnus_health_check_failures": [((), health.failures)],
            "magnus_health_checks_failed": [((), health.failed_total)],
            **_fleet(stats.get("fleet")),
            **_pooler(stats["pooler"] if db.config.pooler_admin_dsn and "pooler" in stats else None),
            **_slow_log(stats.get("slow_log")),
            "magnus_events": [((name,), count) for name, count in sorted(self._events.by_name.items())],
        }


def _fleet(figures: Mapping[str, Any] | None) -> dict[str, list[Sample]]:
    """
    Return what is known of the other instances, nothing where they cannot be seen.
    """
    if figures is None or "instances" not in figures:
        return {}
    return {
        "magnus_fleet_instances": [((), figures["instances"])],
        "magnus_fleet_connections": [((), figures["connections"])],
        "magnus_fleet_budget": [((), figures["budget"])],
    }


_CLIENTS: Final = {"active": "clients_active", "waiting": "clients_waiting"}
_SERVERS: Final = {"active": "servers_active", "idle": "servers_idle", "connecting": "servers_connecting"}


def _pooler(figures: Mapping[str, Any] | None) -> dict[str, list[Sample]]:
    """
    Return what the pooler says of itself, nothing where nobody named its console.
    """
    if figures is None:
        return {}
    pools = [(pool["user"] or "", pool) for pool in figures.get("pools", ())]
    return {
        "magnus_pooler_up": [((), float("pools" in figures))],
        "magnus_pooler_clients": [
            ((role, state), pool[key]) for role, pool in pools for state, key in _CLIENTS.items()
        ],
        "magnus_pooler_servers": [
            ((role, state), pool[key]) for role, pool in pools for state, key in _SERVERS.items()
        ],
        "magnus_pooler_max_wait": [((role,), pool["max_wait_ms"] / 1000) for role, pool in pools],
    }


def _slow_log(figures: Mapping[str, Any] | None) -> dict[str, list[Sample]]:
    """
    Return what the slow-query log says, nothing where it is off.
    """
    if figures is None:
        return {}
    return {
        "magnus_slow_log_up": [((), float(figures["state"] == "table"))],
        "magnus_slow_log_written": [((), figures["written"])],
        "magnus_slow_log_waiting": [((), figures["waiting"])],
        "magnus_slow_log_left_out": [((reason,), figures[reason]) for reason in ("capped", "dropped")],
    }


class Exposition:
    """
    The text of `/metrics`, made at most once a second however many ask. `registry` may hold metrics of the service too.
    """

    def __init__(self, registry: CollectorRegistry, *, now: Callable[[], float] = time.monotonic) -> None:
        self._registry = registry
        self._now = now
        self._texts: dict[str, tuple[float, bytes]] = {}

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """
        Return the text and its media type: OpenMetrics when the Accept header asks for it, else Prometheus' own.
        """
        encode, kind = choose_encoder(accept)
        made, text = self._texts.get(kind, (float("-inf"), b""))
        if self._now() - made >= _CACHED:
            text = encode(self._registry)
            self._texts[kind] = (self._now(), text)
        return text, kind


def registry_of(*collectors: DatabaseCollector) -> CollectorRegistry:
    """
    Return a registry of these collectors alone.
    """
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return registry


def _family(named: Named) -> Any:
    kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
    return kinds[named.kind](named.name, named.help, labels=named.labels, unit=named.unit)


def _add(family: Any, labels: tuple[str, ...], found: Distribution) -> None:
    buckets = [(str(bound), float(count)) for bound, count in zip(found.bounds, found.counts, strict=True)]
    family.add_metric(labels, [*buckets, ("+Inf", float(found.total))], found.seconds)
