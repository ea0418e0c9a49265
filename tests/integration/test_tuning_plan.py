"""`magnus plan` and `magnus role` on a real server, as a user types them; and the facts that they are made of."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from unittest import mock
from urllib.parse import urlsplit

import asyncpg
import pytest

from magnus import cli, sql
from magnus.config import DatabaseConfig
from magnus.embedded import throwaway
from magnus.embedded._account import server_account
from magnus.errors import TuningError
from magnus.tuning import collect, host, targets
from magnus.tuning.facts import Context, Facts, Server
from magnus.tuning.plan import Kind, Plan, State, diff
from magnus.tuning.planner import make_plan
from magnus.tuning.roles import settings_for
from magnus.tuning.setting import LIST_SETTINGS
from magnus.tuning.targets import Name
from tests.servers import binaries_or_skip
from tests.tuning_facts import host as machine
from tests.unit.tuning.test_quoting import EVIL, TARGET

MAGNUS = Path(sys.executable).with_name("magnus")
STREAMING = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
TOLD = ("--memory", "2GB", "--cpus", "4", "--storage", "ssd", "--pooler", "pgbouncer:10")


class Ran(NamedTuple):
    """
    What a command answered.
    """

    returncode: int
    stdout: str
    stderr: str


def magnus(*arguments: str) -> Ran:
    """
    Run the command line in a thread of its own, where it may have its own event loop.
    """
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("PG", "DB_", "MAGNUS", "DATABASE"))}
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, {**kept, "COLUMNS": "200"}, clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        code = pool.submit(cli.main, arguments).result(120)
    return Ran(int(code), out.getvalue(), err.getvalue())


async def read(dsn: str) -> Server:
    con = await collect.open_session(DatabaseConfig(dsn=dsn), {})
    try:
        return (await collect.read_server(con))[0]
    finally:
        await con.close()


@pytest.fixture
def bare(pg_version):
    """
    A server of one's own as initdb leaves it, without preloaded libraries.
    """
    with throwaway(binaries_or_skip(pg_version), settings={"shared_preload_libraries": ""}) as cluster:
        yield cluster


@pytest.fixture
async def superuser(dsn):
    """
    A superuser's connection to the test's database.
    """
    con = await asyncpg.connect(dsn)
    yield con
    await con.close()


@pytest.fixture
async def roles(superuser, server, database):
    """
    Makes roles with passwords for TCP; drops them with what they own and were granted.
    """
    made: list[str] = []

    async def make(name: str, *, login: bool = True) -> str:
        if login:
            await superuser.execute(f'DROP ROLE IF EXISTS "{name}"; CREATE ROLE "{name}" LOGIN PASSWORD \'secret\'')
        else:
            await superuser.execute(f"ALTER ROLE \"{name}\" PASSWORD 'secret'")
        made.append(name)
        return f"postgresql://{name}:secret@127.0.0.1:{server.port}/{database}"

    yield make
    for name in made:
        await superuser.execute(f'DROP OWNED BY "{name}"; DROP ROLE "{name}"')


# --- facts ------------------------------------------------------------------------------------------------------------


async def test_facts_are_those_of_the_server(dsn, server, database, pg_version):
    """Identity, settings with unit and source, sizes, extensions; read only, in one go."""
    found = await read(dsn)
    assert found.major == pg_version
    assert len(found.system_identifier) > 10
    assert (found.database, found.is_standby, found.managed) == (database, False, None)
    assert found.data_directory == str(server.data)
    assert (found.port, found.host) == (server.port, str(server.socket_folder))
    assert found.permissions.is_superuser
    assert found.preload == ("pg_stat_statements", "auto_explain")
    assert found.settings["shared_buffers"].text == "128MB"
    assert found.settings["max_connections"].source == "configuration file"
    assert found.settings["max_connections"].sourcefile
    assert found.extension("pg_stat_statements")
    assert found.databases[database]
    assert found.shared_memory_size
    assert found.shared_memory_size > 128 << 20
    assert found.wal_bytes_per_15min is not None


async def test_the_readers_own_limits_do_not_pass_for_the_servers(dsn, superuser, database):
    """Nor does a value of the database that it reads in."""
    await superuser.execute(f"ALTER DATABASE {database} SET work_mem = '77MB'")
    found = await read(dsn)
    assert found.settings["statement_timeout"].value == "0"
    assert found.settings["lock_timeout"].value == "0"
    assert found.settings["work_mem"].text == "4MB"
    own = [(s.name, s.value) for s in found.role_settings if s.database == database]
    assert own == [("work_mem", "77MB")]


async def test_list_settings_are_those_of_this_version(superuser):
    """Each takes several items, and no other text setting does: the server has no list of them, so all are tried."""
    rows = await superuser.fetch(
        "SELECT name FROM pg_settings WHERE vartype = 'string' AND context <> 'internal' AND name <> ALL ($1)",
        ["data_directory", "config_file", "hba_file", "ident_file"],
    )
    taken = {row["name"] for row in rows if await takes_items(superuser, row["name"])}
    assert taken == LIST_SETTINGS & {row["name"] for row in rows}


async def takes_items(superuser: asyncpg.Connection, name: str) -> bool:
    try:
        await superuser.execute(f"ALTER SYSTEM SET {name} = 'a', 'b'")
    except asyncpg.PostgresError as error:
        return "takes only one argument" not in str(error) and "cannot be changed" not in str(error)
    else:
        return True
    finally:
        with contextlib.suppress(asyncpg.PostgresError):
            await superuser.execute(f"ALTER SYSTEM RESET {name}")


async def test_reading_waits_for_nobody(dsn, superuser):
    """A lock on a catalogue ends the look at it after a tenth of a second; the facts are there all the same."""
    async with superuser.transaction():
        await superuser.execute("LOCK TABLE pg_catalog.pg_extension IN ACCESS EXCLUSIVE MODE")
        async with asyncio.timeout(60):
            found = await read(dsn)
    assert found.extensions[found.database] == ()
    assert found.settings


async def test_any_role_may_read_what_it_may(roles):
    """Without pg_monitor the rest is not known, and the plan says which grant brings it."""
    dsn = await roles("tune_nobody")
    found = await read(dsn)
    assert not found.permissions.is_monitor
    assert found.data_directory is None
    assert found.settings["work_mem"].text == "4MB"
    assert found.settings["work_mem"].sourcefile is None
    plan = make_plan(Facts(found, machine()))
    assert any("pg_monitor" in warning for warning in plan.warnings)


async def test_the_process_of_a_local_server_is_recognised(dsn, tcp_dsn):
    """By socket and by loopback; a stranger's number is not."""
    for target in (dsn, tcp_dsn):
        con = await collect.open_session(DatabaseConfig(dsn=target), {})
        _, session = await collect.read_server(con)
        assert host.is_process_here(host.read_text, session.pid, session.client_port)
        assert not host.is_process_here(host.read_text, os.getpid(), session.client_port)
        await con.close()


