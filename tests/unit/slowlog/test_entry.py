"""What is noted of a slow statement on the spot."""

import asyncio

import asyncpg
import pytest

import magnus
from magnus.errors import QueryTimeout
from magnus.slowlog._entry import caller, outcome_of, rows_of


@pytest.mark.parametrize(
    ("method", "result", "rows"),
    [
        ("fetch", [1, 2], 2),
        ("fetch", [], 0),
        ("fetchrow", None, 0),
        ("fetchrow", ("a",), 1),
        ("fetchval", "UPDATE 5", None),
        ("execute", "UPDATE 5", 5),
        ("execute", "INSERT 0 3", 3),
        ("execute", "CREATE TABLE", None),
        ("copy_records_to_table", "COPY 7", 7),
        ("executemany", None, None),
    ],
)
def test_rows_are_those_of_the_result(method, result, rows):
    """A value that only looks like a status is none."""
    assert rows_of(method, result) == rows


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, ("ok", None)),
        (asyncpg.UniqueViolationError("Key (email)=(canary)"), ("failed", "23505")),
        (QueryTimeout(priority="low", timeout=1.0, elapsed=1.0), ("timed_out", None)),
        (asyncio.CancelledError(), ("cancelled", None)),
        (ValueError("canary"), ("failed", None)),
    ],
)
def test_the_outcome_is_a_word_and_a_code(error, outcome):
    """Never an error's text, which may quote data."""
    assert outcome_of(error) == outcome


def test_the_caller_is_the_first_line_outside():
    """Module, function and line."""

    class Service:
        def load(self):
            return caller()

    module, function, line = Service().load().split(":")
    assert module == __name__
    assert function.endswith("Service.load")
    assert int(line) > 0


def test_frames_of_the_library_are_passed_over():
    """However deep the call is inside of it."""
    names = {"caller": caller, "__name__": "magnus.deep"}
    exec(compile("def inner():\n    return caller()\ndef outer():\n    return inner()", magnus.__file__, "exec"), names)  # noqa: S102
    assert names["outer"]().split(":")[1] == "test_frames_of_the_library_are_passed_over"
