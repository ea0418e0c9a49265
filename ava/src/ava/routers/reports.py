"""Reports over HTTP."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Query

from ava import models  # noqa: TC001  # FastAPI reads annotations at run time
from ava.auth import CHALLENGE, Me
from ava.problems import problem
from ava.services import reporting
from magnus import QueryPriority
from magnus.fastapi import Db, lane, problem_responses

router = APIRouter(prefix="/reports", tags=["reports"])


@router.get(
    "/monthly",
    dependencies=[lane(QueryPriority.LOW)],
    responses=problem_responses(problem("unauthenticated", headers=CHALLENGE), 422, problem("invalid-period"), 503),
)
async def monthly_report(wanted: Annotated[models.MonthlyQuery, Query()], me: Me, db: Db) -> models.MonthlyReport:
    """
    Return realised profit and loss by month, in the time zone of the account.
    """
    first, last = (date.fromisoformat(f"{month}-01") for month in (wanted.first, wanted.last))
    if first > last:
        raise problem("invalid-period")
    return await reporting.monthly(db, me.account_id, first, last)
