"""`ava load`, `audit`, `migrate` and `token create`: what is done to the books while nobody needs to serve."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import TYPE_CHECKING

import asyncpg

from ava import housekeeping, migrations
from ava.cli import progress, render
from ava.cli.exits import CommandError, Exit
from ava.cli.source import database
from ava.services import outbox
from ava.tokens import digest, new_token
from magnus import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from ava.cli.drive import Format
    from ava.data.load import Loaded


@dataclasses.dataclass(frozen=True, slots=True)
class LoadOptions:
    """
    What `ava load` was asked for.
    """

    scale: float
    seed: int
    is_replacing: bool = False
    is_progress_shown: bool = True


@contextlib.asynccontextmanager
async def opened(environ: Mapping[str, str], data_dir: Path | None) -> AsyncIterator[Database]:
    """
    Give a small connected database for the length of the block; see `source.database`.
    """
    async with database(environ, data_dir) as config, Database(config.replace(min_pool_size=1)) as db:
        yield db


async def migrate(environ: Mapping[str, str], data_dir: Path | None) -> int:
    """
    Bring the schema up to date and say what was done.
    """
    async with opened(environ, data_dir) as db:
        done = await apply_migrations(db)
    if not done:
        render.line("the schema is up to date", stderr=False)
    return Exit.DONE


async def apply_migrations(db: Database) -> int:
    """
    Apply what is pending, a line each, and return how many those were.
    """
    done = await migrations.migrate(db, on_applied=lambda one: render.line(f"applied migration {one.label}"))
    return len(done)


async def relay(environ: Mapping[str, str], data_dir: Path | None, interval: float, *, is_once: bool) -> int:
    """
    Print events as they come, or those that are there.
    """

    async def tell(event: outbox.Event) -> None:
        render.line(event.to_json(), stderr=False)

    async with opened(environ, data_dir) as db:
        if is_once:
            while await outbox.relay(db, tell):
                pass
        else:
            await outbox.follow(db, tell, interval=interval)
    return Exit.DONE


async def expire(environ: Mapping[str, str], data_dir: Path | None, days: float) -> int:
    """
    Let go of what is old and say how much that was.
    """
    async with opened(environ, data_dir) as db:
        answers, events = await housekeeping.expire(db, days)
    render.line(f"{answers} answers and {events} events are gone; every key is kept", stderr=False)
    return Exit.DONE


async def load(environ: Mapping[str, str], data_dir: Path | None, options: LoadOptions) -> int:
    """
    Fill the database and say what is in it.
    """
    async with opened(environ, data_dir) as db:
        await apply_migrations(db)
        await fill(db, options)
    return Exit.DONE


async def fill(db: Database, options: LoadOptions) -> Loaded:
    """
    Load with a progress bar, or find the data there, and say which.
    """
    from ava.data import load as loading

    began = time.monotonic()
    with progress.bar(is_shown=options.is_progress_shown) as tell:
        found = await loading.load(
            db, scale=options.scale, seed=options.seed, replace=options.is_replacing, progress=tell
        )
    data = found.dataset
    what = f"{data.trades:,} trades of {data.accounts:,} accounts ({data}, as of {data.as_of})"
    render.line(f"loaded {what} in {time.monotonic() - began:.1f} s" if found.is_fresh else f"found {what}")
    return found


async def audit(environ: Mapping[str, str], data_dir: Path | None, output_format: Format) -> int:
    """
    Print the audit's report; 1 when something does not add up.
    """
    from ava import audit as auditing

    async with opened(environ, data_dir) as db:
        with progress.bar() as tell:
            report = await auditing.audit(db, progress=tell)
    code = Exit.DONE if report.is_clean else Exit.ANSWER_IS_NO
    if output_format == "json":
        render.as_json("audit", code, {"is_clean": report.is_clean, **dataclasses.asdict(report)})
    else:
        for text in render.audit_lines(report):
            render.line(text, stderr=False)
    return code


async def create_token(environ: Mapping[str, str], data_dir: Path | None, account: int, label: str) -> int:
    """
    Store a new token's digest and print the token.

    Raises:
        CommandError: there is no such account.
    """
    async with opened(environ, data_dir) as db:
        fresh = await store_token(db, account, label)
    render.line(fresh, stderr=False)
    return Exit.DONE


async def store_token(db: Database, account: int, label: str) -> str:
    """
    Make a token for an account and return it.

    Raises:
        CommandError: there is no such account.
    """
    fresh = new_token()
    try:
        async with db.transaction(settings={"role": "ava_operator"}) as tx:
            await tx.execute(
                "insert into api_tokens (account_id, token_sha256, label) values ($1, $2, $3)",
                account, digest(fresh), label,
            )  # fmt: skip
    except asyncpg.ForeignKeyViolationError:
        raise CommandError(f"there is no account {account}") from None
    except asyncpg.CheckViolationError:
        raise CommandError("--label is longer than 200 characters") from None
    return fresh
