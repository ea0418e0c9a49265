"""Settings of one database: frozen, checked, from arguments or environment; opens nothing.

What values they may have is `_bounds`', how variables are read `_environ`'s, whom a string leads to `_destination`'s.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self

from magnus import _bounds, _destination, _dsn, _environ, _lane_settings, _values
from magnus._lane_settings import LaneSettings
from magnus._values import milliseconds, seconds
from magnus.errors import ConfigError
from magnus.lanes import QUERY_TIMEOUTS, QueryPriority

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    Password = str | Callable[[], str | Awaitable[str]]

__all__ = ["DatabaseConfig", "LaneSettings", "milliseconds", "seconds"]

_CHECK_INTERVAL: Final = "500"


@dataclass(frozen=True, kw_only=True)
class DatabaseConfig:
    """
    Everything that a `Database` needs to know.

    Durations are float seconds; a text with a unit ("60s", "500ms", "1min"), as PostgreSQL writes them, is read too.

    Attributes:
        dsn: URI, `key=value` pairs or `service=name`; empty: libpq's environment (PGHOST, PGUSER …).
        min_pool_size: Connections that are kept open.
        max_pool_size: Connections that are never exceeded.
        fleet_size: Instances that will ever use the server at the same time, those of a new version beside the old ones
            included: each takes its share of the server's connections, and no more. 0: `max_pool_size` alone counts.
        connect_timeout: For one connection to one host, from the first packet to the end of its set-up.
        command_timeout: Limit of lane NORMAL, on the client.
        statement_timeout: The session's limit on the server; not given, it is `command_timeout`.
        transaction_timeout: Limit of a whole transaction; a lane with a larger limit raises it.
        idle_in_transaction_session_timeout: After this the server ends a transaction that nobody works on.
        application_name: What the server shows of these sessions.
        max_retries: Attempts of one unit of work, the first included; the pauses between them must be shorter than
            `command_timeout`.
        retry_delay: Upper bound of the first pause between attempts; the pause is drawn between 0 and the bound.
        retry_backoff: Factor by which that bound grows.
        health_check_interval: Between probes on the control connection.
        ready_grace: How long saturation may last before readiness says `pool_exhausted`.
        slow_query_threshold: A statement that takes longer counts as slow, and is logged.
        slow_log: "table": slow statements are rows of `slow_query_log`; "events": events instead; "off": only counted.
        slow_log_create: Whether that table is made, or brought up to date, when it is first needed.
        slow_log_rate: Rows a second, after a burst of five seconds' worth; what is over is only counted. 0: no limit.
        slow_log_queue: Rows that wait to be written, while the database is away too; then the oldest go.
        slow_log_days: Rows that are older are deleted, once an hour; 0: never.
        slow_log_rows: Of more rows the oldest are deleted, once an hour; 0: never.
        slow_log_plans: Whether the generic plan of each new fingerprint is kept in `slow_query_plan`.
        slow_log_values: Whether bind values are logged; secrets among them are starred out as far as they are known.
        slow_log_redact: Regular expressions; a bind value in which one is found is starred out.
        max_lifetime: A connection is replaced at this age at the latest, while a server answers.
        max_idle: A connection above `min_pool_size` that is idle for so long is closed.
        keepalive_interval: An idle connection is asked for a sign of life so often; 0: never.
        leak_threshold: A lease that is silent for so long is reported; 0: never.
        leak_limit: A lease that is silent for so long is taken back, its connection terminated; 0: never.
        max_waiting: Callers that may wait in one lane; the next one is refused with `Overloaded`.
        statement_cache_size: Prepared statements that a connection keeps.
        pooler: "transaction": a pooler that lends a server's connection for one transaction (PgBouncer's
            `pool_mode=transaction`) stands between; "none": whoever stands between keeps sessions apart.
        direct_dsn: Past the pooler, for what needs a session or must not queue behind the service's own statements: the
            control connection, the slow log, the catalogue. Empty: through the pooler.
        pooler_admin_dsn: The pooler's console (PgBouncer's database `pgbouncer`), for a role of its `stats_users`; its
            figures are then in `get_stats`. Empty: they are not.
        replicas: Standbys that may answer reads, one connection string for each; `dsn` is the primary's.
        replica_max_lag: Seconds that a standby may be behind and still be asked.
        replica_wait: Seconds that a read waits for a standby to have what it must see, before the primary is asked.
        prepare: Statements that every connection prepares before it is handed out, word for word as they are sent.
        prepare_learned: How many more: those that this role sent most often, by pg_stat_statements.
        password: In place of the one in `dsn`; a callable is asked at every connect (rotating credentials).
        reset: "smart": a session is reset as far as what ran on it makes that necessary, often not at all; "always": in
            full after every lease, which costs a round trip.
        server_settings: More settings to start every session with.
        lane_timeouts: Limits in place of `QUERY_TIMEOUTS`, by lane.
        lanes: What single lanes may use of the pool, in place of what is computed.
        shedding: Whether queues of NORMAL, LOW and BACKGROUND are shed that stand and cannot be served in time.
        shed_unset: Whether that includes calls that name no lane and so are NORMAL.
        cache_bytes: What answers of `cached` functions may take in this process; 0: none are kept.
        cache_notify: Whether changes by other processes are heard (LISTEN, on a connection of its own), for tables that
            have a trigger of `magnus cache install`; while they cannot be, nothing is answered from the cache.

    Raises:
        ConfigError: a value is impossible; it names the field. Nothing is ever corrected silently.
    """

    dsn: str = field(default="", repr=False)
    min_pool_size: int = 5
    max_pool_size: int = 30
    fleet_size: int = 0
    connect_timeout: float = 5.0
    command_timeout: float = 30.0
    statement_timeout: float = None  # type: ignore[assignment]  # always a float after __post_init__
    transaction_timeout: float = 60.0
    idle_in_transaction_session_timeout: float = 60.0
    application_name: str = "ava_trading_platform"
    max_retries: int = 3
    retry_delay: float = 0.05
    retry_backoff: float = 2.0
    health_check_interval: float = 5.0
    ready_grace: float = 15.0
    slow_query_threshold: float = 0.1
    slow_log: str = "table"
    slow_log_create: bool = True
    slow_log_rate: float = 100.0
    slow_log_queue: int = 10_000
    slow_log_days: float = 14.0
    slow_log_rows: int = 1_000_000
    slow_log_plans: bool = True
    slow_log_values: bool = False
    slow_log_redact: Sequence[str] = ()
    max_lifetime: float = 1800.0
    max_idle: float = 600.0
    keepalive_interval: float = 60.0
    leak_threshold: float = 30.0
    leak_limit: float = 600.0
    max_waiting: int = 10_000
    statement_cache_size: int = 256
    prepare: Sequence[str] = ()
    prepare_learned: int = 0
    reset: str = "smart"
    pooler: str = "none"
    direct_dsn: str = field(default="", repr=False)
    pooler_admin_dsn: str = field(default="", repr=False)
    replicas: Sequence[str] = field(default=(), repr=False)
    replica_max_lag: float = 10.0
    replica_wait: float = 0.1
    password: Password | None = field(default=None, repr=False)
    server_settings: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    lane_timeouts: Mapping[QueryPriority, float] = field(default_factory=lambda: MappingProxyType({}))
    lanes: Mapping[QueryPriority, LaneSettings] = field(default_factory=lambda: MappingProxyType({}))
    shedding: bool = True
    shed_unset: bool = False
    cache_bytes: int = 67_108_864
    cache_notify: bool = False

    def __post_init__(self) -> None:
        parsed = _dsn.parse(_values.text("dsn", self.dsn, secret=True))
        for name, least in _bounds.SIZES.items():
            _values.whole(name, getattr(self, name), least)
        if self.min_pool_size > self.max_pool_size:
            raise ConfigError("min_pool_size", self.min_pool_size, f"is above max_pool_size ({self.max_pool_size})")
        given: float | None = self.statement_timeout
        self._put("statement_timeout", self.command_timeout if given is None else given)
        for name, least_seconds in _bounds.DURATIONS.items():
            self._put(name, seconds(name, getattr(self, name), least=least_seconds))
        self._put("retry_backoff", _values.factor("retry_backoff", self.retry_backoff))
        _bounds.check_pauses(self)
        _values.text("application_name", self.application_name)
        for name, words in _bounds.CHOICES.items():
            if getattr(self, name) not in words:
                raise ConfigError(name, getattr(self, name), f"must be one of {', '.join(words)}")
        for name in _bounds.NUMBERS:
            self._put(name, _values.number(name, getattr(self, name)))
        self._put(
            "prepare", _bounds.statements("prepare", self.prepare, self.prepare_learned, self.statement_cache_size)
        )
        self._put("slow_log_redact", _values.expressions("slow_log_redact", self.slow_log_redact))
        if self.password is not None and not callable(self.password):
            _values.text("password", self.password, secret=True)
        self._put("server_settings", MappingProxyType(_bounds.settings(self.server_settings)))
        self._put("lane_timeouts", MappingProxyType(_bounds.limits(self.lane_timeouts)))
        self._put("lanes", MappingProxyType(_lane_settings.checked(self.lanes, self.max_pool_size)))
        for name in _bounds.FLAGS:
            _values.flag(name, getattr(self, name))
        self._put("_parsed", parsed)
        _bounds.check_pooler(self, parsed.settings)
        self._put("replicas", _bounds.replicas(self.replicas, is_pooled=self.is_pooled))

    def _put(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], **overrides: Any) -> Self:
        """
        Build from environment variables: `MAGNUS_<FIELD>` for every field that is a text or a number, MAGNUS_LANES,
        MAGNUS_LANE_TIMEOUTS, MAGNUS_SLOW_LOG_REDACT and MAGNUS_REPLICAS as JSON (`{"low": {"cap": 2}}`,
        `{"low": "45s"}`, `["rule"]`, `["postgresql://db2/ava"]`), and the names
        DATABASE_URL, DB_POOL_MIN, DB_POOL_MAX, DB_QUERY_TIMEOUT, DB_CONNECT_TIMEOUT, DB_TRANSACTION_TIMEOUT.

        `overrides` win over MAGNUS_*, which wins over the others. An empty DATABASE_URL counts as not set.

        Raises:
            ConfigError: a variable's value is impossible; `field` is the variable's name.
        """
        found, origin = _environ.read(fields(cls), environ, given=overrides)
        try:
            return cls(**found, **overrides)
        except ConfigError as error:
            named, bracket, rest = error.field.partition("[")
            raise ConfigError(f"{origin.get(named, named)}{bracket}{rest}", error.value, error.reason) from None

    def replace(self, **changes: Any) -> Self:
        """
        Return a copy with some fields changed, checked again.
        """
        if self.statement_timeout == self.command_timeout:
            changes.setdefault("statement_timeout", None)
        return replace(self, **changes)

    def lane_timeout(self, priority: QueryPriority) -> float:
        """
        Return the seconds that one statement of a lane may take: `lane_timeouts`, else `command_timeout` for NORMAL,
        else `QUERY_TIMEOUTS`.
        """
        own = self.lane_timeouts.get(priority)
        if own is not None:
            return own
        return self.command_timeout if priority is QueryPriority.NORMAL else QUERY_TIMEOUTS[priority]

    def wait_targets(self) -> dict[QueryPriority, float]:
        """
        Return, for every lane whose queue may be shed, the seconds of waiting above which it stands.
        """
        found: dict[QueryPriority, float] = {}
        for lane in _lane_settings.SHEDDABLE:
            own = self.lanes.get(lane, _lane_settings.AS_COMPUTED)
            if self.shedding if own.shedding is None else own.shedding:
                found[lane] = self.lane_timeout(lane) / 100 if own.wait_target is None else own.wait_target
        return found

    @property
    def is_pooled(self) -> bool:
        """
        Whether connections are a transaction pooler's, so that no session is the service's own.
        """
        return self.pooler == "transaction"

    def replica_configs(self) -> list[Self]:
        """
        Return the settings for each standby.
        """
        return [self.replace(dsn=target, replicas=()) for target in self.replicas]

    def direct(self) -> Self:
        """
        Return the settings for a connection that needs a session of its own; these, where nothing else was given.
        """
        if not self.direct_dsn:
            return self
        return self.replace(dsn=self.direct_dsn, direct_dsn="", pooler_admin_dsn="", pooler="none")

    @property
    def safe_dsn(self) -> str:
        """
        The target as a URI without its password, fit for logs.
        """
        return self._target.uri()

    @property
    def _target(self) -> _dsn.Dsn:
        return self._parsed  # type: ignore[attr-defined,no-any-return]  # set in __post_init__, not a field

    def __repr__(self) -> str:
        shown = (f"{item.name}={getattr(self, item.name)!r}" for item in fields(self) if item.repr)
        return f"DatabaseConfig(dsn={self.safe_dsn!r}, {', '.join(shown)})"

    def connect_arguments(self, environ: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
        """
        Return the keyword arguments for `asyncpg.connect`: target, guards as startup settings, TLS.

        Startup settings are what RESET ALL returns to, so a guard given here holds for the session's whole life. A
        pooler refuses all but a few, which it keeps for its clients; behind one nothing is prepared by name either, and
        `is_shared` says so.
        `environ` is asked for libpq's names of hosts and TLS only: without an sslmode a connection that leaves this
        machine is verified in full (certificate and host name). Of several hosts one that takes writes is wanted,
        unless target_session_attrs says otherwise.
        """
        target = self._target
        arguments: dict[str, Any] = {
            "dsn": target.uri(),
            "timeout": min(self.connect_timeout, target.connect_timeout or self.connect_timeout),
            "statement_cache_size": self.statement_cache_size,
            "server_settings": {**self.guards(), **target.settings, **self.server_settings},
        }
        if self.is_pooled:
            settings = arguments["server_settings"]
            arguments["server_settings"] = {
                name: settings[name] for name in settings if name.lower() in _bounds.TRACKED
            }
            arguments["statement_cache_size"] = 0
            arguments["is_shared"] = True
        password = self.password if self.password is not None else target.password
        if password is not None:
            arguments["password"] = password
        if _destination.leaves_this_machine(target, environ):
            arguments["ssl"] = ssl.create_default_context()
        hosts = _destination.hosts(target, environ)
        if len(hosts) > 1:
            arguments["hosts"] = hosts
            asked = target.parameters.get("target_session_attrs") or environ.get("PGTARGETSESSIONATTRS")
            arguments["target_session_attrs"] = asked or "read-write"
        return arguments

    def destination(self, environ: Mapping[str, str] = MappingProxyType({})) -> tuple[str | None, int, str | None]:
        """
        Return host, port and database as they are named, for who tells of statements; no host where there are several.
        """
        return _destination.destination(self._target, environ)

    def guards(self) -> dict[str, str]:
        """
        Return the session settings that protect the server from this service (durations in milliseconds).
        """
        return {
            "application_name": self.application_name,
            "statement_timeout": milliseconds(self.statement_timeout),
            "idle_in_transaction_session_timeout": milliseconds(self.idle_in_transaction_session_timeout),
            "client_connection_check_interval": _CHECK_INTERVAL,
        }
