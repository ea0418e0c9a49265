"""What entries add up to, and the three-way decision."""

from __future__ import annotations

from typing import Any

import pytest

from magnus.tuning.journal import Author, Entry
from magnus.tuning.ledger import Decision, Stand, Verdict, decide, fold, standing

AUTHOR = Author("a", "r", "h", "0")
BEGIN = ("begin", {"target": {}, "plan": {}})


def entries(*told: tuple[str, dict[str, Any]], run: str = "r1") -> list[Entry]:
    return [Entry(i + 1, "t", kind, run, AUTHOR, data, "") for i, (kind, data) in enumerate(told)]


def step(id_: str) -> tuple[str, dict[str, Any]]:
    return "step", {"change": {"id": id_, "name": id_, "after": "2"}, "image": {"entry": "1"}}


@pytest.mark.parametrize(
    ("told", "stand", "status"),
    [
        ([BEGIN, step("a")], Stand.INTENDED, "interrupted"),
        ([BEGIN, step("a"), ("done", {"id": "a"})], Stand.DONE, "interrupted"),
        ([BEGIN, step("a"), ("failed", {"id": "a"}), ("end", {"status": "failed"})], Stand.FAILED, "failed"),
        ([BEGIN, step("a"), ("done", {"id": "a"}), ("end", {"status": "applied"})], Stand.DONE, "applied"),
        ([BEGIN, step("a"), ("done", {"id": "a"}), ("undo", {"id": "a"})], Stand.UNDOING, "interrupted"),
        ([BEGIN, step("a"), ("done", {"id": "a"}), ("undone", {"id": "a"})], Stand.UNDONE, "interrupted"),
        ([BEGIN, step("a"), ("end", {"status": "partly"}), ("resume", {})], Stand.INTENDED, "interrupted"),
    ],
)
def test_a_story_adds_up(told: list[tuple[str, dict[str, Any]]], stand: Stand, status: str):
    """Where each change stands, and how the run ended."""
    (run,) = fold(entries(*told))
    assert (run.made[0].stand, run.status) == (stand, status)
    assert run.made[0].is_open == (stand is not Stand.UNDONE)


def test_what_the_dead_man_puts_back_is_undone_and_after_a_rollback_done_again():
    """The keys name run and change."""
    told = [BEGIN, step("a"), ("done", {"id": "a"}), ("restart", {"orders": {}})]
    back = ("restored", {"keys": ["r1|a"], "is_rollback": False})
    (run,) = fold(entries(*told, back))
    assert (run.made[0].stand, run.status, run.restarting) == (Stand.UNDONE, "restored", None)
    (run,) = fold(entries(*told, ("undone", {"id": "a"}), ("restored", {"keys": ["r1|a"], "is_rollback": True})))
    assert run.made[0].stand is Stand.DONE


def test_a_restart_without_a_verdict_is_known():
    """So that it can be finished."""
    (run,) = fold(entries(BEGIN, ("restart", {"orders": {}})))
    assert run.restarting is not None
    (run,) = fold(entries(BEGIN, ("restart", {"orders": {}}), ("restarted", {})))
    assert run.restarting is None


def test_what_stands_of_a_run():
    """Only what is done."""
    runs = fold(entries(BEGIN, step("a"), ("done", {"id": "a"}), step("b")))
    assert standing(runs, "r1") == ("a",)
    assert standing(runs, "r2") == ()


CASES = [
    # before, ours, now -> verdict, value
    (None, "2", "2", Verdict.PUT_BACK, None),
    ("1", "2", "2", Verdict.PUT_BACK, "1"),
    ("1", "2", "1", Verdict.IS_BACK, "1"),
    (None, "2", None, Verdict.IS_BACK, None),
    ("1", "2", "3", Verdict.CONFLICT, "3"),
    ("1", "2", None, Verdict.CONFLICT, None),
    (None, "2", "3", Verdict.CONFLICT, "3"),
    ("1", None, None, Verdict.PUT_BACK, "1"),
    ("1", None, "3", Verdict.CONFLICT, "3"),
    ("02", "2", "2", Verdict.PUT_BACK, "02"),  # the same meaning, another text
]


@pytest.mark.parametrize(("before", "ours", "now", "verdict", "value"), CASES)
def test_the_three_way_decision(
    before: str | None, ours: str | None, now: str | None, verdict: Verdict, value: str | None
):
    """Was, ours, now: somebody else's value is never overwritten."""
    assert decide("work_mem", before, ours, now, int) == Decision(verdict, value)


@pytest.mark.parametrize(
    ("before", "ours", "now", "value"),
    [
        (None, "a", "a, b", "b"),
        ("x", "x, a", "x, a, b", "x, b"),
        (None, "a, b", "b, c", "c"),
        (None, '"A"', '"A", "B c"', '"B c"'),
    ],
)
def test_a_list_is_taken_apart(before: str | None, ours: str, now: str, value: str):
    """Our items go, theirs stay."""
    assert decide("shared_preload_libraries", before, ours, now) == Decision(Verdict.PUT_BACK, value)


@pytest.mark.parametrize(("before", "ours", "now"), [("a, b", "b", "b, c"), (None, "a", "c")])
def test_a_list_that_cannot_be_told_apart_is_a_conflict(before: str | None, ours: str, now: str):
    """We took something away, or nothing of ours is left."""
    assert decide("shared_preload_libraries", before, ours, now).verdict is Verdict.CONFLICT
