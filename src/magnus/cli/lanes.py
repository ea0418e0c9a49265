"""The table of lanes for a pool of a given size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from magnus.cli.answer import Answer, Table
from magnus.config import DatabaseConfig
from magnus.errors import ConfigError
from magnus.pool import lane_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def lanes(pool_size: int | None, environ: Mapping[str, str]) -> Answer:
    """
    Say for each lane how long a statement may take, how many slots it and all below it may hold, how many of its cap
    nothing below can touch, its share of hand-offs while all lanes wait, how many may wait, and from which wait on a
    queue that stands is shed.

    Everything is as `environ` configures it for a service; `pool_size` stands in place of its `max_pool_size`.

    Raises:
        ConfigError: `pool_size` is below 1, or a variable has an impossible value.
    """
    config = DatabaseConfig.from_environ(environ)
    if pool_size is not None:
        if pool_size < 1:
            raise ConfigError("--pool-size", pool_size, "must be at least 1")
        config = config.replace(max_pool_size=pool_size, min_pool_size=min(config.min_pool_size, pool_size))
    size = config.max_pool_size
    table = lane_table(size, max_waiting=config.max_waiting, settings=config.lanes, wait_targets=config.wait_targets())
    below = [*(limits.cap for limits in table[1:]), 0]
    shares = sum(limits.weight for limits in table)
    found = [
        {
            "lane": str(limits.lane),
            "limit_s": config.lane_timeout(limits.lane),
            "cap": limits.cap,
            "reserve": limits.cap - next_cap,
            "weight": limits.weight,
            "share": round(limits.weight / shares, 3) if limits.weight else None,
            "max_waiting": limits.max_waiting,
            "stands_above_s": limits.wait_target,
            "sheds": "never" if limits.wait_target is None else "early" if limits.is_eager else "late",
        }
        for limits, next_cap in zip(table, below, strict=True)
    ]
    return Answer(
        "lanes",
        {"pool_size": size, "lanes": found},
        text=[
            f"A pool of {size}. A cap bounds a lane and all below it; a reserve is what nothing below can take.",
            "Shares are of the hand-offs while all wait; one in 16 is theirs while CRITICAL waits too.",
            "A queue stands when even its shortest wait was longer than the seconds shown. It is shed late: when its",
            "newest caller would come too late anyway; or early, where those seconds were set: who waited twice that.",
            f"Calls that name no lane are shed {'too' if config.shed_unset else 'never'}.",
        ],
        tables=[
            Table(
                ("lane", "limit s", "cap", "reserve", "share", "max waiting", "stands above s", "sheds"), rows_of(found)
            )
        ],
    )


def rows_of(lanes: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """
    Return the lanes as rows for people.
    """
    return [
        (
            *(lane[name] for name in ("lane", "limit_s", "cap", "reserve")),
            "first" if lane["share"] is None else f"{lane['share']:.0%}",
            lane["max_waiting"],
            "-" if lane["stands_above_s"] is None else lane["stands_above_s"],
            lane["sheds"],
        )
        for lane in lanes
    ]
