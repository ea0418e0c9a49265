"""A real local server: what it offers, how it starts and stops, who may use it."""

import asyncio
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from magnus.embedded import Cluster, ClusterError, _server, persistent, throwaway
from magnus.embedded._account import server_account
from magnus.embedded._folder import temporary_home
from tests.servers import binaries_or_skip

SOURCE = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture(scope="session")
def binaries(pg_version):
    """The programs of the version under test."""
    return binaries_or_skip(pg_version)


@pytest.fixture
def home():
    """A short folder that the server's account can pass."""
    with tempfile.TemporaryDirectory(dir=temporary_home(server_account())) as made:
        Path(made).chmod(0o711)
        yield Path(made)


@pytest.fixture
def cluster(home, binaries):
    """A stopped cluster of this test's own, with quick settings."""
    made = Cluster(home / "c", binaries, is_durable=False)
    yield made
    made.stop_blocking()


def uid_of(pid):
    """The account that a process runs as."""
    return Path(f"/proc/{pid}").stat().st_uid


def program_of(pid):
    """The file that a process runs."""
    return Path(f"/proc/{pid}/exe").readlink()


async def ask(dsn, sql, *args):
    """One value over a connection of its own."""
    con = await asyncpg.connect(dsn)
    try:
        return await con.fetchval(sql, *args)
    finally:
        await con.close()


