"""Errors as problem documents: what a caller is told, and what never."""

from __future__ import annotations

import json
import logging
from typing import Annotated, Any, Literal

import asyncpg
import httpx2
import pytest
from fastapi import Body, FastAPI, HTTPException
from pydantic import BaseModel, Field, field_validator

from magnus.errors import (
    AlreadyExecuted,
    CommitRolledBack,
    ConfigError,
    ConnectError,
    InProgress,
    KeyReused,
    OutcomeUnknown,
    Overloaded,
    PoolTimeout,
    QueryTimeout,
)
from magnus.fastapi import (
    Problem,
    RequestIdMiddleware,
    install_error_handlers,
    problem_of,
    problem_response,
    problem_responses,
)

CANARY = "hunter2-canary"


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Order(BaseModel):
    model_config = {"extra": "forbid"}

    symbol: str = Field(max_length=5)
    quantity: int
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] | None = None

    @field_validator("symbol")
    @classmethod
    def known(cls, value: str) -> str:
        if value.startswith("hun"):
            raise ValueError(f"no such symbol: {value}")
        return value


def app_that_raises(error: Exception) -> FastAPI:
    app = FastAPI()
    app.add_middleware(RequestIdMiddleware)
    install_error_handlers(app)

    @app.api_route("/", methods=["GET", "POST"])
    async def handler() -> None:
        raise error

    @app.post("/orders/{number}")
    async def order(number: int, order: Annotated[Order, Body()]) -> None: ...

    return app


async def ask(app: FastAPI, method: str = "GET", path: str = "/", **more: Any) -> httpx2.Response:
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, path, **more)


LAYER = [
    (PoolTimeout("all 30 in use", phase="wait", waited=2.0), "pool-timeout", "1", {"phase": "wait", "waited_ms": 2000}),
    (PoolTimeout("no server", phase="connect", waited=2.0), "database-unavailable", "1", {}),
    (Overloaded(lane="low", waiting=64, retry_after=2.1), "overloaded", "3", {"lane": "low", "waiting": 64}),
    (Overloaded(lane="low", waiting=64, retry_after=0.0), "overloaded", "1", {}),
    (ConnectError(CANARY, reason="credentials"), "database-unavailable", "1", {}),
    (QueryTimeout(priority="high", timeout=10.0, elapsed=10.01), "query-timeout", "1", {"timeout_ms": 10_000}),
    (OutcomeUnknown(key=CANARY), "outcome-unknown", "1", {}),
]


@pytest.mark.parametrize(("error", "kind", "after", "members"), LAYER)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_errors_of_the_layer_become_503_with_retry_after(error, kind, after, members, method):
    """Each has its type, title, Retry-After and data, and no text of the exception."""
    response = await ask(app_that_raises(error), method)
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["retry-after"] == after
    document = response.json()
    assert document["type"] == f"urn:magnus:problem:{kind}"
    assert document["status"] == 503
    assert document["title"]
    assert members.items() <= document.items()
    assert CANARY not in response.text
    assert str(error) not in response.text


async def test_an_unknown_outcome_says_how_to_find_out():
    """The caller is told to repeat with the same key."""
    response = await ask(app_that_raises(OutcomeUnknown()), "POST")
    assert "same Idempotency-Key" in response.json()["detail"]


KEYS = [
    (KeyReused(CANARY), 422, "idempotency-key-reused", None, {}),
    (InProgress(CANARY, retry_after=1.2), 409, "in-progress", "2", {}),
    (AlreadyExecuted(CANARY, "4711"), 409, "already-executed", None, {"reference": "4711"}),
]


@pytest.mark.parametrize(("error", "status", "kind", "after", "members"), KEYS)
async def test_a_key_with_a_history_is_answered_as_such(error, status, kind, after, members):
    """Another request's, in progress, or answered long ago: each its own word, and never the key itself."""
    response = await ask(app_that_raises(error), "POST")
    document = response.json()
    assert (response.status_code, document["type"]) == (status, f"urn:magnus:problem:{kind}")
    assert response.headers.get("retry-after") == after
    assert members.items() <= document.items()
    assert CANARY not in response.text


LOST = [
    asyncpg.ConnectionDoesNotExistError(f"connection was closed in the middle of operation {CANARY}"),
    asyncpg.InterfaceError("cannot perform operation: connection is closed"),
    ConnectionResetError(104, CANARY),
    asyncpg.AdminShutdownError(CANARY),
]


