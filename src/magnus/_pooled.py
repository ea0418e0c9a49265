"""Statements and transactions on connections of a transaction pooler, and the look at which pooler it is.

What it decides by is `_pooler`'s; it sends, and gives every lease back in a transaction of nobody's.
"""

from __future__ import annotations

import asyncio
import math
import os
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from magnus import _commit, _driver
from magnus._catalogue import Verdict
from magnus._effects import NO_RESET, Action, Reset
from magnus._execution import Execution
from magnus._pooler import Sight, needs_block, opening, refusal, refusal_of, statement_limits
from magnus._trace import RAW, SessionTrace
from magnus.lanes import LANES
from magnus.session import SLACK, LaneLimit, milliseconds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from magnus._driver import Connect, Connection
    from magnus._terms import Terms
    from magnus.config import DatabaseConfig
    from magnus.errors import NeedsSession
    from magnus.pool import Lease, Pool
    from magnus.session import TransactionMode, Window

T = TypeVar("T")

_BARRIER: Final = Reset(Action.EXACT, "SELECT 1", "a statement that was cut short")
_CLOSED: Final = Reset(Action.CLOSE)
_LOOKS: Final = 3
_LOOK_LIMIT: Final = 5.0
_UNSEEN: Final = Verdict(reason="behind a pooler")


class PooledTrace(SessionTrace):
    """
    Refuses what needs a session, before it is sent; there is nothing that a reset could reach.
    """

    __slots__ = ("_end", "_raw")

    def __init__(self, raw: Connection) -> None:
        self._raw = raw
        self._end = NO_RESET
        self.reason = None
        self.verdict = self._judge

    @staticmethod
    def _judge(sql: str) -> Verdict:  # noqa: ARG004  # none is known to leave nothing
        return _UNSEEN

    def saw(self, sql: str) -> None:
        """
        Look at a statement that is about to be sent.

        Raises:
            NeedsSession: it needs a session of its own.
        """
        found = refusal(sql, is_in_transaction=self._raw.is_in_transaction())
        if found is not None:
            raise found

    def touched(self, method: str) -> NeedsSession | None:
        word = RAW.get(method, "")
        if word is None or method in _HARMLESS:
            return None
        if word:
            return refusal_of(word)
        self._end = _CLOSED  # the driver's own state, such as codecs
        return None

    def interrupted(self) -> None:
        if self._end is NO_RESET:
            self._end = _BARRIER

    def reset(self) -> None:
        """
        Nothing was reset.
        """

    def end(self, *, is_in_transaction: bool = False) -> Reset:  # noqa: ARG002  # the pool rolls back whatever is open
        return self._end


_HARMLESS: Final = frozenset({"add_log_listener", "remove_log_listener"})


