"""The one clear line for what goes wrong with a local server."""

import errno
from pathlib import Path

import pytest

from magnus.embedded import ClusterError
from magnus.embedded._errors import from_os_error, from_output
from magnus.errors import MagnusError


@pytest.mark.parametrize(
    ("output", "reason", "words"),
    [
        ('initdb: error: could not write to file "x": No space left on device', "disk_full", "the disk is full"),
        ("HINT:  Check free disk space.", "disk_full", "the disk is full"),
        ("FATAL:  could not create any TCP/IP sockets", "port", "the port is taken"),
        ("FATAL:  could not map anonymous shared memory: Cannot allocate memory", "memory", "shared_buffers"),
        ("FATAL:  database files are incompatible with server", "version", "another PostgreSQL version"),
        ('initdb: error: could not access directory "/x": Permission denied', "permission", "not accessible"),
        ("initdb: error: could not look up effective user ID 4711: user does not exist", "permission", "/etc/passwd"),
        ("FATAL:  something else", "start", "did not start"),
        ("", "start", "(no output)"),
    ],
)
def test_a_known_cause_is_named_in_words(output, reason, words):
    """The first line says what to look at; PostgreSQL's own words stand below it."""
    error = from_output("PostgreSQL did not start", output, reason="start")

    assert error.reason == reason
    assert words in str(error)
    assert str(error).startswith("PostgreSQL did not start")
    assert output in str(error)


def test_only_the_last_lines_of_a_long_log_are_shown():
    """The cause is at the end; a screenful is enough, and the path leads to the rest."""
    error = from_output("x", "\n".join(f"line {number}" for number in range(100)), reason="start", log=Path("/l"))

    assert "line 99" in str(error)
    assert "line 50" not in str(error)
    assert error.log == Path("/l")
    assert "log: /l" in str(error)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "disk_full"),
        (errno.EDQUOT, "disk_full"),
        (errno.EACCES, "permission"),
        (errno.EROFS, "permission"),
        (errno.ENOTDIR, "start"),
    ],
)
def test_a_failed_system_call_says_what_and_where(number, reason):
    """The path is in the text, so nobody has to guess which folder is meant."""
    error = from_os_error("PostgreSQL could not be started", OSError(number, "words of the system", "/a/path"))

    assert error.reason == reason
    assert "/a/path" in str(error)


def test_it_is_one_of_ours():
    """`except MagnusError` catches it."""
    assert issubclass(ClusterError, MagnusError)
