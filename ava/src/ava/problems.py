"""What callers of AVA are told when the answer is no: fixed words, fixed texts, RFC 9457.

The texts hold no figures and no input: a refusal is stored as its word alone, and a repeated request must get the
same bytes again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from fastapi.responses import JSONResponse
from starlette.routing import Match

from ava.services.account import AccountMissing
from ava.services.import_file import FileInvalid, TooManyRows
from ava.services.reporting import CursorInvalid
from ava.services.rules import DETAILS, Reason
from magnus import AlreadyExecuted, InProgress, KeyReused
from magnus.fastapi import Problem, problem_response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response

_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
TYPE_BASE: Final = "urn:ava:problem:"


REPLAYED: Final[Mapping[str, str]] = MappingProxyType({"Idempotency-Replayed": "true"})
REPLAYED_HEADER: Final[Mapping[str, Any]] = MappingProxyType({
    "Idempotency-Replayed": {
        "description": "The request had been answered before; this is that answer.",
        "schema": {"type": "string", "const": "true"},
    }
})


@dataclass(frozen=True, slots=True)
class Text:
    """
    Status and wording of one kind of problem.
    """

    status: int
    title: str
    detail: str


_REFUSALS: Final[Mapping[Reason, tuple[int, str]]] = MappingProxyType({
    Reason.UNKNOWN_INSTRUMENT: (422, "Unknown instrument"),
    Reason.CURRENCY_MISMATCH: (422, "Wrong currency"),
    Reason.AMOUNT_TOO_SMALL: (422, "Amount too small"),
    Reason.AMOUNT_TOO_LARGE: (422, "Amount too large"),
    Reason.NOT_TRADABLE: (409, "Instrument not tradable"),
    Reason.NO_PRICE: (409, "No price"),
    Reason.LIMIT_NOT_MET: (409, "Limit not met"),
    Reason.INSUFFICIENT_CASH: (409, "Insufficient cash"),
    Reason.INSUFFICIENT_HOLDINGS: (409, "Insufficient holdings"),
})

TEXTS: Final[Mapping[str, Text]] = MappingProxyType({
    **{reason: Text(status, title, DETAILS[reason]) for reason, (status, title) in _REFUSALS.items()},
    "idempotency-key-reused": Text(
        422, "Idempotency-Key reused", "The key belongs to a different request of this account. Use a new key."
    ),
    "in-progress": Text(
        409, "In progress", "The same request is being carried out. Repeat it, with the same key, to get its answer."
    ),
    "already-executed": Text(
        409,
        "Already executed",
        "It was carried out so long ago that its answer is not kept. trade_id is what it made, if it did.",
    ),
    "unauthenticated": Text(401, "Not authenticated", "Send a valid token: Authorization: Bearer ava_…"),
    "account-not-open": Text(409, "Account not open", "The account has no cash balance yet."),
    "unknown-trade": Text(404, "Unknown trade", "This account has no trade with this id."),
    "invalid-cursor": Text(422, "Invalid cursor", "Use next_cursor of an earlier page as it is."),
    "invalid-period": Text(422, "Invalid period", "The period ends before it begins."),
    "unsupported-media-type": Text(415, "Unsupported media type", "Send the content type that the operation names."),
    "invalid-file": Text(400, "Invalid file", "The file cannot be read as CSV with the columns of an import."),
    "body-too-large": Text(413, "Body too large", "The body is over the limit of this operation."),
    "too-many-rows": Text(413, "Too many rows", "The file has more rows than one import may have; send it in parts."),
    "import-refused": Text(422, "Import refused", "Some rows cannot be booked, so none was. See errors."),
})


def problem(
    word: str, *, detail: str | None = None, headers: Mapping[str, str] | None = None, **extensions: Any
) -> Problem:
    """
    Return the problem that a word of `TEXTS` names, to be raised.
    """
    text = TEXTS[word]
    return Problem(
        text.status,
        type=TYPE_BASE + word,
        title=text.title,
        detail=detail or text.detail,
        headers=headers,
        extensions=extensions,
    )


IN_PROGRESS: Final = problem("in-progress", headers={"Retry-After": "1"})


def document(word: str, **extensions: Any) -> dict[str, Any]:
    """
    Return the problem's document: the same bytes for the same words, so without the request's id.
    """
    text = TEXTS[word]
    named = {"type": TYPE_BASE + word, "title": text.title, "status": text.status, "detail": text.detail}
    return {**named, **extensions}


def final(word: str, *, is_replayed: bool, **extensions: Any) -> Response:
    """
    Return the response of a final refusal, which a repeated request gets again.
    """
    return JSONResponse(
        document(word, **extensions), TEXTS[word].status, REPLAYED if is_replayed else None, "application/problem+json"
    )


_OF_ERRORS: Final[Mapping[type[Exception], str]] = MappingProxyType({
    AccountMissing: "account-not-open",
    CursorInvalid: "invalid-cursor",
    FileInvalid: "invalid-file",
    TooManyRows: "too-many-rows",
})


def problem_of_key(error: Exception) -> Problem:
    """
    Return what a caller is told whose key has a history.
    """
    match error:
        case InProgress():
            return problem("in-progress", headers={"Retry-After": str(max(1, math.ceil(error.retry_after)))})
        case AlreadyExecuted():
            return problem("already-executed", trade_id=None if error.reference is None else int(error.reference))
    return problem("idempotency-key-reused")


def install_handlers(app: FastAPI) -> None:
    """
    Answer the errors of the services with their problems.
    """

    async def answer(_request: Request, error: Exception) -> Response:
        return problem_response(problem(_OF_ERRORS[type(error)], detail=str(error) or None))

    async def of_key(_request: Request, error: Exception) -> Response:
        return problem_response(problem_of_key(error))

    async def wrong_method(request: Request, _error: Exception) -> Response:
        return problem_response(Problem(405, headers={"Allow": ", ".join(allowed_methods(request))}))

    for kind in _OF_ERRORS:
        app.add_exception_handler(kind, answer)
    for kind in (KeyReused, InProgress, AlreadyExecuted):
        app.add_exception_handler(kind, of_key)
    app.add_exception_handler(405, wrong_method)


def allowed_methods(request: Request) -> list[str]:
    """
    Return every method that the path answers to: the router names those of the first route that has the path only.
    """

    def is_routed(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return [method for method in _METHODS if is_routed(method)]
