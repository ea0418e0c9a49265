"""Settings of one database: frozen, checked, from arguments or environment; opens nothing."""

from __future__ import annotations

import json
import math
import re
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self

from magnus import _dsn
from magnus.errors import ConfigError
from magnus.lanes import QUERY_TIMEOUTS, QueryPriority, parse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    Password = str | Callable[[], str | Awaitable[str]]

_ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType({
    "dsn": "DATABASE_URL",
    "min_pool_size": "DB_POOL_MIN",
    "max_pool_size": "DB_POOL_MAX",
    "command_timeout": "DB_QUERY_TIMEOUT",
    "connect_timeout": "DB_CONNECT_TIMEOUT",
    "transaction_timeout": "DB_TRANSACTION_TIMEOUT",
})
_UNITS: Final[Mapping[str, float]] = MappingProxyType({
    "": 1.0, "us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0,
})  # fmt: skip
_DURATION: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)\s*")
_SETTING_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(?:\.[A-Za-z_][A-Za-z0-9_$]*)*")
_CHECK_INTERVAL: Final = "500"
_LONGEST: Final = 2_147_483.0  # the server keeps a limit as 32-bit milliseconds


@dataclass(frozen=True, kw_only=True)
class LaneSettings:
    """
    What one lane may use of a pool, where it shall differ from what is computed; None: as computed.

    Attributes:
        cap: Slots that this lane and all below it may hold together, 1 to `max_pool_size`. CRITICAL's is always all.
        weight: Its share of hand-offs beside the other lanes', 1 to 100. CRITICAL has none: it is served first.
        max_waiting: Callers that may queue.
        shedding: Whether a queue of it that stands is shed; NORMAL, LOW and BACKGROUND only.
        wait_target: Seconds of waiting above which a queue stands, and a longer wait is worthless: whoever waited twice
            as long is shed, although it could be served in time. Not given, a hundredth of the lane's limit, and nobody
            is shed unless somebody would come too late anyway.
    """

    cap: int | None = None
    weight: int | None = None
    max_waiting: int | None = None
    shedding: bool | None = None
    wait_target: float | None = None


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
        parsed = _dsn.parse(_text("dsn", self.dsn, secret=True))
        for name, least in _SIZES.items():
            _whole(name, getattr(self, name), least)
        if self.min_pool_size > self.max_pool_size:
            raise ConfigError("min_pool_size", self.min_pool_size, f"is above max_pool_size ({self.max_pool_size})")
        given: float | None = self.statement_timeout
        self._put("statement_timeout", self.command_timeout if given is None else given)
        for name, least_seconds in _DURATIONS.items():
            self._put(name, seconds(name, getattr(self, name), least=least_seconds))
        self._put("retry_backoff", _factor("retry_backoff", self.retry_backoff))
        _check_pauses(self)
        _text("application_name", self.application_name)
        for name, words in _CHOICES.items():
            if getattr(self, name) not in words:
                raise ConfigError(name, getattr(self, name), f"must be one of {', '.join(words)}")
        for name in ("slow_log_rate", "slow_log_days"):
            self._put(name, _number(name, getattr(self, name)))
        self._put("prepare", _statements("prepare", self.prepare, self.prepare_learned, self.statement_cache_size))
        self._put("slow_log_redact", _expressions("slow_log_redact", self.slow_log_redact))
        if self.password is not None and not callable(self.password):
            _text("password", self.password, secret=True)
        self._put("server_settings", MappingProxyType(_settings(self.server_settings)))
        self._put("lane_timeouts", MappingProxyType(_limits(self.lane_timeouts)))
        self._put("lanes", MappingProxyType(_lanes(self.lanes, self.max_pool_size)))
        for name in ("cache_notify", "shedding", "shed_unset", "slow_log_create", "slow_log_plans", "slow_log_values"):
            _flag(name, getattr(self, name))
        self._put("_parsed", parsed)
        _check_pooler(self, parsed.settings)
        self._put("replicas", _replicas(self.replicas, is_pooled=self.is_pooled))

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
        found: dict[str, Any] = {}
        origin: dict[str, str] = {}
        for item in fields(cls):
            if (
                item.name in overrides
                or not isinstance(item.default, str | int | float | None)
                or item.name == "password"
            ):
                continue
            for name in (f"MAGNUS_{item.name.upper()}", _ENVIRONMENT.get(item.name, "")):
                if name in environ and item.name not in found and (environ[name] or item.name != "dsn"):
                    found[item.name] = _from_text(name, environ[name], type(item.default))
                    origin[item.name] = name
        for field_name, read in _AS_JSON.items():
            name = f"MAGNUS_{field_name.upper()}"
            if field_name not in overrides and environ.get(name):
                found[field_name] = {lane: read(f"{name}[{lane}]", own) for lane, own in _json(name, environ[name])}
                origin[field_name] = name
        for field_name in _AS_LIST:
            name = f"MAGNUS_{field_name.upper()}"
            if field_name not in overrides and environ.get(name):
                found[field_name], origin[field_name] = (
                    _json_list(name, environ[name], secret=_AS_LIST[field_name]),
                    name,
                )
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
        for lane in _SHEDDABLE:
            own = self.lanes.get(lane, _AS_COMPUTED)
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
            arguments["server_settings"] = {name: settings[name] for name in settings if name.lower() in _TRACKED}
            arguments["statement_cache_size"] = 0
            arguments["is_shared"] = True
        password = self.password if self.password is not None else target.password
        if password is not None:
            arguments["password"] = password
        if self._leaves_this_machine(environ):
            arguments["ssl"] = ssl.create_default_context()
        hosts = self._hosts(environ)
        if len(hosts) > 1:
            arguments["hosts"] = hosts
            asked = target.parameters.get("target_session_attrs") or environ.get("PGTARGETSESSIONATTRS")
            arguments["target_session_attrs"] = asked or "read-write"
        return arguments

    def destination(self, environ: Mapping[str, str] = MappingProxyType({})) -> tuple[str | None, int, str | None]:
        """
        Return host, port and database as they are named, for who tells of statements; no host where there are several.
        """
        hosts, target = self._hosts(environ), self._target
        host, port = hosts[0] if len(hosts) == 1 else (None, None)
        named = environ.get("PGPORT", "")
        database = target.database or environ.get("PGDATABASE") or target.user or environ.get("PGUSER")
        return host, port or (int(named) if named.isascii() and named.isdigit() else _PORT), database

    def _hosts(self, environ: Mapping[str, str]) -> list[tuple[str, int | None]]:
        """
        Return the hosts that are named; none where a service file may name others.
        """
        target = self._target
        if target.hosts or "service" in target.parameters:
            return list(target.hosts)
        names = [name for name in environ.get("PGHOST", "").split(",") if name]
        ports = [int(port) for port in environ.get("PGPORT", "").split(",") if port.isascii() and port.isdigit()]
        spread: list[int | None] = [*ports] if len(ports) == len(names) else [ports[0] if ports else None] * len(names)
        return list(zip(names, spread, strict=True))

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

    def _leaves_this_machine(self, environ: Mapping[str, str]) -> bool:
        target = self._target
        if "sslmode" in target.parameters or "service" in target.parameters or environ.get("PGSSLMODE"):
            return False
        hosts = [host for host, _ in target.hosts] or [host for host in environ.get("PGHOST", "").split(",") if host]
        return any(not _is_local(host) for host in hosts)


