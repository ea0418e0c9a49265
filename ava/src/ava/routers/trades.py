"""Orders and trades over HTTP."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from ava import models, problems
from ava.auth import CHALLENGE, IdempotencyKey, Me
from ava.problems import problem
from ava.services import booking, reporting
from ava.services.reporting import Cursor, TradeFilter
from ava.services.rules import Reason
from magnus import QueryPriority
from magnus.fastapi import Db, lane, problem_responses

router = APIRouter(
    prefix="/trades", tags=["trades"], responses=problem_responses(problem("unauthenticated", headers=CHALLENGE), 503)
)


async def json_only(request: Request, _me: Me) -> None:
    """
    Answer 415 to a body that does not say that it is JSON; 401 comes first.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise problem("unsupported-media-type")


_CREATED: Final[dict[str, Any]] = {
    "description": "The trade; the same one when the request is repeated.",
    "headers": {
        "Location": {"description": "The trade's URL.", "schema": {"type": "string"}},
        **problems.REPLAYED_HEADER,
    },
}


@router.post(
    "",
    status_code=201,
    response_model=models.Trade,
    dependencies=[lane(QueryPriority.CRITICAL), Depends(json_only)],
    responses={
        201: _CREATED,
        **problem_responses(
            400, 413, problem("unsupported-media-type"), problem("account-not-open"), 422,
            problem("idempotency-key-reused"), problems.IN_PROGRESS, problem("already-executed", trade_id=1),
            *(problem(reason) for reason in Reason),
        ),
    },
)  # fmt: skip
async def create_trade(
    *, order: models.OrderIn, key: IdempotencyKey, me: Me, db: Db, request: Request, response: Response
) -> Any:
    """
    Execute an order at the current quote, exactly once.

    The answer is final, a refusal too: repeated with the same key it is given again, with `Idempotency-Replayed:
    true`, even when it would be a different one by now. Quantities and prices are compared by value: "10" and "10.0"
    are the same request. An order through the API pays no fee.
    """
    asked = booking.Order(order.symbol, order.side, order.quantity, order.limit_price)
    answer = await booking.book(db, me.account_id, key, asked)
    if isinstance(answer.outcome, Reason):
        return problems.final(answer.outcome, is_replayed=answer.is_replayed)
    response.headers["Location"] = f"{request.url.path}/{answer.outcome.id}"
    if answer.is_replayed:
        response.headers.update(problems.REPLAYED)
    return models.Trade.model_validate(asdict(answer.outcome))


@router.get(
    "",
    dependencies=[lane(QueryPriority.NORMAL)],
    responses=problem_responses(422, problem("invalid-cursor")),
)
async def list_trades(
    wanted: Annotated[models.TradeQuery, Query()], me: Me, db: Db, request: Request
) -> models.TradePage:
    """
    Return trades, newest first, page by page. Trades that are booked meanwhile do not shift the pages.
    """
    after = None if wanted.cursor is None else Cursor.decode(wanted.cursor)
    chosen = TradeFilter(wanted.symbol, wanted.side, wanted.since, wanted.until)
    items, following = await reporting.trades(db, me.account_id, chosen, after=after, limit=wanted.limit)
    cursor = None if following is None else following.encode()
    return models.TradePage(items=items, next_cursor=cursor, next=_next(request, cursor))


def _next(request: Request, cursor: str | None) -> str | None:
    if cursor is None:
        return None
    kept = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
    return f"{request.url.path}?{urlencode([*kept, ('cursor', cursor)])}"


@router.get(
    "/{trade_id}",
    dependencies=[lane(QueryPriority.NORMAL)],
    responses=problem_responses(problem("unknown-trade"), 422),
)
async def read_trade(trade_id: Annotated[int, Path(ge=1, lt=2**63)], me: Me, db: Db) -> models.Trade:
    """
    Return one trade. That of another account is as unknown as one that does not exist.
    """
    found = await reporting.trade(db, me.account_id, trade_id)
    if found is None:
        raise problem("unknown-trade")
    return found
