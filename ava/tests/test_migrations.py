"""Migrations: what is pending is decided purely; each file is applied once, whole, by one process at a time."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import asyncpg
import pytest

from ava import migrations
from ava.migrations import (
    Applied,
    Migration,
    MigrationChanged,
    MigrationError,
    RolesMissing,
    SchemaTooNew,
    discover,
    migrate,
    pending,
    status,
)
from magnus import Database, DatabaseConfig, once
from magnus.embedded import throwaway
from tests.servers import binaries_or_skip

FIRST = Migration(1, "first", "create table first (id bigint)")
SECOND = Migration(2, "second", "create table second (id bigint); insert into first values (1)")
THIRD = Migration(3, "third", "create table third (id bigint)")


def opened(dsn: str) -> Database:
    return Database(DatabaseConfig(dsn=dsn, min_pool_size=1, max_pool_size=4))


def applied(migration: Migration) -> Applied:
    return Applied(migration.version, migration.name, migration.sha256, datetime(2026, 1, 2, tzinfo=UTC))


@pytest.mark.parametrize(
    ("done", "expected"),
    [
        ([], (FIRST, SECOND, THIRD)),
        ([FIRST], (SECOND, THIRD)),
        ([FIRST, SECOND], (THIRD,)),
        ([FIRST, SECOND, THIRD], ()),
    ],
)
def test_pending_is_what_follows_the_last_applied(done, expected):
    """In order, nothing twice."""
    assert pending((FIRST, SECOND, THIRD), map(applied, done)) == expected


def test_changed_file_is_refused():
    """The text names the migration, the date and both checksums."""
    edited = Migration(1, "first", FIRST.sql + " -- edited")

    with pytest.raises(MigrationChanged, match=r"0001_first was applied on 2026-01-02") as caught:
        pending((edited, SECOND), [applied(FIRST)])

    assert FIRST.sha256[:12] in str(caught.value)
    assert edited.sha256[:12] in str(caught.value)
    assert caught.value.version == 1


def test_newer_schema_is_refused():
    """An old release does not run on what it does not know."""
    with pytest.raises(SchemaTooNew, match=r"version 3, this AVA knows 2: install the newer AVA") as caught:
        pending((FIRST, SECOND), map(applied, [FIRST, SECOND, THIRD]))

    assert (caught.value.found, caught.value.known) == (3, 2)


def test_hole_in_the_table_is_refused():
    """A row that was deleted by hand is not silently applied again."""
    with pytest.raises(MigrationError, match=r"0001_first is missing below version 2"):
        pending((FIRST, SECOND), [applied(SECOND)])


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["1_first.sql"], "1_first.sql: a migration is named like"),
        (["0001_First.sql"], "0001_First.sql: a migration is named like"),
        (["0001_a.sql", "0003_c.sql"], "without gaps: 0001_a, 0003_c"),
        (["0001_a.sql", "0001_b.sql"], "without gaps: 0001_a, 0001_b"),
        (["0002_b.sql"], "without gaps: 0002_b"),
    ],
)
def test_misnamed_files_are_refused(tmp_path, names, complaint):
    """A slip in a file's number is found before anything is applied."""
    for name in names:
        (tmp_path / name).write_text("select 1")

    with pytest.raises(MigrationError, match=re.escape(complaint)):
        discover(tmp_path)


def test_discover_orders_files_and_ignores_others(tmp_path):
    """Only .sql counts; line ends do not change a checksum."""
    (tmp_path / "0002_b.sql").write_bytes(b"select 2;\r\nselect 3;\r\n")
    (tmp_path / "0001_a.sql").write_text("select 1")
    (tmp_path / "README.md").write_text("not a migration")

    found = discover(tmp_path)

    assert [migration.label for migration in found] == ["0001_a", "0002_b"]
    assert found[1].sha256 == Migration(2, "b", "select 2;\nselect 3;\n").sha256


def test_packaged_files_leave_the_transaction_to_the_runner():
    """A COMMIT inside a file would break its atomicity; CONCURRENTLY cannot run in a transaction."""
    found = discover()

    assert found
    for migration in found:
        code = re.sub(r"--[^\n]*", "", migration.sql)
        assert not re.search(r"(?im)^\s*(begin|commit|rollback|start\s+transaction)\b|\bconcurrently\b", code)


async def test_migrate_brings_an_empty_database_to_the_schema_once(bare):
    """Everything the first time, nothing the second."""
    told: list[str] = []

    async with opened(bare.owner) as db:
        before = await status(db)
        first = await migrate(db, on_applied=lambda migration: told.append(migration.label))
        after = await status(db)
        second = await migrate(db)

    assert before.applied == ()
    assert before.pending == first == discover()
    assert told == [migration.label for migration in first]
    assert after.is_current
    assert [(row.version, row.sha256) for row in after.applied] == [(one.version, one.sha256) for one in first]
    assert second == ()


