"""The health router: verdicts and snapshots -> HTTP; it never opens a connection and never waits for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from magnus import health
from magnus.health import HealthReport, NotReady

if TYPE_CHECKING:
    from collections.abc import Callable

_NO_STORE: Final = {"Cache-Control": "no-store"}


class Alive(BaseModel):
    """
    The event loop turns.
    """

    status: Literal["alive"]


class Ready(BaseModel):
    """
    The service may have traffic.
    """

    status: Literal["ready"]
    database: Literal["connected"]
    pool_size: int
    pool_free: int


class Refused(BaseModel):
    """
    The service should get no traffic now.
    """

    status: Literal["not_ready"]
    reason: NotReady
    cause: str | None = Field(
        default=None,
        description="Why the database did not answer: unreachable, credentials, database, too_many, starting, "
        "read_only, tls, timeout, pooler or other.",
    )


class QueryStats(BaseModel):
    """
    Queries since the start.
    """

    model_config = ConfigDict(extra="allow")

    total: int
    successful: int
    failed: int
    avg_time_ms: float
    slow_queries: int


class PoolStats(BaseModel):
    """
    The pool now.
    """

    model_config = ConfigDict(extra="allow")

    connected: bool
    size: int
    free: int
    used: int
    max_size: int


class Stats(BaseModel):
    """
    Figures of the database layer; more keys may be added.
    """

    model_config = ConfigDict(extra="allow")

    query_stats: QueryStats
    pool_stats: PoolStats


def _example(value: object, description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"example": value}}}


_ALIVE: Final = {"status": "alive"}
_READY: Final = {"status": "ready", "database": "connected", "pool_size": 10, "pool_free": 7}
_REFUSED: Final = {"status": "not_ready", "reason": "database_check_failed", "cause": "unreachable"}
_STATS: Final = {
    "query_stats": {"total": 18402, "successful": 18400, "failed": 2, "avg_time_ms": 1.4, "slow_queries": 3},
    "pool_stats": {"connected": True, "size": 10, "free": 7, "used": 3, "max_size": 30},
}
_REFUSAL: Final = {
    "model": Refused,
    **_example(_REFUSED, "Not ready; the reason is one of four fixed words"),
    "headers": {"Retry-After": {"description": "Seconds", "schema": {"type": "string"}}},
}


def health_router(report: Callable[[], HealthReport], stats: Callable[[], dict[str, Any]]) -> APIRouter:
    """
    Return the three routes over a function that judges and one that takes the snapshot.
    """
    router = APIRouter(prefix="/health", tags=["health"])

    @router.get("/liveness", response_model=Alive, responses={200: _example(_ALIVE, "Alive")})
    async def liveness() -> Response:
        """
        Tell that the process is alive. The database is not looked at: a restart would not heal it.
        """
        return JSONResponse({"status": health.liveness()}, headers=_NO_STORE)

    @router.get("/readiness", response_model=Ready, responses={200: _example(_READY, "Ready"), 503: _REFUSAL})
    async def readiness() -> Response:
        """
        Tell whether this process should get traffic.
        """
        return readiness_response(report())

    @router.get("/stats", response_model=Stats, responses={200: _example(_STATS, "Figures")})
    async def statistics() -> Response:
        """
        Show what the database layer has done and holds now.
        """
        return JSONResponse(stats(), headers=_NO_STORE)

    return router


def readiness_response(report: HealthReport) -> Response:
    """
    Return 200 with the pool's figures, or 503 with the reason and when to ask again.
    """
    if report.is_ready:
        body = {
            "status": "ready",
            "database": "connected",
            "pool_size": report.pool_size,
            "pool_free": report.pool_free,
        }
        return JSONResponse(body, headers=_NO_STORE)
    found = {"status": "not_ready", "reason": report.reason}
    if report.cause is not None:
        found["cause"] = report.cause
    return JSONResponse(found, 503, {**_NO_STORE, "Retry-After": "1"})
