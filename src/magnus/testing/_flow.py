"""What becomes of the bytes of one direction: rules that wait for a pattern, and how chunks are cut; pure.

It knows no socket and no clock. A pattern is found however the network has split it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COMMIT: Final = b"COMMIT\0"
"""The end of the request, and of the tag that answers it, when COMMIT goes by the simple protocol."""


class Direction(enum.Enum):
    """
    Which way bytes travel: REQUEST is client to server, REPLY is server to client.
    """

    REQUEST = "request"
    REPLY = "reply"


class Action(enum.Enum):
    """
    What a rule does when its pattern passes.

    CUT: both sides get a reset (RST); the bytes that end the pattern are not forwarded.
    CUT_AFTER: they are forwarded, then both sides get a reset.
    HOLD: they are kept back and nothing passes any more, either way; nobody is told. `Link.release` lets go.
    PASS: nothing, but the rule counts, and its `heard` is called.
    """

    CUT = "cut"
    CUT_AFTER = "cut after"
    HOLD = "hold"
    PASS = "pass"  # noqa: S105  # a word, no password


@dataclass(eq=False, slots=True)
class Rule:
    """
    Do `action` when `pattern` passes in `direction`, the first `times` times (None: always).

    Attributes:
        skip: How many occurrences pass untouched before the first that counts.
        heard: Called at each hit, before the action.
        hits: How often it acted.
    """

    direction: Direction
    pattern: bytes
    action: Action
    times: int | None = 1
    skip: int = 0
    heard: Callable[[], object] | None = None
    hits: int = 0

    def __post_init__(self) -> None:
        if not self.pattern:
            raise ValueError("a rule needs a pattern of at least one byte")

    @property
    def is_spent(self) -> bool:
        return self.times is not None and self.hits >= self.times

    def strike(self) -> bool:
        """
        Count one occurrence; return whether the rule acts on it.
        """
        if self.is_spent:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.hits += 1
        if self.heard is not None:
            self.heard()
        return True


@dataclass(slots=True)
class Shape:
    """
    How the bytes of one direction travel while nothing is cut.

    Attributes:
        delay: Seconds that each chunk waits before it is forwarded.
        slice: Bytes written at once at most; 0: as they came.
        rate: Bytes a second; 0: as fast as they come.
        limit: Bytes after which both sides get a reset; None: no end.
    """

    delay: float = 0.0
    slice: int = 0
    rate: float = 0.0
    limit: int | None = None

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """
        Yield `data` in the pieces it is to be written in.
        """
        step = self.slice or len(data)
        for start in range(0, len(data), step):
            yield data[start : start + step]


@dataclass(slots=True)
class Scanner:
    """
    Looks for patterns in a stream, also across chunks. One for each direction of a connection.
    """

    _tail: bytes = field(default=b"", init=False)

    def scan(self, data: bytes, rules: list[Rule]) -> tuple[int, Rule | None]:
        """
        Return how many bytes of `data` may pass, and the rule that acts after them.

        For CUT and HOLD the bytes of this chunk that belong to the pattern may not pass, for CUT_AFTER they may.
        """
        window, offset = self._tail + data, len(self._tail)
        found: list[tuple[int, int, Rule]] = []
        for rule in rules:
            start = 0
            while (at := window.find(rule.pattern, start)) >= 0:
                start = at + 1
                end = at + len(rule.pattern)
                if end > offset:  # else it lay in earlier chunks entirely, and was seen then
                    found.append((end, at, rule))
        longest = max((len(rule.pattern) for rule in rules), default=1)
        self._tail = window[-(longest - 1) :] if longest > 1 else b""
        for end, at, rule in sorted(found, key=lambda each: each[0]):
            if rule.strike() and rule.action is not Action.PASS:
                passing = end - offset if rule.action is Action.CUT_AFTER else max(at - offset, 0)
                return passing, rule
        return len(data), None
