"""Passwords of a local server's roles: derived, different, and sent only as verifiers."""

import base64
import hashlib
import hmac
import re

from hypothesis import given
from hypothesis import strategies as st

from magnus.embedded._roles import password_of, quote_ident, scram_verifier


def test_the_verifier_agrees_with_the_standards_example():
    """RFC 7677, section 3: the server's signature over the example exchange comes out of our verifier."""
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    exchange = f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r={nonce}"

    verifier = scram_verifier("pencil", salt)

    stored, server = verifier.rsplit("$", 1)[1].split(":")
    signature = hmac.digest(base64.b64decode(server), exchange.encode(), "sha256")
    assert base64.b64encode(signature).decode() == "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    client = hmac.digest(base64.b64decode(stored), exchange.encode(), "sha256")
    key = bytes(a ^ b for a, b in zip(proof, client, strict=True))
    assert base64.b64encode(hashlib.sha256(key).digest()).decode() == stored


def test_the_verifier_has_the_form_that_the_server_stores():
    """Anything else the server would take for a password in clear and hash once more."""
    assert re.fullmatch(
        r"SCRAM-SHA-256\$4096:[A-Za-z0-9+/]{22}==\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}=",
        scram_verifier("x", b"1" * 16),
    )


def test_every_role_has_its_own_password():
    """One role's password does not give away another's."""
    passwords = {password_of("secret", user) for user in ("postgres", "ava", "magnus", "")}

    assert len(passwords) == 4
    assert password_of("secret", "postgres") == "secret"
    assert password_of("other", "ava") not in passwords
    assert all(password.isascii() for password in passwords)


@given(st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), min_size=1))
def test_a_quoted_name_is_one_identifier_whatever_it_holds(name):
    """Quotes inside are doubled, so none ends it early."""
    quoted = quote_ident(name)

    assert quoted[0] == quoted[-1] == '"'
    assert quoted[1:-1].replace('""', '"') == name
    assert quoted[1:-1].replace('""', "").count('"') == 0
