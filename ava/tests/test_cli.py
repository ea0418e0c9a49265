"""The command line: arguments, exit codes, one-line errors. What a command does with a database is tested there."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import subprocess
import sys

import asyncpg
import pytest

from ava.audit import AuditReport
from ava.cli import app, render
from ava.cli.exits import CommandError, Exit
from ava.cli.failures import explain
from ava.cli.progress import PlainBar, PlainView
from ava.cli.running import run as run_command
from ava.cli.source import running_dsn
from ava.data.dataset import LoadError
from ava.migrations import RolesMissing, SchemaTooNew
from ava.replay import Mismatch
from ava.serving import ListenError
from ava.workload.tally import Tally
from magnus import ConfigError, ConnectError, PoolTimeout
from magnus.embedded import ClusterError

COMMANDS = ("serve", "demo", "drive", "load", "audit", "migrate", "token")


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    """
    Run a command in this process: its exit code, standard output and standard error.
    """
    code = app.run(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    """Nothing of the developer's environment gets into a test."""
    for name in list(os.environ):
        if name.startswith(("MAGNUS_", "DB_", "AVA_", "PG")) or name == "DATABASE_URL":
            monkeypatch.delenv(name)


# --- arguments


def test_help_names_every_command(capsys):
    """`ava --help` is the table of contents."""
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(name in out for name in COMMANDS)


@pytest.mark.parametrize("command", [*COMMANDS, "token create"])
def test_every_command_explains_itself(capsys, command):
    """Each has help, and each of its options has a line."""
    code, out, _ = run(capsys, *command.split(), "--help")
    assert code == 0
    assert "Usage: ava" in out


def test_version_is_that_of_the_distribution(capsys):
    """`ava --version`."""
    from importlib.metadata import version

    assert run(capsys, "--version") == (0, version("ava-trading") + "\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["serv"],
        ["serve", "--port", "eight"],
        ["serve", "--port", "-1"],
        ["serve", "--port", "65536"],
        ["serve", "--prt", "1"],
        ["serve", "8000"],
        ["serve", "--grace", "0"],
        ["serve", "--notice", "-1"],
        ["demo", "--scale", "0"],
        ["demo", "--duration", "-1"],
        ["demo", "--concurrency", "0"],
        ["load", "--scale", "-1"],
        ["load", "--scale", "big"],
        ["load", "--seed", "-1"],
        ["load", "--seed", "99999999999999999999"],
        ["drive", "--requests", "0"],
        ["drive", "--requests", "1.5"],
        ["drive", "--concurrency", "-3"],
        ["drive", "--duration", "0"],
        ["drive", "--rate", "0"],
        ["drive", "--timeout", "0"],
        ["drive", "--output-format", "xml"],
        ["audit", "--output-format", "xml"],
        ["audit", "extra"],
        ["migrate", "--to", "3"],
        ["token", "create"],
        ["token", "create", "0"],
        ["token", "create", "abc"],
        ["token", "revoke", "1"],
    ],
)
def test_impossible_arguments_are_one_line_and_exit_2(capsys, arguments):
    """Nothing is started, and there is no traceback."""
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("ava: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("rate", ["inf", "nan"])
def test_a_rate_that_is_no_number_is_refused(capsys, rate):
    """Not even when the parser takes it for a float."""
    code, _, err = run(capsys, "drive", "--rate", rate)
    assert code == 2
    assert err.count("\n") == 1


def test_driving_where_nothing_answers_says_how_to_start_it(capsys):
    """Exit 3, and the command to start."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        code, _, err = run(capsys, "drive", "--url", f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert code == 3
    assert "nothing answers there" in err
    assert "ava serve" in err


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://127.0.0.1", "http://", "http://127.0.0.1:99999"])
def test_driving_needs_a_url(capsys, url):
    """What is no HTTP address is refused before anything is sent."""
    code, _, err = run(capsys, "drive", "--url", url)
    assert code == 2
    assert err.startswith("ava: --url")
    assert err.count("\n") == 1


def test_more_clients_than_open_files_are_refused(capsys):
    """It says which limit."""
    code, _, err = run(capsys, "drive", "--concurrency", "100000000")
    assert code == 2
    assert "ulimit" in err


@pytest.mark.parametrize("command", [["serve"], ["load"], ["audit"], ["migrate"], ["token", "create", "1"], ["demo"]])
@pytest.mark.parametrize(
    ("name", "value"),
    [("DATABASE_URL", "mysql://u:topsecret@h/d"), ("DATABASE_URL", "postgresql://u:topsecret@h:port/d"),
     ("DB_POOL_MAX", "many"), ("DB_QUERY_TIMEOUT", "-3")],
)  # fmt: skip
def test_a_bad_environment_is_one_line_without_secrets(capsys, monkeypatch, command, name, value):
    """It names the variable, exits 2, and repeats no password."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1/none")
    monkeypatch.setenv(name, value)
    code, out, err = run(capsys, *command, *(["--port", "0"] if command[0] in {"serve", "demo"} else []))
    assert (code, out) == (2, "")
    assert name in err
    assert "topsecret" not in err
    assert err.count("\n") == 1


