"""The cache of one database: who is answered from it, who loads, and who waits for whom; one query for all who miss.

Theory of operation. A call is answered from the store, or waits for the load of its key that is under way, or begins
one. A load runs in a task of its own, so a caller who is cancelled or runs out of time takes nothing from the others;
when the last of them is gone it is cancelled. It runs in its caller's lane without its caller's deadline. Nobody joins
a load that was begun before an invalidation, or in a less important lane. Inside a transaction that writes nothing is
answered from here: what is decided there must be read there.
"""

from __future__ import annotations

import asyncio
import contextvars
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from magnus import lanes
from magnus.cache._loading import Loading, loading
from magnus.cache._store import Load, Store
from magnus.errors import QueryTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Hashable, Mapping

    from magnus.lanes import QueryPriority

_DOUBT: Final = 10.0
"""Seconds for which nothing is kept of what a commit without an answer changed: as long as it may be under way."""


class Watcher(Protocol):
    """
    Hears what others change, on a connection of its own.
    """

    def start(self) -> None: ...
    async def close(self) -> None: ...
    def is_current(self, now: float) -> bool: ...
    def figures(self, now: float) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Question:
    """
    One call of a cached function.

    Attributes:
        key: What it is asked by.
        function: Its name.
        tags: What its answer depends on.
        ttl: Seconds that the answer may be kept.
        settings: What it reads under, beside what the database has.
        load: Asks the database.
    """

    key: Hashable
    function: str
    tags: tuple[str, ...]
    ttl: float
    settings: Mapping[str, str]
    load: Callable[[], Coroutine[Any, Any, Any]]


@dataclass(slots=True, eq=False)
class _Flight:
    task: asyncio.Task[Any]
    load: Load
    lane: QueryPriority
    waiting: int = 0


