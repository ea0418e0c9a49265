"""Tokens: random ones, repeatable ones for generated data, and what is stored."""

from __future__ import annotations

import hashlib
import re

from ava.tokens import demo_token, digest, new_token

SHAPE = re.compile(r"ava_[A-Za-z0-9_-]{43}")


def test_token_is_recognisable_and_safe_in_a_header():
    """Both kinds look alike: prefix, and 256 bits in URL-safe characters."""
    assert SHAPE.fullmatch(new_token())
    assert SHAPE.fullmatch(demo_token(42, 1))


def test_new_tokens_differ():
    """A token is never given twice."""
    assert len({new_token() for _ in range(1000)}) == 1000


def test_demo_token_is_the_same_on_every_machine():
    """The value is part of the documentation's examples and must not move."""
    assert demo_token(42, 1) == "ava_dOyMpwXTzoFmSn-1J4g68tBwv-cmY2Mvs7Lmbp5-Jl8"


def test_demo_tokens_differ_by_seed_and_by_account():
    """Neither a digit more in the seed nor one in the account gives the token of another pair."""
    tokens = [demo_token(seed, account) for seed in range(40) for account in range(1, 40)]

    assert len(set(tokens)) == len(tokens)


def test_digest_is_sha256_of_the_whole_token():
    """32 bytes that any tool can compute."""
    token = demo_token(42, 1)

    assert digest(token) == hashlib.sha256(token.encode()).digest()
    assert len(digest(token)) == 32
