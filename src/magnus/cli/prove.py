"""Proves a change on a load: settings, pools or two servers, an index on a copy; what it changed it takes back."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, fields, replace
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from magnus._dsn import in_database
from magnus._sqltext import scan, split
from magnus.cli import render
from magnus.cli.answer import Answer, ExitCode, Failure, Table
from magnus.cli.bench import described, told_of, write
from magnus.cli.compare import sentence
from magnus.config import DatabaseConfig
from magnus.errors import ConfigError, MagnusError
from magnus.loadtest import Design, Load, Side, Target, prove
from magnus.loadtest.builtin import driver
from magnus.loadtest.runner import runner
from magnus.tuning.quoting import identifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from magnus.loadtest import Proof

_SUFFIX: Final = "_magnus_prove"
_SESSION: Final = frozenset({"user", "superuser", "backend", "superuser-backend"})
_FIELDS: Final = frozenset(item.name for item in fields(DatabaseConfig))


@dataclass(frozen=True)
class Wish:
    """
    What was asked for.

    Attributes:
        a: NAME=VALUE of side A: dsn, pool, connections, or a field of `DatabaseConfig`.
        b: The same of side B.
        settings: NAME=VALUE of PostgreSQL's settings that B has.
        index: CREATE INDEX … that B has.
    """

    a: Mapping[str, str]
    b: Mapping[str, str]
    settings: Mapping[str, str]
    index: str | None
    options: Mapping[str, str]
    connections: int
    save: str | None


def call(address: str | None, environ: Mapping[str, str], wish: Wish, design: Design) -> Answer | Failure:
    """
    Measure A and B in turns and say what the change is worth. Exit code 1 when B is worse.

    Raises:
        ConfigError: an argument, or the change, is impossible.
    """
    if not (wish.a or wish.b or wish.settings or wish.index):
        raise ConfigError("prove", "nothing", "needs a change: --settings, --index, or --a and --b")
    base = Target(address or DatabaseConfig.from_environ(environ).dsn, wish.connections, options=wish.options)
    try:
        a, b = varied(base, "--a", wish.a), varied(base, "--b", wish.b)
        with render.progress(f"{design.workload}, {2 * design.pairs} slices") as shown:
            found = runner(_measured(a, b, wish, design, shown))
    except (MagnusError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        if isinstance(error, ConfigError):
            raise
        advice = "is the server there, and may this role do that? magnus ping"
        return Failure("prove", ExitCode.UNREACHABLE, _told(error), advice)
    return _answer(found, wish, (a, b), design)


def varied(base: Target, name: str, changes: Mapping[str, str]) -> Target:
    """
    Return a side's target.

    Raises:
        ConfigError: a name is none, or its value is impossible.
    """
    target = base
    for key, value in changes.items():
        if key == "dsn":
            target = replace(target, address=value)
        elif key == "pool":
            target = replace(target, pool=value)
        elif key == "connections":
            if not value.isdecimal() or int(value) < 1:
                raise ConfigError(name, f"{key}={value}", "must be a whole number from 1 on")
            target = replace(target, connections=int(value))
        elif key in _FIELDS - {"password", "server_settings"}:
            target = replace(target, config={**target.config, f"MAGNUS_{key.upper()}": value})
        else:
            raise ConfigError(name, key, "is none of dsn, pool, connections, nor a field of DatabaseConfig")
    return target


async def _measured(a: Target, b: Target, wish: Wish, design: Design, shown: Any) -> Proof:
    async with AsyncExitStack() as stack:
        if wish.settings:
            b = replace(b, settings=await of_sessions(b, wish.settings))
        if wish.index:
            b = replace(b, address=await stack.enter_async_context(copy_with(b.address, wish.index)))
        return await prove(Side(a), Side(b), design, shown)


async def of_sessions(target: Target, wanted: Mapping[str, str]) -> Mapping[str, str]:
    """
    Return the settings once the server has agreed to each of them for a session.

    Raises:
        ConfigError: there is no such setting, or no session can have one of its own.
    """
    con = await asyncpg.connect(**driver(target.address))
    try:
        rows = await con.fetch("SELECT name, context FROM pg_settings WHERE name = ANY($1)", list(wanted))
        contexts = {row["name"]: row["context"] for row in rows}
        for name, value in wanted.items():
            context = contexts.get(name)
            if context is None:
                raise ConfigError("--settings", name, "is no setting of this server")
            if context not in _SESSION:
                words = "needs a restart" if context == "postmaster" else "holds for the whole server"
                raise ConfigError("--settings", name, f"{words}: compare two servers, --a dsn=… --b dsn=…")
            try:
                await con.execute("SELECT set_config($1, $2, false)", name, value)
            except asyncpg.PostgresError as error:
                raise ConfigError("--settings", f"{name}={value}", str(error)) from None
    finally:
        await con.close()
    return dict(wanted)


@asynccontextmanager
async def copy_with(address: str, index: str) -> AsyncIterator[str]:
    """
    Copy a database beside itself on its server, make an index in the copy, and drop the copy at the end.

    Raises:
        ConfigError: `index` is not one CREATE INDEX, sessions are in the database, or a copy is there already.
    """
    _check_index(index)
    name = await _lone_database(address)
    copied = f"{name}{_SUFFIX}"
    other = "template1" if name != "template1" else "postgres"
    con = await asyncpg.connect(**driver(in_database(address, other)))
    try:
        try:
            await con.execute(f"CREATE DATABASE {identifier(copied)} TEMPLATE {identifier(name)}")
        except asyncpg.DuplicateDatabaseError:
            advice = f"is there already, of a run that was killed: DROP DATABASE {identifier(copied)}"
            raise ConfigError("--index", copied, advice) from None
        except asyncpg.ObjectInUseError:
            raise ConfigError("--index", name, _IN_USE) from None
        try:
            await _make(in_database(address, copied), index)
            yield in_database(address, copied)
        finally:
            await con.execute(f"DROP DATABASE IF EXISTS {identifier(copied)} WITH (FORCE)")
    finally:
        await con.close()


def _check_index(index: str) -> None:
    statements = list(split(scan(index).tokens))
    words = statements[0][:3] if len(statements) == 1 else []
    if words[:2] != ["create", "index"] and words != ["create", "unique", "index"]:
        raise ConfigError("--index", index, "must be one CREATE INDEX statement")


async def _lone_database(address: str) -> str:
    con = await asyncpg.connect(**driver(address))
    try:
        name: str = await con.fetchval("SELECT current_database()")
        others = await con.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()", name
        )
    finally:
        await con.close()
    if others:
        raise ConfigError("--index", name, _IN_USE)
    return name


async def _make(address: str, index: str) -> None:
    con = await asyncpg.connect(**driver(address))
    try:
        await con.execute(index)
        await con.execute("ANALYZE")  # an index on expressions has statistics of its own
    except asyncpg.PostgresError as error:
        raise ConfigError("--index", index, str(error)) from None
    finally:
        await con.close()


def _answer(found: Proof, wish: Wish, targets: tuple[Target, Target], design: Design) -> Answer:
    rows = []
    for name, comparison in found.comparisons.items():
        a, b = (median(pair[side][name] for pair in found.slices) for side in (0, 1))
        rows.append((
            name, round(1000 * a, 3), round(1000 * b, 3), f"{100 * (comparison.ratio.estimate - 1):+.1f} %",
            f"{100 * (comparison.ratio.low - 1):+.1f} .. {100 * (comparison.ratio.high - 1):+.1f} %",
            comparison.verdict,
        ))  # fmt: skip
    runs = [
        described(Load(design.workload, target, design.seconds, design.clients, seed=design.seed), None)
        for target in targets
    ]
    change = {"settings": dict(wish.settings), "index": wish.index, "a": _shown(wish.a), "b": _shown(wish.b)}
    document = {**found.as_dict(), "change": change, "runs": runs}
    write(wish.save, json.dumps(document, indent=2) + "\n")
    head = f"B: {sentence(found.comparisons[found.by])} (by {found.by})"
    lines = [
        "B: worse, it fails more often" if found.has_more_failures else head,
        (
            f"{found.requests[0]:,} and {found.requests[1]:,} requests in {len(found.slices)} pairs of slices, "
            f"{found.failed[0]:,} and {found.failed[1]:,} failed"
        ),
        *told_of(found.notes),
    ]
    table = Table(("ms", "A", "B", "change", f"{1 - design.alpha:.0%} interval", "verdict"), rows)
    exit_code = ExitCode.NO if found.verdict == "worse" else ExitCode.DONE
    return Answer("prove", document, lines, [table], exit_code=exit_code)


def _shown(changes: Mapping[str, str]) -> dict[str, str]:
    return {
        name: DatabaseConfig(dsn=value).safe_dsn if name == "dsn" and not value.startswith("http") else value
        for name, value in changes.items()
    }


def _told(error: Exception) -> str:
    if isinstance(error, (MagnusError, asyncpg.PostgresError)):
        return str(error)
    return f"the server was not reached, or lost ({type(error).__name__})"


_IN_USE: Final = "has other sessions, so it cannot be copied: name a clone that nobody uses"
