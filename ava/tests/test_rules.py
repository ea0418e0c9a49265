"""What may be booked, and what it does: every refusal, and the sums that always hold."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ava.money import MAX_CASH, MAX_QUANTITY, ZERO, Lot
from ava.services.rules import (
    DETAILS,
    EMPTY,
    Fill,
    Holding,
    Instrument,
    Reason,
    Side,
    State,
    admit,
    execution_price,
    fill,
)

D = Decimal


def state(balance: str = "1000.00", lots: tuple[Lot, ...] = (), realised: str = "0.00") -> State:
    held = Holding(sum((lot.quantity for lot in lots), D(0)), sum((lot.cost for lot in lots), ZERO), D(realised))
    return State(D(balance), held, lots)


@pytest.mark.parametrize(
    ("instrument", "reason"),
    [
        (None, Reason.UNKNOWN_INSTRUMENT),
        (Instrument(1, "USD", is_tradable=True), Reason.CURRENCY_MISMATCH),
        (Instrument(1, "EUR", is_tradable=False), Reason.NOT_TRADABLE),
        (Instrument(1, "EUR", is_tradable=True), None),
    ],
)
def test_only_tradable_instruments_of_the_accounts_currency_are_admitted(instrument, reason):
    """Unknown before wrong currency before not tradable."""
    assert admit(instrument, "EUR") is reason


@pytest.mark.parametrize(
    ("side", "limit", "expected"),
    [
        (Side.BUY, None, D(10)),
        (Side.BUY, D(10), D(10)),
        (Side.BUY, D("9.99999999"), Reason.LIMIT_NOT_MET),
        (Side.SELL, D(10), D(10)),
        (Side.SELL, D("10.00000001"), Reason.LIMIT_NOT_MET),
    ],
)
def test_a_limit_is_the_worst_price_that_is_accepted(side, limit, expected):
    """A buy pays the limit at most, a sale takes it at least; exactly the limit is met."""
    assert execution_price(Instrument(1, "EUR", is_tradable=True, price=D(10)), side, limit) == expected


def test_without_a_quote_nothing_executes():
    """There is no price to execute at."""
    assert execution_price(Instrument(1, "EUR", is_tradable=True), Side.BUY, None) is Reason.NO_PRICE


def test_a_buy_pays_amount_and_fee_and_makes_a_lot():
    """The lot's cost is what was paid."""
    found = fill(Side.BUY, D(3), D("33.335"), state(), fee=D("0.50"))
    assert found == Fill(D("100.00"), None, None, D("100.50"), D("899.50"), Holding(D(3), D("100.50"), ZERO))


def test_a_buy_may_use_the_last_cent_and_not_one_more():
    """Cash never goes below zero."""
    assert isinstance(fill(Side.BUY, D(1), D("9.99"), state("10.00"), fee=D("0.01")), Fill)
    assert fill(Side.BUY, D(1), D("9.99"), state("10.00"), fee=D("0.02")) is Reason.INSUFFICIENT_CASH


def test_a_sale_realises_proceeds_less_fee_and_cost():
    """Oldest lots first; the position keeps what is left of their cost."""
    lots = (Lot(1, D(10), D("100.00")), Lot(2, D(3), D("10.00")))
    found = fill(Side.SELL, D(11), D(20), state(lots=lots, realised="5.00"), fee=D("1.00"))
    assert isinstance(found, Fill)
    assert (found.amount, found.realised_pnl) == (D("220.00"), D("115.67"))
    assert found.balance == D("1219.00")
    assert found.holding == Holding(D(2), D("6.67"), D("120.67"))
    assert found.taken is not None
    assert (found.taken.spent, found.taken.rest) == ((1,), Lot(2, D(2), D("6.67")))


def test_no_short_sales():
    """Not even by the smallest step."""
    lots = (Lot(1, D(10), D("100.00")),)
    assert fill(Side.SELL, D("10.00000001"), D(20), state(lots=lots)) is Reason.INSUFFICIENT_HOLDINGS
    assert fill(Side.SELL, D(1), D(20), state()) is Reason.INSUFFICIENT_HOLDINGS


def test_a_fee_over_the_proceeds_needs_cash():
    """A sale can cost money, and then the cash must cover it."""
    lots = (Lot(1, D(1), D("1.00")),)
    assert isinstance(fill(Side.SELL, D(1), D(1), state("4.00", lots), fee=D("5.00")), Fill)
    assert fill(Side.SELL, D(1), D(1), state("3.99", lots), fee=D("5.00")) is Reason.INSUFFICIENT_CASH


@pytest.mark.parametrize(("quantity", "price"), [("0.00005", "100"), ("0.00000001", "0.00000001")])
def test_dust_is_refused(quantity, price):
    """What rounds to no money would be had for nothing."""
    assert fill(Side.BUY, D(quantity), D(price), state()) is Reason.AMOUNT_TOO_SMALL


@pytest.mark.parametrize(
    ("side", "quantity", "price", "before"),
    [
        (Side.BUY, MAX_QUANTITY, MAX_QUANTITY, state(str(MAX_CASH))),
        (Side.BUY, D(1), D(1), State(D(10), Holding(MAX_QUANTITY, ZERO, ZERO), ())),
        (Side.BUY, D(1), D(1), State(D(10), Holding(D(1), MAX_CASH, ZERO), ())),
        (Side.SELL, D(1), D(1), state(str(MAX_CASH), (Lot(1, D(1), ZERO),))),
        (Side.SELL, D(1), D(1), State(ZERO, Holding(D(1), ZERO, MAX_CASH), (Lot(1, D(1), ZERO),))),
    ],
)
def test_no_figure_outgrows_its_column(side, quantity, price, before):
    """Cash, quantity, cost and profit are refused before the server would have to."""
    assert fill(side, quantity, price, before) is Reason.AMOUNT_TOO_LARGE


def test_every_reason_has_its_sentence():
    """No caller is left with a bare word."""
    assert set(DETAILS) == set(Reason)


small = st.integers(1, 10**12).map(lambda units: D(units).scaleb(-8))
cents = st.integers(0, 10**6).map(lambda units: D(units).scaleb(-2))


@given(trades=st.lists(st.tuples(st.sampled_from(Side), small, small, cents), max_size=30), start=cents)
def test_cash_cost_and_profit_always_add_up(trades, start):
    """Cash and cost of what is held, less what was realised, stay what was paid in; nothing is negative."""
    now, lots = State(start, EMPTY, ()), ()
    for number, (side, quantity, price, fee) in enumerate(trades, 1):
        found = fill(side, quantity, price, State(now.balance, now.holding, lots), fee=fee)
        if isinstance(found, Reason):
            continue
        if found.taken is None:
            lots = (*lots, Lot(number, quantity, found.cost))
        else:
            rest = () if found.taken.rest is None else (found.taken.rest,)
            lots = (*rest, *lots[len(found.taken.spent) + len(rest) :])
        now = State(found.balance, found.holding, lots)
        assert now.balance >= 0
        assert now.holding.quantity == sum(lot.quantity for lot in lots)
        assert now.holding.cost_basis == sum(lot.cost for lot in lots)
    assert now.balance + now.holding.cost_basis - now.holding.realised_pnl == start
