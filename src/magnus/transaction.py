"""Transactions and savepoints as users hold them: one round trip to begin, an end that is exactly what it says."""

from __future__ import annotations

import enum
from contextvars import ContextVar
from itertools import count
from typing import TYPE_CHECKING, Final, Self

import asyncpg

from magnus import _commit
from magnus._driver import TransactionEnded
from magnus.connection import Connection
from magnus.errors import OutcomeUnknown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from magnus._execution import Execution
    from magnus._terms import Terms
    from magnus.session import TransactionMode

_savepoints: Final = count(1)
_innermost: Final[ContextVar[Transaction | None]] = ContextVar("magnus_transaction", default=None)
_XID: Final = "SELECT pg_catalog.pg_current_xact_id_if_assigned()::text"


class State(enum.Enum):
    """
    Of a transaction, as words that follow "the transaction".
    """

    NEW = "is not started"
    OPEN = "is open"
    COMMITTED = "is already committed"
    ROLLED_BACK = "is already rolled back"
    ENDED = "has ended"


_NEW: Final = State.NEW  # an attribute of an enum costs more than what is done with it
_OPEN: Final = State.OPEN


class Transaction(Connection):
    """
    An open transaction: an asynchronous context manager, and a `Connection` while it lasts.

    At the end of the block it commits, or rolls back when the block raised. COMMIT is never cancelled: a caller who is
    cancelled meanwhile waits for its answer, at most the limit of the lane or 10 s. The exception of the block is what
    the caller sees, whatever becomes of the ROLLBACK. `transaction()` gives a savepoint.

    Attributes:
        state: Where it stands.
        xid: Its id on the server, known at its end when it was asked for and something was written.
        is_unit: A function runs in it, and who runs that function looks after an unknown outcome.
        first: SQL that goes with BEGIN, and `tag` what the server said of it.
        last: SQL that goes with COMMIT.
        savepoint: The name that the server knows it by, when it is inside another.
        mark: What the session's limit was when the savepoint began.
        until: The deadline that statements had outside.
        tags: What `invalidate` was told, None when nothing.

    Raises:
        CommitRolledBack: an error inside was swallowed; nothing was stored.
        OutcomeUnknown: COMMIT was sent and not answered.
        TransactionEnded: it was used after its end.
        asyncpg.InterfaceError: it was used before its start.
    """

    __slots__ = (
        "_begin", "_finish", "_is_managed", "_outer", "first", "is_unit", "last", "mark", "savepoint", "state", "tag",
        "tags", "until", "wants_xid", "xid",
    )  # fmt: skip

    def __init__(
        self,
        begin: Callable[[Transaction], Awaitable[Execution]],
        finish: Callable[[Execution], Awaitable[None]],
        *,
        wants_xid: bool = False,
        is_unit: bool = False,
        first: str = "",
    ) -> None:
        self.wants_xid = wants_xid
        self.is_unit = is_unit
        self.xid: str | None = None
        self.first = first
        self.tag = self.last = ""
        self._begin = begin
        self._finish = finish
        self.state = _NEW
        self._is_managed = False
        self.savepoint: str | None = None
        self.mark: float | None = None
        self.until: float | None = None
        self.tags: set[str] | None = None
        self._outer: Transaction | None = None

    def __repr__(self) -> str:
        return f"<magnus.Transaction that {self.state.value}>"

    def _check(self, name: str) -> Execution:
        execution = self._execution if self.state is _OPEN else None
        if execution is None or not execution.is_usable():
            self._check_state(name)
            self._execution.check(name, "Transaction")
        return self._execution

    def _check_state(self, name: str) -> None:
        if self.state is not State.OPEN:
            kind = asyncpg.InterfaceError if self.state is State.NEW else TransactionEnded
            raise kind(f"cannot call Transaction.{name}(): the transaction {self.state.value}")
        if self._execution.is_released:
            raise asyncpg.InterfaceError(f"cannot call Transaction.{name}(): its connection has been released")

    # --- begin and end

    async def __aenter__(self) -> Self:
        self._check_new()
        self._began(await self._begin(self))
        self._is_managed = True
        if self.savepoint is None:
            self._execution.enter_block()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_managed = False
        if error is None:
            await self.commit()
        elif self.state is State.OPEN and not self._execution.is_released:
            execution = self._leave("rollback")
            if execution.is_late:
                await execution.terms.begin_to(self._undo(execution))
            else:
                await self._undo(execution)

    async def give_back(self) -> None:
        """
        Refuse: a transaction gives its connection back at its end.

        Raises:
            asyncpg.InterfaceError: always.
        """
        raise asyncpg.InterfaceError("a transaction gives its connection back at its end, it cannot be released")

    async def start(self) -> None:
        """
        Begin. With `async with` this is done for you.
        """
        self._check_new()
        self._began(await self._begin(self))

    def _check_new(self) -> None:
        if self.state is not _NEW:
            raise asyncpg.InterfaceError(f"cannot start; the transaction {self.state.value}")

    def _began(self, execution: Execution) -> None:
        self._execution = execution
        execution.transactions.append(self)
        self.state = _OPEN
        if self.savepoint is None:
            self._outer = _open_around()
            _innermost.set(self)

    def invalidate(self, *tags: str) -> None:
        """
        Drop what `cached` functions keep under these tags, once this is committed: when it returns, they ask anew.

        In a savepoint it counts when that is released and the transaction commits. When COMMIT is not answered it
        counts too, and for ten seconds nothing is kept under these tags.

        Raises:
            TransactionEnded: it has ended.
        """
        if self.state is not State.OPEN:
            self._check_state("invalidate")
        self.tags = {*(self.tags or ()), *tags}

    async def commit(self) -> None:
        """
        Commit, or release the savepoint. At the end of an `async with` block this is done for you.
        """
        execution = self._leave("commit")
        try:
            execution.check_reclaimed()
            if self.savepoint is None:
                if self.wants_xid:
                    # As text: asyncpg knows no xid8. None when nothing was written, and then nothing can be lost.
                    self.xid = await execution.perform(execution.raw.fetchval, _XID, (_XID,), None)
                with execution.step("COMMIT"):
                    await execution.committing(self.last)
            else:
                text = f"RELEASE SAVEPOINT {self.savepoint}"
                await execution.send(text, text, execution.window(None))
                if self.tags is not None and execution.transactions:
                    execution.transactions[-1].invalidate(*self.tags)
            self.state = State.COMMITTED
        except OutcomeUnknown as error:
            error.xid = self.xid
            if not self.is_unit:  # else who runs the unit may still find out
                execution.terms.outcome_unknown("commit", error, self.xid)
            raise
        finally:
            if self.savepoint is None:
                if self.tags is not None:  # before anything is awaited: nobody may see the change and the old answer
                    execution.terms.committed(self.tags, is_certain=self.state is State.COMMITTED)
                self._settle(execution)
                await self._finish(execution)

    def is_cut(self) -> bool:
        """
        Say whether its connection is closed, and the transaction with it; a transaction that has ended is not asked.
        """
        return self.state is State.OPEN and self._execution.raw.is_closed()

    async def rollback(self) -> None:
        """
        Roll back, to the savepoint when it is one. When that fails the connection is closed, which rolls back too.
        """
        await self._undo(self._leave("rollback"))

    async def _undo(self, execution: Execution) -> None:
        is_done = False
        try:
            if self.savepoint is None:
                with execution.step("ROLLBACK"):
                    is_done = await _commit.rollback(execution.raw)
            else:
                name = self.savepoint
                is_done = await _commit.rollback(
                    execution.raw, f"ROLLBACK TO SAVEPOINT {name}; RELEASE SAVEPOINT {name}"
                )
                execution.session.restore(self.mark)
            self.state = State.ROLLED_BACK
        finally:
            if not is_done:
                execution.raw.terminate()
            if self.savepoint is None:
                self._settle(execution)
                await self._finish(execution)

    def _leave(self, name: str) -> Execution:
        """
        Take this transaction, and those inside it, off the connection; from here on nobody else may end it.
        """
        if self._is_managed:
            raise asyncpg.InterfaceError(f"cannot {name} by hand inside an `async with` block")
        if self.state is not _OPEN or self._execution.is_released:
            self._check_state(name)
        execution = self._execution
        execution.deadline = self.until
        while True:
            inner: Transaction = execution.transactions.pop()
            inner.state = State.ENDED
            if inner is self:
                return execution
            if inner.tags is not None:  # never released, and so committed with what is around it
                self.tags = {*(self.tags or ()), *inner.tags}

    def _settle(self, execution: Execution) -> None:
        """
        Leave nothing of an ended transaction, whichever way it ended.
        """
        if _innermost.get() is self:
            _innermost.set(self._outer)
        raw = execution.raw
        if execution.session.is_changed:
            execution.session.ended()
        if not raw.is_closed() and raw.is_in_transaction():
            raw.terminate()


