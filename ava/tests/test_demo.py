"""`ava demo` and `ava serve` from outside: what is printed, how they stop, how they fail on a database."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import asyncpg
import pytest

from ava.cli.demo import hints
from ava.tokens import demo_token
from tests.ava_service import Service, ava, ava_json, environment, get, served

pytestmark = pytest.mark.slow


@pytest.fixture
def data_dir():
    """A folder for the embedded server, which may run as another account and must be able to pass."""
    folder = Path(tempfile.mkdtemp(prefix="ava-demo-", dir="/tmp"))
    folder.chmod(0o711)
    yield folder / "pg"
    shutil.rmtree(folder)


# --- ava demo


def test_the_demo_shows_everything_and_the_second_start_reuses_the_data(data_dir):
    """First: start, migrate, load, drive, figures. Then: the data is found, and it is ready sooner."""
    arguments = ("demo", "--once", "--scale", "0.01", "--duration", "2", "--port", "0", "--data-dir", str(data_dir))
    arguments += ("--no-proof",)
    first = ava(*arguments, env=environment())
    assert first.returncode == 0, first.stderr
    said = first.stderr + first.stdout
    for words in (
        r"PostgreSQL 18\S* started in \d", "applied migration 0001_ledger", r"loaded 10,000 trades of 10 accounts",
        r"first readiness 200 after \d", "drove the mixed workload", "curl http", "/docs", "queries", "pool",
        "slow_query_log|no statement took longer than 100 ms",
    ):  # fmt: skip
        assert re.search(words, said), f"{words} not in:\n{said}"
    second = ava(*arguments, env=environment())
    assert second.returncode == 0, second.stderr
    assert "found 10,000 trades" in second.stderr
    assert "applied migration" not in second.stderr
    for found in (first, second):
        sys.stderr.write("\n".join(re.findall(r".* in \d+\.\d s|first readiness.*", found.stderr)) + "\n")
    assert ava_json("audit", "--data-dir", str(data_dir), env=environment())["is_clean"]


def test_the_demo_serves_on_until_a_signal_and_then_exits_0(data_dir):
    """After the figures the API answers; `ava audit` may look at the same data meanwhile; SIGINT drains."""
    arguments = ("demo", "--scale", "0.001", "--duration", "1", "--no-proof", "--data-dir", str(data_dir))
    with Service(*arguments, env=environment()) as service:
        service.wait_for("Serving on")
        command = next(line for line in service.lines if "Bearer" in line)
        url, token = (re.search(pattern, command)[1] for pattern in (r"(http://\S+)", r"Bearer (\w[\w-]*)"))
        assert get(url, token)[0] == 200
        report = ava_json("audit", "--data-dir", str(data_dir), env=environment())
        assert report["is_clean"]
        service.signal(signal.SIGINT)
        assert service.wait() == 0
    assert not (data_dir / "data" / "postmaster.pid").exists()


def test_the_demo_stopped_while_it_drives_exits_0_and_leaves_no_process(data_dir):
    """The workload's process ends with it, and so does PostgreSQL."""
    arguments = ("demo", "--scale", "0.001", "--duration", "600", "--data-dir", str(data_dir))
    with Service(*arguments, env=environment()) as service:
        service.wait_for("progress:")
        service.signal(signal.SIGTERM)
        assert service.wait() == 0
    assert not (data_dir / "data" / "postmaster.pid").exists()


def test_the_demo_serves_while_it_measures_before_and_after_and_stops_at_once(data_dir):
    """The measurement's own servers and processes are gone with it."""
    arguments = ("demo", "--scale", "0.001", "--duration", "1", "--data-dir", str(data_dir))
    with Service(*arguments, env=environment()) as service:
        service.wait_for("before/after: loading AVA's data")
        service.wait_for("before/after: before can do", timeout=120.0)
        children = descendants(service.process.pid)
        assert any("ava.proof" in words for words in children.values())
        url = service.wait_for(r"first readiness 200 after .* on (http://\S+)")[1]
        assert get(f"{url}/api/health/readiness")[0] == 200
        service.signal(signal.SIGINT)
        assert service.wait() == 0
        assert "Traceback" not in "\n".join(service.lines)
    assert not [words for pid, words in descendants(1).items() if pid in children]
    assert not (data_dir / "data" / "postmaster.pid").exists()


def descendants(of: int) -> dict[int, str]:
    """
    Processes below one, with their command lines.
    """
    parents, words = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    found: dict[int, str] = {}
    new = {of}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new and pid not in found}
        found |= {pid: words.get(pid, "") for pid in new}
    return found


