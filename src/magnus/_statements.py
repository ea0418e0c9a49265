"""The methods that run one statement each, on a lease of its own: acquire, run, release; again while that is safe."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from magnus import lanes
from magnus._catalogue import CLEAN
from magnus._execution import Execution
from magnus._normalise import normalised
from magnus._rows import mapper
from magnus._sqltext import is_whole
from magnus._verdicts import Phase
from magnus.errors import QueryTimeout
from magnus.lanes import QueryPriority
from magnus.pool import RANK, Lease
from magnus.retry import IN_PARTS, ORDINARY, READ, REPEATABLE, Attempts, Progress, is_declared
from magnus.session import Window, window

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    import asyncpg

    from magnus._terms import Terms
    from magnus._trace import Knowledge
    from magnus.pool import Pool, Slot
    from magnus.retry import Retrier, Rights

T = TypeVar("T")

_NORMAL: Final = QueryPriority.NORMAL
_READING: Final = frozenset({"SELECT", "TABLE", "VALUES", "SHOW", "EXPLAIN"})
_RIGHTS: Final = {
    (False, False): ORDINARY,
    (True, False): READ,
    (False, True): REPEATABLE,
    (True, True): READ,
}
"""By `read` and `idempotent`, as they are asked for."""


def _rights(asked: Rights, text: str) -> Rights:
    """
    Return what a statement may, with what the function around it declared.
    """
    if asked is not ORDINARY:
        return asked
    if is_declared():
        return REPEATABLE
    return ORDINARY if is_whole(text) else IN_PARTS


class Statements:
    """
    Base of `Database`, which says where leases come from: `lease(lane, deadline)`, or `pool()` itself.
    """

    def __init__(
        self,
        terms: Terms,
        retrier: Retrier,
        lease: Callable[..., Awaitable[Execution]],
        pool: Callable[[], Pool],
    ) -> None:
        self._terms = terms
        self._retrier = retrier
        self._lease = lease
        self._pool_open = pool

    @overload
    async def fetch(
        self,
        query: str,
        *args: Any,
        priority: QueryPriority | None = ...,
        timeout: float | None = ...,
        read: bool = ...,
        idempotent: bool = ...,
    ) -> list[asyncpg.Record]: ...
    @overload
    async def fetch(
        self,
        query: str,
        *args: Any,
        row: Callable[..., T],
        priority: QueryPriority | None = ...,
        timeout: float | None = ...,
        read: bool = ...,
        idempotent: bool = ...,
    ) -> list[T]: ...
    async def fetch(
        self,
        query: str,
        *args: Any,
        row: Callable[..., Any] | None = None,
        priority: QueryPriority | None = None,
        timeout: float | None = None,
        read: bool = False,
        idempotent: bool = False,
    ) -> list[Any]:
        """
        Run a query and return its rows. `row` is what to make of each: a dataclass, a pydantic model, any callable.

        `read`: it only reads, so it runs READ ONLY and is sent again when its connection was lost. `idempotent`: it
        may write, and twice is as good as once. Without either it is repeated only when it certainly had no effect.
        """
        rights = _RIGHTS[read, idempotent]
        found: list[Any] = await self._one("fetch", query, (query, *args), priority, timeout, rights)
        return found if row is None else list(map(mapper(row), found))

    @overload
    async def fetchrow(
        self,
        query: str,
        *args: Any,
        priority: QueryPriority | None = ...,
        timeout: float | None = ...,
        read: bool = ...,
        idempotent: bool = ...,
    ) -> asyncpg.Record | None: ...
    @overload
    async def fetchrow(
        self,
        query: str,
        *args: Any,
        row: Callable[..., T],
        priority: QueryPriority | None = ...,
        timeout: float | None = ...,
        read: bool = ...,
        idempotent: bool = ...,
    ) -> T | None: ...
    async def fetchrow(
        self,
        query: str,
        *args: Any,
        row: Callable[..., Any] | None = None,
        priority: QueryPriority | None = None,
        timeout: float | None = None,
        read: bool = False,
        idempotent: bool = False,
    ) -> Any:
        """
        Run a query and return its first row, None when there is none. `row`, `read`, `idempotent` as for `fetch`.
        """
        rights = _RIGHTS[read, idempotent]
        found = await self._one("fetchrow", query, (query, *args), priority, timeout, rights)
        return found if row is None or found is None else mapper(row)(found)

    async def fetchval(
        self,
        query: str,
        *args: Any,
        column: int | str = 0,
        priority: QueryPriority | None = None,
        timeout: float | None = None,
        read: bool = False,
        idempotent: bool = False,
    ) -> Any:
        """
        Run a query and return one column of its first row, None when there is none. `read`, `idempotent` as for
        `fetch`.
        """
        rights = _RIGHTS[read, idempotent]
        return await self._one("fetchval", query, (query, *args), priority, timeout, rights, column=column)

    async def fetch_with_priority(
        self, query: str, *args: Any, priority: QueryPriority = QueryPriority.NORMAL
    ) -> list[asyncpg.Record]:
        """
        Run a query in a lane and return its rows: `fetch` with `priority`.
        """
        return await self.fetch(query, *args, priority=priority)

    async def execute(
        self,
        query: str,
        *args: Any,
        priority: QueryPriority | None = None,
        timeout: float | None = None,
        idempotent: bool = False,
    ) -> str:
        """
        Run a statement, or several when there are no arguments, and return the status of the last.

        `idempotent`: twice is as good as once, so it is sent again when its connection was lost.
        """
        rights = REPEATABLE if idempotent else ORDINARY
        return str(await self._one("execute", query, (query, *args), priority, timeout, rights))

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
        await self._long("executemany", command, (command, args), priority, timeout)

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
        text = f"COPY {table_name} FROM STDIN" + ("" if where is None else f" WHERE {where}")
        found = await self._long("copy_records_to_table", text, (table_name,), priority, timeout, **options)
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
        found = await self._long("copy_from_query", query, (query, *args), priority, timeout, output=output, **options)
        return str(found)

    def _one(  # noqa: PLR0917
        self,
        method: str,
        text: str,
        args: tuple[Any, ...],
        priority: QueryPriority | None,
        timeout: float | None,
        rights: Rights,
        **options: Any,
    ) -> Awaitable[Any]:
        """
        Run one statement on a connection of its own: by the short way when it certainly leaves nothing behind.
        """
        terms = self._terms
        limits = terms.reading if rights is READ else terms.limits
        if timeout is None and lanes.current() is None:  # as below, for the common case
            lane = _NORMAL if priority is None else priority
            limit, now = limits[lane], terms.now()
            span = Window(now, now + limit.client, limit.client, limit.server)
        else:
            lane = lanes.resolve(priority)
            span = window(limits[lane], timeout, now=terms.now())
        knowledge = terms.knowledge
        if knowledge is not None and knowledge.verdict(text) is CLEAN:
            return self._briefly(knowledge, method, text, args, priority, lane, span, options, rights)
        return self._repeatedly(method, text, args, priority, lane, span, options, rights)

    async def _long(
        self,
        method: str,
        text: str,
        args: tuple[Any, ...],
        priority: QueryPriority | None,
        timeout: float | None,
        **options: Any,
    ) -> Any:
        """
        Run one statement that reads or feeds the caller's own source, which cannot be read twice.
        """
        terms = self._terms
        lane = lanes.resolve(priority)
        span = window(terms.limits[lane], timeout, now=terms.now())
        return await self._repeatedly(method, text, args, priority, lane, span, options, ORDINARY, is_final=True)

    # Written out, because every call and every object less is felt in what the pool can do.
    async def _briefly(  # noqa: C901, PLR0912, PLR0915, PLR0917
        self,
        knowledge: Knowledge,
        method: str,
        text: str,
        args: tuple[Any, ...],
        priority: QueryPriority | None,
        lane: QueryPriority,
        span: Window,
        options: dict[str, Any],
        rights: Rights,
    ) -> Any:
        """
        Run a statement that is neutral as far as `knowledge` goes. Whatever is not the common case takes the long way.
        """
        terms, generation = self._terms, knowledge.generation
        now = terms.now
        is_sent = is_done = False
        result: Any = None
        delay: float | None = None
        try:
            pool, rank = self._pool_open(), RANK[lane]
            slot = pool.take(rank, span.started, span.server)
            if slot is None:
                is_named = priority is not None or lanes.is_named(priority)
                slot = await pool.obtain(rank, span.started, span.deadline, is_named=is_named, wanted=span.server)
            raw, watch, sent = slot.con, slot.watch, now()
            execution: Execution | None = None
            try:
                if slot.session.present != span.server or sent >= span.deadline:
                    execution = self._hold(pool, slot, lane)
                    await execution.settle(text, span)
                    sent = now()
                is_sent = True
                pool.sweep.enter(watch, span.deadline)
                result = await getattr(raw, method)(*args, **options)
                is_done = True
            except asyncio.CancelledError:
                execution = execution or self._hold(pool, slot, lane)
                execution.cut_short()
                if watch.leave():
                    raise execution.overtime(text, span) from None
                raise
            except Exception as error:
                execution = execution or self._hold(pool, slot, lane)
                execution.judge(error, text, span, sent=sent)
                raise
            finally:
                watch.leave()
                done = now()
                if is_sent and terms.stats.ran(done - sent, lane, is_successful=is_done):
                    ended = None if is_done else sys.exception()
                    terms.tell(text, done - sent, method, result, lane, sent - span.started, 1, args, ended)
                is_known = generation == knowledge.generation
                if execution is None and is_known and not raw.is_closed() and not raw.is_in_transaction():
                    pool.put(slot, done)
                else:
                    await (execution or self._hold(pool, slot, lane)).give_back(is_known=is_known)
        except Exception as error:
            attempts = Attempts(Phase.STATEMENT if is_sent else Phase.UNSENT)
            delay = self._retrier.decide(error, attempts, _rights(rights, text), span.deadline)
            if delay is None:
                self._failed(error, text, attempts, rights)
                raise
        finally:
            if not is_sent and delay is None:
                terms.never_ran(text, lane, span.started, 1)
        if delay is not None:
            await terms.clock.sleep(delay)
            return await self._repeatedly(method, text, args, priority, lane, span, options, rights, attempts)
        return result

    def _hold(self, pool: Pool, slot: Slot, lane: QueryPriority) -> Execution:
        return Execution(pool, Lease(slot, lane, self._terms.now()), self._terms)

    async def _repeatedly(  # noqa: PLR0917
        self,
        method: str,
        text: str,
        args: tuple[Any, ...],
        priority: QueryPriority | None,
        lane: QueryPriority,
        span: Window,
        options: dict[str, Any],
        rights: Rights,
        attempts: Attempts | None = None,
        *,
        is_final: bool = False,
    ) -> Any:
        """
        Run a statement, again while that is safe. `attempts`: what there was before.
        """
        progress = Progress()
        attempts = Attempts() if attempts is None else attempts

        async def attempt(progress: Progress) -> Any:
            execution = await self._lease(lane, span.deadline, is_named=lanes.is_named(priority))
            execution.asked_at, execution.attempts = span.started, attempts.failed + 1
            try:
                await execution.settle(text, span)
                progress.is_sent, progress.is_final = True, is_final
                return await execution.run(getattr(execution.raw, method), text, args, span, options)
            finally:
                await execution.give_back()

        try:
            found = partial(_rights, rights, text)
            return await self._retrier.run(attempt, progress, deadline=span.deadline, rights=found, attempts=attempts)
        except Exception as error:
            self._failed(error, text, attempts, rights)
            raise
        finally:
            if not progress.is_sent:
                self._terms.never_ran(text, lane, span.started, attempts.failed + 1)

    def _failed(self, error: Exception, text: str, attempts: Attempts, rights: Rights) -> None:
        """
        Tell when a statement that failed for good may have been carried out. One at its limit was cancelled.
        """
        if not attempts.may_be_stored or rights.is_read_only or isinstance(error, QueryTimeout):
            return
        if normalised(text).summary.partition(" ")[0] not in _READING:
            self._terms.outcome_unknown("statement", error)
