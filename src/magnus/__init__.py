"""An asyncio data layer over asyncpg for PostgreSQL: warm pool, priority lanes, deadlines, guards, health."""

from magnus._driver import AlreadyReleased, LeaseReclaimed, PoolClosed, TransactionEnded
from magnus.cache import cached
from magnus.config import DatabaseConfig, LaneSettings
from magnus.connection import Connection
from magnus.database import Database, ProbeState, get_database, set_database
from magnus.errors import (
    AlreadyExecuted,
    CommitRolledBack,
    ConfigError,
    ConnectError,
    DatabaseError,
    InProgress,
    KeyReused,
    MagnusError,
    NeedsSession,
    NestedAcquire,
    OutcomeUnknown,
    Overloaded,
    PoolError,
    PoolTimeout,
    QueryTimeout,
    Refused,
    TuningError,
    WrongLoop,
    WrongProcess,
)
from magnus.lanes import QUERY_TIMEOUTS, QueryPriority, scope
from magnus.observe import Event, Observer
from magnus.once import Once
from magnus.pool.compat import Pool, create_pool
from magnus.retry import idempotent
from magnus.transaction import Transaction

__all__ = [  # noqa: RUF022  # plain order, as sorted() has it
    "AlreadyExecuted",
    "AlreadyReleased",
    "CommitRolledBack",
    "ConfigError",
    "ConnectError",
    "Connection",
    "Database",
    "DatabaseConfig",
    "DatabaseError",
    "Event",
    "InProgress",
    "KeyReused",
    "LaneSettings",
    "LeaseReclaimed",
    "MagnusError",
    "NeedsSession",
    "NestedAcquire",
    "Observer",
    "Once",
    "OutcomeUnknown",
    "Overloaded",
    "Pool",
    "PoolClosed",
    "PoolError",
    "PoolTimeout",
    "ProbeState",
    "QUERY_TIMEOUTS",
    "QueryPriority",
    "QueryTimeout",
    "Refused",
    "Transaction",
    "TransactionEnded",
    "TuningError",
    "WrongLoop",
    "WrongProcess",
    "cached",
    "create_pool",
    "get_database",
    "idempotent",
    "scope",
    "set_database",
]
