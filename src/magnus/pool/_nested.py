"""Whether a caller that holds a slot and asks for another can ever be served: pure, knows no tasks and no clock.

Theory of operation. A slot that is not acquired (idle, connecting, closing, not yet opened) serves somebody sooner or
later, and so does an acquired one whose owner is free to give it back. Only an owner that waits for the same pool
itself may be stuck. Start from all of those, and take out, until nothing changes, whoever can be served: every cap that
binds its lane must have a slot under it whose owner is free. Who is left waits for others who are left: nobody of them
is served before one fails. (This is deadlock detection by reduction, for one kind of resource with several units.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence


class Held(NamedTuple):
    """
    One acquired slot: the lane it counts for, who holds it, and the lane in which that owner waits, None when it is
    free to give the slot back.
    """

    rank: int
    owner: Hashable
    waits: int | None


def is_stuck(owner: Hashable, held: Sequence[Held], caps: Sequence[int]) -> bool:
    """
    Say whether `owner` waits for a slot that cannot come. `caps` are the nested caps of the lanes, by rank.
    """
    used = [sum(slot.rank >= rank for slot in held) for rank in range(len(caps))]
    stuck = {slot.owner: slot.waits for slot in held if slot.waits is not None}
    while owner in stuck:
        lowest = max((slot.rank for slot in held if slot.owner not in stuck), default=-1)
        served = [other for other, rank in stuck.items() if _is_served(rank, used, caps, lowest)]
        if not served:
            return True
        for other in served:
            del stuck[other]
    return False


def _is_served(rank: int, used: Sequence[int], caps: Sequence[int], lowest: int) -> bool:
    # A slot of a lower lane counts under every cap above it, so the lowest one that comes free is the best.
    return all(used[cap] < caps[cap] or lowest >= cap for cap in range(rank + 1))
