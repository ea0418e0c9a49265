"""A local server after accidents: killed servers, killed owners, interrupted starts, two owners at once."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest

from magnus.embedded import Binaries, Cluster, ClusterError, _postmaster, throwaway
from magnus.embedded._account import server_account
from magnus.embedded._folder import temporary_home
from tests.servers import binaries_or_skip

# A process of its own that holds a cluster: says so in one line of JSON, and ends when its input does.
OWNER = """
import asyncio, json, os, sys
from pathlib import Path
from magnus.embedded import Binaries, Cluster, ClusterError, throwaway
folder, bindir, mode = sys.argv[1:]
binaries = Binaries.at(Path(bindir))
if mode == "throwaway":
    cluster = throwaway(binaries)
else:
    cluster = Cluster(Path(folder), binaries, is_durable=False, can_share=mode == "share")

def say(**words):
    print(json.dumps(words), flush=True)

def facts():
    return dict(pid=cluster.pid, folder=str(cluster.folder), dsn=cluster.dsn(), shared=cluster.is_shared)

if mode == "drain":
    try:
        with cluster:
            say(**facts())
            sys.stdin.read()
    except KeyboardInterrupt:
        say(stopped=not cluster.is_running)
elif mode == "drain-async":
    async def main():
        async with cluster:
            say(**facts())
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                async with cluster.connect() as con:
                    say(drained=await con.fetchval("SELECT 1"))
                raise
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        say(stopped=not cluster.is_running)
else:
    try:
        cluster.start_blocking()
        say(**facts())
    except ClusterError as error:
        say(reason=error.reason, holder=error.pid, text=str(error))
    if mode == "fork":
        child = os.fork()
        if not child:
            try:
                cluster.start_blocking()
            except ClusterError as error:
                say(reason=error.reason, holder=error.pid)
            cluster.stop_blocking()
            sys.exit(0)
        os.waitpid(child, 0)
        say(running=cluster.is_running)
    sys.stdin.read()
"""


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


@pytest.fixture
def owner(home, binaries):
    """Starts processes that hold the test's cluster; those that are left are ended, and their servers with them."""
    started = []

    def start(mode="hold", bindir=binaries.bindir):
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", OWNER, home / "c", bindir, mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.stdin.close()
        process.wait(timeout=60)
        process.stdout.close()


def heard(process):
    """The next thing that an owner said."""
    return json.loads(process.stdout.readline())


@contextmanager
def bystander(account):
    """A process that runs as the server's account and has nothing to do with it."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, cwd="/", **account.spawn_arguments()) as process:
        yield process
        process.stdin.close()


def is_running(pid):
    """Whether a process lives; a dead one may stay visible where nobody reaps the orphans."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def ask(dsn, sql):
    """One value over a connection of its own."""
    con = await asyncpg.connect(dsn)
    try:
        return await con.fetchval(sql)
    finally:
        await con.close()


async def test_a_server_that_was_killed_with_all_its_processes_recovers(cluster):
    """What was committed is there; the left pid file and sockets are in nobody's way."""
    await cluster.start()
    await ask(cluster.dsn(), "CREATE TABLE kept AS SELECT 42 AS answer")
    os.killpg(cluster.pid, signal.SIGKILL)
    await asyncio.to_thread(_postmaster.wait_until, lambda: not cluster.is_running, 10.0)

    await cluster.start()

    assert await ask(cluster.dsn(), "SELECT answer FROM kept") == 42


async def test_a_backend_that_outlived_its_server_is_ended_before_the_next_start(cluster):
    """It may still write: two generations on the same data would destroy them."""
    await cluster.start()
    con = await asyncpg.connect(cluster.dsn())
    backend = con.get_server_pid()
    busy = asyncio.ensure_future(con.execute("DO 'BEGIN LOOP END LOOP; END'"))
    sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO %' AND state = 'active'"
    while not await ask(cluster.dsn(), sql):
        pass
    os.kill(cluster.pid, signal.SIGKILL)
    await asyncio.to_thread(_postmaster.wait_until, lambda: not cluster.is_running, 10.0)
    assert _postmaster.is_process_of(backend, cluster.data)

    await cluster.start()

    assert not _postmaster.is_process_of(backend, cluster.data)
    assert await ask(cluster.dsn(), "SELECT 1") == 1
    with pytest.raises((asyncpg.PostgresError, OSError)):
        await busy
    con.terminate()


