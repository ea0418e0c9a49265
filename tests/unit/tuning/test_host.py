"""The machine as the server's process may use it: cgroups of both versions up the tree, quotas, measured reads."""

from __future__ import annotations

import os
import re

import pytest

from magnus.tuning import host, storage
from magnus.tuning.facts import Storage
from magnus.tuning.units import GB, MB

UNLIMITED_V1 = "9223372036854771712\n"  # 2^63 - 4096
MEMINFO = "MemTotal:       32768000 kB\nMemFree: 1 kB\n"
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
V1 = (
    "31 24 0:27 / /sys/fs/cgroup/memory rw shared:5 - cgroup cgroup rw,memory\n"
    "32 24 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:6 - cgroup cgroup rw,cpu,cpuacct\n"
    "33 24 0:29 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n"
)
V1_DOCKER = "31 24 0:27 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
V2_INSIDE = "30 23 0:26 /../../system.slice /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
TOTAL = 32_768_000 * 1024
CG = "/sys/fs/cgroup"


def reader(cgroup: str, mounts: str, files: dict[str, str], meminfo: str = MEMINFO) -> host.Read:
    found = {"/proc/9/cgroup": cgroup, "/proc/9/mountinfo": mounts, "/proc/meminfo": meminfo, **files}
    return found.get


@pytest.mark.parametrize(
    ("cgroup", "mounts", "files", "expected"),
    [
        # No limit anywhere: the machine's memory.
        ("0::/\n", V2, {}, TOTAL),
        ("0::/system.slice/pg.service\n", V2, {f"{CG}/system.slice/pg.service/memory.max": "max\n"}, TOTAL),
        ("4:memory:/x\n", V1, {f"{CG}/memory/x/memory.limit_in_bytes": UNLIMITED_V1}, TOTAL),
        ("", "", {}, TOTAL),
        # Version 2: its own limit, a parent's, the least of several.
        ("0::/a/b\n", V2, {f"{CG}/a/b/memory.max": f"{2 * GB}\n"}, 2 * GB),
        ("0::/a/b\n", V2, {f"{CG}/a/b/memory.max": "max", f"{CG}/a/memory.max": f"{4 * GB}"}, 4 * GB),
        ("0::/a/b\n", V2, {f"{CG}/a/b/memory.max": f"{8 * GB}", f"{CG}/a/memory.max": f"{3 * GB}"}, 3 * GB),
        ("0::/a/b\n", V2, {f"{CG}/memory.max": f"{5 * GB}"}, 5 * GB),
        # A limit above the machine's memory is none.
        ("0::/a\n", V2, {f"{CG}/a/memory.max": f"{64 * GB}"}, TOTAL),
        # Version 1: own, parent's, and a container that sees only its own part.
        ("4:memory:/x/y\n5:cpu:/\n", V1, {f"{CG}/memory/x/y/memory.limit_in_bytes": f"{GB}"}, GB),
        ("4:memory:/x/y\n", V1, {f"{CG}/memory/x/memory.limit_in_bytes": f"{GB}\n",
                                 f"{CG}/memory/x/y/memory.limit_in_bytes": UNLIMITED_V1}, GB),
        ("4:memory:/docker/abc\n", V1_DOCKER, {f"{CG}/memory/memory.limit_in_bytes": f"{GB}"}, GB),
        ("4:memory:/docker/abc/sub\n", V1_DOCKER, {f"{CG}/memory/sub/memory.limit_in_bytes": f"{GB}"}, GB),
        # Another container's name in the path: what is mounted is what counts.
        ("4:memory:/kubepods/pod1\n", V1_DOCKER, {f"{CG}/memory/memory.limit_in_bytes": f"{GB}"}, GB),
        ("0::/../../user.slice\n", V2, {f"{CG}/memory.max": f"{GB}"}, GB),
        ("0::/\n", V2_INSIDE, {f"{CG}/memory.max": f"{GB}"}, GB),
        # Both at once, as systemd's hybrid mode has them.
        ("4:memory:/x\n0::/a\n", V1 + V2, {f"{CG}/memory/x/memory.limit_in_bytes": f"{2 * GB}",
                                           f"{CG}/a/memory.max": f"{3 * GB}"}, 2 * GB),
        # Rubbish is no limit.
        ("0::/a\n", V2, {f"{CG}/a/memory.max": ""}, TOTAL),
        ("0::/a\n", V2, {f"{CG}/a/memory.max": "-1"}, TOTAL),
        ("0::/a\n", V2, {f"{CG}/a/memory.max": "0"}, TOTAL),
        ("nonsense\n0:\n1:memory:relative\n", "broken line\n" + V2, {}, TOTAL),
    ],
)  # fmt: skip
def test_memory_is_the_least_of_the_machine_and_every_limit_above(cgroup, mounts, files, expected):
    """None of them guessed, none of them missed."""
    found = host.memory_of(reader(cgroup, mounts, files), "9")
    assert found
    assert found.value == expected
    assert (found.source == "MemTotal") is (expected == TOTAL)