def test_the_demo_stopped_while_it_loads_says_so_and_can_be_started_again(data_dir):
    """A half-loaded database is none: the next run loads it whole."""
    arguments = ("--scale", "0.2", "--data-dir", str(data_dir))
    with Service("demo", *arguments, env=environment()) as service:
        service.wait_for(r"trades: \d+ %")
        service.signal(signal.SIGINT)
        assert service.wait() == 128 + signal.SIGINT
        assert service.lines[-1] == "ava: interrupted"
    assert not (data_dir / "data" / "postmaster.pid").exists()
    loaded = ava("load", "--scale", "0.001", "--data-dir", str(data_dir), env=environment())
    assert loaded.returncode == 0, loaded.stderr
    assert "loaded 1,000 trades" in loaded.stderr


def test_what_is_offered_can_be_pasted():
    """The health commands, the figures, and one request with a token."""
    lines = hints("http://127.0.0.1:8000", 42)
    assert any(line.endswith("curl -i http://127.0.0.1:8000/api/health/liveness") for line in lines)
    assert any(f"Bearer {demo_token(42, 1)}" in line for line in lines)
    assert lines[-1].startswith("Serving on")


# --- ava serve


@pytest.mark.one_version
def test_serve_answers_and_exits_0_on_sigterm(loaded):
    """The mission's commands work as written; the stop is a clean one."""
    with served(loaded.owner) as service:
        assert get(f"{service.url}/api/health/liveness") == (200, b'{"status":"alive"}')
        assert get(f"{service.url}/api/health/readiness")[0] == 200
        assert b"pool_stats" in get(f"{service.url}/api/health/stats")[1]
        assert get(f"{service.url}/api/positions")[0] == 401
        service.signal(signal.SIGTERM)
        assert service.wait() == 0


@pytest.mark.one_version
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_drain_is_seen_by_probes_before_the_port_closes(loaded, number):
    """Readiness says draining while requests are still served; liveness stays."""
    with served(loaded.owner, "--notice", "2") as service:
        assert get(f"{service.url}/api/health/readiness")[0] == 200
        service.signal(number)
        deadline = time.monotonic() + 10
        while (answer := get(f"{service.url}/api/health/readiness"))[0] == 200 and time.monotonic() < deadline:
            continue
        assert answer == (503, b'{"status":"not_ready","reason":"draining"}')
        assert get(f"{service.url}/api/health/liveness")[0] == 200
        assert service.wait() == 0


@pytest.mark.one_version
def test_a_second_signal_ends_sooner(loaded):
    """It does not wait out the notice, and says that it was cut short."""
    with served(loaded.owner, "--notice", "600") as service:
        assert get(f"{service.url}/api/health/liveness")[0] == 200
        service.signal(signal.SIGINT)
        deadline = time.monotonic() + 10
        while get(f"{service.url}/api/health/readiness")[0] == 200 and time.monotonic() < deadline:
            continue
        service.signal(signal.SIGINT)
        assert service.wait() == 130


@pytest.mark.one_version
def test_a_reader_that_goes_away_does_not_end_the_service(loaded):
    """Piped into something that ends, it serves on, and a signal still drains it to exit status 0."""
    env = environment(DATABASE_URL=loaded.owner)
    reading, writing = os.pipe()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ava.cli", "serve", "--port", str(port), "--notice", "0"]
    with subprocess.Popen(command, stdout=writing, stderr=writing, env=env) as process:
        os.close(writing)
        with os.fdopen(reading) as output:
            assert any("http://" in line for line in output)
        get(f"http://127.0.0.1:{port}/api/trades", token=demo_token(42, 1))  # a dependency may use a thread
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


@pytest.mark.one_version
def test_no_traceback_in_any_output_of_a_clean_run(loaded):
    """Start, one request, stop: lines, and none of them is an error."""
    with served(loaded.owner) as service:
        get(f"{service.url}/api/health/stats")
        service.signal(signal.SIGTERM)
        service.wait()
        assert not [line for line in service.lines if "Traceback" in line or '"level": "error"' in line]


