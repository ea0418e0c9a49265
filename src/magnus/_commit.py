"""The end of a transaction on one connection: COMMIT whose tag is checked and whose outcome is never guessed, ROLLBACK.

It knows one connection of the driver's; who lends it, and what runs on it, is not its business.

Theory of operation. Once COMMIT is on its way nothing may call it back: a CancelRequest that arrives while the server
waits for its standby makes it report success for what the standby never got. So COMMIT runs in a task that takes no
cancellation, not even the one at the end of `asyncio.run`. Its caller waits, cancelled or not, until the answer is
there or COMMIT's own limit has passed; then the socket is cut, and the outcome is what it is: unknown.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from magnus import _driver
from magnus.errors import CommitRolledBack, DatabaseError, OutcomeUnknown

if TYPE_CHECKING:
    from magnus._driver import Connection

COMMIT_LEAST: Final = 10.0
"""Seconds that COMMIT gets in a lane whose statements get less."""

ROLLBACK_LIMIT: Final = 2.0
"""Seconds after which a ROLLBACK is given up and its connection cut; the server then rolls back by itself."""

_BEYOND: Final = 3600.0  # a timer of the driver's must never fire: it would send a CancelRequest
_UNKNOWN: Final = frozenset({"08007", "40003"})


class _Undeterred(asyncio.Task[str]):
    """
    A task that takes no cancellation. Whoever starts one bounds what it waits for.
    """

    def cancel(self, msg: Any | None = None) -> bool:  # noqa: ARG002  # the base class names it
        return False


async def commit(con: Connection, *, limit: float, last: str = "") -> None:
    """
    Commit the open transaction, within `limit` seconds. `last` is SQL that goes with COMMIT, in the same round trip;
    when the server refuses it, it never comes to COMMIT.

    A cancellation of the caller waits until the outcome is known and is raised then; an unknown outcome outweighs it.

    Raises:
        CommitRolledBack: the server answered ROLLBACK; nothing was stored.
        OutcomeUnknown: COMMIT was sent and the answer is missing; the connection is closed.
        DatabaseError: the transaction had been ended by a statement of the user's own.
        asyncpg.PostgresError: the server refused (a deferred constraint, 40001 …); nothing was stored.
        asyncpg.InterfaceError: the connection was gone before COMMIT could be sent; nothing was stored.
    """
    _check_open(con)
    notices = _driver.CommitNotices.on(con)
    limits = {} if notices.is_lasting else {"timeout": limit + _BEYOND}
    text = f"{last}; COMMIT" if last else "COMMIT"
    task = _Undeterred(con.execute(text, **limits), loop=asyncio.get_running_loop())
    cancelled = await _settle(task, con, limit)
    notices.end(con)
    _judge(task, con, is_unreplicated=notices.is_unreplicated)
    if cancelled is not None:
        cancelled.add_note("magnus: COMMIT had been sent before this cancellation, and was acknowledged")
        raise cancelled


_NOT_SENT: Final = "connection is closed; COMMIT was not sent and the transaction is rolled back"


def _check_open(con: Connection) -> None:
    if con.is_closed():
        raise asyncpg.InterfaceError(_NOT_SENT)
    if not con.is_in_transaction():
        raise DatabaseError("the transaction was ended inside its block, by a COMMIT or ROLLBACK there", phase="commit")


async def _settle(task: asyncio.Task[str], con: Connection, limit: float) -> asyncio.CancelledError | None:
    """
    Wait until the task is done; return the caller's cancellation instead of obeying it.

    The task refuses to be cancelled, so a cancellation of its waiter waits with it. After `limit` seconds the socket
    is cut, which ends the task.
    """
    loop = asyncio.get_running_loop()
    cut = loop.call_later(limit, con.terminate)
    try:
        await task
    except asyncio.CancelledError as error:
        return error
    except Exception:  # noqa: BLE001  # `_judge` asks the task for it
        return None
    else:
        return None
    finally:
        cut.cancel()


def _judge(task: asyncio.Task[str], con: Connection, *, is_unreplicated: bool) -> None:
    if not task.done():
        raise OutcomeUnknown
    error = task.exception()
    if error is None:
        _judge_tag(task.result(), is_unreplicated=is_unreplicated)
    elif _is_unfit(error):
        con.terminate()
        raise asyncpg.InterfaceError(_NOT_SENT) from error
    elif _is_definite(error, con):
        raise error
    else:
        con.terminate()
        raise OutcomeUnknown from error


def _judge_tag(tag: str, *, is_unreplicated: bool) -> None:
    if tag == "ROLLBACK":
        raise CommitRolledBack
    if is_unreplicated:
        # Committed here, and perhaps nowhere else: somebody called the wait for the standby off.
        raise OutcomeUnknown
    if tag != "COMMIT":
        raise DatabaseError(f"COMMIT was answered with {tag!r}", phase="commit")


def _is_unfit(error: BaseException) -> bool:
    # The driver refuses before it writes: the connection was closed meanwhile, or the server's farewell was read and
    # the end of the stream was not.
    text = str(error)
    if isinstance(error, asyncpg.InternalClientError):
        return text.startswith("cannot switch to state")
    return isinstance(error, asyncpg.InterfaceError) and text == "connection is closed"


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
    try:
        async with asyncio.timeout(limit):
            await con.execute(text)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
        return False
    return True
