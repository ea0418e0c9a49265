"""The log itself: takes slow statements in at once, and writes them a moment later in a task of its own.

Theory of operation. `saw` runs where the statement ran: it takes a place in the bounded queue or counts, and returns.
The writer wakes up, waits for a moment so that a batch gathers, normalises it, asks the server about statements that
are new, and writes it by one COPY on a connection that is not the pool's. While the database is away the queue
fills, then its oldest entries go. Nothing here raises into a statement, waits for one, or is waited for by one.
"""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from magnus import _context, _driver
from magnus.observe import SlowLogEventsOnly, SlowLogLeftOut, SlowLogRecovered
from magnus.slowlog._buffer import OTHERS, Buffer
from magnus.slowlog._entry import Entry, caller, outcome_of, rows_of
from magnus.slowlog._known import Known
from magnus.slowlog._plans import explained
from magnus.slowlog._rows import Constants, event_of, record_of, row_of
from magnus.slowlog._table import Table, is_passing, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from magnus._beside import Turn
    from magnus._clock import Clock
    from magnus._driver import Connect
    from magnus.config import DatabaseConfig
    from magnus.observe import Event
    from magnus.slowlog._rows import Row

_GATHER: Final = 0.5
_BATCH: Final = 500
_ASKED: Final = 10  # statements that the server is asked about, a batch
_BREATH: Final = 20  # rows made before other tasks have their turn
_FIRST_PAUSE: Final = 0.5
_LAST_PAUSE: Final = 30.0
_AGAIN: Final = 300.0
_TELL: Final = 60.0
_PRUNE: Final = 3600.0
_IDLE: Final = 60.0
_TOP: Final = 20
_FINGERPRINTS: Final = 5_000
_ADVICE: Final = {
    "no_table": "magnus slow install makes it; without slow_log_create nothing makes it by itself",
    "no_permission": "magnus slow install, by a role that may create tables here, and GRANT SELECT, INSERT, UPDATE, "
    "DELETE ON slow_query_log, slow_query_plan to the service's role",
    "read_only": "connect to the primary; a standby keeps no log",
}


