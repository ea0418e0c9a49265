"""Runs statements on one lease: within their limits on both sides, their errors named, counted; then gives it back.

What is given back late, because the server still owes an answer, is given back in the background: the caller's time is
over.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import asyncpg

from magnus import _commit, _driver
from magnus._catalogue import CLEAN
from magnus._driver import is_on_standby, is_read_only_by_default
from magnus._normalise import normalised
from magnus._trace import SessionTrace
from magnus.errors import MagnusError, QueryTimeout
from magnus.lanes import current
from magnus.observe import QueryTimedOut
from magnus.session import PLAIN, ReadOnly, Window, limit_of, plain_begin, server_limit, window

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from magnus._driver import Connection as RawConnection
    from magnus._terms import Terms
    from magnus.lanes import QueryPriority
    from magnus.pool import Lease, Pool
    from magnus.retry import Attempts
    from magnus.session import TransactionMode
    from magnus.transaction import Transaction

T = TypeVar("T")

_SHOWN: Final = 200
_NEAR: Final = 0.9
_LATE: Final = 2.0  # a cancel that came before its statement finds nothing to cancel: then the connection is cut
_HAS_TRANSACTION_TIMEOUT: Final = 17
SWEPT: Final = frozenset({"fetch", "fetchrow", "fetchval", "execute"})
"""Methods of the driver's connection that only wait for the server; the others get the driver's own timer."""


class _Step:
    """
    The time in which something runs on a lease; see `Execution.step`.
    """

    __slots__ = ("_lease",)

    def __init__(self, lease: Lease, text: str) -> None:
        self._lease = lease
        lease.text = text

    def __enter__(self) -> None:
        self._lease.steps += 1

    def __exit__(self, *_: object) -> None:
        self._lease.steps += 1


class Execution:
    """
    One lease while it is out: its connection, what is known of its session, and until when it may work.

    Attributes:
        deadline: Until when statements may run (monotonic seconds), or None; a transaction sets it.
        transactions: Those that are open, outermost first.
        mode: How the outermost of them began.
        is_released: The lease was given back; the connection is somebody else's.
        is_late: A statement was abandoned, and the server may still be at it.
        asked_at: When the lease was asked for (monotonic seconds), 0.0 when nobody noted it.
        unit: What there was of the unit that it works for, None for one that cannot be repeated.
        trace: What statements may have left in the session; None where it is reset whatever they did.
    """

    __slots__ = (
        "_lease",
        "_pool",
        "asked_at",
        "deadline",
        "is_late",
        "is_released",
        "lane",
        "limit",
        "mode",
        "raw",
        "session",
        "terms",
        "trace",
        "transactions",
        "unit",
    )

    def __init__(self, pool: Pool, lease: Lease, terms: Terms) -> None:
        self._pool = pool
        self._lease = lease
        self.raw: RawConnection = lease.con
        self.lane: QueryPriority = lease.lane
        self.terms = terms
        self.limit = terms.limits[lease.lane]
        self.session = lease.slot.session
        self.trace = None if terms.knowledge is None else SessionTrace(terms.knowledge)
        self.deadline: float | None = None
        self.transactions: list[Transaction] = []
        self.mode = PLAIN
        self.is_released = False
        self.is_late = False
        self.asked_at = 0.0
        self.unit: Attempts | None = None

    async def give_back(self, *, is_known: bool = True) -> None:
        """
        Return the lease to its pool. Calling it again does nothing. Not `is_known`: it may have done more than traced.
        """
        if self.is_released:
            return
        self.is_released = True
        if self.trace is not None:
            if not is_known:
                self.trace.interrupted()
            is_open = not self.raw.is_closed() and self.raw.is_in_transaction()
            self._lease.reset = self.trace.end(is_in_transaction=is_open)
        if not self.is_late and self._pool.give(self._lease):
            return
        if self.is_late and not self.raw.is_closed():
            await self.terms.begin_to(self._pool.release(self._lease, timeout=_LATE))
        else:
            await self._pool.release(self._lease)

    def is_usable(self) -> bool:
        """
        Say whether `check` would pass.
        """
        return not (self.is_released or self._lease.is_released or self.raw.is_closed())

    def check(self, name: str, kind: str = "Connection") -> RawConnection:
        """
        Return the connection for a call of the user's: of the method `name` of a `kind`.

        Raises:
            asyncpg.InterfaceError: the lease was released, or the connection is closed.
        """
        if self._lease.reclaimed is not None:
            raise self._lease.reclaimed
        if self.is_released:
            raise asyncpg.InterfaceError(f"cannot call {kind}.{name}(): connection has been released back to the pool")
        raw = self.raw
        if raw.is_closed():
            raise asyncpg.InterfaceError(f"cannot call {kind}.{name}(): connection is closed")
        return raw

    def check_reclaimed(self) -> None:
        """
        Raise what the pool left behind when it took a silent lease back.

        Raises:
            LeaseReclaimed: it did.
        """
        if self._lease.reclaimed is not None:
            raise self._lease.reclaimed

    def enter_block(self) -> None:
        """
        Say that a block of the running task gives the lease back.
        """
        if self._lease.holding is not None:
            self._lease.holding.is_scoped = True

    def step(self, text: str) -> _Step:
        """
        Mark the lease as busy with `text`: it is not silent, and not taken back, while this lasts.
        """
        return _Step(self._lease, text)

    def window(self, timeout: float | None) -> Window:
        """
        Return when a statement may run that is asked for now.
        """
        now, limit, until = self.terms.now(), self.limit, self.deadline
        if timeout is None and (until is None or until - now >= limit.client) and current() is None:
            return Window(now, now + limit.client, limit.client, limit.server)
        return window(limit, timeout, now=now, until=until)

    def committing(self, last: str = "") -> Awaitable[None]:
        """
        Commit what is open, within the limit of the lane or 10 s, with `last`; see `_commit.commit`.
        """
        limit, watch = max(_commit.COMMIT_LEAST, self.limit.client), self._lease.slot.watch
        return _commit.commit(self.raw, limit=limit, last=last, sweep=self._pool.sweep, watch=watch)

    async def settle(self, text: str, span: Window) -> None:
        """
        Bring the server's limit into force; no round trip when it is.

        Raises:
            QueryTimeout: the deadline has passed; nothing was sent.
        """
        if self.session.present == span.server:
            return
        is_in_transaction = self.raw.is_in_transaction()
        sql = self.session.change(span.server, is_in_transaction=is_in_transaction)
        if sql is not None:
            is_guarded = isinstance(span.server, ReadOnly) and is_read_only_by_default(self.raw)
            await self.send(sql, text, span)
            self.session.changed(span.server, is_in_transaction=is_in_transaction, is_guarded=is_guarded)

    async def send(self, sql: str, text: str, span: Window) -> str:
        """
        Run a statement of the layer's own inside the time of the user's `text`; it is not counted.
        """
        remaining, watch = span.deadline - self.terms.now(), self._lease.slot.watch
        if remaining <= 0:
            raise self.overtime(text, span)
        is_watched = self._pool.sweep.enter(watch, span.deadline)
        try:
            return await (self.raw.execute(sql) if is_watched else self.raw.execute(sql, timeout=remaining))
        except asyncio.CancelledError:
            self.cut_short()
            if is_watched and watch.leave():
                raise self.overtime(text, span) from None
            raise
        except Exception as error:
            self.judge(error, text, span, sent=span.started)
            raise
        finally:
            if is_watched:
                watch.leave()

    def perform(
        self, call: Callable[..., Awaitable[T]], text: str, args: tuple[Any, ...], timeout: float | None, **options: Any
    ) -> Awaitable[T]:
        """
        Settle and run a statement that is asked for now.
        """
        span = self.window(timeout)
        if self.session.present == span.server:
            return self.run(call, text, args, span, options, span.started)
        return self.run_settled(call, text, args, span, options)

    async def run_settled(
        self, call: Callable[..., Awaitable[T]], text: str, args: tuple[Any, ...], span: Window, options: dict[str, Any]
    ) -> T:
        """
        As `run`, after bringing the server's limit into force.
        """
        with self.step(text):
            await self.settle(text, span)
        return await self.run(call, text, args, span, options)

    async def run(  # noqa: PLR0917
        self,
        call: Callable[..., Awaitable[T]],
        text: str,
        args: tuple[Any, ...],
        span: Window,
        options: dict[str, Any],
        now: float | None = None,
    ) -> T:
        """
        Await `call(*args, timeout=…)` within `span`; `text` is what events show of it. `now` is the time, if known.

        Raises:
            QueryTimeout: a limit was reached, the client's or the server's.
            Exception: the driver's own error, unwrapped.
        """
        terms, lease, trace = self.terms, self._lease, self.trace
        watch, sent = lease.slot.watch, terms.now() if now is None else now
        if sent >= span.deadline:
            raise self.overtime(text, span)
        if trace is not None and trace.verdict(text) is not CLEAN:
            trace.saw(text)
        is_successful, result = False, None
        is_watched = call.__name__ in SWEPT and self._pool.sweep.enter(watch, span.deadline)
        if not is_watched:
            options = {**options, "timeout": span.deadline - sent}
        lease.text = text
        lease.steps += 1  # odd: not silent, see `step`
        try:
            result = await call(*args, **options)
            is_successful = True
        except asyncio.CancelledError:
            self.cut_short()
            if is_watched and watch.leave():
                raise self.overtime(text, span) from None
            raise
        except Exception as error:
            self.judge(error, text, span, sent=sent)
            raise
        finally:
            lease.steps += 1
            if is_watched:
                watch.leave()
            seconds = terms.now() - sent
            if terms.stats.ran(seconds, self.lane, is_successful=is_successful):
                ended = None if is_successful else sys.exception()
                terms.tell(text, seconds, call.__name__, result, self.lane, self._waited(), self.unit, args, ended)
            if self.session.is_changed:
                self.session.heard(text)
        return result

    def commit_ended(self, started: float, *, is_successful: bool) -> None:
        """
        Tell of a COMMIT that was sent for the user: it is counted as nobody's statement, and may be slow like one.
        """
        terms, error = self.terms, None if is_successful else sys.exception()
        seconds = terms.now() - started
        if seconds > terms.stats.tell_after:
            terms.tell("COMMIT", seconds, "commit", None, self.lane, self._waited(), self.unit, (), error)

    def _waited(self) -> float:
        return self._lease.acquired_at - self.asked_at if self.asked_at else 0.0

    def cut_short(self) -> None:
        """
        Take note that a statement was abandoned: the server may be at it still, and the driver half-way.
        """
        self.is_late = True
        if self.trace is not None:
            self.trace.interrupted()

    def judge(self, error: Exception, text: str, span: Window, *, sent: float) -> None:
        """
        Take note of what an error of a statement says of its connection; raise `QueryTimeout` when it is the limit.
        """
        if isinstance(error, asyncpg.InternalClientError):
            # The driver has lost track of the conversation: nothing that it says of this connection is true any more.
            self.raw.terminate()
            raise _driver.lost_track(error) from error
        is_read_only = self.mode.readonly or isinstance(span.server, ReadOnly)
        if isinstance(error, asyncpg.ReadOnlySQLTransactionError) and not is_read_only:
            self._pool.refused_write(self._lease)
            if self.trace is not None:
                self.trace.interrupted()  # whatever made the session read only, the next lease shall not find it
        if self.trace is not None and not isinstance(error, asyncpg.PostgresError):
            self.trace.interrupted()
        if self._is_limit(error, span, sent):
            self.cut_short()
            raise self.overtime(text, span) from error

    def _is_limit(self, error: Exception, span: Window, sent: float) -> bool:
        if isinstance(error, TimeoutError):
            # One with an errno is the socket's; one before the deadline is of a source that the caller passed in.
            is_ours = error.errno is None and not isinstance(error, MagnusError)
            return is_ours and _is_near(self.terms.now(), since=sent, limit=span.deadline - sent)
        if isinstance(error, asyncpg.QueryCanceledError):
            # An operator's cancel has the same code; the time tells them apart in every language of messages.
            server = limit_of(span.server)
            limit = min(self.terms.startup_limit if server is None else server, span.deadline - sent)
            is_cancel = "user request" in str(error)
            return not is_cancel and _is_near(self.terms.now(), since=sent, limit=limit)
        return False

    def overtime(self, text: str, span: Window) -> QueryTimeout:
        """
        Count and tell that a statement reached its limit; return the error to raise.
        """
        terms = self.terms
        self._pool.wasted(self._lease)
        lane, elapsed = self.lane.value, terms.now() - span.started
        terms.stats.timeouts += 1
        terms.notify(QueryTimedOut(lane, span.limit, elapsed, normalised(text).text[:_SHOWN]))
        return QueryTimeout(priority=lane, timeout=span.limit, elapsed=elapsed)

    # --- transactions

    def transaction_deadline(self, timeout: float | None) -> float:
        """
        Return until when a transaction may run that begins now (monotonic seconds).
        """
        terms = self.terms
        span = window(terms.transaction_limits[self.lane], timeout, now=terms.now(), until=self.deadline)
        return span.deadline

    async def begin(
        self, mode: TransactionMode, timeout: float | None, *, deadline: float, first: str = "", is_own: bool = False
    ) -> str:
        """
        Begin a transaction, with everything that is local to it, in one round trip, and bind statements to `deadline`.

        `first` goes with it and is shown to nobody; what the server said of it is returned. A failure that the server
        did not answer closes the connection: nobody knows whether it began. `is_own`: the lease was made for this
        transaction, so that nothing was prepared on it; where BEGIN can go with the first statement, it does.
        """
        session, wanted = self.session, limit_of(self.limit.server)
        statement = wanted if wanted != limit_of(session.present) else None
        guard: float | None = None
        if self.raw.get_server_version().major >= _HAS_TRANSACTION_TIMEOUT:
            guard = limit_of(server_limit(self.terms.transaction_limits[self.lane], timeout))
        is_writing = session.begins() and not is_on_standby(self.raw)
        if mode is PLAIN:
            parts = plain_begin(statement, guard, is_writing=is_writing)
        else:
            parts = mode.parts(statement_timeout=statement, transaction_timeout=guard, is_writing=is_writing)
        text = "; ".join(parts)
        if mode.settings and self.trace is not None and any(name.lower() == "seed" for name in mode.settings):
            self.trace.saw(text)  # the one setting whose effect outlives its transaction
        self.deadline = deadline
        self.mode = mode
        may_wait = is_own and not (first or is_writing or mode.answers_rows)
        if may_wait and _driver.begin_with_next(self.raw, parts):
            self._begun(statement)
            return ""
        is_known = False
        try:
            tag = await self.send(f"{text}; {first}" if first else text, text, self.window(None))
            is_known = True
        except asyncpg.PostgresError:
            # An answer: what came before it in the text, BEGIN at least, was carried out.
            raw = self.raw
            is_known = not raw.is_closed() and (not raw.is_in_transaction() or await _commit.rollback(raw))
            raise
        finally:
            if not is_known:
                self.raw.terminate()
        self._begun(statement)
        return tag

    def _begun(self, statement: float | None) -> None:
        self.session.begun()
        if statement is not None:
            self.session.changed(statement, is_in_transaction=True)

    async def begin_savepoint(self, name: str, mode: TransactionMode, timeout: float | None) -> None:
        """
        Begin a savepoint in the open transaction, with settings that a rollback to it undoes.

        Raises:
            asyncpg.InterfaceError: it was to have another isolation or mode than the transaction.
        """
        if mode.is_special and replace(mode, settings={}) != replace(self.mode, settings={}):
            raise asyncpg.InterfaceError("a savepoint cannot have another isolation or mode than its transaction")
        text = "; ".join([f"SAVEPOINT {name}", *mode.local_settings()])
        if self.trace is not None and mode.settings:
            self.trace.saw(text)
        await self.send(text, text, self.window(None))
        if timeout is not None:
            self.deadline = self.window(timeout).deadline


def _is_near(now: float, *, since: float, limit: float) -> bool:
    return now - since >= _NEAR * limit
