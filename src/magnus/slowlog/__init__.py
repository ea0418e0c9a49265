"""The slow-query log: slow statements -> bounded queue -> own connection -> `slow_query_log`; it knows no pool."""

from magnus.slowlog._log import SlowLog

__all__ = ["SlowLog"]
