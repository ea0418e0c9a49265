"""How transactions and savepoints begin, end, and end badly."""

import asyncio

import asyncpg
import pytest

from magnus import lanes
from magnus.errors import CommitRolledBack, ConfigError, QueryTimeout
from magnus.lanes import QueryPriority
from tests.facade_fakes import Bench, settle


async def test_a_block_commits_and_gives_the_connection_back():
    """BEGIN, the work, COMMIT, release: nothing else is sent."""
    bench = Bench(version=15)

    async with bench.owned() as tx:
        await tx.execute("UPDATE cash")

    assert bench.raw.sent == ["BEGIN", "UPDATE cash", "COMMIT"]
    assert bench.pool.released == [bench.raw]


async def test_limits_of_the_lane_go_into_the_round_trip_of_begin():
    """The server's limits of statement and transaction are local to the transaction."""
    bench = Bench(QueryPriority.BACKGROUND)

    async with bench.owned():
        pass

    assert bench.raw.sent[0] == (
        "BEGIN; SET LOCAL statement_timeout TO 121000; SET LOCAL transaction_timeout TO 120000"
    )


@pytest.mark.parametrize(
    ("lane", "timeout", "expected"),
    [("critical", None, 60000), ("background", None, 120000), ("critical", 5.0, 60000), ("critical", 300.0, 301000)],
)
async def test_the_transaction_guard_is_the_larger_limit_and_never_below_the_clients(lane, timeout, expected):
    """`transaction_timeout` or the lane's limit, whichever is larger; more when the caller asked for more."""
    bench = Bench(QueryPriority(lane))

    async with bench.owned(timeout=timeout):
        pass

    assert bench.raw.sent[0].endswith(f"SET LOCAL transaction_timeout TO {expected}")


async def test_a_server_without_transaction_timeout_is_not_asked_for_it():
    """It came with version 17."""
    bench = Bench(version=16)

    async with bench.owned():
        pass

    assert bench.raw.sent[0] == "BEGIN"


async def test_a_raising_block_rolls_back_and_its_exception_is_seen():
    """The caller sees what the block raised."""
    bench = Bench(version=15)

    with pytest.raises(KeyError):
        async with bench.owned():
            raise KeyError

    assert bench.raw.sent == ["BEGIN", "ROLLBACK"]
    assert bench.pool.released == [bench.raw]


async def test_a_failing_rollback_closes_the_connection_and_hides_nothing():
    """The server rolls back when the socket goes; the block's exception is still the one seen."""
    bench = Bench()
    bench.raw.replies["ROLLBACK"] = asyncpg.InterfaceError("another operation is in progress")

    with pytest.raises(KeyError):
        async with bench.owned():
            raise KeyError

    assert bench.raw.is_terminated
    assert bench.pool.released == [bench.raw]


async def test_a_cancelled_block_rolls_back():
    """No transaction is left open by a cancelled task."""
    bench = Bench(version=15)

    async def work():
        async with bench.owned():
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert bench.raw.sent == ["BEGIN", "ROLLBACK"]
    assert bench.pool.released == [bench.raw]


async def test_a_second_cancellation_during_rollback_closes_the_connection():
    """Nobody knows then how far the ROLLBACK came."""
    bench = Bench()
    rolling = asyncio.Event()

    async def hang():
        rolling.set()
        await asyncio.Event().wait()

    bench.raw.replies["ROLLBACK"] = hang

    async def work():
        async with bench.owned():
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await settle()
    task.cancel()
    await rolling.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert bench.raw.is_terminated
    assert bench.pool.released == [bench.raw]


async def test_a_begin_that_fails_closes_the_connection():
    """Nobody knows whether the server began: the next user must not find out."""
    bench = Bench(version=15)
    bench.raw.replies["BEGIN"] = ConnectionResetError()

    with pytest.raises(ConnectionResetError):
        async with bench.owned():
            raise AssertionError("not reached")

    assert bench.raw.is_terminated


async def test_a_begin_that_is_refused_is_rolled_back():
    """BEGIN itself was carried out, the setting after it was not: the connection is as it was before."""
    bench = Bench(version=15)

    async def refuse():
        bench.raw.status = "in transaction"
        return asyncpg.UndefinedObjectError("role does not exist")

    bench.raw.replies["BEGIN"] = refuse

    with pytest.raises(asyncpg.UndefinedObjectError):
        async with bench.owned():
            raise AssertionError("not reached")

    assert (bench.raw.is_terminated, bench.raw.sent) == (False, ["BEGIN", "ROLLBACK"])


async def test_a_swallowed_error_is_raised_at_the_end_and_the_lease_goes_back():
    """COMMIT answered with ROLLBACK is an exception."""
    bench = Bench()
    bench.raw.replies["COMMIT"] = "ROLLBACK"

    with pytest.raises(CommitRolledBack):
        async with bench.owned():
            pass

    assert bench.pool.released == [bench.raw]


