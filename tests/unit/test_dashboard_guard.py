"""Who may look at the dashboard: every pairing of Host, Origin, address and token."""

from __future__ import annotations

import itertools

import pytest

from magnus.web.dashboard._guard import HEADERS, is_loopback, refusal

HERE = {"client": "127.0.0.1", "server": "127.0.0.1"}


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:1", "127.1.2.3", "[::1]:8000", "[::1]"])
def test_loopback_has_several_names(host):
    """With and without a port."""
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        None,
        "example.com",
        "localhost.example.com",
        "127.0.0.1.example.com",
        "10.0.0.1",
        "0.0.0.0",
        "[::]",
        "1270.0.1",
    ],
)
def test_everything_else_is_not(host):
    """Names that only look like it least of all."""
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("headers", "client", "server", "expected"),
    [
        ({"host": "localhost:8000"}, "127.0.0.1", "127.0.0.1", None),
        ({"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"}, "127.0.0.1", "127.0.0.1", None),
        ({"host": "[::1]:8000"}, "::1", "::1", None),
        ({"host": "evil.example"}, "127.0.0.1", "127.0.0.1", "foreign_host"),
        ({}, "127.0.0.1", "127.0.0.1", "foreign_host"),
        ({"host": "localhost", "origin": "http://evil.example"}, "127.0.0.1", "127.0.0.1", "foreign_origin"),
        ({"host": "localhost", "origin": "null"}, "127.0.0.1", "127.0.0.1", "foreign_origin"),
        ({"host": "localhost:8000", "origin": "http://localhost:9000"}, "127.0.0.1", "127.0.0.1", "foreign_origin"),
        ({"host": "localhost"}, "10.0.0.7", "127.0.0.1", "loopback_only"),
        ({"host": "localhost"}, "127.0.0.1", "10.0.0.7", "loopback_only"),
        ({"host": "localhost"}, None, None, "loopback_only"),
        ({"host": "localhost", "x-forwarded-for": "10.0.0.7"}, "127.0.0.1", "127.0.0.1", "loopback_only"),
        ({"host": "localhost", "forwarded": "for=10.0.0.7"}, "127.0.0.1", "127.0.0.1", "loopback_only"),
    ],
)
def test_without_a_token_only_this_machine_may_look(headers, client, server, expected):
    """By address, by the name it was called, and by no page of another origin."""
    found = refusal(headers, client=client, server=server, token=None)

    assert (None if found is None else found[1]) == expected
    assert found is None or found[0] == 403


@pytest.mark.parametrize(
    ("given", "is_right"),
    [
        ("Bearer right", True), ("bearer right", True), ("Bearer wrong", False), ("Basic right", False),
        ("right", False), ("Bearer ", False), ("", False), ("Bearer right ", False), ("Bearer rïght", False),
    ],
)  # fmt: skip
def test_with_a_token_it_and_nothing_else_counts(given, is_right):
    """From any address and by any name; a wrong one is refused from this machine too."""
    for address, host in itertools.product(("127.0.0.1", "10.0.0.7"), ("localhost", "db.example")):
        found = refusal({"host": host, "authorization": given}, client=address, server=address, token="right")
        assert found == (None if is_right else (401, "token_required"))


def test_a_page_of_another_origin_is_refused_with_the_right_token_too():
    """It could only have it from somewhere it should not."""
    headers = {"host": "db.example", "origin": "https://evil.example", "authorization": "Bearer right"}

    assert refusal(headers, token="right", **HERE) == (403, "foreign_origin")


def test_the_policy_allows_no_foreign_and_no_inline_script():
    """What a name with HTML in it would need."""
    policy = dict(part.split(" ", 1) for part in HEADERS["Content-Security-Policy"].split("; "))

    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