class QueryCache:
    """
    The answers of cached functions on one database. `Database.cache` is one; `cached` asks it.

    Attributes:
        watcher: Hears what other processes change; None where nobody asked for that.
    """

    def __init__(
        self,
        max_bytes: int,
        *,
        now: Callable[[], float],
        is_writing: Callable[[], bool],
        watcher: Watcher | None = None,
    ) -> None:
        self._store = Store(max_bytes)
        self._now = now
        self._is_writing = is_writing
        self._flights: dict[Hashable, _Flight] = {}
        self._is_open = False
        self._was_asked = False
        self.watcher = watcher

    def open(self) -> None:
        """
        Begin to keep answers.
        """
        self._is_open = True

    # --- changes

    def invalidate(self, *tags: str) -> None:
        """
        Drop everything that depends on these tags, at once, also what is being loaded. For changes that are committed;
        inside a transaction see `Transaction.invalidate`.
        """
        self._store.invalidate(tags)

    def committed(self, tags: Collection[str], *, is_certain: bool) -> None:
        """
        Take note that a transaction which changed what these tags stand for has ended; not `is_certain`: unanswered.
        """
        if is_certain:
            self._store.invalidate(tags)
        else:
            now = self._now()
            self._store.doubt(tags, now, now + _DOUBT)

    def changed(self, tags: Collection[str]) -> None:
        """
        Take note of what another process has changed.
        """
        self._store.invalidate(tags)

    def clear(self) -> None:
        """
        Drop everything, also what is being loaded.
        """
        self._store.clear()

    async def close(self) -> None:
        """
        Keep nothing any more, and stop listening.
        """
        self._is_open = False
        self._store.clear()
        if self.watcher is not None:
            await self.watcher.close()

    # --- questions

    async def answer(self, question: Question) -> Any:
        """
        Answer from what is kept, from a load under way, or by a load.

        Raises:
            QueryTimeout: the deadline of the caller's scope came first; the load goes on for others.
            Exception: what the load raised. It is raised by everybody who waited for it, and nothing is kept.
        """
        now = self._now()
        outer = loading.get()
        if not self._is_trusted(now):
            self._store.figures.bypassed += 1
            if outer is not None:
                outer.load.absorb(question.tags, now + question.ttl, is_stale=True)
            return await question.load()
        entry = self._store.find(question.key, now)
        if entry is not None:
            self._store.figures.hits += 1
            self._store.figures.saved += entry.cost
            if outer is not None:
                outer.load.absorb(entry.tags, entry.until)
            return entry.value
        return await self._joined(question, now, None)

    async def fresh(
        self, question: Question, versions: Callable[[Collection[str]], Coroutine[Any, Any, Mapping[str, int]]]
    ) -> Any:
        """
        As `answer`, with what the server's versions say at this moment: nothing committed before the call is missed,
        by whichever process. `versions` reads those of some tags.
        """
        self._was_asked = True
        if not self._is_open or self._is_writing():
            return await self.answer(question)
        found = await versions(question.tags)
        now = self._now()
        entry = self._store.find(question.key, now)
        if entry is not None and entry.versions == found and entry.tags == frozenset(question.tags):
            self._store.figures.hits += 1
            self._store.figures.saved += entry.cost
            outer = loading.get()
            if outer is not None:
                outer.load.absorb(entry.tags, entry.until)
            return entry.value
        return await self._joined(question, now, found)

    def _is_trusted(self, now: float) -> bool:
        """
        Say whether the cache may answer here and now.
        """
        self._was_asked = True
        if not self._is_open or self._store.max_bytes == 0:
            return False
        if self.watcher is not None and not self.watcher.is_current(now):
            self.watcher.start()
            return False
        return not self._is_writing()

    async def _joined(self, question: Question, now: float, versions: Mapping[str, int] | None) -> Any:
        lane = lanes.resolve(None)
        flight = self._flights.get(question.key)
        figures = self._store.figures
        is_shared = flight is not None and self._may_join(flight, lane, versions, now)
        if flight is None or not is_shared:
            figures.misses += 1
            flight = self._begin(question, lane, now, versions)
        else:
            figures.shared += 1
        outer = loading.get()
        if outer is not None:  # before anything is awaited: what is invalidated meanwhile concerns it too
            outer.load.absorb(flight.load.tags, flight.load.until)
        value = await self._wait(flight, question, lane, now)
        if outer is not None:
            outer.load.absorb(flight.load.tags, flight.load.until, is_stale=flight.load.is_stale)
        if is_shared:
            figures.saved += self._now() - now
        return value

    def _may_join(self, flight: _Flight, lane: QueryPriority, versions: Mapping[str, int] | None, now: float) -> bool:
        load = flight.load
        if load.is_stale or self._store.is_doubtful(load.tags, now) or lanes.lower(flight.lane, lane) is not lane:
            return False
        return versions is None or load.versions == versions

    def _begin(
        self, question: Question, lane: QueryPriority, now: float, versions: Mapping[str, int] | None
    ) -> _Flight:
        load = self._store.begin(question.tags, now, question.ttl)
        load.versions = versions
        context = contextvars.copy_context()
        context.run(loading.set, Loading(load, question.function, question.settings))
        context.run(lanes.without_deadline)
        task = asyncio.get_running_loop().create_task(self._run(question, load), context=context)
        flight = self._flights[question.key] = _Flight(task, load, lane)
        task.add_done_callback(lambda _: self._land(question.key, flight))
        return flight

    async def _run(self, question: Question, load: Load) -> Any:
        value = await question.load()
        check_value(value, question.function)
        self._store.keep(question.key, load, value, self._now())
        return value

    def _land(self, key: Hashable, flight: _Flight) -> None:
        self._store.end(flight.load)
        if self._flights.get(key) is flight:
            del self._flights[key]
        if not flight.task.cancelled():
            flight.task.exception()  # seen: those who waited raise it, and there may be none left

    async def _wait(self, flight: _Flight, question: Question, lane: QueryPriority, since: float) -> Any:
        scope = lanes.current()
        limit = None if scope is None or scope.deadline is None else max(scope.deadline - self._now(), 0.0)
        flight.waiting += 1
        try:
            if limit is None:
                return await asyncio.shield(flight.task)
            try:
                async with asyncio.timeout(limit) as ending:
                    return await asyncio.shield(flight.task)
            except TimeoutError:
                if not ending.expired():
                    raise
                elapsed = self._now() - since
                raise QueryTimeout(priority=lane.value, timeout=elapsed, elapsed=elapsed) from None
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                if self._flights.get(question.key) is flight:
                    del self._flights[question.key]
                flight.task.cancel()

    # --- figures

    def snapshot(self) -> dict[str, Any] | None:
        """
        Return all figures, ready for JSON; None while no cached function was called.
        """
        if not self._was_asked:
            return None
        store = self._store
        figures = asdict(store.figures)
        saved = figures.pop("saved")
        answered = store.figures.hits + store.figures.shared
        asked = answered + store.figures.misses
        found: dict[str, Any] = {
            "entries": len(store),
            "bytes": store.bytes,
            "max_bytes": store.max_bytes,
            **figures,
            "hit_ratio": round(answered / asked, 4) if asked else 0.0,
            "saved_s": round(saved, 3),
        }
        if self.watcher is not None:
            found["notify"] = self.watcher.figures(self._now())
        return found


def check_value(value: Any, function: str) -> None:
    """
    Refuse a value that whoever gets it could change for everybody.

    Raises:
        TypeError: it is a list, a dict, a set or a bytearray.
    """
    if isinstance(value, list | dict | set | bytearray):
        raise TypeError(
            f"the cached function {function} returned a {type(value).__name__}, which whoever gets it could change for "
            "all others: return a tuple, a frozen dataclass or another value that stays as it is"
        )
