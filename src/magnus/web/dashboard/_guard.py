"""Who may look: the token, and for a dashboard without one the loopback; pure, and without any text of the request.

A page in the user's own browser can be made to send requests to a loopback address (DNS rebinding, CSRF), so the names
in Host and Origin are looked at too.
"""

from __future__ import annotations

import hmac
import ipaddress
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOOPBACK_NAMES: Final = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})
_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self' data:; "
        "connect-src 'self'; frame-src 'self'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Sent with every answer of the dashboard."""

PLAN_HEADERS: Final = {
    **HEADERS,
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src data:; "
        "frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
    ),
}
"""Of the frame that draws a plan: its library writes style attributes, and the frame can reach nothing."""


def is_loopback(host: str | None) -> bool:
    """
    Say whether an address or name (with or without a port) is this machine's own.
    """
    if not host:
        return False
    is_bare = host.count(":") > 1 and not host.startswith("[")  # an IPv6 address without its brackets
    name = host if is_bare else urlsplit(f"//{host}").hostname or ""
    if name in _LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def refusal(
    headers: Mapping[str, str], *, client: str | None, server: str | None, token: str | None
) -> tuple[int, str] | None:
    """
    Return status and reason (a fixed word) when a request may not be answered, None when it may.

    `headers` are lower-case; `client` and `server` are the addresses of the connection's ends.
    """
    host, origin = headers.get("host", ""), headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != host:
        return 403, "foreign_origin"
    if token is not None:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        is_right = scheme.lower() == "bearer" and hmac.compare_digest(given.encode(), token.encode())
        return None if is_right else (401, "token_required")
    if not (is_loopback(client) and is_loopback(server)) or any(name in headers for name in _FORWARDED):
        return 403, "loopback_only"
    return None if is_loopback(host) else (403, "foreign_host")
