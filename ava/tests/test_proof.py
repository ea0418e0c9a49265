"""The table before / after: what it makes of rounds, and how little the short form claims."""

from __future__ import annotations

import pytest

from ava.proof import short
from ava.proof.figures import rows, table
from ava.proof.rounds import plain, thinking
from ava.proof.script import FULL, SHORT


def side(factor: float, *, found: int, failed: int, connections: float = 10.0) -> dict[str, object]:
    """
    One side of one round, times in proportion to a factor.
    """
    return {
        "first_ms": 40 * factor,
        "ready_ms": 0.0 if factor == 1 else 80.0,
        "load": {"mean_ms": 2 * factor, "failed": 0, "operations_ms": {"buy": 3 * factor, "positions": factor}},
        "busy": {
            "mean_ms": 10 * factor, "failed": 0, "utilisation": 0.4, "connections": connections, "rss_mb": 50.0,
        },
        "slow": 20, "found": found,
        "overload": {"p99_by_lane_ms": {"critical": 100 * factor, "high": 100.0, "normal": 100.0, "low": 100.0}},
        "hiccups": {"failed": failed, "recovery_s": [0.1, 0.2, 0.3]},
    }  # fmt: skip


def document(rounds: int, after: float = 0.3) -> dict[str, object]:
    """
    A run whose "after" is the same in each round.
    """
    one = {
        "before": side(1.0, found=0, failed=50), "pool": side(0.5, found=20, failed=0),
        "settings": side(after, found=20, failed=0),
    }  # fmt: skip
    return {"script": plain(SHORT), "rounds": [one] * rounds, "indexes": [], "plan": {}, "environment": {}}


def row(found, name):
    return next(cells for cells in rows(found) if cells[0].strip() == name)


@pytest.mark.parametrize(
    ("after", "verdict"), [(0.3, "met"), (0.7, "met"), (0.71, "NOT met: 29 % of 30 %"), (1.2, "NOT met: -20 % of 30 %")]
)
def test_a_promise_is_kept_or_said_not_to_be(after, verdict):
    """By the medians, against the least that was promised."""
    assert row(document(5, after), "Average query time")[-1] == verdict


@pytest.mark.parametrize(
    ("load", "name", "words"),
    [
        ("busy", "Average query time", "met; FAILED requests: 12 before"),
        ("load", "in the calm load", "FAILED requests: 12 before"),
    ],
)
def test_failures_in_a_load_are_said_beside_its_time(load, name, words):
    """A request that fails at once makes the mean of its side smaller, not better."""
    found = document(3)
    found["rounds"][0]["before"][load]["failed"] = 4
    assert row(found, name)[-1] == words


def test_users_think_as_long_as_keeps_the_pool_in_use():
    """With 1,000 answers a second and 250 users, 38 under way leave 212 who think, each for 0.212 s."""
    assert thinking(250, 38, 1000.0) == pytest.approx(0.212)


def test_each_operation_has_its_own_line():
    """So that a reader sees where the time went; one that a short run never drew has no ratio."""
    assert row(document(1, 0.5), "calm, a purchase")[2:5] == ("3.00 ms", "1.50 ms", "50 % lower")
    assert row(document(1), "calm, a sale")[4:] == ("0 % lower", "")


def test_what_is_worse_is_said_to_be():
    """Never hidden behind a minus or an empty cell."""
    assert row(document(5, 1.5), "Average query time")[4] == "50 % higher"


def test_nothing_before_has_no_ratio():
    """A side that does nothing before it is asked is not "100,000 % faster"."""
    assert row(document(1), "Time from start to ready")[2:5] == ("0 ms", "80 ms", "")


def test_several_rounds_have_intervals_and_one_has_none():
    """One round says nothing about the next."""
    assert "(" in row(document(5), "Average query time")[2]
    assert "(" not in row(document(1), "Average query time")[2]


async def test_the_short_form_says_how_short_it_is(capsys, monkeypatch):
    """Rounds and seconds first, then the whole table; what goes on is told on standard error."""
    told = []

    async def prove(script, say):
        told.append(script)
        say("round 1: before in 9 s")
        return document(script.rounds)

    monkeypatch.setattr(short, "prove", prove)
    monkeypatch.setattr(short.logs, "configure", lambda **_: None)
    assert await short.show() == 0
    said = capsys.readouterr()
    assert told == [SHORT]
    assert "before/after: round 1" in said.err
    head, *body = [line for line in said.out.splitlines() if line]
    assert "short form: 1 round of 2 s a side" in head
    assert "proves nothing" in head
    assert body == table(document(1))


def test_the_full_form_is_the_one_that_was_promised():
    """Five rounds, three restarts, ten killed backends, a stall of two seconds; the short one is far below."""
    assert (FULL.rounds, len(FULL.restarts), len(FULL.kills), FULL.stall[1]) == (5, 3, 10, 2.0)
    assert SHORT.rounds * (SHORT.load + SHORT.busy + SHORT.hiccups + SHORT.overload) <= 10
