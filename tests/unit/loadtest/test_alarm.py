"""The generator's timer."""

from __future__ import annotations

import asyncio
import time
from statistics import median
from typing import TYPE_CHECKING

from magnus.loadtest import _alarm
from magnus.loadtest._alarm import Alarm

if TYPE_CHECKING:
    import pytest


async def test_it_wakes_at_the_moment_and_never_before():
    """Hundreds of times in a row, each a fraction of a millisecond apart."""
    late = []
    with Alarm() as alarm:
        moment = time.monotonic()
        for _ in range(300):
            moment += 0.0003
            await alarm.until(moment)
            late.append(time.monotonic() - moment)
    assert min(late) >= -1e-6
    assert len(late) == 300
    assert median(late) < 1.0  # a bound for any machine; benchmarks/bench_generator.py has the figure


async def test_what_is_over_is_not_waited_for():
    """Nor does a cancelled wait disturb the next one."""
    with Alarm() as alarm:
        await alarm.until(time.monotonic() - 1)
        waiting = asyncio.create_task(alarm.until(time.monotonic() + 60))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        await alarm.until(time.monotonic() + 0.001)
    assert waiting.cancelled()


async def test_it_leaves_no_file_open():
    """However often it was used: the next one has the same number."""
    found = set()
    for _ in range(5):
        with Alarm() as alarm:
            await alarm.until(time.monotonic() + 0.0005)
            found.add(alarm._fd)
        assert alarm._fd == -1
    assert len(found) == 1


async def test_where_there_is_none_the_loop_s_own_timer_serves(monkeypatch: pytest.MonkeyPatch):
    """On other systems than Linux."""
    monkeypatch.setattr(_alarm.sys, "platform", "darwin")
    with Alarm() as alarm:
        moment = time.monotonic() + 0.002
        await alarm.until(moment)
    assert time.monotonic() >= moment
