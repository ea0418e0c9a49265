"""Imports a file of trades exactly once, as a whole or batch by batch.

Theory of operation. Every transaction locks the account's cash row first, then looks at the journal, the row of
`imports` under the request's key. The journal is written in the same transaction as the rows that it counts, so it is
always true: a run that was killed is taken up where it was committed, two runs of the same request share the work,
and a request that was answered gets the same answer again. Rows that are trades already, by their external_id, are
counted and left alone, whichever request brought them.

`Mode.ALL` is one transaction: the file, or nothing of it. `Mode.PARTIAL` books `batch_rows` rows a transaction, so
that orders of the same account get in between.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
import json
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Final

from ava.services import account
from ava.services.import_book import Book
from ava.services.import_file import BadRow, Row, count_rows, read_rows
from ava.services.import_store import known_rows, load, write
from ava.services.rules import DETAILS
from ava.sql import statement
from magnus import KeyReused

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ava.services.import_file import Content
    from magnus import Database, Transaction

MAX_ERRORS: Final = 100
_REUSED: Final = "A different trade of this account has this external_id."
_BREATH: Final = 50  # rows, about a millisecond of work, between two looks at other requests


class Mode(enum.StrEnum):
    """
    What a bad row means for the others.
    """

    ALL = "all"
    PARTIAL = "partial"


@dataclass(frozen=True, slots=True)
class Request:
    """
    One import as it was asked. `digest` is of the file's bytes and the mode.
    """

    account_id: int
    key: str
    digest: bytes
    mode: Mode
    file: IO[bytes]


@dataclass(frozen=True, slots=True)
class Limits:
    """
    How many rows a file may have, and how many are booked in one transaction.
    """

    max_rows: int
    batch_rows: int


@dataclass(frozen=True, slots=True)
class Report:
    """
    What became of the rows. It is the journal too: `rows` is how far the file was read, `is_done` that it was read
    to its end.
    """

    mode: Mode
    rows: int = 0
    loaded: int = 0
    duplicates: int = 0
    rejected: int = 0
    errors: tuple[BadRow, ...] = ()
    is_done: bool = False

    def to_json(self) -> str:
        """
        Return the text that the journal keeps.
        """
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Report:
        """
        Return the report that `to_json` wrote.
        """
        found = json.loads(text)
        errors = tuple(BadRow(**error) for error in found.pop("errors"))
        return cls(**{**found, "mode": Mode(found["mode"]), "errors": errors})

    def plus(self, batch: _Tally) -> Report:
        """
        Return the report with one more batch.
        """
        return replace(
            self,
            rows=self.rows + batch.rows,
            loaded=self.loaded + batch.loaded,
            duplicates=self.duplicates + batch.duplicates,
            rejected=self.rejected + len(batch.errors),
            errors=(*self.errors, *batch.errors)[:MAX_ERRORS],
        )

    @property
    def is_refused(self) -> bool:
        """
        Nothing was loaded because something could not be.
        """
        return self.mode is Mode.ALL and self.rejected > 0


@dataclass(slots=True)
class _Tally:
    rows: int = 0
    loaded: int = 0
    duplicates: int = 0
    errors: list[BadRow] = field(default_factory=list)


class _Undo(Exception):
    """
    Takes the transaction back; the report is what is to be kept of it.
    """

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report


async def run(db: Database, request: Request, limits: Limits) -> tuple[Report, bool]:
    """
    Import a file and return the report, and whether it had been given before.

    A report that `is_refused` means that nothing was booked. Repeating the request after any error is safe.

    Raises:
        FileInvalid: the file as a whole cannot be read; nothing was booked.
        TooManyRows: it has more rows than allowed; nothing was booked.
        KeyReused: the key was used for another file or mode.
        AccountMissing: the account is not open.
    """
    await asyncio.to_thread(count_rows, request.file, limit=limits.max_rows)
    rows = read_rows(request.file, now=datetime.now(UTC))
    if request.mode is Mode.ALL:
        return await _whole(db, request, rows, limits)
    return await _batches(db, request, rows, limits)


async def _whole(db: Database, request: Request, rows: Iterator[Row | BadRow], limits: Limits) -> tuple[Report, bool]:
    try:
        async with db.transaction(settings=account.settings_of(request.account_id)) as tx:
            book, journal = await _open(tx, request)
            return (journal, True) if journal else (await _book_all(tx, request, book, rows, limits), False)
    except _Undo as undone:
        return await _refuse(db, request, undone.report)


async def _book_all(
    tx: Transaction, request: Request, book: Book, rows: Iterator[Row | BadRow], limits: Limits
) -> Report:
    report = Report(request.mode)
    while batch := await _next_batch(rows, limits.batch_rows):
        report = report.plus(await _book(tx, request.account_id, book, batch))
    report = replace(report, is_done=True)
    if report.is_refused:
        raise _Undo(replace(report, loaded=0))
    await _keep(tx, request, report)
    return report


async def _refuse(db: Database, request: Request, report: Report) -> tuple[Report, bool]:
    async with db.transaction(settings=account.settings_of(request.account_id)) as tx:
        _, journal = await _open(tx, request)
        if journal is not None:
            return journal, True
        await _keep(tx, request, report)
        return report, False


async def _batches(db: Database, request: Request, rows: Iterator[Row | BadRow], limits: Limits) -> tuple[Report, bool]:
    """
    Invariant: `position` rows were taken from `rows`, and the journal says how many of the file are booked. What a
    run before this one, or beside it, has booked is skipped.
    """
    position = 0
    while True:
        batch = await _next_batch(rows, limits.batch_rows)
        is_last = len(batch) < limits.batch_rows
        async with db.transaction(settings=account.settings_of(request.account_id)) as tx:
            book, journal = await _open(tx, request)
            report = journal or Report(request.mode)
            if report.is_done:
                return report, True
            fresh = batch[max(0, report.rows - position) :]
            if fresh or is_last:
                report = report.plus(await _book(tx, request.account_id, book, fresh))
                report = replace(report, is_done=is_last)
                await _keep(tx, request, report)
        if is_last:
            return report, False
        position += len(batch)


async def _next_batch(rows: Iterator[Row | BadRow], size: int) -> list[Row | BadRow]:
    batch: list[Row | BadRow] = []
    while len(batch) < size and (some := list(itertools.islice(rows, min(_BREATH, size - len(batch))))):
        batch += some
        await asyncio.sleep(0)
    return batch


async def _open(tx: Transaction, request: Request) -> tuple[Book, Report | None]:
    balance, currency = await account.lock(tx, request.account_id)
    row = await tx.fetchrow(statement("queries/import_journal"), request.account_id, request.key)
    if row is None:
        return Book(balance, currency), None
    if row["request_hash"] != request.digest:
        raise KeyReused(request.key)
    return Book(balance, currency), Report.from_json(row["response"])


async def _keep(tx: Transaction, request: Request, report: Report) -> None:
    await tx.execute(
        statement("queries/import_journal_write"),
        request.account_id, request.key, request.digest, request.mode.value, report.to_json(),
    )  # fmt: skip


async def _book(tx: Transaction, account_id: int, book: Book, batch: Sequence[Row | BadRow]) -> _Tally:
    rows = [row for row in batch if isinstance(row, Row)]
    known = await known_rows(tx, account_id, rows)
    await load(tx, account_id, book, [row for row in rows if row.external_id not in known])
    tally = _Tally(rows=len(batch))
    for place, row in enumerate(batch):
        if place % _BREATH == 0:
            await asyncio.sleep(0)
        _apply(row, book, known, tally)
    await write(tx, account_id, book)
    return tally


def _apply(row: Row | BadRow, book: Book, known: dict[str, Content], tally: _Tally) -> None:
    if isinstance(row, BadRow):
        tally.errors.append(row)
        return
    before = known.get(row.external_id)
    if before is not None:
        if before == row.content():
            tally.duplicates += 1
        else:
            tally.errors.append(BadRow(row.line, row.external_id, "external-id-reused", _REUSED))
        return
    reason = book.apply(row)
    if reason is not None:
        tally.errors.append(BadRow(row.line, row.external_id, reason.value, DETAILS[reason]))
        return
    known[row.external_id] = row.content()
    tally.loaded += 1
