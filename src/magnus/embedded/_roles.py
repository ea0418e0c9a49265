"""Passwords, roles and databases of a local server: statements over a connection that the caller opened."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING

from magnus.embedded._server import SUPERUSER

if TYPE_CHECKING:
    from collections.abc import Iterable

    import asyncpg

_ITERATIONS = 4096


def password_of(secret: str, user: str) -> str:
    """
    The password of `user`: the secret itself for the superuser, else derived from it, so that none needs storing.
    """
    if user == SUPERUSER:
        return secret
    digest = hmac.digest(secret.encode(), user.encode(), "sha256")
    return base64.urlsafe_b64encode(digest[:24]).decode()


def scram_verifier(password: str, salt: bytes) -> str:
    """
    What the server stores for a password (RFC 5803). Sent instead of the password, which then appears in no log and
    in no pg_stat_statements. The password must be ASCII.
    """
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, _ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${_ITERATIONS}:{encoded[0]}${encoded[1]}:{encoded[2]}"


def quote_ident(name: str) -> str:
    """
    A name as an SQL identifier, always quoted.
    """
    return '"' + name.replace('"', '""') + '"'


async def ensure_role(
    con: asyncpg.Connection, name: str, *, password: str, can_create_roles: bool, member_of: Iterable[str]
) -> None:
    """
    Make a login role, or bring an existing one to the same attributes and password.
    """
    verifier = scram_verifier(password, secrets.token_bytes(16))
    attributes = f"LOGIN NOSUPERUSER NOBYPASSRLS {'CREATEROLE' if can_create_roles else 'NOCREATEROLE'}"
    exists = await con.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", name)
    verb = "ALTER" if exists else "CREATE"
    await con.execute(f"{verb} ROLE {quote_ident(name)} WITH {attributes} PASSWORD '{verifier}'")
    for group in member_of:
        await con.execute(f"GRANT {quote_ident(group)} TO {quote_ident(name)}")


async def ensure_database(con: asyncpg.Connection, name: str, *, owner: str | None, template: str | None) -> bool:
    """
    Make a database if it is missing. True when it was made. An existing one keeps its owner and content.
    """
    if await con.fetchval("SELECT true FROM pg_database WHERE datname = $1", name):
        return False
    options = f" OWNER {quote_ident(owner)}" if owner else ""
    options += f" TEMPLATE {quote_ident(template)}" if template else ""
    await con.execute(f"CREATE DATABASE {quote_ident(name)}{options}")
    return True


async def remove_database(con: asyncpg.Connection, name: str) -> None:
    """
    Drop a database and end whoever is in it. Nothing happens when there is none.
    """
    await con.execute(f"DROP DATABASE IF EXISTS {quote_ident(name)} WITH (FORCE)")


async def ensure_extensions(con: asyncpg.Connection, extensions: Iterable[str]) -> None:
    """
    Create extensions in the connection's database.
    """
    for extension in extensions:
        await con.execute(f"CREATE EXTENSION IF NOT EXISTS {quote_ident(extension)}")
