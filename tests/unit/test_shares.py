"""Who holds a server's connections, whose they are, and what is left for each: arithmetic, no server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnus._beside import named
from magnus._shares import (
    Account,
    Ceilings,
    Instances,
    Sessions,
    Share,
    accounts,
    fitting,
    pool_share,
    purpose,
    tightest,
)

HERE, ELSEWHERE = 5, 6
OWN, FOREIGN = 10, 11


def sessions(name, count=1, *, database=HERE, role=OWN):
    return Sessions(name, database, role, count, database == HERE, role == OWN)


def control(size=30, wanted=30, beside=2, *, base="ava", count=1, is_sharing=False, **where):
    return sessions(named(base, purpose(size, wanted, beside, is_sharing=is_sharing)), count, **where)


def server(max_connections=100, reserved=3, *, role=-1, database=-1):
    return Ceilings(max_connections, reserved, role, database)


# --- what an instance says of itself


@given(
    st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=80),
    st.integers(1, 999),
    st.integers(1, 999),
    st.integers(1, 9),
    st.booleans(),
)
def test_what_an_instance_says_is_what_the_others_read(base, size, wanted, beside, is_sharing):
    """Whatever it is called; the server keeps 63 bytes of a name, and the figures are among them."""
    said = named(base, purpose(size, wanted, beside, is_sharing=is_sharing))
    assert len(said.encode()) <= 63

    found = Instances.of(sessions(said, 2))

    assert found is not None
    assert base.startswith(found.base)
    assert found.is_sharing == is_sharing
    assert found.announced == 2 * ((size if is_sharing else wanted) + beside)
    pool = sessions(base.encode()[:63].decode(errors="ignore"))
    assert found.owns(pool)


@pytest.mark.parametrize("name", ["", "ava", "ava (slow log)", "ava (magnus)", "ava (magnus 3+2) x", "magnus 3+2"])
def test_other_names_are_no_instances(name):
    """Also those that look a little like it."""
    assert Instances.of(sessions(name)) is None


# --- whose a session is


def test_sessions_of_an_instance_are_its_own_up_to_what_it_announced():
    """Its name, role and database; beyond that strangers have the same name."""
    found = [control(4, 4, 2), sessions("ava", 4), sessions("ava (slow log)")]
    assert Account.of("max_connections", 97, found).others == 0

    assert Account.of("max_connections", 97, [*found, sessions("ava", 3)]).others == 3


def test_the_same_name_in_another_database_or_of_another_role_is_a_stranger():
    """A service of the same name may be somebody else's."""
    found = [control(), sessions("ava", 4, database=ELSEWHERE), sessions("ava", 2, role=FOREIGN)]
    assert Account.of("max_connections", 97, found).others == 6


def test_a_name_that_only_begins_alike_is_a_stranger():
    """`avatar` is not `ava`."""
    assert Account.of("max_connections", 97, [control(), sessions("avatar", 4)]).others == 4


def test_a_longer_name_goes_to_the_instance_that_has_it():
    """`ava (night)` is a service of its own, not a purpose of `ava`."""
    found = [control(5, 5, 1), control(5, 5, 1, base="ava (night)"), sessions("ava (night)", 5), sessions("ava", 5)]
    assert Account.of("max_connections", 97, found).others == 0


def test_a_name_that_had_to_be_shortened_still_knows_its_own():
    """The figures take the place of the name's end."""
    base = "a" * 63
    found = [control(5, 5, 1, base=base), sessions(base, 5)]
    assert Account.of("max_connections", 97, found).others == 0


groups = st.builds(
    lambda name, count, where, who: sessions(name, count, database=where, role=who),
    st.sampled_from([
        "ava", "ava (slow log)", "desk", "psql", "", "ava (magnus 3+2)", "ava (magnus 2/9+1)", "desk (magnus 30+2)",
    ]),
    st.integers(1, 40),
    st.sampled_from([HERE, ELSEWHERE]),
    st.sampled_from([OWN, FOREIGN]),
)  # fmt: skip


@given(st.lists(groups, max_size=12))
def test_every_session_is_somebodys(found):
    """What others hold is never more than there is, and with what instances answer for it is all there is."""
    account = Account.of("max_connections", 97, found)
    total = sum(group.count for group in found)
    assert 0 <= account.others <= total
    assert total - account.others <= account.announced


