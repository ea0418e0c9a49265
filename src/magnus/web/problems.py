"""Errors as RFC 9457 problem details; no SQL, no DSN, no exception's text and no input of the caller gets into one."""

from __future__ import annotations

import json
import logging
import math
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import asyncpg
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from magnus import logs
from magnus._driver import is_connection_lost
from magnus.errors import (
    AlreadyExecuted,
    ConnectError,
    InProgress,
    KeyReused,
    OutcomeUnknown,
    Overloaded,
    PoolError,
    PoolTimeout,
    QueryTimeout,
)
from magnus.web.refusals import RefusalLog

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi import FastAPI
    from starlette.requests import Request
PROBLEM_JSON: Final = "application/problem+json"
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_RETRY: Final = {"Retry-After": "1"}
_REPEAT: Final = "Repeat the request later."
_ENDED: Final = "It was ended at its time limit."
TYPE_BASE: Final = "urn:magnus:problem:"
_log: Final = logging.getLogger("magnus.web")

_MEMBERS: Final = frozenset({"type", "title", "status", "detail"})

TITLES: Final[Mapping[str, str]] = MappingProxyType({
    "pool-timeout": "No database connection became free in time",
    "overloaded": "The service is overloaded",
    "database-unavailable": "The database is not available",
    "conflict": "The transaction met a concurrent one",
    "query-timeout": "The query took too long",
    "outcome-unknown": "It is not known whether the change was stored",
    "idempotency-key-reused": "The key belongs to another request",
    "in-progress": "The same request is being carried out",
    "already-executed": "The request was carried out before",
    "invalid-request": "The request is not valid",
    "internal-error": "The service failed",
})


class Problem(HTTPException):
    """
    An error that a caller is meant to read.

    Attributes:
        type: A word, completed by the application's `type_base`, or a whole URI; "about:blank": the status says it.
        title: The same for every problem of this type.
        extensions: Further members of the document.
    """

    def __init__(
        self,
        status: int,
        *,
        type: str = "about:blank",  # noqa: A002  # the member's name in RFC 9457
        title: str | None = None,
        detail: str | None = None,
        headers: Mapping[str, str] | None = None,
        extensions: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(status, detail or "", None if headers is None else dict(headers))
        self.type = type
        self.title = title or TITLES.get(type) or _phrase(status)
        self.extensions = dict(extensions or {})


class ProblemDetails(BaseModel):
    """
    The document, for OpenAPI.
    """

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="Names the kind of problem.", examples=["urn:magnus:problem:pool-timeout"])
    title: str
    status: int
    detail: str | None = None
    request_id: str | None = Field(default=None, description="Quote it when you ask about this answer.")


def problem_document(problem: Problem, *, type_base: str = TYPE_BASE) -> dict[str, Any]:
    """
    Return the JSON object of a problem. `type_base` completes a type that is a bare word.
    """
    is_whole = ":" in problem.type or "/" in problem.type
    document: dict[str, Any] = {
        "type": problem.type if is_whole else f"{type_base}{problem.type}",
        "title": problem.title,
        "status": problem.status_code,
    }
    if problem.detail:
        document["detail"] = problem.detail
    return {**document, **{name: value for name, value in problem.extensions.items() if name not in _MEMBERS}}


def problem_response(problem: Problem, *, type_base: str = TYPE_BASE) -> Response:
    """
    Return the response for a problem; the id of the request, when one is bound, goes with it.
    """
    if problem.status_code in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:
        return Response(status_code=problem.status_code, headers=problem.headers)
    document = problem_document(problem, type_base=type_base)
    if (request_id := logs.request_id.get()) is not None:
        document["request_id"] = request_id
    # Escaped to ASCII: a text out of JSON may hold a lone surrogate, which UTF-8 cannot carry.
    return Response(json.dumps(document), problem.status_code, problem.headers, PROBLEM_JSON)


