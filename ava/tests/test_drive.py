"""The mixed workload: choices, pacing, verdicts, figures, and a whole run against a fake server."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import replace

import pytest

from ava.services.import_file import Row, count_rows, read_rows
from ava.workload.discovery import DiscoveryError, discover, holdings, last_known
from ava.workload.mix import MIX, Operation, Weighted, zipf
from ava.workload.pacing import Pace
from ava.workload.requests import Holding, Workload
from ava.workload.runner import Driver
from ava.workload.tally import Tally, percentile, summarise
from ava.workload.verdict import Answer, Verdict, is_equal, judge, pause, reason, retry_after

PAGE = b'{"items": [], "next_cursor": null}'
MARKET = {number: (Holding("AAAA", "10.5"), Holding("BBBB", "3")) for number in range(1, 21)}


def positions(*items: tuple[str, str | None]) -> bytes:
    return json.dumps({"items": [{"symbol": symbol, "price": price} for symbol, price in items]}).encode()


class FakeServer:
    """
    Answers from a rule; counts what it was sent.
    """

    def __init__(self, rule=None) -> None:
        self.rule = rule or (lambda _request, _nth: Answer(200, body=PAGE))
        self.sent = []
        self.in_flight = 0
        self.most_in_flight = 0

    async def send(self, request):
        self.sent.append(request)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(0)
        self.in_flight -= 1
        return self.rule(request, sum(one.idempotency_key == request.idempotency_key for one in self.sent))


# --- choices


def test_draws_follow_the_weights():
    """Over many draws each item's share is its weight's; an item of weight 0 never comes."""
    draw = Weighted(("a", "b", "c"), (3, 1, 0))
    rng = random.Random(1)
    found = Counter(draw.draw(rng) for _ in range(10_000))
    assert 0.72 < found["a"] / 10_000 < 0.78
    assert found["c"] == 0


@pytest.mark.parametrize(("items", "weights"), [((), ()), (("a",), (0,)), (("a", "b"), (1,))])
def test_a_draw_needs_items_with_weight(items, weights):
    """No items, no weight, or one weight too few is refused."""
    with pytest.raises((ValueError, IndexError)):
        Weighted(items, weights)


def test_zipf_makes_the_first_accounts_the_busiest():
    """The first of a thousand gets about one draw in sixteen, and the upper half most of them."""
    draw = zipf(range(1000))
    rng = random.Random(2)
    found = Counter(draw.draw(rng) for _ in range(20_000))
    assert 0.05 < found[0] / 20_000 < 0.08
    assert sum(count for item, count in found.items() if item < 500) > 15_000


def test_the_mix_adds_up_to_a_hundred_and_holds_every_operation():
    """The weights are parts of a hundred."""
    assert sum(MIX.values()) == 100
    assert set(MIX) == set(Operation)


def test_the_same_seed_asks_the_same():
    """Seed, market and run fix every request."""
    first, second = (Workload(MARKET, seed=7, run="r") for _ in range(2))
    assert [first.next() for _ in range(200)] == [second.next() for _ in range(200)]


def test_another_run_uses_other_keys():
    """Two runs of one seed differ in every Idempotency-Key and external id, or the second would only be replayed."""
    first, second = Workload(MARKET, seed=7), Workload(MARKET, seed=7)
    keys = [{workload.next().idempotency_key for _ in range(200)} - {None} for workload in (first, second)]
    assert keys[0]
    assert not keys[0] & keys[1]


def test_every_key_is_used_for_one_request():
    """No two requests of a run share an Idempotency-Key."""
    workload = Workload(MARKET, seed=7)
    keys = [key for _ in range(2_000) if (key := workload.next().idempotency_key)]
    assert len(keys) == len(set(keys))


def test_orders_are_for_what_the_account_holds():
    """An order names a symbol of the account's positions, so its currency fits."""
    workload = Workload({1: (Holding("CCCC", "1"),)}, seed=1, mix={Operation.SELL: 1})
    request = workload.next()
    order = json.loads(request.body)
    assert (order["symbol"], order["side"]) == ("CCCC", "sell")
    assert request.may_be_refused


def test_import_files_are_readable_by_the_import():
    """What the workload sends is what the import reads: each row is good."""
    import io
    from datetime import UTC, datetime

    workload = Workload(MARKET, seed=1, mix={Operation.IMPORT: 1})
    file = io.BytesIO(workload.next().body)
    assert count_rows(file, limit=100) == 5
    rows = list(read_rows(file, now=datetime.now(UTC)))
    assert all(isinstance(row, Row) for row in rows)
    assert len({row.external_id for row in rows}) == 5


