"""Do our fingerprints group statements as the server does? 1,000 of them on AVA's schema, beside their queryids.

A third are AVA's own, each written in several ways; the others are generated: filters, joins, lists, literals and
parameters, writes. The server's id is what pg_stat_statements groups by; statements are planned, not run.
"""

from __future__ import annotations

import random
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
from _report import Column, Report, Row, arguments, environment, run

import ava
from ava import migrations
from magnus import Database, DatabaseConfig, _normalise
from magnus.embedded import Binaries, throwaway
from magnus.slowlog._plans import explained

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Hashable, Iterator, Sequence

QUERIES = Path(ava.__file__).parent / "sql" / "queries"
COLUMNS = {
    "accounts": ["id", "owner_name", "currency", "time_zone"],
    "trades": ["id", "account_id", "instrument_id", "side", "quantity", "price", "amount", "executed_at"],
    "positions": ["account_id", "instrument_id", "quantity", "cost_basis", "realised_pnl"],
    "instruments": ["id", "symbol", "currency", "is_tradable"],
    "cash": ["account_id", "balance", "updated_at"],
}
NUMBERS = {"id", "account_id", "instrument_id", "quantity", "price", "amount", "balance", "cost_basis", "realised_pnl"}
TEXTS = {"owner_name", "currency", "time_zone", "side", "symbol"}


def own() -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted(QUERIES.glob("*.sql"))]


def rewritten(text: str, chance: random.Random) -> str:
    """
    Write the same statement in another way: spaces, comments, the case of keywords.
    """
    bare = re.sub(r"--[^\n]*", "", text)
    if chance.random() < 0.5:
        bare = re.sub(r"\s+", " ", bare).strip()
    if chance.random() < 0.5:
        bare = re.sub(r"\b(select|from|where|join|and|order by|insert into|values)\b", lambda m: m[0].upper(), bare)
    if chance.random() < 0.2:
        bare = bare.replace(" <> ", " != ").replace("inner join", "join")
    return f"/* {chance.random()} */ {bare}" if chance.random() < 0.5 else bare


def generated(chance: random.Random) -> str:  # noqa: C901
    """
    Return a random statement on AVA's schema.
    """
    numbers = iter(range(1, 100))
    table = chance.choice(sorted(COLUMNS))
    is_bound = chance.random() < 0.5

    def value(column: str) -> str:
        if is_bound:
            return f"${next(numbers)}"
        if column in NUMBERS:
            return chance.choice([str(chance.randrange(1000)), f"-{chance.randrange(1, 50)}"])
        return f"'{chance.choice('abc')}''s'" if column in TEXTS else "now()"

    def condition(columns: Sequence[str]) -> str:
        column = chance.choice([name for name in columns if name in NUMBERS | TEXTS])
        kind = chance.randrange(4)
        if kind == 0:
            return f"{column} IN ({', '.join(value(column) for _ in range(chance.choice([1, 2, 3, 8])))})"
        if kind == 1 and column in NUMBERS:
            return f"{column} BETWEEN {value(column)} AND {value(column)}"
        return f"{column} {chance.choice(['=', '<>', '>'])} {value(column)}"

    def where(columns: Sequence[str]) -> str:
        return " AND ".join(condition(columns) for _ in range(chance.choice([1, 1, 2])))

    columns = COLUMNS[table]
    kind = chance.randrange(6)
    if kind == 0:
        column = chance.choice([name for name in columns if name in NUMBERS | TEXTS and name != "id"])
        text = f"UPDATE {table} SET {column} = {value(column)} WHERE {where(columns)}"
    elif kind == 1:
        text = f"DELETE FROM {table} WHERE {where(columns)}"
    elif kind == 2:
        some = sorted(chance.sample(columns, 2))
        text = f"SELECT {', '.join(some)}, count(*) FROM {table} WHERE {where(columns)} GROUP BY {', '.join(some)}"
    else:
        some = sorted(chance.sample(columns, chance.choice([1, 2])))
        order = f" ORDER BY {some[0]} LIMIT {value('id')}" if chance.random() < 0.4 else ""
        text = f"SELECT {', '.join(some)} FROM {table} WHERE {where(columns)}{order}"
    return text if chance.random() < 0.7 else rewritten(text, chance)


