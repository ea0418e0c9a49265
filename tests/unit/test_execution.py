"""One statement: its limit on both sides, the error it ends in, what is counted."""

import asyncio

import asyncpg
import pytest

from magnus._verdicts import Phase, Verdict, classify
from magnus.connection import Connection
from magnus.errors import QueryTimeout
from magnus.lanes import QueryPriority
from magnus.observe import QueryTimedOut
from tests.facade_fakes import Bench


async def test_a_statement_gets_its_lanes_limit():
    """CRITICAL: 5 s here, 6 s there; the SET is sent once a lease."""
    bench = Bench(QueryPriority.CRITICAL)

    await bench.connection.execute("SELECT 1")
    await bench.connection.execute("SELECT 2")

    assert bench.raw.sent == ["SET statement_timeout TO 6000", "SELECT 1", "SELECT 2"]
    assert bench.raw.timeouts == [5.0, 5.0, 5.0]


async def test_normal_sends_nothing_of_the_layers():
    """The common path has no round trip besides the statement."""
    bench = Bench()

    await bench.connection.execute("SELECT 1")

    assert bench.raw.sent == ["SELECT 1"]


async def test_the_time_that_the_limit_took_to_set_is_the_statements():
    """One deadline for both round trips."""
    bench = Bench(QueryPriority.HIGH)

    async def slow():
        bench.clock.advance(4.0)
        return "SET"

    bench.raw.replies["SET statement_timeout TO 11000"] = slow
    await bench.connection.execute("SELECT 1")

    assert bench.raw.timeouts == [10.0, 6.0]


def overtime(bench, seconds, error):
    async def reply():
        bench.clock.advance(seconds)
        return error

    return reply


@pytest.mark.parametrize(
    "error",
    [TimeoutError(), asyncpg.QueryCanceledError("canceling statement due to statement timeout")],
    ids=["the client's", "the server's"],
)
async def test_a_limit_reached_on_either_side_is_a_query_timeout(error):
    """One error for both, a TimeoutError, with lane, limit and elapsed time; one event; counted."""
    bench = Bench()
    query = "SELECT pg_sleep(99) /* secret */ AS " + "x" * 300
    bench.raw.replies[query] = overtime(bench, 30.0, error)

    with pytest.raises(QueryTimeout) as caught:
        await bench.connection.execute(query, "a secret bind value")

    assert (caught.value.priority, caught.value.timeout, caught.value.elapsed) == ("normal", 30.0, 30.0)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.__cause__ is error
    assert bench.events == [QueryTimedOut("normal", 30.0, 30.0, ("SELECT pg_sleep($1) AS " + "x" * 300)[:200])]
    assert "secret" not in repr(bench.events)
    figures = bench.terms.stats.snapshot()
    assert (figures["timeouts"], figures["failed"], figures["total"]) == (1, 1, 1)
    assert bench.pool.wasted_leases == [bench.raw]


@pytest.mark.parametrize(
    ("seconds", "error"),
    [
        (30.0, asyncpg.QueryCanceledError("canceling statement due to user request")),
        (3.0, asyncpg.QueryCanceledError("canceling statement due to statement timeout")),
        (3.0, TimeoutError("of a source that the caller passed in")),
        (30.0, TimeoutError(110, "Connection timed out")),
    ],
    ids=["an operator", "a limit SET by hand", "the caller's own", "the socket's"],
)
async def test_what_only_looks_like_the_limit_is_raised_as_it_is(seconds, error):
    """An operator's cancel is no timeout; neither is one that came long before the limit."""
    bench = Bench()
    bench.raw.replies["SELECT 1"] = overtime(bench, seconds, error)

    with pytest.raises(type(error)) as caught:
        await bench.connection.execute("SELECT 1")

    assert caught.value is error
    assert bench.events == []


async def test_after_the_deadline_nothing_is_sent():
    """The statement would be ended at once; the server is spared it."""
    bench = Bench()
    bench.execution.deadline = bench.clock.now() - 1.0

    with pytest.raises(QueryTimeout):
        await bench.connection.execute("SELECT 1")

    assert bench.raw.sent == []


@pytest.mark.parametrize(
    ("text", "kind", "verdict"),
    [
        ("cannot switch to state 12; another operation (2) is in progress", asyncpg.InterfaceError, Verdict.NOT_SENT),
        ("got result for unknown protocol state 3", asyncpg.ConnectionDoesNotExistError, Verdict.PERHAPS),
    ],
)
async def test_a_driver_that_lost_track_has_lost_its_connection(text, kind, verdict):
    """Nothing that it says can be believed, and callers have a rule for a lost connection, not for its insides."""
    bench = Bench()
    bench.raw.replies["SELECT 1"] = asyncpg.InternalClientError(text)

    with pytest.raises(kind) as caught:
        await bench.connection.execute("SELECT 1")

    assert bench.raw.is_terminated
    assert classify(caught.value, Phase.STATEMENT) is verdict
    assert isinstance(caught.value.__cause__, asyncpg.InternalClientError)


async def test_a_servers_error_is_raised_unwrapped():
    """`except asyncpg.UniqueViolationError` goes on working."""
    bench = Bench()
    error = asyncpg.UniqueViolationError("duplicate key")
    bench.raw.replies["INSERT"] = error

    with pytest.raises(asyncpg.UniqueViolationError) as caught:
        await bench.connection.execute("INSERT")

    assert caught.value is error


async def test_a_released_connection_cannot_be_used():
    """By any method, the passed-on ones too; giving it back twice is harmless."""
    bench = Bench()
    await bench.connection.give_back()
    await bench.connection.give_back()

    for call in (bench.connection.execute, bench.connection.fetch, bench.connection.fetchval):
        with pytest.raises(asyncpg.InterfaceError, match="released"):
            await call("SELECT 1")
    with pytest.raises(asyncpg.InterfaceError, match="released"):
        bench.connection.transaction()
    with pytest.raises(asyncpg.InterfaceError, match="released"):
        bench.connection.get_server_version()
    with pytest.raises(asyncpg.InterfaceError, match="released"):
        bench.connection.is_closed()
    with pytest.raises(asyncpg.InterfaceError, match="released"):
        bench.connection.cursor("SELECT 1")
    assert bench.raw.sent == []
    assert bench.pool.released == [bench.raw]


async def test_a_closed_connection_says_so():
    """As the driver does."""
    bench = Bench()
    bench.raw.terminate()

    with pytest.raises(asyncpg.InterfaceError, match="is closed"):
        await bench.connection.execute("SELECT 1")
    assert bench.connection.is_closed()


async def test_a_users_reset_brings_the_limit_back():
    """After RESET ALL the session's startup value is in force; the lane's is set again."""
    bench = Bench(QueryPriority.HIGH)

    await bench.connection.execute("SELECT 1")
    await bench.connection.execute("RESET ALL")
    await bench.connection.execute("SELECT 2")

    assert bench.raw.sent[2:] == ["RESET ALL", "SET statement_timeout TO 11000", "SELECT 2"]


async def test_an_unknown_private_name_is_an_attribute_error():
    """Copying, pickling and the like must not reach the driver."""
    assert not hasattr(Connection(Bench().execution), "_protocol")


async def test_a_cancelled_statement_is_counted_as_failed_and_released_late():
    """The server may still be at it, so the release does not keep the caller."""
    bench = Bench()
    bench.raw.replies["SELECT 1"] = asyncio.Event().wait
    task = asyncio.create_task(bench.connection.execute("SELECT 1"))
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    assert bench.execution.is_late
    assert bench.terms.stats.failed == 1
