"""Who blocks whom, as a tree."""

from hypothesis import given
from hypothesis import strategies as st

from magnus.cli.activity import lines
from magnus.insight import Session, blocking_tree


def session(pid, *blocked_by, state="active", waits_for=None):
    return Session(
        pid, "db", "role", "app", None, state, None, "client backend", None, f"SELECT {pid}", 1.0, 1.0, 1.0, 1.0,
        blocked_by, waits_for,
    )  # fmt: skip


def shape(blocker):
    return blocker.session.pid, [shape(waiter) for waiter in blocker.waiters]


def test_waiters_stand_under_who_they_wait_for():
    """The root waits for nobody; who has nothing to do with it is not there."""
    tree = blocking_tree([session(1), session(2, 1), session(3, 2), session(4, 1), session(5)])
    assert [shape(root) for root in tree] == [(1, [(2, [(3, [])]), (4, [])])]


def test_a_deadlock_is_shown_once():
    """Its first session stands at the root."""
    assert [shape(root) for root in blocking_tree([session(1, 2), session(2, 1)])] == [(1, [(2, [])])]


def test_who_waits_for_several_appears_once():
    """Under the first of them."""
    tree = blocking_tree([session(1), session(2), session(3, 1, 2)])
    assert sorted(shape(root) for root in tree) == [(1, [(3, [])]), (2, [])]


def test_a_prepared_transaction_can_block():
    """It has no session; so has one that ended meanwhile."""
    tree = blocking_tree([session(7, 0), session(8, 99)])
    assert [(root.session.pid, root.session.query) for root in tree] == [
        (0, "<prepared transaction>"), (99, "<ended>"),
    ]  # fmt: skip


def test_the_tree_is_drawn_with_branches():
    """One line a session."""
    waits = {"waits_for": "ShareLock on trades"}
    (root,) = blocking_tree([
        session(1, state="idle in transaction"), session(2, 1, **waits), session(3, 2, **waits), session(4, 1, **waits),
    ])  # fmt: skip
    assert lines(root) == [
        "  1 role idle in transaction 1s: SELECT 1",
        "  ├─ 2 role waits 1s for ShareLock on trades: SELECT 2",
        "  │  └─ 3 role waits 1s for ShareLock on trades: SELECT 3",
        "  └─ 4 role waits 1s for ShareLock on trades: SELECT 4",
    ]


@given(st.lists(st.lists(st.integers(0, 9), max_size=3), max_size=9))
def test_every_graph_ends_and_holds_everyone_who_waits(waits):
    """Once each."""
    found = [session(pid, *blockers) for pid, blockers in enumerate(waits, 1)]

    def pids(blocker):
        yield blocker.session.pid
        for waiter in blocker.waiters:
            yield from pids(waiter)

    seen = [pid for root in blocking_tree(found) for pid in pids(root)]
    assert len(seen) == len(set(seen))
    assert set(seen) >= {each.pid for each in found if each.blocked_by}
