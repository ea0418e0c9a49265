"""Bearer tokens: how they are made and what is kept of them; knows no database and no HTTP."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Final

PREFIX: Final = "ava_"
"""Lets a person, and a scanner for leaked secrets, recognise a token."""


def new_token() -> str:
    """
    Return a fresh token of 256 random bits.
    """
    return PREFIX + secrets.token_urlsafe(32)


def demo_token(seed: int, account_id: int) -> str:
    """
    Return the token of a generated account: the same for the same seed and account, on every machine.

    Whoever knows the seed knows these tokens, so they are for generated data only.
    """
    mac = hmac.digest(f"ava demo tokens, seed {seed}".encode(), str(account_id).encode(), "sha256")
    return PREFIX + base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


def digest(token: str) -> bytes:
    """
    Return the 32 bytes under which a token is stored. A token has 256 bits of entropy, so no salt and no slow hash.
    """
    return hashlib.sha256(token.encode()).digest()