async def test_migrate_works_as_superuser(bare):
    """A managed database may hand out nothing else."""
    async with opened(bare.superuser) as db:
        await migrate(db)

        assert (await status(db)).is_current


async def test_processes_that_migrate_at_once_apply_each_file_once(bare):
    """One works, the others wait and then find nothing to do."""
    async with AsyncExitStack() as stack:
        dbs = [await stack.enter_async_context(opened(bare.owner)) for _ in range(4)]

        done = await asyncio.gather(*(migrate(db) for db in dbs))

    assert sorted(migration.version for part in done for migration in part) == [one.version for one in discover()]


async def test_failing_file_leaves_nothing_and_the_next_call_goes_on(bare):
    """What was committed before it stays; the file itself is undone as a whole."""
    broken = Migration(2, "second", "create table second (id bigint); select 1/0")
    async with opened(bare.owner) as db:
        with pytest.raises(asyncpg.DivisionByZeroError):
            await migrate(db, known=(FIRST, broken))
        assert await db.fetchval("select to_regclass('second')") is None
        assert [row.version for row in (await status(db, known=(FIRST, SECOND))).applied] == [1]

        assert await migrate(db, known=(FIRST, SECOND)) == (SECOND,)


async def test_database_of_a_newer_release_is_left_alone(bare):
    """Migrate and status both say it, and nothing is written."""
    async with opened(bare.owner) as db:
        await migrate(db, known=(FIRST, SECOND, THIRD))

        with pytest.raises(SchemaTooNew):
            await migrate(db, known=(FIRST, SECOND))
        with pytest.raises(SchemaTooNew):
            await status(db, known=(FIRST,))


async def test_busy_table_is_given_up_instead_of_blocking_everybody(bare, monkeypatch):
    """A statement that queues for a table makes all readers queue behind it, so it must not wait for long."""
    monkeypatch.setattr(migrations, "_DDL_LIMIT", "50ms")
    async with opened(bare.owner) as db:
        await migrate(db, known=(FIRST,))
        reader = await asyncpg.connect(bare.owner)
        try:
            await reader.execute("begin; lock table first in access share mode")
            alter = Migration(2, "alter", "alter table first add column more text")

            with pytest.raises(MigrationError, match=r"0002_alter: another session holds a lock"):
                await migrate(db, known=(FIRST, alter))

            await reader.execute("commit")
            assert await migrate(db, known=(FIRST, alter)) == (alter,)
        finally:
            await reader.close()


async def test_user_who_may_not_create_tables_is_told_so(bare, server):
    """One line that says what to do, not a stack of driver errors."""
    await server.create_role("guest", member_of=("ava_account", "ava_operator"))
    async with opened(bare.owner.replace("//ava@", "//guest@")) as db:
        with pytest.raises(MigrationError, match="connect as the owner of the database"):
            await migrate(db)


@pytest.fixture
async def cluster(pg_version):
    """
    A server of this test's alone: roles belong to the whole server.
    """
    async with throwaway(binaries_or_skip(pg_version)) as found:
        yield found


async def test_roles_are_made_by_an_owner_who_is_no_superuser_and_by_two_databases_at_once(cluster):
    """CREATEROLE is enough, on every version; the second database finds the first one's work."""
    await cluster.create_role("clerk", can_create_roles=True)
    names = [f"books_{number}" for number in range(4)]
    for name in names:
        await cluster.create_database(name, owner="clerk")

    async with AsyncExitStack() as stack:
        dsns = [cluster.dsn(user="clerk", database=name) for name in names]
        dbs = [await stack.enter_async_context(opened(dsn)) for dsn in dsns]
        await asyncio.gather(*(migrate(db) for db in dbs))

        for db in dbs:
            async with db.transaction(settings={"role": "ava_operator"}) as tx:
                assert await tx.fetchval("select count(*) from accounts") == 0


async def test_user_who_may_not_create_roles_is_given_the_sql_that_helps(cluster):
    """The remedy in the error, run by a superuser, is all that is needed."""
    await cluster.create_role("Odd Name")
    await cluster.create_database("books", owner="Odd Name")
    async with opened(cluster.dsn(user="Odd Name", database="books")) as db:
        with pytest.raises(RolesMissing) as caught:
            await migrate(db)
        assert await db.fetchval("select to_regclass('ava_migrations')") is None
        async with cluster.connect() as con:
            await con.execute(caught.value.remedy)

        await migrate(db)

        assert (await status(db)).is_current
    assert caught.value.user == "Odd Name"
    assert caught.value.remedy in str(caught.value)


def test_the_table_of_keys_is_the_layers_own():
    """Statement by statement: what the layer ships is what AVA makes."""
    (migration,) = [each for each in discover() if each.name == "once"]
    statements = [part.strip() for part in re.sub(r"(?m)^--.*\n", "", once.table()).split(";") if part.strip()]
    assert len(statements) == 6
    assert all(statement in migration.sql for statement in statements)
