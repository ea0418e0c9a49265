"""Generated data: the same bytes for the same seed, and every rule of money kept, checked with Decimal."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from datetime import date, datetime
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ava import money
from ava.data.customers import activity, make_customers
from ava.data.dataset import Dataset, LoadError, Wanted
from ava.data.fixed import GRAINS, Holding, Shortage, amount_of, cents_text, grains_text, share_of
from ava.data.market import MOST_INSTRUMENTS, make_market, trading_days
from ava.data.trading import COLUMNS, Trading
from ava.replay import whole

AS_OF = date(2026, 7, 15)
BIG = 10**20 - 1
GRAIN_COUNTS = st.integers(1, BIG)


def units(grains: int) -> Decimal:
    return Decimal(grains_text(grains))


def cash(cents: int) -> Decimal:
    return Decimal(cents_text(cents))


def after(lots: list[money.Lot], used: money.Consumed) -> list[money.Lot]:
    left = [lot for lot in lots if lot.trade_id not in used.spent]
    return left if used.rest is None else [used.rest, *left[1:]]


# --- whole numbers against ava.money


@given(quantity=st.integers(1, 10**14), price=st.integers(1, 10**13))
def test_amount_equals_the_decimal_rule(quantity, price):
    """Rounded half-even to the same cent."""
    assert cash(amount_of(quantity, price)) == money.amount_of(units(quantity), units(price))


@given(cents=st.integers(0, 10**12), is_odd=st.booleans())
def test_amount_at_exactly_half_a_cent_goes_to_the_even_one(cents, is_odd):
    """The case that half-up gets wrong."""
    cents = cents * 2 + is_odd
    half_above = cents * (GRAINS // 100) + GRAINS // 200

    assert amount_of(GRAINS, half_above) == cents + is_odd


@given(cost=st.integers(0, BIG), quantity=GRAIN_COUNTS, data=st.data())
def test_share_of_a_lot_equals_the_decimal_rule(cost, quantity, data):
    """Also where the division does not end, and where it ends at half a cent."""
    used = data.draw(st.integers(1, quantity))

    assert cash(share_of(cost, used, quantity)) == money.cost_part(cash(cost), units(quantity), units(used))


@given(
    steps=st.lists(
        st.tuples(st.integers(1, 10**12), st.integers(0, 10**9), st.floats(0, 1), st.booleans()), max_size=30
    )
)
def test_holding_equals_first_in_first_out_in_decimal(steps):
    """Buys and sales of any size leave the same lots and realise the same sums, digit by digit."""
    holding, lots, realised = Holding(), [], Decimal("0.00")
    for trade_id, (quantity, cents, part, is_buy) in enumerate(steps, 1):
        taken = int(holding.quantity * part)
        if is_buy or not taken:
            holding.buy(trade_id, quantity, cents)
            lots.append(money.Lot(trade_id, units(quantity), cash(cents)))
        else:
            used = money.consume(lots, units(taken))
            lots = after(lots, used)
            realised += cash(cents) - used.cost

            assert cash(holding.sell(taken, cents)) == cash(cents) - used.cost

    assert [money.Lot(number, units(grains), cash(cost)) for number, grains, cost in holding.lots] == lots
    assert units(holding.quantity) == sum(lot.quantity for lot in lots)
    assert cash(holding.cost) == sum(lot.cost for lot in lots)
    assert cash(holding.realised) == realised


def test_sale_of_more_than_is_held_changes_nothing():
    """No short sales, and no lot half taken."""
    holding = Holding()
    holding.buy(1, 5, 100)
    holding.buy(2, 5, 200)

    with pytest.raises(Shortage):
        holding.sell(11, 1000)

    assert (holding.quantity, holding.cost, holding.realised) == (10, 300, 0)
    assert list(holding.lots) == [[1, 5, 100], [2, 5, 200]]


@given(number=st.integers(-BIG, BIG))
def test_text_is_what_the_columns_write(number):
    """Two and eight decimals, and back again."""
    assert cents_text(number) == format(Decimal(number).scaleb(-2), ".2f")
    assert whole(cents_text(number)) == number
    assert grains_text(abs(number)) == format(Decimal(abs(number)).scaleb(-8), ".8f")
    assert whole(grains_text(abs(number))) == abs(number)


# --- the market


@pytest.mark.parametrize(
    ("as_of", "first", "last"),
    [
        (date(2026, 7, 15), date(2023, 7, 3), date(2026, 7, 14)),
        (date(2026, 11, 23), date(2023, 11, 1), date(2026, 11, 20)),
        (date(2026, 1, 1), date(2023, 1, 2), date(2025, 12, 31)),
        (date(2026, 3, 1), date(2023, 3, 1), date(2026, 2, 27)),
    ],
)
def test_history_is_36_full_months_and_ends_the_day_before(as_of, first, last):
    """Weekdays only, and never a trade in the future."""
    days = trading_days(as_of)

    assert (days[0], days[-1]) == (first, last)
    assert all(day.weekday() < 5 for day in days)
    assert all(earlier < later for earlier, later in pairwise(days))
    assert len({(day.year, day.month) for day in days if (day.year, day.month) < (as_of.year, as_of.month)}) == 36


def test_market_has_distinct_symbols_and_prices_that_move_a_little():
    """Every close is positive, on the tick, and within a few per cent of the one before."""
    market = make_market(42, MOST_INSTRUMENTS, AS_OF)

    assert len({one.symbol for one in market.instruments}) == len({one.name for one in market.instruments}) == 200
    assert [one.id for one in market.instruments] == list(range(1, 201))
    assert {one.currency for one in market.instruments} == {"USD", "EUR", "GBP"}
    assert len(market.closes) == len(market.days)
    for before, after in pairwise(market.closes):
        for old, new in zip(before, after, strict=True):
            assert new >= GRAINS // 2
            assert new % 10_000 == 0
            assert abs(new - old) < old * 0.06


# --- sizes


def test_scale_one_is_a_thousand_accounts_and_a_million_trades():
    """The promise of the load command."""
    size = Wanted(1.0, 42).size

    assert (size.accounts, size.trades, size.instruments) == (1_000, 1_000_000, 200)


@pytest.mark.parametrize("scale", [0, -1, 0.0009, 101, float("nan"), float("inf")])
def test_impossible_scale_is_refused(scale):
    """Before anything is touched."""
    with pytest.raises(LoadError, match="scale must be from"):
        Wanted(scale, 42)


@pytest.mark.parametrize(("seed", "as_of"), [(-1, None), (2**63, None), (1, date(1900, 1, 1)), (1, date(9999, 1, 1))])
def test_impossible_seed_or_date_is_refused(seed, as_of):
    """They would fail later, in the middle."""
    with pytest.raises(LoadError):
        Wanted(1.0, seed, as_of)


def test_what_is_there_will_do_when_scale_and_seed_agree_and_no_other_day_is_asked_for():
    """Data of yesterday is not thrown away because today is another day."""
    there = Dataset(Decimal("0.1"), 42, AS_OF, 100, 100_000, datetime(2026, 7, 15))  # noqa: DTZ001  # not looked at

    assert str(there) == "scale 0.1, seed 42"
    assert Wanted(0.1, 42).is_met_by(there)
    assert Wanted(0.1, 42, AS_OF).is_met_by(there)
    assert not Wanted(0.1, 42, date(2026, 7, 16)).is_met_by(there)
    assert not Wanted(0.2, 42).is_met_by(there)
    assert not Wanted(0.1, 43).is_met_by(there)


# --- trading


def generate(seed: int, scale: float = 0.005) -> Trading:
    size = Wanted(scale, seed).size
    market = make_market(seed, size.instruments, AS_OF)
    customers = make_customers(seed, size.accounts, market.instruments, market.days[0])
    return Trading(seed, market, customers, size.trades)


def digest_of(seed: int) -> str:
    trading = generate(seed)
    found = hashlib.sha256("".join(trading.days()).encode())
    for part in (trading.lots(), trading.positions(), trading.cash(), trading.movements()):
        found.update("".join(part).encode())
    return found.hexdigest()


def test_same_seed_gives_the_same_bytes_on_every_machine_and_version():
    """A change of this value is a change of everybody's demo data: say so in the changelog."""
    assert digest_of(42) == "0ce0f9bcd6cde9f3a59b519b9461e3d4eef6d35e515493b2776fb1aa8fef147d"


