"""Brings a database to the schema that this version of AVA needs: numbered SQL files, applied once, in order.

What is to be done is decided by `pending`, a pure function over the files and the rows of `ava_migrations`. Each file
and its row are one transaction under an advisory lock, so a file is applied as a whole or not at all, and by one
process at a time. The lock belongs to the transaction and therefore works behind a pooler too.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import asyncpg

from ava.sql import statement
from magnus import QueryPriority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime
    from importlib.resources.abc import Traversable

    from magnus import Database, Transaction

_FILE_NAME: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_LOCK: Final = int.from_bytes(b"ava_migr", "big", signed=True)
_QUEUE_LIMIT: Final = "60s"
"""How long to wait for another process that migrates."""
_DDL_LIMIT: Final = "5s"
"""How long a statement may queue for a table; everybody else who wants that table waits behind it."""
_ROLES: Final = ("ava_account", "ava_operator")


class MigrationError(Exception):
    """
    The schema cannot be brought, or is not, where this version of AVA needs it. Nothing was changed.
    """


class MigrationChanged(MigrationError):
    """
    A file differs from what was applied under its number.
    """

    def __init__(self, migration: Migration, applied: Applied) -> None:
        super().__init__(
            f"migration {migration.label} was applied on {applied.applied_at:%Y-%m-%d} with other contents "
            f"(sha256 {applied.sha256[:12]} then, {migration.sha256[:12]} now): restore the file, add a new one"
        )
        self.version = migration.version


class SchemaTooNew(MigrationError):
    """
    A newer AVA migrated this database.
    """

    def __init__(self, found: int, known: int) -> None:
        super().__init__(f"the database has schema version {found}, this AVA knows {known}: install the newer AVA")
        self.found = found
        self.known = known


class RolesMissing(MigrationError):
    """
    The connecting user may not create or take AVA's two roles. `remedy` is the SQL that a superuser runs once.
    """

    def __init__(self, user: str, remedy: str) -> None:
        super().__init__(f"user {user!r} may not create or take AVA's roles; have a superuser run, once: {remedy}")
        self.user = user
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Migration:
    """
    One file: its number, its name and its text.
    """

    version: int
    name: str
    sql: str

    @property
    def label(self) -> str:
        return f"{self.version:04}_{self.name}"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Applied:
    """
    One row of `ava_migrations`.
    """

    version: int
    name: str
    sha256: str
    applied_at: datetime


@dataclass(frozen=True, slots=True)
class Status:
    """
    What was applied, and what is still to be.
    """

    applied: tuple[Applied, ...]
    pending: tuple[Migration, ...]

    @property
    def is_current(self) -> bool:
        return not self.pending


def discover(folder: Traversable | None = None) -> tuple[Migration, ...]:
    """
    Return the migrations of `folder` (AVA's own when not given) in order. Line ends do not count in their checksums.

    Raises:
        MigrationError: a file is misnamed, or the numbers are not 1, 2, 3 …
    """
    found = []
    for entry in (folder or files("ava.sql").joinpath("migrations")).iterdir():
        if entry.name.endswith(".sql"):
            match = _FILE_NAME.fullmatch(entry.name)
            if match is None:
                raise MigrationError(f"{entry.name}: a migration is named like 0001_ledger.sql")
            found.append(Migration(int(match[1]), match[2], entry.read_text(encoding="utf-8")))
    found.sort(key=lambda migration: migration.version)
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise MigrationError(f"migrations are not numbered without gaps: {', '.join(m.label for m in found)}")
    return tuple(found)


def pending(known: Sequence[Migration], applied: Iterable[Applied]) -> tuple[Migration, ...]:
    """
    Return what is still to be applied, in order.

    Raises:
        SchemaTooNew: a version was applied that is not known.
        MigrationChanged: a file is not what was applied.
        MigrationError: a version is missing below one that was applied.
    """
    rows = {row.version: row for row in applied}
    newest = max(rows, default=0)
    if newest > len(known):
        raise SchemaTooNew(newest, len(known))
    for migration in known[:newest]:
        row = rows.get(migration.version)
        if row is None:
            raise MigrationError(f"migration {migration.label} is missing below version {newest}: the table is damaged")
        if row.sha256 != migration.sha256:
            raise MigrationChanged(migration, row)
    return tuple(known[newest:])


async def status(db: Database, *, known: Sequence[Migration] | None = None) -> Status:
    """
    Compare the database with the files; changes nothing.

    Raises:
        MigrationError: as `pending`.
    """
    async with db.transaction(readonly=True) as tx:
        applied = await _read(tx)
    return Status(applied, pending(discover() if known is None else known, applied))


async def migrate(
    db: Database,
    *,
    known: Sequence[Migration] | None = None,
    on_applied: Callable[[Migration], None] | None = None,
) -> tuple[Migration, ...]:
    """
    Apply what is pending and return it; nothing pending is an empty tuple.

    Several processes may call this at once: one works, the others wait for it and then find nothing to do. Cancelled
    or killed half-way, the files that were committed stay and the next call goes on after them.

    Raises:
        MigrationError: as `pending`; RolesMissing: a superuser is needed first.
    """
    known = discover() if known is None else known
    done: list[Migration] = []
    pending(known, (await status(db, known=known)).applied)
    await _ensure_roles(db)
    while (migration := await _apply_next(db, known)) is not None:
        done.append(migration)
        if on_applied is not None:
            on_applied(migration)
    return tuple(done)


async def _ensure_roles(db: Database) -> None:
    try:
        async with db.transaction(settings={"lock_timeout": _QUEUE_LIMIT}) as tx:
            await tx.execute(statement("roles"))
    except asyncpg.InsufficientPrivilegeError:
        raise await _roles_missing(db) from None


async def _roles_missing(db: Database) -> RolesMissing:
    row = await db.fetchrow(
        "select current_user::text as name, quote_ident(current_user) as quoted,"
        " array(select wanted from unnest($1::text[]) as wanted where to_regrole(wanted) is null) as missing",
        list(_ROLES),
    )
    assert row is not None
    create = "".join(f"CREATE ROLE {role} NOLOGIN; " for role in row["missing"])
    return RolesMissing(row["name"], f"{create}GRANT {', '.join(_ROLES)} TO {row['quoted']};")


async def _apply_next(db: Database, known: Sequence[Migration]) -> Migration | None:
    label = "the list of migrations"
    try:
        async with db.transaction(priority=QueryPriority.BACKGROUND, settings={"lock_timeout": _QUEUE_LIMIT}) as tx:
            await tx.execute("select pg_advisory_xact_lock($1)", _LOCK)
            todo = pending(known, await _read(tx))
            if not todo:
                return None
            migration, label = todo[0], todo[0].label
            await tx.execute(f"set local lock_timeout = '{_DDL_LIMIT}'")
            if migration.version == 1:
                await tx.execute(statement("migrations_table"))
            await tx.execute(migration.sql)
            await tx.execute(
                "insert into ava_migrations (version, name, sha256) values ($1, $2, $3)",
                migration.version, migration.name, migration.sha256,
            )  # fmt: skip
    except asyncpg.LockNotAvailableError:
        raise MigrationError(f"{label}: another session holds a lock that is needed; try again later") from None
    except asyncpg.InsufficientPrivilegeError as error:
        raise MigrationError(f"{label}: {error}; connect as the owner of the database") from None
    return migration


async def _read(tx: Transaction) -> tuple[Applied, ...]:
    # Not to_regclass(): it locks no table, so a session that has just waited for another's migration would answer from
    # its cache that there is none.
    if not await tx.fetchval(statement("migrations_table_exists")):
        return ()
    rows = await tx.fetch("select version, name, sha256, applied_at from ava_migrations order by version")
    return tuple(Applied(**row) for row in rows)