def test_a_data_dir_does_not_go_with_a_database_url(capsys, monkeypatch, tmp_path):
    """It would be ignored, so it is refused."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1/none")
    code, _, err = run(capsys, "audit", "--data-dir", str(tmp_path))
    assert code == 2
    assert "--data-dir" in err


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_a_taken_port_is_known_before_anything_slow(capsys, monkeypatch, command):
    """One line with the port and the option; the database, which is not there, was not asked."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/none")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, out, err = run(capsys, command, "--port", str(port))
    assert (code, out) == (2, "")
    assert err.startswith(f"ava: port {port} is already in use by process {os.getpid()}; ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "command", [["audit"], ["migrate"], ["load"], ["token", "create", "1"], ["serve", "--port", "0"]]
)
def test_an_unreachable_database_is_one_line_and_exit_3(capsys, monkeypatch, command):
    """It names the server, without the password."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        monkeypatch.setenv("DATABASE_URL", f"postgresql://ava:topsecret@127.0.0.1:{port}/ava")
        monkeypatch.setenv("DB_CONNECT_TIMEOUT", "1")
        code, _, err = run(capsys, *command)
    assert code == 3
    assert err.count("\n") == 1
    assert f"127.0.0.1:{port}" in err
    assert "topsecret" not in err


def test_a_data_dir_that_may_not_be_written_is_one_line(capsys, tmp_path):
    """A file is in the way of the folder."""
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    code, _, err = run(capsys, "audit", "--data-dir", str(in_the_way / "data"))
    assert code == 3
    assert err.count("\n") == 1
    assert str(in_the_way) in err


def test_the_command_runs_as_a_module():
    """`python -m ava.cli` is the same program, and imports no web framework for its help."""
    code = "import sys, ava.cli; sys.argv[1:] = ['--help']; ava.cli.main(); sys.exit('fastapi' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert found.returncode == 0
    found = subprocess.run([sys.executable, "-m", "ava.cli", "nonsense"], capture_output=True, timeout=60, check=False)
    assert (found.returncode, found.stdout) == (2, b"")


# --- known failures


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (CommandError("no"), Exit.USAGE, "no"),
        (ConfigError("DB_POOL_MAX", "x", "must be a number"), Exit.USAGE, "DB_POOL_MAX"),
        (ListenError("port 1 is taken"), Exit.USAGE, "port 1"),
        (ClusterError("disk\n  log line", reason="disk_full"), Exit.DATABASE, "disk"),
        (RolesMissing("bob", "CREATE ROLE ava_account;"), Exit.DATABASE, "CREATE ROLE"),
        (SchemaTooNew(9, 2), Exit.REFUSED, "newer AVA"),
        (LoadError("already loaded"), Exit.REFUSED, "already loaded"),
        (ConnectError("no server"), Exit.DATABASE, "no server"),
        (PoolTimeout("no slot", phase="wait", waited=1.0), Exit.DATABASE, "no slot"),
        (asyncpg.InsufficientPrivilegeError("permission denied for table x"), Exit.DATABASE, "as the owner"),
        (asyncpg.DiskFullError("No space"), Exit.DATABASE, "disk is full"),
        (asyncpg.UndefinedTableError("x"), Exit.DATABASE, "ava migrate"),
        (asyncpg.PostgresSyntaxError("near\n  x"), Exit.DATABASE, "refused: near x"),
        (OSError(errno.ENOSPC, "No space", "/data"), Exit.DATABASE, "no space left on the disk: /data"),
        (PermissionError(errno.EACCES, "denied", "/data"), Exit.DATABASE, "permission denied: /data"),
    ],
)
def test_known_failures_are_one_line(error, code, words):
    """Each has its exit code and says what to do or what is wrong."""
    failure = explain(error)
    assert failure is not None
    assert failure.code is code
    assert words in failure.text
    assert "\n" not in failure.text


def test_a_server_that_would_not_start_shows_its_last_words():
    """They are the only hint there is."""
    failure = explain(ClusterError("PostgreSQL did not start\n  FATAL: odd", reason="start"))
    assert failure is not None
    assert "FATAL: odd" in failure.text


def test_a_fault_of_ours_is_not_hidden():
    """It keeps its traceback."""
    assert explain(KeyError("x")) is None


# --- signals


async def _wait_for_ever(_signals) -> int:
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.Event().wait()
    return 0


def test_a_signal_cancels_a_command_and_its_number_is_the_exit_code():
    """128 + 15, after the command has cleaned up."""
    assert run_command(_wait_for_ever) == 128 + signal.SIGTERM


def test_later_signals_do_not_break_the_cleaning_up():
    """Only the first one cancels."""
    cleaned = []

    async def command(_signals) -> int:
        try:
            await _wait_for_ever(_signals)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0.01)
            cleaned.append(True)
        return 0

    assert run_command(command) == 128 + signal.SIGTERM
    assert cleaned == [True]


def test_a_command_may_take_signals_itself():
    """Then every one of them is told to it, and it ends as it likes."""

    async def command(signals) -> int:
        told = asyncio.Queue()
        signals.on_stop = lambda: told.put_nowait(None)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
            await told.get()
        return 7

    assert run_command(command) == 7


# --- what is printed


def _result(**failures: int):
    tally = Tally()
    tally.finish("buy", 0.01)
    tally.statuses["201"] = 1
    tally.failures.update(failures)
    return tally.result(1.0)


def test_results_for_programs_have_a_version_and_the_exit_code(capsys):
    """The same figures as the table's."""
    render.as_json("drive", 0, render.result_document(_result()))
    document = json.loads(capsys.readouterr().out)
    assert {key: document[key] for key in ("format_version", "command", "status", "exit_code")} == {
        "format_version": "1.0", "command": "drive", "status": "ok", "exit_code": 0,
    }  # fmt: skip
    assert document["operations"][0]["p50_ms"] == 10.0