@contextlib.asynccontextmanager
async def relay(port: int):
    """
    A port that leads to another one, as a tunnel or a pooler does.
    """

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.one_version
async def test_behind_a_tunnel_the_machine_is_asked_for(tcp_dsn, server):
    """The server may be anywhere: this machine's memory is not taken for its own."""
    async with relay(server.port) as port:
        dsn = tcp_dsn.replace(f":{server.port}/", f":{port}/")
        out = (await asyncio.to_thread(magnus, "plan", "-d", f"{dsn}?sslmode=disable", "--storage", "ssd")).stdout
    assert "memory not known, CPUs not known, ssd (--storage)" in out
    assert (
        "warning: the server was not found on this machine, so what it may use is not known: tell it with --memory"
        in out
    )
    assert "random_page_cost" in out
    assert "shared_buffers  128MB stays" in out
    assert "memory proof" not in out


@pytest.fixture
def standby(bare, tmp_path):
    """
    The DSN of a streaming standby of `bare`, made by a copy at rest.
    """
    programs = Path(f"/proc/{bare.pid}/exe").resolve().parent
    account = server_account()
    data = (bare.folder if account.is_other else tmp_path) / "standby"

    def run(*command: str | Path) -> None:
        subprocess.run(command, check=True, capture_output=True, timeout=120, cwd="/", **account.spawn_arguments())

    bare.stop_blocking()
    data.mkdir()
    account.own(data, 0o700)
    run("cp", "-a", f"{bare.data}/.", data)
    bare.start_blocking()
    primary = f"host={bare.socket_folder} port={bare.port} user=postgres application_name=reserve"
    run("sh", "-c", f"echo \"primary_conninfo = '{primary}'\" >> {data}/postgresql.conf; touch {data}/standby.signal")
    port = bare.port + 1
    options = f"-p {port} -k {bare.socket_folder} -c listen_addresses="
    run(programs / "pg_ctl", "-D", data, "-w", "-l", data / "log", "-o", options, "start")
    yield f"postgresql://postgres@/postgres?host={bare.socket_folder}&port={port}"
    run(programs / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")


async def test_standbys_are_seen_from_both_ends(bare, standby):
    """The primary names who must go first; the standby is known as one, and nothing is to be made on it."""
    con = await asyncpg.connect(bare.dsn())
    async with asyncio.timeout(60):
        while not await con.fetchval(STREAMING):  # noqa: ASYNC110  # the server tells nobody
            await asyncio.sleep(0.05)
    await con.close()
    primary = await read(bare.dsn())
    assert [follower.name for follower in primary.standbys] == ["reserve"]
    plan = make_plan(Facts(primary, machine(2 << 30, cpus=32), pooler=magnus_pooler()))
    assert plan.order[0].startswith("on each standby (reserve): set max_worker_processes = 33")
    found = await read(standby)
    assert found.is_standby
    assert found.system_identifier == primary.system_identifier
    follower = make_plan(Facts(found, machine(2 << 30), pooler=magnus_pooler()), slow_log_sql="SELECT 1")
    assert {change.kind for change in follower.changes} == {Kind.SETTING}
    out = (await asyncio.to_thread(magnus, "plan", "-d", standby, *TOLD)).stdout
    assert "PostgreSQL" in out
    assert "  standby, " in out
    assert "warning: this server is a standby" in out


async def test_a_server_that_is_too_old_is_refused(dsn, monkeypatch):
    """With its version, before anything is asked that it does not know."""
    con = await collect.open_session(DatabaseConfig(dsn=dsn), {})
    old = con.get_server_version()._replace(major=14)
    monkeypatch.setattr(type(con), "get_server_version", lambda _: old)
    with pytest.raises(TuningError, match="PostgreSQL 14 is too old"):
        await collect.read_server(con)
    await con.close()
    found = magnus("plan", "-d", dsn)
    assert (found.returncode, found.stdout, found.stderr.count("\n")) == (4, "", 1)


# --- the plan ---------------------------------------------------------------------------------------------------------


async def test_a_plan_applied_by_its_own_sql_is_done(bare, pg_version):
    """Every statement is accepted; after reload and restart nothing is left to plan; undone, all is as it was."""
    await bare.create_database("ava")
    dsn = bare.dsn(database="ava")
    con = await asyncpg.connect(dsn)
    await con.execute("CREATE ROLE app LOGIN")
    before = {row["name"]: row["setting"] for row in await con.fetch("SELECT name, setting FROM pg_settings")}
    script = sql.text("slow_query_log")
    told = machine(1 << 30, wal_free=50 << 30)
    few = magnus_pooler()
    plan = make_plan(Facts(await read(dsn), told, pooler=few), slow_log_sql=script)
    assert {change.kind for change in plan.changes} == {Kind.SETTING, Kind.EXTENSION, Kind.ROLE_SETTING, Kind.TABLE}
    assert {change.context for change in plan.changes} == set(Context)
    for change in plan.changes:
        for statement in change.sql:
            await con.execute(statement)
    await con.close()
    await bare.stop()
    await bare.start()
    found = await read(dsn)
    states = diff(plan, found)
    assert set(states.values()) == {State.DONE}, states
    assert not make_plan(Facts(found, told, pooler=few), slow_log_sql=script).changes
    con = await asyncpg.connect(dsn)
    assert await con.fetchval("SELECT count(*) FROM pg_stat_statements") >= 0
    for change in reversed(plan.changes):
        for statement in change.undo:
            await con.execute(statement)
    await con.close()
    await bare.stop()
    await bare.start()
    con = await asyncpg.connect(dsn)
    after = {row["name"]: row["setting"] for row in await con.fetch("SELECT name, setting FROM pg_settings")}
    await con.close()
    assert after == before
    assert set(diff(plan, await read(dsn)).values()) == {State.PENDING}
    assert pg_version == found.major


def magnus_pooler():
    from magnus.tuning.facts import Pooler

    return Pooler("pgbouncer", 10)


async def test_a_configuration_file_starts_the_server(bare):
    """The conf output, included, gives the planned values."""
    plan = make_plan(Facts(await read(bare.dsn()), machine(1 << 30), pooler=magnus_pooler()))
    text = targets.render(plan, Name.CONF)
    await bare.stop()
    conf = bare.data / "postgresql.conf"
    conf.write_text(conf.read_text() + "\n" + text)
    await bare.start()
    found = await read(bare.dsn())
    settings = replace(plan, changes=tuple(change for change in plan.changes if change.kind is Kind.SETTING))
    assert set(diff(settings, found).values()) == {State.DONE}


async def test_values_of_any_kind_arrive_as_they_are(superuser):
    """ALTER SYSTEM stores quotes, backslashes and comments as the value, and nothing of them runs."""
    for value in EVIL:
        change = make_change(value)
        (statement,) = (
            line for line in targets.render(Plan(TARGET, (change,)), Name.ALTER_SYSTEM).split("\n")
            if line.startswith("ALTER")
        )  # fmt: skip
        await superuser.execute(statement)
        stored = "SELECT setting FROM pg_file_settings WHERE name = 'log_line_prefix' ORDER BY seqno DESC LIMIT 1"
        assert await superuser.fetchval(stored) == value
    await superuser.execute("ALTER SYSTEM RESET log_line_prefix")


def make_change(value: str):
    from magnus.tuning.plan import Change

    return Change("setting:log_line_prefix", Kind.SETTING, "log_line_prefix", "", value, (), (), reason=value)


def test_the_installed_command_plans(dsn):
    """As a user types it."""
    found = subprocess.run(
        [MAGNUS, "-d", dsn, "plan", "--only", "jit"], check=False, capture_output=True, text=True, timeout=120
    )
    assert (found.returncode, found.stderr) == (0, "")
    assert "on -> off" in found.stdout


def test_the_plan_for_people(dsn, database, pg_version):
    """Groups by when, reasons, the proof, what is not planned, and what to do next."""
    found = magnus("plan", "-d", dsn, *TOLD)
    assert (found.returncode, found.stderr) == (0, "")
    out = found.stdout
    assert f"{database}@" in out
    assert f"PostgreSQL {pg_version}." in out
    assert "planned for 2 GB (--memory), 4 CPUs (--cpus), ssd (--storage), oltp, 10 sessions (pgbouncer" in out
    order = [out.index(part) for part in ("\nnow:", "\nnew sessions:", "\nrestart:", "memory proof: holds", "\nPlan: ")]
    assert order == sorted(order)
    assert "shared_buffers" in out
    assert "128MB -> 512MB" in out
    assert "Note: not saved" in out
    assert "\x1b" not in out


@pytest.mark.one_version
def test_a_saved_plan_is_the_plan(dsn, tmp_path):
    """The file holds what was shown, under its digest; the words say how to apply it."""
    file = tmp_path / "plan.json"
    found = magnus("plan", "-d", dsn, *TOLD, "--out", str(file), "--output-format", "json")
    document = json.loads(found.stdout)
    assert (document["command"], document["status"], document["format_version"]) == ("plan", "ok", "1.0")
    saved = Plan.loads(file.read_text())
    assert document["plan"] == saved.to_json()
    assert saved.target.is_local
    text = magnus("plan", "-d", dsn, *TOLD, "--out", str(file)).stdout
    assert f"Apply exactly this: magnus apply {file}" in text
    assert Plan.loads(file.read_text()).digest[:12] in text


@pytest.mark.one_version
def test_a_plan_that_cannot_be_saved_is_one_line(dsn, tmp_path):
    """Exit code 2, and no half of a file."""
    found = magnus("plan", "-d", dsn, *TOLD, "--out", str(tmp_path / "none" / "plan.json"))
    assert (found.returncode, found.stdout) == (2, "")
    assert "--out" in found.stderr
    assert found.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.one_version
@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("--only", "quick-win-2"), 0), (("--only", "jit"), 1), (("--only", "jit", "--profile", "mixed"), 0)],
)
def test_the_detailed_exit_code_says_whether_there_are_changes(dsn, arguments, code):
    """1 with changes, 0 without."""
    assert magnus("plan", "-d", dsn, *TOLD, "--detailed-exitcode", *arguments).returncode == code


