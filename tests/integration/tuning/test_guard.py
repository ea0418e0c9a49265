"""The dead-man: what it takes for death, what for progress, and that it puts back exactly what was there."""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from magnus.embedded import processes_of, running, throwaway
from magnus.tuning import guard
from magnus.tuning.guard import Orders
from magnus.tuning.journal import Author
from magnus.tuning.local import Site
from magnus.tuning.reach import Reach
from magnus.tuning.service import detect, wait_until
from tests.servers import binaries_or_skip
from tests.tuning_cluster import Bench

if TYPE_CHECKING:
    from collections.abc import Iterator

CAMPAIGN = bool(os.environ.get("MAGNUS_CAMPAIGN"))
# The campaign's recovery takes a minute at least.
PARTS, PAUSE, PATIENCE, LEAST = (7, 2.0, 8.0, 62.0) if CAMPAIGN else (1, 0.6, 3.0, 4.0)
ROWS = 300_000


def orders(bench: Bench, *, timeout: float, before: bytes, names: tuple[str, ...] = ()) -> Orders:
    site = Site.at(bench.cluster.data)
    bench.journal.mkdir(exist_ok=True)
    author = Author("tester", "postgres", "here", "0")
    return Orders(
        run="run",
        keys=(),
        is_rollback=False,
        service=detect(site),
        before=base64.b64encode(before).decode(),
        names=names,
        timeout=timeout,
        old_pid=site.pid,
        folder=str(bench.journal),
        system_identifier=site.system_identifier,
        author=author,
    )


@pytest.fixture
def busy(pg_version: int, tmp_path: Path) -> Iterator[Bench]:
    """
    A server with much WAL since its last checkpoint.
    """
    settings = {"checkpoint_timeout": "1d", "max_wal_size": "8GB", "fsync": "off"}
    with throwaway(binaries_or_skip(pg_version), settings=settings) as cluster:
        found = Bench(cluster, tmp_path)
        found.sql("CHECKPOINT", "CREATE TABLE filler (i int PRIMARY KEY, t text)", "SELECT 1")
        for part in range(PARTS):
            first, last = part * ROWS, (part + 1) * ROWS - 1
            found.sql(f"INSERT INTO filler SELECT i, md5(i::text) FROM generate_series({first}, {last}) i", "SELECT 1")
        yield found


@contextlib.contextmanager
def slow_recovery(data: Path, *, least: float) -> Iterator[None]:
    """
    Let the startup process run for a small part of the time only, until `least` seconds of recovery are over.
    """
    is_over = threading.Event()

    def startup() -> int | None:
        with contextlib.suppress(OSError):
            for pid in processes_of(data):
                if b"startup" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
        return None

    def throttle() -> None:
        began: float | None = None
        while not is_over.is_set() and (began is None or time.monotonic() - began < least):
            pid = startup()
            if pid is None:
                is_over.wait(0.002)
                continue
            began = began or time.monotonic()
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                is_over.wait(PAUSE)
                os.kill(pid, signal.SIGCONT)
                is_over.wait(0.01)

    other = threading.Thread(target=throttle)
    other.start()
    try:
        yield
    finally:
        is_over.set()
        other.join()


def test_crash_recovery_that_moves_is_not_taken_for_death(busy: Bench, monkeypatch):
    """It takes longer than the dead-man's patience, and the server is left to finish."""
    bench = busy
    before = bench.auto_conf.read_bytes()
    given = orders(bench, timeout=PATIENCE, before=before)
    found = running(bench.cluster.data)
    assert found is not None
    os.kill(found.pid, signal.SIGQUIT)  # a crash
    assert wait_until(lambda: not processes_of(bench.cluster.data), 60.0)
    seen: dict[object, float] = {}
    real = guard.recovery

    def watched(data: Path) -> tuple[object, ...]:
        mark = real(data)
        seen.setdefault(mark, time.monotonic())
        return mark

    monkeypatch.setattr(guard, "recovery", watched)
    began = time.monotonic()
    with slow_recovery(bench.cluster.data, least=LEAST):
        assert guard.carry_out(given, Reach(bench.cluster.dsn(), os.environ)) == "restarted"
    assert time.monotonic() - began > LEAST, "the recovery took longer than the patience"
    assert len(seen) > 2, "the recovery was seen to move"
    assert bench.sql("SELECT count(*) FROM filler") == PARTS * ROWS


def test_a_server_that_does_not_move_is_dead(bench: Bench, monkeypatch):
    """The same wait, without progress: the old file is put back, whatever was in it."""
    before = bench.auto_conf.read_bytes()
    given = orders(bench, timeout=0.3, before=before, names=("work_mem",))
    bench.sql("ALTER SYSTEM SET work_mem = '9MB'", "SELECT 1")
    answers = iter([False] * 30)
    monkeypatch.setattr(guard, "recovery", lambda data: ())
    real = Reach.is_alive

    async def is_alive(self: Reach) -> bool:
        return next(answers, True) and await real(self)

    monkeypatch.setattr(Reach, "is_alive", is_alive)
    verdict = guard.carry_out(given, Reach(bench.cluster.dsn(), os.environ))
    assert verdict in {"restored", "stuck"}
    assert bench.auto_conf.read_bytes() == before
    kinds = [entry.kind for entry in given.journal().entries]
    assert kinds == ["restoring", verdict]


def test_what_others_set_meanwhile_survives_the_putting_back(bench: Bench):
    """Only our names go back."""
    given = orders(bench, timeout=1, before=b"work_mem = '5MB'\n", names=("work_mem", "jit"))
    now = b"work_mem = '9MB'\njit = 'off'\nlog_temp_files = '1MB'\n"
    assert guard.merged(now, given) == b"work_mem = '5MB'\nlog_temp_files = '1MB'\n"
    assert guard.merged(b"work_mem = '9MB'\njit = 'off'\n", given) == b"work_mem = '5MB'\n"


@pytest.mark.one_version
def test_orders_survive_the_pipe(bench: Bench):
    """They are plain data, and hold no connection string."""
    given = orders(bench, timeout=1, before=b"")
    assert Orders.from_json(given.to_json()) == given
    assert "postgresql://" not in str(given.to_json())


@pytest.mark.one_version
def test_a_verdict_counts_once(bench: Bench):
    """A second dead-man with the same orders does not restart again."""
    given = orders(bench, timeout=5, before=bench.auto_conf.read_bytes())
    reach = Reach(bench.cluster.dsn(), os.environ)
    assert guard.carry_out(given, reach) == "restarted"
    started = bench.sql("SELECT pg_postmaster_start_time()")
    assert guard.carry_out(given, reach) == "restarted"
    assert bench.sql("SELECT pg_postmaster_start_time()") == started