def statements(count: int, seed: int) -> Iterator[str]:
    chance = random.Random(seed)
    texts = own()
    for number in range(count):
        yield rewritten(texts[number % len(texts)], chance) if number < count // 3 else generated(chance)


async def queryids(dsn: str, texts: Sequence[str]) -> list[int | None]:
    """
    Return the server's id of each statement; None for what it refuses to plan.
    """
    con = await asyncpg.connect(dsn)
    found: list[int | None] = []
    try:
        for text in texts:
            try:
                plan = await explained(con, text)
            except asyncpg.PostgresError:
                plan = None
            found.append(None if plan is None else plan.queryid)
    finally:
        await con.close()
    return found


def agreement(theirs: Sequence[Hashable], ours: Sequence[Hashable]) -> tuple[float, float, float]:
    """
    Return the share of statements whose group is the same set, of those in a group that holds what the server tells
    apart, and of those whose group lacks what the server puts into it.
    """
    groups: tuple[dict[Any, set[int]], dict[Any, set[int]]] = (defaultdict(set), defaultdict(set))
    for number, keys in enumerate(zip(theirs, ours, strict=True)):
        for group, key in zip(groups, keys, strict=True):
            group[key].add(number)
    same = merged = split = 0
    for number, (their, our) in enumerate(zip(theirs, ours, strict=True)):
        server, mine = groups[0][their], groups[1][our]
        assert number in mine
        same += server == mine
        merged += bool(mine - server)
        split += bool(server - mine)
    return same / len(ours), merged / len(ours), split / len(ours)


def own_scanner(text: str) -> str:
    """
    Return the fingerprint that is made where pgparse is not installed.
    """
    reading = _normalise._Reading()  # noqa: SLF001
    for piece in _normalise.pieces(text):
        reading.see(piece)
    return reading.normal(lambda _: None, text).fingerprint


async def compare(options: argparse.Namespace, dsn: str) -> None:
    async with Database(DatabaseConfig(dsn=dsn, slow_log="off")) as db:
        await migrations.migrate(db)
    texts = list(statements(options.statements, options.seed))
    ids = await queryids(dsn, texts)
    kept = [(text, found) for text, found in zip(texts, ids, strict=True) if found is not None]
    texts, theirs = [text for text, _ in kept], [found for _, found in kept]
    report = Report("Fingerprints beside the server's queryid", options, await environment(dsn))
    report.note(f"{len(texts)} statements, {len(set(theirs))} queryids; {len(ids) - len(kept)} could not be planned")
    schemes: dict[str, Callable[[str], str]] = {
        "fingerprint, pgparse": lambda text: _normalise.normalised(text).fingerprint,
        "fingerprint, own scanner": own_scanner,
        "shape (what queryids are learned by)": lambda text: _normalise.normalised(text).shape,
    }
    rows, found = [], {}
    for name, scheme in schemes.items():
        ours = [scheme(text) for text in texts]
        found[name] = agreement(theirs, ours)
        rows.append(Row(name, (100 * found[name][0], 100 * found[name][1], 100 * found[name][2], len(set(ours)))))
    report.table(
        "share of statements in %",
        [Column("same group", ".1f"), Column("merged", ".1f"), Column("split", ".1f"), Column("groups")],
        rows,
    )
    report.goal("no shape holds two queryids (% merged)", 100 * found[rows[2].name][1], most=0)
    report.goal("groups that are the server's, pgparse (%)", 100 * found[rows[0].name][0], least=95)
    report.goal("groups that are the server's, own scanner (%)", 100 * found[rows[1].name][0], least=95)
    report.save()


def main() -> None:
    options = arguments(__doc__.splitlines()[0], statements=1000, quick_statements=150, pg=18)
    binaries = Binaries.bundled() if options.pg == 18 else Binaries.system(options.pg)
    with throwaway(binaries) as cluster:
        run(compare(options, cluster.dsn()))


if __name__ == "__main__":
    sys.exit(main())
