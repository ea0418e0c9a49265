"""`magnus cache`: the triggers that tell caches of other processes what has changed, made, printed, and removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import asyncpg

from magnus import cache
from magnus.cli.answer import Answer, ExitCode, Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from magnus._driver import Connection

BUSY: Final = 10.0
"""Rows written a second, on average, above which a table gets no trigger."""

_MAKE: Final = {"install": cache.install, "remove": cache.remove}
_WRITES: Final = """
SELECT (t.n_tup_ins + t.n_tup_upd + t.n_tup_del)
       / greatest(extract(epoch FROM now() - coalesce(d.stats_reset, pg_postmaster_start_time())), 600)
  FROM pg_stat_all_tables t JOIN pg_stat_database d ON d.datname = current_database() WHERE t.relid = to_regclass($1)
"""


def script(kind: str, tables: Sequence[str]) -> Answer:
    """
    Return the SQL, to be read, kept or run by somebody else.
    """
    text = _MAKE[kind](tables)
    return Answer(f"cache {kind}", {"sql": text}, text.rstrip().splitlines())


async def migrate(con: Connection, kind: str, tables: Sequence[str]) -> Answer | Failure:
    """
    Run that SQL, all or nothing.
    """
    text = _MAKE[kind](tables)
    if kind == "install":
        for table in tables:
            name = table.partition("=")[0]
            rate = await con.fetchval(_WRITES, ".".join(f'"{part}"' for part in name.split(".")))
            if rate is not None and rate > BUSY:
                told = f"{name} is written {rate:.0f} times a second: its writers would wait for each other"
                advice = "cache it with a short ttl instead; or make the trigger all the same, with --print and psql"
                return Failure("cache install", ExitCode.REFUSED, told, advice)
    try:
        async with con.transaction():
            await con.execute(text)
    except (asyncpg.UndefinedTableError, asyncpg.WrongObjectTypeError):
        return Failure(f"cache {kind}", ExitCode.USAGE, f"not all of these are tables here: {', '.join(tables)}")
    except asyncpg.InsufficientPrivilegeError:
        advice = f"run it as the owner of the tables: magnus cache {kind} … --print | psql"
        return Failure(f"cache {kind}", ExitCode.UNREACHABLE, "this role may not change these tables", advice)
    names = ", ".join(tables) or "magnus_cache"
    done = f"{names}: changes are told" if kind == "install" else f"{names}: changes are told no more"
    return Answer(f"cache {kind}", {"done": True, "tables": list(tables)}, [done])