@given(st.lists(groups, max_size=12), st.integers(0, 20))
def test_strangers_are_felt_one_by_one(found, more):
    """Each takes one from the budget."""
    before = Account.of("max_connections", 1000, found)
    after = Account.of("max_connections", 1000, [*found, sessions("stranger", more)])
    assert after.budget == before.budget - more


# --- the limits


def test_the_budget_is_what_is_left_of_each_limit():
    """The server's less what is reserved; the role's and the database's over what they count."""
    found = [control(count=2), sessions("psql", 5), sessions("psql", 7, database=ELSEWHERE, role=FOREIGN)]
    by_limit = {each.limit: each for each in accounts(server(100, 3, role=50, database=40), found)}
    assert {limit: (each.budget, each.announced) for limit, each in by_limit.items()} == {
        "max_connections": (100 - 3 - 12, 64),
        "role": (50 - 5, 64),
        "database": (40 - 5, 64),
    }
    assert tightest(list(by_limit.values())).limit == "database"


def test_without_limits_of_its_own_only_the_servers_counts():
    """-1 is none; 0 is one."""
    assert [each.limit for each in accounts(server(), [])] == ["max_connections"]
    assert [each.limit for each in accounts(server(role=0), [])] == ["max_connections", "role"]


def test_an_instance_that_shares_counts_with_what_it_has_not_with_what_it_was_given():
    """It opens no more than that."""
    found = [control(3, 30, 2, is_sharing=True, count=10)]
    assert Account.of("max_connections", 97, found).excess == 50 - 97


def test_the_advice_is_the_size_with_which_all_would_fit():
    """64 + 32 announced, 85 there: three of 26 and 2 beside fit."""
    account = Account.of("max_connections", 97, [control(count=3), sessions("psql", 12)])
    assert account.excess == 96 - 85
    assert fitting(account, 2) == 26
    assert 3 * (26 + 2) <= account.budget < 3 * (27 + 2)


# --- the share


@given(
    most=st.integers(10, 2000), others=st.integers(0, 50), number=st.integers(1, 200), spare=st.integers(0, 50),
    beside=st.integers(1, 4), fixed=st.integers(0, 3),
)  # fmt: skip
def test_shares_never_exceed_the_budget(most, others, number, spare, beside, fixed):  # noqa: PLR0917
    """However few of them are there already; unless not even one connection for each would fit."""
    found = [sessions("psql", others)] if others else []
    if fixed:
        found.append(control(10, 10, 2, base="fixed", count=fixed))
    found.append(control(1, 30, beside, is_sharing=True))
    size = pool_share(accounts(server(most + 3, 3), found), number + spare, beside)
    assert size >= 1
    if size > 1:
        assert number * (size + beside) + 12 * fixed <= most - others


@given(st.integers(1, 300), st.integers(1, 300))
def test_more_instances_than_expected_share_among_more(there, expected):
    """So they fit, when somebody counted wrong."""
    found = [control(1, 30, 2, is_sharing=True, count=there)]
    size = pool_share(accounts(server(1000, 0), found), expected, 2)
    assert size == max(1, 950 // max(there, expected) - 2)


def test_a_limit_of_the_role_makes_the_share_smaller():
    """The smallest counts."""
    found = [control(1, 30, 2, is_sharing=True)]
    assert pool_share(accounts(server(1000), found), 10, 2) == 92
    assert pool_share(accounts(server(1000, role=100), found), 10, 2) == 7


def test_nobody_starves():
    """One connection is left where the arithmetic leaves none; the warning says that it does not fit."""
    found = [control(1, 30, 2, is_sharing=True, count=90)]
    assert pool_share(accounts(server(), found), 90, 2) == 1
    assert accounts(server(), found)[0].excess > 0


# --- what is in force


def test_a_share_shrinks_at_once_and_grows_late():
    """What comes and goes meanwhile opens and closes nobody's connections."""
    share = Share(15.0)
    assert share.settle(8, 0.0) == 8
    assert share.settle(4, 1.0) == 4
    assert share.settle(8, 2.0) == 4
    assert share.settle(4, 10.0) == 4
    assert share.settle(8, 20.0) == 4, "it was not allowed all the time"
    assert share.settle(6, 30.0) == 4
    assert share.settle(8, 35.0) == 6, "no more than was allowed all the time"


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0.1, 10.0)), min_size=1, max_size=40))
def test_a_share_is_never_above_what_is_allowed(steps):
    """At no moment."""
    share, now = Share(15.0), 0.0
    for allowed, seconds in steps:
        now += seconds
        assert 1 <= share.settle(allowed, now) <= allowed
