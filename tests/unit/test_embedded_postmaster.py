"""What is left of a server: its pid file and its processes."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnus.embedded import _postmaster
from magnus.embedded._postmaster import PidFile

READY = "4711\n/data\n1700000000\n5433\n/run/x\n127.0.0.1\n  5432001         3\nready   \n"

only_with_proc = pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="needs /proc")


def test_a_ready_server_says_where_it_is():
    """All eight lines are there."""
    assert PidFile.parse(READY) == PidFile(pid=4711, port=5433, socket_folder="/run/x", is_ready=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("\n", None),
        ("abc\n", None),
        ("0\n", None),
        ("4711\n", PidFile(4711, None, None, is_ready=False)),
        ("-4711\n", PidFile(4711, None, None, is_ready=False)),
        ("4711\n/data\n17\n5433\n", PidFile(4711, 5433, None, is_ready=False)),
        ("4711\n/data\n17\n5433\n\n", PidFile(4711, 5433, None, is_ready=False)),
        (READY.replace("ready   ", "starting"), PidFile(4711, 5433, "/run/x", is_ready=False)),
        (READY.replace("ready   ", "stopping"), PidFile(4711, 5433, "/run/x", is_ready=False)),
        (READY.replace("ready   ", "standby "), PidFile(4711, 5433, "/run/x", is_ready=True)),
    ],
)
def test_a_file_that_is_being_written_is_read_as_far_as_it_goes(text, expected):
    """A postmaster adds its lines one after the other; a negative id is a single-user server's."""
    assert PidFile.parse(text) == expected


@given(st.text())
def test_no_text_makes_the_reader_fail(text):
    """The file is another account's."""
    assert PidFile.parse(text) is None or PidFile.parse(text).pid > 0


def test_no_file_is_no_server(tmp_path):
    """Nothing to stop, nothing to clean."""
    assert PidFile.read(tmp_path) is None
    assert _postmaster.running(tmp_path) is None


@only_with_proc
def test_a_process_id_that_somebody_else_has_now_is_not_a_server(tmp_path):
    """After a reboot the id in the file may be anybody's: ours, for example. It must not be signalled."""
    (tmp_path / "postmaster.pid").write_text(READY.replace("4711", str(os.getpid())))

    assert _postmaster.running(tmp_path) is None
    assert _postmaster.end(os.getpid(), tmp_path, signals=((signal.SIGURG, 1.0),))


@only_with_proc
def test_a_process_in_the_data_folder_is_its_own_until_it_is_dead(tmp_path):
    """A dead one that nobody reaped, as in a container without an init, does not count as alive."""
    child = subprocess.Popen(["cat"], cwd=tmp_path, stdin=subprocess.PIPE)
    assert _postmaster.is_process_of(child.pid, tmp_path)

    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    assert not _postmaster.is_process_of(child.pid, tmp_path)
    child.wait()


@only_with_proc
def test_only_postgres_counts_among_the_processes_of_a_data_folder(tmp_path):
    """A person's shell that stands in the folder is left alone."""
    program = tmp_path / "postgres"
    shutil.copy(shutil.which("cat"), program)
    with (
        subprocess.Popen([program], cwd=tmp_path, stdin=subprocess.PIPE) as server,
        subprocess.Popen(["cat"], cwd=tmp_path, stdin=subprocess.PIPE) as shell,
    ):
        assert _postmaster.wait_until(lambda: _postmaster.processes_of(tmp_path) == [server.pid], 5.0)
        server.stdin.close()
        shell.stdin.close()


@only_with_proc
def test_a_harder_signal_follows_when_the_softer_does_not_help(tmp_path):
    """The end is bounded."""
    deaf = "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        ["python3", "-c", deaf], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()

        assert not _postmaster.end(child.pid, tmp_path, signals=((signal.SIGINT, 0.02),))
        assert not _postmaster.end_child(child, signals=((signal.SIGINT, 0.02),))
        assert _postmaster.end_child(child, signals=((signal.SIGINT, 0.02), (signal.SIGKILL, 5.0)))
        assert _postmaster.end(child.pid, tmp_path, signals=((signal.SIGINT, 0.02),))