_PORT: Final = 5432
_CHOICES: Final = {
    "reset": ("smart", "always"), "slow_log": ("table", "events", "off"), "pooler": ("none", "transaction"),
}  # fmt: skip
# What a pooler keeps for each of its clients; PgBouncer's documentation, "track_extra_parameters".
_TRACKED: Final = frozenset({
    "application_name", "client_encoding", "datestyle", "standard_conforming_strings", "timezone",
})  # fmt: skip
_SHEDDABLE: Final = (QueryPriority.NORMAL, QueryPriority.LOW, QueryPriority.BACKGROUND)
_AS_COMPUTED: Final = LaneSettings()
_FLAGS: Final[Mapping[str, bool]] = MappingProxyType({
    "1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False,
})  # fmt: skip
_SIZES: Final[Mapping[str, int]] = MappingProxyType({
    "min_pool_size": 0, "max_pool_size": 1, "max_retries": 1, "max_waiting": 0, "statement_cache_size": 0,
    "slow_log_queue": 1, "slow_log_rows": 0, "cache_bytes": 0,
    "prepare_learned": 0, "fleet_size": 0,
})  # fmt: skip
_DURATIONS: Final[Mapping[str, float]] = MappingProxyType({
    "connect_timeout": 0.001, "command_timeout": 0.001, "statement_timeout": 0.001, "transaction_timeout": 0.001,
    "idle_in_transaction_session_timeout": 0.001, "retry_delay": 0.0, "health_check_interval": 0.01,
    "ready_grace": 0.0, "slow_query_threshold": 0.0, "max_lifetime": 1.0, "max_idle": 0.0,
    "replica_max_lag": 0.0, "replica_wait": 0.0, "keepalive_interval": 0.0, "leak_threshold": 0.0, "leak_limit": 0.0,
})  # fmt: skip


