"""What the dead-man takes for progress of a recovery, told from processes and not from time."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from magnus.tuning import guard
from magnus.tuning.service import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def working(title: str) -> Iterator[int]:
    """
    A process of that title which computes.
    """
    child = subprocess.Popen([sys.executable, "-S", "-c", "while True: pass", f"postgres: {title}"])
    try:
        yield child.pid
    finally:
        child.kill()
        child.wait()


def found(monkeypatch: pytest.MonkeyPatch, pid: int, *, is_ready: bool) -> None:
    state = SimpleNamespace(pid=1, is_ready=is_ready)
    monkeypatch.setattr(guard, "PidFile", SimpleNamespace(read=lambda _data: state))
    monkeypatch.setattr(guard, "processes_of", lambda _data: [pid])


@pytest.mark.parametrize("title", ["startup recovering 00000001000000000000000A", "checkpointer"])
def test_the_checkpoint_that_ends_a_recovery_is_progress(monkeypatch, tmp_path: Path, title: str):
    """The startup process waits for it, with nothing of its own to show, as long as all buffers take to be written."""
    with working(title) as pid:
        found(monkeypatch, pid, is_ready=False)
        first = guard.recovery(tmp_path)
        assert wait_until(lambda: guard.recovery(tmp_path) != first, 60.0)


@pytest.mark.parametrize(("title", "is_ready"), [("checkpointer", True), ("walwriter", False)])
def test_what_a_serving_server_does_beside_is_no_progress(monkeypatch, tmp_path: Path, title: str, is_ready: bool):  # noqa: FBT001
    """One that serves but lets nobody in is put back in time, however busy it is."""
    with working(title) as pid:
        found(monkeypatch, pid, is_ready=is_ready)
        first = guard.recovery(tmp_path)
        assert not wait_until(lambda: guard.recovery(tmp_path) != first, 0.3)
