"""Which read token a request brings; where nobody is behind, none is given."""

from __future__ import annotations

from types import SimpleNamespace

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from magnus.fastapi import ReadTokenMiddleware
from magnus.web.read_tokens import offered_token


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({}, None),
        ({"magnus-read-token": "1-ff"}, "1-ff"),
        ({"cookie": "a=b; magnus_read_token=1-ff"}, "1-ff"),
        ({"magnus-read-token": "1-aa", "cookie": "magnus_read_token=1-ff"}, "1-aa"),
        ({"cookie": "other=1"}, None),
        ({"cookie": 'magnus_read_token="1-ff'}, None),
        ({"cookie": "\x00;;==;[magnus_read_token"}, None),
    ],
)
def test_a_token_comes_in_the_header_or_the_cookie(headers, token):
    """The header first; a cookie that cannot be read is none."""
    assert offered_token(Headers(headers)) == token


async def test_without_standbys_a_request_goes_through_untouched():
    """Nothing is asked, and no header is added."""
    db = SimpleNamespace(config=SimpleNamespace(replicas=()))

    async def database(_scope):
        return db

    app = Starlette(routes=[Route("/", lambda _request: PlainTextResponse("here"))])
    transport = httpx2.ASGITransport(app=ReadTokenMiddleware(app, cookie=True, database=database))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.get("/", headers={"Magnus-Read-Token": "1-ff"})
    assert response.text == "here"
    assert "Magnus-Read-Token" not in response.headers
    assert "Set-Cookie" not in response.headers