@pytest.mark.parametrize("error", LOST)
@pytest.mark.parametrize(("method", "kind"), [("GET", "database-unavailable"), ("POST", "outcome-unknown")])
async def test_a_lost_connection_is_harmless_only_for_a_read(error, method, kind):
    """On a safe method nothing can have been stored; otherwise the outcome is unknown and the caller hears it."""
    response = await ask(app_that_raises(error), method)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.json()["type"].endswith(kind)
    assert CANARY not in response.text


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError(CANARY),
        ConfigError("dsn", CANARY, "bad"),
        CommitRolledBack(),
        asyncpg.UniqueViolationError(f"Key (a)=({CANARY}) already exists."),
        asyncpg.InterfaceError("cannot use Connection.fetch() in a manually started transaction"),
        TimeoutError(CANARY),
        FileNotFoundError(CANARY),
    ],
)
async def test_any_other_error_is_a_generic_500(error, caplog):
    """A mistake of the program tells its request id and nothing else."""
    response = await ask(app_that_raises(error), headers={"X-Request-ID": "r-1"})
    assert response.status_code == 500
    assert response.headers["x-request-id"] == "r-1"
    assert response.json() == {
        "type": "urn:magnus:problem:internal-error",
        "title": "The service failed",
        "status": 500,
        "detail": "It has been logged. Quote the request id when you ask about it.",
        "request_id": "r-1",
    }


async def test_an_unhandled_error_still_reaches_the_server():
    """The server logs the exception, so it is raised again after the answer."""
    transport = httpx2.ASGITransport(app=app_that_raises(ZeroDivisionError("seen")))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        with pytest.raises(ZeroDivisionError, match="seen"):
            await client.get("/")


async def test_a_503_leaves_one_line_in_the_log(caplog):
    """The log names the problem, the kind of error and the path, not its text."""
    with caplog.at_level(logging.WARNING, logger="magnus.web"):
        await ask(app_that_raises(ConnectError(CANARY)))
    (record,) = [record for record in caplog.records if record.name == "magnus.web"]
    assert record.getMessage() == "request_failed"
    assert (record.problem, record.error_type, record.path) == ("database-unavailable", "ConnectError", "/")
    assert CANARY not in str(vars(record))


BAD_BODIES = [
    ({"symbol": 7, "quantity": 1}, "/symbol", "string_type"),
    ({"symbol": CANARY, "quantity": 1}, "/symbol", "string_too_long"),
    ({"symbol": "hunte", "quantity": 1}, "/symbol", "value_error"),
    ({"symbol": "A", "quantity": CANARY}, "/quantity", "int_parsing"),
    ({"symbol": "A", "quantity": 1, "pet": {"kind": CANARY}}, "/pet", "union_tag_invalid"),
    ({"symbol": "A"}, "/quantity", "missing"),
    ({"symbol": "A", "quantity": 1, "a/b~c" + "x" * 9999: 1}, "/a~1b~0c" + "x" * 59, "extra_forbidden"),
]


@pytest.mark.parametrize(("body", "pointer", "code"), BAD_BODIES)
async def test_invalid_input_is_named_but_not_echoed(body, pointer, code):
    """422 tells the place, the rule and the text, never the value that was sent."""
    response = await ask(
        app_that_raises(ZeroDivisionError()), "POST", "/orders/1",
        content=json.dumps(body), headers={"Content-Type": "application/json"},
    )  # fmt: skip
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    (error,) = response.json()["errors"]
    assert (error["in"], error["pointer"], error["code"]) == ("body", pointer, code)
    assert error["detail"]
    assert CANARY not in response.text
    assert "hunte" not in response.text


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"symbol": NaN}', b'"' + CANARY.encode() + b'"', b"null"]
)
async def test_a_body_that_is_no_json_is_refused(content):
    """Whatever bytes arrive, the answer is a problem of the caller, and does not repeat them."""
    response = await ask(
        app_that_raises(ZeroDivisionError()), "POST", f"/orders/{CANARY}",
        content=content, headers={"Content-Type": "application/json"},
    )  # fmt: skip
    assert response.status_code in {400, 422}
    assert response.headers["content-type"] == "application/problem+json"
    assert CANARY not in response.text


async def test_an_http_exception_keeps_status_and_headers():
    """401 keeps its challenge; a text becomes the detail, another value goes into `errors`."""
    challenge = {"WWW-Authenticate": "Bearer"}
    response = await ask(app_that_raises(HTTPException(401, "No token", headers=challenge)))
    assert response.headers["www-authenticate"] == "Bearer"
    document = response.json()
    document.pop("request_id")
    assert document == {"type": "about:blank", "title": "Unauthorized", "status": 401, "detail": "No token"}
    response = await ask(app_that_raises(HTTPException(409, {"a": 1})))
    assert response.json()["errors"] == {"a": 1}


