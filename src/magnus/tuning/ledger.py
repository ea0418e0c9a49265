"""What a journal's entries add up to: runs, their changes, where each stands; and the three-way decision of undoing.

Pure: entries in, decisions out.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from magnus.tuning.setting import LIST_SETTINGS, split_list

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from magnus.tuning.journal import Entry


class Stand(enum.StrEnum):
    """
    Where a change of a run stands, as far as the journal knows.

    INTENDED was about to be made when the record ends: only the server knows whether it was.
    """

    INTENDED = "intended"
    DONE = "done"
    FAILED = "failed"
    UNDOING = "undoing"
    UNDONE = "undone"


@dataclass(slots=True)
class Made:
    """
    One change that a run made or meant to make: `change` as in the plan, `image` as it was right before.
    """

    run: str
    id: str
    change: Mapping[str, Any]
    image: Mapping[str, Any]
    stand: Stand = Stand.INTENDED

    @property
    def is_open(self) -> bool:
        """
        Whether there may be something of it on the server.
        """
        return self.stand is not Stand.UNDONE


@dataclass(slots=True)
class Run:
    """
    One call of apply: what it began with and the changes it made, in order.
    """

    id: str
    begun: Entry
    made: list[Made] = field(default_factory=list)
    status: str = "interrupted"
    is_restarting: bool = False

    @property
    def is_finished(self) -> bool:
        return self.status != "interrupted"

    @property
    def target(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.begun.data["target"]
        return found

    @property
    def open_changes(self) -> list[Made]:
        return [made for made in self.made if made.is_open]

    def find(self, id_: str) -> Made | None:
        return next((made for made in self.made if made.id == id_), None)


def fold(entries: Iterable[Entry]) -> list[Run]:
    """
    Return the runs in the order in which they began.
    """
    runs: dict[str, Run] = {}
    for entry in entries:
        if entry.kind == "begin":
            runs[entry.run] = Run(entry.run, entry)
        elif entry.run in runs:
            _take_in(runs, entry)
    return list(runs.values())


_STANDS: Mapping[str, Stand] = {
    "done": Stand.DONE,
    "failed": Stand.FAILED,
    "undo": Stand.UNDOING,
    "undone": Stand.UNDONE,
    "kept": Stand.DONE,
}


def _take_in(runs: Mapping[str, Run], entry: Entry) -> None:
    run = runs[entry.run]
    if entry.kind == "step":
        made = Made(run.id, entry.data["change"]["id"], entry.data["change"], entry.data["image"])
        run.made = [other for other in run.made if other.id != made.id] + [made]
    elif entry.kind in _STANDS:
        made_before = run.find(entry.data["id"])
        if made_before is not None:
            made_before.stand = _STANDS[entry.kind]
    elif entry.kind == "resume":
        run.status = "interrupted"
    elif entry.kind == "end":
        run.status = entry.data["status"]
    elif entry.kind == "restart":
        run.is_restarting = True
    elif entry.kind in {"restarted", "restored"}:
        run.is_restarting = False
        if entry.kind == "restored":
            for made in run.made:
                if made.id in entry.data["ids"]:
                    made.stand = Stand.UNDONE
            run.status = "restored"


class Verdict(enum.StrEnum):
    """
    What undoing may do with one thing.
    """

    PUT_BACK = "put back"
    IS_BACK = "is back already"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Decision:
    """
    What becomes of one thing: `value` is what to put there (None: nothing), when it is to be put back.
    """

    verdict: Verdict
    value: str | None = None


def decide(
    name: str,
    before: str | None,
    ours: str | None,
    now: str | None,
    means: Callable[[str], object] = lambda text: text,
) -> Decision:
    """
    Compare what was there, what we put there, and what is there now.

    Somebody else's later value is never overwritten. A list is taken apart: our items go, theirs stay.
    """

    def same(one: str | None, other: str | None) -> bool:
        if one is None or other is None:
            return one is other
        return one == other or means(one) == means(other)

    if same(now, ours):
        return Decision(Verdict.IS_BACK if same(now, before) and now == before else Verdict.PUT_BACK, before)
    if same(now, before):
        return Decision(Verdict.IS_BACK, now)
    if name in LIST_SETTINGS and now is not None and ours is not None:
        return _decide_list(before, ours, now)
    return Decision(Verdict.CONFLICT, now)


def _decide_list(before: str | None, ours: str, now: str) -> Decision:
    had, put, has = split_list(before or ""), split_list(ours), split_list(now)
    added = [item for item in put if item not in had]
    lost = [item for item in had if item not in put]
    if lost or not set(added) & set(has):
        return Decision(Verdict.CONFLICT, now)
    left = [item for item in has if item not in added]
    return Decision(Verdict.PUT_BACK, ", ".join(left) if left else before)