def test_without_migrating_the_service_starts_while_the_database_is_away():
    """Readiness tells; nothing crashes."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dsn = f"postgresql://ava@127.0.0.1:{unused.getsockname()[1]}/ava"
        with served(dsn, "--no-migrate") as service:
            assert get(f"{service.url}/api/health/liveness")[0] == 200
            status, body = get(f"{service.url}/api/health/readiness")
            assert status == 503
            assert b"not_ready" in body
            service.signal(signal.SIGTERM)
            assert service.wait() == 0


# --- failures on a database


def failed(dsn: str, command: str = "migrate") -> tuple[int, str]:
    """
    The exit code and the one line of a command that cannot work.
    """
    found = ava(*command.split(), env=environment(DATABASE_URL=dsn, DB_CONNECT_TIMEOUT="3"))
    assert found.stdout == ""
    assert found.stderr.count("\n") == 1, found.stderr
    assert found.stderr.startswith("ava: ")
    return found.returncode, found.stderr


@pytest.mark.one_version
@pytest.mark.parametrize("command", ["migrate", "audit", "serve --port 0"])
def test_a_wrong_password_is_one_line_and_exit_3(server, database, command):
    """The line says so and does not repeat the password."""
    dsn = server.dsn(database=database, is_tcp=True)
    wrong = re.sub(r"://postgres:[^@]*@", "://postgres:wr0ng@", dsn)
    assert wrong != dsn
    code, line = failed(wrong, command)
    assert code == 3
    assert "password" in line
    assert "wr0ng" not in line


@pytest.mark.one_version
def test_an_unknown_database_is_one_line_and_exit_3(server):
    """The line names it."""
    code, line = failed(server.dsn(database="nowhere"))
    assert code == 3
    assert "nowhere" in line


async def test_a_schema_from_the_future_is_refused(migrated):
    """A newer AVA was here: exit 4, and nothing is changed."""
    con = await asyncpg.connect(migrated.superuser)
    await con.execute("insert into ava_migrations (version, name, sha256) values (99, 'later', repeat('0', 64))")
    await con.close()
    for command in ("migrate", "serve --port 0", "audit", "load --scale 0.001"):
        code, line = failed(migrated.owner, command)
        assert code == 4
        assert "newer" in line


async def test_a_user_who_may_not_make_roles_is_told_what_a_superuser_runs(databases, server):
    """One line with the SQL; exit 3. In a cluster of its own the roles are not there."""
    await server.create_role("humble")
    with databases.fresh(owner="humble") as name:
        con = await asyncpg.connect(server.dsn(database=name))
        has_roles = await con.fetchval("select to_regrole('ava_account') is not null")
        await con.close()
        code, line = failed(server.dsn(user="humble", database=name))
    assert code == 3
    assert "superuser" in line
    assert ("GRANT" if has_roles else "CREATE ROLE") in line


@pytest.mark.one_version
def test_tables_that_are_not_there_are_asked_for(bare):
    """An audit of an empty database says what to do."""
    code, line = failed(bare.owner, "audit")
    assert code == 4
    assert "migrate" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_data_folder_without_permission_is_one_line(tmp_path):
    """Exit 3 and the folder's name."""
    tmp_path.chmod(0o500)
    found = ava("audit", "--data-dir", str(tmp_path / "pg"), env=environment())
    tmp_path.chmod(0o700)
    assert found.returncode == 3
    assert found.stderr.count("\n") == 1
    assert str(tmp_path) in found.stderr


def test_a_full_disk_is_one_line():
    """On a device that is always full."""
    found = ava("audit", "--data-dir", "/dev/full/pg", env=environment())
    assert found.returncode == 3
    assert found.stderr.count("\n") == 1


# --- tokens


@pytest.mark.one_version
async def test_a_new_token_is_printed_once_and_works(loaded):
    """Only its digest is stored; the API takes it."""
    made = ava("token", "create", "2", "--label", "laptop", env=environment(DATABASE_URL=loaded.owner))
    assert made.returncode == 0, made.stderr
    token = made.stdout.strip()
    assert token.startswith("ava_")
    con = await asyncpg.connect(loaded.superuser)
    rows = await con.fetch("select account_id, token_sha256::text as kept from api_tokens where label = 'laptop'")
    await con.close()
    assert [row["account_id"] for row in rows] == [2]
    assert token not in rows[0]["kept"]
    with served(loaded.owner) as service:
        status, body = get(f"{service.url}/api/account", token)
        assert (status, json.loads(body)["id"]) == (200, 2)


@pytest.mark.one_version
@pytest.mark.parametrize(
    ("arguments", "words"), [(("999999",), "no account 999999"), (("1", "--label", "x" * 201), "--label")]
)
def test_a_token_for_nobody_is_refused(loaded, arguments, words):
    """Exit 2; nothing is stored."""
    made = ava("token", "create", *arguments, env=environment(DATABASE_URL=loaded.owner))
    assert (made.returncode, made.stdout) == (2, "")
    assert words in made.stderr


# --- audit


@pytest.mark.one_version
async def test_a_cent_too_much_is_found(loaded):
    """Exit 1 and the account."""
    env = environment(DATABASE_URL=loaded.owner)
    assert ava("audit", env=env).returncode == 0
    con = await asyncpg.connect(loaded.superuser)
    await con.execute("update cash set balance = balance + 0.01 where account_id = 1")
    await con.close()
    found = ava("audit", env=env)
    assert found.returncode == 1
    assert "account 1" in found.stdout
    assert "Traceback" not in found.stderr
