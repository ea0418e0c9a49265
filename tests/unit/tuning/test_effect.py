"""Faster, slower, the same, or not enough data."""

from __future__ import annotations

import random

import pytest

from magnus.tuning.effect import Counter, Snapshot, Verdict, compare


def counter(key: str, times: list[float], *, since: str = "") -> Counter:
    return Counter(key, len(times), sum(times), sum(t * t for t in times), f"query {key}", since)


def snapshots(before: dict[str, list[float]], after: dict[str, list[float]]) -> tuple[Snapshot, Snapshot]:
    """
    Two moments: the second counts what ran before the first, too.
    """
    first = Snapshot("r", tuple(counter(key, times) for key, times in before.items()))
    whole = {key: [*before.get(key, []), *after.get(key, [])] for key in {**before, **after}}
    return first, Snapshot("r", tuple(counter(key, times) for key, times in whole.items()))


def times(mean: float, spread: float, calls: int, seed: int = 1) -> list[float]:
    source = random.Random(seed)
    return [max(0.001, source.gauss(mean, spread)) for _ in range(calls)]


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (times(40, 4, 200), times(2, 0.5, 200), Verdict.BETTER),
        (times(2, 0.5, 200), times(40, 4, 200), Verdict.WORSE),
        (times(10, 1, 200), times(10.2, 1, 200, seed=2), Verdict.SAME),
        (times(10, 1, 5000), times(10.6, 1, 5000, seed=2), Verdict.SAME),  # certain, but below what matters
        (times(10, 40, 40), times(13, 40, 40, seed=3), Verdict.SAME),  # large, but within the noise
        (times(10, 1, 20), times(40, 1, 200), Verdict.UNKNOWN),
        (times(10, 1, 200), times(40, 1, 20), Verdict.UNKNOWN),
    ],
)
def test_one_query(before: list[float], after: list[float], verdict: Verdict):
    """Outside of the noise and large enough, or not."""
    whole, (row,) = compare(*snapshots({"q": before}, {"q": after}))
    assert (row.verdict, whole.verdict) == (verdict, verdict)


def test_the_whole_is_weighed_by_calls_since():
    """A change of the mix is no change of speed."""
    mixed = snapshots({"fast": times(1, 0.1, 900), "slow": times(100, 5, 100)},
                      {"fast": times(1, 0.1, 100, 2), "slow": times(100, 5, 900, 2)})  # fmt: skip
    assert compare(*mixed)[0].verdict is Verdict.SAME


def test_one_bad_query_among_good_ones_is_listed_first():
    """The worst in time, not in percent."""
    found = snapshots({"a": times(10, 1, 100), "b": times(1, 0.1, 100)},
                      {"a": times(20, 1, 100, 2), "b": times(5, 0.1, 100, 2)})  # fmt: skip
    assert [row.query for row in compare(*found)[1]] == ["query a", "query b"]


def test_counters_that_began_anew_are_left_out():
    """A reset, an eviction, a restart without saving: no difference can be taken."""
    first, second = snapshots({"q": times(10, 1, 100)}, {"q": times(40, 1, 100)})
    assert compare(first, Snapshot("later", second.counters))[0].verdict is Verdict.UNKNOWN
    evicted = Snapshot("r", (counter("q", times(40, 1, 50)),))
    assert compare(first, evicted)[1] == ()
    fresh = Snapshot("r", (counter("q", times(40, 1, 500), since="now"),))
    assert compare(first, fresh)[1] == ()
    assert compare(None, second)[0].verdict is Verdict.UNKNOWN


def test_a_snapshot_survives_the_journal():
    """As JSON."""
    first, _ = snapshots({"q": times(10, 1, 3)}, {})
    assert Snapshot.from_json(first.to_json()) == first


def test_the_noise_band_holds_what_it_promises():
    """Of 400 pairs without any difference, few are called one."""
    wrong = 0
    for seed in range(400):
        pair = snapshots({"q": times(10, 12, 60, seed)}, {"q": times(10, 12, 60, seed + 1000)})
        wrong += compare(*pair)[0].verdict is not Verdict.SAME
    assert wrong < 40
