"""Loads the generated data into an empty, migrated database by COPY, in one transaction.

Killed at any moment it leaves nothing behind, and the next call does it all again; done, the next call finds the row
in `ava_dataset` and touches nothing. Keys and indexes are set aside for the time of the COPY and come back from their
own definitions in the catalogue, so this module does not repeat the schema. It prints nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import asyncpg

from ava.data.customers import make_customers
from ava.data.dataset import Dataset, LoadError, Wanted
from ava.data.fixed import grains_text
from ava.data.market import Market, make_market
from ava.data.trading import COLUMNS, Trading
from ava.migrations import MigrationError, status
from ava.sql import statement
from ava.tokens import demo_token, digest
from magnus import QueryPriority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
    from datetime import date

    from ava.data.customers import Customer
    from magnus import Database, Transaction

    Progress = Callable[[str, int, int], None]
    """Called with the stage (market, trades, books, indexes, statistics), what is done of it, and its total."""

TABLES: Final = (
    "accounts", "api_tokens", "instruments", "prices", "quotes", "cash", "cash_movements", "trades", "orders", "lots",
    "positions", "imports", "outbox", "magnus_once",
)  # fmt: skip
_LOCK: Final = int.from_bytes(b"ava_load", "big", signed=True)
_BLOCK: Final = 4 * 1024 * 1024
"""Bytes of one COPY: small enough for the time limit of a statement on a slow disk, large enough to cost nothing."""
_SORT_MEMORY: Final = "128MB"


@dataclass(frozen=True, slots=True)
class Loaded:
    """
    What is in the database now; `is_fresh` when this call put it there.
    """

    dataset: Dataset
    is_fresh: bool


async def load(
    db: Database,
    *,
    scale: float = 1.0,
    seed: int = 42,
    as_of: date | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> Loaded:
    """
    Make the database hold the data of `scale` and `seed`, with 36 months of history before `as_of` (today).

    The same arguments give the same bytes. Data that is there already and fits is kept, with what was traded on it
    since. `replace` throws away every account and all that belongs to it first. Cancelled, it changes nothing.

    Raises:
        LoadError: the arguments are out of range, the schema is not current, or the database holds other data.
    """
    wanted, tell = Wanted(scale, seed, as_of), progress or _silent
    await _require_schema(db)
    try:
        async with db.transaction(priority=QueryPriority.BACKGROUND) as tx:
            await tx.execute(statement("lift_transaction_limit"))
            await tx.execute("select pg_advisory_xact_lock($1)", _LOCK)
            found = await _dataset(tx)
            if found is not None and not replace:
                return Loaded(_reused(wanted, found), is_fresh=False)
            dataset = await _reload(tx, wanted, tell, replace=replace)
    except asyncpg.InsufficientPrivilegeError as error:
        raise LoadError(f"{error}; load as the owner of AVA's tables") from None
    await _collect_statistics(db, tell)
    return Loaded(dataset, is_fresh=True)


async def dataset_of(db: Database) -> Dataset | None:
    """
    Return what the database was loaded with, or None when it was not.

    Raises:
        LoadError: the schema is not current.
    """
    await _require_schema(db)
    async with db.transaction(readonly=True) as tx:
        return await _dataset(tx)


async def _require_schema(db: Database) -> None:
    try:
        is_current = (await status(db)).is_current
    except MigrationError as error:
        raise LoadError(str(error)) from error
    if not is_current:
        raise LoadError("the schema is not current: migrate first")


async def _dataset(tx: Transaction) -> Dataset | None:
    row = await tx.fetchrow(statement("load/dataset"))
    return None if row is None else Dataset(**row)


def _reused(wanted: Wanted, found: Dataset) -> Dataset:
    if not wanted.is_met_by(found):
        raise LoadError(
            f"already loaded: {found}, as of {found.as_of}; other data needs another database, "
            "or replace, which throws this away"
        )
    return found


async def _reload(tx: Transaction, wanted: Wanted, tell: Progress, *, replace: bool) -> Dataset:
    forced = [row["name"] for row in await tx.fetch(statement("load/forced"), list(TABLES))]
    await _each(tx, [f"alter table {name} no force row level security" for name in forced])
    if not replace and await tx.fetchval("select exists (select from accounts)"):
        raise LoadError("the database holds accounts that were not generated: load into another one")
    kept = await tx.fetch(statement("load/set_aside"), list(TABLES))
    await _each(tx, [row["remove"] for row in reversed(kept)])
    await tx.execute(f"truncate {', '.join(TABLES)}, ava_dataset restart identity")
    as_of = wanted.as_of or datetime.now(UTC).date()
    await _fill(tx, wanted, as_of, tell)
    await tx.execute(f"set local maintenance_work_mem = '{_SORT_MEMORY}'")
    for done, row in enumerate(kept):
        tell("indexes", done, len(kept))
        await tx.execute(row["restore"])
    tell("indexes", len(kept), len(kept))
    await _each(tx, [f"alter table {name} force row level security" for name in forced])
    size = wanted.size
    recorded = await tx.fetchrow(
        statement("load/record"), wanted.exact_scale, wanted.seed, as_of, size.accounts, size.trades
    )
    assert recorded is not None
    return Dataset(**recorded)


async def _fill(tx: Transaction, wanted: Wanted, as_of: date, tell: Progress) -> None:
    size, seed = wanted.size, wanted.seed
    market = await asyncio.to_thread(make_market, seed, size.instruments, as_of)
    customers = make_customers(seed, size.accounts, market.instruments, market.days[0])
    await _fill_market(tx, market, tell)
    await _fill_customers(tx, customers, seed)
    trading = Trading(seed, market, customers, size.trades)
    async for _ in _copy(tx, "trades", COLUMNS["trades"], trading.days()):
        tell("trades", trading.booked, size.trades)
    books = (
        ("lots", trading.lots()),
        ("positions", trading.positions()),
        ("cash", trading.cash()),
        ("cash_movements", trading.movements()),
    )
    for done, (table, lines) in enumerate(books):
        tell("books", done, len(books))
        await _copy_all(tx, table, COLUMNS[table], lines)
    tell("books", len(books), len(books))
    for table, last in (("accounts", size.accounts), ("instruments", size.instruments), ("trades", size.trades)):
        await tx.execute("select setval(pg_get_serial_sequence($1, 'id'), $2)", table, last)


async def _fill_market(tx: Transaction, market: Market, tell: Progress) -> None:
    tell("market", 0, len(market.days))
    await _copy_all(
        tx, "instruments", ("id", "symbol", "name", "market", "currency"),
        (f"{one.id}\t{one.symbol}\t{one.name}\t{one.market}\t{one.currency}\n" for one in market.instruments),
    )  # fmt: skip
    await _copy_all(
        tx, "prices", ("instrument_id", "price_date", "close"),
        (
            f"{number}\t{day}\t{grains_text(close)}\n"
            for day, closes in zip(market.days, market.closes, strict=True)
            for number, close in enumerate(closes, 1)
        ),
    )  # fmt: skip
    evening = f"{market.days[-1]} 21:00:00+00"
    await _copy_all(
        tx, "quotes", ("instrument_id", "price", "as_of"),
        (f"{number}\t{grains_text(close)}\t{evening}\n" for number, close in enumerate(market.closes[-1], 1)),
    )  # fmt: skip
    tell("market", len(market.days), len(market.days))


async def _fill_customers(tx: Transaction, customers: Sequence[Customer], seed: int) -> None:
    await _copy_all(
        tx, "accounts", ("id", "owner_name", "currency", "time_zone", "created_at"),
        (f"{one.id}\t{one.owner_name}\t{one.currency}\t{one.time_zone}\t{one.created_at}\n" for one in customers),
    )  # fmt: skip
    await _copy_all(
        tx, "api_tokens", ("account_id", "token_sha256", "label", "created_at"),
        (f"{one.id}\t\\\\x{digest(demo_token(seed, one.id)).hex()}\tdemo\t{one.created_at}\n" for one in customers),
    )  # fmt: skip


async def _copy_all(tx: Transaction, table: str, columns: Sequence[str], lines: Iterable[str]) -> None:
    async for _ in _copy(tx, table, columns, lines):
        pass


async def _copy(tx: Transaction, table: str, columns: Sequence[str], lines: Iterable[str]) -> AsyncIterator[None]:
    """
    Copy the lines, block by block; the next block is generated in a thread while the server reads this one.

    FREEZE, possible because the table was emptied in this transaction, spares the first readers and VACUUM the work.
    """
    blocks = _blocks(lines)
    coming = asyncio.create_task(asyncio.to_thread(next, blocks, None))
    try:
        while (block := await coming) is not None:
            coming = asyncio.create_task(asyncio.to_thread(next, blocks, None))
            await tx.copy_to_table(table, source=_once(block), columns=columns, format="text", freeze=True)
            yield
    finally:
        coming.cancel()


async def _once(block: bytes) -> AsyncIterator[bytes]:
    yield block


def _blocks(lines: Iterable[str]) -> Iterator[bytes]:
    held: list[str] = []
    size = 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size >= _BLOCK:
            yield "".join(held).encode()
            held, size = [], 0
    if held:
        yield "".join(held).encode()


async def _each(tx: Transaction, statements: Sequence[str]) -> None:
    for sql in statements:
        await tx.execute(sql)


async def _collect_statistics(db: Database, tell: Progress) -> None:
    for done, table in enumerate(TABLES):
        tell("statistics", done, len(TABLES))
        await db.execute(f"vacuum (analyze) {table}", priority=QueryPriority.BACKGROUND)
    tell("statistics", len(TABLES), len(TABLES))


def _silent(stage: str, done: int, total: int) -> None:
    """
    Progress that nobody watches.
    """