@pytest.mark.one_version
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--memory", "lots"), "--memory"), (("--memory", "1kB"), "--memory"), (("--cpus", "0"), "--cpus"),
        (("--storage", "tape"), "tape"), (("--profile", "fast"), "fast"), (("--pooler", ":5"), "--pooler"),
        (("--pooler", "x:0"), "--pooler"), (("--pooler", "x:y"), "--pooler"), (("--only", "wrok_mem"), "wrok_mem"),
        (("--target", "oracle"), "oracle"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_code_2(dsn, arguments, named):
    """It names the argument."""
    found = magnus("plan", "-d", dsn, *arguments)
    assert (found.returncode, found.stdout) == (2, "")
    assert named in found.stderr
    assert found.stderr.count("\n") == 1


@pytest.mark.one_version
def test_more_memory_than_there_is_is_not_believed(dsn):
    """For a local server the least of told and seen counts, and it is said."""
    out = magnus("plan", "-d", dsn, "--memory", "60TB", "--only", "memory").stdout
    assert "--memory 60 TB is more than the" in out
    assert "planned for 60 TB" not in out


@pytest.mark.parametrize("target", list(Name))
def test_every_output_is_for_its_reader(dsn, target):
    """Printed alone, ready for a file."""
    out = magnus("plan", "-d", dsn, *TOLD, "--target", str(target)).stdout
    mark = {"alter-system": "ALTER SYSTEM SET work_mem = '", "conf": "work_mem = '", "patroni": '    work_mem: "',
            "rds": '"ParameterName": "work_mem"'}[target]  # fmt: skip
    assert mark in out
    assert "considered and not planned" not in out


def test_the_list_is_judged_on_request(dsn):
    """Each of its settings, with the reason."""
    out = magnus("plan", "-d", dsn, *TOLD, "--explain-mission").stdout
    assert "max_connections = 200\n      dangerous: with work_mem 64MB, 200 sessions may take 12.5 GB" in out
    assert "wal_buffers = 16MB\n      changes nothing" in out
    document = json.loads(magnus("plan", "-d", dsn, *TOLD, "--explain-mission", "--output-format", "json").stdout)
    assert len(document["mission"]) == 19


def test_an_unreachable_server_is_exit_code_3():
    """One line, no password."""
    for command in (("plan",), ("role", "monitor")):
        found = magnus(*command, "-d", "postgresql://u:hunter2canary@127.0.0.1:1/x?sslmode=disable")
        assert (found.returncode, found.stdout) == (3, "")
        assert found.stderr.count("\n") == 1
        assert "hunter2canary" not in found.stderr


# --- roles ------------------------------------------------------------------------------------------------------------

DENIED = (
    "ALTER SYSTEM SET archive_command = 'touch /tmp/x'",
    "ALTER SYSTEM SET max_connections = 500",
    "ALTER SYSTEM SET listen_addresses = '*'",
    "ALTER SYSTEM RESET ALL",
    "CREATE EXTENSION pgstattuple",
    "CREATE ROLE evil SUPERUSER",
    "ALTER ROLE postgres PASSWORD 'x'",
    "SET ROLE postgres",
    "SELECT * FROM secrets",
    "DELETE FROM secrets",
    "DROP TABLE secrets",
    "COPY secrets TO '/tmp/x'",
    "COPY (SELECT 1) TO PROGRAM 'id'",
    "SELECT pg_read_file('postgresql.conf')",
    "SELECT rolpassword FROM pg_authid",
    "SELECT pg_stat_reset()",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres' LIMIT 1",
    "CREATE SCHEMA elsewhere",
)
FOR_TUNERS_ONLY = (
    "ALTER SYSTEM SET work_mem = '5MB'",
    "ALTER SYSTEM RESET work_mem",
    "SELECT pg_reload_conf()",
    "CHECKPOINT",
    "CREATE TABLE made_by_tuner (id bigint)",
)
ALLOWED = (
    "SELECT sourcefile FROM pg_settings WHERE sourcefile IS NOT NULL LIMIT 1",
    "SELECT * FROM pg_file_settings LIMIT 1",
    "SELECT query FROM pg_stat_activity WHERE usename = 'postgres' LIMIT 1",
    "SELECT * FROM pg_stat_replication",
    "SELECT pg_database_size('template1')",
    "SELECT setting FROM pg_settings WHERE name = 'data_directory'",
    "SELECT query FROM pg_stat_statements LIMIT 1",
)


@pytest.mark.parametrize("kind", ["monitor", "tuner"])
async def test_a_role_can_what_it_needs_and_nothing_else(dsn, superuser, roles, kind):
    """What should be denied is denied by 42501, on every version; check and plan need no superuser."""
    await superuser.execute("CREATE TABLE secrets (card text); REVOKE ALL ON SCHEMA public FROM PUBLIC")
    name = f"tune_{kind}"
    made = magnus("role", kind, "--apply", "--name", name, "-d", dsn)
    assert (made.returncode, made.stderr) == (0, "")
    assert f"Role {name} is ready" in made.stdout
    role_dsn = await roles(name, login=False)
    con = await asyncpg.connect(role_dsn)
    try:
        for statement in ALLOWED:
            assert await con.fetch(statement) is not None
        for statement in DENIED + (FOR_TUNERS_ONLY if kind == "monitor" else ()):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await con.execute(statement)
        for statement in FOR_TUNERS_ONLY if kind == "tuner" else ():
            await con.execute(statement)
        found = await read(role_dsn)
        for setting in settings_for(found):
            assert found.permissions.can_alter(setting) is (kind == "tuner"), setting
    finally:
        await con.close()
    assert found.permissions.is_monitor
    assert found.data_directory
    planned = magnus("plan", "-d", role_dsn, *TOLD)
    assert planned.returncode == 0
    assert ("may not ALTER SYSTEM" in planned.stdout) is (kind == "monitor")
    assert "pg_monitor" not in planned.stdout
    # Made again, nothing changes and nothing fails.
    assert magnus("role", kind, "--apply", "--name", name, "-d", dsn).returncode == 0


async def test_a_tuner_sets_every_planned_setting(dsn, superuser, roles):
    """With its grants alone; the extension and other roles' settings are a superuser's."""
    name = "tune_setter"
    assert magnus("role", "tuner", "--apply", "--name", name, "-d", dsn).returncode == 0
    role_dsn = await roles(name, login=False)
    plan = make_plan(Facts(await read(role_dsn), machine(1 << 30), pooler=magnus_pooler()))
    con = await asyncpg.connect(role_dsn)
    try:
        for change in plan.changes:
            if change.kind is Kind.SETTING:
                await con.execute(change.sql[0])
        for change in plan.changes:
            if change.kind is Kind.SETTING:
                await con.execute(change.undo[0])
    finally:
        await con.close()
        await superuser.execute("ALTER SYSTEM RESET ALL")


async def test_printed_statements_are_the_applied_ones(dsn):
    """Run by psql or by hand; nothing happens by printing."""
    found = magnus("role", "monitor", "--name", "tune_printed", "-d", dsn)
    assert found.returncode == 0
    assert 'CREATE ROLE "tune_printed" LOGIN;' in found.stdout
    assert "DROP OWNED BY" in found.stdout
    document = json.loads(
        magnus("role", "monitor", "--name", "tune_printed", "-d", dsn, "--output-format", "json").stdout
    )
    assert all(f"{item['sql']};" in found.stdout for item in document["statements"])
    assert document["applied"] is False
    assert "tune_printed" not in {role.name for role in (await read(dsn)).roles}


async def test_who_may_not_give_rights_changes_nothing(roles, dsn):
    """Exit code 3 with what to do; the transaction leaves no half of a role."""
    found = magnus("role", "monitor", "--apply", "--name", "tune_half", "-d", await roles("tune_weak"))
    assert (found.returncode, found.stdout) == (3, "")
    assert "superuser" in found.stderr
    assert "tune_half" not in {role.name for role in (await read(dsn)).roles}


def test_a_superuser_is_not_made_a_monitor(dsn, tcp_dsn):
    """It needs no grants, and should not be used for this."""
    found = magnus("role", "monitor", "--apply", "--name", urlsplit(tcp_dsn).username or "", "-d", dsn)
    assert found.returncode == 2
    assert "superuser" in found.stderr
