"""Where the faults are played: a server, a database with a bank, writers that keep a journal, and the row of the table.

The bank shows what sets cannot: money that was taken and not given. Both are asked of the server directly, past the
layer that is being judged.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg

from magnus import Database, DatabaseConfig, MagnusError, OutcomeUnknown
from magnus._verdicts import Phase, Verdict, classify
from magnus.observe import Retry
from magnus.once import table
from magnus.testing import FaultProxy, Journal, Word, compare, read, socket_of
from magnus.testing import Verdict as Comparison

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator

    from magnus import Event
    from magnus.embedded import Cluster

ROOT = Path(__file__).resolve().parents[2]
ACCOUNTS = 16
START = 1_000_000
WRITERS = 8
SCHEMA = f"""
CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL);
INSERT INTO account SELECT n, {START} FROM generate_series(1, {ACCOUNTS}) n;
CREATE TABLE effect (key text NOT NULL, source int NOT NULL, target int NOT NULL, amount int NOT NULL);
CREATE TABLE done (key text PRIMARY KEY);
"""
CLASSIFIED = (MagnusError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)


def is_classified(error: Exception) -> bool:
    """
    Whether a caller can have a rule for an error: it is of a documented kind, or the layer's own table knows it.
    """
    return isinstance(error, CLASSIFIED) or classify(error, Phase.BLOCK) is not Verdict.NEVER


@dataclass
class Row:
    """
    One line of the campaign's table.

    Attributes:
        longest: Seconds of the longest single call.
        figures: What else was measured, seconds where nothing else is said.
        failures: What went wrong whatever the clock says; empty when the layer stood.
        late: Bounds of time that were missed: the full campaign on a quiet machine minds, the test suite does not.
        note: Why the row says less than its name.
        bounds: What figures had to be at most.
        server: The version of PostgreSQL, to the minor one.
    """

    fault: int
    name: str
    mode: str = "single"
    cycles: int = 0
    acknowledged: int = 0
    unknown: int = 0
    lost: int = 0
    doubled: int = 0
    longest: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    note: str = ""
    bounds: dict[str, float] = field(default_factory=dict)
    pg: int = 0
    server: str = ""
    seconds: float = 0.0

    @property
    def verdict(self) -> str:
        return "FAILED" if self.failures else "late" if self.late else "absent" if self.note else "stood"

    def within(self, name: str, seconds: float, bound: float) -> None:
        """
        Note a figure that must not be above its bound.
        """
        self.figures[name] = round(seconds, 3)
        self.bounds[name] = bound
        if seconds > bound:
            self.late.append(f"{name} {seconds:.2f} > {bound:g}")

    def expect(self, is_so: object, otherwise: str) -> None:
        """
        Write a failure down unless something is so.
        """
        if not is_so:
            self.failures.append(otherwise)

    def judge(self, found: Comparison, *, may_lose: bool = False) -> None:
        """
        Add a verdict's figures, and its losses as failures.
        """
        self.acknowledged += found.acknowledged
        self.unknown += found.unknown
        self.lost += len(found.lost)
        self.doubled += len(found.doubled)
        self.expect(found.acknowledged, "nothing was acknowledged: the fault proves nothing")
        self.expect(may_lose or not found.lost, f"lost: {len(found.lost)}")
        self.expect(not found.doubled, f"doubled: {len(found.doubled)}")
        self.expect(not found.denied, f"called not stored, and stored: {len(found.denied)}")
        self.expect(not found.foreign, f"never tried, and stored: {len(found.foreign)}")

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "verdict": self.verdict}


async def once(db: Database, key: str, chance: random.Random) -> bool:
    """
    The unit of work of all writers: move money and note the effect, by `run_once`. Returns whether it was done before.
    """
    state = chance.getstate()

    async def unit(tx: Any) -> str:
        chance.setstate(state)  # it may run again, and is then the same
        await move(tx, key, chance)
        return key

    return (await db.run_once(unit, key=key, scope="bank", request=key, result=str)).replayed


async def keyed(db: Database, key: str, chance: random.Random) -> bool:
    """
    The same with a key of one's own in a plain transaction, which repeats nothing by itself.
    """
    async with db.transaction() as tx:
        claimed = await tx.fetchval("INSERT INTO done VALUES ($1) ON CONFLICT DO NOTHING RETURNING key", key)
        if claimed is not None:
            await move(tx, key, chance)
    return claimed is None


async def keyless(db: Database, key: str, chance: random.Random) -> bool:
    """
    The same without a key: what a repeat of it doubles. For mutants.
    """
    async with db.transaction() as tx:
        await move(tx, key, chance)
    return False


async def move(tx: Any, key: str, chance: random.Random) -> None:
    source, target = sorted(chance.sample(range(1, ACCOUNTS + 1), 2))  # in order: no deadlocks
    amount = chance.randint(1, 100)
    await tx.execute("UPDATE account SET balance = balance - $2 WHERE id = $1", source, amount)
    await tx.execute("UPDATE account SET balance = balance + $2 WHERE id = $1", target, amount)
    await tx.execute("INSERT INTO effect VALUES ($1, $2, $3, $4)", key, source, target, amount)


class Book:
    """
    The bank in one database, and the journal of those who write into it.
    """

    _numbers = itertools.count(1)

    def __init__(self, cluster: Cluster, name: str, folder: Path) -> None:
        self.cluster = cluster
        self.name = name
        self.journal = Journal(folder / f"{name}.journal")

    @classmethod
    async def open(cls, cluster: Cluster, folder: Path) -> Book:
        name = f"book_{next(cls._numbers)}"
        await cluster.create_database(name)
        async with cluster.connect(database=name) as con:
            await con.execute(SCHEMA)
            await con.execute(table())
        return cls(cluster, name, folder)

    def dsn(self, proxy: FaultProxy | None = None) -> str:
        direct = self.cluster.dsn(database=self.name)
        return direct if proxy is None else proxy.dsn(direct)

    async def ask(self, query: str, *args: Any) -> Any:
        async with self.cluster.connect(database=self.name) as con:
            return await con.fetchval(query, *args)

    async def audit(self, row: Row, *, may_lose: bool = False) -> Comparison:
        """
        Compare the journal with the table, and the balances with the effects.
        """
        async with self.cluster.connect(database=self.name) as con:
            keys = [found["key"] for found in await con.fetch("SELECT key FROM effect")]
            torn = await con.fetchval(
                "SELECT count(*) FROM account a WHERE balance <> $1 + (SELECT coalesce(sum(CASE WHEN target = a.id "
                "THEN amount ELSE -amount END), 0) FROM effect WHERE a.id IN (source, target))",
                START,
            )
        found = compare(read(self.journal.path), keys)
        row.judge(found, may_lose=may_lose)
        row.expect(torn == 0, f"{torn} balances do not match their effects")
        return found


@dataclass
class Writers:
    """
    Clients that write keys down, try them, and repeat what is not acknowledged, with the same key.

    Attributes:
        errors: What the layer raised, by type.
        unclassified: What no caller could have a rule for.
        longest: Seconds of the longest single call.
        moments: At which something was acknowledged.
        denied: Keys that were called not stored and found stored at their repeat.
        resolved: Unknown outcomes that the layer resolved by the key, unseen by its caller.
    """

    db: Database
    book: Book
    unit: Any = once
    count: int = WRITERS
    seed: int = 1
    patience: float = 60.0
    errors: Counter[str] = field(default_factory=Counter)
    unclassified: Counter[str] = field(default_factory=Counter)
    longest: float = 0.0
    moments: list[float] = field(default_factory=list)
    is_stopping: bool = False
    denied: int = 0
    resolved: int = 0
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def run(self, quota: int | None = None) -> None:
        """
        Write `quota` keys together; without one, until `stop`.
        """
        left = itertools.repeat(0) if quota is None else iter(range(quota))
        async with asyncio.TaskGroup() as group:
            for number in range(self.count):
                group.create_task(self._writer(number, left))

    def stop(self) -> None:
        self.is_stopping = True

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Writers]:
        """
        Write while the block runs; afterwards what was begun is brought to an end.
        """
        task = asyncio.create_task(self.run())
        try:
            yield self
        finally:
            self.stop()
            await task

    async def acknowledged(self, count: int, patience: float = 60.0) -> None:
        """
        Wait until so many more keys are acknowledged.
        """
        wanted = len(self.moments) + count
        async with asyncio.timeout(patience):
            while len(self.moments) < wanted:  # noqa: ASYNC110  # eight tasks append to it
                await asyncio.sleep(0.005)

    async def _writer(self, number: int, left: Any) -> None:
        chance = random.Random(f"{self.seed} {number}")
        for _ in left:
            if self.is_stopping:
                return
            await self.write(f"{self.seed}.{number}.{next(self._numbers)}", chance)

    async def write(self, key: str, chance: random.Random) -> None:
        """
        Try one key until the layer says that it is stored, or patience is at its end.
        """
        until = time.monotonic() + self.patience
        state, refusals, is_known = chance.getstate(), 0, True
        while time.monotonic() < until:
            chance.setstate(state)  # a repeat is the same request
            self.book.journal.write(key, Word.BEGUN)
            began = time.monotonic()
            try:
                is_repeat = await self.unit(self.db, key, chance)
            except OutcomeUnknown:
                is_known = False
                self.book.journal.write(key, Word.UNKNOWN)
                self.errors["OutcomeUnknown"] += 1
            except Exception as error:  # noqa: BLE001  # a kind that nobody foresaw is what is looked for
                self.book.journal.write(key, Word.REFUSED)
                refusals += 1
                self._note(error)
            else:
                self.book.journal.write(key, Word.ACKNOWLEDGED)
                self.denied += is_repeat and is_known and refusals > 0
                self.moments.append(time.monotonic())
                return
            finally:
                self.longest = max(self.longest, time.monotonic() - began)
            await asyncio.sleep(chance.uniform(0.0, 0.05))

    def _note(self, error: Exception) -> None:
        self.errors[type(error).__name__] += 1
        if not is_classified(error):
            self.unclassified[f"{type(error).__name__}: {error}"] += 1

    def __post_init__(self) -> None:
        self.db.add_observer(self._hear)

    def _hear(self, event: Event) -> None:
        self.resolved += isinstance(event, Retry) and event.error_type == "OutcomeUnknown"

    def report(self, row: Row) -> None:
        self.db.remove_observer(self._hear)
        row.unknown += self.resolved
        row.expect(not self.denied, f"called not stored, and found stored at the repeat: {self.denied}")
        row.longest = max(row.longest, self.longest)
        row.expect(not self.unclassified, f"unclassified: {dict(self.unclassified)}")


CONFIG = DatabaseConfig(
    dsn="postgresql://nobody@127.0.0.1/none",
    min_pool_size=WRITERS,
    max_pool_size=WRITERS,
    connect_timeout=1.0,
    command_timeout=3.0,
    transaction_timeout=5.0,
    health_check_interval=0.5,
    application_name="faults",
)


@dataclass
class Stage:
    """
    One server of one version, for all faults that do not need their own.

    Attributes:
        is_short: In the form that the test suite runs: fewer cycles, shorter waits.
    """

    cluster: Cluster
    folder: Path
    pg: int
    is_short: bool = False

    def times(self, full: int, short: int) -> int:
        """
        How often, in this form of the campaign.
        """
        return short if self.is_short else full

    async def book(self, cluster: Cluster | None = None) -> Book:
        return await Book.open(cluster or self.cluster, self.folder)

    @asynccontextmanager
    async def bank(self, **changes: Any) -> AsyncIterator[tuple[FaultProxy, Database, Book]]:
        """
        A bank on the stage's server, and a database object that reaches it through a proxy.
        """
        book = await self.book()
        async with proxied(self.cluster) as proxy, Database(configured(book.dsn(proxy), **changes)) as db:
            yield proxy, db, book


def proxied(cluster: Cluster) -> FaultProxy:
    return FaultProxy(socket_of(cluster.socket_folder, cluster.port))


def configured(dsn: str, **changes: Any) -> DatabaseConfig:
    return replace(CONFIG, dsn=dsn, **changes)


@contextmanager
def patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    """
    Put another value in the place of an attribute while the block runs: how a protection is switched off.
    """
    kept = owner.__dict__[name] if isinstance(owner, type) else getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, kept)


async def timed(work: Awaitable[Any]) -> tuple[float, str]:
    """
    Await something; return its seconds, and what became of it: "success", or the type of its error.
    """
    began = time.monotonic()
    try:
        await work
    except Exception as error:  # noqa: BLE001  # the kind is what is asked for
        outcome = type(error).__name__
    else:
        outcome = "success"
    return time.monotonic() - began, outcome
