"""Which columns pg_stat_statements has, and the query that reads them; by what is there, not by a version. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from magnus.insight._counters import Counters, Entry, Key

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_READ: Final[Mapping[str, tuple[str, ...]]] = {
    "calls": ("calls",),
    "rows": ("rows",),
    "plans": ("plans",),
    "total_exec_time": ("total_exec_time",),
    "mean_exec_time": ("mean_exec_time",),
    "stddev_exec_time": ("stddev_exec_time",),
    "min_exec_time": ("min_exec_time",),
    "max_exec_time": ("max_exec_time",),
    "total_plan_time": ("total_plan_time",),
    "blocks_hit": ("shared_blks_hit", "local_blks_hit"),
    "blocks_read": ("shared_blks_read", "local_blks_read"),
    "blocks_dirtied": ("shared_blks_dirtied", "local_blks_dirtied"),
    "blocks_written": ("shared_blks_written", "local_blks_written"),
    "temp_read": ("temp_blks_read",),
    "temp_written": ("temp_blks_written",),
    "io_time": (
        "blk_read_time", "blk_write_time", "shared_blk_read_time", "shared_blk_write_time", "local_blk_read_time",
        "local_blk_write_time", "temp_blk_read_time", "temp_blk_write_time",
    ),
    "wal_records": ("wal_records",),
    "wal_bytes": ("wal_bytes",),
    "wal_fpi": ("wal_fpi",),
    "jit_time": (
        "jit_generation_time", "jit_inlining_time", "jit_optimization_time", "jit_emission_time", "jit_deform_time",
    ),
}  # fmt: skip
NEEDED: Final = frozenset({"userid", "dbid", "queryid", "calls", "total_exec_time"})
"""Columns without which it is no version that can be read: they are there from 1.8 on (PostgreSQL 13)."""


def query_of(columns: Collection[str], source: str) -> str:
    """
    Return the query that reads all counters from `source`, the extension's function, of the columns that it has.
    """
    parts = [
        f"({' + '.join(f's.{column}' for column in present)})::float8 AS {name}"
        if (present := [column for column in wanted if column in columns])
        else f"0::float8 AS {name}"
        for name, wanted in _READ.items()
    ]
    toplevel = "s.toplevel" if "toplevel" in columns else "true"
    since = "s.stats_since" if "stats_since" in columns else "NULL::timestamptz"
    # A role that may not see others' statements gets them without an id, and those cannot be told apart.
    return (  # nothing of a user's is put in
        f"SELECT s.userid, s.dbid, s.queryid, {toplevel} AS toplevel, {since} AS since, {', '.join(parts)} "  # noqa: S608
        f"FROM {source}(false) AS s WHERE s.queryid IS NOT NULL"
    )


def entry_of(row: Any) -> tuple[Key, Entry]:
    """
    Return one row of that query.
    """
    calls, mean = int(row["calls"]), row["mean_exec_time"] / 1000
    deviation = row["stddev_exec_time"] / 1000
    counters = Counters(
        calls=calls,
        rows=int(row["rows"]),
        seconds=row["total_exec_time"] / 1000,
        squares=calls * (deviation**2 + mean**2),
        plans=int(row["plans"]),
        plan_seconds=row["total_plan_time"] / 1000,
        blocks_hit=int(row["blocks_hit"]),
        blocks_read=int(row["blocks_read"]),
        blocks_dirtied=int(row["blocks_dirtied"]),
        blocks_written=int(row["blocks_written"]),
        temp_read=int(row["temp_read"]),
        temp_written=int(row["temp_written"]),
        io_seconds=row["io_time"] / 1000,
        wal_records=int(row["wal_records"]),
        wal_bytes=int(row["wal_bytes"]),
        wal_fpi=int(row["wal_fpi"]),
        jit_seconds=row["jit_time"] / 1000,
    )
    key = Key(int(row["userid"]), int(row["dbid"]), int(row["queryid"]), bool(row["toplevel"]))
    return key, Entry(counters, row["since"], row["min_exec_time"] / 1000, row["max_exec_time"] / 1000)