def seconds(name: str, value: object, *, least: float = 0.001) -> float:
    """
    Return a duration as float seconds, from a number or a text with a PostgreSQL unit.

    Raises:
        ConfigError: not a duration, below `least`, or more than the server can keep (2,147,483 s).
    """
    found: float | None = None
    if isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if match and match.group(2) in _UNITS:
            found = float(match.group(1)) * _UNITS[match.group(2)]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        found = float(value)
    if found is None or not least <= found <= _LONGEST:
        raise ConfigError(name, value, f"must be a duration from {least:g} to {_LONGEST:.0f} seconds")
    return found


def milliseconds(duration: float) -> str:
    """
    Return a duration in seconds as the server reads it: whole milliseconds, never 0 (which would mean no limit).
    """
    return str(max(1, round(duration * 1000)))


def _from_text(name: str, text: str, kind: type) -> object:
    """
    Read an environment variable for a field whose default is of type `kind`; NoneType is a duration's.
    """
    if kind is str:
        return text
    if kind is bool:
        return _FLAGS.get(text.strip().lower(), text)
    if kind is int:
        if not re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", text, re.ASCII):
            raise ConfigError(name, text, "must be a whole number")
        return int(text)
    return float(text) if re.fullmatch(r"\s*[0-9]{1,18}(\.[0-9]{1,18})?\s*", text, re.ASCII) else text


def _check_pauses(config: DatabaseConfig) -> None:
    longest = max(1.0, config.retry_delay)
    bound = total = 0.0
    for attempt in range(min(config.max_retries - 1, _MOST_PAUSES)):
        bound = min(longest, config.retry_delay * config.retry_backoff ** min(attempt, _MOST_PAUSES))
        total += bound
    total += bound * max(config.max_retries - 1 - _MOST_PAUSES, 0)
    if total >= config.command_timeout:
        reason = (
            f"cannot be met inside the deadline: the pauses between so many attempts may take {total:g} s, "
            f"command_timeout is {config.command_timeout:g} s; lower max_retries or retry_delay"
        )
        raise ConfigError("max_retries", config.max_retries, reason)


_MOST_PAUSES: Final = 64


def _replicas(found: object, *, is_pooled: bool) -> tuple[str, ...]:
    if isinstance(found, str) or not isinstance(found, Iterable):
        raise ConfigError("replicas", "***", "must be a sequence of connection strings")
    targets = tuple(_text("replicas", target, secret=True) for target in found)
    if targets and is_pooled:
        reason = 'cannot be used with pooler="transaction": which standby a pooler leads to is not known'
        raise ConfigError("replicas", "***", reason)
    for target in targets:
        if len(_dsn.parse(target).hosts) != 1:
            raise ConfigError("replicas", "***", "must name one host each: what is known of one holds for no other")
    return targets


def _check_pooler(config: DatabaseConfig, asked: Mapping[str, str]) -> None:
    for name in ("direct_dsn", "pooler_admin_dsn"):
        _dsn.parse(_text(name, getattr(config, name), secret=True))
        if getattr(config, name) and not config.is_pooled:
            raise ConfigError(name, "***", 'is for pooler="transaction" only; without a pooler dsn is direct')
    if not config.is_pooled:
        return
    if config.fleet_size:
        reason = "shares connections of the service's own; behind a pooler the pooler's default_pool_size limits them"
        raise ConfigError("fleet_size", config.fleet_size, reason)
    for name in ("prepare", "prepare_learned"):
        if getattr(config, name):
            reason = "would be kept by a session that is somebody else's next: leave it out behind a pooler"
            raise ConfigError(name, getattr(config, name), reason)
    if config.cache_notify and not config.direct_dsn:
        raise ConfigError("cache_notify", config.cache_notify, "listens, so behind a pooler it needs direct_dsn")
    settings = {**asked, **config.server_settings}
    for name, value in settings.items():
        if name.lower() not in _TRACKED:
            reason = (
                f"cannot be set by a client of a pooler in transaction mode: ALTER ROLE … IN DATABASE … SET {name} = … "
                "gives it to every session of the role"
            )
            raise ConfigError(f"server_settings[{name}]", value, reason)


