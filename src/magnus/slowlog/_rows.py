"""An entry as a row of slow_query_log, or as an event; which columns there are. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from magnus.observe import SlowQuery
from magnus.slowlog._values import shown

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Mapping, Sequence

    from magnus.slowlog._entry import Entry
    from magnus.slowlog._known import Known

NEEDED: Final = frozenset({"query", "duration_ms", "threshold_ms", "timestamp"})


@dataclass(frozen=True, slots=True)
class Row:
    """
    An entry, and what was found out about it since.
    """

    entry: Entry
    query: str
    signature: str
    fingerprint: str
    queryid: int | None
    skipped: int


@dataclass(frozen=True, slots=True)
class Constants:
    """
    What is the same in all rows of one log.

    Attributes:
        threshold: Seconds.
        application: The application's name.
        redact: Rules for bind values.
    """

    threshold: float
    application: str
    redact: Sequence[re.Pattern[str]]


def row_of(entry: Entry, known: Known, skipped: dict[str, int]) -> Row:
    """
    Return the row of an entry; it takes what was left out of its fingerprint out of `skipped`.
    """
    normal = known.normal(entry.text)
    fingerprint = normal.fingerprint
    return Row(
        entry,
        query=known.shown(normal),
        signature=normal.summary,
        fingerprint=fingerprint,
        queryid=known.queryid(normal),
        skipped=skipped.pop(fingerprint, 0),
    )


def milliseconds(seconds: float) -> Decimal:
    return Decimal(round(seconds * 1_000_000)).scaleb(-3)


_COLUMNS: Final[Mapping[str, Callable[[Row, Constants], Any]]] = {
    "query": lambda row, _: row.query,
    "duration_ms": lambda row, _: milliseconds(row.entry.seconds),
    "threshold_ms": lambda _, constants: milliseconds(constants.threshold),
    "timestamp": lambda row, _: row.entry.at,
    "query_signature": lambda row, _: row.signature,
    "fingerprint": lambda row, _: row.fingerprint,
    "queryid": lambda row, _: row.queryid,
    "lane": lambda row, _: row.entry.lane,
    "wait_ms": lambda row, _: milliseconds(row.entry.wait),
    "attempts": lambda row, _: row.entry.attempts,
    "rows": lambda row, _: row.entry.rows,
    "outcome": lambda row, _: row.entry.outcome,
    "sqlstate": lambda row, _: row.entry.sqlstate,
    "caller": lambda row, _: row.entry.caller,
    "route": lambda row, _: row.entry.route,
    "request_id": lambda row, _: row.entry.request_id,
    "trace_id": lambda row, _: row.entry.trace_id,
    "application": lambda _, constants: constants.application,
    "bind_values": lambda row, constants: _bind_values(row.entry, constants),
    "skipped": lambda row, _: row.skipped,
}
COLUMNS: Final = tuple(_COLUMNS)


def writable(present: Mapping[str, str]) -> tuple[str, ...]:
    """
    Return the columns to write of those that a table has (name and type); none when it is no table of ours.

    An older table lacks some, a newer one has more; one made by hand may hold times without a zone, which then are
    left to its default.
    """
    if not present.keys() >= NEEDED:
        return ()
    return tuple(name for name in COLUMNS if name in present and present[name] != "timestamp without time zone")


def record_of(row: Row, columns: Sequence[str], constants: Constants) -> tuple[Any, ...]:
    return tuple(_clean(_COLUMNS[name](row, constants)) for name in columns)


def _clean(value: object) -> object:
    """
    Take out of a text what the server would refuse the whole batch for.
    """
    if isinstance(value, str) and not (value.isascii() and "\0" not in value):
        return value.replace("\0", "").encode(errors="replace").decode()
    return value


def event_of(row: Row, constants: Constants) -> SlowQuery:
    entry = row.entry
    return SlowQuery(
        query=row.query,
        fingerprint=row.fingerprint,
        duration_ms=round(entry.seconds * 1000, 3),
        threshold_ms=round(constants.threshold * 1000, 3),
        wait_ms=round(entry.wait * 1000, 3),
        priority=entry.lane,
        rows=entry.rows,
        outcome=entry.outcome,
        sqlstate=entry.sqlstate,
        caller=entry.caller,
        route=entry.route,
        skipped=row.skipped,
    )


def _bind_values(entry: Entry, constants: Constants) -> str | None:
    return None if entry.values is None else shown(entry.text, entry.values, constants.redact)
