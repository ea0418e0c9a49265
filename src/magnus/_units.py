"""Units of work that are functions: begun, run in a transaction, committed, and run again where that is right."""

from __future__ import annotations

from functools import partial
from operator import methodcaller
from typing import TYPE_CHECKING, Final, TypeVar

import asyncpg

from magnus import lanes, once
from magnus._answers import encode
from magnus._driver import PoolClosed
from magnus._statements import Statements
from magnus._verdicts import Verdict
from magnus.errors import (
    AlreadyExecuted,
    DatabaseError,
    InProgress,
    KeyReused,
    OutcomeUnknown,
    Refused,
    WrongLoop,
    WrongProcess,
)
from magnus.once import Once
from magnus.retry import ORDINARY, REPEATABLE, Attempts, Progress, Rights, is_idempotent
from magnus.session import TransactionMode, checked, window
from magnus.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from magnus._execution import Execution
    from magnus._terms import Terms
    from magnus.lanes import QueryPriority
    from magnus.pool import Pool
    from magnus.retry import Retrier

T = TypeVar("T")

GIVE_BACK: Final = methodcaller("give_back")
"""Gives an execution back, whichever kind it is."""


class Units(Statements):
    """
    Base of `Database`, which says where leases for user code come from: `lend(lane, deadline)`.
    """

    def __init__(
        self,
        terms: Terms,
        retrier: Retrier,
        lease: Callable[..., Awaitable[Execution]],
        pool: Callable[[], Pool],
        lend: Callable[..., Awaitable[Execution]],
    ) -> None:
        super().__init__(terms, retrier, lease, pool)
        self._lend_out = lend
        self._flights: dict[tuple[str, str, str], once.Flight] = {}

    async def run_in_transaction(
        self,
        fn: Callable[[Transaction], Awaitable[T]],
        *,
        isolation: str | None = None,
        readonly: bool = False,
        deferrable: bool = False,
        priority: QueryPriority | None = None,
        timeout: float | None = None,
        settings: Mapping[str, str] | None = None,
        xid: bool = False,
    ) -> T:
        """
        Run `await fn(tx)` in a transaction, commit, and return what it returned; arguments as for `transaction`.

        The whole of `fn` runs again, in a new transaction, when the server took the first one back for what a repeat
        may heal: a serialization failure or a deadlock (at COMMIT too), a lock that was not to be had, a connection
        lost before COMMIT was sent. At most `max_retries` times and within `timeout`, which is for all attempts. So
        `fn` should do nothing but work on `tx`. When COMMIT was sent and not answered it runs again only if it is
        `readonly` or was declared `idempotent`.

        Raises:
            OutcomeUnknown: COMMIT was sent and not answered.
            CommitRolledBack: `fn` swallowed an error of the server's; nothing was stored.
            Exception: what `fn` raised; with a note when there were several attempts.
        """
        mode = TransactionMode.of(isolation, readonly, deferrable, settings)
        limit = None if timeout is None else checked(timeout)
        deadline = self._transaction_deadline(priority, limit)
        rights = Rights(is_repeatable=readonly or is_idempotent(fn), is_read_only=readonly)
        attempts = Attempts()

        async def attempt(progress: Progress) -> T:
            begin = partial(self._begin_once, mode, priority, limit, deadline, unit=attempts)
            async with Transaction(begin, GIVE_BACK, wants_xid=xid, is_unit=True) as tx:
                return await watched(fn, tx, progress)

        try:
            return await self._retrier.run(
                attempt, Progress(), deadline=deadline, rights=lambda: rights, attempts=attempts
            )
        except Exception as error:
            is_unknown = isinstance(error, OutcomeUnknown)
            if not readonly and (is_unknown or attempts.may_be_stored):
                self._terms.outcome_unknown("unit", error, error.xid if isinstance(error, OutcomeUnknown) else None)
            if attempts.may_be_stored and not readonly and not is_unknown:
                raise OutcomeUnknown from error
            raise

    async def run_once(
        self,
        fn: Callable[[Transaction], Awaitable[T]],
        *,
        key: str,
        scope: str,
        request: object,
        result: type[T],
        operation: str = "unit",
        reference: Callable[[T], object] | None = None,
        isolation: str | None = None,
        priority: QueryPriority | None = None,
        timeout: float | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> Once[T]:
        """
        Run `await fn(tx)` in a transaction, once for ever for (scope, operation, key), and return its answer.

        The key, a fingerprint of `request` and what `fn` returned are stored in the same transaction; a repeat gets
        the stored answer, read as `result` (a dataclass, a pydantic model, or plain types and unions of these). So
        every failure may be repeated, and is, until `timeout`: `fn` runs again as in `run_in_transaction`, also after
        a COMMIT that was not answered, when the key shows that nothing had been stored. Only what `fn` does on `tx`
        happens once. What it raises is not stored and may be tried again with the same key; `Refused` is stored, and
        raised again for a repeat. `reference` names what was made (the id of a trade) and outlives the answer.

        Repeats at the same time wait here for the first one, without a connection; in other processes at most 2 s.
        The table is `magnus.once.table()`.

        Raises:
            KeyReused: the key belongs to another request.
            InProgress: the same unit is being carried out elsewhere and was not over in time.
            AlreadyExecuted: the answer has expired; `reference` is left of it.
            Refused: the unit refused, now or before.
            OutcomeUnknown: COMMIT was not answered and nobody could be asked until `timeout`; repeat it with the key.
            ConfigError: a name is no text of 1 to 255 characters.
            TypeError: `request` or the answer has no JSON form.
        """
        unit = once.Unit.of(scope=scope, operation=operation, key=key, request=request)
        mode = TransactionMode.of(isolation, readonly=False, deferrable=False, settings=settings)
        limit = None if timeout is None else checked(timeout)
        deadline = self._transaction_deadline(priority, limit)
        while (ahead := self._flights.get(unit.id)) is not None:
            answer = await ahead.wait(unit, deadline - self._terms.now())
            if answer is not None and ahead.request_hash == unit.request_hash:
                return Once(answer.value(result), replayed=True)
        flight = self._flights[unit.id] = once.Flight(unit.request_hash)
        answer = None
        try:
            attempts = Attempts()
            begin = partial(self._begin_once, mode, priority, limit, deadline, unit=attempts)
            lead = _Lead(self._retrier, self._terms, begin, unit, deadline, attempts)
            answer, found = await lead.run(fn, result, reference)
        except OutcomeUnknown as error:
            self._terms.outcome_unknown("unit", error, error.xid)
            raise
        finally:
            del self._flights[unit.id]
            flight.land(answer)
        return found

    def _transaction_deadline(self, priority: QueryPriority | None, timeout: float | None) -> float:
        terms = self._terms
        return window(terms.transaction_limits[lanes.resolve(priority)], timeout, now=terms.now()).deadline

    async def _begin(
        self, mode: TransactionMode, priority: QueryPriority | None, timeout: float | None, transaction: Transaction
    ) -> Execution:
        """
        Begin on a lease of its own, again while that is safe: nothing of the block has run.
        """
        terms = self._terms
        lane, now = lanes.resolve(priority), terms.now()
        deadline = window(terms.transaction_limits[lane], timeout, now=now).deadline
        wait = min(now + terms.limits[lane].client, deadline)
        try:  # the first attempt without the loop of `run`, which is felt
            return await self._begin_once(mode, priority, timeout, deadline, transaction, wait)
        except Exception as error:
            attempts = Attempts()
            delay = self._retrier.decide(error, attempts, ORDINARY, wait)
            if delay is None:
                raise
        await terms.clock.sleep(delay)

        async def attempt(_: Progress) -> Execution:
            return await self._begin_once(mode, priority, timeout, deadline, transaction, wait)

        return await self._retrier.run(attempt, Progress(), deadline=wait, attempts=attempts)

    async def _begin_once(  # noqa: PLR0917
        self,
        mode: TransactionMode,
        priority: QueryPriority | None,
        timeout: float | None,
        deadline: float,
        transaction: Transaction,
        wait: float | None = None,
        unit: Attempts | None = None,
    ) -> Execution:
        """
        Begin on a lease of its own; who waits for one waits no longer than the lane's statements may take.
        """
        lane, now = lanes.resolve(priority), self._terms.now()
        if wait is None:
            wait = window(self._terms.limits[lane], None, now=now, until=deadline).deadline
        execution = await self._lend_out(lane, wait, is_named=lanes.is_named(priority), inside=3)
        execution.asked_at, execution.unit = now, unit
        is_begun = False
        try:
            transaction.tag = await execution.begin(
                mode, timeout, deadline=deadline, first=transaction.first, is_own=True
            )
            is_begun = True
        finally:
            if not is_begun:
                await execution.give_back()
        return execution


class _Lead:
    """
    Carries one unit out, for all who wait for it in this process, in as many attempts as it takes.
    """

    def __init__(  # noqa: PLR0917
        self,
        retrier: Retrier,
        terms: Terms,
        begin: Callable[[Transaction], Awaitable[Execution]],
        unit: once.Unit,
        deadline: float,
        attempts: Attempts,
    ) -> None:
        self._retrier = retrier
        self._terms = terms
        self._begin = begin
        self._unit = unit
        self._deadline = deadline
        self._course = once.Course()
        self._attempts = attempts

    async def run(
        self, fn: Callable[[Transaction], Awaitable[T]], result: type[T], reference: Callable[[T], object] | None
    ) -> tuple[once.Answer, Once[T]]:
        """
        Return the answer as it is stored, and as the caller gets it.
        """
        progress = Progress()
        while True:
            progress.restart()
            try:
                return await self._attempt(fn, progress, result, reference)
            except Refused as refused:
                if refused.is_replayed or refused is self._course.refusal:
                    raise
                self._course.refusal = refused  # decided, and rolled back; now it is stored
                continue
            except Exception as error:
                self._attempts.phase = progress.phase
                delay = self._delay(error, progress)
                if delay is None:
                    raise
            await self._terms.clock.sleep(delay)

    async def _attempt(
        self,
        fn: Callable[[Transaction], Awaitable[T]],
        progress: Progress,
        result: type[T],
        reference: Callable[[T], object] | None,
    ) -> tuple[once.Answer, Once[T]]:
        unit, course = self._unit, self._course
        course.is_claimed = False
        wait = min(once.WAIT, self._deadline - self._terms.now())
        async with Transaction(self._begin, GIVE_BACK, first=unit.claim(wait), is_unit=True) as tx:
            course.begun(tx.tag)
            if not course.is_claimed:
                answer = unit.answered(await tx.fetchrow(once.FOUND, *unit.id))
            elif course.refusal is not None:
                answer = once.Answer(encode(course.refusal.value), None, is_refusal=True)
                tx.last = unit.finish(answer)
            else:
                value = await watched(fn, tx, progress)
                answer = once.Answer.of(value, None if reference is None else reference(value), result)
                tx.last = unit.finish(answer)
        if not course.is_claimed:
            return answer, Once(answer.value(result), replayed=not course.is_ours)
        if course.refusal is not None:
            raise course.refusal
        return answer, Once(value, replayed=False)

    def _delay(self, error: Exception, progress: Progress) -> float | None:
        """
        Return the seconds to wait before the next attempt, None when `error` is to be raised.

        While an outcome is unknown there is no limit but the deadline: whoever could say is asked again.
        """
        course, key = self._course, self._unit.key
        if isinstance(error, OutcomeUnknown):
            error.key = key
            course.lost()
        elif not course.is_claimed and not course.is_unknown:
            self._explain(error)
        delay = self._retrier.decide(error, self._attempts, REPEATABLE, self._deadline, progress)
        if delay is not None or not course.is_unknown or isinstance(error, _TOLD):
            return delay
        delay = self._retrier.pause(self._attempts)
        if isinstance(error, _HOPELESS) or self._terms.now() + delay >= self._deadline:
            if isinstance(error, OutcomeUnknown):
                return None
            raise OutcomeUnknown(key=key) from error
        self._retrier.told(error, self._attempts, delay, Verdict.UNKNOWN)
        return delay

    def _explain(self, error: Exception) -> None:
        if isinstance(error, asyncpg.LockNotAvailableError):
            raise InProgress(self._unit.key, retry_after=once.RETRY_AFTER) from error
        if isinstance(error, asyncpg.UndefinedTableError):
            raise DatabaseError(
                "the table magnus_once does not exist here: `magnus once install` makes it, and prints it with --print",
                sqlstate=error.sqlstate,
            ) from error


_TOLD: Final = (KeyReused, AlreadyExecuted)
"""What is known as soon as the row is read."""

_HOPELESS: Final = (PoolClosed, WrongLoop, WrongProcess)
"""What stays as it is, however often it is tried."""


async def watched(fn: Callable[[Transaction], Awaitable[T]], tx: Transaction, progress: Progress) -> T:
    """
    Run `fn` and note how it stood with its connection when it failed.
    """
    progress.is_in_block = True
    try:
        return await fn(tx)
    except Exception:
        progress.is_closed = tx.is_cut()
        raise