class SlowLog:
    """
    Takes what was slow; `start` it on the event loop, `close` it to write the rest.

    Attributes:
        written: Rows that are in the table.
    """

    def __init__(
        self,
        config: DatabaseConfig,
        *,
        notify: Callable[[Event], None],
        clock: Clock,
        connect: Connect = _driver.driver_connect,
        turn: Turn | None = None,
    ) -> None:
        self._config = config
        self._notify = notify
        self._clock = clock
        self._constants = Constants(
            config.slow_query_threshold, config.application_name, tuple(map(re.compile, config.slow_log_redact))
        )
        self._buffer = Buffer(config.slow_log_queue, config.slow_log_rate)
        self._table = Table(config, connect=connect, turn=turn, asked=self._write_soon)
        self._known = Known()
        self._skipped: dict[str, int] = {}
        self._left_out: dict[str, int] = {}
        self._told = (0, 0)
        self._tell_at = 0.0
        self._prune_at = 0.0
        self._retry_at = 0.0
        self._failures = 0
        self._in_hand = 0
        self._broken_at: float | None = None
        self._state = "events" if config.slow_log == "events" else "table"
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self.written = 0

    # --- where statements run

    def saw(  # noqa: PLR0917  # named arguments cost as much as all the rest when everything is slow
        self,
        text: str,
        seconds: float,
        method: str,
        result: object,
        lane: str,
        wait: float,
        attempts: int,
        args: Sequence[Any],
        error: BaseException | None,
    ) -> None:
        """
        Take in a slow statement, or count it. Never raises, never waits.

        `method` is the driver's, `args` and `result` are what it was given and gave, `error` is what ended it, or None.
        """
        if self._loop is None or not self._buffer.admits(text, self._clock.now()):
            return
        outcome, sqlstate = outcome_of(error)
        self._buffer.put(
            Entry(
                text,
                datetime.now(UTC),
                seconds,
                max(wait, 0.0),
                lane,
                attempts,
                rows_of(method, result) if error is None else None,
                outcome,
                sqlstate,
                caller(),
                _context.current_route(),
                _context.request_id.get(),
                _context.current_trace_id(),
                _values(args, text) if self._config.slow_log_values else None,
            )
        )
        if self._task is None:
            self._task = self._loop.create_task(self._write_on())
        self._wake.set()

    # --- life

    def start(self) -> None:
        """
        Take statements from now on, on the running event loop. No connection is opened before one was slow.
        """
        self._loop = asyncio.get_running_loop()
        self._wake, self._closing = asyncio.Event(), asyncio.Event()

    async def close(self, limit: float = 5.0) -> None:
        """
        Take no more, write what there is within `limit` seconds, count the rest as dropped, close the connection.
        """
        task, self._task, self._loop = self._task, None, None
        self._closing.set()
        self._wake.set()
        if task is not None:
            await asyncio.wait({task}, timeout=limit)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._buffer.clear()
        await self._note_left_out()
        self._tell_at = 0.0
        self._tell_left_out()
        await self._table.close()

    def forked(self) -> None:
        """
        Forget everything, in a child process: rows and connection are the parent's.
        """
        self._loop = self._task = None
        self._buffer = Buffer(self._config.slow_log_queue, self._config.slow_log_rate)
        self._table.forget()

    def snapshot(self) -> dict[str, Any]:
        """
        Return the log's figures, ready for JSON; `waiting` are rows that are not in the table yet, `left_out` the 20
        fingerprints that miss most rows, half a second late.
        """
        most = sorted(self._left_out.items(), key=lambda item: -item[1])[:_TOP]
        return {
            "state": self._state,
            "written": self.written,
            "waiting": len(self._buffer) + self._in_hand,
            "capped": self._buffer.capped,
            "dropped": self._buffer.dropped,
            "left_out": dict(most),
        }

    # --- the writer

    def _write_soon(self) -> None:
        self._wake.set()

    async def _write_on(self) -> None:
        while not self._closing.is_set():
            await self._next()
            self._wake.clear()
            await self._pause(_GATHER)
            while len(self._buffer) and await self._turn():
                await self._table.yield_turn()
            await self._note_left_out()
            self._tell_left_out()
            await self._prune()
            await self._table.yield_turn()
        while len(self._buffer) and await self._turn():
            pass

    async def _next(self) -> None:
        """
        Wait for something to write; a connection that is idle for long is closed.
        """
        while not self._wake.is_set():
            try:
                async with asyncio.timeout(_IDLE):
                    await self._wake.wait()
            except TimeoutError:
                self._tell_left_out()
                await self._table.close()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return

    async def _turn(self) -> bool:
        """
        Write one batch. False: not now, and at the end never.
        """
        taken = self._buffer.take(_BATCH)
        self._in_hand = len(taken)
        is_done = False
        try:
            await self._put(taken)
            is_done = True
        except Exception as error:  # noqa: BLE001  # a log that fails must not take anything with it
            self._table.drop()
            if (reason := reason_of(error)) is not None:
                self._give_up_table(reason)
            elif not is_passing(error):
                is_done = True  # these rows can never be written: without them the next can
                self._buffer.dropped += len(taken)
                self._count(taken)
        finally:
            self._in_hand = 0
            if not is_done:
                self._buffer.put_back(taken)
        if is_done:
            self._failures = 0
            return True
        if self._state == "events":
            return True  # the same batch, as events
        self._failures += 1
        self._broken_at = self._broken_at or self._clock.now()
        self._tell_left_out()
        await self._pause(min(_FIRST_PAUSE * 2 ** min(self._failures - 1, 10), _LAST_PAUSE))
        return not self._closing.is_set()

    async def _put(self, taken: Sequence[Entry]) -> None:
        if self._config.slow_log == "events" or (self._state == "events" and self._clock.now() < self._retry_at):
            for row in await self._rows(taken):
                self._notify(event_of(row, self._constants))
            return
        await self._table.ready()
        await self._learn(taken)
        rows = await self._rows(taken)
        columns = self._table.columns
        try:
            await self._table.write([record_of(row, columns, self._constants) for row in rows])
        except Exception:
            for row in rows:
                self._skip(row.fingerprint, row.skipped)
            raise
        self.written += len(rows)
        self._state = "table"
        if self._broken_at is not None:
            self._notify(SlowLogRecovered(round(self._clock.now() - self._broken_at, 3)))
            self._broken_at = None

    async def _rows(self, taken: Sequence[Entry]) -> list[Row]:
        await self._note_left_out()
        found: list[Row] = []
        for entry in taken:
            found.append(row_of(entry, self._known, self._skipped))
            if len(found) % _BREATH == 0:
                await asyncio.sleep(0)
        return found

    async def _learn(self, taken: Iterable[Entry]) -> None:
        """
        Ask the server about a few statements that are new: their id, and the plan of each fingerprint.
        """
        con, asked, known = await self._table.ready(), 0, self._known
        for entry in taken:
            normal = known.normal(entry.text)
            if not known.is_new(normal):
                continue
            try:
                plan = await explained(con, entry.text)
                known.learned(normal, None if plan is None else plan.queryid)
                if plan is not None and self._config.slow_log_plans and not known.is_planned(normal):
                    known.planned(normal)
                    document = json.dumps(plan.plan)
                    await self._table.keep_plan(normal.fingerprint, known.shown(normal), plan, document)
            except asyncpg.PostgresError:
                if con.is_closed():
                    raise
                known.learned(normal, known.queryid(normal))  # it cannot be explained: nothing is lost but that
            asked += 1
            if asked >= _ASKED:
                return

    async def _prune(self) -> None:
        now = self._clock.now()
        if self._state != "table" or now < self._prune_at or not self._table.is_open:
            return
        self._prune_at = now + _PRUNE
        try:
            await self._table.prune(self._config.slow_log_days, self._config.slow_log_rows)
        except Exception:  # noqa: BLE001  # the next hour will do
            self._table.drop()

    def _give_up_table(self, reason: str) -> None:
        self._retry_at = self._clock.now() + _AGAIN
        if self._state != "events":
            self._state = "events"
            self._broken_at = self._clock.now()
            self._notify(SlowLogEventsOnly(reason, _ADVICE[reason]))

    # --- what is missing

    async def _note_left_out(self) -> None:
        for number, (text, times) in enumerate(self._buffer.left_out().items(), 1):
            if number % _BREATH == 0:
                await asyncio.sleep(0)
            fingerprint = OTHERS if text == OTHERS else self._known.normal(text).fingerprint
            self._skip(fingerprint, times)
            self._left_out[fingerprint] = self._left_out.get(fingerprint, 0) + times
        if len(self._left_out) > _FINGERPRINTS:
            self._left_out = dict(sorted(self._left_out.items(), key=lambda item: -item[1])[: _FINGERPRINTS // 2])

    def _skip(self, fingerprint: str, times: int) -> None:
        if times and (fingerprint in self._skipped or len(self._skipped) < _FINGERPRINTS):
            self._skipped[fingerprint] = self._skipped.get(fingerprint, 0) + times

    def _count(self, lost: Iterable[Entry]) -> None:
        for entry in lost:
            fingerprint = self._known.normal(entry.text).fingerprint
            self._skip(fingerprint, 1)
            self._left_out[fingerprint] = self._left_out.get(fingerprint, 0) + 1

    def _tell_left_out(self) -> None:
        now, counts = self._clock.now(), (self._buffer.capped, self._buffer.dropped)
        if counts != self._told and now >= self._tell_at:
            capped, dropped = (new - old for new, old in zip(counts, self._told, strict=True))
            self._told, self._tell_at = counts, now + _TELL
            self._notify(SlowLogLeftOut(capped, dropped))


def _values(args: Sequence[Any], text: str) -> tuple[Any, ...]:
    """
    Return the bind values among the arguments of a call of the driver's, which may begin with the statement.
    """
    return tuple(args[1:] if args and args[0] == text else args)
