"""Attempts at a unit of work: whether a failure may be repeated, when, and how often. It knows no SQL.

A unit is repeated only while nothing of it reached the server: a connection that could not be had, or that was found
dead before the first byte. After that byte nobody can know what the server did with it, so nothing is repeated.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import asyncpg

from magnus import _driver
from magnus._backoff import full_jitter
from magnus.errors import ConnectError, MagnusError
from magnus.observe import Retry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from magnus._clock import Clock
    from magnus.config import DatabaseConfig
    from magnus.observe import Event

T = TypeVar("T")

_CAP: Final = 1.0
_HEALS: Final = frozenset({"unreachable", "too_many", "starting", "timeout"})


class Progress:
    """
    How far one attempt came. The unit sets `is_sent` before the first byte of the user's own leaves, and `is_final`
    when it begins to read a source that it could not read again.
    """

    __slots__ = ("is_final", "is_sent")

    def __init__(self) -> None:
        self.is_sent = False
        self.is_final = False


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """
    How often, and after how long a pause (seconds).

    Attributes:
        attempts: Of one unit, the first included; 1 repeats nothing.
        delay: Upper bound of the first pause.
        backoff: Factor by which that bound grows.
    """

    attempts: int
    delay: float
    backoff: float

    @classmethod
    def of(cls, config: DatabaseConfig) -> RetryPolicy:
        return cls(config.max_retries, config.retry_delay, config.retry_backoff)


def is_repeatable(error: Exception, *, is_sent: bool) -> bool:
    """
    Say whether a failed unit certainly had no effect and a new connection may do better.

    What the layer itself decided (no slot, no time, shed, closed) is final; so is an answer of the server's.
    """
    if is_sent:
        return _was_never_sent(error)
    if isinstance(error, ConnectError):
        return error.reason in _HEALS
    if isinstance(error, MagnusError):
        return False
    return _driver.is_connection_lost(error) or isinstance(error, OSError)


def _was_never_sent(error: Exception) -> bool:
    # The driver found its own state unfit before it wrote the message that executes.
    text = str(error)
    if isinstance(error, asyncpg.InternalClientError):
        return text.startswith("cannot switch to state")
    return isinstance(error, asyncpg.InterfaceError) and "connection is closed" in text


def next_delay(
    policy: RetryPolicy, *, failed: int, remaining: float, uniform: Callable[[float, float], float]
) -> float | None:
    """
    Return the seconds to wait before the next attempt, or None when there is none: too many `failed`, or no time.
    """
    if failed >= policy.attempts:
        return None
    delay = full_jitter(failed, base=policy.delay, factor=policy.backoff, cap=_CAP, uniform=uniform)
    return delay if delay < remaining else None


class Retrier:
    """
    The loop around the two decisions. A unit that succeeds at once costs nothing but the call.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        notify: Callable[[Event], None],
        clock: Clock,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._policy = policy
        self._notify = notify
        self._clock = clock
        self._uniform = uniform
        self.retries = 0

    async def run(
        self, unit: Callable[[Progress], Awaitable[T]], progress: Progress, *, deadline: float, failed: int = 0
    ) -> T:
        """
        Run a unit, again while that is safe and there is time before `deadline` (monotonic seconds).

        `progress` tells afterwards how far the last attempt came. `failed`: attempts there were before.

        Raises:
            Exception: the last attempt's own error, with a note of the attempts when there was more than one.
        """
        while True:
            progress.is_sent = False
            try:
                return await unit(progress)
            except Exception as error:
                failed += 1
                is_sent = progress.is_sent
                delay = None if progress.is_final else self.delay(error, failed, deadline, is_sent=is_sent)
                if delay is None:
                    if failed > 1:
                        error.add_note(
                            f"magnus: failed in {failed} attempts; nothing had been sent in the earlier ones"
                        )
                    raise
            await self._clock.sleep(delay)

    def delay(self, error: Exception, failed: int, deadline: float, *, is_sent: bool) -> float | None:
        """
        Return the seconds to wait before the next attempt after `failed` ones, which is told; None when there is none.
        """
        if not is_repeatable(error, is_sent=is_sent):
            return None
        remaining = deadline - self._clock.now()
        delay = next_delay(self._policy, failed=failed, remaining=remaining, uniform=self._uniform)
        if delay is not None:
            self.retries += 1
            self._notify(Retry(attempt=failed, delay=delay, error_type=type(error).__name__, error=str(error)))
        return delay
