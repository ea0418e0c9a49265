"""One holder for a cluster's folder."""

import os
import subprocess
import sys

import pytest

from magnus.embedded._lock import FolderLock

HOLD_AND_WAIT = """
import sys
from pathlib import Path
from magnus.embedded._lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print(lock.try_acquire(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lock"


def test_the_first_one_has_it_and_is_named(path):
    """A refused caller can say whom to ask."""
    first, second = FolderLock(path), FolderLock(path)

    assert first.try_acquire()
    assert not second.try_acquire()
    assert second.holder() == os.getpid()
    first.release()


def test_taking_it_twice_is_taking_it_once(path):
    """The holder may ask again."""
    lock = FolderLock(path)

    assert lock.try_acquire()
    assert lock.try_acquire()
    lock.release()
    assert not lock.is_held
    assert FolderLock(path).holder() == os.getpid()


def test_it_is_free_after_release(path):
    """The file stays, the lock does not."""
    first, second = FolderLock(path), FolderLock(path)
    first.try_acquire()
    first.release()

    assert second.try_acquire()
    second.release()


def test_it_is_free_when_its_holder_is_killed(path):
    """The operating system lets go, whatever the holder still wanted to do."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_AND_WAIT, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout.readline() == "True\n"
        lock = FolderLock(path)
        assert not lock.try_acquire()
        assert lock.holder() == holder.pid

        holder.kill()
        holder.wait()

    assert lock.try_acquire()
    lock.release()


def test_a_removed_file_is_not_held(path):
    """Whoever locked a file that lost its name in the meantime begins again with a new one."""
    old = FolderLock(path)
    old.try_acquire()
    path.unlink()
    fresh = FolderLock(path)

    assert fresh.try_acquire()
    assert not FolderLock(path).try_acquire()
    old.release()
    fresh.release()


def test_only_its_owner_can_read_it_and_nothing_else_is_left(path, tmp_path):
    """The nameless file that it is born as is gone."""
    lock = FolderLock(path)
    lock.try_acquire()

    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
    lock.release()


def test_started_programs_do_not_inherit_it(path):
    """A server that outlives its owner must not keep the owner's lock."""
    lock = FolderLock(path)
    lock.try_acquire()
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False)
    with child:
        lock.release()
        other = FolderLock(path)
        assert other.try_acquire()
        other.release()
        child.stdin.close()
