"""Imports a file of trades exactly once, as a whole or batch by batch.

Theory of operation. A unit of work that happens once (`Database.run_once`) is the file in `Mode.ALL`, and a batch of
`batch_rows` rows in `Mode.PARTIAL`, so that orders of the same account get in between. The units of one import have the
request's key; the operation tells them apart by the row that they begin with. So a run that was killed is taken up
where it was committed: the batches before answer what they answered then, and say how many rows they were. Every unit
locks the account's cash row first. Rows that are trades already, by their external_id, are counted and left alone,
whichever request brought them.

`imports` holds what became of each import, written with its last unit. An older version of AVA wrote it with every
batch; what it left unfinished is taken up.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
import json
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Final

from ava.services import account
from ava.services.import_book import Book
from ava.services.import_file import BadRow, Row, count_rows, read_rows
from ava.services.import_store import known_rows, load, write
from ava.services.reporting import tag_of
from ava.services.rules import DETAILS
from ava.sql import statement
from magnus import KeyReused, Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from ava.services.import_file import Content
    from magnus import Database, Once, Transaction

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
        return cls.from_plain(json.loads(text))

    @classmethod
    def from_plain(cls, found: Any) -> Report:
        """
        Return the report in a mapping, or the report itself.
        """
        if isinstance(found, Report):
            return found
        found = dict(found)
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
    work = _Import(db, request, limits, datetime.now(UTC))
    return await (work.whole() if request.mode is Mode.ALL else work.by_batches())


class _Import:
    """
    One import under way.
    """

    def __init__(self, db: Database, request: Request, limits: Limits, now: datetime) -> None:
        self._db = db
        self._request = request
        self._limits = limits
        self._now = now
        self._was_done = False

    async def whole(self) -> tuple[Report, bool]:
        """
        Book the file, or nothing of it.
        """
        try:
            once = await self._once(self._all, 0)
        except Refused as refused:
            return Report.from_plain(refused.value), refused.is_replayed
        return once.value, once.replayed or self._was_done

    async def by_batches(self) -> tuple[Report, bool]:
        """
        Book what can be, batch by batch.

        Invariant: `report.rows` rows of the file are booked, by this run or by one before it, whose batches may have
        been of another size; `ahead` are the rows after these that were read already.
        """
        report, is_replayed = Report(self._request.mode), True
        rows, ahead = self._rows(), list[Row | BadRow]()
        while not report.is_done:
            position = report.rows
            ahead += await _next_batch(rows, self._limits.batch_rows - len(ahead))
            once = await self._once(partial(self._one, report, ahead[: self._limits.batch_rows]), position)
            report = once.value
            is_replayed = is_replayed and (once.replayed or self._was_done)
            missing = report.rows - position - len(ahead)
            del ahead[: report.rows - position]
            await _next_batch(rows, missing)
        return report, is_replayed

    async def _once(self, fn: Callable[[Transaction], Awaitable[Report]], position: int) -> Once[Report]:
        request = self._request
        return await self._db.run_once(
            fn,
            key=request.key,
            scope=account.scope_of(request.account_id),
            operation="import" if position == 0 else f"import@{position}",
            request=request.digest,
            result=Report,
            settings=account.settings_of(request.account_id),
        )

    async def _all(self, tx: Transaction) -> Report:
        book, journal = await _open(tx, self._request)
        if journal is not None:
            self._was_done = True
            return journal
        report, rows = Report(self._request.mode), self._rows()
        while batch := await _next_batch(rows, self._limits.batch_rows):
            report = report.plus(await _book(tx, self._request.account_id, book, batch))
        report = replace(report, is_done=True)
        if report.is_refused:
            raise Refused(replace(report, loaded=0))
        await _keep(tx, self._request, report)
        return report

    async def _one(self, before: Report, batch: Sequence[Row | BadRow], tx: Transaction) -> Report:
        """
        Book one batch and return the report up to its end.
        """
        book, journal = await _open(tx, self._request)
        if journal is not None and journal.rows >= before.rows and (journal.is_done or journal.rows > before.rows):
            self._was_done = journal.is_done
            return journal
        report = before.plus(await _book(tx, self._request.account_id, book, batch))
        report = replace(report, is_done=len(batch) < self._limits.batch_rows)
        if report.is_done:
            await _keep(tx, self._request, report)
        return report

    def _rows(self) -> Iterator[Row | BadRow]:
        """
        Read the file from its beginning: a unit may run again.
        """
        return read_rows(self._request.file, now=self._now)


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
    tx.invalidate(tag_of(account_id))
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