def test_another_seed_gives_other_bytes():
    """The seed reaches everything."""
    assert digest_of(43) != digest_of(42)


def records(table: str, lines) -> list[dict[str, str]]:
    return [dict(zip(COLUMNS[table], line.split("\t"), strict=True)) for line in "".join(lines).splitlines()]


@pytest.fixture(scope="module")
def trading():
    return generate(42)


@pytest.fixture(scope="module")
def trades(trading):
    return records("trades", trading.days())


def test_trades_are_as_many_as_asked_for_in_order_of_time(trading, trades):
    """Ids are the booking order, and time goes with them."""
    assert [int(trade["id"]) for trade in trades] == list(range(1, 5_001))
    assert trading.booked == 5_000
    assert all(a["executed_at"] <= b["executed_at"] for a, b in pairwise(trades))
    assert trades[0]["executed_at"] < "2023-07-05"
    assert "2026-07-10" < trades[-1]["executed_at"] < "2026-07-15"


def test_busiest_account_is_the_first_and_activity_follows_zipf(trades):
    """Account 1 trades 1/3 of the weight, account 2 1/4, and so on down."""
    counts = Counter(int(trade["account_id"]) for trade in trades)
    sums = activity(5)

    assert [account for account, _ in counts.most_common()] == [1, 2, 3, 4, 5]
    for rank in range(1, 6):
        assert counts[rank] == pytest.approx(5_000 / (rank + 2) / sums[-1], rel=0.1)


