"""The mix of pg_stat_statements as something that can be sent again: which statements, how often, with which values.

It reads statistics and tries each statement once, in a transaction that is rolled back. What cannot be sent, or may
not, is left out and named with the reason.
"""

from __future__ import annotations

import contextlib
import json
import random
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from magnus import sql
from magnus._normalise import normalised
from magnus.errors import ConfigError
from magnus.insight import Unavailable, extension, is_own
from magnus.loadtest._draws import Spread, constant, fresh, listed, made_up, prefix
from magnus.loadtest._statements import FREE, Unreadable, is_readable, read

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from magnus.loadtest._draws import Draw
    from magnus.loadtest._statements import Reading, Use

_LIMIT: Final = 10.0
_TRIED: Final = "5s"
_MOST_LISTED: Final = 100
_NAMED: Final = 40
_HARMLESS: Final = frozenset({
    "random", "random_normal", "clock_timestamp", "timeofday", "gen_random_uuid", "uuidv4", "uuidv7", "count",
})  # fmt: skip
"""Volatile functions that change nothing."""
_WRITING: Final = frozenset({"nextval", "currval", "lastval", "setval", "pg_advisory_xact_lock", "pg_notify"})
"""Those of the server's own that go with `writes`."""


@dataclass(frozen=True, slots=True)
class Values:
    """
    Where the values of a parameter come from, ready for JSON.

    Attributes:
        kind: As `Use.kind`, or "fresh".
        type: The parameter's type, as the driver calls it.
        cast: From a text of the statistics to a value: `::integer::bigint`; "" without statistics.
        size: How many values at once; 0: one that is no list.
        rows: How many rows a call returned on average, for LIMIT.
        common, shares, bounds: As `Spread` has them, as texts.
    """

    kind: str
    type: str
    cast: str = ""
    size: int = 0
    rows: int = 1
    common: Sequence[str] = ()
    shares: Sequence[float] = ()
    bounds: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Replayed:
    """
    One statement of a mix.
    """

    name: str
    text: str
    calls: float
    values: Sequence[Values]
    ranges: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True)