class PooledExecution(Execution):
    """
    One lease of a pooler's connection. Outside transactions it sets nothing; a statement that needs a limit of its
    own, or READ ONLY, gets a transaction around it.

    Attributes:
        checks: Are asked before a statement, and before settings of a transaction; they raise.
    """

    __slots__ = ("_is_wrapped", "checks")

    def __init__(self, pool: Pool, lease: Lease, terms: Terms) -> None:
        super().__init__(pool, lease, terms)
        self.trace = PooledTrace(lease.con)
        self._is_wrapped = False
        self.checks: tuple[Callable[[str], None], Callable[[Mapping[str, str]], None]] | None = None

    def window(self, timeout: float | None) -> Window:
        if not self.raw.is_in_transaction():
            return super().window(timeout)
        outside = self.limit
        self.limit = LaneLimit(outside.client, outside.client + SLACK)
        try:
            return super().window(timeout)
        finally:
            self.limit = outside

    async def settle(self, text: str, span: Window) -> None:
        """
        Bring the limit into force for a transaction, or begin one for a statement that needs it.

        Raises:
            QueryTimeout: the deadline has passed; nothing was sent.
            NeedsSession: the statement needs a session of its own; nothing was sent.
        """
        if self.raw.is_in_transaction():
            await super().settle(text, span)
        elif needs_block(span.server, self.terms.startup_limit, text, attempts=self._attempts()):
            assert self.trace is not None
            self.trace.saw(text)
            is_begun = False
            try:
                await self.send(opening(span.server, span.limit + SLACK), text, span)
                self._is_wrapped = is_begun = True
            finally:
                if not is_begun:
                    self.raw.terminate()

    def _attempts(self) -> int:
        return 1 if self.unit is None else self.unit.failed + 1

    async def run(  # noqa: PLR0917
        self,
        call: Callable[..., Awaitable[T]],
        text: str,
        args: tuple[Any, ...],
        span: Window,
        options: dict[str, Any],
        now: float | None = None,
    ) -> T:
        if self.checks is not None:
            self.checks[0](text)
        if not self._is_wrapped:
            return await super().run(call, text, args, span, options, now)
        self._is_wrapped = is_done = False
        try:
            result = await super().run(call, text, args, span, options, now)
            is_done = True
        finally:
            if not is_done and not self.is_late and not await _commit.rollback(self.raw):
                self.raw.terminate()
        await self.committing()
        return result

    async def begin(
        self, mode: TransactionMode, timeout: float | None, *, deadline: float, first: str = "", is_own: bool = False
    ) -> str:
        if self.checks is not None:
            self.checks[1](mode.settings)
        outside = self.limit
        guard = f"SET LOCAL idle_in_transaction_session_timeout TO {milliseconds(self.terms.idle_limit)}"
        self.limit = LaneLimit(outside.client, outside.client + SLACK)
        try:
            return await super().begin(
                mode, timeout, deadline=deadline, first=f"{guard}; {first}" if first else guard, is_own=is_own
            )
        finally:
            self.limit = outside

    async def begin_savepoint(self, name: str, mode: TransactionMode, timeout: float | None) -> None:
        if self.checks is not None:
            self.checks[1](mode.settings)
        await super().begin_savepoint(name, mode, timeout)


def terms_behind(terms: Terms, config: DatabaseConfig, default: float) -> Terms:
    """
    Return the terms behind a pooler whose sessions begin with a statement_timeout of `default` seconds.
    """
    default = default or math.inf
    limits = statement_limits(config, default)
    reading = MappingProxyType({lane: limits[lane].reading for lane in LANES})
    return replace(terms, limits=limits, reading=reading, startup_limit=default)


# --- which pooler ----------------------------------------------------------------------------------------------------

_SESSION: Final = """
SELECT pg_catalog.pg_backend_pid(),
       (SELECT setting::float8 / 1000 FROM pg_catalog.pg_settings WHERE name = 'statement_timeout'),
       (SELECT setting::float8 / 1000 FROM pg_catalog.pg_settings WHERE name = 'idle_in_transaction_session_timeout')
"""
_PID: Final = "SELECT pg_catalog.pg_backend_pid()"


async def look(config: DatabaseConfig, connect: Connect = _driver.driver_connect) -> Sight:
    """
    Look which sessions two connections get, within five seconds.

    Raises:
        ConnectError: a connection cannot be opened, or the pooler lends no session in time.
    """
    arguments = config.replace(pooler="transaction", server_settings={}).connect_arguments(os.environ)
    opened: list[Connection] = []
    try:
        async with asyncio.timeout(_LOOK_LIMIT):
            return await _look(arguments, connect, opened)
    except Exception as error:  # noqa: BLE001  # named here
        found = _driver.connect_error(error)
        raise found from found.__cause__
    finally:
        for con in opened:
            con.terminate()


async def _look(arguments: dict[str, Any], connect: Connect, opened: list[Connection]) -> Sight:
    one = await connect(**arguments)
    opened.append(one)
    row = await one.fetchrow(_SESSION)
    assert row is not None, "the server answers with one row"
    pid, statement, idle = row
    announced = one.get_server_pid()
    first, second = [pid], list[int]()
    other = await connect(**arguments)
    opened.append(other)
    for _ in range(_LOOKS):
        await other.execute("BEGIN")
        second.append(await other.fetchval(_PID))
        if pid not in second:
            # The first one's session is still there for it; where there is no second one it would wait for ever.
            first.append(await one.fetchval(_PID))
        await other.execute("ROLLBACK")
        first.append(await one.fetchval(_PID))
    return Sight(announced, first, second, statement, idle)