def problem_of(error: Exception, *, is_safe: bool) -> Problem | None:
    """
    Return what a caller is told about an error of the data layer, or None when it is none of the layer's.

    `is_safe`: the request could only read. When it could write and the connection was lost, nobody knows what was
    stored: the caller hears that, and how to find out.
    """
    found: Problem | None = None
    match error:
        case PoolTimeout() if error.phase != "connect":
            found = _pool_timeout(error.phase, error.waited)
        case Overloaded():
            found = _overloaded(error.lane, error.waiting, error.retry_after)
        case QueryTimeout():
            found = _query_timeout(error.priority, error.timeout)
        case OutcomeUnknown():
            found = _outcome_unknown()
        case KeyReused() | InProgress() | AlreadyExecuted():
            found = _of_key(error)
        case ConnectError() | PoolError():  # a PoolTimeout too, when no server could be reached
            found = _unavailable()
        case _ if is_connection_lost(error):
            found = _unavailable() if is_safe else _outcome_unknown()
        case asyncpg.PostgresError():
            found = _refused_by_server(str(error.sqlstate))
    return found


def _of_key(error: KeyReused | InProgress | AlreadyExecuted) -> Problem:
    match error:
        case InProgress():
            after = {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
            detail = "Repeat it with the same Idempotency-Key to get its answer."
            return Problem(409, type="in-progress", detail=detail, headers=after)
        case AlreadyExecuted():
            detail = "Its answer is not kept any more; nothing was done now."
            made = {} if error.reference is None else {"reference": error.reference}
            return Problem(409, type="already-executed", detail=detail, extensions=made)
    detail = "Nothing was done. Use a new Idempotency-Key for a new request."
    return Problem(422, type="idempotency-key-reused", detail=detail)


def _refused_by_server(sqlstate: str) -> Problem | None:
    """
    Every refusal here ended the transaction, so a repeat is safe; other codes are the application's to handle.
    """
    if sqlstate in {"40001", "40P01", "55P03"}:
        return _conflict()
    if sqlstate == "57014":
        return Problem(503, type="query-timeout", detail=_ENDED, headers=_RETRY)
    return _unavailable() if sqlstate == "57P03" or sqlstate.startswith("53") else None


def _pool_timeout(phase: str, waited: float) -> Problem:
    more = {"phase": phase, "waited_ms": round(waited * 1000)}
    return Problem(503, type="pool-timeout", detail=_REPEAT, headers=_RETRY, extensions=more)


def _overloaded(lane: str, waiting: int, retry_after: float) -> Problem:
    after = {"Retry-After": str(max(1, math.ceil(retry_after)))}
    more = {"lane": lane, "waiting": waiting}
    return Problem(503, type="overloaded", detail=_REPEAT, headers=after, extensions=more)


def _query_timeout(priority: str, timeout: float) -> Problem:
    more = {"priority": priority, "timeout_ms": round(timeout * 1000)}
    return Problem(503, type="query-timeout", detail=_ENDED, headers=_RETRY, extensions=more)


def _conflict() -> Problem:
    return Problem(503, type="conflict", detail="It was rolled back. Repeat the request.", headers=_RETRY)


def _unavailable() -> Problem:
    return Problem(503, type="database-unavailable", detail=_REPEAT, headers=_RETRY)


def _outcome_unknown() -> Problem:
    detail = (
        "The connection was lost before the answer arrived. Repeat the same request with the same Idempotency-Key; "
        "without such a key, look first whether the change is there."
    )
    return Problem(503, type="outcome-unknown", detail=detail, headers=_RETRY)


def install_error_handlers(app: FastAPI, *, type_base: str = TYPE_BASE) -> None:
    """
    Answer every error of this application with a problem document.

    Errors of the data layer become 503 with `Retry-After`, invalid requests 422 without their input, HTTPExceptions
    keep status and headers, and anything else is a 500 that tells its request id and nothing more; the exception is
    in the server's log alone.
    """
    refusals = RefusalLog()

    async def on_problem(request: Request, error: Exception) -> Response:
        if request.scope["type"] != "http":
            raise error
        found = _to_problem(error, is_safe=request.method in _SAFE_METHODS)
        if found is None:
            raise error
        if isinstance(error, Overloaded):  # many at once, by their nature
            refusals.refused(f"lane {error.lane}")
        elif found.status_code >= 500 and not isinstance(error, HTTPException):
            _log.warning(
                "request_failed",
                extra={"problem": found.type, "error_type": type(error).__name__, "path": request.url.path},
            )
        return problem_response(found, type_base=type_base)

    async def on_unhandled(request: Request, _error: Exception) -> Response:
        # The id stays bound: the server logs the exception after this, in the same task, and its line needs the id.
        request_id = request.scope.get("state", {}).get("request_id")
        headers = None
        if request_id is not None:
            logs.request_id.set(request_id)
            headers = {"X-Request-ID": request_id}
        detail = "It has been logged. Quote the request id when you ask about it."
        return problem_response(
            Problem(500, type="internal-error", detail=detail, headers=headers), type_base=type_base
        )

    for kind in (HTTPException, RequestValidationError, *_LAYER_ERRORS):
        app.add_exception_handler(kind, on_problem)
    app.add_exception_handler(Exception, on_unhandled)


# The last four are what a lost connection comes as; each has other meanings too, and `is_connection_lost` tells.
_LAYER_ERRORS: Final = (
    PoolError,
    ConnectError,
    QueryTimeout,
    OutcomeUnknown,
    KeyReused,
    InProgress,
    AlreadyExecuted,
    ConnectionError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


def _to_problem(error: Exception, *, is_safe: bool) -> Problem | None:
    match error:
        case Problem():
            return error
        case RequestValidationError():
            return _invalid(error.errors())
        case HTTPException():
            return _plain(error)
        case _:
            return problem_of(error, is_safe=is_safe)


def _plain(error: HTTPException) -> Problem:
    """
    `detail` may be any JSON value in FastAPI; RFC 9457 wants a text there.
    """
    detail: object = error.detail
    if isinstance(detail, str):
        text = None if detail == _phrase(error.status_code) else detail
        return Problem(error.status_code, detail=text, headers=error.headers)
    return Problem(error.status_code, headers=error.headers, extensions={"errors": jsonable_encoder(detail)})


def _invalid(errors: Sequence[Any]) -> Problem:
    found = [describe(error) for error in errors]
    detail = f"{len(found)} part{'s are' if len(found) > 1 else ' is'} wrong; see errors."
    return Problem(422, type="invalid-request", detail=detail, extensions={"errors": found})


def describe(error: Mapping[str, Any]) -> dict[str, str]:
    """
    Return one validation error as place, code and text, without the value that was sent.
    """
    place, *path = error["loc"] or ("request",)
    offered = [text for text in (error.get("input"), error.get("ctx", {}).get("tag")) if isinstance(text, str) and text]
    text = error["msg"]
    return {
        "in": str(place),
        "pointer": "".join(f"/{_step(step)}" for step in path),
        "code": error["type"],
        "detail": "The value is not valid." if any(part in text for part in offered) else text,
    }


def _step(step: object) -> str:
    return str(step)[:64].replace("~", "~0").replace("/", "~1")  # RFC 6901; a name may be as long as the sender likes


def problem_responses(*answers: int | Problem) -> dict[int | str, dict[str, Any]]:
    """
    Return the `responses=` of a route or router for OpenAPI: `problem_responses(401, 404, 422, 503)`.

    A number documents a status; 503 stands for every answer of the data layer. A `Problem` documents itself, as one
    example of its status.
    """
    problems: dict[int, list[Problem]] = {}
    for answer in answers:
        found = [answer] if isinstance(answer, Problem) else _examples(answer)
        problems.setdefault(found[0].status_code, []).extend(found)
    return {status: _documented(status, found) for status, found in problems.items()}


def _examples(status: int) -> list[Problem]:
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        layer = [_pool_timeout("wait", 2.0), _overloaded("low", 64, 1.0), _query_timeout("high", 10.0)]
        return [*layer, _unavailable(), _conflict(), _outcome_unknown()]
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        missing = {"loc": ("body", "symbol"), "msg": "Field required", "type": "missing"}
        return [_invalid([missing])]
    return [Problem(status)]


def _documented(status: int, problems: Sequence[Problem]) -> dict[str, Any]:
    examples = {
        found.type: {"summary": found.title, "value": problem_document(found, type_base=TYPE_BASE)}
        for found in problems
    }
    documented: dict[str, Any] = {
        "description": _phrase(status),
        "content": {PROBLEM_JSON: {"schema": ProblemDetails.model_json_schema(), "examples": examples}},
    }
    headers = sorted({name for found in problems for name in found.headers or ()})
    if headers:
        documented["headers"] = {name: {"schema": {"type": "string"}} for name in headers}
    return documented


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