def _factor(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < math.inf:
        raise ConfigError(name, value, "must be a number of at least 1")
    return float(value)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ConfigError(name, value, "must be a number of at least 0")
    return float(value)


def _statements(name: str, found: object, learned: int, size: int) -> tuple[str, ...]:
    if isinstance(found, str) or not isinstance(found, Iterable):
        raise ConfigError(name, found, "must be a sequence of statements")
    texts = tuple(_text(name, text) for text in found)
    if len(texts) + learned > size:
        raise ConfigError(name, len(texts) + learned, f"are more statements than statement_cache_size ({size}) keeps")
    return texts


def _expressions(name: str, found: object) -> tuple[str, ...]:
    if isinstance(found, str) or not isinstance(found, Iterable):
        raise ConfigError(name, found, "must be a sequence of regular expressions")
    rules = tuple(found)
    for rule in rules:
        try:
            re.compile(_text(name, rule))
        except re.error as error:
            raise ConfigError(name, rule, f"is no regular expression: {error}") from None
    return rules


def _whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(name, value, f"must be a whole number of at least {least}")


def _text(name: str, value: object, *, secret: bool = False) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ConfigError(name, "***" if secret else value, "must be a text without NUL characters")
    return value


def _settings(found: object) -> dict[str, str]:
    try:
        pairs: dict[str, str] = dict(found)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        raise ConfigError("server_settings", found, "must map setting names to texts") from None
    for name, value in pairs.items():
        if not _SETTING_NAME.fullmatch(str(name)):
            raise ConfigError("server_settings", name, "is no name of a setting")
        _text(f"server_settings[{name}]", value)
    return pairs


def _json(name: str, text: str) -> Iterable[tuple[str, Any]]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ConfigError(name, text, 'must be JSON like {"low": …}')
    return found.items()


def _json_list(name: str, text: str, *, secret: bool) -> list[Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise ConfigError(name, "***" if secret else text, 'must be a JSON list like ["one", "another"]')
    return found


# Whether what they hold may be secret.
_AS_LIST: Final = MappingProxyType({"slow_log_redact": False, "replicas": True})


def _lane_from(name: str, own: object) -> LaneSettings:
    if not isinstance(own, dict) or own.keys() - {item.name for item in fields(LaneSettings)}:
        raise ConfigError(name, own, f"may have {', '.join(item.name for item in fields(LaneSettings))}")
    return LaneSettings(**own)


_AS_JSON: Final[Mapping[str, Callable[[str, Any], Any]]] = MappingProxyType({
    "lanes": _lane_from, "lane_timeouts": lambda _, limit: limit,
})  # fmt: skip


def _limits(found: object) -> dict[QueryPriority, float]:
    try:
        pairs = dict(found)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        raise ConfigError("lane_timeouts", found, "must map lanes to seconds") from None
    return {parse(lane): seconds(f"lane_timeouts[{lane}]", limit) for lane, limit in pairs.items()}


def _lanes(found: object, max_pool_size: int) -> dict[QueryPriority, LaneSettings]:
    try:
        pairs = {parse(lane): own for lane, own in dict(found).items()}  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError("lanes", found, "must map lanes to LaneSettings") from None
    highest = max_pool_size
    for lane in QueryPriority:
        if lane in pairs:
            pairs[lane] = _lane(f"lanes[{lane}]", lane, pairs[lane], highest)
            highest = pairs[lane].cap or highest
    return pairs


def _lane(name: str, lane: QueryPriority, own: object, highest: int) -> LaneSettings:
    if not isinstance(own, LaneSettings):
        raise ConfigError(name, own, "must be LaneSettings")
    is_critical = lane is QueryPriority.CRITICAL
    for part, least, most in (("cap", 1, highest), ("weight", 1, 100), ("max_waiting", 0, None)):
        value = getattr(own, part)
        if value is None:
            continue
        _whole(f"{name}.{part}", value, least)
        if is_critical and part != "max_waiting":
            raise ConfigError(f"{name}.{part}", value, "cannot be set: it may use every slot and is served first")
        if most is not None and value > most:
            raise ConfigError(f"{name}.{part}", value, f"must be at most {most}")
    if own.shedding is not None:
        _flag(f"{name}.shedding", own.shedding)
        if own.shedding and lane not in _SHEDDABLE:
            raise ConfigError(f"{name}.shedding", own.shedding, "is for normal, low and background only")
    target = own.wait_target
    return own if target is None else replace(own, wait_target=seconds(f"{name}.wait_target", target))


def _flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(name, value, "must be true or false")


def _is_local(host: str) -> bool:
    return host.startswith(("/", "@", "127.")) or host in {"localhost", "::1"}
