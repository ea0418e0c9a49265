"""Arguments and failures of `magnus top`, `slow` and `activity`, and how numbers are written; no server."""

from __future__ import annotations

import json
import os

import pytest

from magnus import cli
from magnus.cli import render
from magnus.cli.answer import Answer, OutputFormat, Table
from magnus.cli.words import count, short, size, span, time, trend
from magnus.errors import ConfigError

NOWHERE = "postgresql://user:hunter2canary@127.0.0.1:1/db"


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch):
    """No variable of the caller's reaches a command."""
    for name in list(os.environ):
        if name.startswith(("DB_", "MAGNUS_", "PG", "DATABASE_URL")):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "arguments",
    [
        ("top", "--order", "nope"), ("top", "--limit", "0"), ("top", "--interval", "x"), ("slow", "--since", "-1h"),
        ("slow", "--order", "nope"), ("activity", "--cancel", "1", "--terminate", "1"), ("activity", "--cancel", "x"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_exit_code_2_in_one_line(arguments, capsys):
    """On standard error, before anything is opened."""
    assert cli.main(["-d", NOWHERE, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1


def test_a_wrong_argument_is_an_object_for_machines(capsys):
    """With the command's name."""
    assert cli.main(["--output-format", "json", "top", "--order", "nope"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert (found["command"], found["status"], found["exit_code"]) == ("top", "failed", 2)
    assert "total, mean, calls" in found["error"]


@pytest.mark.parametrize("command", ["top", "slow", "activity"])
def test_an_unreachable_server_is_exit_code_3(command, capsys):
    """In one line, without the password."""
    assert cli.main(["-d", NOWHERE, command]) == 3
    captured = capsys.readouterr()
    assert "hunter2canary" not in captured.err + captured.out
    assert len(captured.err.splitlines()) == 1


def test_scripts_are_printed_without_a_server(capsys):
    """To be read, kept, or run by somebody else."""
    assert cli.main(["-d", NOWHERE, "slow", "install", "--print"]) == 0
    assert "CREATE TABLE IF NOT EXISTS slow_query_log" in capsys.readouterr().out
    assert cli.main(["-d", NOWHERE, "slow", "remove", "--print"]) == 0
    assert "DROP TABLE IF EXISTS slow_query_log" in capsys.readouterr().out


def test_removing_needs_a_person_or_a_word(capsys):
    """Where nobody can be asked nothing is done, and nothing opened."""
    assert cli.main(["-d", NOWHERE, "slow", "remove"]) == 4
    assert "nothing was removed" in capsys.readouterr().err


def test_a_table_in_a_pipe_is_as_wide_as_it_is(capsys):
    """One line a row, whatever a terminal would do."""
    render.show(Answer("x", {}, tables=[Table(("a", "b"), [("1", "q" * 300)], is_cut=True)]), OutputFormat.TEXT)
    assert "q" * 300 in capsys.readouterr().out


def test_on_a_terminal_the_last_cell_gives_way(capsys, monkeypatch):
    """The others are whole."""
    monkeypatch.setattr(render, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    render.show(Answer("x", {}, tables=[Table(("a", "b"), [("1" * 20, "q" * 300)], is_cut=True)]), OutputFormat.TEXT)
    out = capsys.readouterr().out
    assert "1" * 20 in out
    assert "q…" in out
    assert all(len(line) <= 60 for line in out.splitlines())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""), (0.0000421, "0.0421ms"), (0.0412, "41.2ms"), (1.5, "1.5s"), (758, "12m38s"), (7260, "2h01m"),
        (86_400, "1d"), (360_000, "4d4h"),
    ],
)  # fmt: skip
def test_durations_are_written_with_a_unit_that_fits(seconds, text):
    """Three digits at most."""
    assert time(seconds) == text


def test_counts_sizes_texts_and_trends():
    """In groups of three; in powers of 1024; in one line; as blocks."""
    assert (count(18402), size(8192), size(3 * 1024**3)) == ("18 402", "8 kB", "3 GB")
    assert (short("a\n  b", 9), short("abcdef", 4)) == ("a b", "abc…")
    assert trend([0, 1, 4, 8]) == "·▁▄█"
    assert trend([1]) == "█"
    assert trend([]) == ""


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("15m", 900), ("1h", 3600), ("1.5d", 129_600), ("2min", 120)]
)
def test_spans_are_read(text, seconds):
    """As people write them."""
    assert span("--since", text) == seconds


@pytest.mark.parametrize("text", ["", "0", "h", "-1h", "1y", "9999d", "1 h 5"])
def test_other_spans_are_refused(text):
    """By the argument's name."""
    with pytest.raises(ConfigError, match="--since"):
        span("--since", text)
