"""Leases of user code on the primary of a database with standbys: what is done with one counts as written.

Where the next read goes is decided by whoever asks for the leases that the running code holds.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from magnus._execution import Execution

if TYPE_CHECKING:
    from magnus._marks import Reader
    from magnus._terms import Terms
    from magnus.pool import Lease, Pool

_held: ContextVar[tuple[NotedExecution, ...]] = ContextVar("magnus_held", default=())


class NotedExecution(Execution):
    """
    A lease of user code on the primary: what it does counts as written, and while it is in a transaction the code
    around it reads from the primary.
    """

    __slots__ = ("_reader",)

    def __init__(self, pool: Pool, lease: Lease, terms: Terms, reader: Reader) -> None:
        super().__init__(pool, lease, terms)
        self._reader = reader
        _held.set((*(other for other in _held.get() if not other.is_released), self))

    @property
    def is_deciding(self) -> bool:
        """
        Whether it is in a transaction that may write.
        """
        if self.is_released or self.raw.is_closed():
            return False
        return self.raw.is_in_transaction() and not (self.transactions and self.mode.readonly)

    async def give_back(self, *, is_known: bool = True) -> None:
        try:
            await super().give_back(is_known=is_known)
        finally:
            self._reader.wrote()


def held() -> tuple[NotedExecution, ...]:
    """
    Return the leases that the running code, or what it was started by, has taken; those given back are among them.
    """
    return _held.get()
