"""The ring of points and events, and the cache of panels."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from magnus import QueryPriority
from magnus._figures import Distributions
from magnus.errors import ConnectError
from magnus.observe import PoolWarmed
from magnus.pool._stats import Histogram
from magnus.web.dashboard._panels import Panels, Unavailable
from magnus.web.dashboard._recorder import EVENTS, KEPT, Recorder


class FakeDatabase:
    """
    Figures that a test sets.
    """

    def __init__(self):
        self.operations = Histogram()
        self.wait = Histogram()
        self.failed = self.acquired = 0

    def get_stats(self):
        lanes = {"high": {"used": 1, "waiting": 2, "cap": 3, "acquired": self.acquired, "timeouts": 0, "rejected": 0}}
        return {
            "query_stats": {"failed": self.failed, "slow_queries": 0, "retries": 0},
            "pool_stats": {"used": 1, "free": 2, "waiting": 2, "max_size": 5, "lanes": lanes},
        }

    def distributions(self, bounds):
        operations, waits = self.operations.cumulative(bounds), self.wait.cumulative(bounds)
        return Distributions({QueryPriority.HIGH: operations}, {QueryPriority.HIGH: waits}, {}, None)


def test_a_point_tells_what_happened_since_the_one_before():
    """Not since the start."""
    db = FakeDatabase()
    recorder = Recorder(lambda: db)
    db.operations.record(9.0)
    recorder.sample()
    for _ in range(99):
        db.operations.record(0.002)
    db.operations.record(0.5)
    db.wait.record(0.03)
    db.failed, db.acquired = 3, 7
    recorder.sample()
    recorder.sample()

    first, second = recorder.points(0)

    assert (first["statements"], first["failed"], first["lanes"]["high"]["acquired"]) == (100, 3, 7)
    p50, p95, p99 = first["duration"]
    assert 0.002 <= p50 == p95 == p99 <= 0.0033
    assert 0.03 <= first["lanes"]["high"]["wait"][0] <= 0.05
    assert first["lanes"]["high"]["duration"] == first["duration"]
    assert (second["statements"], second["duration"], second["failed"]) == (0, [None, None, None], 0)


def test_another_database_begins_anew():
    """Its figures are smaller: they are no difference to the earlier one's."""
    found = [FakeDatabase()]
    recorder = Recorder(lambda: found[0])
    found[0].operations.record(1.0)
    recorder.sample()
    found[0] = FakeDatabase()
    recorder.sample()

    assert recorder.points(0) == []


def test_the_past_is_bounded_and_read_from_where_one_was():
    """A quarter of an hour of points, two hundred events."""
    db = FakeDatabase()
    recorder = Recorder(lambda: db)
    for _ in range(KEPT + 10):
        recorder.sample()
    for number in range(EVENTS + 10):
        recorder(PoolWarmed(number, number))

    points, events = recorder.points(0), recorder.events(0)

    assert (len(points), len(events)) == (KEPT, EVENTS)
    assert events[-1]["fields"] == {"connections": EVENTS + 9, "pool_size": EVENTS + 9}
    assert recorder.points(points[-3]["seq"]) == points[-2:]
    assert recorder.events(events[-1]["seq"]) == []


async def test_many_who_look_share_one_question():
    """And for two seconds its answer."""
    now, asked = [0.0], []
    release = asyncio.Event()

    async def ask():
        asked.append(1)
        await release.wait()
        return {"answer": len(asked)}

    panels = Panels(now=lambda: now[0])
    waiting = [asyncio.create_task(panels.get("a", ask)) for _ in range(5)]
    await asyncio.sleep(0)
    release.set()

    assert await asyncio.gather(*waiting) == [{"answer": 1}] * 5
    now[0] = 1.9
    assert await panels.get("a", ask) == {"answer": 1}
    now[0] = 2.1
    assert await panels.get("a", ask) == {"answer": 2}


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (Unavailable("needs pg_stat_statements"), "needs pg_stat_statements"),
        (ConnectError("secret host", reason="unreachable"), "the server cannot be reached (unreachable)"),
        (TimeoutError(), "the server did not answer in time"),
        (ValueError("secret"), "not available (ValueError)"),
    ],
)
async def test_a_panel_that_fails_says_why_without_the_servers_words(error, shown):
    """The others go on."""

    async def ask():
        raise error

    panels = Panels()

    assert await panels.get("a", ask) == {"unavailable": shown}
    assert await panels.get("b", lambda: asyncio.sleep(0, {"fine": True})) == {"fine": True}


async def test_who_leaves_takes_the_question_from_nobody():
    """A browser that closes the page while others wait."""
    release = asyncio.Event()

    async def ask():
        await release.wait()
        return {}

    panels = Panels()
    first, second = (asyncio.create_task(panels.get("a", ask)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    release.set()

    assert await second == {}


async def test_a_question_without_an_end_is_ended():
    """So that the page shows the other panels' state."""
    panels = Panels(limit=0.01)

    assert await panels.get("a", lambda: asyncio.sleep(3600)) == {"unavailable": "the server did not answer in time"}
    await panels.close()


def test_the_recorder_keeps_odd_values_of_events_as_text():
    """JSON has no types of ours."""
    recorder = Recorder(FakeDatabase)
    event = SimpleNamespace(name="x", level="info", fields=lambda: {"lane": QueryPriority.HIGH, "stack": ("a", 1)})
    recorder(event)

    assert recorder.events(0)[0]["fields"] == {"lane": QueryPriority.HIGH, "stack": ["a", 1]}
