"""What the trial is made of: the resulting configuration, and the numbers that a start does not prove."""

from __future__ import annotations

import pytest

from magnus.tuning import local, preflight
from magnus.tuning.candidate import candidate
from magnus.tuning.headroom import shortage
from magnus.tuning.units import GB, MB

KNOWN = ("work_mem", "jit", "shared_buffers", "archive_command")
FILES = [("work_mem", "4MB"), ("jit", "on"), ("work_mem", "5MB")]  # the last one is of postgresql.auto.conf


def test_the_last_word_of_the_files_and_the_changes_on_top():
    """As the server would read them after the change."""
    found = candidate(FILES, {"jit": "off"}, entries={"work_mem": "5MB"}, given={"port": "1"}, known=KNOWN)
    assert found.settings == {"work_mem": "5MB", "jit": "off"}
    assert found.changed == {"jit"}
    assert found.value("port") == "1"


def test_what_is_taken_out_falls_back_to_the_file_below():
    """RESET shows what postgresql.conf says."""
    found = candidate(FILES, {"work_mem": None}, entries={"work_mem": "5MB"}, given={}, known=KNOWN)
    assert found.settings["work_mem"] == "4MB"
    gone = candidate([("jit", "off")], {"jit": None}, entries={"jit": "off"}, given={}, known=KNOWN)
    assert "jit" not in gone.settings


@pytest.mark.parametrize(
    ("sessions", "work_mem", "is_short"),
    [(100, 10 * MB, False), (200, 64 * MB, True), (100, 64 * MB, True), (40, 64 * MB, False)],
)
def test_sessions_times_work_mem(sessions: int, work_mem: int, is_short: bool):  # noqa: FBT001
    """8 GB, 2 GB of them shared: the values that people copy from lists are too much."""
    settings = {
        "max_connections": sessions,
        "work_mem": work_mem,
        "autovacuum_max_workers": 3,
        "autovacuum_work_mem": 136 * MB,
    }
    assert (shortage(settings, 2 * GB, 8 * GB) is not None) == is_short


def test_nothing_of_the_server_reaches_the_trial():
    """What would archive, follow, listen or log elsewhere is cut off."""
    cut = preflight._CUT_OFF
    for name in ("archive_command", "archive_library", "restore_command", "primary_conninfo", "recovery_end_command",
                 "archive_cleanup_command"):  # fmt: skip
        assert cut[name] == ""
    assert (cut["archive_mode"], cut["logging_collector"], cut["max_logical_replication_workers"]) == (
        "off",
        "off",
        "0",
    )
    assert {"data_directory", "hba_file", "external_pid_file", "unix_socket_directories"} <= preflight._PLACES


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("-D", "/data", "-p", "5433"), {"data_directory": "/data", "port": "5433"}),
        (("-c", "max_connections=50", "-cwork_mem=8MB"), {"max_connections": "50", "work_mem": "8MB"}),
        (("--wal-level=logical", "--max_connections=9"), {"wal_level": "logical", "max_connections": "9"}),
        (("-B", "1000", "-N", "5", "-F"), {"shared_buffers": "1000", "max_connections": "5", "fsync": "off"}),
        (("-c", "config_file=/etc/x.conf"), {"config_file": "/etc/x.conf"}),
        ((), {}),
    ],
)  # fmt: skip
def test_the_command_line_of_a_server_is_read(arguments: tuple[str, ...], found: dict[str, str]):
    """All of its spellings: what it gives outranks every file."""
    assert local.command_line_settings(arguments) == found
