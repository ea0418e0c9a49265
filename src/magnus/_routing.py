"""Which server answers a read: a standby that has what the reader must see, the quickest of those, else the primary.

Pure: positions, standings and times in, a choice out. It knows no connection and no clock.

Theory of operation. A position is a place in the log of one timeline. A standby may answer a reader who must see a
position only when it follows the timeline on which the primary now writes, and has replayed at least that far: after
a promotion places on two timelines cannot be compared, and a standby that still follows the old one would answer
from a history that is over. What is known of a standby is a lower bound, because it only replays on.

A reader may have been told of a timeline beyond the one that is known of the primary: elsewhere somebody wrote to a
newer one, and the server that is asked here has not noticed that it was replaced. A standby that follows the newer
timeline and has come so far is then the only one that is sure to have it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_TOKEN: Final = re.compile(r"([0-9a-f]{1,8})-([0-9a-f]{1,16})")


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """
    A place in the write-ahead log: bytes (`lsn`) from the beginning of a `timeline`.
    """

    timeline: int
    lsn: int

    def __str__(self) -> str:
        return f"{self.timeline:x}-{self.lsn:x}"

    @classmethod
    def parse(cls, token: str) -> Position | None:
        """
        Read what `str` wrote; None for anything else, which comes from a client.
        """
        found = _TOKEN.fullmatch(token)
        return None if found is None else cls(int(found[1], 16), int(found[2], 16))


NOWHERE: Final = Position(0, 0)
"""On no timeline: whoever must see this is answered by the primary alone."""


@dataclass(frozen=True, slots=True)
class Primary:
    """
    What is known of the primary: where it last wrote, and when that was asked (monotonic seconds).
    """

    position: Position
    asked_at: float


@dataclass(frozen=True, slots=True)
class Standing:
    """
    What one standby last said of itself.

    Attributes:
        replayed: How far it has come.
        age: Seconds since the transaction was committed that it replayed last; None before the first.
        seen_at: When it said so (monotonic seconds).
        latency: Seconds that an answer took, smoothed.
        busy: Reads that it has at this moment.
    """

    replayed: Position
    age: float | None
    seen_at: float
    latency: float
    busy: int = 0


def lag(standing: Standing, primary: Primary, now: float) -> float:
    """
    Return how many seconds a standby may be behind: none where it has all that the primary was last seen to have
    written, but never less than that sight is old.
    """
    unseen = max(now - primary.asked_at, 0.0)
    if standing.replayed.lsn >= primary.position.lsn:
        return unseen
    return unseen + (0.0 if standing.age is None else max(standing.age, 0.0))


def is_fit(standing: Standing | None, primary: Primary, need: Position | None, *, now: float, max_lag: float) -> bool:
    """
    Say whether a standby may answer a reader who must see `need` (None: anything not older than `max_lag` seconds).
    """
    if standing is not None and need is not None and need.timeline > primary.position.timeline:
        is_there = standing.replayed.timeline == need.timeline and standing.replayed.lsn >= need.lsn
        return is_there and now - standing.seen_at <= max_lag
    if standing is None or standing.replayed.timeline != primary.position.timeline:
        return False
    if need is not None and (need.timeline != primary.position.timeline or standing.replayed.lsn < need.lsn):
        return False
    return lag(standing, primary, now) <= max_lag


def choose(
    standings: Sequence[Standing | None], primary: Primary | None, need: Position | None, *, now: float, max_lag: float
) -> int | None:
    """
    Return the place of the standby that should answer: of those that may, the one whose queue is over first.
    """
    if primary is None:
        return None
    fit = [
        (standing.latency * (standing.busy + 1), standing.busy, place)
        for place, standing in enumerate(standings)
        if standing is not None and is_fit(standing, primary, need, now=now, max_lag=max_lag)
    ]
    return min(fit)[2] if fit else None


def is_ahead(primary: Primary | None, need: Position | None) -> bool:
    """
    Say whether `need` lies beyond what the primary was last seen to have written: ask it again, and when it still does,
    somebody made it up, the primary lost it in a crash, or it is the primary no more. No standby is worth a wait for
    that.
    """
    if primary is None or need is None:
        return False
    return need > primary.position


def may_become_fit(standings: Sequence[Standing | None], primary: Primary | None, need: Position | None) -> bool:
    """
    Say whether it is worth a wait: some standby follows the timeline on which `need` lies and is not yet there.
    """
    if primary is None or need is None or need.timeline != primary.position.timeline or is_ahead(primary, need):
        return False
    return any(found is not None and found.replayed.timeline == need.timeline for found in standings)


_FINAL: Final = ("22", "23", "28", "2B", "2D", "44", "57014", "P0")


def is_for_primary(sqlstate: str | None) -> bool:
    """
    Say whether the primary may answer what a standby refused with this code (None: without one).

    Its recovery may be in conflict with a read, and it may not yet have what was made a moment ago; but values that
    do not fit fit nowhere.
    """
    return sqlstate is None or not sqlstate.startswith(_FINAL)
