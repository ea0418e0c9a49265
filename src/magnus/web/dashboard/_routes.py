"""The dashboard's routes: pages and their files for everybody, data for who may look; it decides nothing."""

from __future__ import annotations

import hashlib
import json
import re
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, Protocol

from fastapi import APIRouter
from fastapi.responses import RedirectResponse, Response
from starlette.requests import Request  # noqa: TC002  # FastAPI reads the annotation

from magnus.web.dashboard._guard import HEADERS, PLAN_HEADERS, refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

Json = dict[str, Any]
_FILES: Final = resources.files("magnus.web.dashboard") / "static"
_KINDS: Final = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css"}
_SERVED: Final = frozenset({
    "app.js", "app.css", "plan.html", "plan.js", "plan.css", "vendor/uPlot.iife.min.js", "vendor/uPlot.min.css",
    "vendor/vue.runtime.global.prod.js", "vendor/pev2.umd.js", "vendor/pev2.css", "vendor/bootstrap.min.css",
})  # fmt: skip
_ID: Final = re.compile(r"-?[0-9a-zA-Z]{1,64}")


class Source(Protocol):
    """
    What the dashboard shows; every answer is ready for JSON.
    """

    def snapshot(self, since: int) -> Json: ...

    async def panel(self, name: str, arguments: Mapping[str, str]) -> Json | None: ...


def dashboard_router(source: Source, *, token: str | None) -> APIRouter:
    """
    Return the routes, to be mounted under a prefix. Without a `token` only this machine itself may look.
    """
    router = APIRouter(include_in_schema=False)

    def refused(request: Request) -> Response | None:
        client, server = request.scope.get("client"), request.scope.get("server")
        found = refusal(
            request.headers,
            client=None if client is None else str(client[0]),
            server=None if server is None else str(server[0]),
            token=token,
        )
        return None if found is None else answer({"reason": found[1]}, request, status=found[0])

    @router.get("")
    async def bare(request: Request) -> Response:
        return RedirectResponse(f"{request.scope['path'].rsplit('/', 1)[-1]}/", headers=dict(HEADERS))

    @router.get("/")
    async def page() -> Response:
        return file("index.html")

    @router.get("/api/snapshot")
    async def snapshot(request: Request, since: int = 0) -> Response:
        return refused(request) or answer(source.snapshot(since), request)

    @router.get("/api/{panel}")
    async def panel(request: Request, panel: str) -> Response:
        no = refused(request)
        if no is not None:
            return no
        found = await source.panel(panel, request.query_params)
        return answer({"reason": "unknown"}, request, status=404) if found is None else answer(found, request)

    @router.get("/{name:path}")
    async def static(name: str) -> Response:
        return file(name) if name in _SERVED else Response(status_code=404, headers=dict(HEADERS))

    return router


def file(name: str) -> Response:
    """
    Return one of the package's own files.
    """
    path = _FILES.joinpath(*name.split("/"))
    kind = _KINDS[name[name.rindex(".") :]]
    cache = "max-age=86400" if name.startswith("vendor/") else "no-cache"
    policy = PLAN_HEADERS if name == "plan.html" else HEADERS
    return Response(path.read_bytes(), media_type=kind, headers={**policy, "Cache-Control": cache})


def answer(body: Json, request: Request, *, status: int = 200) -> Response:
    """
    Return JSON with an ETag; 304 without a body when the caller has it already.
    """
    text = json.dumps(body, separators=(",", ":"), default=str).encode()
    etag = f'"{hashlib.blake2b(text, digest_size=12).hexdigest()}"'
    headers = {**HEADERS, "Cache-Control": "no-cache", "ETag": etag}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 200 and request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return Response(text, status, headers, media_type="application/json")


def is_id(text: str) -> bool:
    """
    Say whether a text can be a queryid or a fingerprint.
    """
    return _ID.fullmatch(text) is not None
