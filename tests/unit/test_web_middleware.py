"""Request ids and admission, as plain ASGI."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from fastapi import APIRouter, FastAPI, Request

from magnus import _context, logs
from magnus.errors import ConfigError
from magnus.fastapi import AdmissionMiddleware, RequestIdMiddleware
from magnus.web.middleware import accepted_request_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def client_of(app: Any) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def echo() -> FastAPI:
    app = FastAPI()
    app.add_middleware(RequestIdMiddleware)

    @app.get("/")
    async def handler(request: Request) -> list[str | None]:
        return [request.state.request_id, logs.request_id.get()]

    return app


async def test_a_sane_id_is_taken_over_and_returned():
    """The caller's id reaches the handler, the log context and the response."""
    async with client_of(echo()) as client:
        response = await client.get("/", headers={"X-Request-ID": "a.B_9-" + "x" * 122})
    assert response.headers["x-request-id"] == "a.B_9-" + "x" * 122
    assert response.json() == ["a.B_9-" + "x" * 122] * 2


@pytest.mark.parametrize("offered", [None, "", "x" * 129, "a b", "a\nb", "ä", "a/b", '"', "a;b", "\u0661"])
async def test_any_other_id_is_replaced(offered):
    """What is missing, too long or not fit for a log line gives way to a new id."""
    found = accepted_request_id(offered)
    assert re.fullmatch(r"[0-9a-f]{32}", found)


async def test_the_route_is_known_while_it_serves():
    """Method and template, prefixes of routers included, and never a parameter's value."""
    app, inner, outer = FastAPI(), APIRouter(prefix="/orders"), APIRouter(prefix="/accounts/{account}")

    async def serve(account: str = "", order: str = "") -> str | None:
        return _context.current_route()

    inner.add_api_route("/{order}", serve, methods=["GET", "POST"])
    outer.include_router(inner)
    app.include_router(outer, prefix="/api")
    app.add_api_route("/files/{order:path}", serve)
    app.add_middleware(RequestIdMiddleware)
    async with client_of(app) as client:
        assert (await client.get("/api/accounts/7/orders/8")).json() == "GET /api/accounts/{account}/orders/{order}"
        assert (await client.post("/api/accounts/7/orders/7")).json() == "POST /api/accounts/{account}/orders/{order}"
        assert (await client.get("/files/a/b/c")).json() == "GET /files/{order:path}"
        assert (await client.get("/nowhere")).status_code == 404
    assert _context.current_route() is None


async def test_ids_are_new_for_every_request():
    """Two requests without an id get two."""
    async with client_of(echo()) as client:
        first, second = await client.get("/"), await client.get("/")
    assert first.headers["x-request-id"] != second.headers["x-request-id"]


