"""What the fields of a `DatabaseConfig` may hold, each by itself and beside the others; reads no environment.

How a single value is read is `_values`'; what a lane may be given is `_lane_settings`'.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from magnus import _dsn
from magnus._values import seconds, text
from magnus.errors import ConfigError
from magnus.lanes import parse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from magnus.config import DatabaseConfig
    from magnus.lanes import QueryPriority

CHOICES: Final = {
    "reset": ("smart", "always"), "slow_log": ("table", "events", "off"), "pooler": ("none", "transaction"),
}  # fmt: skip
# What a pooler keeps for each of its clients; PgBouncer's documentation, "track_extra_parameters".
TRACKED: Final = frozenset({
    "application_name", "client_encoding", "datestyle", "standard_conforming_strings", "timezone",
})  # fmt: skip
SIZES: Final[Mapping[str, int]] = MappingProxyType({
    "min_pool_size": 0, "max_pool_size": 1, "max_retries": 1, "max_waiting": 0, "statement_cache_size": 0,
    "slow_log_queue": 1, "slow_log_rows": 0, "cache_bytes": 0,
    "prepare_learned": 0, "fleet_size": 0,
})  # fmt: skip
DURATIONS: Final[Mapping[str, float]] = MappingProxyType({
    "connect_timeout": 0.001, "command_timeout": 0.001, "statement_timeout": 0.001, "transaction_timeout": 0.001,
    "idle_in_transaction_session_timeout": 0.001, "retry_delay": 0.0, "health_check_interval": 0.01,
    "ready_grace": 0.0, "slow_query_threshold": 0.0, "max_lifetime": 1.0, "max_idle": 0.0,
    "replica_max_lag": 0.0, "replica_wait": 0.0, "keepalive_interval": 0.0, "leak_threshold": 0.0, "leak_limit": 0.0,
})  # fmt: skip
NUMBERS: Final = ("slow_log_rate", "slow_log_days")
FLAGS: Final = ("cache_notify", "shedding", "shed_unset", "slow_log_create", "slow_log_plans", "slow_log_values")
_SETTING_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(?:\.[A-Za-z_][A-Za-z0-9_$]*)*")
_MOST_PAUSES: Final = 64


def check_pauses(config: DatabaseConfig) -> None:
    """
    Refuse attempts whose pauses alone would outlast a statement's limit.
    """
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


def replicas(found: object, *, is_pooled: bool) -> tuple[str, ...]:
    """
    Return the standbys' connection strings; one host each.
    """
    if isinstance(found, str) or not isinstance(found, Iterable):
        raise ConfigError("replicas", "***", "must be a sequence of connection strings")
    targets = tuple(text("replicas", target, secret=True) for target in found)
    if targets and is_pooled:
        reason = 'cannot be used with pooler="transaction": which standby a pooler leads to is not known'
        raise ConfigError("replicas", "***", reason)
    for target in targets:
        if len(_dsn.parse(target).hosts) != 1:
            raise ConfigError("replicas", "***", "must name one host each: what is known of one holds for no other")
    return targets


def check_pooler(config: DatabaseConfig, asked: Mapping[str, str]) -> None:
    """
    Refuse what a transaction pooler cannot keep, and what only one needs. `asked` is what the string sets.
    """
    for name in ("direct_dsn", "pooler_admin_dsn"):
        _dsn.parse(text(name, getattr(config, name), secret=True))
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
    for name, value in {**asked, **config.server_settings}.items():
        if name.lower() not in TRACKED:
            reason = (
                f"cannot be set by a client of a pooler in transaction mode: ALTER ROLE … IN DATABASE … SET {name} = … "
                "gives it to every session of the role"
            )
            raise ConfigError(f"server_settings[{name}]", value, reason)


def statements(name: str, found: object, learned: int, size: int) -> tuple[str, ...]:
    """
    Return statements to prepare: no more, with the learned ones, than a connection keeps.
    """
    if isinstance(found, str) or not isinstance(found, Iterable):
        raise ConfigError(name, found, "must be a sequence of statements")
    texts = tuple(text(name, statement) for statement in found)
    if len(texts) + learned > size:
        raise ConfigError(name, len(texts) + learned, f"are more statements than statement_cache_size ({size}) keeps")
    return texts


def settings(found: object) -> dict[str, str]:
    """
    Return settings of a session by name.
    """
    try:
        pairs: dict[str, str] = dict(found)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        raise ConfigError("server_settings", found, "must map setting names to texts") from None
    for name, value in pairs.items():
        if not _SETTING_NAME.fullmatch(str(name)):
            raise ConfigError("server_settings", name, "is no name of a setting")
        text(f"server_settings[{name}]", value)
    return pairs


def limits(found: object) -> dict[QueryPriority, float]:
    """
    Return seconds by lane.
    """
    try:
        pairs = dict(found)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        raise ConfigError("lane_timeouts", found, "must map lanes to seconds") from None
    return {parse(lane): seconds(f"lane_timeouts[{lane}]", limit) for lane, limit in pairs.items()}
