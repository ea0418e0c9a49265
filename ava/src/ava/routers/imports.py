"""Imports of trades over HTTP."""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager
from dataclasses import asdict
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.datastructures import UploadFile

from ava import examples, models, problems
from ava.auth import CHALLENGE, IdempotencyKey, Me
from ava.problems import problem
from ava.services import importing
from ava.services.importing import Limits, Mode
from magnus import QueryPriority
from magnus.fastapi import Db, lane, problem_responses

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_SPOOLED: Final = 1024 * 1024
_PIECE: Final = 256 * 1024
_FORM: Final = {
    "type": "object",
    "properties": {"file": {"type": "string", "format": "binary"}},
    "required": ["file"],
}
_BODY: Final = {
    "required": True,
    "content": {
        "text/csv": {"schema": {"type": "string"}, "example": examples.IMPORT_FILE},
        "multipart/form-data": {"schema": _FORM},
    },
}

router = APIRouter(tags=["imports"])


@asynccontextmanager
async def uploaded(request: Request) -> AsyncIterator[IO[bytes]]:
    """
    Give the file of a request, on disk when it is large: the body itself, or the form's part named `file`.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "text/csv":
        with SpooledTemporaryFile(max_size=_SPOOLED) as file:
            async for piece in request.stream():
                file.write(piece)
            yield file
    elif kind == "multipart/form-data":
        async with request.form(max_files=1, max_fields=0) as form:
            part = form.get("file")
            if not isinstance(part, UploadFile):
                raise problem("invalid-file", detail="The form has no file in a part named file.")
            yield part.file
    else:
        raise problem("unsupported-media-type")


def digest(file: IO[bytes], mode: Mode) -> bytes:
    """
    Return the SHA-256 that two imports have in common exactly when file and mode are equal.
    """
    found = hashlib.sha256(f"{mode.value}\n".encode())
    file.seek(0)
    while piece := file.read(_PIECE):
        found.update(piece)
    return found.digest()


async def limits_of(request: Request) -> Limits:
    """
    Return the limits that the application was made with.
    """
    settings = request.app.state.settings
    return Limits(max_rows=settings.import_max_rows, batch_rows=settings.import_batch_rows)


@router.post(
    "/import",
    dependencies=[lane(QueryPriority.BACKGROUND)],
    response_model=models.ImportReport,
    openapi_extra={"requestBody": _BODY},
    responses={
        200: {"description": "What became of the rows.", "headers": dict(problems.REPLAYED_HEADER)},
        **problem_responses(
            problem("unauthenticated", headers=CHALLENGE), problem("invalid-file"), problem("account-not-open"),
            problem("body-too-large"), problem("too-many-rows"), problem("unsupported-media-type"), 422,
            problem("idempotency-key-reused"), problem("import-refused", **examples.IMPORT_REFUSED),
            problems.IN_PROGRESS, problem("already-executed", trade_id=None), 503,
        ),
    },
)  # fmt: skip
async def import_trades(
    *,
    request: Request,
    key: IdempotencyKey,
    me: Me,
    db: Db,
    limits: Annotated[Limits, Depends(limits_of)],
    mode: Annotated[
        Mode, Query(description="all: the whole file or nothing. partial: the rows that can be.")
    ] = Mode.ALL,
) -> Any:
    """
    Book trades that were executed elsewhere, exactly once, from CSV in UTF-8 with a header.

    Columns: `external_id` (unique in the account, for ever), `symbol`, `side`, `quantity`, `price`, `executed_at` (ISO
    8601 with the offset from UTC, not in the future), and `fee` (may be missing or empty: no fee). Rows are booked
    in the order of the file, by the rules of an order: cash must cover buys, the position must cover sales. A row
    that is a trade of the account already is counted as a duplicate and left alone; a different trade with the same
    `external_id` is rejected.

    Sent again with the same key, the answer is given again; when the first attempt was cut off, it is taken up where
    it was. With `mode=all` one rejected row rejects the file, with 422 and the same report.
    """
    async with uploaded(request) as file:
        asked = importing.Request(me.account_id, key, digest(file, mode), mode, file)
        report, is_replayed = await importing.run(db, asked, limits)
    answer = models.ImportReport.model_validate(asdict(report))
    if report.is_refused:
        return problems.final("import-refused", is_replayed=is_replayed, **answer.model_dump(mode="json"))
    headers = problems.REPLAYED if is_replayed else None
    return Response(answer.model_dump_json(), 200, headers, "application/json")
