"""The command line without a server: arguments, exit codes, and where each line goes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib import metadata

import pytest

from magnus import cli
from magnus.cli import render
from magnus.cli.answer import Answer, ExitCode, Failure, OutputFormat, Table
from magnus.pool import lane_table


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    No variable of the caller's reaches a command.
    """
    for name in list(os.environ):
        if name.startswith(("DB_", "MAGNUS_", "PG", "DATABASE_URL")):
            monkeypatch.delenv(name)


def test_the_version_is_the_distributions(capsys):
    """`magnus --version` says what is installed."""
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == metadata.version("magnus-db")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["lanes", "--help"]])
def test_help_is_an_answer(arguments, capsys):
    """It goes to standard output, with the options that every command has."""
    assert cli.main(arguments) == 0
    captured = capsys.readouterr()
    assert "--dsn" in captured.out
    assert not captured.err


def test_lanes_shows_the_pools_own_table(capsys):
    """Limit, cap and reserve of every lane, as `lane_table` gives them."""
    assert cli.main(["lanes", "--pool-size", "12", "--output-format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["format_version"], found["command"], found["status"], found["exit_code"]) == ("1.0", "lanes", "ok", 0)
    assert [(lane["lane"], lane["cap"]) for lane in found["lanes"]] == [
        (str(limits.lane), limits.cap) for limits in lane_table(12)
    ]
    assert sum(lane["reserve"] for lane in found["lanes"]) == 12
    assert [lane["limit_s"] for lane in found["lanes"]] == [5, 10, 30, 60, 120]


def test_lanes_knows_the_configured_limits(capsys, monkeypatch):
    """DB_QUERY_TIMEOUT is lane NORMAL's limit."""
    monkeypatch.setenv("DB_QUERY_TIMEOUT", "7")
    assert cli.main(["lanes", "--output-format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["lanes"][2]["limit_s"] == 7


def test_lanes_shows_what_a_service_with_this_environment_has(capsys, monkeypatch):
    """Size, lanes and limits come from the same variables; an option wins."""
    for name, value in {
        "DB_POOL_MAX": "20",
        "MAGNUS_LANES": '{"low": {"cap": 3, "max_waiting": 7}, "background": {"wait_target": "250ms"}}',
        "MAGNUS_LANE_TIMEOUTS": '{"low": "45s"}',
        "MAGNUS_MAX_WAITING": "500",
    }.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["lanes", "--output-format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    low, background = found["lanes"][3:]
    assert found["pool_size"] == 20
    assert (low["cap"], low["max_waiting"], low["limit_s"], low["sheds"]) == (3, 7, 45, "late")
    assert (background["max_waiting"], background["stands_above_s"], background["sheds"]) == (500, 0.25, "early")

    assert cli.main(["lanes", "--pool-size", "2", "--output-format", "json"]) == 2
    assert "lanes[low].cap" in capsys.readouterr().err
    assert cli.main(["lanes", "--pool-size", "4", "--output-format", "json"]) == 0
    assert [lane["cap"] for lane in json.loads(capsys.readouterr().out)["lanes"]] == [4, 3, 3, 3, 1]


def test_lanes_is_a_table_for_people(capsys):
    """One line a lane, without control codes when it is no terminal."""
    assert cli.main(["lanes", "--pool-size", "30"]) == 0
    captured = capsys.readouterr()
    assert re.search(r"^ *critical +5 +30 +\d+ +first +\d+ +- +never", captured.out, re.MULTILINE)
    assert re.search(r"^ *background +120 +\d+ +\d+ +7% +10000 +1.2 +late", captured.out, re.MULTILINE)
    assert "\x1b" not in captured.out
    assert not captured.err


def test_shared_options_may_stand_before_the_command(capsys):
    """`magnus --output-format json lanes` is `magnus lanes --output-format json`."""
    assert cli.main(["--output-format", "json", "lanes"]) == 0
    assert json.loads(capsys.readouterr().out)["pool_size"] == 30


@pytest.mark.parametrize(
    ("arguments", "environment", "named"),
    [
        (["bogus"], {}, "bogus"),
        (["lanes", "--pool-size", "many"], {}, "--pool-size"),
        (["lanes", "--pool-size", "0"], {}, "--pool-size"),
        (["lanes", "--nope"], {}, "--nope"),
        (["-d"], {}, "-d"),
        (["lanes", "--output-format", "xml"], {}, "xml"),
        (["lanes"], {"DB_QUERY_TIMEOUT": "soon"}, "DB_QUERY_TIMEOUT"),
        (["lanes"], {"MAGNUS_LANES": "low"}, "MAGNUS_LANES"),
        (["lanes"], {"MAGNUS_LANES": '{"low": {"cap": 0}}'}, "MAGNUS_LANES[low].cap"),
        (["lanes"], {"MAGNUS_LANES": '{"low": {"size": 1}}'}, "MAGNUS_LANES[low]"),
        (["lanes"], {"MAGNUS_LANE_TIMEOUTS": '{"low": "soon"}'}, "MAGNUS_LANE_TIMEOUTS[low]"),
        (["ping"], {"DB_POOL_MAX": "-1"}, "DB_POOL_MAX"),
        (["ping", "-d", "postgresql://u:hunter2@h:notaport/db"], {}, "dsn"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, environment, named, capsys, monkeypatch):
    """The line names what is wrong; standard output stays empty; no traceback, no password."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert not captured.out
    assert captured.err.startswith("magnus: ")
    assert captured.err.count("\n") == 1
    assert named in captured.err
    assert "hunter2" not in captured.err


def test_in_json_a_failure_is_an_object_too(capsys):
    """Whoever reads the pipe finds one object, whatever happened."""
    assert cli.main(["lanes", "--pool-size", "0", "--output-format", "json"]) == 2
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert (found["command"], found["status"], found["exit_code"]) == ("lanes", "failed", 2)
    assert "--pool-size" in found["error"]
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("missing", ["cyclopts", "rich"])
def test_without_the_extra_it_says_what_to_install(missing):
    """The library's own dependencies hold no command line; the script says how to get it."""
    code = (
        "import importlib.util as u, sys; real = u.find_spec\n"
        f"u.find_spec = lambda name, *more: None if name == {missing!r} else real(name, *more)\n"
        "from magnus.cli import main; sys.exit(main(['lanes']))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert found.returncode == 2
    assert found.stderr == "magnus: the command line is not installed; pip install 'magnus-db[cli]'\n"
    assert not found.stdout


def test_importing_the_entry_point_loads_nothing_heavy():
    """What draws and parses comes when a command runs."""
    code = "import sys, magnus.cli; print(*({'cyclopts', 'rich', 'fastapi', 'structlog'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not found.stdout.strip()


def test_an_interrupt_is_exit_code_130(capsys, monkeypatch):
    """Ctrl-C ends with one line and the shell's code for it."""

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("magnus.cli.lanes.lanes", interrupted)
    assert cli.main(["lanes"]) == 130
    assert capsys.readouterr().err == "magnus: interrupted\n"


def test_a_reader_that_goes_away_is_no_error():
    """`magnus lanes | head -0` ends quietly."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        code = "import sys; from magnus.cli import main; sys.exit(main(['lanes', '--output-format', 'json']))"
        found = subprocess.run(
            [sys.executable, "-u", "-c", code], check=False, stdout=closed, stderr=subprocess.PIPE, text=True
        )
    assert (found.returncode, found.stderr) == (0, "")


def test_an_answer_is_the_same_for_people_and_machines(capsys):
    """Both renderers write the one result; markup in a value is text, not style."""
    answer = Answer("x", {"role": "[red]r"}, ["role [red]r"], [Table(("name", "n"), [("[bold]a", 1.5)])])
    assert render.show(answer, OutputFormat.TEXT) is ExitCode.DONE
    text = capsys.readouterr().out
    assert "role [red]r" in text
    assert "[bold]a" in text
    assert "1.5" in text
    render.show(answer, OutputFormat.JSON)
    assert json.loads(capsys.readouterr().out)["role"] == "[red]r"


def test_a_failure_says_what_to_do(capsys):
    """Error and advice are one line on standard error, and the exit code is the failure's."""
    failure = Failure("ping", ExitCode.UNREACHABLE, "db:5432: no answer\nthere.", "is it running?")
    assert render.show(failure, OutputFormat.TEXT) is ExitCode.UNREACHABLE
    captured = capsys.readouterr()
    assert captured.err == "magnus: db:5432: no answer there; is it running?\n"
    assert not captured.out
