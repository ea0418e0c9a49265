"""Money is exact: amounts and lot costs agree with rational arithmetic to the last digit."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ava.money import CENT, MAX_CASH, MAX_QUANTITY, STEP, ZERO, Lot, MoneyError, amount_of, consume, cost_part


def decimals(low: str, high: Decimal, places: int) -> st.SearchStrategy[Decimal]:
    """Decimals with a fixed scale, over the whole range of the column."""
    scale = Decimal(1).scaleb(-places)
    with localcontext(prec=60):
        bounds = int(Decimal(low) / scale), int(high / scale)

    def scaled(units: int) -> Decimal:
        with localcontext(prec=60):
            return Decimal(units) * scale

    return st.integers(*bounds).map(scaled)


QUANTITIES = decimals("0.00000001", MAX_QUANTITY, 8)
COSTS = decimals("0.00", MAX_CASH, 2)


def half_even(value: Fraction) -> Decimal:
    """Round a fraction to cents by the definition, with integers only."""
    cents = round(value * 100)  # Fraction.__round__ is half-even and exact
    with localcontext(prec=60):
        return Decimal(cents) * CENT


@given(quantity=QUANTITIES, price=QUANTITIES)
def test_amount_is_the_exact_product_rounded_half_even_or_refused(quantity: Decimal, price: Decimal) -> None:
    """No digit is lost on the way to cents, and nothing over the column is given."""
    expected = half_even(Fraction(quantity) * Fraction(price))
    if expected > MAX_CASH:
        with pytest.raises(MoneyError):
            amount_of(quantity, price)
    else:
        assert amount_of(quantity, price) == expected


@pytest.mark.parametrize(
    ("quantity", "price", "amount"),
    [
        ("1", "0.005", "0.00"),
        ("1", "0.015", "0.02"),
        ("1", "0.025", "0.02"),
        ("3", "33.33333333", "100.00"),
        ("0.00000001", "0.00000001", "0.00"),
        ("10", "12.34", "123.40"),
    ],
)
def test_amount_of_ties_goes_to_the_even_cent(quantity: str, price: str, amount: str) -> None:
    """Half-even, unlike PostgreSQL's round(); the result always has two digits."""
    found = amount_of(Decimal(quantity), Decimal(price))
    assert (found, str(found)) == (Decimal(amount), amount)


def test_an_amount_over_the_column_is_refused() -> None:
    """The largest quantity at the largest price does not become a rounded or negative figure."""
    with pytest.raises(MoneyError):
        amount_of(MAX_QUANTITY, MAX_QUANTITY)


@given(cost=COSTS, quantity=QUANTITIES, data=st.data())
def test_part_of_a_lot_costs_its_share_half_even(cost: Decimal, quantity: Decimal, data: st.DataObject) -> None:
    """The share is that of exact fractions, and never more than the lot."""
    used = data.draw(decimals("0.00000001", quantity, 8))
    part = cost_part(cost, quantity, used)
    assert part == half_even(Fraction(cost) * Fraction(used) / Fraction(quantity))
    assert 0 <= part <= cost


@pytest.mark.parametrize("used", ["0", "-1", "2.00000001"])
def test_a_part_outside_the_lot_is_refused(used: str) -> None:
    """Nothing, less than nothing and more than the lot are no parts of it."""
    with pytest.raises(MoneyError):
        cost_part(Decimal("10.00"), Decimal(2), Decimal(used))


LOTS = st.lists(
    st.tuples(decimals("0.00000001", Decimal(10**6), 8), decimals("0.00", Decimal(10**9), 2)), min_size=1, max_size=8
).map(lambda rows: [Lot(number, quantity, cost) for number, (quantity, cost) in enumerate(rows, 1)])


def apply(lots: list[Lot], quantity: Decimal) -> tuple[list[Lot], Decimal]:
    """Return the lots after a sale, and its cost."""
    taken = consume(lots, quantity)
    kept = lots[len(taken.spent) :]
    assert tuple(lot.trade_id for lot in lots[: len(taken.spent)]) == taken.spent
    if taken.rest is not None:
        assert kept[0].trade_id == taken.rest.trade_id
        kept[0] = taken.rest
    return kept, taken.cost


@given(lots=LOTS, data=st.data())
def test_sales_conserve_quantity_and_cost(lots: list[Lot], data: st.DataObject) -> None:
    """However a holding is sold off, the costs of the sales and of what is left add up to what was paid."""
    paid, held = sum(lot.cost for lot in lots), sum(lot.quantity for lot in lots)
    cost, sold = ZERO, Decimal(0)
    for _ in range(data.draw(st.integers(1, 5))):
        if not lots:
            break
        quantity = data.draw(decimals("0.00000001", Decimal(sum(lot.quantity for lot in lots)), 8))
        lots, part = apply(lots, quantity)
        cost, sold = cost + part, sold + quantity
    assert cost + sum(lot.cost for lot in lots) == paid
    assert sold + sum(lot.quantity for lot in lots) == held
    assert all(lot.quantity > 0 and lot.cost >= 0 for lot in lots)


@given(lots=LOTS)
def test_selling_all_takes_every_lot_and_every_cent(lots: list[Lot]) -> None:
    """The last use takes the rest, so nothing is left by rounding."""
    taken = consume(lots, Decimal(sum(lot.quantity for lot in lots)))
    assert taken.rest is None
    assert taken.spent == tuple(lot.trade_id for lot in lots)
    assert taken.cost == sum(lot.cost for lot in lots)


@given(lots=LOTS)
def test_more_than_is_held_is_refused(lots: list[Lot]) -> None:
    """No short sales."""
    with pytest.raises(MoneyError):
        consume(lots, sum(lot.quantity for lot in lots) + STEP)


def test_nothing_cannot_be_taken() -> None:
    """A sale of zero is a mistake of the caller."""
    with pytest.raises(MoneyError):
        consume([Lot(1, Decimal(1), ZERO)], Decimal(0))


def test_lots_are_used_first_in_first_out() -> None:
    """The oldest lot goes first, a partly used one keeps its place with the rest of its cost."""
    lots = [Lot(1, Decimal(10), Decimal("100.00")), Lot(2, Decimal(3), Decimal("10.00"))]
    taken = consume(lots, Decimal(11))
    assert taken.cost == Decimal("103.33")
    assert taken.spent == (1,)
    assert taken.rest == Lot(2, Decimal(2), Decimal("6.67"))


def test_lots_behind_the_last_needed_are_not_read() -> None:
    """An iterator over a long history costs only what is taken."""
    rest = iter([Lot(1, Decimal(5), ZERO), Lot(2, Decimal(5), ZERO)])
    consume(rest, Decimal(5))
    assert next(rest).trade_id == 2