async def test_unknown_paths_and_methods_are_problems_too():
    """404 and 405 of the router itself have the same form."""
    app = app_that_raises(ZeroDivisionError())
    missing = await ask(app, path="/none")
    assert (missing.status_code, missing.json()["title"]) == (404, "Not Found")
    wrong = await ask(app, "DELETE")
    assert (wrong.status_code, wrong.json()["title"]) == (405, "Method Not Allowed")
    assert wrong.headers["allow"]


async def test_a_status_without_a_body_has_none():
    """304 is sent as it is."""
    response = await ask(app_that_raises(HTTPException(304)))
    assert (response.status_code, response.content) == (304, b"")


async def test_an_application_raises_its_own_problems():
    """Type, title, detail, headers and extension members arrive as written; the application's base completes a word."""
    app = FastAPI()
    install_error_handlers(app, type_base="https://example.org/problems/")

    @app.post("/")
    async def handler() -> None:
        raise Problem(
            409,
            type="insufficient-funds",
            title="Not enough cash",
            detail="The order costs more than the account holds.",
            headers={"X-Hint": "deposit"},
            extensions={"missing": "12.00", "status": 200},
        )

    response = await ask(app, "POST")
    assert response.status_code == 409
    assert response.headers["x-hint"] == "deposit"
    assert response.json() == {
        "type": "https://example.org/problems/insufficient-funds",
        "title": "Not enough cash",
        "status": 409,
        "detail": "The order costs more than the account holds.",
        "missing": "12.00",
    }


def test_a_problem_without_handlers_is_still_an_http_exception():
    """An application that did not install the handlers answers with the right status all the same."""
    assert isinstance(Problem(404), HTTPException.__mro__[1])


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (asyncpg.SerializationError(CANARY), "conflict"),
        (asyncpg.DeadlockDetectedError(CANARY), "conflict"),
        (asyncpg.LockNotAvailableError(CANARY), "conflict"),
        (asyncpg.QueryCanceledError(CANARY), "query-timeout"),
        (asyncpg.TooManyConnectionsError(CANARY), "database-unavailable"),
        (asyncpg.DiskFullError(CANARY), "database-unavailable"),
        (asyncpg.CannotConnectNowError(CANARY), "database-unavailable"),
    ],
)
async def test_a_refusal_that_a_repeat_may_overcome_is_503(error, kind):
    """Concurrency and exhausted resources rolled the transaction back: the caller may repeat the request."""
    response = await ask(app_that_raises(error), "POST")
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.json()["type"].endswith(kind)
    assert CANARY not in response.text


def test_what_is_not_of_the_layer_is_left_alone():
    """`problem_of` claims only what it knows."""
    assert problem_of(ZeroDivisionError(), is_safe=True) is None
    assert problem_of(asyncpg.UniqueViolationError(), is_safe=True) is None


def test_a_lone_surrogate_does_not_break_the_answer():
    """JSON can carry one and UTF-8 cannot; an application may repeat it."""
    found = problem_response(Problem(409, extensions={"symbol": "\ud800"}))
    assert json.loads(found.body)["symbol"] == "\ud800"


def test_without_a_request_id_none_is_shown():
    """The member is left out, not null."""
    assert "request_id" not in json.loads(problem_response(Problem(404)).body)


def test_problem_responses_document_every_status():
    """Each status has the schema, its media type and examples; 503 shows all answers of the layer and Retry-After."""
    found = problem_responses(401, 422, 503, Problem(409, type="insufficient-funds"))
    assert set(found) == {401, 409, 422, 503}
    for documented in found.values():
        assert set(documented["content"]) == {"application/problem+json"}
    assert set(found[503]["content"]["application/problem+json"]["examples"]) == {
        "pool-timeout",
        "overloaded",
        "database-unavailable",
        "query-timeout",
        "conflict",
        "outcome-unknown",
    }
    assert set(found[503]["headers"]) == {"Retry-After"}
    assert "headers" not in found[401]
    assert "insufficient-funds" in found[409]["content"]["application/problem+json"]["examples"]


def test_problem_responses_replace_the_validation_answer_of_the_framework():
    """The OpenAPI document shows 422 as it is sent."""
    app = FastAPI()

    @app.get("/{number}", responses=problem_responses(422, 503))
    async def handler(number: int) -> None: ...

    responses = app.openapi()["paths"]["/{number}"]["get"]["responses"]
    assert set(responses["422"]["content"]) == {"application/problem+json"}
    assert set(responses["503"]["content"]) == {"application/problem+json"}