def test_trades_go_on_from_the_page_seen_before():
    """A next_cursor is followed by later requests of the same account; a last page is not."""
    workload = Workload({1: MARKET[1]}, seed=3, mix={Operation.TRADES: 1})
    first = workload.next()
    assert "cursor" not in first.query
    workload.learn(first, b'{"items": [], "next_cursor": "here"}')
    assert {workload.next().query.get("cursor") for _ in range(50)} == {None, "here"}
    workload.learn(first, b'{"items": [], "next_cursor": null}')
    assert {workload.next().query.get("cursor") for _ in range(50)} == {None}


# --- pacing


def test_a_closed_loop_has_no_schedule_and_stops_at_its_count():
    """Without a rate every request is due at once."""
    pace = Pace(requests=3)
    assert pace.due(2) is None
    assert [pace.has(index, 99.0) for index in (0, 2, 3)] == [True, True, False]


def test_an_open_loop_is_due_by_the_clock_whatever_was_sent():
    """Request n is due at n / rate, and none is due after the duration."""
    pace = Pace(requests=None, duration=2.0, rate=10.0)
    assert pace.due(5) == 0.5
    assert pace.has(19, 0.0)
    assert not pace.has(20, 0.0)
    assert not pace.has(3, 2.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"requests": None},
        {"requests": 0},
        {"requests": -1},
        {"duration": 0.0},
        {"duration": float("inf")},
        {"duration": float("nan")},
        {"rate": 0.0},
        {"rate": -5.0},
    ],
)
def test_an_impossible_pace_is_refused(wrong):
    """A run must end, and counts, times and rates are above zero."""
    with pytest.raises(ValueError, match=r"requests|duration|rate"):
        Pace(**wrong)


def test_the_share_done_is_the_larger_of_count_and_time():
    """Whichever limit ends the run tells how far it is; never above 1."""
    pace = Pace(requests=100, duration=10.0)
    assert pace.share(50, 1.0) == 0.5
    assert pace.share(1, 9.0) == 0.9
    assert pace.share(500, 1.0) == 1.0


# --- verdicts


@pytest.mark.parametrize(
    ("answer", "may_refuse", "verdict"),
    [
        (Answer(200), False, Verdict.OK),
        (Answer(201), True, Verdict.OK),
        (Answer(409), True, Verdict.REFUSED),
        (Answer(422), True, Verdict.REFUSED),
        (Answer(409), False, Verdict.FAILED),
        (Answer(503, retry_after=1.0), False, Verdict.SHED),
        (Answer(503), False, Verdict.FAILED),
        (Answer(500), True, Verdict.FAILED),
        (Answer(502, retry_after=1.0), True, Verdict.FAILED),
        (Answer(401), True, Verdict.FAILED),
        (Answer(302), True, Verdict.FAILED),
        (Answer(0, error="timeout"), True, Verdict.FAILED),
    ],
)
def test_what_an_answer_means(answer, may_refuse, verdict):
    """Only 503 with Retry-After is overload, only orders may be refused, everything else is a broken promise."""
    assert judge(answer, may_refuse=may_refuse) is verdict


def test_failures_have_few_names():
    """The same kind of failure counts under one name."""
    assert reason(Answer(0, error="timeout")) == "no answer: timeout"
    assert reason(Answer(503)) == "503 without Retry-After"
    assert reason(Answer(500)) == "server error 500"
    assert reason(Answer(404)) == "unexpected status 404"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("1", 1.0), (" 30 ", 30.0), ("0", 0.0), (None, None), ("", None), ("-1", None), ("1.5", None),
     ("Fri, 20 Nov 2026 09:00:00 GMT", None), ("²", None), ("nan", None)],
)  # fmt: skip
def test_retry_after_is_whole_seconds(header, seconds):
    """Anything but digits is no promise."""
    assert retry_after(header) == seconds


def test_a_pause_is_never_shorter_than_asked_and_spreads():
    """The server's seconds are the least, and as much again, doubling, is drawn on top; both bounded."""
    shed = Answer(503, retry_after=2.0)
    assert pause(shed, 1, lambda low, _high: low) == 2.0
    assert pause(shed, 1, lambda _low, high: high) == 4.0
    assert pause(shed, 3, lambda _low, high: high) == 10.0
    assert pause(Answer(503, retry_after=9e9), 99, lambda _low, high: high) == 38.0
    assert pause(Answer(503, retry_after=0.0), 1, lambda _low, high: high) == 0.1


