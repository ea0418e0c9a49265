"""One slot: its states, the events it may meet, and what the pool's shell is asked to do; pure tables and tuples."""

from __future__ import annotations

from enum import IntEnum
from itertools import count
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from magnus.session import Need, SessionLimit

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from magnus.pool._lanes import Waiter


class State(IntEnum):
    """
    Where a slot is. GONE slots are out of the pool.
    """

    CONNECTING = 0
    IDLE = 1
    ACQUIRED = 2
    CLOSING = 3
    GONE = 4


class Event(IntEnum):
    """
    What may happen to a slot.
    """

    OPENED = 0  # its connection is ready
    FAILED = 1  # its connection could not be opened
    TAKEN = 2  # a caller got it: from idle, straight from its last holder, or fresh
    RETURNED = 3  # its holder gave it back in order
    DISCARDED = 4  # its holder gave it back with the connection terminated
    RETIRED = 5  # its connection shall be closed in order
    LOST = 6  # its connection was terminated from outside
    CLOSED = 7  # its connection is closed


class IllegalEvent(AssertionError):
    """
    A slot met an event that its state does not know: a bug in the caller. Nothing was changed.
    """


_S, _E = State, Event
TABLE: Final = {
    (_S.CONNECTING, _E.OPENED): _S.IDLE,
    (_S.CONNECTING, _E.TAKEN): _S.ACQUIRED,
    (_S.CONNECTING, _E.FAILED): _S.GONE,
    (_S.CONNECTING, _E.RETIRED): _S.CLOSING,
    (_S.IDLE, _E.TAKEN): _S.ACQUIRED,
    (_S.IDLE, _E.RETIRED): _S.CLOSING,
    (_S.IDLE, _E.LOST): _S.GONE,
    (_S.ACQUIRED, _E.RETURNED): _S.IDLE,
    (_S.ACQUIRED, _E.TAKEN): _S.ACQUIRED,
    (_S.ACQUIRED, _E.RETIRED): _S.CLOSING,
    (_S.ACQUIRED, _E.DISCARDED): _S.GONE,
    (_S.ACQUIRED, _E.LOST): _S.ACQUIRED,  # the holder finds out by itself and gives the slot back
    (_S.CLOSING, _E.LOST): _S.CLOSING,  # its closing is under way and will report
    (_S.CLOSING, _E.CLOSED): _S.GONE,
    (_S.GONE, _E.LOST): _S.GONE,  # freeing is idempotent: whoever comes second changes nothing
    (_S.GONE, _E.DISCARDED): _S.GONE,
    (_S.GONE, _E.CLOSED): _S.GONE,
    (_S.GONE, _E.FAILED): _S.GONE,
}


_numbers: Final = count(1)


class Watch:
    """
    What runs on one connection: whose task, until when (seconds); `task` is None while nothing does. `cut` ends what
    must not be cancelled.
    """

    __slots__ = ("cancelling", "cut", "deadline", "is_swept", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[Any] | None = None
        self.deadline = 0.0
        self.cancelling = 0
        self.is_swept = False
        self.cut: Callable[[], None] | None = None

    def leave(self) -> bool:
        """
        The statement has ended. Says whether the sweep, and nobody else, cancelled it; that cancellation is taken back.
        """
        task, self.task = self.task, None
        if task is None:
            return False
        cut, self.cut = self.cut, None
        if not self.is_swept:
            return False
        self.is_swept = False
        return cut is None and task.uncancel() <= self.cancelling


class Slot:
    """
    One slot, the `number`th of the process. `con`, `probe`, `session` and `watch` belong to the shell; `rank` is the
    holder's lane while acquired, `handed_at` when it was handed to a holder that had waited, and None for one that
    had not; `given_at` is when the holder began with it. It last gave a sign of life at `heard_at`; `patience` is the
    share of the keepalive interval after which it is asked for another. While idle it is `filed` under the limit that
    its session has.
    """

    __slots__ = (
        "con", "expires", "filed", "generation", "given_at", "handed_at", "heard_at", "idle_since", "is_dead", "number",
        "patience", "probe", "rank", "session", "state", "watch",
    )  # fmt: skip

    def __init__(self, generation: int) -> None:
        self.state = State.CONNECTING
        self.number = next(_numbers)
        self.generation = generation
        self.rank = 0
        self.idle_since = 0.0
        self.given_at = 0.0
        self.expires = 0.0
        self.heard_at = 0.0
        self.patience = 1.0
        self.is_dead = False
        self.handed_at: float | None = None
        self.con: Any = None
        self.probe: Callable[[], bool] = bool
        self.session = SessionLimit()
        self.filed: Need = None
        self.watch = Watch()


class HandOff(NamedTuple):
    """
    Wake the waiter: `waiter.slot` is its own now.
    """

    waiter: Waiter


class Expire(NamedTuple):
    """
    Wake the waiter: its deadline passed while it was queued, or it was shed.
    """

    waiter: Waiter


class Refuse(NamedTuple):
    """
    Wake the waiter: the pool is closing, or `waiter.error` says why.
    """

    waiter: Waiter


class Connect(NamedTuple):
    """
    Open a connection for the slot; report `opened` or `connect_failed`.
    """

    slot: Slot


class Close(NamedTuple):
    """
    Close the slot's connection in order; report `closed`.
    """

    slot: Slot


class Retry(NamedTuple):
    """
    Call `tick` at this time (monotonic seconds): a connect is due then.
    """

    at: float


Action = HandOff | Expire | Refuse | Connect | Close | Retry
Actions = list[Action]
