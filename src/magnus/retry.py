"""Attempts at a unit of work: what a failure says of the server, whether it may be repeated, when, and how often.

It knows no SQL. Only whole units are repeated: a statement of its own, or a function that runs in a transaction; never
a statement inside an open transaction. Whether a unit that was sent may be sent again is what its author declared,
never what its text looks like.

`Retrier` asks, in this order: what the failure says (`_verdicts`), what the unit may, how many attempts there were, the
deadline, and the budget.
"""

from __future__ import annotations

import functools
import random
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from magnus import _driver
from magnus._backoff import full_jitter
from magnus._verdicts import Phase, Verdict, classify
from magnus.errors import OutcomeUnknown
from magnus.observe import Retry, RetryBudgetSpent, ServerFault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from magnus._clock import Clock
    from magnus.config import DatabaseConfig
    from magnus.observe import Event

T = TypeVar("T")
P = ParamSpec("P")


# --- what a unit may ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rights:
    """
    What a unit's author declared of it.

    Attributes:
        is_repeatable: Running it twice is as good as once: it only reads, it has a key, or it was declared idempotent.
        is_read_only: It runs READ ONLY.
        is_whole: An error that the server answers takes all of it back; not so a text that commits half-way.
    """

    is_repeatable: bool = False
    is_read_only: bool = False
    is_whole: bool = True


ORDINARY: Final = Rights()
READ: Final = Rights(is_repeatable=True, is_read_only=True)
REPEATABLE: Final = Rights(is_repeatable=True)
IN_PARTS: Final = Rights(is_whole=False)


def may_repeat(verdict: Verdict, rights: Rights, *, was_once: bool = False) -> bool:
    """
    Say whether a unit may run again. `was_once`: it was repeated already for what is worth one repeat.
    """
    match verdict:
        case Verdict.NOT_SENT:
            return True
        case Verdict.ROLLED_BACK:
            return rights.is_whole or rights.is_repeatable
        case Verdict.ROLLED_BACK_ONCE:
            return (rights.is_whole or rights.is_repeatable) and not was_once
        case Verdict.PERHAPS | Verdict.UNKNOWN:
            return rights.is_repeatable
    return False


class _Declaration:
    __slots__ = ("is_over",)

    def __init__(self) -> None:
        self.is_over = False


_declared: ContextVar[_Declaration | None] = ContextVar("magnus_idempotent", default=None)


def is_declared() -> bool:
    """
    Say whether the running code is inside a function declared `idempotent`.
    """
    found = _declared.get()
    return found is not None and not found.is_over


