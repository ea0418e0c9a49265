"""The methods that run one statement each, on a lease of its own: acquire, run, release; again while that is safe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from magnus import lanes
from magnus._rows import mapper
from magnus.lanes import QueryPriority
from magnus.retry import Progress
from magnus.session import window

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    import asyncpg

    from magnus._execution import Execution, Terms
    from magnus.retry import Retrier

T = TypeVar("T")


class Statements:
    """
    Base of `Database`, which says where leases come from: `lease(lane, deadline)`.
    """

    def __init__(self, terms: Terms, retrier: Retrier, lease: Callable[..., Awaitable[Execution]]) -> None:
        self._terms = terms
        self._retrier = retrier
        self._lease = lease

    @overload
    async def fetch(
        self, query: str, *args: Any, priority: QueryPriority | None = ..., timeout: float | None = ...
    ) -> list[asyncpg.Record]: ...
    @overload
    async def fetch(
        self,
        query: str,
        *args: Any,
        row: Callable[..., T],
        priority: QueryPriority | None = ...,
        timeout: float | None = ...,
    ) -> list[T]: ...
    async def fetch(
        self,
        query: str,
        *args: Any,
        row: Callable[..., Any] | None = None,
        priority: QueryPriority | None = None,
        timeout: float | None = None,
    ) -> list[Any]:
        """
        Run a query and return its rows. `row` is what to make of each: a dataclass, a pydantic model, any callable.
        """
        found: list[Any] = await self._one("fetch", query, (query, *args), priority, timeout)
        return found if row is None else list(map(mapper(row), found))

    @overload
    async def fetchrow(
        self, query: str, *args: Any, priority: QueryPriority | None = ..., timeout: float | None = ...
    ) -> asyncpg.Record | None: ...
    @overload
    async def fetchrow(
        self,
        query: str,
        *args: Any,
        row: Callable[..., T],
        priority: QueryPriority | None = ...,
        timeout: float | None = ...,
    ) -> T | None: ...
    async def fetchrow(
        self,
        query: str,
        *args: Any,
        row: Callable[..., Any] | None = None,
        priority: QueryPriority | None = None,
        timeout: float | None = None,
    ) -> Any:
        """
        Run a query and return its first row, None when there is none. `row` as for `fetch`.
        """
        found = await self._one("fetchrow", query, (query, *args), priority, timeout)
        return found if row is None or found is None else mapper(row)(found)

    async def fetchval(
        self,
        query: str,
        *args: Any,
        column: int | str = 0,
        priority: QueryPriority | None = None,
        timeout: float | None = None,
    ) -> Any:
        """
        Run a query and return one column of its first row, None when there is none.
        """
        return await self._one("fetchval", query, (query, *args), priority, timeout, column=column)

    async def fetch_with_priority(
        self, query: str, *args: Any, priority: QueryPriority = QueryPriority.NORMAL
    ) -> list[asyncpg.Record]:
        """
        Run a query in a lane and return its rows: `fetch` with `priority`.
        """
        return await self.fetch(query, *args, priority=priority)

    async def execute(
        self, query: str, *args: Any, priority: QueryPriority | None = None, timeout: float | None = None
    ) -> str:
        """
        Run a statement, or several when there are no arguments, and return the status of the last.
        """
        return str(await self._one("execute", query, (query, *args), priority, timeout))

    async def executemany(
        self,
        command: str,
        args: Iterable[Sequence[Any]],
        *,
        priority: QueryPriority | None = None,
        timeout: float | None = None,
    ) -> None:
        """
        Run a statement for each sequence of arguments, atomically.
        """
        await self._one("executemany", command, (command, args), priority, timeout, is_final=True)

    async def copy_records_to_table(
        self,
        table_name: str,
        *,
        records: Any,
        columns: Sequence[str] | None = None,
        schema_name: str | None = None,
        where: str | None = None,
        priority: QueryPriority | None = None,
        timeout: float | None = None,
    ) -> str:
        """
        Copy rows (tuples, or an asynchronous iterable of them) into a table by binary COPY; return its status.
        """
        options = {"records": records, "columns": columns, "schema_name": schema_name, "where": where}
        text = f"COPY {table_name} FROM STDIN"
        found = await self._one(
            "copy_records_to_table", text, (table_name,), priority, timeout, is_final=True, **options
        )
        return str(found)

    async def copy_from_query(
        self,
        query: str,
        *args: Any,
        output: Any,
        priority: QueryPriority | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> str:
        """
        Copy a query's rows into a file, a path or a coroutine function that takes bytes; return the status.

        `options` are the driver's: `format`, `header`, `delimiter`, `null`, `quote`, `escape`, `encoding` ….
        """
        found = await self._one(
            "copy_from_query", query, (query, *args), priority, timeout, is_final=True, output=output, **options
        )
        return str(found)

    async def _one(
        self,
        method: str,
        text: str,
        args: tuple[Any, ...],
        priority: QueryPriority | None,
        timeout: float | None,
        *,
        is_final: bool = False,
        **options: Any,
    ) -> Any:
        """
        Run one statement on a connection of its own. `is_final`: it reads a source that cannot be read twice.
        """
        lane, is_named = lanes.resolve(priority), lanes.is_named(priority)
        span = window(self._terms.limits[lane], timeout, now=self._terms.clock.now())
        progress = Progress()

        async def attempt(progress: Progress) -> Any:
            execution = await self._lease(lane, span.deadline, is_named=is_named)
            try:
                await execution.settle(text, span)
                progress.is_sent, progress.is_final = True, is_final
                return await execution.run(getattr(execution.raw, method), text, args, span, **options)
            finally:
                await execution.give_back()

        try:
            return await self._retrier.run(attempt, progress, deadline=span.deadline)
        finally:
            if not progress.is_sent:
                self._terms.stats.never_ran()
