"""What a journal's entries add up to: runs, their changes, where each stands; and the three-way decision of undoing.

Pure: entries in, decisions out.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from magnus.tuning.setting import LIST_SETTINGS, join_list, split_list

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
    restarting: Entry | None = None

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
        elif entry.kind == "restored":
            _put_back(runs, entry)
        elif entry.run in runs:
            _take_in(runs[entry.run], entry)
    return list(runs.values())


def standing(runs: Iterable[Run], name: str) -> tuple[str, ...]:
    """
    Return the ids of a run's changes that stand, as far as the journal knows.
    """
    return tuple(m.id for run in runs if run.id == name for m in run.made if m.stand is Stand.DONE)


_STANDS: Mapping[str, Stand] = {
    "done": Stand.DONE,
    "failed": Stand.FAILED,
    "undo": Stand.UNDOING,
    "undone": Stand.UNDONE,
}


def _take_in(run: Run, entry: Entry) -> None:
    kind, data = entry.kind, entry.data
    if kind == "step":
        run.made.append(Made(run.id, data["change"]["id"], data["change"], data["image"]))
    elif kind in _STANDS:
        made = run.find(data["id"])
        if made is not None:
            made.stand = _STANDS[kind]
    elif kind == "resume":
        run.status = "interrupted"
    elif kind == "end":
        run.status = data["status"]
    elif kind == "restart":
        run.restarting = entry
    elif kind in {"restarted", "stuck"}:
        run.restarting = None
        run.status = "stuck" if kind == "stuck" else run.status


def _put_back(runs: Mapping[str, Run], entry: Entry) -> None:
    """
    The dead-man put the file back: what a run had changed is undone, what a rollback had undone is done again.
    """
    stand = Stand.DONE if entry.data["is_rollback"] else Stand.UNDONE
    for key in entry.data["keys"]:
        name, _, id_ = key.partition("|")
        made = runs[name].find(id_) if name in runs else None
        if made is not None:
            made.stand = stand
    if entry.run in runs:
        runs[entry.run].status, runs[entry.run].restarting = "restored", None


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
    return Decision(Verdict.PUT_BACK, join_list(left) if left else before)