async def test_an_id_that_the_application_set_is_kept():
    """The middleware adds the header, it does not double or replace it."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 204, "headers": [(b"x-request-id", b"own")]})
        await send({"type": "http.response.body", "body": b""})

    async with client_of(RequestIdMiddleware(app)) as client:
        response = await client.get("/")
    assert response.headers.get_list("x-request-id") == ["own"]


async def test_the_id_is_unbound_after_the_request():
    """Nothing of a request is left in the context of whoever called."""
    async with client_of(echo()) as client:
        await client.get("/")
    assert logs.request_id.get() is None


async def test_other_protocols_pass_through():
    """A lifespan scope reaches the application untouched."""
    seen: list[dict[str, Any]] = []

    async def app(scope, receive, send):
        seen.append(scope)

    await RequestIdMiddleware(app)({"type": "lifespan"}, None, None)
    await AdmissionMiddleware(app)({"type": "lifespan"}, None, None)
    assert seen == [{"type": "lifespan"}] * 2


class Gate:
    """
    An application whose requests stay in progress until they are let go.
    """

    def __init__(self) -> None:
        self.entered: asyncio.Queue[str] = asyncio.Queue()
        self.open = asyncio.Event()
        self.in_progress = 0
        self.most = 0

    async def __call__(self, scope, receive, send):
        self.in_progress += 1
        self.most = max(self.most, self.in_progress)
        self.entered.put_nowait(scope["path"])
        try:
            await self.open.wait()
        finally:
            self.in_progress -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def until_waiting(admission: AdmissionMiddleware, count: int) -> None:
    while admission._waiting != count:  # noqa: ASYNC110  # turns of the loop, no time
        await asyncio.sleep(0)


async def test_over_the_bounds_a_request_is_refused_at_once():
    """Two in progress, one waiting: the fourth gets 503 and Retry-After while the others are untouched."""
    gate = Gate()
    admission = AdmissionMiddleware(gate, max_in_progress=2, max_waiting=1)
    async with client_of(admission) as client:
        running = [asyncio.create_task(client.get(f"/{number}")) for number in range(3)]
        await until_waiting(admission, 1)
        refused = await client.get("/refused")
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["type"] == "urn:magnus:problem:overloaded"
        gate.open.set()
        assert [response.status_code for response in await asyncio.gather(*running)] == [200] * 3
    assert gate.most == 2


async def test_refusals_are_one_log_line_and_carry_the_id_of_their_request(caplog):
    """Counted, not written one by one; the id is in the document as in every other."""
    admission = AdmissionMiddleware(Gate(), max_in_progress=1, max_waiting=0, type_base="https://example.test/")
    assert await admission._admit()
    async with client_of(RequestIdMiddleware(admission)) as client:
        answers = [await client.get("/", headers={"X-Request-ID": f"r-{number}"}) for number in range(5)]
    assert [answer.json()["request_id"] for answer in answers] == [f"r-{number}" for number in range(5)]
    assert answers[0].json()["type"] == "https://example.test/overloaded"
    assert not caplog.records
    admission._refusals.write()
    admission._refusals.write()
    (record,) = caplog.records
    assert (record.getMessage(), record.count, record.reasons) == ("requests_refused", 5, {"admission": 5})


async def test_health_is_answered_when_everything_is_taken():
    """Probes are exempt under any prefix; a path that only mentions them is not."""
    gate = Gate()
    admission = AdmissionMiddleware(gate, max_in_progress=1, max_waiting=0)
    async with client_of(admission) as client:
        running = [asyncio.create_task(client.get("/busy"))]
        assert await gate.entered.get() == "/busy"
        for path in ("/api/health/liveness", "/health/readiness", "/api/health/stats"):
            running.append(asyncio.create_task(client.get(path)))
            assert await gate.entered.get() == path
        assert (await client.get("/health/liveness/more")).status_code == 503
        gate.open.set()
        assert [response.status_code for response in await asyncio.gather(*running)] == [200] * 4


async def test_a_request_that_waits_too_long_is_refused():
    """The wait is bounded; afterwards the place in the queue is free again."""
    gate = Gate()
    admission = AdmissionMiddleware(gate, max_in_progress=1, max_waiting=1, max_wait=0.01)
    async with client_of(admission) as client:
        running = asyncio.create_task(client.get("/"))
        await gate.entered.get()
        assert (await client.get("/late")).status_code == 503
        assert admission._waiting == 0
        gate.open.set()
        assert (await running).status_code == 200
        assert (await client.get("/next")).status_code == 200


async def test_requests_wait_in_the_order_of_their_arrival():
    """First come, first served; a newcomer does not overtake those who wait."""
    gate = Gate()
    admission = AdmissionMiddleware(gate, max_in_progress=1, max_waiting=10)
    async with client_of(admission) as client:
        running = [asyncio.create_task(client.get("/0"))]
        assert await gate.entered.get() == "/0"
        for number in range(1, 4):
            running.append(asyncio.create_task(client.get(f"/{number}")))
            await until_waiting(admission, number)
        gate.open.set()
        assert [await gate.entered.get() for _ in range(3)] == ["/1", "/2", "/3"]
        await asyncio.gather(*running)


@pytest.mark.parametrize("is_granted", [False, True])
async def test_a_cancelled_wait_gives_its_place_back(is_granted):
    """A client that goes away while waiting, even in the moment its slot is granted, leaks nothing."""
    admission = AdmissionMiddleware(Gate(), max_in_progress=1, max_waiting=2)
    assert await admission._admit()
    gone = asyncio.create_task(admission._admit())
    await until_waiting(admission, 1)
    kept = asyncio.create_task(admission._admit())
    await until_waiting(admission, 2)
    if is_granted:
        admission._slots.release()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    if not is_granted:
        admission._slots.release()
    assert await kept
    admission._slots.release()
    assert admission._waiting == 0
    assert await admission._admit()


async def test_an_application_that_fails_gives_its_slot_back():
    """An exception passes through and the slot is free again."""
    calls = 0

    async def app(scope, receive, send):
        nonlocal calls
        calls += 1
        raise ZeroDivisionError

    async with client_of(AdmissionMiddleware(app, max_in_progress=1, max_waiting=0)) as client:
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await client.get("/")
    assert calls == 3


@pytest.mark.parametrize("bound", [{"max_in_progress": 0}, {"max_waiting": -1}, {"max_wait": 0}])
def test_impossible_bounds_are_refused(bound):
    """The error names the bound."""
    with pytest.raises(ConfigError, match=next(iter(bound))):
        AdmissionMiddleware(lambda *_: None, **bound)
