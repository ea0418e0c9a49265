"""Read your own writes over HTTP: a response carries where its request wrote, and the next request brings it back."""

from __future__ import annotations

import asyncio
import math
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers, MutableHeaders

from magnus._routing import NOWHERE
from magnus.database import Database, get_database

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

READ_TOKEN_HEADER: Final = "magnus-read-token"  # noqa: S105  # a header's name
READ_TOKEN_COOKIE: Final = "magnus_read_token"  # noqa: S105  # a cookie's name
_ANSWER: Final = 1.0


async def _database_of(scope: Scope) -> Database:
    magnus = scope.get("state", {}).get("magnus")
    found: Database = await get_database() if magnus is None else magnus.database
    return found


class ReadTokenMiddleware:
    """
    Let a client's reads see what it wrote, whichever process and whichever standby answers.

    Whatever a request writes before its response begins is named by a token in the response's header
    `Magnus-Read-Token`, and with `cookie` in a cookie too. A request that brings it back, in either, reads what that
    names; one without it what its standby has, at most `replica_max_lag` seconds old. The cookie lasts as long: after
    that it would name nothing that is not seen anyway. Without replicas nothing is added.

    A token is no secret and grants nothing, and it is not signed: one that is none is ignored
    (`database_read_token_ignored`), and one that was made up only sends its own client's reads to the primary. When the
    primary does not say within a second where it stands, the token says that only the primary may answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        cookie: bool = False,
        database: Callable[[Scope], Awaitable[Database]] = _database_of,
    ) -> None:
        """
        `database` finds the database of a request; not given, it is that of the application's `Magnus`, else the
        process-wide one.
        """
        self.app = app
        self._has_cookie = cookie
        self._database = database

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        db = await self._database(scope)
        if not db.config.replicas:
            await self.app(scope, receive, send)
            return
        offered = offered_token(Headers(scope=scope))

        async def send_with_token(message: Message) -> None:
            if message["type"] == "http.response.start":
                found = await _token_of(db)
                if found is not None and found != offered:
                    headers = MutableHeaders(scope=message)
                    headers[READ_TOKEN_HEADER] = found
                    if self._has_cookie:
                        headers.append("set-cookie", _cookie(found, db.config.replica_max_lag, scope["scheme"]))
            await send(message)

        with db.reads_after(token=offered):
            await self.app(scope, receive, send_with_token)


def offered_token(headers: Headers) -> str | None:
    """
    Return the token that a request brings: the header's, else the cookie's.
    """
    found = headers.get(READ_TOKEN_HEADER)
    if found is not None or "cookie" not in headers:
        return found
    try:
        cookie = SimpleCookie(headers["cookie"]).get(READ_TOKEN_COOKIE)
    except CookieError:
        return None
    return None if cookie is None else cookie.value


async def _token_of(db: Database) -> str | None:
    try:
        async with asyncio.timeout(_ANSWER):
            return await db.read_token()
    except Exception:  # noqa: BLE001  # the write is done, and its response must not fail for the token
        return str(NOWHERE)


def _cookie(token: str, max_lag: float, scheme: str) -> str:
    secure = "; Secure" if scheme == "https" else ""
    return f"{READ_TOKEN_COOKIE}={token}; Path=/; Max-Age={math.ceil(max_lag) + 1}; HttpOnly; SameSite=Lax{secure}"
