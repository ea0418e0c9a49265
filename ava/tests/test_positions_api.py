"""GET /api/positions and /api/account: what is held, at the quote."""

from __future__ import annotations

from service import BERT, CARL

pytest_plugins = ("service_fixtures",)


async def test_an_account_without_positions_shows_its_cash(ava):
    """Empty, not missing."""
    assert (await ava.get("/api/positions", account=CARL)).json() == {
        "currency": "USD",
        "cash": "1000.00",
        "cost_basis": "0.00",
        "market_value": "0.00",
        "unrealised_pnl": "0.00",
        "realised_pnl": "0.00",
        "items": [],
    }


async def test_positions_are_valued_at_the_quote(ava):
    """Market value is rounded half-even; the sums are those of the positions."""
    await ava.order("AAAA", "buy", "10")
    await ava.order("BBBB", "buy", "0.5")
    await ava.quote("AAAA", "13.0005")
    found = (await ava.get("/api/positions")).json()
    alpha, beta = found["items"]
    priced = {name: alpha.pop(name) for name in ("priced_at",)}
    assert priced["priced_at"].endswith("Z")
    assert alpha == {
        "symbol": "AAAA",
        "name": "Alpha",
        "quantity": "10",
        "cost_basis": "123.40",
        "price": "13.0005",
        "market_value": "130.00",
        "unrealised_pnl": "6.60",
        "realised_pnl": "0.00",
    }
    assert (beta["symbol"], beta["market_value"]) == ("BBBB", "50.00")
    assert (found["cash"], found["cost_basis"]) == ("9826.60", "173.40")
    assert (found["market_value"], found["unrealised_pnl"]) == ("180.00", "6.60")


async def test_without_a_quote_a_position_has_no_value(ava):
    """Null, not zero; the sums leave it out."""
    await ava.order("AAAA", "buy", "1")
    await ava.admin.execute("delete from quotes where instrument_id = 1")
    found = (await ava.get("/api/positions")).json()
    (position,) = found["items"]
    assert [position[name] for name in ("price", "priced_at", "market_value", "unrealised_pnl")] == [None] * 4
    assert (position["cost_basis"], found["market_value"]) == ("12.34", "0.00")


async def test_a_value_over_every_column_is_still_shown(ava):
    """Worth is computed, not stored, so it has no bound."""
    await ava.quote("AAAA", "0.00000001")
    assert (await ava.order("AAAA", "buy", "999999999999")).status_code == 201
    await ava.quote("AAAA", "999999999999.99999999")
    (position,) = (await ava.get("/api/positions")).json()["items"]
    assert position["market_value"] == "999999999998999999990000.00"


async def test_what_was_sold_out_is_listed_on_request(ava):
    """Its profit counts in the sum either way."""
    await ava.order("AAAA", "buy", "1")
    await ava.quote("AAAA", "13")
    await ava.order("AAAA", "sell", "1")
    found = (await ava.get("/api/positions")).json()
    assert (found["items"], found["realised_pnl"]) == ([], "0.66")
    (closed,) = (await ava.get("/api/positions", with_closed="true")).json()["items"]
    assert (closed["quantity"], closed["market_value"], closed["realised_pnl"]) == ("0", "0.00", "0.66")


async def test_an_account_sees_its_own_positions_only(ava):
    """Anna's are not Bert's."""
    await ava.order("AAAA", "buy", "1")
    assert (await ava.get("/api/positions", account=BERT)).json()["items"] == []


async def test_the_account_says_who_and_how_much(ava):
    """The token's account, with the zone its months are counted in."""
    assert (await ava.get("/api/account")).json() == {
        "id": 1,
        "owner_name": "Anna",
        "currency": "EUR",
        "time_zone": "Europe/Berlin",
        "cash": "10000.00",
    }


async def test_a_misspelt_parameter_is_refused(ava):
    """It must not be taken for the default."""
    for params in ({"with_close": "true"}, {"with_closed": "maybe"}):
        assert (await ava.get("/api/positions", **params)).status_code == 422
