"""The exception tree: what users already catch goes on catching, and the data is on the exception."""

import asyncpg
import pytest

import magnus
from magnus import errors


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        (errors.ConfigError("f", 1, "is wrong"), (errors.MagnusError, ValueError)),
        (errors.ConnectError("x", reason="credentials"), (errors.DatabaseError,)),
        (errors.CommitRolledBack(), (errors.DatabaseError,)),
        (errors.QueryTimeout(priority="low", timeout=1.0, elapsed=1.0), (errors.DatabaseError, TimeoutError)),
        (errors.OutcomeUnknown(), (errors.DatabaseError,)),
        (errors.PoolTimeout("x", phase="wait", waited=1.0), (errors.PoolError, TimeoutError)),
        (errors.Overloaded(lane="low", waiting=1, retry_after=1.0), (errors.PoolError,)),
        (magnus.PoolClosed("x"), (errors.PoolError, asyncpg.InterfaceError)),
        (errors.TuningError("x"), (errors.MagnusError,)),
    ],
    ids=lambda case: type(case).__name__,
)
def test_an_error_is_what_users_already_catch(error, bases):
    """A timeout is a TimeoutError, a bad value a ValueError, a closed pool the driver's InterfaceError."""
    assert isinstance(error, errors.MagnusError)
    assert all(isinstance(error, base) for base in bases)


def test_the_data_is_on_the_exception():
    """So that nobody has to read its text."""
    timeout = errors.QueryTimeout(priority="low", timeout=60.0, elapsed=60.1)
    shed = errors.Overloaded(lane="background", waiting=7, retry_after=2.5)
    unknown = errors.OutcomeUnknown(key="k", xid="42")

    assert (timeout.priority, timeout.timeout, timeout.elapsed, timeout.phase) == ("low", 60.0, 60.1, "query")
    assert (shed.lane, shed.waiting, shed.retry_after) == ("background", 7, 2.5)
    assert (unknown.key, unknown.xid, unknown.phase, unknown.sqlstate) == ("k", "42", "commit", None)
    assert errors.CommitRolledBack().sqlstate == "25P02"
    assert errors.ConnectError("x", reason="tls").reason == "tls"


def test_a_config_error_names_the_field():
    """The name is what a person must change."""
    error = errors.ConfigError("DB_POOL_MIN", "many", "must be a whole number")

    assert str(error) == "DB_POOL_MIN: must be a whole number (got 'many')"
