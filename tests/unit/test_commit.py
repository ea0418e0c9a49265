"""COMMIT is never cancelled, and what it is answered with is never guessed."""

import asyncio

import asyncpg
import pytest

from magnus._commit import commit, rollback
from magnus.errors import CommitRolledBack, DatabaseError, OutcomeUnknown
from tests.facade_fakes import FakeConnection, settle


def in_transaction(reply="COMMIT"):
    con = FakeConnection()
    con.status = "in transaction"
    con.replies["COMMIT"] = reply
    return con


class Pending:
    """A reply that comes when the test says so."""

    def __init__(self):
        self.future = asyncio.get_running_loop().create_future()
        self.is_cancelled = False

    async def __call__(self):
        try:
            return await self.future
        except asyncio.CancelledError:
            self.is_cancelled = True
            raise


class Socket(FakeConnection):
    """Cutting it fails what waits on it, as the driver does."""

    def __init__(self, pending):
        super().__init__()
        self.status = "in transaction"
        self.pending = pending
        self.replies["COMMIT"] = pending

    def terminate(self):
        super().terminate()
        if not self.pending.future.done():
            self.pending.future.set_exception(asyncpg.ConnectionDoesNotExistError("connection was closed"))


async def test_the_tag_commit_is_success():
    """One statement, once."""
    con = in_transaction()

    await commit(con, limit=1.0)

    assert con.sent == ["COMMIT"]


async def test_the_tag_rollback_is_an_error():
    """An error inside the block was swallowed: nothing was stored, and the caller must know."""
    with pytest.raises(CommitRolledBack):
        await commit(in_transaction("ROLLBACK"), limit=1.0)