def test_a_repeat_is_equal_but_for_the_request_id():
    """Status and body count; the id of the request in a problem document does not."""
    first = Answer(409, body=b'{"type": "t", "request_id": "1"}')
    assert is_equal(first, Answer(409, body=b'{"request_id": "2", "type": "t"}'))
    assert not is_equal(first, Answer(409, body=b'{"type": "other", "request_id": "1"}'))
    assert not is_equal(first, Answer(422, body=first.body))
    assert not is_equal(Answer(200, body=b"a"), Answer(200, body=b"b"))


# --- figures


@pytest.mark.parametrize(("share", "value"), [(0.5, 5), (0.95, 10), (0.99, 10), (1.0, 10), (0.1, 1), (0.0, 1)])
def test_percentiles_are_nearest_rank(share, value):
    """The smallest value that this share of the sample does not exceed."""
    assert percentile(range(1, 11), share) == value


def test_figures_of_nothing_are_zero():
    """No sample, no division by zero."""
    figures = summarise("none", [], 0)
    assert (figures.requests, figures.mean_ms, figures.p99_ms, figures.max_ms) == (0, 0.0, 0.0, 0.0)
    assert Tally().result(0.0).per_second == 0.0


def test_a_tally_sums_up_by_operation_and_in_all():
    """Latencies are in milliseconds; failures are counted where they happened."""
    tally = Tally()
    tally.finish("buy", 0.010)
    tally.finish("buy", 0.030)
    tally.finish("report", 0.500)
    tally.fail("report", "server error 500")
    result = tally.result(2.0)
    assert [(one.operation, one.requests, one.failed, one.max_ms) for one in result.operations] == [
        ("buy", 2, 0, 30.0),
        ("report", 1, 1, 500.0),
    ]
    assert (result.total.requests, result.total.failed, result.per_second) == (3, 1, 1.5)
    assert not result.is_clean


# --- discovery


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 1000])
async def test_the_number_of_accounts_is_found_by_asking(count):
    """Doubling and halving finds the last one in few questions."""
    asked = []

    async def is_known(number: int) -> bool:
        asked.append(number)
        return number <= count

    assert await last_known(is_known) == count
    assert len(asked) <= 2 * max(count, 2).bit_length() + 1


async def test_discovery_keeps_accounts_that_hold_something():
    """Accounts 1 to the last one known, without those that have nothing to trade."""

    def rule(request, _nth):
        match request.account_id:
            case 2:
                return Answer(200, body=positions())
            case 1 | 3:
                return Answer(200, body=positions(("AAAA", "1"), ("NONE", None)))
            case _:
                return Answer(401)

    assert await discover(FakeServer(rule)) == {1: (Holding("AAAA", "1"),), 3: (Holding("AAAA", "1"),)}


@pytest.mark.parametrize(
    ("answer", "words", "is_unreachable"),
    [
        (Answer(0, error="ClientConnectorError"), "nothing answers", True),
        (Answer(401), "tokens of this seed", False),
        (Answer(404), "is that AVA", False),
        (Answer(503, retry_after=1.0), "is it ready", False),
    ],
)
async def test_a_server_that_cannot_be_driven_is_named(answer, words, is_unreachable):
    """Each reason has its own words."""
    with pytest.raises(DiscoveryError, match=words) as caught:
        await discover(FakeServer(lambda _request, _nth: answer))
    assert caught.value.is_unreachable is is_unreachable


async def test_accounts_without_holdings_cannot_be_driven():
    """There is nothing to trade."""
    empty = FakeServer(lambda request, _nth: Answer(200 if request.account_id < 3 else 401, body=positions()))
    with pytest.raises(DiscoveryError, match="load data first"):
        await discover(empty)


def test_holdings_without_a_quote_are_left_out():
    """They could only be refused."""
    assert holdings(positions(("A", "1.5"), ("B", None))) == (Holding("A", "1.5"),)


# --- a run


async def drive(server: FakeServer, *, requests: int = 400, concurrency: int = 10, attempts: int = 10, seed: int = 2):
    driver = Driver(server, Workload(MARKET, seed=seed), Pace(requests=requests), attempts=attempts)
    return await driver.run(concurrency)


