"""POST and GET /api/trades: exactly once, at the quote, for the caller's account, page by page."""

from __future__ import annotations

import asyncio
import itertools
import json
from datetime import UTC, datetime, timedelta

import pytest
from service import ANNA, BERT, CARL

from ava import housekeeping
from ava.services.reporting import Cursor, CursorInvalid
from magnus import OutcomeUnknown, _commit, once, scope

pytest_plugins = ("service_fixtures",)


def word(response) -> str:
    """The last part of a problem's type."""
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == response.status_code
    return response.json()["type"].rpartition(":")[2]


# --- orders


async def test_a_buy_is_executed_at_the_quote(ava):
    """201 with the trade as strings, and a Location that leads to the same trade."""
    answer = await ava.order("AAAA", "buy", "10")
    assert answer.status_code == 201
    trade = answer.json()
    assert trade == {
        "id": trade["id"],
        "symbol": "AAAA",
        "side": "buy",
        "quantity": "10",
        "price": "12.34",
        "amount": "123.40",
        "fee": "0.00",
        "realised_pnl": None,
        "currency": "EUR",
        "executed_at": trade["executed_at"],
    }
    assert datetime.now(UTC) - datetime.fromisoformat(trade["executed_at"]) < timedelta(minutes=1)
    assert (await ava.get(answer.headers["Location"])).json() == trade
    assert (await ava.get("/api/account")).json()["cash"] == "9876.60"


async def test_a_sale_realises_profit_first_in_first_out(ava):
    """The lots bought first are sold first; their cost is rounded half-even."""
    await ava.order("AAAA", "buy", "10")
    await ava.quote("AAAA", "20.005")
    await ava.order("AAAA", "buy", "1")
    await ava.quote("AAAA", "30")
    sale = (await ava.order("AAAA", "sell", "10.5")).json()
    assert sale["amount"] == "315.00"
    assert sale["realised_pnl"] == "181.60"
    (position,) = (await ava.get("/api/positions")).json()["items"]
    assert (position["quantity"], position["cost_basis"], position["realised_pnl"]) == ("0.5", "10.00", "181.60")


@pytest.mark.one_version
async def test_a_position_can_be_sold_out_and_opened_again(ava):
    """Nothing of the old cost is left in the new position."""
    for side in ("buy", "sell", "buy"):
        assert (await ava.order("BBBB", side, "3")).status_code == 201
    assert await ava.count("lots") == 1
    (position,) = (await ava.get("/api/positions")).json()["items"]
    assert (position["quantity"], position["cost_basis"]) == ("3", "300.00")


@pytest.mark.one_version
@pytest.mark.parametrize(
    ("order", "status", "reason"),
    [
        ("NONE buy 1", 422, "unknown-instrument"),
        ("USDX buy 1", 422, "currency-mismatch"),
        ("AAAA buy 0.00000001", 422, "amount-too-small"),
        ("BBBB buy 999999999999.99999999", 409, "insufficient-cash"),
        ("DEAD buy 1", 409, "instrument-not-tradable"),
        ("MUTE buy 1", 409, "no-price"),
        ("AAAA buy 1 12.33", 409, "limit-not-met"),
        ("AAAA buy 1000", 409, "insufficient-cash"),
        ("AAAA sell 1", 409, "insufficient-holdings"),
    ],
)
async def test_a_refusal_is_final(ava, order, status, reason):
    """It books nothing, is kept, and the same key gets the same bytes again, even when it would be filled by now."""
    symbol, side, quantity, *limit = order.split()
    more = {"limit_price": limit[0]} if limit else {}
    first = await ava.order(symbol, side, quantity, key="k", **more)
    assert (first.status_code, word(first)) == (status, reason)
    assert "Idempotency-Replayed" not in first.headers
    await ava.admin.execute("update quotes set price = 0.01")
    again = await ava.order(symbol, side, quantity, key="k", **more)
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert await ava.count("trades") == 0
    stored = await ava.admin.fetchrow("select status, reason, trade_id from orders")
    assert tuple(stored) == ("rejected", reason, None)


