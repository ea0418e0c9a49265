"""What a client knows of its writes, and whether the database agrees: a journal on disk, and the comparison; no server.

The journal is written before the request and after the answer, each time to the disk, so that it tells the truth even
when the client itself is killed. Sets suffice: every key that was acknowledged is there, once.
"""

from __future__ import annotations

import enum
import json
import os
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


class Word(enum.Enum):
    """
    What the journal says of a key. The last word holds.

    BEGUN: it may have been sent. ACKNOWLEDGED: the layer said that it is stored. REFUSED: the layer said that it is
    not. UNKNOWN: the layer said that it cannot know.
    """

    BEGUN = "begun"
    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Journal:
    """
    An append-only file of (key, word). Each line is on the disk before `write` returns.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._descriptor)

    def write(self, key: str, word: Word) -> None:
        """
        Add a line; one write, so that lines of several writers do not mix.
        """
        os.write(self._descriptor, f"{json.dumps([key, word.value])}\n".encode())
        os.fdatasync(self._descriptor)


def read(path: Path) -> Iterator[tuple[str, Word]]:
    """
    Yield the lines of a journal. The last one may be cut by a crash; it is then left out.
    """
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            key, word = json.loads(line)
            yield key, Word(word)


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    The comparison of a journal with the table.

    Attributes:
        begun: Keys that were tried.
        acknowledged: How many of them the layer called stored.
        unknown: How many times it said that it cannot know.
        unresolved: Keys whose last word is that, or none.
        lost: Acknowledged, and not in the table.
        doubled: More than once in the table.
        denied: Called not stored, and in the table all the same.
        foreign: In the table, and never tried.
    """

    begun: int
    acknowledged: int
    unknown: int
    unresolved: int
    lost: tuple[str, ...]
    doubled: tuple[str, ...]
    denied: tuple[str, ...]
    foreign: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        """
        Whether nothing was lost, doubled, wrongly denied or invented.
        """
        return not (self.lost or self.doubled or self.denied or self.foreign)


def compare(journal: Iterable[tuple[str, Word]], table: Iterable[str]) -> Verdict:
    """
    Compare what a client wrote down with the keys in the table (as often as they are there).
    """
    last: dict[str, Word] = {}
    stored, unknown = Counter(table), 0
    acknowledged: set[str] = set()
    for key, word in journal:
        last[key] = word
        unknown += word is Word.UNKNOWN
        if word is Word.ACKNOWLEDGED:
            acknowledged.add(key)
    return Verdict(
        begun=len(last),
        acknowledged=len(acknowledged),
        unknown=unknown,
        unresolved=sum(word in {Word.BEGUN, Word.UNKNOWN} for word in last.values()),
        lost=tuple(sorted(acknowledged - stored.keys())),
        doubled=tuple(sorted(key for key, count in stored.items() if count > 1)),
        denied=tuple(sorted(key for key, word in last.items() if word is Word.REFUSED and key in stored)),
        foreign=tuple(sorted(stored.keys() - last.keys())),
    )
