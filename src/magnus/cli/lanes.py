"""The table of lanes for a pool of a given size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from magnus.cli.answer import Answer, Table
from magnus.config import DatabaseConfig
from magnus.errors import ConfigError
from magnus.pool import lane_table

if TYPE_CHECKING:
    from collections.abc import Mapping


def lanes(pool_size: int, environ: Mapping[str, str]) -> Answer:
    """
    Say for each lane how long a statement may take, how many slots it and all below it may hold, and how many of its
    cap nothing below can touch.

    The limits are those that `environ` configures.

    Raises:
        ConfigError: `pool_size` is below 1, or a variable has an impossible value.
    """
    config = DatabaseConfig.from_environ(environ)
    if pool_size < 1:
        raise ConfigError("--pool-size", pool_size, "must be at least 1")
    table = lane_table(pool_size)
    below = [*(limits.cap for limits in table[1:]), 0]
    rows = [
        (str(limits.lane), config.lane_timeout(limits.lane), limits.cap, limits.cap - next_cap, limits.weight)
        for limits, next_cap in zip(table, below, strict=True)
    ]
    names = ("lane", "limit_s", "cap", "reserve", "weight")
    return Answer(
        "lanes",
        {"pool_size": pool_size, "lanes": [dict(zip(names, row, strict=True)) for row in rows]},
        text=[
            f"A pool of {pool_size}. A cap bounds a lane and all below it; a reserve is what nothing below can take."
        ],
        tables=[Table(("lane", "limit s", "cap", "reserve", "weight"), rows)],
    )
