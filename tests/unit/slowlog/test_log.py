"""The log's task between queue and table, with a table that does what a test says; no server."""

from __future__ import annotations

import asyncio

import pytest

from magnus import _context
from magnus._clock import MonotonicClock
from magnus.config import DatabaseConfig
from magnus.observe import SlowLogEventsOnly, SlowLogLeftOut, SlowLogRecovered, SlowQuery
from magnus.slowlog import SlowLog, _log
from magnus.slowlog._rows import COLUMNS
from magnus.slowlog._table import Unusable
from tests.facade_fakes import until


class FakeTable:
    """Keeps what is written; raises what it is told to, once each."""

    columns = COLUMNS

    def __init__(self):
        self.rows = []
        self.errors = []
        self.closed = 0
        self.dropped = 0
        self.pruned = []
        self.is_open = False

    async def ready(self):
        if self.errors:
            raise self.errors.pop(0)
        self.is_open = True

    async def write(self, records):
        await asyncio.sleep(0)
        self.rows += [dict(zip(COLUMNS, record, strict=True)) for record in records]

    async def prune(self, days, rows):
        self.pruned.append((days, rows))

    async def close(self):
        self.closed += 1
        self.is_open = False

    async def yield_turn(self):
        """Nobody waits for it."""

    def drop(self):
        self.dropped += 1
        self.is_open = False

    forget = drop


class Setting:
    """A log that is started, over a fake table."""

    def __init__(self, **changes):
        self.events = []
        config = DatabaseConfig(**{"slow_log_plans": False} | changes)
        self.log = SlowLog(config, notify=self.events.append, clock=MonotonicClock())
        self.table = self.log._table = FakeTable()
        self.log.start()

    def saw(self, text="SELECT 1", **changes):
        found = {
            "seconds": 1.0,
            "method": "fetch",
            "result": [],
            "lane": "normal",
            "wait": 0.0,
            "attempts": 1,
            "args": (),
            "error": None,
        }
        self.log.saw(text, *({**found, **changes}.values()))

    async def written(self, rows):
        async def is_there():
            return len(self.table.rows) >= rows

        await until(is_there)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Nothing is asked about statements here, and nothing is waited for."""
    monkeypatch.setattr(_log, "_GATHER", 0.001)
    monkeypatch.setattr(_log, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(_log, "_ASKED", 0)

    async def nothing(self, taken):
        await self._table.ready()

    monkeypatch.setattr(SlowLog, "_learn", nothing)


async def test_nothing_is_opened_before_something_was_slow():
    """No task, no connection."""
    setting = Setting()
    await asyncio.sleep(0)
    assert setting.log._task is None
    assert not setting.table.is_open
    await setting.log.close()
    assert setting.table.closed == 1


async def test_the_request_is_on_the_row():
    """Its id and its route, as they are when the statement ends."""
    setting = Setting()
    token, route = _context.request_id.set("r-1"), _context.route.set(lambda: "GET /x")
    try:
        setting.saw()
    finally:
        _context.request_id.reset(token)
        _context.route.reset(route)
    setting.saw()
    await setting.log.close()
    assert [(row["request_id"], row["route"]) for row in setting.table.rows] == [("r-1", "GET /x"), (None, None)]


async def test_rows_that_met_an_outage_are_written_after_it_in_order():
    """Each once; the end of it is told."""
    setting = Setting()
    setting.table.errors = [OSError(), OSError(), OSError()]
    for number in range(3):
        setting.saw(f"SELECT a{number}")
    await setting.written(3)
    await setting.log.close()
    assert [row["query"] for row in setting.table.rows] == ["SELECT a0", "SELECT a1", "SELECT a2"]
    assert setting.table.dropped == 3
    assert [type(event) for event in setting.events] == [SlowLogRecovered]


async def test_a_table_that_cannot_be_had_is_tried_again_later(monkeypatch):
    """Events meanwhile; it is said once, and once when it is over."""
    setting = Setting()
    setting.table.errors = [Unusable("no_permission"), Unusable("no_permission")]
    setting.saw("SELECT 'canary'")

    async def are_told():
        return len(setting.events) == 2

    await until(are_told)
    setting.log._retry_at = 0.0
    setting.saw("SELECT 2, 2")

    async def are_more():
        return len(setting.events) == 3

    await until(are_more)
    setting.log._retry_at = 0.0
    setting.saw("SELECT 3, 3, 3")
    await setting.written(1)
    await setting.log.close()
    assert [type(event) for event in setting.events] == [SlowLogEventsOnly, SlowQuery, SlowQuery, SlowLogRecovered]
    assert setting.events[1].query == "SELECT $1"
    assert setting.log.snapshot()["state"] == "table"


async def test_what_waits_at_the_end_of_the_limit_is_counted():
    """A database that does not answer does not hold up a shutdown."""
    setting = Setting()
    setting.table.errors = [OSError()] * 100_000
    setting.saw()
    await setting.log.close(limit=0.05)
    assert setting.table.rows == []
    assert setting.log.snapshot()["dropped"] == 1
    assert setting.events == [SlowLogLeftOut(0, 1)]


async def test_a_closed_log_takes_nothing():
    """Nor one that was not started."""
    setting = Setting()
    await setting.log.close()
    setting.saw()
    assert (setting.log.snapshot()["waiting"], setting.log._task) == (0, None)


async def test_an_idle_connection_is_closed(monkeypatch):
    """And the next slow statement opens another."""
    monkeypatch.setattr(_log, "_IDLE", 0.01)
    setting = Setting()
    setting.saw()
    await setting.written(1)

    async def is_closed():
        return setting.table.closed > 0 and not setting.table.is_open

    await until(is_closed)
    setting.saw()
    await setting.written(2)
    await setting.log.close()


async def test_a_child_process_forgets_the_parents_rows():
    """And its connection, without a word to the server."""
    setting = Setting()
    setting.saw()
    setting.log._loop.call_soon(lambda: None)
    task = setting.log._task
    setting.log.forked()
    assert (setting.log.snapshot()["waiting"], setting.log._task, setting.table.dropped) == (0, None, 1)
    setting.saw()
    assert setting.log.snapshot()["waiting"] == 0
    task.cancel()


async def test_retention_runs_after_writing_and_then_once_an_hour():
    """With the configured days and rows."""
    setting = Setting(slow_log_days=3, slow_log_rows=7)
    for number in range(1, 4):
        setting.saw()
        await setting.written(number)

    async def is_pruned():
        return bool(setting.table.pruned)

    await until(is_pruned)
    await setting.log.close()
    assert setting.table.pruned == [(3.0, 7)]


async def test_what_was_left_out_stands_in_the_next_row_of_its_kind():
    """Others' rows say nothing of it."""
    setting = Setting(slow_log_rate=0.2)  # a burst of one
    setting.saw("SELECT a FROM t")
    for _ in range(4):
        setting.saw("SELECT a FROM t")
    await setting.written(1)
    await setting.log.close()
    (row,) = setting.table.rows
    assert row["skipped"] == 4
    assert list(setting.log.snapshot()["left_out"].values()) == [4]
