from __future__ import annotations

import pytest

from magnus.testing import COMMIT, Action, Direction, Rule, Shape
from magnus.testing._flow import Scanner


def rule(action=Action.CUT, pattern=COMMIT, **options) -> Rule:
    return Rule(Direction.REQUEST, pattern, action, **options)


def test_bytes_without_a_pattern_pass_whole():
    assert Scanner().scan(b"SELECT 1\0", [rule()]) == (9, None)


def test_a_cut_lets_pass_what_was_before_the_pattern():
    cut = rule()
    assert Scanner().scan(b"Q\0\0COMMIT\0rest", [cut]) == (3, cut)
    assert cut.hits == 1


def test_a_cut_afterwards_lets_the_pattern_pass_and_no_byte_more():
    cut = rule(Action.CUT_AFTER)
    assert Scanner().scan(b"Q\0\0COMMIT\0rest", [cut]) == (10, cut)


@pytest.mark.parametrize("at", range(1, len(COMMIT)))
def test_a_pattern_is_found_wherever_the_network_has_split_it(at):
    scanner, cut = Scanner(), rule()
    assert scanner.scan(b"x" + COMMIT[:at], [cut]) == (1 + at, None)
    assert scanner.scan(COMMIT[at:], [cut]) == (0, cut)


def test_a_pattern_is_counted_once():
    scanner, counting = Scanner(), rule(Action.PASS, times=None)
    for byte in COMMIT * 3:
        scanner.scan(bytes([byte]), [counting])
    assert counting.hits == 3


def test_a_rule_acts_as_often_as_it_was_told():
    scanner, cut = Scanner(), rule(times=2)
    found = [scanner.scan(COMMIT, [cut])[1] for _ in range(4)]
    assert found == [cut, cut, None, None]


def test_a_rule_may_let_the_first_ones_pass():
    cut = rule(skip=2)
    assert Scanner().scan(COMMIT * 3, [cut]) == (2 * len(COMMIT), cut)


def test_of_two_rules_the_earlier_pattern_acts():
    first, second = rule(pattern=b"AA"), rule(pattern=b"BB")
    assert Scanner().scan(b"..AA..BB", [second, first]) == (2, first)


def test_whoever_listens_is_told():
    heard = []
    Scanner().scan(COMMIT, [rule(Action.PASS, heard=lambda: heard.append(1))])
    assert heard == [1]


def test_a_rule_without_a_pattern_is_refused():
    with pytest.raises(ValueError, match="at least one byte"):
        rule(pattern=b"")


def test_slices_lose_nothing():
    data = bytes(range(256))
    assert b"".join(Shape(slice=7).pieces(data)) == data
    assert max(map(len, Shape(slice=7).pieces(data))) == 7
    assert list(Shape().pieces(data)) == [data]
