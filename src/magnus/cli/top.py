"""`magnus top`: which statements the server spends its time on, since counting began or in an interval."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from magnus import insight
from magnus.cli.answer import Answer, Table
from magnus.cli.words import count, short, size, time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from magnus._driver import Connection
    from magnus.insight import Delta, Extension, Snapshot, Statement

_BLOCK: Final = 8192
_WIDTH: Final = 160


async def frames(con: Connection, *, order: str, limit: int, interval: float | None) -> AsyncIterator[Answer]:
    """
    Yield what is on top: once since counting began, or again and again for the last `interval` seconds.

    Raises:
        Unavailable: pg_stat_statements cannot be read here.
    """
    found = await insight.extension(con)
    before = await insight.snapshot(con, found)
    if interval is None:
        yield await _answer(con, found, before, insight.total(before), order=order, limit=limit)
        return
    while True:
        await asyncio.sleep(interval)
        after = await insight.snapshot(con, found)
        yield await _answer(con, found, after, insight.delta(before, after), order=order, limit=limit)
        before = after


async def _answer(
    con: Connection, found: Extension, taken: Snapshot, delta: Delta, *, order: str, limit: int
) -> Answer:
    listed = await insight.statements(con, found, delta, order=order, limit=limit)
    notes = (*delta.notes, *found.notes)
    calls, seconds = insight.calls_of(delta), insight.seconds_of(delta)
    data = {
        "order": order,
        "extension": found.version,
        "taken_at": taken.taken_at.isoformat(),
        "reset_at": None if taken.reset_at is None else taken.reset_at.isoformat(),
        "interval_s": delta.seconds,
        "calls": calls,
        "total_ms": round(seconds * 1000, 3),
        "lost": delta.lost,
        "restarted": delta.restarted,
        "notes": list(notes),
        "statements": [statement.as_dict() for statement in listed],
    }
    text = [_headline(taken, delta, calls, seconds), *(f"note: {note}" for note in notes)]
    return Answer("top", data, text, [table(listed, order)])


def _headline(taken: Snapshot, delta: Delta, calls: int, seconds: float) -> str:
    if delta.seconds is None:
        since = "counting began" if taken.reset_at is None else f"{taken.reset_at:%Y-%m-%d %H:%M} UTC"
        return f"{count(calls)} calls took {time(seconds)} since {since}"
    return f"{count(calls)} calls took {time(seconds)} in the last {time(delta.seconds)}"


def table(listed: Sequence[Statement], order: str) -> Table:
    """
    Return statements as rows, with the column that they are sorted by.
    """
    extra = _EXTRA.get(order)
    headings = ["queryid", "total", "%", "calls", "mean", "rows/call", *([extra[0]] if extra else []), "query"]
    rows = []
    for statement in listed:
        counters = statement.counters
        rows.append((
            str(statement.queryid),
            time(counters.seconds),
            f"{statement.share:.1%}",
            count(counters.calls),
            time(counters.mean),
            count(counters.rows / counters.calls if counters.calls else 0),
            *([extra[1](counters)] if extra else []),
            short(statement.query, _WIDTH),
        ))
    return Table(headings, rows, right=range(1, len(headings) - 1), is_cut=True)


_EXTRA: Final[dict[str, tuple[str, Any]]] = {
    "io": ("read/written", lambda c: f"{size(_BLOCK * (c.blocks_read + c.temp_read))}/"
                                     f"{size(_BLOCK * (c.blocks_written + c.temp_written))}"),
    "wal": ("WAL", lambda c: size(c.wal_bytes)),
    "temp": ("temp", lambda c: size(_BLOCK * (c.temp_read + c.temp_written))),
    "variance": ("deviation", lambda c: time(c.deviation)),
}  # fmt: skip