async def test_a_pid_file_whose_number_is_somebody_elses_now_is_no_obstacle(cluster):
    """PostgreSQL itself would refuse to start; the other process, though of the same account, is left alone."""
    async with cluster:
        text = (cluster.data / "postmaster.pid").read_text()
    account = server_account(cluster.data)
    with bystander(account) as other:
        stale = cluster.data / "postmaster.pid"
        stale.write_text(f"{other.pid}\n" + text.split("\n", 1)[1])
        account.own(stale, 0o600)

        async with cluster:
            assert await ask(cluster.dsn(), "SELECT 1") == 1
            assert other.poll() is None


@pytest.mark.one_version
async def test_a_server_whose_owner_was_killed_is_replaced(cluster, owner):
    """The next start ends it in order and begins anew: the same data, settings as asked for, a new process."""
    process = owner()
    left = heard(process)
    await ask(left["dsn"], "CREATE TABLE kept AS SELECT 42 AS answer")
    process.kill()
    process.wait()
    assert cluster.pid == left["pid"], "it goes on without its owner"

    await cluster.start()

    assert cluster.pid != left["pid"]
    assert not _postmaster.is_process_of(left["pid"], cluster.data)
    assert cluster.dsn() == left["dsn"], "the address stays the same"
    assert await ask(cluster.dsn(), "SELECT answer FROM kept") == 42
    assert "not properly shut down" not in cluster.log.read_text()


@pytest.mark.one_version
def test_a_throwaway_whose_owner_was_killed_is_removed_by_the_next_one(binaries, owner):
    """Test machines do not fill with forgotten servers; those in use are left alone."""
    process = owner("throwaway")
    left = heard(process)
    used = throwaway(binaries)
    assert Path(left["folder"]).exists(), "it is in use"
    process.kill()
    process.wait()

    throwaway(binaries).discard_blocking()

    assert not Path(left["folder"]).exists()
    assert not is_running(left["pid"])
    assert used.folder.exists()
    used.discard_blocking()


async def test_half_a_data_folder_is_never_used(cluster, home, owner):
    """Its owner was killed while initdb worked: the half goes, and the next start makes a whole one."""
    reached = home / "reached"
    os.mkfifo(reached)
    reached.chmod(0o666)
    half_done = f'while [ "$1" != --pgdata ]; do shift; done; echo 18 > "$2/PG_VERSION"; echo $$ > {reached}'
    process = owner(bindir=imitation(home / "bin", f"{half_done}; exec sleep 1000").bindir)
    initdb = int(await asyncio.to_thread(reached.read_text))
    process.kill()
    process.wait()
    os.kill(initdb, signal.SIGKILL)
    (half,) = cluster.folder.glob("data.new-*/")
    assert (half / "PG_VERSION").exists()

    async with cluster:
        assert await ask(cluster.dsn(), "SELECT 1") == 1

    assert list(cluster.folder.glob("data.new-*")) == [], "the half is gone, and the password that initdb read"


@pytest.mark.one_version
async def test_a_second_owner_is_refused_and_told_who_has_it(cluster, owner):
    """From another process or from this one."""
    process = owner()
    first = heard(process)

    with pytest.raises(ClusterError, match=f"already served by process {process.pid}") as caught:
        await cluster.start()

    assert (caught.value.reason, caught.value.pid) == ("in_use", process.pid)
    assert cluster.pid == first["pid"]
    await cluster.stop()
    assert cluster.pid == first["pid"], "who did not start it does not stop it"


@pytest.mark.one_version
async def test_the_folder_is_free_as_soon_as_its_owner_stopped(cluster, home, binaries):
    """Two objects in one process take turns as two processes would."""
    other = Cluster(home / "c", binaries, is_durable=False)
    async with cluster:
        with pytest.raises(ClusterError, match=f"process {os.getpid()}"):
            await other.start()
    async with other:
        assert other.is_running


@pytest.mark.one_version
async def test_a_second_user_may_share_the_server(home, binaries, owner):
    """A load generator in a second terminal uses the server of the first, and does not stop it."""
    first = heard(owner())
    guest = Cluster(home / "c", binaries, can_share=True)
    async with guest:
        assert guest.is_shared
        assert guest.pid == first["pid"]
        assert await ask(guest.dsn(is_tcp=True), "SELECT 1") == 1
    assert guest.pid == first["pid"]
    await guest.discard()
    assert guest.pid == first["pid"]


@pytest.mark.one_version
def test_of_many_that_start_at_once_one_serves_and_the_others_share(owner):
    """On a folder that does not exist yet: one initdb, one server."""
    processes = [owner("share") for _ in range(3)]
    found = [heard(process) for process in processes]

    assert len({each["pid"] for each in found}) == 1
    assert len({each["dsn"] for each in found}) == 1
    assert sorted(each["shared"] for each in found) == [False, True, True]