class Mix:
    """
    What is sent, and what is said of it.
    """

    statements: Sequence[Replayed]
    notes: Sequence[str] = field(default=())

    def dumps(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> Mix:
        found = json.loads(text)
        statements = [
            Replayed(
                row["name"], row["text"], row["calls"], [Values(**values) for values in row["values"]],
                [(low, high) for low, high in row["ranges"]],
            )
            for row in found["statements"]
        ]  # fmt: skip
        return cls(statements, found["notes"])


class LeftOut(Exception):
    """
    A statement that is not sent; the message says why.
    """


@dataclass(frozen=True, slots=True)
class _Counted:
    name: str
    text: str
    calls: int
    rows: int


async def capture(source: Any, target: Any, *, top: int, writes: bool) -> Mix:
    """
    Read the mix from the database that `source` is connected to, for sending to the one of `target`.

    Raises:
        ConfigError: the statistics cannot be read, or nothing of them can be sent.
    """
    if not is_readable():
        raise ConfigError("workload", "replay", "needs the server's grammar: pip install 'magnus-db[sql]'")
    try:
        counted = await _counted(source, top)
    except Unavailable as error:
        raise ConfigError("workload", "replay", f"{error}; {error.advice}") from None
    found: list[Replayed] = []
    left: list[tuple[_Counted, str]] = []
    for statement in counted:
        try:
            found.append(await _replayed(target, statement, writes=writes))
        except LeftOut as reason:
            left.append((statement, str(reason)))
    if not found:
        why = f"; {left[0][0].name}: {left[0][1]}" if left else ""
        raise ConfigError("workload", "replay", f"pg_stat_statements has no statement that can be sent{why}")
    return Mix(found, _notes(found, left))


def _notes(found: Sequence[Replayed], left: Sequence[tuple[_Counted, str]]) -> list[str]:
    sent = sum(statement.calls for statement in found)
    whole = sent + sum(statement.calls for statement, _ in left)
    notes = [f"{len(found)} statements, {sent / whole:.1%} of {whole:,.0f} calls"]
    notes += [f"left out: {one.name} ({one.calls / whole:.1%} of the calls): {reason}" for one, reason in left]
    for statement in found:
        invented = [f"${place}" for place, values in enumerate(statement.values, 1) if values.kind in {"free", "word"}]
        if invented:
            notes.append(f"made up: {', '.join(invented)} of {statement.name}")
    return notes


async def _counted(con: Any, top: int) -> list[_Counted]:
    found = await extension(con)
    toplevel = "s.toplevel" if "toplevel" in found.columns else "true"
    rows = await con.fetch(
        f"SELECT min(s.queryid) AS queryid, s.query, sum(s.calls)::bigint AS calls, sum(s.rows)::bigint AS rows "  # noqa: S608  # names of the catalogue
        f"FROM {found.prefix}(true) AS s JOIN pg_catalog.pg_database d ON d.oid = s.dbid "
        f"WHERE d.datname = pg_catalog.current_database() AND {toplevel} AND s.queryid IS NOT NULL AND s.calls > 0 "
        f"GROUP BY s.query ORDER BY calls DESC, s.query",
        timeout=_LIMIT,
    )
    listed_: list[_Counted] = []
    for row in rows:
        normal = normalised(row["query"])
        if normal.is_plannable and not is_own(row["query"]):
            name = f"{normal.summary[:_NAMED]} {row['queryid'] & 0xFFFFFFFF:08x}"
            listed_.append(_Counted(name, row["query"], int(row["calls"]), int(row["rows"])))
    return listed_[:top]


async def _replayed(con: Any, statement: _Counted, *, writes: bool) -> Replayed:
    try:
        reading = read(statement.text)
    except Unreadable as error:
        raise LeftOut(f"the grammar refuses it: {error}") from None
    if reading.writes and not writes:
        raise LeftOut(f"{reading.writes}; --writes sends it")
    await _check_functions(con, reading, writes=writes)
    try:
        prepared = await con.prepare(reading.text, timeout=_LIMIT)
    except asyncpg.PostgresError as error:
        raise LeftOut(f"it cannot be prepared: {error}") from None
    rows = max(1, round(statement.rows / statement.calls))
    values = await _values(con, reading, prepared.get_parameters(), rows)
    replayed = Replayed(statement.name, reading.text, float(statement.calls), values, reading.ranges)
    await _try(con, replayed, writes=writes)
    return replayed


async def _check_functions(con: Any, reading: Reading, *, writes: bool) -> None:
    rows = await con.fetch(sql.text("replay_functions"), sorted(reading.functions - _HARMLESS), timeout=_LIMIT)
    for row in rows:
        if writes and (not row["is_own"] or row["name"] in _WRITING):
            continue
        raise LeftOut(f"calls {row['name']}(), which may do something" + ("" if writes else "; --writes may send it"))


async def _values(con: Any, reading: Reading, types: Sequence[Any], rows: int) -> list[Values]:
    uses = [reading.uses.get(number, FREE) for number in range(1, len(types) + 1)]
    columns = await _columns(con, uses)
    return [
        _of(number, use, kind, columns.get(number), rows)
        for number, (use, kind) in enumerate(zip(uses, types, strict=True), 1)
    ]


async def _columns(con: Any, uses: Sequence[Use]) -> Mapping[int, Any]:
    """
    Return what is known of the parameters' columns, by the parameters' numbers: of the first table that has it.
    """
    wanted = [(number, *table, use.column) for number, use in enumerate(uses, 1) for table in use.tables]
    if not wanted:
        return {}
    _, schemas, tables, names = zip(*wanted, strict=True)
    rows = await con.fetch(
        sql.text("replay_columns"), list(schemas), list(tables), list(names), timeout=_LIMIT
    )  # fmt: skip
    found: dict[int, Any] = {}
    for row in sorted(rows, key=lambda row: row["place"]):
        found.setdefault(wanted[row["place"] - 1][0], row)
    return found


def _of(number: int, use: Use, wanted: Any, column: Any, rows: int) -> Values:
    kind: str = wanted.name
    if use.kind in {"limit", "offset"}:
        return Values(use.kind, kind, rows=rows)
    if use.kind == "word":
        return Values(use.kind, kind, common=[use.word])
    if column is not None and not column["is_array"]:
        if column["is_of_view"]:
            raise LeftOut(f"${number} is a value of {use.column} of a view, and of views nothing is known")
        if not column["is_known"]:
            raise LeftOut(f"${number} is a value of {use.column}, which has no statistics: ANALYZE its table")
        if column["common"] or column["bounds"]:
            is_fresh = use.kind == "stored" and column["is_unique"]
            item = f"{_quoted(wanted.schema)}.{_quoted(kind.removesuffix('[]'))}"
            return Values(
                "fresh" if is_fresh else use.kind, kind, f"::{column['type']}::{item}",
                min(rows, _MOST_LISTED) if use.is_list else 0, rows,
                column["common"] or (), column["shares"] or (), column["bounds"] or (),
            )  # fmt: skip
    if made_up(kind) is None:
        raise LeftOut(f"${number} has no column with values, and none of type {kind} can be made up")
    return Values("free", kind)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


# --- from values to arguments ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Arguments:
    """
    Draws the arguments of one statement.
    """

    draws: Sequence[Draw]
    ranges: Sequence[tuple[int, int, Draw]]

    def __call__(self, rng: random.Random) -> list[Any]:
        found = [draw(rng) for draw in self.draws]
        for low, high, draw in self.ranges:
            found[low - 1], found[high - 1] = draw(rng)
        return found


async def arguments(con: Any, statement: Replayed) -> Arguments:
    """
    Return what draws a statement's arguments; the server reads the texts of the statistics.

    Raises:
        asyncpg.PostgresError: a text is no value of the parameter's type.
    """
    spreads = [await _spread(con, values) for values in statement.values]
    draws = [_draw(values, spread) for values, spread in zip(statement.values, spreads, strict=True)]
    steps = [(low, high, spreads[low - 1].step()) for low, high in statement.ranges]
    return Arguments(draws, [(low, high, step) for low, high, step in steps if step is not None])


async def _spread(con: Any, values: Values) -> Spread:
    if not values.cast:
        return Spread((), (), ())
    source = "FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY AS magnus_replay(v, n) ORDER BY n"
    cast = f"SELECT v{values.cast} AS v {source}"  # a type's name, as format_type and the driver give it
    common, bounds = [
        [row["v"] for row in await con.fetch(cast, list(texts), timeout=_LIMIT)]
        for texts in (values.common, values.bounds)
    ]
    return Spread(common, values.shares, bounds)


def _draw(values: Values, spread: Spread) -> Draw:
    if values.kind in {"limit", "offset"}:
        return constant(values.rows if values.kind == "limit" else 0)
    if values.kind == "word":
        return constant(values.common[0])
    if not spread:
        return made_up(values.type) or constant(None)
    if values.kind == "fresh" and (unused := fresh(values.type, spread)) is not None:
        return unused
    # Whole numbers between two that are there are mostly there as well; moments and fractions are not.
    is_whole = isinstance((spread.bounds or spread.common)[0], int)
    draw = spread.draw(is_between=is_whole or values.kind in {"low", "high", "stored"})
    if values.kind == "like":
        return prefix(draw)
    return listed(draw, values.size) if values.size or values.type.endswith("[]") else draw


async def _try(con: Any, statement: Replayed, *, writes: bool) -> None:
    """
    Send it once and take it back. That a value is there already, or that it takes long, is no reason against it.
    """
    try:
        draw = await arguments(con, statement)
        transaction = con.transaction(readonly=not writes)
        await transaction.start()
        try:
            await con.execute(f"SET LOCAL statement_timeout = '{_TRIED}'")
            with contextlib.suppress(asyncpg.QueryCanceledError, asyncpg.IntegrityConstraintViolationError):
                await con.fetch(statement.text, *draw(random.Random(0)))  # noqa: S311  # reproducible, not secret
        finally:
            await transaction.rollback()
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise LeftOut(f"tried once, it failed: {type(error).__name__}") from None  # its text may hold a value
