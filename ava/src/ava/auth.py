"""Who asks: a bearer token to the account it belongs to. The account comes from the token and from nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Header
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from ava import tokens
from ava.problems import problem
from ava.sql import statement
from magnus.fastapi import Db  # noqa: TC001  # FastAPI reads annotations at run time

LONGEST_TOKEN: Final = 256
CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="ava"'}
CHALLENGE_INVALID: Final = {"WWW-Authenticate": 'Bearer realm="ava", error="invalid_token"'}

_bearer: Final = HTTPBearer(
    auto_error=False, scheme_name="token", bearerFormat="ava_…", description="A token of an account."
)


@dataclass(frozen=True, slots=True)
class Caller:
    """
    The account that a request acts for.
    """

    account_id: int


async def authenticate(db: Db, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> Caller:
    """
    Return the caller, or answer 401: no token, an unknown one, one that has expired or was revoked.

    Only the token's digest is looked for, by an index, so the time it takes tells nothing about other tokens. The
    primary alone is asked: a standby may not have heard yet that a token was revoked.
    """
    if credentials is None:
        raise problem("unauthenticated", headers=CHALLENGE)
    token = credentials.credentials
    if not token.startswith(tokens.PREFIX) or len(token) > LONGEST_TOKEN:
        raise problem("unauthenticated", headers=CHALLENGE_INVALID)
    with db.reads_on_primary():
        account_id = await db.fetchval(statement("queries/account_of_token"), tokens.digest(token), read=True)
    if account_id is None:
        raise problem("unauthenticated", headers=CHALLENGE_INVALID)
    return Caller(account_id)


Me = Annotated[Caller, Depends(authenticate)]

IdempotencyKey = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x20-\x7e]+$",
        description="Chosen by the caller, one for each request that is meant to happen once. The same key with the "
        "same request gets the same answer, for ever; with another request it is refused.",
        examples=["4f1c1f4e-0b56-4c38-9f0e-5d4c9a0a7c11"],
    ),
]
