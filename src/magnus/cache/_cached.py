"""`@cached`: a coroutine function on a database whose answers are kept for a while and dropped when they change."""

from __future__ import annotations

import functools
import inspect
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, Protocol, TypeVar

from magnus.cache._cache import QueryCache, Question
from magnus.cache._keys import key_of
from magnus.cache._versions import read_versions
from magnus.config import seconds
from magnus.connection import Connection
from magnus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping

D = TypeVar("D")
P = ParamSpec("P")
T = TypeVar("T")

_NONE: Final[Mapping[str, str]] = MappingProxyType({})


class Cached(Generic[D, P, T]):
    """
    A cached function; called as the function that it was made of.
    """

    def __init__(
        self,
        fn: Callable[Concatenate[D, P], Coroutine[Any, Any, T]],
        ttl: float,
        tags: Iterable[str] | Callable[..., Iterable[str]],
        settings: Callable[..., Mapping[str, str]] | None,
        *,
        is_fresh: bool,
    ) -> None:
        if not inspect.iscoroutinefunction(fn):
            raise ConfigError("cached", getattr(fn, "__name__", fn), "is no coroutine function")
        functools.update_wrapper(self, fn)
        self._fn = fn
        self._name = f"{fn.__module__}.{fn.__qualname__}"
        self._ttl = seconds("ttl", ttl)
        self._tags_of = tags if callable(tags) else None
        self._tags = () if callable(tags) else _checked(tags)
        self._settings_of = settings
        self._is_fresh = is_fresh
        self._signature = inspect.signature(fn)
        parameters = list(self._signature.parameters.values())
        if not parameters or parameters[0].kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
            raise ConfigError("cached", self._name, "takes no database as its first parameter")
        self._width = len(parameters)
        self._is_plain = all(each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for each in parameters)
        self._first = parameters[0].name

    def __repr__(self) -> str:
        return f"<magnus.cached {self._name}>"

    async def __call__(self, db: D, /, *args: P.args, **kwargs: P.kwargs) -> T:
        """
        Answer from the cache of `db`, or load. With a connection or a transaction for `db` it is read on that, and
        nothing is answered from the cache or kept in it.

        Raises:
            ConfigError: an argument can be changed, or the function reads under settings that its key does not have.
            TypeError: it returned what can be changed.
            QueryTimeout: the deadline of the scope around it was reached.
            Exception: what the function raised; it is kept for nobody.
        """
        found: T
        if isinstance(db, Connection):
            return await self._fn(db, *args, **kwargs)
        cache: QueryCache = db.cache  # type: ignore[attr-defined]  # a Database, which this module stands below
        question = self._question(db, args, kwargs)
        if self._is_fresh:
            found = await cache.fresh(question, partial(read_versions, db))
        else:
            found = await cache.answer(question)
        return found

    async def fresh(self, db: D, /, *args: P.args, **kwargs: P.kwargs) -> T:
        """
        As a call, checked with the server first: nothing that any process committed before is missed. One more query,
        by a primary key; all tags need their trigger (`magnus cache install`).

        Raises:
            ConfigError: as a call; or a tag has no version on the server.
            Exception: as a call.
        """
        if isinstance(db, Connection):
            return await self._fn(db, *args, **kwargs)
        cache: QueryCache = db.cache  # type: ignore[attr-defined]  # as above
        found: T = await cache.fresh(self._question(db, args, kwargs), partial(read_versions, db))
        return found

    def _question(self, db: D, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Question:
        if kwargs or len(args) != self._width - 1 or not self._is_plain:
            bound = self._signature.bind(db, *args, **kwargs)
            bound.apply_defaults()
            arguments = [value for name, value in bound.arguments.items() if name != self._first]
            arguments = [tuple(value.items()) if isinstance(value, dict) else value for value in arguments]
        else:
            arguments = list(args)
        tags = self._tags if self._tags_of is None else _checked(self._tags_of(*args, **kwargs))
        settings = _NONE
        if self._settings_of is not None:
            settings = {name.lower(): value for name, value in self._settings_of(*args, **kwargs).items()}
        key = key_of(self._name, arguments, settings)
        return Question(key, self._name, tags, self._ttl, settings, partial(self._fn, db, *args, **kwargs))


class Decorator(Protocol):
    """
    What makes a cached function of a coroutine function.
    """

    def __call__(self, fn: Callable[Concatenate[D, P], Coroutine[Any, Any, T]], /) -> Cached[D, P, T]: ...


def cached(
    *,
    ttl: float | str,
    tags: Iterable[str] | Callable[..., Iterable[str]] = (),
    settings: Callable[..., Mapping[str, str]] | None = None,
    fresh: bool = False,
) -> Decorator:
    """
    Keep what a coroutine function reads from a database: `@cached(ttl=5.0, tags=["instruments"])`.

    The function's first parameter is the database; its other arguments are the key, with their types, so each must be
    of a kind that does not change. Its answer is shared by all who ask, so it must not change either.

    Args:
        ttl: Seconds (or a text with a unit) that an answer is kept at most, since its load began.
        tags: What the answer depends on: names, or a function of the same arguments that returns names.
            `Transaction.invalidate` and `Database.invalidate` drop it by them.
        settings: A function of the same arguments that returns the settings (role, tenant) under which it is read; they
            are part of the key. A transaction inside the function that has others is refused.
        fresh: Every call asks the server for the versions of the tags first, see `Cached.fresh`.

    Raises:
        ConfigError: `ttl` is no duration, a tag is no name, or the function is no coroutine function of a database.
    """

    def decorate(fn: Callable[Concatenate[D, P], Coroutine[Any, Any, T]]) -> Cached[D, P, T]:
        return Cached(fn, ttl, tags, settings, is_fresh=fresh)  # type: ignore[arg-type]  # a text with a unit is read

    return decorate


def _checked(tags: Iterable[Any]) -> tuple[str, ...]:
    if isinstance(tags, str):
        raise ConfigError("tags", tags, "must be a sequence of names")
    found = tuple(tags)
    for tag in found:
        if not isinstance(tag, str) or not tag:
            raise ConfigError("tags", tag, "is no name")
    return found