@pytest.mark.one_version
def test_of_many_that_start_at_once_the_others_are_refused(owner):
    """Without leave to share: exactly one has it."""
    found = [heard(process) for process in [owner() for _ in range(3)]]

    assert sorted(each.get("reason", "started") for each in found) == ["in_use", "in_use", "started"]


@pytest.mark.one_version
def test_a_process_that_ends_without_stopping_takes_its_server_along(cluster, owner):
    """The interpreter's exit is the last chance."""
    process = owner()
    heard(process)
    process.stdin.close()
    process.wait(timeout=60)

    assert not cluster.is_running


@pytest.mark.one_version
def test_a_forked_copy_does_not_stop_its_parents_server(owner):
    """It holds the object, not the server: it may neither take it over nor end it, by its own exit included."""
    process = owner("fork")
    heard(process)

    assert heard(process) == {"reason": "in_use", "holder": process.pid}
    assert heard(process) == {"running": True}


@pytest.mark.one_version
def test_control_c_stops_it_in_order(cluster, owner):
    """The terminal signals the whole foreground group; the server is not in it, its owner stops it."""
    process = owner("drain")
    heard(process)
    os.killpg(process.pid, signal.SIGINT)

    assert heard(process) == {"stopped": True}
    assert "not properly shut down" not in cluster.log.read_text()


@pytest.mark.one_version
def test_control_c_lets_the_application_drain_first(owner):
    """Cleaning up may still ask the server."""
    process = owner("drain-async")
    heard(process)
    os.killpg(process.pid, signal.SIGINT)

    assert heard(process) == {"drained": 1}
    assert heard(process) == {"stopped": True}


def imitation(folder, initdb):
    """Programs that know a version and run `initdb` as told."""
    folder.mkdir()
    for name, text in (("postgres", "echo 'postgres (PostgreSQL) 18.6'"), ("initdb", initdb)):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return Binaries.at(folder)


async def test_a_cancelled_start_ends_its_programs_and_leaves_no_half(home):
    """The cancellation comes while initdb runs."""
    reached = home / "reached"
    os.mkfifo(reached)
    reached.chmod(0o666)
    cluster = Cluster(home / "c", imitation(home / "bin", f"echo $$ > {reached}; exec sleep 1000"))
    start = asyncio.ensure_future(cluster.start())
    pid = int(await asyncio.to_thread(reached.read_text))
    assert _postmaster.is_alive(pid)

    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start

    assert not _postmaster.is_alive(pid)
    assert sorted(path.name for path in cluster.folder.iterdir()) == ["lock", "password"]


@pytest.mark.one_version
async def test_a_cancelled_stop_still_stops(cluster):
    """Whoever gives up waiting does not leave a server behind."""
    await cluster.start()
    stop = asyncio.ensure_future(cluster.stop())
    await asyncio.sleep(0)
    stop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stop

    assert not cluster.is_running


@pytest.mark.one_version
async def test_a_cancelled_restart_request_does_not_stop_a_running_server(cluster):
    """Starting what runs does nothing, so there is nothing to take back."""
    await cluster.start()
    again = asyncio.ensure_future(cluster.start())
    await asyncio.sleep(0)
    again.cancel()
    await asyncio.gather(again, return_exceptions=True)

    assert cluster.is_running


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("initdb: error: could not write to file: No space left on device", "disk_full"),
        ("initdb: error: something unheard of", "initdb"),
    ],
)
async def test_a_failed_initdb_is_one_clear_error_and_leaves_no_half(home, words, reason):
    """The next attempt begins from nothing."""
    cluster = Cluster(home / "c", imitation(home / "bin", f"echo '{words}' >&2; exit 1"))

    with pytest.raises(ClusterError, match="data folder could not be made") as caught:
        await cluster.start()

    assert caught.value.reason == reason
    assert words in str(caught.value)
    assert sorted(path.name for path in cluster.folder.iterdir()) == ["lock", "password"]


async def test_an_older_locale_is_taken_when_the_machine_lacks_the_better_one(home):
    """Versions before 17 have no locales of their own."""
    calls = home / "calls"
    calls.touch()
    calls.chmod(0o666)
    initdb = f'echo "$@" >> {calls}; case "$*" in *=C.UTF-8*) echo \'invalid locale name\' >&2; exit 1;; esac; exit 7'
    (home / "bin").mkdir()
    for name, text in (("postgres", "echo 'postgres (PostgreSQL) 15.18'"), ("initdb", initdb)):
        (home / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (home / "bin" / name).chmod(0o755)

    with pytest.raises(ClusterError):
        await Cluster(home / "c", Binaries.at(home / "bin")).start()

    first, second = calls.read_text().splitlines()
    assert "--locale=C.UTF-8" in first
    assert "--locale=C" in second.split()
