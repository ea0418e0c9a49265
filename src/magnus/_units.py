"""Units of work that are functions: begun, run in a transaction, committed, and run again where that is right."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

from magnus import lanes
from magnus._execution import Execution
from magnus._statements import Statements
from magnus.errors import OutcomeUnknown
from magnus.retry import Attempts, Progress, Rights, is_idempotent
from magnus.session import TransactionMode, checked, window
from magnus.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from magnus._execution import Terms
    from magnus.lanes import QueryPriority
    from magnus.pool import Pool
    from magnus.retry import Retrier

T = TypeVar("T")


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
            begin = partial(self._begin_once, mode, priority, limit, deadline)
            async with Transaction(begin, Execution.give_back, wants_xid=xid) as tx:
                return await watched(fn, tx, progress)

        try:
            return await self._retrier.run(
                attempt, Progress(), deadline=deadline, rights=lambda: rights, attempts=attempts
            )
        except Exception as error:
            if attempts.may_be_stored and not readonly and not isinstance(error, OutcomeUnknown):
                raise OutcomeUnknown from error
            raise

    def _transaction_deadline(self, priority: QueryPriority | None, timeout: float | None) -> float:
        terms = self._terms
        return window(terms.transaction_limits[lanes.resolve(priority)], timeout, now=terms.now()).deadline

    async def _begin(
        self, mode: TransactionMode, priority: QueryPriority | None, timeout: float | None, transaction: Transaction
    ) -> Execution:
        """
        Begin on a lease of its own, again while that is safe: nothing of the block has run.
        """
        deadline = self._transaction_deadline(priority, timeout)
        lane, now = lanes.resolve(priority), self._terms.now()
        wait = window(self._terms.limits[lane], None, now=now, until=deadline).deadline

        async def attempt(_: Progress) -> Execution:
            return await self._begin_once(mode, priority, timeout, deadline, transaction, wait)

        return await self._retrier.run(attempt, Progress(), deadline=wait)

    async def _begin_once(  # noqa: PLR0917
        self,
        mode: TransactionMode,
        priority: QueryPriority | None,
        timeout: float | None,
        deadline: float,
        transaction: Transaction,
        wait: float | None = None,
    ) -> Execution:
        """
        Begin on a lease of its own; who waits for one waits no longer than the lane's statements may take.
        """
        lane = lanes.resolve(priority)
        if wait is None:
            wait = window(self._terms.limits[lane], None, now=self._terms.now(), until=deadline).deadline
        execution = await self._lend_out(lane, wait, is_named=lanes.is_named(priority))
        is_begun = False
        try:
            transaction.tag = await execution.begin(mode, timeout, deadline=deadline, first=transaction.first)
            is_begun = True
        finally:
            if not is_begun:
                await execution.give_back()
        return execution


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
