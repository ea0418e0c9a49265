"""Pure ASGI middleware: the id of a request, and how many requests may be in progress; knows no database."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from functools import partial
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers, MutableHeaders

from magnus import _context
from magnus.errors import ConfigError
from magnus.web.problems import PROBLEM_JSON, TYPE_BASE, Problem, problem_document
from magnus.web.refusals import RefusalLog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID_HEADER: Final = "x-request-id"
HEALTH_ROUTES: Final = ("/health/liveness", "/health/readiness", "/health/stats")
_PARAMETER: Final = re.compile(r"\{(\w+)(?::\w+)?\}")
_SANE_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


class RequestIdMiddleware:
    """
    Give every request an id: the caller's `X-Request-ID` when it is sane, else a new one.

    It is returned in the response, kept as `request.state.request_id`, and bound for the log lines of everything that
    the request starts; the slow-query log shows it too, with the route.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        found = accepted_request_id(Headers(scope=scope).get(REQUEST_ID_HEADER))
        scope.setdefault("state", {})["request_id"] = found

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault(REQUEST_ID_HEADER, found)
            await send(message)

        token = _context.request_id.set(found)
        route = _context.route.set(partial(route_of, scope))
        try:
            await self.app(scope, receive, send_with_id)
        finally:
            _context.route.reset(route)
            _context.request_id.reset(token)


def route_of(scope: Scope) -> str | None:
    """
    Return method and path of the route that serves a request, parameters by name: "GET /api/accounts/{id}".

    None before the route is found, and where there is none.
    """
    template = getattr(scope.get("route"), "path", None)
    if not isinstance(template, str):
        return None
    rest = {name: str(value) for name, value in scope.get("path_params", {}).items()}
    filled = _PARAMETER.sub(lambda found: rest.pop(found[1], found[0]), template)
    path = scope["path"]
    before = path.removesuffix(filled) if path.endswith(filled) else ""
    for name, value in rest.items():  # those of routers around the route's own
        before = f"{before}/".replace(f"/{value}/", f"/{{{name}}}/").removesuffix("/")
    return f"{scope.get('method', 'WEBSOCKET')} {before}{template}"


def accepted_request_id(offered: str | None) -> str:
    """
    Return the id that a caller offered, or a new one when it is missing or not fit to be written into a log line.
    """
    if offered is not None and _SANE_ID.fullmatch(offered):
        return offered
    return secrets.token_hex(16)


class AdmissionMiddleware:
    """
    Bound the requests in progress and those that wait to be; refuse the rest at once with 503 and `Retry-After`.

    A request waits at most `max_wait` seconds, first come first served. Paths that end in one of `exempt` are always
    let through: a probe that is refused when the service is busy turns load into an outage. Refusals are counted in
    one log line a second, `requests_refused`. The bounds are those of one process and one event loop. Add it before
    `RequestIdMiddleware`, so that refusals carry an id.

    Raises:
        ConfigError: a bound is impossible.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_in_progress: int = 1024,
        max_waiting: int = 1024,
        max_wait: float = 5.0,
        exempt: Sequence[str] = HEALTH_ROUTES,
        type_base: str = TYPE_BASE,
    ) -> None:
        if max_in_progress < 1:
            raise ConfigError("max_in_progress", max_in_progress, "must be at least 1")
        if max_waiting < 0:
            raise ConfigError("max_waiting", max_waiting, "must not be negative")
        if not max_wait > 0:
            raise ConfigError("max_wait", max_wait, "must be a positive number of seconds")
        self.app = app
        self._slots = asyncio.Semaphore(max_in_progress)
        self._max_waiting = max_waiting
        self._max_wait = max_wait
        self._exempt = tuple(exempt)
        self._refusal = _Refusal(type_base)
        self._refusals = RefusalLog()
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].endswith(self._exempt):
            await self.app(scope, receive, send)
            return
        if not await self._admit():
            self._refusals.refused("admission")
            await self._refusal(send)
            return
        try:
            await self.app(scope, receive, send)
        finally:
            self._slots.release()

    async def _admit(self) -> bool:
        """
        Take a slot, waiting for one if the queue has room; False when there is none in time.

        A slot that is granted while the wait is cancelled goes back to the semaphore, which sees to that itself.
        """
        if not self._slots.locked():
            return await self._slots.acquire()  # does not wait: nothing runs between the look and the take
        if self._waiting >= self._max_waiting:
            return False
        self._waiting += 1
        try:
            async with asyncio.timeout(self._max_wait):
                return await self._slots.acquire()
        except TimeoutError:
            return False
        finally:
            self._waiting -= 1


class _Refusal:
    """
    The answer to a request that is not admitted, made once: under a burst its cost is what keeps others waiting.
    """

    def __init__(self, type_base: str) -> None:
        document = json.dumps(problem_document(Problem(503, type="overloaded", detail=_BUSY), type_base=type_base))
        self._body = document.encode()

    async def __call__(self, send: Send) -> None:
        body, request_id = self._body, _context.request_id.get()
        if request_id is not None:
            body = body[:-1] + b', "request_id": ' + json.dumps(request_id).encode() + b"}"
        headers = [*_HEADERS, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": body})


_HEADERS: Final = ((b"content-type", PROBLEM_JSON.encode()), (b"retry-after", b"1"))
_BUSY: Final = "The service is handling as many requests as it can. Nothing was done; repeat the request."
