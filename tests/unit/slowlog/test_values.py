"""Bind values, where somebody asked for them: short, and without what looks like a secret."""

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest

from magnus.slowlog._values import STARS, shown

TEXT = "SELECT * FROM trades WHERE a = $1"


def values(*given, text=TEXT, rules=()):
    return json.loads(shown(text, given, [re.compile(rule) for rule in rules]))


def test_ordinary_values_are_shown_as_text():
    """Numbers, times and ids; None and truth as they are; long ones are cut."""
    at = datetime(2026, 1, 2, tzinfo=UTC)
    assert values(1, Decimal("1.50"), at, UUID(int=1), None, True, "AAPL", "x" * 200) == [
        "1", "1.50", str(at), str(UUID(int=1)), None, True, "AAPL", "x" * 100 + "…",
    ]  # fmt: skip


def test_of_other_things_only_the_kind_is_shown():
    """Bytes may hold keys, objects anything; a generator is not read."""
    assert values(b"abc", [1, 2], {"a": 1}, (x for x in "ab"), object()) == [
        "<3 bytes>", "<list of 2>", "<dict of 1>", "<generator>", "<object>",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "secret",
    [
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc", "Bearer abc", "$2b$12$abcdefghijklmnopqrstuv",
        "postgresql://u:hunter2@h/db", "SCRAM-SHA-256$4096:x", "-----BEGIN PRIVATE KEY-----",
        "ava_4f3c2b1a0f9e8d7c6b5a4f3c2b1a0f9e", "password=hunter2",
    ],
)  # fmt: skip
def test_what_looks_like_a_credential_is_starred_out(secret):
    """Tokens, hashes, keys, connection strings."""
    assert values("AAPL", secret) == ["AAPL", STARS]


@pytest.mark.parametrize(
    "text",
    [
        "UPDATE users SET password = $1", "SELECT * FROM api_tokens WHERE token_sha256 = $1",
        "INSERT INTO cards (cvv) VALUES ($1)", "SELECT crypt($1, salt)", "SELECT 1 AS secret_thing",
    ],
)  # fmt: skip
def test_a_statement_that_names_a_secret_keeps_no_value(text):
    """Which of its parameters is the secret need not be known."""
    assert values("hunter2", 5, text=text) == [STARS, STARS]


def test_own_rules_come_on_top():
    """Found anywhere in a value, a number's too."""
    assert values("DE89 3704", 4111111111111111, "x", rules=[r"^DE\d\d ", r"^4\d{15}$"]) == [STARS, STARS, "x"]


def test_many_values_are_cut():
    """A statement can have 32,767 of them."""
    found = values(*range(60))
    assert (len(found), found[-1]) == (51, "and 10 more")