async def test_a_commit_that_could_not_be_sent_closes_the_connection():
    """The transaction is still open then; it must not meet the next user."""
    bench = Bench()
    bench.raw.replies["COMMIT"] = asyncpg.InterfaceError("another operation is in progress")

    with pytest.raises(asyncpg.InterfaceError):
        async with bench.owned():
            pass

    assert bench.raw.is_terminated
    assert bench.pool.released == [bench.raw]


@pytest.mark.parametrize("is_raising", [False, True])
async def test_a_connection_that_died_inside_the_block_goes_back_all_the_same(is_raising):
    """The slot must not be lost with it; the end of the block says that nothing was stored."""
    bench = Bench(version=15)

    async def work():
        async with bench.owned():
            bench.raw.terminate()
            if is_raising:
                raise KeyError

    with pytest.raises(KeyError if is_raising else asyncpg.InterfaceError):
        await work()

    assert bench.raw.sent == ["BEGIN"]
    assert bench.pool.released == [bench.raw]


async def test_it_cannot_be_used_before_its_start_or_after_its_end():
    """Each is a clear error, and nothing is sent."""
    bench = Bench()
    tx = bench.owned()
    with pytest.raises(asyncpg.InterfaceError, match=r"fetch.*is not started"):
        await tx.fetch("SELECT 1")

    async with tx:
        pass
    sent = list(bench.raw.sent)

    for call in (tx.fetch, tx.execute, tx.fetchval):
        with pytest.raises(asyncpg.InterfaceError, match="already committed"):
            await call("SELECT 1")
    with pytest.raises(asyncpg.InterfaceError, match="already committed"):
        await tx.commit()
    with pytest.raises(asyncpg.InterfaceError, match="already committed"):
        await tx.start()
    with pytest.raises(asyncpg.InterfaceError, match="already committed"):
        tx.get_server_pid()
    assert bench.raw.sent == sent


async def test_a_rolled_back_one_says_so():
    """The error names which end it was."""
    bench = Bench()
    tx = bench.owned()
    with pytest.raises(KeyError):
        async with tx:
            raise KeyError

    with pytest.raises(asyncpg.InterfaceError, match="already rolled back"):
        await tx.execute("SELECT 1")
    assert repr(tx) == "<magnus.Transaction that is already rolled back>"


async def test_a_block_ends_only_once():
    """Inside `async with`, commit and rollback by hand are refused."""
    bench = Bench()

    async with bench.owned() as tx:
        with pytest.raises(asyncpg.InterfaceError, match="by hand"):
            await tx.commit()
        with pytest.raises(asyncpg.InterfaceError, match="by hand"):
            await tx.rollback()

    assert bench.raw.sent[-1] == "COMMIT"


async def test_start_and_commit_by_hand():
    """As in the driver, for code that cannot use a block."""
    bench = Bench(version=15)
    first = bench.connection.transaction()
    await first.start()
    await first.rollback()
    second = bench.connection.transaction(readonly=True)
    await second.start()
    await second.commit()

    assert bench.raw.sent == ["BEGIN", "ROLLBACK", "BEGIN READ ONLY", "COMMIT"]
    assert bench.pool.released == [], "the connection stays with who leased it"


async def test_inside_another_one_it_is_a_savepoint():
    """Released at the end of its block, undone when that raised; the outer one goes on."""
    bench = Bench(version=15)

    async with bench.owned() as tx:
        async with tx.transaction() as inner:
            await inner.execute("INSERT 1")
        with pytest.raises(KeyError):
            async with tx.transaction(settings={"a.b": "1"}):
                raise KeyError

    sent = bench.raw.sent
    first, second = sent[1].split()[-1], sent[4].split(";")[0].split()[-1]
    assert sent == [
        "BEGIN",
        f"SAVEPOINT {first}",
        "INSERT 1",
        f"RELEASE SAVEPOINT {first}",
        f"""SAVEPOINT {second}; SET LOCAL "a"."b" TO '1'""",
        f"ROLLBACK TO SAVEPOINT {second}; RELEASE SAVEPOINT {second}",
        "COMMIT",
    ]
    assert first != second


async def test_the_end_of_the_outer_one_ends_the_inner_ones():
    """A savepoint that nobody ended cannot be used later."""
    bench = Bench()
    outer = bench.connection.transaction()
    await outer.start()
    inner = bench.connection.transaction()
    await inner.start()

    await outer.commit()

    with pytest.raises(asyncpg.InterfaceError, match="has ended"):
        await inner.execute("SELECT 1")
    with pytest.raises(asyncpg.InterfaceError, match="has ended"):
        await inner.commit()


@pytest.mark.parametrize("mode", [{"isolation": "serializable"}, {"readonly": True}, {"deferrable": True}])
async def test_a_savepoint_has_the_mode_of_its_transaction(mode):
    """Asking for another is an error, not silence."""
    bench = Bench()

    async with bench.owned() as tx:
        with pytest.raises(asyncpg.InterfaceError, match="savepoint"):
            async with tx.transaction(**mode):
                raise AssertionError("not reached")


