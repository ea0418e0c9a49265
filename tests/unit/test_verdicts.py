"""The table of errors and phases, row by row, as documented in docs/retries.md."""

import asyncpg
import pytest

from magnus._driver import LeaseReclaimed, PoolClosed
from magnus._verdicts import SQLSTATES, Phase, Verdict, classify
from magnus.errors import (
    CommitRolledBack,
    ConfigError,
    ConnectError,
    OutcomeUnknown,
    Overloaded,
    PoolTimeout,
    QueryTimeout,
)

U, S, B, C = Phase.UNSENT, Phase.STATEMENT, Phase.BLOCK, Phase.COMMIT
NOT_SENT, BACK, ONCE = Verdict.NOT_SENT, Verdict.ROLLED_BACK, Verdict.ROLLED_BACK_ONCE
PERHAPS, UNKNOWN, NEVER = Verdict.PERHAPS, Verdict.UNKNOWN, Verdict.NEVER


def coded(sqlstate):
    """What the driver raises for a code of the server's."""
    return asyncpg.PostgresError.new({"C": sqlstate, "M": "said the server", "S": "ERROR"})


def caused(error, cause):
    error.__cause__ = cause
    return error


CLOSED = asyncpg.InterfaceError("cannot call Connection.fetch(): connection is closed")
STUCK = asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress")
MUDDLED = asyncpg.InternalClientError("got result for unknown protocol state 3")

HEALS = ("unreachable", "starting", "too_many", "timeout", "read_only")

NOT_SENT_ROWS = [
    *((coded(code), phase, NOT_SENT) for code in ("53300", "57P03", "08001", "08004") for phase in (U, S, B)),
    *((ConnectError("", reason=reason), U, NOT_SENT) for reason in HEALS),
    (OSError("no route"), U, NOT_SENT),
    (TimeoutError(), U, NOT_SENT),
    (CLOSED, U, NOT_SENT), (CLOSED, S, NOT_SENT), (STUCK, U, NOT_SENT), (STUCK, S, NOT_SENT),
]  # fmt: skip
BACK_ROWS = [
    *((coded(c), phase, BACK) for c in ("40001", "40P01", "55P03", "55006", "25006", "26000") for phase in (S, B, C)),
    (asyncpg.InvalidCachedStatementError("cached plan must not change result type"), S, BACK),
    *((coded(code), B, BACK) for code in ("08000", "08003", "08006", "57P01", "57P02", "57P05", "25P03", "25P04")),
    (CLOSED, B, BACK), (CLOSED, C, BACK), (STUCK, B, BACK), (STUCK, C, BACK), (MUDDLED, B, BACK),
]  # fmt: skip
ONCE_ROWS = [
    (coded(code), phase, ONCE)
    for code in ("53000", "53100", "53200", "53400", "57014", "58000", "58030")
    for phase in (S, B)
]
PERHAPS_ROWS = [
    *((coded(code), S, PERHAPS) for code in ("08000", "08003", "08006", "08P01", "57P01", "57P02", "57P05")),
    (ConnectionResetError(), S, PERHAPS), (OSError("gone"), S, PERHAPS), (TimeoutError(), S, PERHAPS),
    (MUDDLED, S, PERHAPS), (QueryTimeout(priority="low", timeout=1.0, elapsed=1.0), S, PERHAPS),
]  # fmt: skip
UNKNOWN_ROWS = [
    *((OutcomeUnknown(), phase, UNKNOWN) for phase in (B, C)),
    *((coded(code), phase, UNKNOWN) for code in ("08007", "40003") for phase in (S, B, C)),
    *((coded(code), C, UNKNOWN) for code in ("08003", "08006", "57P01", "57P02")),
    (ConnectionResetError(), C, UNKNOWN), (TimeoutError(), C, UNKNOWN), (MUDDLED, C, UNKNOWN),
]  # fmt: skip
NEVER_ROWS = [
    *(
        (coded(code), phase, NEVER)
        for code in (
            "22012", "23505", "23P01", "25P02", "28P01", "2F002", "3D000", "3F000", "42601", "42P01", "44000", "54001",
            "P0001", "0A000", "XX000", "XX001", "XX002", "F0001", "57P04",
        )
        for phase in (U, S, B, C)
    ),
    (CommitRolledBack(), B, NEVER), (QueryTimeout(priority="low", timeout=1.0, elapsed=1.0), B, NEVER),
    (PoolTimeout("", phase="connect", waited=1.0), U, NEVER), (PoolClosed(""), U, NEVER),
    (Overloaded(lane="low", waiting=1, retry_after=1.0), U, NEVER), (ConfigError("a", 1, "is wrong"), U, NEVER),
    (LeaseReclaimed(held=1.0, acquired_at=()), B, NEVER),
    *((ConnectError("", reason=reason), U, NEVER) for reason in ("credentials", "database", "tls", "other")),
    (asyncpg.InterfaceError("cannot perform operation: another operation is in progress"), S, NEVER),
    (ValueError(), B, NEVER),
]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "phase", "verdict"),
    [*NOT_SENT_ROWS, *BACK_ROWS, *ONCE_ROWS, *PERHAPS_ROWS, *UNKNOWN_ROWS, *NEVER_ROWS],
    ids=lambda value: getattr(value, "sqlstate", None) or getattr(value, "name", None) or repr(value)[:40],
)
def test_the_table(error, phase, verdict):
    """One row of the table: the error, how far the unit was, what that says."""
    assert classify(error, phase) is verdict


def test_no_code_is_in_the_table_without_a_row_of_this_test():
    """What is added to the table is added here."""
    tested = {
        error.sqlstate
        for error, _, _ in [*NOT_SENT_ROWS, *BACK_ROWS, *ONCE_ROWS, *UNKNOWN_ROWS]
        if hasattr(error, "sqlstate")
    }

    assert set(SQLSTATES) <= tested


def test_a_code_behind_the_error_of_an_exit_is_found():
    """The server's word is in the context: the block's exit failed because the connection was gone."""
    masked = asyncpg.InterfaceError("cannot call Transaction.__aexit__(): the underlying connection is closed")
    masked.__context__ = caused(coded("08003"), coded("57P01"))

    assert classify(masked, S) is PERHAPS
    assert classify(masked, B) is BACK


def test_of_several_answers_the_most_cautious_holds():
    """An error that came while another was handled may forbid a repeat and never allow one."""
    lost = coded("08006")
    lost.__context__ = coded("40001")
    assert classify(lost, S) is PERHAPS
    conflict = coded("40001")
    conflict.__context__ = coded("23505")
    assert classify(conflict, B) is NEVER


def test_an_error_of_the_units_own_about_a_conflict_is_the_conflict():
    """Libraries wrap the driver's errors in theirs."""
    assert classify(caused(RuntimeError("wrapped"), coded("40001")), B) is BACK


def test_a_failed_block_says_nothing_and_what_failed_it_does():
    """25P02 is the echo of an error; alone it is one that somebody swallowed."""
    assert classify(caused(coded("25P02"), coded("40P01")), B) is BACK
    assert classify(coded("25P02"), B) is NEVER


def test_inside_a_transaction_a_broken_socket_counts_when_the_connection_is_closed():
    """The unit's own code may lose connections to elsewhere; our transaction is open all the same."""
    assert classify(ConnectionResetError(), B, is_closed=True) is BACK
    assert classify(ConnectionResetError(), B) is NEVER
    assert classify(TimeoutError(), B) is NEVER


def test_a_write_refused_in_a_unit_that_asked_to_read_is_an_answer():
    """No other server would let it write."""
    assert classify(coded("25006"), S, is_read_only=True) is NEVER