def test_trades_are_at_the_days_close_in_the_accounts_currency(trades):
    """An account never crosses currencies."""
    market = make_market(42, 40, AS_OF)
    customers = make_customers(42, 5, market.instruments, market.days[0])
    row_of = {str(day): closes for day, closes in zip(market.days, market.closes, strict=True)}
    for trade in trades:
        number = int(trade["instrument_id"]) - 1
        assert whole(trade["price"]) == row_of[trade["executed_at"][:10]][number]
        assert market.instruments[number].currency == customers[int(trade["account_id"]) - 1].currency


def test_every_rule_of_money_holds_in_decimal(trading, trades):
    """A second bookkeeper, with ava.money, comes to the same lots, positions, profits and cash; nobody ever owes."""
    lots, realised, held = defaultdict(list), defaultdict(Decimal), defaultdict(Decimal)
    for trade in trades:
        key = trade["account_id"], trade["instrument_id"]
        quantity, fee = Decimal(trade["quantity"]), Decimal(trade["fee"])
        amount = money.amount_of(quantity, Decimal(trade["price"]))
        assert Decimal(trade["amount"]) == amount > 0
        if trade["side"] == "buy":
            lots[key].append(money.Lot(int(trade["id"]), quantity, amount + fee))
            held[trade["account_id"]] -= amount + fee
            assert trade["realised_pnl"] == "\\N"
        else:
            used = money.consume(lots[key], quantity)
            lots[key] = after(lots[key], used)
            realised[key] += amount - fee - used.cost
            held[trade["account_id"]] += amount - fee
            assert Decimal(trade["realised_pnl"]) == amount - fee - used.cost

    for movement in records("cash_movements", trading.movements()):
        assert (Decimal(movement["amount"]) > 0) == (movement["kind"] == "deposit")
        held[movement["account_id"]] += Decimal(movement["amount"])
    assert {row["account_id"]: Decimal(row["balance"]) for row in records("cash", trading.cash())} == held
    assert all(balance >= 0 for balance in held.values())
    assert [
        money.Lot(int(row["trade_id"]), Decimal(row["quantity_open"]), Decimal(row["cost_open"]))
        for row in records("lots", trading.lots())
    ] == [lot for key in sorted(lots, key=lambda key: (int(key[0]), int(key[1]))) for lot in lots[key]]
    assert {
        (row["account_id"], row["instrument_id"]): (
            Decimal(row["quantity"]), Decimal(row["cost_basis"]), Decimal(row["realised_pnl"])
        )
        for row in records("positions", trading.positions())
    } == {
        key: (sum(lot.quantity for lot in left), sum(lot.cost for lot in left), realised[key])
        for key, left in lots.items()
    }  # fmt: skip


def test_cash_never_goes_below_zero_on_the_way(trading, trades):
    """A deposit comes with or before the buy that needs it, a withdrawal takes only what is there."""
    events = [
        (m["created_at"], 0, m["account_id"], whole(m["amount"]))
        for m in records("cash_movements", trading.movements())
    ]
    for trade in trades:
        amount, fee = whole(trade["amount"]), whole(trade["fee"])
        change = amount - fee if trade["side"] == "sell" else -amount - fee
        events.append((trade["executed_at"], 1, trade["account_id"], change))
    balance = defaultdict(int)

    for _, _, account, change in sorted(events, key=lambda event: event[:2]):
        balance[account] += change
        assert balance[account] >= 0


def test_data_has_what_a_demo_needs(trading, trades):
    """Both sides, whole and fractional quantities, profits and losses, partly used lots, deposits and withdrawals."""
    sales = [trade for trade in trades if trade["side"] == "sell"]
    movements = Counter(movement["kind"] for movement in records("cash_movements", trading.movements()))

    assert 0.3 < len(sales) / len(trades) < 0.6
    assert 0.05 < sum(not trade["quantity"].endswith(".00000000") for trade in trades) / len(trades) < 0.5
    assert (
        min(Decimal(sale["realised_pnl"]) for sale in sales) < 0 < max(Decimal(sale["realised_pnl"]) for sale in sales)
    )
    assert movements["deposit"] > 5
    assert movements["withdrawal"] > 0
    assert any(row["quantity"] == "0.00000000" for row in records("positions", trading.positions()))
    assert len({trade["executed_at"][:7] for trade in trades}) == 37
