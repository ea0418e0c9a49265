"""What a route asks for: the database, a transaction, a lane."""

from __future__ import annotations

import inspect
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Literal, ParamSpec, TypeVar

from fastapi import Depends, params
from starlette.requests import HTTPConnection  # noqa: TC002  # FastAPI reads the annotation

from magnus import lanes
from magnus.database import Database, get_database
from magnus.errors import ConfigError
from magnus.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from magnus.lanes import QueryPriority

P = ParamSpec("P")
T = TypeVar("T")


async def current_database(connection: HTTPConnection) -> Database:
    """
    Return the database of the `Magnus` whose lifespan this application runs, else the process-wide one.

    Tests replace it: `app.dependency_overrides[current_database] = ...`.
    """
    magnus = connection.scope.get("state", {}).get("magnus")
    return await get_database() if magnus is None else magnus.database


Db = Annotated[Database, Depends(current_database)]
"""The database. It holds a pool, never a connection, so nothing is kept while a response is sent."""


async def open_transaction(db: Db) -> AsyncIterator[Transaction]:
    """
    Run the handler in one transaction: committed before the response begins, rolled back when it raises.
    """
    async with db.transaction() as transaction:
        yield transaction


Tx = Annotated[Transaction, Depends(open_transaction, scope="function")]
"""A transaction around the handler. A failed COMMIT becomes the response, because none has been sent by then."""


@dataclass(frozen=True)
class Lane(params.Depends):
    """
    A lane for a route: in `dependencies=[…]`, in `Annotated[None, …]`, or as a decorator of a coroutine function.
    """

    def __call__(self, handler: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        if not inspect.iscoroutinefunction(handler):
            raise TypeError(f"{handler!r} is no coroutine function: only those can work in a lane")
        assert self.dependency is not None
        open_scope = asynccontextmanager(self.dependency)

        @wraps(handler)
        async def in_lane(*args: P.args, **kwargs: P.kwargs) -> T:
            async with open_scope():
                return await handler(*args, **kwargs)

        return in_lane


def lane(
    priority: QueryPriority | str, *, timeout: float | None = None, scope: Literal["function", "request"] = "function"
) -> Lane:
    """
    Give every database call of a route this priority, and an end `timeout` seconds after its start.

    Dependencies of the route that come after this one are inside, the handler too. With `scope="function"` the lane
    ends before the response is sent; with "request" it lasts while a response streams and while its background tasks
    run. A task that outlives it falls back to defaults. A lane inside another can only lower it.

    Raises:
        ConfigError: `priority` is no lane, or `timeout` is not positive.
    """
    found = lanes.parse(priority)
    if timeout is not None and not timeout > 0:
        raise ConfigError("timeout", timeout, "must be a positive number of seconds")

    async def open_lane() -> AsyncIterator[None]:
        with lanes.scope(found, timeout=timeout):
            yield

    return Lane(open_lane, scope=scope)
