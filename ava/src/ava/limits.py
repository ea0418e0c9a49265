"""How large a request body may be; an ASGI middleware that knows no route but the paths it is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import Headers

from ava.problems import problem
from magnus.fastapi import problem_response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimitMiddleware:
    """
    Answer 413 to a body over `limit` bytes, or over the limit of its path in `larger`, without reading the rest.

    A length that is announced is refused before anything of the body is read; a body that is sent in pieces is
    counted, and the handler's read of the first byte too many raises the problem.
    """

    def __init__(self, app: ASGIApp, *, limit: int, larger: Mapping[str, int]) -> None:
        self.app = app
        self._limit = limit
        self._larger = larger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self._larger.get(scope["path"], self._limit)
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > limit:
            await problem_response(problem("body-too-large"))(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise problem("body-too-large")
            return message

        await self.app(scope, counted, send)
