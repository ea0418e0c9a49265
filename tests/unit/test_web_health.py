"""The three health routes over a fake database: bodies, codes, headers, and that they never touch a connection."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from magnus.health import readiness
from magnus.web.health import Stats, health_router

STATS = {
    "query_stats": {"total": 7, "successful": 6, "failed": 1, "avg_time_ms": 1.5, "slow_queries": 0, "p99_ms": 3.0},
    "pool_stats": {"connected": True, "size": 10, "free": 4, "used": 6, "max_size": 30, "lanes": {}},
}


@dataclass
class FakeDatabase:
    """
    Snapshots only: whoever tries to acquire or to query gets an AttributeError.
    """

    is_ok: bool = True
    failures: int = 0
    is_warm: bool = True
    no_handoff_since: float | None = None
    cause: str | None = None
    is_connected: bool = True
    is_draining: bool = False
    config: Any = field(default_factory=lambda: SimpleNamespace(ready_grace=15.0))

    @property
    def health(self) -> FakeDatabase:
        return self

    def get_stats(self) -> dict[str, Any]:
        return STATS


async def ask(db: FakeDatabase, path: str) -> httpx2.Response:
    app = FastAPI()
    router = health_router(lambda: readiness(db, now=time.monotonic()), db.get_stats)
    app.include_router(router, prefix="/api")
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://test") as client:
        return await client.get(path)


async def test_liveness_is_alive_whatever_the_database_does():
    """200 with exactly one member, also when nothing else works."""
    response = await ask(FakeDatabase(is_ok=False, failures=9, is_connected=False), "/api/health/liveness")
    assert (response.status_code, response.json()) == (200, {"status": "alive"})


async def test_readiness_is_200_with_the_pools_figures():
    """Exactly the four members."""
    response = await ask(FakeDatabase(), "/api/health/readiness")
    assert response.status_code == 200
    assert response.json() == {"status": "ready", "database": "connected", "pool_size": 10, "pool_free": 4}


@pytest.mark.parametrize(
    ("db", "reason"),
    [
        (FakeDatabase(is_connected=False, is_ok=False), "starting"),
        (FakeDatabase(is_draining=True), "draining"),
        (FakeDatabase(is_ok=False, failures=1), "database_check_failed"),
        (FakeDatabase(no_handoff_since=0.0), "pool_exhausted"),
    ],
)
async def test_readiness_is_503_with_a_fixed_reason(db, reason):
    """Status, reason and when to ask again; nothing else."""
    response = await ask(db, "/api/health/readiness")
    assert (response.status_code, response.json()) == (503, {"status": "not_ready", "reason": reason})
    assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize("cause", ["unreachable", "credentials", "too_many", "read_only"])
async def test_a_database_that_does_not_answer_is_told_with_its_cause(cause):
    """Down, refused, full, or no primary: four different things to do. Other reasons have none."""
    response = await ask(FakeDatabase(is_ok=False, failures=1, cause=cause), "/api/health/readiness")
    assert response.json() == {"status": "not_ready", "reason": "database_check_failed", "cause": cause}
    response = await ask(FakeDatabase(is_ok=False, failures=1, cause=cause, is_draining=True), "/api/health/readiness")
    assert response.json() == {"status": "not_ready", "reason": "draining"}


async def test_stats_are_the_databases_own():
    """What `get_stats` returns, key by key, and the documented model accepts it."""
    response = await ask(FakeDatabase(), "/api/health/stats")
    assert (response.status_code, response.json()) == (200, STATS)
    assert Stats.model_validate(STATS).pool_stats.used == 6


@pytest.mark.parametrize("path", ["liveness", "readiness", "stats"])
async def test_no_answer_may_be_stored(path):
    """A cached verdict is a wrong one."""
    assert (await ask(FakeDatabase(), f"/api/health/{path}")).headers["cache-control"] == "no-store"
    assert (await ask(FakeDatabase(is_draining=True), f"/api/health/{path}")).headers["cache-control"] == "no-store"


def test_the_document_shows_both_answers_of_readiness():
    """200 and 503 have a schema and an example; the reasons are an enumeration."""
    app = FastAPI()
    app.include_router(health_router(lambda: None, dict))
    document = app.openapi()
    responses = document["paths"]["/health/readiness"]["get"]["responses"]
    assert set(responses) == {"200", "503"}
    for response in responses.values():
        assert {"schema", "example"} <= set(response["content"]["application/json"])
    assert "Retry-After" in responses["503"]["headers"]
    assert document["components"]["schemas"]["NotReady"]["enum"] == [
        "starting",
        "draining",
        "database_check_failed",
        "pool_exhausted",
    ]