def _open_around() -> Transaction | None:
    found = _innermost.get()
    while found is not None and found.state is not _OPEN:
        found = found._outer  # noqa: SLF001  # of this module's own
    return found


def around(terms: Terms) -> list[bool]:
    """
    Return, for each open transaction on this database that the running code is inside of, whether it may write.
    """
    found, open_ones = _open_around(), []
    while found is not None:
        execution = found._execution  # noqa: SLF001  # as above
        if found.state is _OPEN and execution.terms is terms:
            open_ones.append(not execution.mode.readonly)
        found = found._outer  # noqa: SLF001  # as above
    return open_ones


def on_lease(execution: Execution, mode: TransactionMode, timeout: float | None) -> Transaction:
    """
    Return a transaction on a connection that somebody holds; inside another one it is a savepoint.
    """

    async def begin(transaction: Transaction) -> Execution:
        transaction.until = execution.deadline
        if execution.transactions:
            transaction.mark = execution.session.mark()
            transaction.savepoint = name = f"magnus_{next(_savepoints)}"
            await execution.begin_savepoint(name, mode, timeout)
        elif execution.raw.is_in_transaction():
            raise asyncpg.InterfaceError("cannot use transaction() in a manually started transaction")
        else:
            await execution.begin(mode, timeout, deadline=execution.transaction_deadline(timeout))
        return execution

    return Transaction(begin, _keep)


async def _keep(execution: Execution) -> None:
    """
    Leave the lease with who holds it.
    """