async def test_a_first_start_makes_a_server_and_a_restart_keeps_its_data(cluster):
    """The same address, the same rows."""
    async with cluster:
        dsn = cluster.dsn()
        await ask(dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
        assert cluster.is_running
    assert not cluster.is_running

    async with cluster:
        assert cluster.dsn() == dsn
        assert await ask(dsn, "SELECT answer FROM kept") == 42


@pytest.mark.one_version
def test_it_works_without_an_event_loop(cluster):
    """Scripts and fixtures have none."""
    with cluster:
        first = cluster.pid
        cluster.restart_blocking()
        assert cluster.is_running
        assert cluster.pid != first
        assert asyncio.run(ask(cluster.dsn(), "SELECT 1")) == 1
    assert cluster.pid is None


@pytest.mark.one_version
async def test_starting_twice_and_stopping_twice_changes_nothing(cluster):
    """Both say how it shall be, not what to do."""
    await cluster.start()
    first = cluster.pid
    await cluster.start()
    assert cluster.pid == first
    await cluster.stop()
    await cluster.stop()
    assert not cluster.is_running


async def test_the_server_is_as_promised(cluster, pg_version):
    """UTF-8, checksums, universal time, the version asked for, and reachable on loopback only."""
    async with cluster, cluster.connect() as con:
        shown = {
            name: await con.fetchval(f"SHOW {name}")
            for name in ("server_encoding", "data_checksums", "timezone", "listen_addresses", "unix_socket_permissions")
        }
        assert shown == {
            "server_encoding": "UTF8",
            "data_checksums": "on",
            "timezone": "UTC",
            "listen_addresses": "127.0.0.1",
            "unix_socket_permissions": "0700",
        }
        assert con.get_server_version().major == pg_version == cluster.binaries.version
        assert await con.fetchval("SELECT upper('straße é') || lower('ÄÖ')") == "STRASSE Éäö".replace("SS", "ß")
        assert await con.fetchval("SELECT 'B' < 'a'"), "names sort by code point, the same on every machine"


async def test_statement_statistics_are_there_at_once(cluster):
    """The library is preloaded, the extension created, and the application's role may read other roles' statements."""
    async with cluster:
        await cluster.bootstrap("ava")
        await ask(cluster.dsn(database="ava"), "SELECT 'by the superuser' AS marker")
        text = await ask(
            cluster.dsn(user="ava", database="ava"),
            "SELECT query FROM pg_stat_statements WHERE query LIKE '%AS marker' AND query NOT LIKE '%LIKE%'",
        )
        assert text == "SELECT $1 AS marker"


async def test_plans_can_be_logged_at_once(cluster):
    """The library auto_explain is preloaded: setting it is enough."""
    logged = []
    async with cluster, cluster.connect() as con:
        con.add_log_listener(lambda _, message: logged.append(message.message))
        await con.execute("SET client_min_messages = log; SET auto_explain.log_min_duration = 0; SELECT 4711")
        await con.execute("SET auto_explain.log_min_duration = -1")

    assert any("Query Text" in message and "4711" in message for message in logged)


async def test_own_settings_hold_and_alter_system_outranks_them(home, binaries):
    """What an optimizer writes survives the next start of the cluster, which writes its own file anew."""
    cluster = Cluster(home / "c", binaries, max_connections=37, settings={"work_mem": "5MB"}, is_durable=False)
    async with cluster:
        assert await ask(cluster.dsn(), "SHOW max_connections") == "37"
        assert await ask(cluster.dsn(), "SHOW work_mem") == "5MB"
        assert await ask(cluster.dsn(), "SHOW fsync") == "off"
        await ask(cluster.dsn(), "ALTER SYSTEM SET work_mem = '7MB'")
        await cluster.restart()
        assert await ask(cluster.dsn(), "SHOW work_mem") == "7MB"


@pytest.mark.one_version
async def test_a_durable_cluster_writes_through(home, binaries):
    """Only throw-away clusters may lose data in a power cut."""
    async with Cluster(home / "c", binaries) as cluster:
        shown = [await ask(cluster.dsn(), f"SHOW {name}") for name in ("fsync", "full_page_writes")]
    assert shown == ["on", "on"]


async def test_loopback_asks_for_a_password(cluster, monkeypatch):
    """Without one, or with a wrong one, nobody comes in; with the right one the superuser and the roles do."""
    monkeypatch.setenv("PGPASSFILE", "/nowhere/pgpass")
    monkeypatch.delenv("PGPASSWORD", raising=False)
    async with cluster:
        await cluster.create_role("ava")
        where = {"host": "127.0.0.1", "port": cluster.port, "database": "postgres"}
        for user in ("postgres", "ava"):
            for password in (None, "", "wrong", cluster.password("somebody else")):
                with pytest.raises((asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError)):
                    await asyncpg.connect(**where, user=user, password=password)
            assert await ask(cluster.dsn(user=user, is_tcp=True), "SELECT current_user") == user


@pytest.mark.one_version
async def test_secrets_and_sockets_are_private(cluster):
    """The password's file and the socket's folder are closed to others, and the DSN by socket holds no secret."""
    async with cluster:
        assert cluster.password_file.stat().st_mode & 0o777 == 0o600
        assert cluster.socket_folder.stat().st_mode & 0o777 == 0o700
        assert cluster.data.stat().st_mode & 0o777 == 0o700
        assert cluster.log.stat().st_mode & 0o777 == 0o600
        assert cluster.password() not in cluster.dsn() + repr(cluster)


@pytest.mark.one_version
async def test_a_roles_password_is_never_written_down(cluster):
    """Neither in the log, with every statement logged, nor in the statistics."""
    async with cluster:
        await ask(cluster.dsn(), "ALTER SYSTEM SET log_statement = 'all'")
        await cluster.restart()
        await cluster.create_database("d", extensions=["pg_stat_statements"])
        await cluster.create_role("ava")
        seen = await ask(cluster.dsn(database="d"), "SELECT string_agg(query, ';') FROM pg_stat_statements")
        assert "ROLE" in seen
        assert "ROLE" in cluster.log.read_text()
        assert cluster.password("ava") not in seen + cluster.log.read_text()


async def test_bootstrap_can_be_repeated_and_gives_the_role_what_it_needs(cluster):
    """The role owns its database, may make roles and act as them, and is no superuser."""
    async with cluster:
        assert await cluster.bootstrap("ava")
        await ask(cluster.dsn(user="ava", database="ava"), "CREATE TABLE mine()")
        assert not await cluster.bootstrap("ava")

        con = await asyncpg.connect(cluster.dsn(user="ava", database="ava"))
        role = await con.fetchrow("SELECT * FROM pg_roles WHERE rolname = 'ava'")
        assert (role["rolsuper"], role["rolbypassrls"], role["rolcreaterole"]) == (False, False, True)
        assert await con.fetchval("SELECT to_regclass('mine') IS NOT NULL")
        await con.execute("CREATE ROLE ava_account NOLOGIN; GRANT ava_account TO ava; SET ROLE ava_account; RESET ROLE")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await con.execute("CREATE ROLE another SUPERUSER")
        await con.close()


async def test_a_role_is_brought_back_to_what_it_shall_be(cluster):
    """A password that somebody changed by hand is ours again after the next start of the application."""
    async with cluster:
        await cluster.create_role("ava")
        await ask(cluster.dsn(), "ALTER ROLE ava SUPERUSER PASSWORD 'changed'")
        await cluster.create_role("ava")
        assert await ask(cluster.dsn(user="ava", is_tcp=True), "SHOW is_superuser") == "off"


@pytest.mark.one_version
async def test_names_are_names_whatever_they_hold(cluster):
    """Quotes, spaces and non-ASCII letters in roles and databases."""
    name = 'o\'Neil "ä" /?&%'
    async with cluster:
        await cluster.bootstrap(name)
        for is_tcp in (False, True):
            dsn = cluster.dsn(user=name, database=name, is_tcp=is_tcp)
            assert await ask(dsn, "SELECT current_database()") == name
        await cluster.drop_database(name)
        await cluster.drop_database(name)


async def test_a_database_is_copied_from_a_template_and_dropped_under_its_users(cluster):
    """That is how every test gets a fresh one."""
    async with cluster:
        await cluster.create_database("template_x")
        await ask(cluster.dsn(database="template_x"), "CREATE TABLE t AS SELECT 1 AS x")
        assert await cluster.create_database("copy", template="template_x")
        con = await asyncpg.connect(cluster.dsn(database="copy"))
        assert await con.fetchval("SELECT x FROM t") == 1

        await cluster.drop_database("copy")

        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
            await con.fetchval("SELECT 1")
        con.terminate()


@pytest.mark.one_version
async def test_a_taken_port_is_left_to_its_owner(cluster):
    """The data are what counts: another port will do."""
    async with cluster:
        before = cluster.port
    with socket.create_server(("127.0.0.1", before)):
        async with cluster:
            assert cluster.port != before
            assert await ask(cluster.dsn(is_tcp=True), "SELECT 1") == 1


@pytest.mark.one_version
async def test_a_port_that_is_taken_at_the_last_moment_costs_another_try(cluster, monkeypatch):
    """Between the look and the server's own bind there is time for others."""
    async with cluster:
        before = cluster.port
    looks = iter([True])
    really = _server.is_free
    monkeypatch.setattr(_server, "is_free", lambda port: next(looks, None) or really(port))
    with socket.create_server(("127.0.0.1", before)):
        async with cluster:
            assert cluster.port != before


@pytest.mark.one_version
async def test_a_port_that_was_asked_for_is_not_replaced(home, binaries):
    """Somebody else expects it there."""
    port = _server.free_port()
    cluster = Cluster(home / "c", binaries, port=port, is_durable=False)
    async with cluster:
        assert cluster.port == port
    with socket.create_server(("127.0.0.1", port)):
        with pytest.raises(ClusterError, match=f"port {port} is taken") as caught:
            await cluster.start()
        assert caught.value.reason == "port"


async def test_a_setting_that_the_server_refuses_is_shown_in_its_words(home, binaries):
    """And the folder is free again for a better try."""
    bad = Cluster(home / "c", binaries, settings={"work_mem": "much"}, is_durable=False)
    with pytest.raises(ClusterError, match="invalid value for parameter") as caught:
        await bad.start()
    assert caught.value.log == bad.log
    assert "\n" not in str(caught.value).split("\n  ", maxsplit=1)[0]

    async with Cluster(home / "c", binaries, is_durable=False) as good:
        assert good.is_running


async def test_data_of_another_version_are_refused_and_untouched(home, binaries):
    """The message says what to do; nothing is deleted, nothing is converted."""
    async with Cluster(home / "c", binaries, is_durable=False) as cluster:
        await ask(cluster.dsn(), "CREATE TABLE kept AS SELECT 42 AS answer")
    newer = Cluster(home / "c", replace(binaries, version=99, release="99.1"))

    with pytest.raises(ClusterError, match=f"was made by PostgreSQL {binaries.version}, these programs are 99.1") as no:
        await newer.start()

    assert no.value.reason == "version"
    async with cluster:
        assert await ask(cluster.dsn(), "SELECT answer FROM kept") == 42


@pytest.mark.one_version
async def test_a_folder_with_other_files_is_refused_and_untouched(cluster):
    """It may be anything; it is not ours."""
    cluster.data.mkdir(parents=True)
    if os.geteuid() == 0:
        cluster.folder.chmod(0o711)
    (cluster.data / "letter.txt").write_text("dear")

    with pytest.raises(ClusterError, match="is not empty") as caught:
        await cluster.start()

    assert caught.value.reason == "not_empty"
    assert (cluster.data / "letter.txt").read_text() == "dear"


@pytest.mark.one_version
async def test_a_throwaway_is_gone_afterwards_and_survives_a_stop_in_between(binaries):
    """Stopping keeps the data, as everywhere; leaving the block removes them."""
    async with throwaway(binaries) as cluster:
        await ask(cluster.dsn(), "CREATE TABLE kept()")
        await cluster.stop()
        throwaway(binaries).discard_blocking()
        await cluster.start()
        assert await ask(cluster.dsn(), "SELECT to_regclass('kept') IS NOT NULL")
    assert not cluster.folder.exists()


@pytest.mark.one_version
async def test_a_throwaway_that_does_not_start_leaves_nothing(binaries):
    """Neither a folder nor a server."""
    cluster = throwaway(binaries, settings={"work_mem": "much"})
    with pytest.raises(ClusterError):
        async with cluster:
            pytest.fail("it must not start")
    assert not cluster.folder.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has an account to change from")
async def test_root_runs_the_server_as_somebody_else(cluster):
    """Data and processes belong to the unprivileged account, the password and the lock to root."""
    async with cluster:
        server = uid_of(cluster.pid)
        assert server == server_account().uid != 0
        assert cluster.data.stat().st_uid == server
        assert {path.stat().st_uid for path in (cluster.password_file, cluster.log, cluster.folder / "lock")} == {0}


@pytest.mark.one_version
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has folders that the server's account cannot enter")
async def test_programs_in_a_closed_folder_run_from_a_copy(home, binaries, monkeypatch):
    """A clone in root's home works, and the home's permissions stay as they are."""
    if binaries.anchor is None:
        pytest.skip("the system's packages are reachable for everybody")
    monkeypatch.setenv("MAGNUS_HOME", str(home / "magnus"))
    closed = home / "closed"
    binaries._copy_to(closed)
    closed.chmod(0o700)
    inside = replace(binaries, bindir=closed / binaries.bindir.relative_to(binaries.anchor), anchor=closed)
    cluster = persistent("c", inside)

    for _ in range(2):
        async with cluster:
            program = program_of(cluster.pid)
            assert program.is_relative_to(home / "magnus" / "binaries")
            assert await ask(cluster.dsn(), "SELECT 1") == 1
    assert closed.stat().st_mode & 0o777 == 0o700
    assert len(list((home / "magnus" / "binaries").iterdir())) == 1


@pytest.mark.one_version
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a home that the server's account cannot enter")
async def test_a_closed_folder_for_data_is_refused_clearly(home, binaries):
    """Opening it is for its owner to decide."""
    closed = home / "closed"
    closed.mkdir(mode=0o700)

    with pytest.raises(ClusterError, match="cannot enter") as caught:
        await Cluster(closed / "c", binaries).start()

    assert caught.value.reason == "permission"
    assert closed.stat().st_mode & 0o777 == 0o700


ORDINARY = """
import asyncio, json, os, sys
from magnus.embedded import Binaries, persistent
async def main():
    cluster = persistent("ava", Binaries.at(__import__("pathlib").Path(sys.argv[1])))
    async with cluster:
        await cluster.bootstrap("ava")
        async with cluster.connect(user="ava", database="ava") as con:
            answer = await con.fetchval("SELECT count(*) >= 0 FROM pg_stat_statements")
        print(json.dumps({"folder": str(cluster.folder), "answer": answer, "sockets": str(cluster.socket_folder),
                          "uid": os.stat(f"/proc/{cluster.pid}").st_uid}))
asyncio.run(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's run is itself this test")
@pytest.mark.parametrize("depth", [1, 120])
def test_an_ordinary_user_runs_it_from_their_own_data_folder(home, binaries, depth):
    """No rights are needed, and a path too long for a socket is no hindrance."""
    nobody = pwd.getpwnam("nobody")
    python = _python_for(nobody)
    data_home = home / ("d" * depth)
    data_home.mkdir()
    os.chown(data_home, nobody.pw_uid, nobody.pw_gid)
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    environ = {"XDG_DATA_HOME": str(data_home), "PYTHONPATH": os.pathsep.join([str(SOURCE), packages]), "HOME": "/none"}

    done = subprocess.run(
        [python, "-W", "error", "-c", ORDINARY, binaries.bindir],
        user=nobody.pw_uid,
        group=nobody.pw_gid,
        extra_groups=[],
        cwd="/",
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.stderr == ""
    found = json.loads(done.stdout)
    sockets = Path(found.pop("sockets"))
    assert found == {"folder": f"{data_home}/magnus/ava", "answer": True, "uid": nobody.pw_uid}
    assert sockets.is_relative_to(data_home) is (depth == 1)
    if depth > 1:
        sockets.rmdir()


def _python_for(account):
    """An interpreter like this one that the account may run."""
    name = f"python3.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{name}", f"/usr/local/bin/{name}"):
        try:
            check = [candidate, "-c", "import sys; sys.path.insert(0, sys.argv[1]); import asyncpg"]
            packages = next(path for path in sys.path if path.endswith("site-packages"))
            subprocess.run(
                [*check, packages], user=account.pw_uid, group=account.pw_gid, cwd="/", check=True, capture_output=True
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        return candidate
    return pytest.skip("no interpreter that another account may run")


@pytest.mark.one_version
@pytest.mark.skipif(os.geteuid() != 0, reason="needs a small file system of its own")
def test_a_full_disk_is_one_clear_error_and_leaves_no_half(home, binaries):
    """Nothing of the attempt stays, so that the next one finds the space."""
    small = home / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m,mode=0711", "tmpfs", small], check=False)
    if mounted.returncode:
        pytest.skip("no right to mount here")
    try:
        cluster = Cluster(small / "c", binaries)
        with pytest.raises(ClusterError, match="the disk is full") as caught:
            cluster.start_blocking()
        assert caught.value.reason == "disk_full"
        assert sorted(path.name for path in cluster.folder.iterdir()) == ["lock", "password"]
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.one_version
def test_stopping_is_bounded_when_sessions_do_not_end(home, binaries):
    """A server that does not hear is stopped the hard way; its data survive."""
    cluster = Cluster(home / "c", binaries, is_durable=False, stop_timeout=0.05)
    with cluster:
        os.kill(cluster.pid, signal.SIGSTOP)
        cluster.stop_blocking()
        assert not cluster.is_running
        cluster.start_blocking()
        assert asyncio.run(ask(cluster.dsn(), "SELECT 1")) == 1
