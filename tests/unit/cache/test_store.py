from __future__ import annotations

import pytest

from magnus.cache._sizes import size_of
from magnus.cache._store import Store

LARGE = 1_000_000


def kept(store, key, *, value="value", tags=("a",), now=0.0, ttl=10.0):
    """Load and keep a value at once."""
    load = store.begin(tags, now, ttl)
    is_kept = store.keep(key, load, value, now)
    store.end(load)
    return is_kept


def test_what_is_kept_is_found_until_it_is_too_old():
    store = Store(LARGE)
    assert kept(store, "k", now=5.0, ttl=2.0)
    assert store.find("k", 6.999).value == "value"
    assert store.find("k", 7.0) is None
    assert store.figures.expired == 1
    assert store.bytes == len(store) == 0


def test_age_counts_from_the_beginning_of_the_load():
    """What was read at the end of a long load may be as old as its beginning."""
    store = Store(LARGE)
    load = store.begin(("a",), 0.0, 5.0)
    assert store.keep("k", load, "v", 4.0)
    assert store.find("k", 5.0) is None
    late = store.begin(("a",), 0.0, 5.0)
    assert not store.keep("k", late, "v", 5.0)


def test_an_invalidation_drops_what_has_one_of_the_tags_and_nothing_else():
    store = Store(LARGE)
    kept(store, "one", tags=("a", "b"))
    kept(store, "two", tags=("b",))
    kept(store, "three", tags=("c",))
    store.invalidate(["a"])
    assert store.find("one", 0.0) is None
    assert store.find("two", 0.0) is not None
    store.invalidate(["b", "unknown"])
    assert store.find("two", 0.0) is None
    assert store.find("three", 0.0) is not None
    assert store.figures.invalidations == 3


def test_a_load_that_began_before_an_invalidation_is_not_kept_after_it():
    """Its snapshot may be from before the change."""
    store = Store(LARGE)
    load, other = store.begin(("a",), 0.0, 10.0), store.begin(("b",), 0.0, 10.0)
    store.invalidate(["a"])
    assert not store.keep("k", load, "old", 1.0)
    assert store.keep("other", other, "new", 1.0)
    assert store.find("k", 1.0) is None
    assert store.figures.stale == 1
    after = store.begin(("a",), 1.0, 10.0)
    assert store.keep("k", after, "new", 2.0)


def test_clear_concerns_loads_under_way_too():
    store = Store(LARGE)
    kept(store, "k")
    load = store.begin((), 0.0, 10.0)
    store.clear()
    assert len(store) == store.bytes == 0
    assert not store.keep("k", load, "old", 1.0)


def test_under_a_doubtful_tag_nothing_is_kept_for_a_while():
    """A commit that was not answered may come later than anything that is read now."""
    store = Store(LARGE)
    kept(store, "k")
    store.doubt(["a"], 0.0, 10.0)
    assert store.find("k", 0.0) is None
    assert not kept(store, "k", now=9.9)
    assert kept(store, "k", now=10.0)


def test_the_oldest_use_goes_first_when_it_gets_too_much():
    store = Store(10_000)
    for key in range(4):
        kept(store, key, value="x" * 1_500)
    assert store.find(0, 0.0) is not None
    kept(store, 4, value="x" * 2_000)
    assert store.find(1, 0.0) is None
    assert store.find(0, 0.0) is not None
    assert store.bytes <= 10_000
    assert store.figures.evicted == 1


def test_what_is_larger_than_everything_is_not_kept():
    store = Store(10_000)
    kept(store, "small")
    assert not kept(store, "large", value="x" * 20_000)
    assert store.find("small", 0.0) is not None
    assert store.figures.too_large == 1


def test_an_older_answer_never_replaces_a_newer_one():
    """Two loads of one key may overlap when the second is more important."""
    store = Store(LARGE)
    first, second = store.begin((), 0.0, 10.0), store.begin((), 1.0, 10.0)
    assert store.keep("k", second, "newer", 2.0)
    assert not store.keep("k", first, "older", 3.0)
    assert store.find("k", 3.0).value == "newer"


def test_a_load_takes_over_what_it_is_made_of():
    """Tags, the end of life, and that something of it was invalidated already."""
    store = Store(LARGE)
    outer = store.begin(("outer",), 0.0, 60.0)
    outer.absorb(("inner",), 5.0)
    assert store.keep("k", outer, "v", 1.0)
    assert store.find("k", 4.9) is not None
    store.invalidate(["inner"])
    assert store.find("k", 4.9) is None
    stale = store.begin(("outer",), 0.0, 60.0)
    stale.absorb((), 60.0, is_stale=True)
    assert not store.keep("k", stale, "v", 1.0)


def test_the_books_are_straight_after_anything():
    """Bytes are the sum of what is there, and the index of tags has no key that is gone."""
    store = Store(20_000)
    for step in range(500):
        kept(store, step % 37, value="x" * (step * 7 % 900), tags=(f"t{step % 5}", f"u{step % 3}"), now=step / 10)
        if step % 11 == 0:
            store.invalidate([f"t{step % 5}"])
        store.find(step % 13, step / 10)
    assert store.bytes == sum(entry.size for entry in store._entries.values()) <= 20_000
    assert {key for keys in store._by_tag.values() for key in keys} == set(store._entries)
    assert all(store._by_tag.values())


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [("a", "a" * 1_000), ((), (1, 2, 3)), (("a",), ("a", "b" * 500)), (None, {"k": "v" * 100})],
)
def test_sizes_grow_with_what_they_are_of(smaller, larger):
    assert 0 < size_of(smaller, most=LARGE) < size_of(larger, most=LARGE)


def test_a_size_counts_shared_parts_once_and_no_classes():
    part = "x" * 10_000
    assert size_of((part, part), most=LARGE) < 15_000
    assert size_of((int, Store, size_of), most=LARGE) < 200


def test_counting_ends_where_it_is_enough():
    assert size_of(tuple("x" * 1_000 + str(n) for n in range(10_000)), most=50_000) < 200_000
