"""The caller's account over HTTP."""

from __future__ import annotations

from fastapi import APIRouter

from ava import models  # noqa: TC001  # FastAPI reads annotations at run time
from ava.auth import CHALLENGE, Me
from ava.problems import problem
from ava.services import reporting
from magnus import QueryPriority
from magnus.fastapi import Db, lane, problem_responses

router = APIRouter(prefix="/account", tags=["account"])


@router.get(
    "",
    dependencies=[lane(QueryPriority.HIGH)],
    responses=problem_responses(problem("unauthenticated", headers=CHALLENGE), 503),
)
async def read_account(me: Me, db: Db) -> models.Account:
    """
    Return the account that the token belongs to, with its cash.
    """
    return await reporting.account(db, me.account_id)