async def test_any_other_tag_is_an_error():
    """Only COMMIT means committed."""
    with pytest.raises(DatabaseError, match="PREPARE"):
        await commit(in_transaction("PREPARE TRANSACTION"), limit=1.0)


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.SerializationError("could not serialize"),
        asyncpg.UniqueViolationError("deferred"),
        asyncpg.QueryCanceledError("canceling statement due to statement timeout"),
        asyncpg.InterfaceError("another operation is in progress"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_refusal_is_raised_as_it_is(error):
    """The server said no, or COMMIT was never sent: the outcome is known, nothing was stored."""
    with pytest.raises(type(error)) as caught:
        await commit(in_transaction(error), limit=1.0)

    assert caught.value is error


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        ConnectionResetError(),
        asyncpg.TransactionResolutionUnknownError(""),
        asyncpg.StatementCompletionUnknownError(""),
        asyncpg.InternalClientError("got result for unknown protocol state 3"),
        TimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_missing_answer_is_an_unknown_outcome_from_its_cause(error):
    """Stored, or not: nobody can say, so nobody says."""
    con = in_transaction()

    async def lose():
        if not isinstance(error, asyncpg.PostgresError):
            con.is_terminated = True
        raise error

    con.replies["COMMIT"] = lose
    if isinstance(error, asyncpg.ConnectionDoesNotExistError):
        con.replies["COMMIT"] = error
        con.is_closed = lambda: bool(con.sent)

    with pytest.raises(OutcomeUnknown) as caught:
        await commit(con, limit=1.0)

    assert caught.value.__cause__ is error
    assert con.is_terminated, "a connection in doubt is not used again"


async def test_a_connection_lost_before_commit_is_a_known_outcome():
    """COMMIT was not sent, so the server rolled back."""
    con = in_transaction()
    con.is_terminated = True

    with pytest.raises(asyncpg.InterfaceError, match="COMMIT was not sent"):
        await commit(con, limit=1.0)

    assert con.sent == []


async def test_a_connection_found_unfit_for_commit_is_a_known_outcome():
    """The server's farewell came first and the driver refused to write: rolled back, and the connection goes."""
    error = asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress")
    con = in_transaction(error)

    with pytest.raises(asyncpg.InterfaceError, match="COMMIT was not sent") as caught:
        await commit(con, limit=1.0)

    assert caught.value.__cause__ is error
    assert con.is_terminated


async def test_a_transaction_that_the_block_ended_itself_is_an_error():
    """After a ROLLBACK by hand COMMIT would be answered with COMMIT, and mean nothing."""
    con = in_transaction()
    con.status = "idle"

    with pytest.raises(DatabaseError, match="ended inside its block"):
        await commit(con, limit=1.0)

    assert con.sent == []


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancellation_waits_for_the_answer(times):
    """However often the caller is cancelled, COMMIT is not; the cancellation is raised when the outcome is known."""
    pending = Pending()
    con = Socket(pending)
    task = asyncio.create_task(commit(con, limit=30.0))
    await settle()

    for _ in range(times):
        task.cancel()
        await settle()
    assert not task.done()
    pending.future.set_result("COMMIT")

    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert "acknowledged" in caught.value.__notes__[0]
    assert not pending.is_cancelled
    assert not con.is_terminated


async def test_a_timeout_of_the_caller_is_raised_after_the_answer():
    """`asyncio.timeout` cancels; the block still becomes a TimeoutError, only later."""
    pending = Pending()
    asyncio.get_running_loop().call_later(0.05, pending.future.set_result, "COMMIT")

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await commit(Socket(pending), limit=30.0)

    assert not pending.is_cancelled


async def test_past_its_own_limit_the_socket_is_cut_and_the_outcome_unknown():
    """No CancelRequest, which could turn "not replicated" into "committed": the socket goes."""
    pending = Pending()
    con = Socket(pending)

    with pytest.raises(OutcomeUnknown):
        await commit(con, limit=0.01)

    assert con.is_terminated
    assert not pending.is_cancelled
    assert con.timeouts[0] > 60, "the driver's own timer would send a CancelRequest"


async def test_an_unknown_outcome_outweighs_the_cancellation():
    """A caller that is cancelled must still learn that it may have committed."""
    pending = Pending()
    task = asyncio.create_task(commit(Socket(pending), limit=0.05))
    await settle()
    task.cancel()

    with pytest.raises(OutcomeUnknown):
        await task


async def test_the_refusal_outweighs_the_cancellation():
    """Nothing was stored: that is more than "cancelled" says."""
    pending = Pending()
    task = asyncio.create_task(commit(Socket(pending), limit=30.0))
    await settle()
    task.cancel()
    await settle()
    pending.future.set_result("ROLLBACK")

    with pytest.raises(CommitRolledBack):
        await task


def test_the_end_of_the_loop_does_not_cancel_a_commit():
    """`asyncio.run` cancels every task there is at its end; a COMMIT under way is waited for."""
    outcome = []

    async def main():
        pending = Pending()
        asyncio.get_running_loop().call_later(0.05, pending.future.set_result, "COMMIT")

        async def work():
            try:
                await commit(Socket(pending), limit=30.0)
            except asyncio.CancelledError as error:
                outcome.append((error.__notes__, pending.is_cancelled))
                raise

        task = asyncio.create_task(work())
        await settle()
        return task

    task = asyncio.run(main())

    assert task.cancelled()
    assert outcome == [(["magnus: COMMIT had been sent before this cancellation, and was acknowledged"], False)]


async def test_a_commit_that_did_not_reach_the_standby_is_unknown():
    """Somebody called the wait off, and the driver's connection said so; it is fit for the next caller."""
    con = in_transaction(OutcomeUnknown())

    with pytest.raises(OutcomeUnknown):
        await commit(con, limit=1.0)

    assert not con.is_terminated


async def test_a_rollback_says_whether_it_worked():
    """A failure, or no answer in time, is False: the connection must go."""
    works, refused, silent, closed = FakeConnection(), FakeConnection(), FakeConnection(), FakeConnection()
    refused.replies["ROLLBACK"] = asyncpg.InterfaceError("another operation is in progress")
    silent.replies["ROLLBACK"] = Pending()
    closed.is_terminated = True

    assert await rollback(works)
    assert not await rollback(refused)
    assert not await rollback(silent, limit=0.01)
    assert not await rollback(closed)
