"""A magnus that is killed at a chosen line of its journal. Imported by a fork server, so that a kill costs no start."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import asyncpg  # noqa: F401  # loaded once, in the server

from magnus import cli
from magnus.cli import app, apply, rollback  # noqa: F401  # as above
from magnus.tuning.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Sequence

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.tuning_faults"])


def run_and_kill(arguments: Sequence[str], line: int, *, is_after: bool) -> int | None:
    """
    Run a command that is killed (SIGKILL) right before, or right after, it writes its n-th line; its exit code.
    """
    child = _FORKS.Process(target=_run, args=(list(arguments), line, is_after))
    child.start()
    child.join(120)
    assert child.exitcode is not None, "the command hangs"
    return child.exitcode


def _run(arguments: list[str], line: int, is_after: bool) -> None:  # noqa: FBT001
    real, written = Journal.write, 0

    def write(self: Journal, kind: str, run: str, **data: Any) -> Any:
        nonlocal written
        written += 1
        if written == line and not is_after:
            os.kill(os.getpid(), signal.SIGKILL)
        entry = real(self, kind, run, **data)
        if written == line:
            os.kill(os.getpid(), signal.SIGKILL)
        return entry

    Journal.write = write  # type: ignore[method-assign]
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    sys.exit(cli.main(arguments))