def test_without_proc_the_memory_is_not_known():
    """Another operating system: it is asked for, not guessed."""
    assert host.memory_of(lambda _: None, "9") is None
    assert host.memory_of(reader("0::/\n", V2, {}, meminfo="MemFree: 1 kB"), "9") is None


@pytest.mark.parametrize(
    ("cgroup", "mounts", "files", "count", "expected"),
    [
        ("0::/a\n", V2, {}, 8, 8),
        ("0::/a\n", V2, {f"{CG}/a/cpu.max": "max 100000\n"}, 8, 8),
        ("0::/a\n", V2, {f"{CG}/a/cpu.max": "200000 100000\n"}, 8, 2),
        ("0::/a\n", V2, {f"{CG}/a/cpu.max": "250000 100000\n"}, 8, 3),
        ("0::/a\n", V2, {f"{CG}/a/cpu.max": "10000 100000\n"}, 8, 1),
        ("0::/a/b\n", V2, {f"{CG}/a/cpu.max": "400000 100000", f"{CG}/a/b/cpu.max": "max 100000"}, 8, 4),
        ("0::/a\n", V2, {f"{CG}/a/cpu.max": "1600000 100000\n"}, 8, 8),
        ("0::/a\n", V2, {f"{CG}/a/cpu.max": "200000"}, 8, 8),
        ("5:cpu,cpuacct:/x\n", V1, {f"{CG}/cpu,cpuacct/x/cpu.cfs_quota_us": "150000\n",
                                    f"{CG}/cpu,cpuacct/x/cpu.cfs_period_us": "100000\n"}, 8, 2),
        ("5:cpu,cpuacct:/x\n", V1, {f"{CG}/cpu,cpuacct/x/cpu.cfs_quota_us": "-1\n",
                                    f"{CG}/cpu,cpuacct/x/cpu.cfs_period_us": "100000\n"}, 8, 8),
        ("5:cpu,cpuacct:/x\n", V1, {f"{CG}/cpu,cpuacct/x/cpu.cfs_quota_us": "100000\n"}, 8, 8),
        ("5:cpu,cpuacct:/x\n", V1, {f"{CG}/cpu,cpuacct/x/cpu.cfs_quota_us": "100000\n",
                                    f"{CG}/cpu,cpuacct/x/cpu.cfs_period_us": "0\n"}, 8, 8),
    ],
)  # fmt: skip
def test_cpus_are_the_least_of_affinity_and_every_quota(cgroup, mounts, files, count, expected):
    """Rounded up: half a CPU more is one that can be used."""
    assert host.cpus_of(reader(cgroup, mounts, files), "9", count).value == expected


def test_a_mount_point_with_a_blank_is_read():
    """The kernel writes it as an octal escape."""
    mounts = r"30 23 0:26 / /mnt/my\040cgroup rw - cgroup2 cgroup2 rw"
    assert host.parse_mounts(mounts)[0].point == "/mnt/my cgroup"
    read = reader("0::/a\n", mounts, {"/mnt/my cgroup/a/memory.max": f"{GB}"})
    assert host.memory_of(read, "9") == host.Limit(GB, "/mnt/my cgroup/a/memory.max")


