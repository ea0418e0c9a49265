"""GET /api/reports/monthly: realised profit and loss by month, in the time zone of the account."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from service import ANNA, BERT, CARL, serving

from ava.services import reporting
from ava.tokens import demo_token

pytest_plugins = ("service_fixtures",)

# In Berlin the second sale is on the first of February already, in UTC it is still January.
FILE = """external_id,symbol,side,quantity,price,fee,executed_at
1,AAAA,buy,10,10,1.00,2026-01-10T10:00:00Z
2,AAAA,sell,4,11,0.50,2026-01-31T22:59:59.999999Z
3,AAAA,sell,4,9,0.50,2026-01-31T23:00:00Z
4,AAAA,buy,1,10,0,2026-03-01T00:00:00Z
"""


def month(*figures):
    names = ("month", "trades", "bought", "sold", "fees", "realised_pnl")
    return dict(zip(names, figures, strict=True))


async def test_a_month_begins_at_the_accounts_midnight(ava):
    """The same trades are in other months for Berlin and for UTC."""
    await ava.upload(FILE)
    await ava.upload(FILE, account=BERT)
    berlin, utc = [(await ava.get("/api/reports/monthly", account=account)).json() for account in (ANNA, BERT)]
    assert berlin == {
        "currency": "EUR",
        "time_zone": "Europe/Berlin",
        "realised_pnl": "-1.80",
        "items": [
            month("2026-01", 2, "100.00", "44.00", "1.50", "3.10"),
            month("2026-02", 1, "0.00", "36.00", "0.50", "-4.90"),
            month("2026-03", 1, "10.00", "0.00", "0.00", "0.00"),
        ],
    }
    assert [(item["month"], item["realised_pnl"]) for item in utc["items"]] == [
        ("2026-01", "-1.80"),
        ("2026-03", "0.00"),
    ]


@pytest.mark.parametrize(
    ("period", "months"),
    [
        ({"from": "2026-02"}, ["2026-02", "2026-03"]),
        ({"to": "2026-01"}, ["2026-01"]),
        ({"from": "2026-02", "to": "2026-02"}, ["2026-02"]),
        ({"from": "2199-12", "to": "2199-12"}, []),
        ({"from": "1970-01", "to": "2199-12"}, ["2026-01", "2026-02", "2026-03"]),
    ],
)
async def test_a_period_is_whole_months_of_the_account(ava, period, months):
    """Both ends are included."""
    await ava.upload(FILE)
    found = (await ava.get("/api/reports/monthly", **period)).json()
    assert [item["month"] for item in found["items"]] == months


@pytest.mark.parametrize(
    "period",
    [
        {"from": "2026-13"}, {"from": "2026-00"}, {"from": "26-01"}, {"from": "1969-12"}, {"to": "9999-12"},
        {"to": "2026-1"}, {"from": "2026-01-01"}, {"from": "\uff12026-01"}, {"year": "2026"},
        {"from": "2026-03", "to": "2026-02"},
    ],
)  # fmt: skip
async def test_an_impossible_period_is_refused(ava, period):
    """422 for what is no month, and for an end before the beginning."""
    answer = await ava.get("/api/reports/monthly", **period)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


async def test_an_account_without_trades_has_an_empty_report(ava):
    """With its currency and time zone all the same."""
    assert (await ava.get("/api/reports/monthly", account=CARL)).json() == {
        "currency": "USD",
        "time_zone": "America/New_York",
        "realised_pnl": "0.00",
        "items": [],
    }


async def test_months_add_up_to_what_the_positions_realised(loaded):
    """On generated data, for every account, to the cent."""
    async with serving(loaded) as service:
        for account in range(1, 6):
            headers = {"Authorization": f"Bearer {demo_token(42, account)}"}
            report = (await service.client.get("/api/reports/monthly", headers=headers)).json()
            positions = (await service.client.get("/api/positions", headers=headers)).json()
            months = [Decimal(item["realised_pnl"]) for item in report["items"]]
            assert sum(months) == Decimal(report["realised_pnl"]) == Decimal(positions["realised_pnl"])
            trades = await service.admin.fetchval("select count(*) from trades where account_id = $1", account)
            assert sum(item["trades"] for item in report["items"]) == trades > 0


async def test_finished_months_are_kept_and_an_import_into_them_is_seen_at_once(ava):
    """The second report asks the database for nothing but the token; what an import adds to the past is there."""
    await ava.upload(FILE)
    before = (await ava.get("/api/reports/monthly", **{"from": "2026-01", "to": "2026-02"})).json()
    assert (await ava.get("/api/reports/monthly", **{"from": "2026-01", "to": "2026-02"})).json() == before
    more = FILE.splitlines()[0] + "\n5,AAAA,sell,1,20,0,2026-02-10T00:00:00Z\n"
    await ava.upload(more, key="more")
    after = (await ava.get("/api/reports/monthly", **{"from": "2026-01", "to": "2026-02"})).json()
    assert [item["trades"] for item in before["items"]] == [2, 1]
    assert [item["trades"] for item in after["items"]] == [2, 2]
    figures = (await ava.get("/api/health/stats")).json()["cache"]
    assert (figures["hits"], figures["misses"]) == (1, 2)


@pytest.mark.parametrize(
    ("now", "first"),
    [
        (datetime(2026, 3, 1, tzinfo=UTC), date(2026, 2, 1)),
        (datetime(2026, 3, 2, 23, 59, tzinfo=UTC), date(2026, 2, 1)),
        (datetime(2026, 3, 3, tzinfo=UTC), date(2026, 3, 1)),
        (datetime(2026, 1, 1, tzinfo=UTC), date(2025, 12, 1)),
    ],
)
def test_a_month_is_finished_when_no_order_can_add_to_it(now, first):
    """It is over in every time zone, and for so long that no transaction of it is open."""
    assert reporting._first_open(now).date() == first
