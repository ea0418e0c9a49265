"""What is shown while a load goes on."""

from __future__ import annotations

from magnus.loadtest._live import Board, Watch
from magnus.loadtest.samples import Samples


def sent(samples, count, operation, took):
    for _ in range(count):
        samples.add(operation, 0.0, 0.0, took)


def test_a_look_has_what_came_since_the_one_before():
    """Counted whole, timed in part; failures are those so far."""
    samples = Samples(["buy", "report"])
    watch = Watch(samples, ["critical", "low"], lambda: (3, 10, 30))
    sent(samples, 5000, 0, 0.001)
    samples.failed["buy"] = 7
    first = watch.look()
    sent(samples, 10, 1, 0.5)
    second = watch.look()

    assert (first.requests, dict(first.counts), first.failed, first.pool) == (5000, {"critical": 5000}, 7, (3, 10, 30))
    assert 500 <= len(first.times["critical"]) <= 1000
    assert (second.requests, dict(second.counts), len(second.times["low"])) == (5010, {"low": 10}, 10)


def test_a_board_adds_processes_up_and_forgets_what_is_long_ago():
    """Rates over the seconds that are kept; pools together."""
    one, other = Samples(["x"]), Samples(["x"])
    watches = [Watch(samples, [""], lambda: (1, 2, 4)) for samples in (one, other)]
    board = Board()
    sent(one, 100, 0, 9.0)
    board.see(0.1, 0.5, [watch.look() for watch in watches])
    for _ in range(20):
        sent(one, 10, 0, 0.002)
        sent(other, 30, 0, 0.004)
        board.see(0.5, 0.5, [watch.look() for watch in watches])

    [row] = board.rows()
    assert (row.lane, row.per_second, row.p50, row.p99, row.p999) == ("all", 80.0, 0.004, 0.004, 0.004)
    assert (board.requests, board.pool, board.share) == (900, (2, 4, 8), 0.5)


def test_nothing_yet_is_nothing():
    """Before the first answer there is no row."""
    board = Board()
    board.see(0.0, 0.5, [Watch(Samples(["x"]), [""], None).look()])
    assert (board.rows(), board.pool, board.requests) == ([], None, 0)