@pytest.mark.one_version
async def test_a_figure_that_would_not_fit_is_refused(ava):
    """The largest quantity at the largest price is an answer, not a fault."""
    await ava.quote("AAAA", "999999999999.99999999")
    answer = await ava.order("AAAA", "buy", "999999999999.99999999")
    assert (answer.status_code, word(answer)) == (422, "amount-too-large")


async def test_the_same_key_fifty_times_at_once_is_one_trade(ava):
    """All fifty get the trade; one of them booked it."""
    answers = await asyncio.gather(*(ava.order("AAAA", "buy", "1", key="once") for _ in range(50)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
    assert (await ava.count("trades"), await ava.count("orders")) == (1, 1)


@pytest.mark.one_version
async def test_a_repeat_gets_the_old_price(ava):
    """The answer is that of the first time, whatever the quote is now."""
    first = await ava.order("AAAA", "buy", "1", key="k")
    await ava.quote("AAAA", "99")
    again = await ava.order("AAAA", "buy", "1", key="k")
    assert again.content == first.content
    assert again.headers["Location"] == first.headers["Location"]
    assert again.headers["Idempotency-Replayed"] == "true"


@pytest.mark.one_version
async def test_the_same_key_with_another_body_is_refused(ava):
    """422, and nothing is changed; the first answer stays."""
    body = {"symbol": "AAAA", "side": "buy", "quantity": "1"}
    first = await ava.order(**body, key="k")
    for other in ({"quantity": "2"}, {"side": "sell"}, {"symbol": "BBBB"}, {"limit_price": "50"}):
        answer = await ava.order(**{**body, **other}, key="k")
        assert (answer.status_code, word(answer)) == (422, "idempotency-key-reused")
    assert (await ava.order(**body, key="k")).content == first.content


@pytest.mark.one_version
async def test_an_order_whose_answer_has_expired_is_told_its_trade(ava):
    """409 with the trade's id, where it can be read; nothing is booked again."""
    first = await ava.order("AAAA", "buy", "1", key="k")
    await housekeeping.expire(ava.app.state.magnus.database, 0)
    again = await ava.order("AAAA", "buy", "1", key="k")
    assert (again.status_code, word(again)) == (409, "already-executed")
    trade_id = again.json()["trade_id"]
    assert (await ava.get(f"/api/trades/{trade_id}")).json() == first.json()
    assert await ava.count("trades") == 1


@pytest.mark.one_version
async def test_an_order_that_another_process_is_booking_is_in_progress(ava, monkeypatch):
    """409 with Retry-After: the key is claimed there, and not yet committed."""
    monkeypatch.setattr(once, "WAIT", 0.1)
    elsewhere = ava.admin.transaction()
    await elsewhere.start()
    await ava.admin.execute(
        "insert into magnus_once (scope, operation, key, request_hash)"
        " values ('account:1', 'trade', 'k', decode(repeat('00', 32), 'hex'))"
    )
    answer = await ava.order("AAAA", "buy", "1", key="k")
    assert (answer.status_code, word(answer), answer.headers["Retry-After"]) == (409, "in-progress", "1")
    await elsewhere.rollback()
    assert (await ava.order("AAAA", "buy", "1", key="k")).status_code == 201


@pytest.mark.one_version
async def test_an_outcome_that_nobody_can_tell_is_503_and_the_same_key_finds_out(ava, monkeypatch):
    """`outcome-unknown`, Retry-After, and the advice; the repeat gets the trade that was booked."""
    commit = _commit.commit

    async def lose(con, **options):
        await commit(con, **options)
        con.terminate()
        raise OutcomeUnknown

    with monkeypatch.context() as patch, scope(timeout=0.5):
        patch.setattr(_commit, "commit", lose)
        answer = await ava.order("AAAA", "buy", "1", key="k")
    assert (answer.status_code, word(answer), answer.headers["Retry-After"]) == (503, "outcome-unknown", "1")
    assert "same Idempotency-Key" in answer.json()["detail"]
    again = await ava.order("AAAA", "buy", "1", key="k")
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert await ava.count("trades") == 1


@pytest.mark.one_version
async def test_the_same_quantity_written_differently_is_the_same_request(ava):
    """Values are compared, not spellings."""
    first = await ava.order("AAAA", "buy", "10", key="k", limit_price="12.5")
    again = await ava.order("AAAA", "buy", "010.000", key="k", limit_price="12.50000000")
    assert again.content == first.content


@pytest.mark.one_version
async def test_the_same_key_of_another_account_is_its_own_trade(ava):
    """Keys belong to accounts."""
    answers = [await ava.order("AAAA", "buy", "1", key="k", account=account) for account in (ANNA, BERT)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json()["id"] != answers[1].json()["id"]


async def test_orders_at_once_never_spend_more_than_there_is(ava):
    """Bert can pay four of twenty; the others are refused, and the cash is exact."""
    answers = await asyncio.gather(*(ava.order("BBBB", "buy", "1.1", account=BERT) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [201] * 4 + [409] * 16
    assert (await ava.get("/api/account", account=BERT)).json()["cash"] == "60.00"


@pytest.mark.one_version
async def test_trades_are_executed_in_the_order_they_are_booked(ava):
    """Among orders that waited for each other, the later id is the later time."""
    await asyncio.gather(*(ava.order("AAAA", "buy", "1") for _ in range(20)))
    times = await ava.admin.fetch("select executed_at from trades order by id")
    assert all(earlier["executed_at"] <= later["executed_at"] for earlier, later in itertools.pairwise(times))


@pytest.mark.one_version
async def test_an_account_without_a_cash_row_cannot_trade(ava):
    """409, and nothing is kept: the answer will be another one when the account is open."""
    await ava.admin.execute("delete from cash_movements where account_id = 3; delete from cash where account_id = 3")
    answer = await ava.order("USDX", "buy", "1", account=CARL)
    assert (answer.status_code, word(answer)) == (409, "account-not-open")
    assert await ava.count("orders") == 0
    await ava.admin.execute("insert into cash (account_id) values (3)")


BAD = [
    ("quantity", value)
    for value in (
        "0", "0.0", "-1", "+1", "1e3", "1E3", "NaN", "Infinity", "-Infinity", "", " 1", "1 ", "1,5", "1.", ".5",
        "\uff11", "1234567890123", "0.123456789", "9" * 5000, "1\x00", "\ud800", 10, 1.5, True, None, [], {}, ["1"],
    )
] + [
    ("limit_price", value) for value in ("0", "-1", "NaN", "1e400", "", 5, [])
] + [
    ("symbol", value) for value in ("", "aaaa", "AAAA\x00", "A" * 17, "ÄÄÄÄ", "'; drop table trades; --", 5, None, [])
] + [
    ("side", value) for value in ("", "BUY", "hold", "buy\x00", 1, None)
] + [("account_id", 2), ("price", "1"), ("fee", "0")]  # fmt: skip


@pytest.mark.one_version
async def test_bad_input_is_refused_and_changes_nothing(ava):
    """422 that names the field and does not repeat what was sent; an unknown field is not ignored."""
    before = await ava.ledger()
    for name, value in BAD:
        body = json.dumps({"symbol": "AAAA", "side": "buy", "quantity": "1", name: value})
        headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
        answer = await ava.send("POST", "/api/trades", content=body, headers=headers)
        assert (answer.status_code, word(answer)) == (422, "invalid-request"), (name, value)
        (error,) = answer.json()["errors"]
        assert error["pointer"] == f"/{name}"
        assert not isinstance(value, str) or len(value) < 5 or value not in answer.text
    assert await ava.ledger() == before


BODIES = [
    (b"", "application/json", 422),
    (b"{", "application/json", 422),
    (b"[]", "application/json", 422),
    (b"null", "application/json", 422),
    (b'"text"', "application/json", 422),
    (b"[" * 40_000, "application/json", 400),
    (b"\xff\xfe\x00", "application/json", 400),
    (b'{"symbol": "AAAA", "side": "buy", "quantity": NaN}', "application/json", 422),
    (b'{"symbol": "AAAA", "side": "buy", "quantity": ' + b"9" * 5000 + b"}", "application/json", 400),
    (b'{"symbol": "AAAA", "side": "buy", "quantity": "1"}', "text/plain", 415),
    (b'{"symbol": "AAAA", "side": "buy", "quantity": "1"}', "", 415),
    (b"symbol=AAAA&side=buy&quantity=1", "application/x-www-form-urlencoded", 415),
    (b" " * 70_000, "application/json", 413),
]


@pytest.mark.one_version
async def test_a_body_that_is_no_order_is_refused(ava):
    """Broken JSON, other JSON, other types, too much: a problem document, and nothing is changed."""
    before = await ava.ledger()
    for content, kind, status in BODIES:
        headers = {"Idempotency-Key": "k", "Content-Type": kind}
        answer = await ava.send("POST", "/api/trades", content=content, headers=headers)
        assert answer.status_code == status, (content[:60], kind)
        assert word(answer)
    assert await ava.ledger() == before


@pytest.mark.one_version
async def test_a_large_body_that_does_not_say_so_is_refused(ava):
    """A body sent in pieces is counted."""

    async def pieces():
        for _ in range(100):
            yield b" " * 1000

    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    answer = await ava.send("POST", "/api/trades", content=pieces(), headers=headers)
    assert (answer.status_code, word(answer)) == (413, "body-too-large")


@pytest.mark.one_version
async def test_a_key_is_required_and_printable(ava):
    """1 to 255 printable ASCII characters; without one an order cannot be exactly once."""
    body = {"symbol": "AAAA", "side": "buy", "quantity": "1"}
    for key in (None, "", "x" * 256, "a\tb", "schlüssel".encode(), b"a\x80b"):
        headers = {} if key is None else {"Idempotency-Key": key}
        answer = await ava.send("POST", "/api/trades", json=body, headers=headers)
        assert (answer.status_code, word(answer)) == (422, "invalid-request")
        assert answer.json()["errors"][0]["in"] == "header"
    assert await ava.count("orders") == 0


@pytest.mark.one_version
async def test_any_printable_key_is_taken(ava):
    """Up to 255 characters."""
    for key in ("k", "x" * 255, "a key: with ~ all \"sorts\" of 'things'"):
        assert (await ava.order("AAAA", "buy", "1", key=key)).status_code == 201


# --- pages


async def fill_history(ava, count: int = 25) -> None:
    """Trades of the past, several at one moment, so that the order needs the id too."""
    rows = "\n".join(
        f"T{n},{'AAAA' if n % 5 else 'BBBB'},buy,1,1,,2026-0{1 + n % 3}-05T10:00:00Z" for n in range(count)
    )
    answer = await ava.upload(f"external_id,symbol,side,quantity,price,fee,executed_at\n{rows}\n")
    assert answer.json()["loaded"] == count


async def pages(ava, **params):
    """Follow the pages to the end."""
    answer = await ava.get("/api/trades", **params)
    yield answer.json()
    while answer.json()["next"] is not None:
        answer = await ava.get(answer.json()["next"])
        assert answer.status_code == 200
        yield answer.json()


async def test_pages_hold_every_trade_once_newest_first(ava):
    """Whatever the size of a page."""
    await fill_history(ava)
    for limit in (1, 7, 25, 26, 500):
        found = [page async for page in pages(ava, limit=limit)]
        items = [trade for page in found for trade in page["items"]]
        order = [(trade["executed_at"], trade["id"]) for trade in items]
        assert order == sorted(order, reverse=True)
        assert len(items) == len({trade["id"] for trade in items}) == 25
        assert len(found) == -(-25 // limit)
        assert (found[-1]["next_cursor"], found[-1]["next"]) == (None, None)


@pytest.mark.one_version
async def test_pages_do_not_shift_when_trades_are_booked_meanwhile(ava):
    """Each trade that was there at the first page is seen once."""
    await fill_history(ava, 10)
    seen = []
    async for page in pages(ava, limit=3):
        seen += [trade["id"] for trade in page["items"]]
        await ava.order("AAAA", "buy", "1")
    assert len(seen) == len(set(seen)) == 10


async def test_filters_hold_on_every_page(ava):
    """Symbol, side and time; the link to the next page keeps them."""
    await fill_history(ava)
    wanted = {"symbol": "AAAA", "side": "buy", "from": "2026-02-05T10:00:00Z", "to": "2026-03-05T11:00:00+01:00"}
    items = [trade async for page in pages(ava, limit=2, **wanted) for trade in page["items"]]
    assert {trade["executed_at"] for trade in items} == {"2026-02-05T10:00:00.000000Z"}
    expected = await ava.admin.fetchval(
        "select count(*) from trades where instrument_id = 1 and executed_at = '2026-02-05T10:00:00Z'"
    )
    assert len(items) == expected > 2
    assert (await ava.get("/api/trades", side="sell")).json()["items"] == []
    assert (await ava.get("/api/trades", symbol="NONE")).json()["items"] == []


QUERIES = [
    ("limit", "0"), ("limit", "501"), ("limit", "x"), ("limit", "9" * 30), ("cursor", ""), ("cursor", "x" * 22),
    ("cursor", "A" * 23), ("cursor", "ÄÄ"), ("cursor", "\x00"), ("symbol", "\x00"), ("symbol", "a"), ("side", "x"),
    ("from", "2026-01-01"), ("from", "2026-01-01T00:00:00"), ("from", "1700000000"), ("to", "0000-01-01T00:00:00Z"),
    ("to", "2026-02-30T00:00:00Z"), ("offset", "5"), ("account_id", "2"),
]  # fmt: skip


@pytest.mark.one_version
async def test_a_bad_query_is_refused(ava):
    """422, also for a parameter that does not exist: a misspelt filter must not return everything."""
    for name, value in QUERIES:
        answer = await ava.get("/api/trades", **{name: value})
        assert answer.status_code == 422, (name, value)
        assert word(answer) in {"invalid-request", "invalid-cursor"}


async def test_the_ends_of_time_are_times(ava):
    """No moment that can be written breaks a query."""
    await ava.order("AAAA", "buy", "1")
    for moment in ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00Z"):
        for name in ("from", "to"):
            assert (await ava.get("/api/trades", **{name: moment})).status_code == 200


def test_a_cursor_survives_its_text():
    """To the microsecond and the largest id."""
    for cursor in (
        Cursor(datetime(2026, 1, 5, 1, 2, 3, 4, tzinfo=UTC), 2**63 - 1),
        Cursor(datetime(1969, 1, 1, tzinfo=UTC), 1),
    ):
        assert Cursor.decode(cursor.encode()) == cursor


@pytest.mark.parametrize("text", ["", "A", "A" * 21 + "B", "_" * 22, "~" * 22, "7" * 22, "A" * 21 + "\x00"])
def test_a_text_that_no_page_gave_is_no_cursor(text):
    """Wrong length, alphabet, padding bits, or a time that does not exist."""
    with pytest.raises(CursorInvalid):
        Cursor.decode(text)


# --- one trade


@pytest.mark.one_version
async def test_an_unknown_trade_is_404(ava):
    """As a problem."""
    for trade_id in (999999, 2**63 - 1):
        answer = await ava.get(f"/api/trades/{trade_id}")
        assert (answer.status_code, word(answer)) == (404, "unknown-trade")


@pytest.mark.one_version
async def test_an_impossible_trade_id_is_refused(ava):
    """Before the database is asked."""
    for trade_id in ("0", "-1", str(2**63), "x", "1.5", "9" * 5000):
        assert (await ava.get(f"/api/trades/{trade_id}")).status_code == 422