async def test_a_run_sends_what_was_asked_and_never_more_at_once():
    """Requests and concurrency are exact."""
    server = FakeServer()
    result = await drive(server)
    assert result.requests == len(server.sent) == 400
    assert server.most_in_flight == 10
    assert result.is_clean
    assert result.statuses == {"200": 400}


async def test_some_keys_are_sent_twice_and_never_more():
    """Repeats carry the same key and the same body."""
    server = FakeServer()
    result = await drive(server)
    sent = Counter((one.idempotency_key, one.body) for one in server.sent if one.idempotency_key)
    assert set(sent.values()) == {1, 2}
    assert result.repeats == sum(count == 2 for count in sent.values()) > 5


async def test_an_unequal_repeat_is_a_broken_promise():
    """A server that answers a key differently the second time is found out."""
    server = FakeServer(lambda _request, nth: Answer(200, body=PAGE if nth < 2 else PAGE + b" "))
    result = await drive(server)
    assert result.failures == {"unequal repeat": result.repeats}
    assert not result.is_clean


async def test_what_is_shed_is_sent_again_with_the_same_key(monkeypatch):
    """A 503 with Retry-After is retried as the very same request, and the run stays clean."""
    monkeypatch.setattr("ava.workload.verdict.pause", lambda *_: 0.0)
    seen = set()

    def rule(request, _nth):
        if request.idempotency_key and request.idempotency_key not in seen:
            seen.add(request.idempotency_key)
            return Answer(503, retry_after=1.0)
        return Answer(201, body=PAGE)

    server = FakeServer(rule)
    result = await drive(server)
    assert result.is_clean
    assert result.retries == len(seen) == result.statuses["503"]
    assert result.shed == 0
    assert result.requests == 400


async def test_without_retries_shed_requests_are_counted(monkeypatch):
    """The raw figures: one attempt each, and shedding is no broken promise."""
    server = FakeServer(lambda _request, _nth: Answer(503, retry_after=1.0))
    result = await drive(server, attempts=1)
    assert (result.shed, result.retries, result.is_clean) == (400, 0, True)
    assert result.repeats == 0


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        (Answer(500), "server error 500"),
        (Answer(503), "503 without Retry-After"),
        (Answer(401), "unexpected status 401"),
        (Answer(0, error="timeout"), "no answer: timeout"),
    ],
)
async def test_a_broken_promise_fails_the_run(answer, name):
    """Each kind is counted under its name, once for each request."""
    result = await drive(FakeServer(lambda _request, _nth: answer), requests=50)
    assert result.failures == {name: 50}


async def test_an_unreadable_page_is_a_broken_promise():
    """A success whose body is not what the API promises is none."""
    result = await drive(FakeServer(lambda _request, _nth: Answer(200, body=b"<html>")))
    assert set(result.failures) == {"unreadable answer"}


async def test_refused_orders_are_right_answers():
    """No cash is no fault of the server's."""
    server = FakeServer(lambda request, _nth: Answer(409 if request.may_be_refused else 200, body=PAGE))
    result = await drive(server)
    assert result.is_clean
    assert result.refused == result.statuses["409"] > 0


async def test_an_open_loop_counts_latency_from_when_a_request_was_due():
    """A server that stalls once delays all that were due meanwhile, and their latencies show it."""
    stalled = asyncio.Event()

    class Stalling(FakeServer):
        async def send(self, request):
            if not stalled.is_set():
                stalled.set()
                await asyncio.sleep(0.2)
            return await super().send(request)

    driver = Driver(Stalling(), Workload(MARKET, seed=1), Pace(requests=20, rate=200.0))
    result = await driver.run(1)
    assert result.total.p50_ms > 50.0


async def test_progress_is_told_while_a_run_goes_on(monkeypatch):
    """The reporter gets figures and the share done, and ends with the run."""
    monkeypatch.setattr("ava.workload.runner._REPORT_INTERVAL", 0.0)
    told = []
    driver = Driver(FakeServer(), Workload(MARKET, seed=1), Pace(requests=200))
    await driver.run(5, lambda result, share: told.append((result.requests, share)))
    assert told
    assert all(0.0 <= share <= 1.0 for _, share in told)


def test_requests_can_be_told_apart_by_their_repetition():
    """A request is plain data: equal but for what was changed."""
    request = Workload(MARKET, seed=1).next()
    assert replace(request, is_repeated=not request.is_repeated) != request
