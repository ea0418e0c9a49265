"""What a task works for: the request's id, its route and its trace, in ContextVars that tasks inherit. Pure."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

request_id: Final[ContextVar[str | None]] = ContextVar("magnus_request_id", default=None)
"""The id of the request that this task works for."""

route: Final[ContextVar[Callable[[], str | None] | None]] = ContextVar("magnus_route", default=None)
"""Says which route is being served, when somebody wants to know: it is not known yet when a request comes in."""


def current_route() -> str | None:
    """
    Return the route that this task serves, "POST /api/trades", or None.
    """
    found = route.get()
    return None if found is None else found()


def current_trace_id() -> str | None:
    """
    Return the id of the OpenTelemetry trace that this task is in; None without one, or where nobody imported the API.
    """
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    context = api.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None
