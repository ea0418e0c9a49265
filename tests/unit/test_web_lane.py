"""Lanes of routes: what the handler, its dependencies, its tasks and its background see."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import httpx2
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI
from fastapi.responses import StreamingResponse

from magnus import lanes
from magnus.errors import ConfigError
from magnus.fastapi import lane
from magnus.lanes import QueryPriority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def client_of(app: FastAPI) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://test")


async def test_the_handler_of_a_route_works_in_its_lane():
    """A coroutine handler resolves the lane of the route; a route without one stays at NORMAL."""
    app = FastAPI()

    @app.get("/high", dependencies=[lane(QueryPriority.HIGH)])
    async def high() -> str:
        return lanes.resolve(None)

    @app.get("/plain")
    async def plain() -> str:
        return lanes.resolve(None)

    async with client_of(app) as client:
        assert (await client.get("/high")).json() == "high"
        assert (await client.get("/plain")).json() == "normal"
    assert lanes.current() is None


async def test_a_handler_in_a_thread_works_in_its_lane():
    """FastAPI copies the context into the thread of a plain function."""
    app = FastAPI()

    @app.get("/", dependencies=[lane("low")])
    def handler() -> str:
        return lanes.resolve(None)

    async with client_of(app) as client:
        assert (await client.get("/")).json() == "low"


async def test_dependencies_of_the_handler_are_inside_the_lane():
    """What the handler's own parameters ask the database runs in the route's lane too."""
    app = FastAPI()

    async def whoami() -> str:
        return lanes.resolve(None)

    @app.get("/", dependencies=[lane(QueryPriority.CRITICAL)])
    async def handler(found: str = Depends(whoami)) -> str:  # noqa: FAST002
        return found

    async with client_of(app) as client:
        assert (await client.get("/")).json() == "critical"


async def test_concurrent_requests_keep_their_own_lanes():
    """Two requests in progress at once do not see each other's lane."""
    app = FastAPI()
    both = asyncio.Barrier(2)

    async def seen() -> str:
        await both.wait()
        return lanes.resolve(None)

    app.get("/high", dependencies=[lane("high")])(seen)
    app.get("/low", dependencies=[lane("low")])(seen)
    async with client_of(app) as client:
        high, low = await asyncio.gather(client.get("/high"), client.get("/low"))
    assert (high.json(), low.json()) == ("high", "low")


async def test_gathered_tasks_inherit_the_lane_and_the_deadline():
    """Children that the handler awaits belong to its lane and share its deadline."""
    app = FastAPI()

    async def child() -> tuple[str, bool]:
        found = lanes.current()
        assert found is not None
        assert found.deadline is not None
        return lanes.resolve(None), found.deadline > time.monotonic()

    @app.get("/", dependencies=[lane("high", timeout=60)])
    async def handler() -> list[tuple[str, bool]]:
        return await asyncio.gather(child(), child())

    async with client_of(app) as client:
        assert (await client.get("/")).json() == [["high", True]] * 2


async def test_a_task_that_outlives_the_request_falls_back_to_defaults():
    """A task started by the handler sees no lane and no deadline once the request is over."""
    app = FastAPI()
    answered = asyncio.Event()
    started: list[asyncio.Task[tuple[str, bool]]] = []

    async def later() -> tuple[str, bool]:
        await answered.wait()
        return lanes.resolve(None), lanes.current() is None

    @app.get("/", dependencies=[lane("background", timeout=60)])
    async def handler() -> str:
        started.append(asyncio.create_task(later()))
        return lanes.resolve(None)

    async with client_of(app) as client:
        assert (await client.get("/")).json() == "background"
    answered.set()
    assert await started[0] == ("normal", True)


@pytest.mark.parametrize(("scope", "expected"), [("function", "normal"), ("request", "low")])
async def test_a_stream_keeps_the_lane_only_when_asked(scope, expected):
    """scope="request" holds the lane until the last part of a streamed response and its background tasks."""
    app = FastAPI()
    background: list[str] = []

    async def remember() -> None:
        background.append(lanes.resolve(None))

    async def parts() -> AsyncIterator[str]:
        yield lanes.resolve(None)

    @app.get("/", dependencies=[lane("low", scope=scope)])
    async def handler(tasks: BackgroundTasks) -> StreamingResponse:
        tasks.add_task(remember)
        return StreamingResponse(parts())

    async with client_of(app) as client:
        assert (await client.get("/")).text == expected
    assert background == [expected]


async def test_a_handler_that_raises_leaves_no_lane_behind():
    """The scope closes when the handler fails."""
    app = FastAPI()
    seen: list[lanes.Scope] = []

    @app.get("/", dependencies=[lane("high")])
    async def handler() -> None:
        found = lanes.current()
        assert found is not None
        seen.append(found)
        raise ZeroDivisionError

    async with client_of(app) as client:
        with pytest.raises(ZeroDivisionError):
            await client.get("/")
    assert seen[0].is_closed
    assert lanes.current() is None


async def test_a_route_can_only_lower_the_lane_of_its_router():
    """Router LOW and route HIGH is LOW; router HIGH and route LOW is LOW."""
    app = FastAPI(dependencies=[lane("high")])

    @app.get("/lower", dependencies=[lane("low")])
    async def lower() -> str:
        return lanes.resolve(None)

    @app.get("/raise", dependencies=[lane("critical")])
    async def higher() -> str:
        return lanes.resolve(None)

    async with client_of(app) as client:
        assert (await client.get("/lower")).json() == "low"
        assert (await client.get("/raise")).json() == "high"


async def test_as_a_decorator_it_wraps_a_coroutine_function():
    """The decorated function keeps its name and signature and works in the lane, with or without a server."""
    app = FastAPI()

    @app.get("/")
    @lane("low", timeout=60)
    async def report(month: int) -> str:
        """Say the lane."""
        return f"{lanes.resolve(None)} {month}"

    assert report.__name__ == "report"
    assert await report(3) == "low 3"
    assert lanes.current() is None
    async with client_of(app) as client:
        assert (await client.get("/?month=4")).json() == "low 4"
        assert (await client.get("/")).status_code == 422


async def test_a_lane_may_be_used_many_times_at_once():
    """One lane object serves routes and decorated functions side by side."""
    shared = lane("low")
    both = asyncio.Barrier(2)

    @shared
    async def work() -> str:
        await both.wait()
        return lanes.resolve(None)

    assert await asyncio.gather(work(), work()) == ["low", "low"]


def test_nonsense_is_refused_where_it_is_written():
    """An unknown lane, a timeout that is not positive and a plain function are errors at import, not at the request."""
    with pytest.raises(ConfigError, match="priority"):
        lane("urgent")
    with pytest.raises(ConfigError, match="timeout"):
        lane("low", timeout=0)
    with pytest.raises(TypeError, match="coroutine"):
        lane("low")(lambda: None)


def test_a_lane_leaves_no_trace_in_the_openapi_document():
    """A lane is no parameter of a route."""
    app = FastAPI()

    @app.get("/", dependencies=[lane("low")])
    async def handler() -> None: ...

    assert "parameters" not in app.openapi()["paths"]["/"]["get"]
