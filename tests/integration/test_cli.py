"""`magnus ping` as a user types it, on a real server and on what is none."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from magnus import once

MAGNUS = Path(sys.executable).with_name("magnus")
CANARY = "hunter2canary"


def magnus(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [MAGNUS, *arguments], check=False, capture_output=True, text=True, timeout=60, env=environment(**environ)
    )


def environment(**more: str) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PG", "DB_", "MAGNUS", "DATABASE"))
    }
    return {**kept, **more}


def test_ping_shows_server_role_guards_and_latency(tcp_dsn, pg_version):
    """Exit code 0; the guards are those that a service's sessions have; the password is not shown."""
    found = magnus("ping", "--dsn", tcp_dsn)
    assert (found.returncode, found.stderr) == (0, "")
    assert f"PostgreSQL {pg_version}" in found.stdout
    assert "role postgres" in found.stdout
    assert "ms a round trip" in found.stdout
    assert "idle_in_transaction_session_timeout" in found.stdout
    assert "ava_trading_platform" in found.stdout
    password = urlsplit(tcp_dsn).password
    assert password
    assert password not in found.stdout


def test_ping_in_json_says_the_same_to_machines(dsn, database, pg_version):
    """One object with a format version, whatever stands before or after the command."""
    for arguments in (("--output-format", "json", "-d", dsn, "ping"), ("ping", "-d", dsn, "--output-format", "json")):
        found = json.loads(magnus(*arguments).stdout)
        assert (found["format_version"], found["command"], found["status"]) == ("1.0", "ping", "ok")
        assert found["version"].startswith(str(pg_version))
        assert (found["database"], found["role"], found["is_standby"]) == (database, "postgres", False)
        assert found["latency_ms"] > 0
        assert found["guards"]["statement_timeout"] == "30s"
        assert found["guards"]["idle_in_transaction_session_timeout"] == "1min"


@pytest.mark.one_version
def test_ping_reads_the_environment(dsn):
    """DATABASE_URL and the DB_ variables count; --dsn wins over them."""
    found = magnus("ping", "--output-format", "json", DATABASE_URL=dsn, DB_QUERY_TIMEOUT="7")
    assert json.loads(found.stdout)["guards"]["statement_timeout"] == "7s"
    found = magnus("ping", "--dsn", dsn, DATABASE_URL="postgresql://127.0.0.1:1/none")
    assert found.returncode == 0


@pytest.fixture
def closed_port() -> int:
    """
    A port that nobody listens on.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_an_unreachable_server_is_exit_code_3(closed_port):
    """One line that says where it looked and what to check."""
    found = magnus("ping", "-d", f"postgresql://ava:{CANARY}@127.0.0.1:{closed_port}/ava")
    assert (found.returncode, found.stdout) == (3, "")
    assert found.stderr.startswith(f"magnus: postgresql://ava@127.0.0.1:{closed_port}/ava: ")
    assert "is PostgreSQL running there?" in found.stderr
    assert found.stderr.count("\n") == 1
    assert CANARY not in found.stderr


@pytest.mark.one_version
def test_a_wrong_password_or_database_is_exit_code_3(tcp_dsn):
    """Each says its own cause; neither shows the password."""
    password = urlsplit(tcp_dsn).password
    refused = magnus("ping", "-d", tcp_dsn.replace(f":{password}@", f":{CANARY}@"))
    assert refused.returncode == 3
    assert "check user and password" in refused.stderr
    assert CANARY not in refused.stderr
    missing = magnus("ping", "-d", f"{tcp_dsn}_missing", "--output-format", "json")
    assert missing.returncode == 3
    found = json.loads(missing.stdout)
    assert (found["status"], found["exit_code"]) == ("failed", 3)
    assert "database" in found["error"]
    for line in (refused.stderr, missing.stderr):
        assert line.count("\n") == 1
        assert "Traceback" not in line


def test_an_interrupt_while_connecting_is_exit_code_130():
    """Ctrl-C ends a ping to a server that never answers, with one line."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        dsn = f"postgresql://ava@127.0.0.1:{server.getsockname()[1]}/ava?sslmode=disable"
        with subprocess.Popen(
            [MAGNUS, "ping", "-d", dsn],
            env=environment(DB_CONNECT_TIMEOUT="60"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            server.settimeout(60)
            connection, _ = server.accept()
            with connection:
                connection.recv(1)
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "magnus: interrupted\n")


# --- magnus once


def test_the_table_of_once_is_made_printed_and_relieved(dsn):
    """Printed is what is run; run again it changes nothing; expiry says how much went, and that keys stay."""
    printed = magnus("once", "install", "--print")
    assert (printed.returncode, printed.stdout.strip()) == (0, once.table().strip())
    for _ in range(2):
        found = magnus("-d", dsn, "once", "install")
        assert (found.returncode, found.stdout.strip()) == (0, "magnus_once is there and up to date")
    found = magnus("-d", dsn, "once", "expire", "--days", "30")
    assert (found.returncode, found.stdout.strip()) == (0, "0 answers are gone; every key is kept")


@pytest.mark.one_version
def test_once_says_what_is_missing(dsn):
    """Without the table, with an impossible age, without a server: one line each, and the exit code of its kind."""
    missing = magnus("-d", dsn, "once", "expire")
    assert missing.returncode == 3
    assert "magnus once install" in missing.stderr
    assert magnus("-d", dsn, "once", "expire", "--days", "-1").returncode == 2
    assert magnus("-d", "postgresql://u@127.0.0.1:1/d", "once", "install").returncode == 3
