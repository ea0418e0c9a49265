"""When requests are due, what is drawn, and what a file of SQL says."""

from __future__ import annotations

import itertools
import random
import statistics
from collections import Counter
from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from magnus import ConfigError, QueryPriority
from magnus.cli.bench import pacer_of, threshold, verdict
from magnus.loadtest import Load, Pacer, Samples, Target, send
from magnus.loadtest.report import page, plot
from magnus.loadtest.sqlfile import parse
from magnus.loadtest.workload import Weighted, find


@given(st.floats(0.5, 5000), st.floats(0.5, 5000), st.floats(0.1, 60))
def test_requests_are_due_in_order_and_within_the_run(start, end, seconds):
    """As many as the rate's line holds, the first at once, the last at the end."""
    pacer = Pacer(start, end, seconds)
    total = pacer.total
    indices = sorted({0, 1, total // 3, total // 2, total - 1, total} & set(range(total + 1)))
    dues = [pacer.due(index) for index in indices]

    assert dues[0] == 0
    assert dues == sorted(dues)
    assert pacer.due(total - 1) <= seconds * (1 + 1e-6) + 1 / min(start, end)
    assert total == pytest.approx((start + end) / 2 * seconds, abs=1)


def test_a_ramp_begins_slowly_and_ends_fast():
    """Half of the requests of a ramp from 0 come in its last 30 %."""
    pacer = Pacer(1, 1000, 10)

    assert 7 < pacer.due(pacer.total // 2) < 7.1


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_processes_share_a_rate_without_clumps(parts):
    """Together they are due as one would be."""
    whole = Pacer.constant(70, 10)
    dues = sorted(
        pacer.due(index) + whole.offset(part, parts)
        for part in range(parts)
        for pacer in [whole.share(part, parts)]
        for index in range(pacer.total)
    )

    gaps = [later - earlier for earlier, later in itertools.pairwise(dues)]
    assert abs(len(dues) - whole.total) < parts  # each process rounds its share
    assert max(gaps) == pytest.approx(min(gaps), abs=1e-6)


@pytest.mark.parametrize(("start", "end"), [(500, 500), (100, 900)])
def test_arrivals_at_random_are_a_poisson_process(start, end):
    """As many as the rate says in the mean, in order, with as much variance as mean in every tenth of the run."""
    pacer = Pacer(start, end, 10, is_random=True)
    runs = [list(pacer.dues(random.Random(seed))) for seed in range(200)]

    assert all(dues == sorted(dues) and dues[0] > 0 and dues[-1] < 10 for dues in runs)
    for tenth in range(10):
        counts = [sum(tenth <= due < tenth + 1 for due in dues) for dues in runs]
        expected = start + (end - start) * (tenth + 0.5) / 10
        assert statistics.mean(counts) == pytest.approx(expected, rel=0.03)
        assert 0.7 < statistics.variance(counts) / expected < 1.35
    assert runs[0] == list(pacer.dues(random.Random(0)))


def test_processes_share_a_rate_at_random():
    """Each draws its own; together they are as many, from the beginning on."""
    whole = Pacer(1000, 1000, 10, is_random=True)
    dues = [due for part in range(4) for due in whole.share(part, 4).dues(random.Random(part))]

    assert len(dues) == pytest.approx(10_000, rel=0.05)
    assert whole.offset(3, 4) == 0.0


@pytest.mark.parametrize("think", [-1, float("nan"), float("inf")])
def test_an_impossible_pause_is_refused(think):
    """By name; and one beside a rate, which says itself when requests are due."""
    with pytest.raises(ConfigError, match="think"):
        Load("select", Target(""), 1, 1, think=think)
    with pytest.raises(ConfigError, match="think"):
        Load("select", Target(""), 1, 1, Pacer.constant(1, 1), think=1)


async def test_a_client_that_thinks_asks_as_often_as_that_leaves_time_for():
    """By Little's law: 20 clients who think 0.1 s and get their answer at once ask 200 times a second."""

    class Client:
        async def run(self, _name, _rng):
            pass

    load = Load("anything", Target(""), 2.0, 20, think=0.1)
    samples = await send(load, Client(), {"a": 1.0})
    assert 200 < len(samples.due) < 480  # a busy machine thinks longer
    quick = await send(replace(load, seconds=0.1, think=0.0), Client(), {"a": 1.0})
    assert len(quick.due) > 480


@pytest.mark.parametrize(("rate", "seconds"), [(0, 1), (-1, 1), (float("inf"), 1), (1, 0), (float("nan"), 1)])
def test_an_impossible_pace_is_refused(rate, seconds):
    """By name."""
    with pytest.raises(ConfigError, match=r"rate|duration"):
        Pacer.constant(rate, seconds)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2000/s", (2000, 2000)), ("2000", (2000, 2000)), ("100..2000/s", (100, 2000)), ("0.5", (0.5, 0.5))],
)
def test_a_rate_is_a_number_or_a_ramp(text, expected):
    """As on the command line."""
    pacer = pacer_of(text, 3)

    assert (pacer.start, pacer.end, pacer.seconds, pacer.is_random) == (*expected, 3, False)
    assert pacer_of(f"poisson {text}", 3) == Pacer(*expected, 3, is_random=True)


@pytest.mark.parametrize("text", ["p99<50", "p99<50%", "errors<1ms", "p98<1ms", "p99", "rate>5ms", ""])
def test_a_threshold_needs_a_name_a_sign_and_its_unit(text):
    """So that nobody compares milliseconds with seconds."""
    with pytest.raises(ConfigError):
        threshold(text)


def run(took=(0.01, 0.02), failed=0):
    samples = Samples(["a"])
    for index, value in enumerate(took):
        samples.add(0, index * 0.1, 0.0, value)
    samples.failed["a"] = failed
    samples.seconds = 1.0
    return samples.result(warm_up=0.0)


@pytest.mark.parametrize(
    ("text", "is_met"),
    [
        ("p50<=10ms", True),
        ("p99<0.02s", False),
        ("p99<20001us", True),
        ("errors<1%", True),
        ("rate>=2/s", True),
        ("rate>2", False),
    ],
)
def test_a_threshold_is_met_or_not(text, is_met):
    """By the figures of the whole run."""
    assert verdict(threshold(text), run())[2] is is_met


def test_a_run_without_requests_meets_nothing():
    """Silence is no success."""
    for text in ("p99<1s", "errors<50%"):
        assert verdict(threshold(text), run(took=()))[1:] == (None, False)


def test_errors_count():
    """In percent of the requests."""
    assert verdict(threshold("errors<=50%"), run(failed=1))[1:] == (50.0, True)
    assert not verdict(threshold("errors<50%"), run(failed=1))[2]


def test_operations_are_drawn_by_weight():
    """And those of weight 0 never."""
    drawn = Counter(Weighted({"often": 3, "never": 0, "once": 1}).draw(random.Random(seed)) for seed in range(4000))

    assert 2800 < drawn["often"] < 3200
    assert drawn["never"] == 0


@pytest.mark.parametrize("weights", [{}, {"a": 0}, {"a": -1, "b": 2}])
def test_weights_that_draw_nothing_are_refused(weights):
    """At once."""
    with pytest.raises(ConfigError):
        Weighted(weights)


def test_the_samples_of_processes_are_one_run():
    """Requests, failures and refusals add up."""
    parts = []
    for number in range(3):
        samples = Samples(["a", "b"])
        samples.add(number % 2, 0.1, 0.001, 0.01 * (number + 1))
        samples.failed["a"], samples.refused["b"], samples.faults["a: X"] = 1, 2, 1
        samples.seconds = 1.0
        parts.append(samples)

    found = Samples.merged(parts).result(warm_up=0.0)

    assert (found.total.requests, found.total.failed, found.total.refused) == (3, 3, 6)
    assert found.failures == {"a: X": 3}
    assert found.total.longest == 0.03
    assert [row.name for row in found.operations] == ["a", "b"]


def test_what_was_due_in_the_warm_up_is_left_out():
    """Also of the rate."""
    samples = Samples(["a"])
    for index in range(100):
        samples.add(0, index * 0.01, 0.0, 1.0 if index < 50 else 0.01)
    samples.seconds = 1.0

    found = samples.result(warm_up=0.5)

    assert (found.total.requests, found.total.longest) == (50, 0.01)
    assert found.per_second == pytest.approx(100)


FILE = """
-- what a page asks for
-- name: positions
-- weight: 30
-- lane: HIGH
-- $1: int 5 5
-- $2: text a|b c
SELECT * FROM positions
WHERE account = $1 AND kind = $2;

SELECT 1;
"""


def test_a_file_of_sql_has_names_weights_lanes_and_arguments():
    """What is not said is 1, and the lane around it."""
    first, second = parse(FILE)

    assert (first.name, first.weight, first.lane) == ("positions", 30, QueryPriority.HIGH)
    assert first.text == "SELECT * FROM positions\nWHERE account = $1 AND kind = $2"
    assert {tuple(make(random.Random(seed)) for make in first.arguments) for seed in range(20)} == {
        (5, "a"),
        (5, "b c"),
    }
    assert (second.name, second.weight, second.lane, second.arguments) == ("statement 2", 1, None, ())


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "no statement"),
        ("SELECT 1", "does not end"),
        ("SELECT $1;", "line 1"),
        ("-- $1: int 1 2\nSELECT 1;", "line 2"),
        ("-- weight: heavy\nSELECT 1;", "line 2"),
        ("-- weight: -1\nSELECT 1;", "line 2"),
        ("-- lane: fast\nSELECT 1;", "line 2"),
        ("-- $1: dice 6\nSELECT $1;", "line 2"),
        ("-- $1: int 2 1\nSELECT $1;", "line 2"),
        ("-- $1: zipf 1\nSELECT $1;", "line 2"),
        ("-- name: a\nSELECT 1;\n-- name: a\nSELECT 2;", "one name"),
        ("SELECT\n-- weight: 1\n1;", "line 2"),
    ],
)
def test_a_file_that_cannot_be_understood_says_where(text, named):
    """By its line."""
    with pytest.raises(ConfigError, match=named):
        parse(text)


def test_zipf_prefers_the_first():
    """The first of a hundred comes far more often than the last."""
    (statement,) = parse("-- $1: zipf 1 100 1.0\nSELECT $1;")
    drawn = Counter(statement.arguments[0](random.Random(seed)) for seed in range(3000))

    assert drawn[1] > 10 * drawn[100]
    assert set(drawn) <= set(range(1, 101))


@pytest.mark.parametrize("name", ["nothing", "no/such/file.sql"])
def test_an_unknown_workload_is_refused_with_those_there_are(name):
    """Or with why the file cannot be read."""
    with pytest.raises(ConfigError, match=r"tpcb|cannot be read"):
        find(name, {})


def test_the_page_of_a_result_stands_by_itself_and_shows_names_as_text():
    """No script, nothing from elsewhere, nothing of a name as HTML."""
    document = {**run(took=[0.01] * 30).as_dict(), "run": {"workload": "<script>alert(1)</script>"}}
    document["operations"][0]["name"] = "<b>"

    text = page(document)

    assert "<script" not in text
    assert "<b>" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert text.count("<svg") == 2
    assert plot([("a", "red", [(0, 1.0)])], "ms").startswith("<p")
