"""Priorities, their time limits, and the scope that carries priority and deadline through tasks.

It knows no pool: what a lane may use of one is decided in `pool._lanes`.

Theory of operation. `scope()` pushes a frozen `Scope` on a ContextVar. Tasks started inside inherit a copy of the
context, so gathered children see the scope. A scope closes with its block: the object is marked closed, and a task
that outlives the block finds it closed and falls back to defaults, so it never inherits a dead deadline. A nested
scope may only lower: the priority it asks for is capped by the enclosing one, the deadline is the earlier of both.
"""

from __future__ import annotations

import enum
import time
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from magnus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class QueryPriority(enum.StrEnum):
    """
    Lanes, most important first. Each has a limit in `QUERY_TIMEOUTS`.
    """

    CRITICAL = "critical"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"
    BACKGROUND = "background"


LANES: Final = tuple(QueryPriority)
_RANK: Final[Mapping[QueryPriority, int]] = MappingProxyType({lane: rank for rank, lane in enumerate(LANES)})

QUERY_TIMEOUTS: Final[Mapping[QueryPriority, float]] = MappingProxyType({
    QueryPriority.CRITICAL: 5.0,
    QueryPriority.HIGH: 10.0,
    QueryPriority.NORMAL: 30.0,
    QueryPriority.LOW: 60.0,
    QueryPriority.BACKGROUND: 120.0,
})
"""Seconds that one statement of a lane may take, from the call to its last row."""


class Scope:
    """
    Priority and absolute deadline (monotonic seconds, or None) that hold inside one block.
    """

    __slots__ = ("deadline", "is_closed", "priority")

    def __init__(self, priority: QueryPriority | None, deadline: float | None) -> None:
        self.priority = priority
        self.deadline = deadline
        self.is_closed = False


_scope: ContextVar[Scope | None] = ContextVar("magnus_scope", default=None)


def current() -> Scope | None:
    """
    Return the innermost open scope of this task, or None.
    """
    found = _scope.get()
    return None if found is None or found.is_closed else found


@contextmanager
def scope(priority: QueryPriority | str | None = None, *, timeout: float | None = None) -> Iterator[Scope]:
    """
    Give every database call inside the block this priority, and an end `timeout` seconds from now.

    A nested scope can only lower: it cannot raise the priority of, or outlast, the one around it.

    Raises:
        ConfigError: `priority` is no lane, or `timeout` is not positive.
    """
    wanted = None if priority is None else parse(priority)
    if timeout is not None and not timeout > 0:
        raise ConfigError("timeout", timeout, "must be a positive number of seconds")
    outer = current()
    deadline = None if timeout is None else time.monotonic() + timeout
    if outer is not None:
        wanted = lower(outer.priority, wanted)
        deadline = earlier(outer.deadline, deadline)
    inner = Scope(wanted, deadline)
    token = _scope.set(inner)
    try:
        yield inner
    finally:
        inner.is_closed = True
        _scope.reset(token)


def without_deadline() -> None:
    """
    Keep this context's priority and forget its deadline: for work that others wait for too.
    """
    outer = current()
    _scope.set(None if outer is None else Scope(outer.priority, None))


def resolve(priority: QueryPriority | None) -> QueryPriority:
    """
    Return the lane a call belongs to: its own, capped by the enclosing scope's; NORMAL when neither says.
    """
    outer = current()
    found = priority if outer is None else lower(outer.priority, priority)
    return QueryPriority.NORMAL if found is None else found


def is_named(priority: QueryPriority | None) -> bool:
    """
    Say whether a call's lane was asked for, by the call or by the scope around it. NORMAL by default was not.
    """
    if priority is not None:
        return True
    outer = current()
    return outer is not None and outer.priority is not None


def lower(a: QueryPriority | None, b: QueryPriority | None) -> QueryPriority | None:
    """
    Return the less important of two lanes; None gives way.
    """
    if a is None or b is None:
        return b if a is None else a
    return a if _RANK[a] >= _RANK[b] else b


def earlier(a: float | None, b: float | None) -> float | None:
    """
    Return the earlier of two deadlines; None is no deadline.
    """
    if a is None or b is None:
        return b if a is None else a
    return min(a, b)


def parse(value: QueryPriority | str) -> QueryPriority:
    """
    Return the lane that a word names, in any case.

    Raises:
        ConfigError: there is no such lane.
    """
    try:
        return QueryPriority(value.lower())
    except (ValueError, AttributeError):
        raise ConfigError("priority", value, f"unknown lane; one of {', '.join(LANES)}") from None
