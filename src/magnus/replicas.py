"""Standbys beside the primary: watched, given the reads that they may answer, and passed over when they may not.

Which one may answer is `_routing`'s. A read that fails on a standby is asked of the primary, within the same deadline.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from magnus import _driver, lanes
from magnus._marks import Mark, Reader, reader_of, reading_as
from magnus._noted import NotedExecution, held
from magnus._replica import Replica
from magnus._routing import Position, Standing, choose, is_ahead, is_for_primary, may_become_fit
from magnus._whereabouts import Whereabouts
from magnus.errors import ConfigError, MagnusError, QueryTimeout
from magnus.observe import ReadTokenIgnored
from magnus.retry import READ
from magnus.session import window

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractContextManager

    from magnus._clock import Clock
    from magnus._execution import Execution
    from magnus._routing import Primary
    from magnus._terms import Terms
    from magnus.config import DatabaseConfig
    from magnus.lanes import QueryPriority
    from magnus.observe import Event
    from magnus.retry import Attempts, Rights
    from magnus.session import TransactionMode
    from magnus.transaction import Transaction

__all__ = ["NotedExecution", "Replica", "Replicas", "is_worth_primary"]

_POLL: Final = 0.1
_EAGER: Final = 0.005
_KEYS: Final = 10_000
_BETWEEN_TOKENS: Final = 60.0


class Replicas:
    """
    The standbys of one database, and where the primary last was. `config` is the primary's. `must_be_primary` says
    whether the running code must not be answered by a standby.
    """

    def __init__(
        self, config: DatabaseConfig, terms: Callable[[], Terms], notify: Callable[[Event], None], clock: Clock
    ) -> None:
        self._config = config
        self._clock = clock
        self._terms = terms
        self._notify = notify
        self.members = [Replica(target, terms, notify, clock) for target in config.replica_configs()]
        self._whereabouts = Whereabouts(config, clock)
        self._tasks: list[asyncio.Task[None]] = []
        self._waiting = 0
        self._wake = asyncio.Event()
        self._came = asyncio.Event()
        self._everybody = Mark()
        self._default = Reader(self._everybody)
        self._marks: OrderedDict[str, Mark] = OrderedDict()
        self._has_forgotten = False
        self.must_be_primary: Callable[[], bool] = bool
        self.primary_reads = self.waits = self.ignored_tokens = 0
        self._told_of_token = -math.inf

    # --- life

    async def open(self) -> None:
        """
        Look at all once, and go on looking.
        """
        await asyncio.gather(*(member.look() for member in self.members), self._ask_quietly())
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._watch(member.look)) for member in self.members]
        self._tasks.append(loop.create_task(self._watch(self._ask_quietly)))

    async def close(self) -> None:
        """
        Stop, and close all connections.
        """
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self._whereabouts.close()
        await asyncio.gather(*(member.close() for member in self.members))

    def forked(self) -> None:
        """
        Let go of everything, in a child process: the connections are the parent's.
        """
        for con in (self._whereabouts.disowned(), *(member.disowned() for member in self.members)):
            if con is not None:
                _driver.disown(con)

    async def _watch(self, look: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                async with asyncio.timeout(_POLL):
                    await self._wake.wait()
                await self._clock.sleep(_EAGER)
            except TimeoutError:
                pass
            await look()
            self._came.set()

    async def _ask_quietly(self) -> None:
        try:
            await self.ask()
        except Exception:  # noqa: BLE001  # the last sight of the primary grows old, which counts as lag
            return

    async def ask(self) -> Primary:
        """
        Return where the primary stands, asked after this call.

        Raises:
            Exception: it does not say within 0.4 s.
        """
        return await self._whereabouts.ask()

    # --- what a reader must see

    def reader(self) -> Reader:
        """
        Return what the running code is as a reader: within its scopes, else as anybody of the whole process.
        """
        return reader_of(self, self._default)

    def scope(self, key: str | None, token: str | None) -> AbstractContextManager[None]:
        """
        Give the code inside a mark of its own, or the one of `key`, which has at least seen `token`; what the scopes
        around it must see it must see too.
        """
        mark = Mark() if key is None else self._mark_of(key)
        position = None if token is None else Position.parse(token)
        if position is not None:
            mark.saw(position)
        elif token is not None:
            self._ignore_token()
        return reading_as(self, self.reader().within(mark))

    def at_primary(self) -> AbstractContextManager[None]:
        """
        Let the code inside be answered by the primary alone.
        """
        return reading_as(self, self.reader().at_primary())

    def _mark_of(self, key: str) -> Mark:
        mark = self._marks.get(key)
        if mark is None:
            mark = self._marks[key] = Mark()
            if self._has_forgotten:
                mark.wrote()  # what was written under this key before may have been forgotten
        self._marks.move_to_end(key)
        if len(self._marks) > _KEYS:
            self._marks.popitem(last=False)
            self._has_forgotten = True
        return mark

    def _ignore_token(self) -> None:
        """
        Count what is no token; it came from a client, who must not fill the log.
        """
        self.ignored_tokens += 1
        now = self._clock.now()
        if now >= self._told_of_token + _BETWEEN_TOKENS:
            self._told_of_token = now
            self._notify(ReadTokenIgnored(self.ignored_tokens))

    async def token(self) -> str | None:
        """
        Return what a later reader elsewhere must see to see what the running code wrote; None when it wrote nothing.
        """
        need = await self.reader().need(self.ask)
        last = self._whereabouts.last
        if need is not None and (last is None or need.timeline != last.position.timeline):
            need = (await self.ask()).position  # so that the next reader is not sent to the primary for ever
        return None if need is None else str(need)

    # --- the choice

    async def pick(self, deadline: float) -> Replica | None:
        """
        Return the standby that may answer the running code, waiting for one a moment; None: the primary should.
        """
        if self.must_be_primary() or self.reader().must_be_primary:
            return None
        for lease in held():
            if lease.is_deciding:
                return None
            if not lease.is_released:
                self.reader().wrote()  # it may have written, and tells only at its end
        try:
            async with asyncio.timeout(max(min(deadline - self._clock.now(), self._config.replica_wait), 0.0)):
                need = await self.reader().need(self.ask)
                if is_ahead(self._whereabouts.last, need):
                    await self.ask()
        except Exception:  # noqa: BLE001  # nobody can say what must be seen, so the primary is asked
            return None
        found = self._choose(need)
        if found is None and may_become_fit(self._standings(), self._whereabouts.last, need):
            found = await self._wait(need, min(deadline, self._clock.now() + self._config.replica_wait))
        return found

    async def _wait(self, need: Position | None, until: float) -> Replica | None:
        self.waits += 1
        self._waiting += 1
        self._wake.set()
        try:
            async with asyncio.timeout(max(until - self._clock.now(), 0.0)):
                while (found := self._choose(need)) is None:
                    self._came.clear()
                    await self._came.wait()
                return found
        except TimeoutError:
            return None
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._wake.clear()

    def _standings(self) -> list[Standing | None]:
        return [member.standing for member in self.members]

    def _choose(self, need: Position | None) -> Replica | None:
        seen = [
            None if found is None else Standing(found.replayed, found.age, found.seen_at, found.latency, member.busy)
            for member in self.members
            for found in [member.standing]
        ]
        place = choose(seen, self._whereabouts.last, need, now=self._clock.now(), max_lag=self._config.replica_max_lag)
        return None if place is None else self.members[place]

    # --- reads

    async def one(  # noqa: PLR0917
        self,
        primary: Callable[..., Awaitable[Any]],
        method: str,
        text: str,
        args: tuple[Any, ...],
        priority: QueryPriority | None,
        timeout: float | None,
        rights: Rights,
        **options: Any,
    ) -> Any:
        """
        Run one statement: a read on a standby that may answer it, everything else by `primary`.
        """
        if rights is not READ:
            reader = self.reader()
            try:
                return await primary(method, text, args, priority, timeout, rights, **options)
            finally:
                reader.wrote()
        now = self._clock.now
        span = window(self._terms().reading[lanes.resolve(priority)], timeout, now=now())
        member = await self.pick(span.deadline)
        if member is not None:
            member.busy += 1
            member.reads += 1
            try:
                left = max(span.deadline - now(), 0.001)
                return await member.reader._one(method, text, args, priority, left, rights, **options)  # noqa: SLF001
            except Exception as error:
                if not is_worth_primary(error) or now() >= span.deadline:
                    raise
                member.suspect()
            finally:
                member.busy -= 1
        self.primary_reads += 1
        return await primary(method, text, args, priority, max(span.deadline - now(), 0.001), rights, **options)

    async def written(self, primary: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
        """
        Run by `primary` what always may write.
        """
        reader = self.reader()
        try:
            return await primary(*args, **options)
        finally:
            reader.wrote()

    async def begin(  # noqa: PLR0917
        self,
        primary: Callable[..., Awaitable[Execution]],
        mode: TransactionMode,
        priority: QueryPriority | None,
        timeout: float | None,
        deadline: float,
        transaction: Transaction,
        wait: float | None = None,
        unit: Attempts | None = None,
    ) -> Execution:
        """
        Begin a transaction: one that is READ ONLY on a standby that may answer it, every other by `primary`.
        """
        is_for_standby = mode.readonly and mode.isolation != "serializable" and not mode.deferrable
        member = await self.pick(deadline) if is_for_standby and not transaction.first else None
        if member is not None:
            lane, now = lanes.resolve(priority), self._clock.now()
            try:
                execution = await member.lend(lane, wait or deadline, is_named=lanes.is_named(priority))
                transaction.tag = await self._begun(execution, mode, timeout, deadline)
            except Exception as error:
                if not is_worth_primary(error) or self._clock.now() >= deadline:
                    raise
                member.suspect()
            else:
                member.reads += 1
                execution.asked_at, execution.unit = now, unit
                return execution
        return await primary(mode, priority, timeout, deadline, transaction, wait, unit)

    @staticmethod
    async def _begun(execution: Execution, mode: TransactionMode, timeout: float | None, deadline: float) -> str:
        is_begun = False
        try:
            tag = await execution.begin(mode, timeout, deadline=deadline)
            is_begun = True
        finally:
            if not is_begun:
                await execution.give_back()
        return tag

    def figures(self) -> dict[str, Any]:
        """
        Return all figures, ready for JSON.
        """
        return {
            "members": [member.figures(self._whereabouts.last) for member in self.members],
            "primary_reads": self.primary_reads,
            "waits": self.waits,
            "ignored_tokens": self.ignored_tokens,
        }


def is_worth_primary(error: Exception) -> bool:
    """
    Say whether the primary may answer what a standby did not.
    """
    if isinstance(error, QueryTimeout | ConfigError):
        return False
    if isinstance(error, MagnusError | OSError | asyncpg.InterfaceError | asyncpg.InternalClientError):
        return not isinstance(error, ValueError)  # the driver's own for an argument that does not fit
    return isinstance(error, asyncpg.PostgresError) and is_for_primary(_driver.sqlstate_of(error))