@pytest.mark.parametrize(
    ("title", "port", "expected"),
    [
        ("postgres: postgres ava 127.0.0.1(54321) idle\0", 54321, True),
        ("postgres: app: ava 127.0.0.1(54321) SELECT", 54321, True),
        ("postgres: postgres ava [local] idle", None, True),
        # A tunnel's far end, or a container: the number is another process's here.
        ("postgres: postgres ava 127.0.0.1(50000) idle", 54321, False),
        ("/usr/bin/python3\0-m\0magnus", 54321, False),
        ("postgres: postgres ava [local] idle", 54321, False),
        (None, None, False),
        ("", None, False),
    ],
)
def test_a_process_is_here_only_when_it_serves_this_very_connection(title, port, expected):
    """A number alone would take a stranger's machine for the server's."""
    assert host.is_process_here(lambda _: title, 4711, port) is expected


def test_the_machine_of_this_process_is_read():
    """The real files of this machine: something between 64 MB and 64 TB, at least one CPU."""
    found = host.read_host(os.getpid(), None)
    assert found
    assert 64 * MB < found.memory < 64 * 1024 * GB
    assert found.cpus >= 1
    assert found.storage is None
    assert found.wal_free is None


def test_an_unreadable_file_is_no_file(tmp_path):
    """Nor is a folder."""
    assert host.read_text(str(tmp_path)) is None
    assert host.read_text(str(tmp_path / "none")) is None


# --- storage ----------------------------------------------------------------------------------------------------------


def data_folder(tmp_path, megabytes: int):
    base = tmp_path / "base" / "5"
    base.mkdir(parents=True)
    (base / "16384").write_bytes(os.urandom(megabytes * MB))
    (base / "empty").touch()
    return tmp_path


def test_random_reads_are_measured(tmp_path, monkeypatch):
    """Each past the cache, at a place of its own; the median counts."""
    offsets = []
    real = os.preadv

    def watched(descriptor, buffers, offset):
        offsets.append(offset)
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", watched)
    monkeypatch.setattr(os, "O_DIRECT", 0)  # the folder of the tests may be in memory
    found = storage.measure(data_folder(tmp_path, 16))
    assert found is not None
    assert 0 < found < 60
    assert len(set(offsets)) > 20
    assert all(offset % 8192 == 0 for offset in offsets)


def test_what_cannot_be_measured_is_not_known(tmp_path, monkeypatch):
    """Too little data, no files, no way past the cache, reads that fail."""
    assert storage.measure(tmp_path / "none") is None
    folder = data_folder(tmp_path, 9)
    monkeypatch.setattr(os, "O_DIRECT", 0)
    monkeypatch.setattr(os, "preadv", lambda *_: 0)
    assert storage.measure(folder) is None
    monkeypatch.delattr(os, "O_DIRECT")
    assert storage.measure(folder) is None
    (folder / "base" / "5" / "16384").write_bytes(b"x" * MB)
    assert storage.measure(folder) is None


def test_a_link_is_not_followed(tmp_path, monkeypatch):
    """The folder belongs to another account."""
    monkeypatch.setattr(os, "O_DIRECT", 0)
    folder = data_folder(tmp_path, 9)
    target = folder / "elsewhere"
    (folder / "base" / "5" / "16384").rename(target)
    (folder / "base" / "5" / "16384").symlink_to(target)
    assert storage.measure(folder) is None


def test_the_kind_follows_the_time_and_the_kernels_flag_is_never_asked():
    """Under a millisecond no arm moves."""
    assert storage.kind_of(0.0002) is Storage.SSD
    assert storage.kind_of(0.006) is Storage.HDD
    for module in (storage, host):
        with open(module.__file__, encoding="utf-8") as file:  # noqa: PTH123
            assert not re.search(r"queue/rotational", file.read())


def test_free_space_of_a_folder(tmp_path):
    """As for those who are not root."""
    assert (storage.free(tmp_path) or 0) > 0
    assert storage.free(tmp_path / "none") is None
