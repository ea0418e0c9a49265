"""`magnus once`: the table of units of work that happen once, made, printed, and relieved of old answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import asyncpg

from magnus import once
from magnus.cli.answer import Answer, ExitCode, Failure

if TYPE_CHECKING:
    from magnus._driver import Connection

DAY: Final = 86_400.0


def script() -> Answer:
    """
    Return the SQL that makes the table.
    """
    return Answer("once install", {"sql": once.table()}, [once.table().rstrip()])


async def install(con: Connection) -> Answer | Failure:
    """
    Run that SQL, all or nothing.
    """
    try:
        async with con.transaction():
            await con.execute(once.table())
    except asyncpg.InsufficientPrivilegeError:
        advice = "run it as a role that may create here: magnus once install --print | psql"
        return Failure("once install", ExitCode.UNREACHABLE, "this role may not create tables here", advice)
    return Answer("once install", {"done": True}, ["magnus_once is there and up to date"])


async def expire(con: Connection, days: float) -> Answer | Failure:
    """
    Take away the answers that are older than so many days.
    """
    if not days >= 0:
        return Failure("once expire", ExitCode.USAGE, f"--days must be at least 0 (got {days:g})")
    total, count = 0, once.BATCH
    try:
        while count == once.BATCH:
            count = int((await con.execute(once.EXPIRE, days * DAY, once.BATCH)).rpartition(" ")[2])
            total += count
    except asyncpg.UndefinedTableError:
        return Failure("once expire", ExitCode.UNREACHABLE, "magnus_once does not exist here", "magnus once install")
    return Answer("once expire", {"expired": total}, [f"{total} answers are gone; every key is kept"])
