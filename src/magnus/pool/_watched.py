"""The slow-query log of a pool that `create_pool` made with a threshold: its proxies time what runs on them.

Without a threshold nothing of this is in the way. It knows statements by text and time, and no pool.
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Generator
from typing import TYPE_CHECKING, Any, Final

from magnus._clock import MonotonicClock
from magnus.config import DatabaseConfig, seconds
from magnus.pool._asyncpg import LANE
from magnus.pool._proxy import PoolConnectionProxy
from magnus.slowlog import SlowLog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from magnus.observe import Event
    from magnus.pool._lease import Lease
    from magnus.pool._proxy import Owner

_NAME: Final = "application_name"


class Watch:
    """
    Times statements, and tells the log of those that were slow. `connect` opens the log's own connection.
    """

    def __init__(
        self,
        threshold: float,
        *,
        settings: dict[str, str],
        notify: Callable[[Event], None],
        connect: Callable[..., Awaitable[Any]],
    ) -> None:
        self._threshold = seconds("slow_query_threshold", threshold, least=0.0)
        config = DatabaseConfig(slow_query_threshold=self._threshold, application_name=settings.get(_NAME, ""))
        self.log = SlowLog(config, notify=notify, clock=MonotonicClock(), connect=connect)

    def proxy(self, owner: Owner, lease: Lease, patience: float | None) -> PoolConnectionProxy:
        """
        Return a proxy of which every statement is timed.
        """
        found = WatchedProxy(owner, lease, patience)
        found.watch = self
        return found

    async def timed(
        self, call: Callable[..., Awaitable[Any]], text: str, args: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        """
        Await a call of the driver's; `text` is the statement that it runs.
        """
        began, result, is_done = time.monotonic(), None, False
        try:
            result = await call(*args, **options)
            is_done = True
        finally:
            took = time.monotonic() - began
            if took > self._threshold:
                ended = None if is_done else sys.exception()
                self.log.saw(text, took, call.__name__, result, LANE, 0.0, 1, args, ended)
        return result


class WatchedProxy(PoolConnectionProxy):
    """
    A leased connection that is watched.
    """

    __slots__ = ("watch",)

    watch: Watch

    async def prepare(self, query: str, **options: Any) -> Any:
        statement = await self.watch.timed(super().prepare, query, (query,), options)
        return _Statement(self.watch, statement, query)

    def cursor(self, query: str, *args: Any, **options: Any) -> Any:
        return _Factory(self.watch, super().cursor(query, *args, **options), query)


def _method(name: str, text: Callable[[Any], str]) -> Callable[..., Awaitable[Any]]:
    driver = getattr(PoolConnectionProxy, name)

    async def call(self: WatchedProxy, *args: Any, **options: Any) -> Any:
        return await self.watch.timed(driver.__get__(self), text(args[0] if args else ""), args, options)

    call.__name__, call.__qualname__, call.__doc__ = name, f"WatchedProxy.{name}", driver.__doc__
    return call


for _name in ("fetch", "fetchrow", "fetchval", "fetchmany", "execute", "executemany", "copy_from_query"):
    setattr(WatchedProxy, _name, _method(_name, str))
for _name in ("copy_records_to_table", "copy_to_table"):
    setattr(WatchedProxy, _name, _method(_name, "COPY {} FROM STDIN".format))
WatchedProxy.copy_from_table = _method("copy_from_table", "COPY {} TO STDOUT".format)  # type: ignore[method-assign,assignment]


class _Delegate:
    """
    Something of the driver's, of which some coroutine methods are timed.
    """

    _TIMED: frozenset[str] = frozenset()

    def __init__(self, watch: Watch, raw: Any, text: str) -> None:
        self._watch = watch
        self._raw = raw
        self._text = text

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._raw, name)
        if name not in self._TIMED:
            return found

        async def call(*args: Any, **options: Any) -> Any:
            return await self._watch.timed(found, self._text, args, options)

        return call


class _Statement(_Delegate):
    _TIMED = frozenset({"fetch", "fetchrow", "fetchval", "fetchmany", "executemany"})

    def cursor(self, *args: Any, **options: Any) -> _Factory:
        return _Factory(self._watch, self._raw.cursor(*args, **options), self._text)


class _Factory(_Delegate):
    def __aiter__(self) -> AsyncIterator[Any]:
        return _Iterator(self._watch, aiter(self._raw), self._text)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._open().__await__()

    async def _open(self) -> _Cursor:
        async def opening() -> Any:
            return await self._raw

        return _Cursor(self._watch, await self._watch.timed(opening, self._text, (), {}), self._text)


class _Cursor(_Delegate):
    _TIMED = frozenset({"fetch", "fetchrow", "forward"})


class _Iterator(_Delegate, AsyncIterator[Any]):
    async def __anext__(self) -> Any:
        try:
            return await self._watch.timed(self._raw.__anext__, self._text, (), {})
        except StopAsyncIteration:
            raise StopAsyncIteration from None
