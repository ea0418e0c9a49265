"""The route of Prometheus' scrapes: text that was made from snapshots, at most once a second."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Header, Response

if TYPE_CHECKING:
    from collections.abc import Callable


def metrics_router(render: Callable[[str], tuple[bytes, str]]) -> APIRouter:
    """
    Return `GET /metrics` over a function from the Accept header to text and media type.
    """
    router = APIRouter()

    @router.get("/metrics", include_in_schema=False)  # for Prometheus, which has a description of its own
    async def metrics(accept: Annotated[str, Header()] = "") -> Response:
        """
        Show the database layer's metrics to Prometheus.
        """
        text, kind = render(accept)
        return Response(text, media_type=kind, headers={"Cache-Control": "no-store"})

    return router
