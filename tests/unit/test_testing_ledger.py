from __future__ import annotations

import pytest

from magnus.testing import Journal, Word, compare, read

ALL = [("a", Word.BEGUN), ("a", Word.ACKNOWLEDGED)]


def test_what_was_acknowledged_and_is_there_once_is_sound():
    found = compare(ALL, ["a"])
    assert found.is_sound
    assert (found.begun, found.acknowledged, found.unresolved) == (1, 1, 0)


def test_what_was_acknowledged_and_is_missing_is_lost():
    found = compare(ALL, [])
    assert found.lost == ("a",)
    assert not found.is_sound


def test_what_is_there_twice_is_doubled():
    found = compare(ALL, ["a", "a"])
    assert found.doubled == ("a",)
    assert not found.is_sound


def test_what_was_called_not_stored_and_is_there_was_denied():
    found = compare([("a", Word.BEGUN), ("a", Word.REFUSED)], ["a"])
    assert found.denied == ("a",)
    assert not found.is_sound


def test_a_refusal_that_is_not_there_is_sound():
    assert compare([("a", Word.BEGUN), ("a", Word.REFUSED)], []).is_sound


def test_what_nobody_wrote_is_foreign():
    found = compare(ALL, ["a", "b"])
    assert found.foreign == ("b",)
    assert not found.is_sound


@pytest.mark.parametrize("table", [[], ["a"]])
def test_an_unknown_outcome_may_be_either(table):
    found = compare([("a", Word.BEGUN), ("a", Word.UNKNOWN)], table)
    assert found.is_sound
    assert (found.unknown, found.unresolved) == (1, 1)


def test_an_outcome_that_was_unknown_and_is_acknowledged_counts_as_that():
    journal = [("a", Word.BEGUN), ("a", Word.UNKNOWN), ("a", Word.ACKNOWLEDGED)]
    assert compare(journal, []).lost == ("a",)
    assert compare(journal, ["a"]).unresolved == 0


def test_a_journal_is_read_as_it_was_written_and_a_half_line_is_left_out(tmp_path):
    path = tmp_path / "journal"
    with Journal(path) as journal:
        journal.write("key 1", Word.BEGUN)
        journal.write("key 1", Word.ACKNOWLEDGED)
    with path.open("a") as file:
        file.write('["key 2", "beg')
    assert list(read(path)) == [("key 1", Word.BEGUN), ("key 1", Word.ACKNOWLEDGED)]
    with Journal(path) as again:
        assert again.path == path
    assert len(list(read(path))) == 2
