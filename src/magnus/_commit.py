"""The end of a transaction on one connection: COMMIT whose tag is checked and whose outcome is never guessed, ROLLBACK.

It knows one connection of the driver's; who lends it, and what runs on it, is not its business.

Theory of operation. Once COMMIT is on its way nothing may call it back: a CancelRequest that arrives while the server
waits for its standby makes it report success for what the standby never got. So its caller waits, cancelled or not,
also at the end of `asyncio.run`, until the answer is there or COMMIT's own limit has passed; then the socket is cut,
and the outcome is what it is: unknown. A task and a timer of its own would cost more than the rest of COMMIT: the
running task takes its steps (`_Undeterred`), only that what it waits for is deaf to its cancellation, and the pool's
sweep holds the limit.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NoReturn

import asyncpg

from magnus import _driver
from magnus.errors import CommitRolledBack, DatabaseError, OutcomeUnknown

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from contextvars import Context

    from magnus._driver import Connection
    from magnus.pool import Sweep, Watch

COMMIT_LEAST: Final = 10.0
"""Seconds that COMMIT gets in a lane whose statements get less."""

ROLLBACK_LIMIT: Final = 2.0
"""Seconds after which a ROLLBACK is given up and its connection cut; the server then rolls back by itself."""

_BEYOND: Final = 3600.0  # a timer of the driver's must never fire: it would send a CancelRequest
_UNKNOWN: Final = frozenset({"08007", "40003"})


class _Deaf:
    """
    What a task waits for in place of a future: done when that is, and not to be cancelled.
    """

    __slots__ = ("_asyncio_future_blocking", "_future")

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self._future = future
        self._asyncio_future_blocking = True  # by this a task knows a future that is not asyncio's own

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._future.get_loop()

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context | None = None) -> None:
        self._future.add_done_callback(callback, context=context)

    def cancel(self, msg: Any | None = None) -> bool:  # noqa: ARG002  # as a future's
        return False


class _Undeterred:
    """
    Work that the running task does to its end when it awaits this, cancelled or not.

    Attributes:
        cancelled: The cancellation that came meanwhile, if any; nobody has obeyed it.
    """

    __slots__ = ("_work", "cancelled")

    def __init__(self, work: Coroutine[Any, Any, str]) -> None:
        self._work = work
        self.cancelled: asyncio.CancelledError | None = None

    def __await__(self) -> Generator[Any, None, str]:
        work = self._work
        try:
            while True:
                future = work.send(None)
                if future is not None:
                    future._asyncio_future_blocking = False  # noqa: SLF001  # as a task does with what it is given
                is_done = False
                while not is_done:
                    try:
                        yield None if future is None else _Deaf(future)
                    except asyncio.CancelledError as error:
                        if future is None or not future.cancelled():
                            self.cancelled = error
                    except Exception:  # noqa: BLE001, S110  # the future's own, which the work asks it for
                        pass
                    is_done = future is None or future.done()
        except StopIteration as done:
            tag: str = done.value
            return tag
        finally:
            work.close()


async def commit(
    con: Connection, *, limit: float, last: str = "", sweep: Sweep | None = None, watch: Watch | None = None
) -> None:
    """
    Commit the open transaction, within `limit` seconds, held by `sweep` over the connection's `watch` when given.

    `last` is SQL that goes with COMMIT, in the same round trip; when the server refuses it, it never comes to COMMIT.

    A cancellation of the caller waits until the outcome is known and is raised then; an unknown outcome outweighs it.

    Raises:
        CommitRolledBack: the server answered ROLLBACK; nothing was stored.
        OutcomeUnknown: COMMIT was sent and the answer is missing; the connection is closed.
        DatabaseError: the transaction had been ended by a statement of the user's own.
        asyncpg.PostgresError: the server refused (a deferred constraint, 40001 …); nothing was stored.
        asyncpg.InterfaceError: the connection was gone before COMMIT could be sent; nothing was stored.
    """
    _check_open(con)
    _driver.may_end(con)
    text = f"{last}; COMMIT" if last else "COMMIT"
    work = _Undeterred(con.execute(text, timeout=limit + _BEYOND) if _driver.has_timer(con) else con.execute(text))
    cut: asyncio.TimerHandle | None = None
    is_swept = sweep is not None and watch is not None and sweep.guard(watch, limit, con.terminate)
    if not is_swept:
        cut = asyncio.get_running_loop().call_later(limit, con.terminate)
    try:
        tag = await work
    except Exception as error:  # noqa: BLE001  # every one is raised again, under its right name
        _judge_error(error, con)
    else:
        _judge_tag(tag)
    finally:
        if cut is not None:
            cut.cancel()
        elif watch is not None:
            watch.leave()
    if work.cancelled is not None:
        work.cancelled.add_note("magnus: COMMIT had been sent before this cancellation, and was acknowledged")
        raise work.cancelled


_NOT_SENT: Final = "connection is closed; COMMIT was not sent and the transaction is rolled back"


def _check_open(con: Connection) -> None:
    if con.is_closed():
        raise asyncpg.InterfaceError(_NOT_SENT)
    if not con.is_in_transaction():
        raise DatabaseError("the transaction was ended inside its block, by a COMMIT or ROLLBACK there", phase="commit")


def _judge_error(error: Exception, con: Connection) -> NoReturn:
    if _is_unfit(error):
        con.terminate()
        raise asyncpg.InterfaceError(_NOT_SENT) from error
    # Committed here, and perhaps nowhere else, is an answer too: the connection is fit.
    if isinstance(error, OutcomeUnknown) or _is_definite(error, con):
        raise error
    con.terminate()
    raise OutcomeUnknown from error


def _judge_tag(tag: str) -> None:
    if tag == "ROLLBACK":
        raise CommitRolledBack
    if tag != "COMMIT":
        raise DatabaseError(f"COMMIT was answered with {tag!r}", phase="commit")


def _is_unfit(error: BaseException) -> bool:
    # The driver refuses before it writes: the connection was closed meanwhile, or the server's farewell was read and
    # the end of the stream was not.
    if isinstance(error, asyncpg.InternalClientError):
        return _driver.is_unfit(error)
    return isinstance(error, asyncpg.InterfaceError) and str(error) == "connection is closed"


def _is_definite(error: BaseException, con: Connection) -> bool:
    """
    Say whether an error of COMMIT proves that nothing was stored: the server refused it, or it was never sent.
    """
    if isinstance(error, asyncpg.InterfaceError):
        return True
    return isinstance(error, asyncpg.PostgresError) and not con.is_closed() and error.sqlstate not in _UNKNOWN


async def rollback(con: Connection, text: str = "ROLLBACK", *, limit: float = ROLLBACK_LIMIT) -> bool:
    """
    Roll back, within `limit` seconds. Returns whether it worked; when not, the connection must be discarded.
    """
    if con.is_closed():
        return False
    if _driver.is_unbegun(con):
        return True
    try:
        async with asyncio.timeout(limit):
            await con.execute(text)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
        return False
    return True
