"""A PostgreSQL for one benchmark: thrown away afterwards, on a unix socket, with one small table in it."""

from __future__ import annotations

import asyncio
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import asyncpg

from magnus.embedded import Binaries, throwaway
from magnus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

ACCOUNTS = 10_000

_SCHEMA = f"""
    create table account (id bigint primary key, owner text not null, cents bigint not null) with (fillfactor = 50);
    insert into account select id, 'owner ' || id, id * 100 from generate_series(1, {ACCOUNTS}) as id;
"""


@contextmanager
def accounts(max_connections: int = 200) -> Iterator[str]:
    """
    Serve a table `account` of `ACCOUNTS` rows as long as the block lasts; yields the DSN of the unix socket.
    """
    try:
        binaries = Binaries.bundled()
    except ConfigError as missing:
        sys.exit(f"nothing can be measured without a server: {missing.reason}")
    with throwaway(binaries, max_connections=max_connections) as cluster:
        asyncio.run(_fill(cluster.dsn()))
        yield cluster.dsn()


async def _fill(dsn: str) -> None:
    con = await asyncpg.connect(dsn)
    try:
        await con.execute(_SCHEMA)
        await con.execute("vacuum analyze account")
        await con.execute("checkpoint")
    finally:
        await con.close()
