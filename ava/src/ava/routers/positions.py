"""Positions over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from ava import models  # noqa: TC001  # FastAPI reads annotations at run time
from ava.auth import CHALLENGE, Me
from ava.problems import problem
from ava.services import reporting
from magnus import QueryPriority
from magnus.fastapi import Db, lane, problem_responses

router = APIRouter(prefix="/positions", tags=["positions"])


@router.get(
    "",
    dependencies=[lane(QueryPriority.HIGH)],
    responses=problem_responses(problem("unauthenticated", headers=CHALLENGE), 422, 503),
)
async def list_positions(wanted: Annotated[models.PositionQuery, Query()], me: Me, db: Db) -> models.Positions:
    """
    Return the open positions at the current quotes, and the cash beside them.
    """
    return await reporting.positions(db, me.account_id, with_closed=wanted.with_closed)
