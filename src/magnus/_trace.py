"""Keeps what the statements of a lease may have left in its session, and says at its end which reset that takes.

Theory of operation. `Knowledge` holds what is known of one database. A statement that may change the schema makes it
unknown at once, for everybody; it becomes known again by `learned`, once no lease is out that ran such a statement and
when none has begun or ended since the reading of the catalogue began. A trace that saw one state of knowledge and ends
under another asks for a full reset. So a session is called clean only by knowledge that held for the whole lease.
"""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from magnus._catalogue import CLEAN, Verdict, verdict
from magnus._effects import (
    LASTING,
    LISTEN,
    LONGEST,
    NO_RESET,
    PREPARED,
    TRANSACTION,
    UNKNOWN,
    Reset,
    effect_of,
    reset_for,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from magnus._catalogue import Catalogue
    from magnus._effects import Effect
    from magnus.errors import NeedsSession

_SIZE: Final = 2_048
_NO_FUNCTIONS: Final[frozenset[str]] = frozenset()


class Knowledge:
    """
    What is known of one database, and the verdicts that follow.

    Attributes:
        catalogue: What was read last, or None while it may be wrong.
        generation: Rises with every change of what is known.
    """

    __slots__ = ("_changing", "_verdict", "_wanted", "catalogue", "generation")

    def __init__(self, wanted: Callable[[], None] = lambda: None) -> None:
        """
        Know nothing; `wanted` is called when it is time to read the catalogue.
        """
        self.catalogue: Catalogue | None = None
        self.generation = 0
        self._changing = 0
        self._wanted = wanted
        self._verdict: Callable[[str], Verdict] = lru_cache(_SIZE)(self._judge)

    def verdict(self, sql: str) -> Verdict:
        """
        Judge a statement. Long texts are not kept.
        """
        return self._verdict(sql) if len(sql) <= LONGEST else self._judge(sql)

    def _judge(self, sql: str) -> Verdict:
        catalogue = self.catalogue
        return verdict(effect_of(sql, _NO_FUNCTIONS if catalogue is None else catalogue.functions), catalogue)

    def learned(self, catalogue: Catalogue, generation: int) -> bool:
        """
        Take what was read of the catalogue since knowledge had this `generation`. False: it must be read again.
        """
        if generation != self.generation or self._changing:
            return False
        if catalogue != self.catalogue:
            self._become(catalogue)
        return True

    def doubted(self) -> None:
        """
        Forget what is known: the schema was changed, by whomever.
        """
        self._become(None)
        if not self._changing:
            self._wanted()

    def changing(self) -> None:
        """
        Take note that a lease may have changed the schema; it reports `changed` at its end.
        """
        self._changing += 1
        self._become(None)

    def changed(self) -> None:
        """
        Take note that such a lease has ended.
        """
        self._changing -= 1
        self.doubted()

    def _become(self, catalogue: Catalogue | None) -> None:
        self.catalogue = catalogue
        self.generation += 1
        self._verdict = lru_cache(_SIZE)(self._judge)


RAW: Final = MappingProxyType({
    **dict.fromkeys(
        (
            "cursor", "get_reset_query", "get_server_pid", "get_server_version", "get_settings", "is_closed",
            "is_in_transaction", "reload_schema_state", "terminate",
        )
    ),
    **dict.fromkeys(("add_listener", "add_log_listener", "remove_listener", "remove_log_listener"), LISTEN),
    "close": None,
    "prepare": PREPARED,
})  # fmt: skip
"""
What a direct use of the driver's connection leaves behind, by its method. Others leave what lasts: codecs, loggers.
"""


class SessionTrace:
    """
    What one lease did to its session.

    Attributes:
        reason: The first thing that left something behind, or None.
        verdict: What is known of a statement; of a clean one no note need be taken.
    """

    __slots__ = ("_dirties", "_generation", "_is_changing", "_knowledge", "reason", "verdict")

    def __init__(self, knowledge: Knowledge) -> None:
        self._knowledge = knowledge
        self.verdict = knowledge.verdict
        self._generation = knowledge.generation
        self._dirties: set[str] | None = None
        self._is_changing = False
        self.reason: str | None = None

    def saw(self, sql: str) -> None:
        """
        Take note of a statement that is about to be sent.
        """
        found = self._knowledge.verdict(sql)
        if found is not CLEAN:
            self._note(found.dirties, found.reason)
            if found.changes_catalogue and not self._is_changing:
                self._is_changing = True
                self._knowledge.changing()

    def touched(self, method: str) -> NeedsSession | None:
        """
        Take note that the caller uses the driver's connection itself, by this method; return why he may not.
        """
        word = RAW.get(method, LASTING)
        if word is not None:
            # A listener is also kept by the driver, which forgets it in a full reset.
            self._note((word, UNKNOWN), f"direct use of {method}()")
        return None

    def interrupted(self) -> None:
        """
        Take note that a statement was cut short: what the driver did around it may be half done.
        """
        self._note((UNKNOWN,), "a statement that was cut short")

    def reset(self) -> None:
        """
        Take note that a full reset was run; what lasts is still there.
        """
        if self._dirties is not None:
            self._dirties &= {LASTING, PREPARED}

    def end(self, *, is_in_transaction: bool = False) -> Reset:
        """
        Say what the session needs before its next lease. Called once.
        """
        knowledge = self._knowledge
        if self._dirties is None and knowledge.generation == self._generation and not is_in_transaction:
            return NO_RESET  # as would be found below; a change of the schema is among the dirties
        if self._is_changing:
            self._is_changing = False
            self._note((UNKNOWN,), "a change of the schema")
            knowledge.changed()
        elif knowledge.generation != self._generation:
            self._note((UNKNOWN,), "the schema changed meanwhile")
        if is_in_transaction:
            self._note((TRANSACTION,), "an open transaction")
        return reset_for(self._dirties or (), self.reason)

    def _note(self, words: Iterable[str], reason: str | None) -> None:
        if self._dirties is None:
            self._dirties = set()
            self.reason = reason
        self._dirties.update(words)


def needs_reset(effects: Iterable[Effect], catalogue: Catalogue | None) -> Reset:
    """
    Decide what a session needs after statements with these effects.
    """
    verdicts = [verdict(effect, catalogue) for effect in effects]
    dirties = frozenset().union(*(found.dirties for found in verdicts))
    return reset_for(dirties, next((found.reason for found in verdicts if found.dirties), None))
