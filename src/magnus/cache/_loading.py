"""What a cached function may do while it loads: read under the settings that its key has, and under no others.

A value that was read as one tenant must never be given to another, so whatever changes what a query sees is either in
the key or refused. What a function of the server's sets inside itself is seen by nobody.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from magnus._execution import Execution
from magnus._sqltext import calls, scan, split
from magnus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from magnus._terms import Terms
    from magnus.cache._store import Load
    from magnus.pool import Lease, Pool
    from magnus.session import TransactionMode, Window

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Loading:
    """
    The load that the running code is part of: of which function, and the settings in its key.
    """

    load: Load
    function: str
    settings: Mapping[str, str]


loading: Final[ContextVar[Loading | None]] = ContextVar("magnus_loading", default=None)


def is_loading() -> bool:
    """
    Say whether the running code loads a value for a cache: it must read from the primary, and see every commit.
    """
    return loading.get() is not None


_HARMLESS: Final = frozenset({
    "application_name", "effective_io_concurrency", "hash_mem_multiplier", "idle_in_transaction_session_timeout", "jit",
    "join_collapse_limit", "from_collapse_limit", "lock_timeout", "max_parallel_workers_per_gather", "plan_cache_mode",
    "random_page_cost", "seq_page_cost", "statement_timeout", "temp_buffers", "transaction_timeout", "work_mem",
})  # fmt: skip
"""Settings that change how long an answer takes, never the answer; so do those that begin with enable_ and jit_."""


def check_settings(found: Mapping[str, str], reading: Loading) -> None:
    """
    Raise when a transaction's settings are not in the key of the value that is being loaded.

    Raises:
        ConfigError: they are not.
    """
    for name, value in found.items():
        lowered = name.lower()
        if lowered in _HARMLESS or lowered.startswith(("enable_", "jit_")):
            continue
        if reading.settings.get(lowered) != value:
            reason = (
                f"is a setting that the cached function {reading.function} reads under and that its key does not have; "
                "declare it: @cached(…, settings=…)"
            )
            raise ConfigError("cached", name, reason)


def check_text(text: str, reading: Loading) -> None:
    """
    Raise when a statement changes settings by itself, because then nobody knows under which ones a value is read.

    Raises:
        ConfigError: it does.
    """
    found = _setter_in(text)
    if found is not None:
        reason = (
            f"changes what the cached function {reading.function} sees; give the settings to transaction(settings=…) "
            "and declare them: @cached(…, settings=…)"
        )
        raise ConfigError("cached", found, reason)


def checks_of(reading: Loading) -> tuple[Callable[[str], None], Callable[[Mapping[str, str]], None]]:
    """
    Return the two checks above, for whoever runs statements in place of a `KeyedExecution`.
    """
    return partial(check_text, reading=reading), partial(check_settings, reading=reading)


_OTHER_SET: Final = frozenset({"transaction", "constraints"})


@lru_cache(1_024)
def _setter_in(text: str) -> str | None:
    """
    Return the word by which a text changes settings, or None.
    """
    for statement in split(scan(text).tokens):
        if statement[0] == "reset" or (statement[0] == "set" and not _OTHER_SET.intersection(statement[1:3])):
            return statement[0].upper()
        if any(call.name == "set_config" for call in calls(statement)):
            return "set_config"
    return None


class KeyedExecution(Execution):
    """
    A lease on which a cached function loads: everything that would change what it sees is checked.
    """

    __slots__ = ("_reading",)

    def __init__(self, pool: Pool, lease: Lease, terms: Terms, reading: Loading) -> None:
        super().__init__(pool, lease, terms)
        self._reading = reading

    async def begin(
        self, mode: TransactionMode, timeout: float | None, *, deadline: float, first: str = "", is_own: bool = False
    ) -> str:
        check_settings(mode.settings, self._reading)
        return await super().begin(mode, timeout, deadline=deadline, first=first, is_own=is_own)

    async def begin_savepoint(self, name: str, mode: TransactionMode, timeout: float | None) -> None:
        check_settings(mode.settings, self._reading)
        await super().begin_savepoint(name, mode, timeout)

    async def run(  # noqa: PLR0917  # as it is
        self,
        call: Callable[..., Awaitable[T]],
        text: str,
        args: tuple[Any, ...],
        span: Window,
        options: dict[str, Any],
        now: float | None = None,
    ) -> T:
        check_text(text, self._reading)
        return await super().run(call, text, args, span, options, now)