def test_a_table_holds_the_figures_and_plain_text_no_escapes(capsys):
    """Not on a terminal there is no colour."""
    render.show(render.result_table(_result()))
    out = capsys.readouterr().out
    assert "10.0" in out
    assert "1 x 201" in out
    assert "\x1b" not in out


def test_broken_promises_are_in_the_summary():
    """Each with its count, and unequal repeats in words."""
    lines = render.summary(_result(**{"unequal repeat": 2, "server error 500": 3}))
    assert any("answered differently" in line for line in lines)
    assert "FAILED    3 x server error 500" in lines


def test_plain_progress_is_a_line_a_tenth():
    """A log is not flooded, and short stages pass in silence."""
    lines = []
    bar = PlainBar(lines.append)
    for done in range(0, 10_001, 50):
        bar.update("trades", done, 10_000)
    bar.update("indexes", 12, 12)
    assert len(lines) == 10
    assert lines[-1] == "trades: 100 %, 10,000 of 10,000"


def test_plain_figures_are_a_line_every_two_seconds():
    """However often they are told."""
    lines = []
    view = PlainView(lines.append)
    for half in range(1, 13):
        view.update(Tally().result(half / 2), half / 12)
    assert len(lines) == 3


def test_an_audit_says_what_it_looked_at_and_what_is_wrong():
    """The verdict first, then each mismatch, then how many are not listed."""
    wrong = Mismatch("cash", 7, "cash", "1.00", "2.00")
    counts = dict.fromkeys(("accounts", "trades", "lots", "positions", "movements", "orders", "imports"), 1)
    report = AuditReport(mismatches=(wrong,), mismatch_count=3, elapsed=0.5, **counts)
    lines = render.audit_lines(report)
    assert lines[0].startswith("audit 3 mismatches: 1 accounts")
    assert lines[1:] == ["cash: account 7, cash: expected 1.00, found 2.00", "and 2 more"]


def test_stats_are_three_tables(capsys):
    """Queries, pool and lanes of /api/health/stats; keys that are missing are left out."""
    lanes = {"critical": {"waiting": 0, "wait_p95_ms": 0.5}, "low": {"waiting": 2}}
    stats = {"query_stats": {"total": 12}, "pool_stats": {"size": 10, "lanes": lanes}}
    render.show(render.stats_table(stats))
    out = capsys.readouterr().out
    assert all(word in out for word in ("queries", "pool", "lanes", "critical", "12", "0.5"))
    render.show(render.stats_table({}))


# --- the embedded server of another process


class FakeCluster:
    def __init__(self, folder) -> None:
        self.folder = self.data = folder


def test_a_running_server_is_reached_by_what_its_postmaster_wrote(tmp_path):
    """Port and socket folder are lines 4 and 5 of postmaster.pid."""
    (tmp_path / "postmaster.pid").write_text("71\n/data\n1763690000\n54321\n/run/a b\nlocalhost\n")
    assert running_dsn(FakeCluster(tmp_path)) == "postgresql://ava@/ava?host=%2Frun%2Fa%20b&port=54321"


@pytest.mark.parametrize("text", ["", "71\n/data\n", "71\n/data\n1763690000\n\n\n"])
def test_a_server_that_is_just_starting_is_said_so(tmp_path, text):
    """Half a file is no address."""
    (tmp_path / "postmaster.pid").write_text(text)
    with pytest.raises(CommandError, match="just starting or stopping"):
        running_dsn(FakeCluster(tmp_path))