async def test_a_manually_started_transaction_is_not_mixed_with():
    """As the driver: after BEGIN by hand, `transaction()` is refused."""
    bench = Bench()
    await bench.connection.execute("BEGIN")

    with pytest.raises(asyncpg.InterfaceError, match="manually started"):
        async with bench.connection.transaction():
            raise AssertionError("not reached")


async def test_a_transaction_cannot_be_released():
    """Its connection goes back at its end, not in the middle."""
    bench = Bench()

    async with bench.owned() as tx:
        with pytest.raises(asyncpg.InterfaceError, match="at its end"):
            await tx.give_back()


async def test_a_release_under_an_open_transaction_is_noticed_at_its_end():
    """The connection belongs to somebody else by then: nothing is sent on it."""
    bench = Bench(version=15)

    with pytest.raises(asyncpg.InterfaceError, match="released"):
        async with bench.connection.transaction():
            await bench.connection.give_back()

    assert bench.raw.sent == ["BEGIN"]


async def test_statements_share_the_deadline_of_the_transaction():
    """Its limit is for the whole: a statement gets what is left, and after the end nothing is sent."""
    bench = Bench()

    async with bench.owned(timeout=40.0) as tx:
        bench.clock.advance(39.0)
        await tx.execute("SELECT 1")
        assert bench.raw.timeouts[-1] == pytest.approx(1.0)
        bench.clock.advance(2.0)
        sent = list(bench.raw.sent)
        with pytest.raises(QueryTimeout):
            await tx.execute("SELECT 2")
        assert bench.raw.sent == sent


async def test_the_deadline_of_a_transaction_ends_with_it():
    """On a leased connection the next statement has its lane's limit again."""
    bench = Bench()

    async with bench.connection.transaction(timeout=1.0):
        pass
    bench.clock.advance(5.0)
    await bench.connection.execute("SELECT 1")

    assert bench.raw.timeouts[-1] == 30.0


async def test_a_scope_that_ends_earlier_ends_the_transaction_earlier():
    """The enclosing deadline counts, whatever the transaction asked for."""
    bench = Bench()

    with lanes.scope(timeout=3.0) as scope:
        bench.clock.time = scope.deadline - 3.0
        async with bench.owned(timeout=40.0) as tx:
            await tx.execute("SELECT 1", timeout=20.0)

    assert bench.raw.timeouts[1] == pytest.approx(3.0)


async def test_a_longer_timeout_of_one_statement_lifts_the_servers_limit_inside_the_transaction():
    """SET LOCAL, sent once; the next statement of the lane brings it down again."""
    bench = Bench(QueryPriority.CRITICAL, version=15)

    async with bench.owned() as tx:
        await tx.execute("REPORT", timeout=30.0)
        await tx.execute("SELECT 1")

    assert bench.raw.sent == [
        "BEGIN; SET LOCAL statement_timeout TO 6000",
        "SET LOCAL statement_timeout TO 31000",
        "REPORT",
        "SET LOCAL statement_timeout TO 6000",
        "SELECT 1",
        "COMMIT",
    ]


async def test_after_a_transaction_the_sessions_own_limit_is_known_again():
    """What was SET LOCAL is gone, so the next CRITICAL statement outside sets the limit."""
    bench = Bench(QueryPriority.CRITICAL, version=15)

    async with bench.connection.transaction():
        pass
    await bench.connection.execute("SELECT 1")
    await bench.connection.execute("SELECT 2")

    assert bench.raw.sent[2:] == ["SET statement_timeout TO 6000", "SELECT 1", "SELECT 2"]


async def test_a_rolled_back_savepoint_takes_its_limit_with_it():
    """The tracking follows what the server does with SET LOCAL."""
    bench = Bench(QueryPriority.CRITICAL, version=15)

    async with bench.owned() as tx:
        savepoint = tx.transaction()
        await savepoint.start()
        await tx.execute("REPORT", timeout=30.0)
        await savepoint.rollback()
        await tx.execute("SELECT 1")

    assert bench.raw.sent[-2:] == ["SELECT 1", "COMMIT"]


def test_bad_arguments_are_refused_before_anything_is_sent():
    """Isolation, names and values are checked when the transaction is made."""
    bench = Bench()

    with pytest.raises(ConfigError):
        bench.connection.transaction(isolation="chaos")
    with pytest.raises(ConfigError):
        bench.connection.transaction(settings={"a;b": "1"})


async def test_a_late_block_does_not_wait_for_a_server_that_owes_an_answer():
    """After a timeout the caller's time is over: ROLLBACK and release go on in the background."""
    bench = Bench(version=15)
    answer = asyncio.Event()
    bench.raw.replies["ROLLBACK"] = lambda: _after(answer)
    bench.raw.replies["SLOW"] = lambda: _overtime(bench.clock)

    with pytest.raises(QueryTimeout):
        async with bench.owned() as tx:
            await tx.execute("SLOW")
    assert bench.pool.released == []

    answer.set()
    await asyncio.gather(*bench.terms.background)
    assert bench.pool.released == [bench.raw]


async def _after(event):
    await event.wait()
    return "ROLLBACK"


async def _overtime(clock):
    clock.advance(31.0)
    return TimeoutError()