def idempotent(fn: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """
    Declare that running a coroutine function twice is as good as once.

    Statements that it runs on a `Database` by themselves may then be sent again when their connection was lost, and
    `run_in_transaction` runs it again when the outcome of its COMMIT is unknown. What it does elsewhere (files, other
    services) is repeated too.
    """

    @functools.wraps(fn)
    async def declared(*args: P.args, **kwargs: P.kwargs) -> T:
        declaration = _Declaration()
        token = _declared.set(declaration)
        try:
            return await fn(*args, **kwargs)
        finally:
            declaration.is_over = True
            _declared.reset(token)

    declared.is_idempotent = True  # type: ignore[attr-defined]
    return declared


def is_idempotent(fn: object) -> bool:
    """
    Say whether a function was declared so, whatever arguments were bound to it since.
    """
    while isinstance(fn, functools.partial):
        fn = fn.func
    return bool(getattr(fn, "is_idempotent", False))


# --- when, and how often ---------------------------------------------------------------------------------------------

_CAP: Final = 1.0
_REMINDER: Final = 60.0
_FAULTS: Final = frozenset({"53100", "XX001", "XX002"})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """
    How often, and after how long a pause (seconds).

    Attributes:
        attempts: Of one unit, the first included; 1 repeats nothing.
        delay: Upper bound of the first pause.
        backoff: Factor by which that bound grows, to a second, or to `delay` when that is longer.
    """

    attempts: int
    delay: float
    backoff: float

    @classmethod
    def of(cls, config: DatabaseConfig) -> RetryPolicy:
        return cls(config.max_retries, config.retry_delay, config.retry_backoff)


def pause(policy: RetryPolicy, failed: int, uniform: Callable[[float, float], float]) -> float:
    """
    Return the seconds to wait after `failed` attempts: full jitter, from 0 to a bound that grows.
    """
    cap = max(_CAP, policy.delay)
    return full_jitter(failed, base=policy.delay, factor=policy.backoff, cap=cap, uniform=uniform)


def next_delay(
    policy: RetryPolicy, *, failed: int, remaining: float, uniform: Callable[[float, float], float]
) -> float | None:
    """
    Return the seconds to wait before the next attempt, or None when there is none: too many `failed`, or no time.
    """
    if failed >= policy.attempts:
        return None
    delay = pause(policy, failed, uniform)
    return delay if delay < remaining else None


def unlimited(_now: float) -> bool:
    """
    In place of a budget: none.
    """
    return True


class Progress:
    """
    How far one attempt came. The unit sets `is_sent` before the first byte of the user's own leaves, `is_final` when it
    begins to read a source that it could not read again, `is_in_block` when that is inside a transaction, and
    `is_closed` when it finds its connection so.
    """

    __slots__ = ("is_closed", "is_final", "is_in_block", "is_sent")

    def __init__(self) -> None:
        self.is_final = False
        self.restart()

    def restart(self) -> None:
        """
        Begin another attempt.
        """
        self.is_sent = self.is_in_block = self.is_closed = False

    @property
    def phase(self) -> Phase:
        if self.is_in_block:
            return Phase.BLOCK
        return Phase.STATEMENT if self.is_sent else Phase.UNSENT


class Attempts:
    """
    What there was of one unit so far, and in which `phase` the last attempt failed.

    Attributes:
        failed: How many failed.
        may_be_stored: One of them was sent and not answered.
        was_once: It was repeated for what is worth one repeat.
        is_over_budget: It would have been repeated, were there not too much of it.
    """

    __slots__ = ("failed", "is_over_budget", "may_be_stored", "phase", "was_once")

    def __init__(self, phase: Phase = Phase.UNSENT) -> None:
        self.phase = phase
        self.failed = 0
        self.was_once = False
        self.may_be_stored = False
        self.is_over_budget = False

    def note(self, error: BaseException, rights: Rights) -> None:
        """
        Add to the last attempt's error what the error itself cannot know.
        """
        if self.failed > 1:
            error.add_note(f"magnus: failed in {self.failed} attempts")
        if self.is_over_budget:
            error.add_note("magnus: not repeated, too much is being repeated at present (retry budget)")
        if self.may_be_stored and not rights.is_read_only and not isinstance(error, OutcomeUnknown):
            error.add_note("magnus: it had been sent when the connection was lost, so it may have been carried out")


class Retrier:
    """
    The loop around the decisions. A unit that succeeds at once costs nothing but the call.

    `budget` is asked for every repeat of something that was sent, with the time.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        notify: Callable[[Event], None],
        clock: Clock,
        uniform: Callable[[float, float], float] = random.uniform,
        budget: Callable[[float], bool] = unlimited,
    ) -> None:
        self._policy = policy
        self._notify = notify
        self._clock = clock
        self._uniform = uniform
        self._budget = budget
        self._refused = self._told = 0
        self._tell_at = float("-inf")
        self._by_verdict: dict[Verdict, int] = {verdict: 0 for verdict in Verdict if verdict is not Verdict.NEVER}

    async def run(
        self,
        unit: Callable[[Progress], Awaitable[T]],
        progress: Progress,
        *,
        deadline: float,
        rights: Callable[[], Rights] = lambda: ORDINARY,
        attempts: Attempts | None = None,
    ) -> T:
        """
        Run a unit, again while that is safe and there is time before `deadline` (monotonic seconds).

        `progress` tells afterwards how far the last attempt came; `attempts` what there was before. `rights` is asked
        when an attempt has failed.

        Raises:
            Exception: the last attempt's own error, with a note of the attempts when there was more than one.
        """
        attempts = Attempts() if attempts is None else attempts
        while True:
            progress.restart()
            try:
                return await unit(progress)
            except Exception as error:
                attempts.phase = progress.phase
                delay = self.decide(error, attempts, rights(), deadline, progress)
                if delay is None:
                    raise
            await self._clock.sleep(delay)

    def decide(
        self, error: Exception, attempts: Attempts, rights: Rights, deadline: float, progress: Progress | None = None
    ) -> float | None:
        """
        Return the seconds to wait before the next attempt at a unit that has just failed, which is told; None when
        there is none, and then the error carries the notes.
        """
        is_final = progress is not None and progress.is_final
        is_closed = progress is not None and progress.is_closed
        verdict = classify(error, attempts.phase, is_closed=is_closed, is_read_only=rights.is_read_only)
        attempts.failed += 1
        attempts.may_be_stored = attempts.may_be_stored or verdict in {Verdict.PERHAPS, Verdict.UNKNOWN}
        self._report_fault(error)
        delay = None
        if not is_final and may_repeat(verdict, rights, was_once=attempts.was_once):
            now = self._clock.now()
            delay = next_delay(self._policy, failed=attempts.failed, remaining=deadline - now, uniform=self._uniform)
            is_costly = verdict is not Verdict.NOT_SENT and not _driver.is_outdated_plan(error)
            attempts.is_over_budget = delay is not None and is_costly and not self._budget(now)
            if attempts.is_over_budget:
                self._refuse(now)
        if delay is None or attempts.is_over_budget:
            attempts.note(error, rights)
            return None
        attempts.was_once = attempts.was_once or verdict is Verdict.ROLLED_BACK_ONCE
        self.told(error, attempts, delay, verdict)
        return delay

    def told(self, error: Exception, attempts: Attempts, delay: float, verdict: Verdict) -> None:
        """
        Count and tell that a unit will be repeated after `delay` seconds.
        """
        self._by_verdict[verdict] += 1
        self._notify(Retry(attempt=attempts.failed, delay=delay, error_type=type(error).__name__, error=str(error)))

    def pause(self, attempts: Attempts) -> float:
        """
        Return the seconds to wait after so many attempts, however many the policy allows.
        """
        return pause(self._policy, attempts.failed, self._uniform)

    def figures(self) -> dict[str, Any]:
        """
        Return what was repeated, by what the failure had left on the server, and what was not for want of budget.
        """
        return {
            "retries": sum(self._by_verdict.values()),
            "retries_by_class": {verdict.name.lower(): count for verdict, count in self._by_verdict.items()},
            "retries_refused": self._refused,
        }

    def _refuse(self, now: float) -> None:
        self._refused += 1
        if now >= self._tell_at:
            self._notify(RetryBudgetSpent(self._refused - self._told))
            self._told, self._tell_at = self._refused, now + _REMINDER

    def _report_fault(self, error: BaseException) -> None:
        sqlstate = _driver.sqlstate_of(error)
        if sqlstate in _FAULTS:
            self._notify(ServerFault(str(sqlstate), type(error).__name__))
