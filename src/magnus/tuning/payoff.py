"""Whether an index that was made pays: what its statements gained, against what the writes of its table lost; pure."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from magnus.tuning.effect import Compared, Snapshot, Verdict, compare

if TYPE_CHECKING:
    from collections.abc import Callable

    from magnus.tuning.effect import Counter

_WRITE: Final = r"\s*(?:insert\s+into|update(?:\s+only)?|delete\s+from(?:\s+only)?|merge\s+into|copy)\s+"


class Worth(enum.StrEnum):
    """
    What measuring came to.
    """

    PAYS = "pays"
    DOES_NOT = "does not pay"
    UNKNOWN = "not enough data"


@dataclass(frozen=True, slots=True)
class Usage:
    """
    What the server counts of an index: scans since it was made, and bytes. None when the index is gone.
    """

    scans: int
    size: int


@dataclass(frozen=True, slots=True)
class Payoff:
    """
    One index of ours, judged.

    Attributes:
        reads: The statements that it was made for, together.
        writes: The statements that write its table, together.
        saved: Milliseconds that the reads took less since, minus those that the writes took more.
    """

    id: str
    worth: Worth
    reads: Compared
    writes: Compared
    usage: Usage | None = None

    @property
    def saved(self) -> float:
        return _gain(self.reads) + _gain(self.writes)


def judge(
    id_: str,
    before: Snapshot | None,
    after: Snapshot | None,
    *,
    queryids: frozenset[str],
    table: tuple[str, str],
    usage: Usage | None = None,
    min_calls: int = 30,
    max_regression: float = 0.1,
) -> Payoff:
    """
    Compare the counters of an index's statements, and of its table's writes, before and after it was made.

    It pays when its statements became faster, beyond the noise, by more than the writes lost. A difference within the
    noise counts as none.
    """
    writes = _writes(table)

    def part(is_wanted: Callable[[Counter], bool]) -> Compared:
        one, other = (None if snapshot is None else snapshot.of(is_wanted) for snapshot in (before, after))
        return compare(one, other, min_calls=min_calls, max_regression=max_regression)[0]

    read = part(lambda counter: counter.queryid in queryids)
    written = part(lambda counter: counter.queryid not in queryids and writes.match(counter.query) is not None)
    found = Payoff(id_, Worth.UNKNOWN, read, written, usage)
    if read.verdict is Verdict.UNKNOWN:
        return found
    pays = read.verdict is Verdict.BETTER and found.saved > 0
    return Payoff(id_, Worth.PAYS if pays else Worth.DOES_NOT, read, written, usage)


def _gain(part: Compared) -> float:
    """
    Return milliseconds that a part took less since; nothing within the noise.
    """
    if part.verdict in {Verdict.SAME, Verdict.UNKNOWN}:
        return 0.0
    return part.calls * (part.before - part.after)


def _writes(table: tuple[str, str]) -> re.Pattern[str]:
    """
    Return what the text of a statement that writes a table begins with.
    """
    schema, name = (rf'(?:{re.escape(part)}|"{re.escape(part.replace(chr(34), chr(34) * 2))}")' for part in table)
    return re.compile(rf"{_WRITE}(?:{schema}\s*\.\s*)?{name}(?![\w$])", re.IGNORECASE)
