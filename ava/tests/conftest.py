"""Fixtures for AVA's tests: databases that are migrated, or loaded, owned by a user who is no superuser."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import date
from typing import TYPE_CHECKING, NamedTuple

import pytest

from ava.data.load import load
from ava.migrations import migrate
from magnus import Database, DatabaseConfig
from magnus.embedded import throwaway
from magnus.testing import standby_of, until_replayed
from tests.servers import binaries_or_skip

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from magnus.embedded import Cluster
    from tests.servers import BackgroundLoop, Databases

OWNER = "ava"
SEED = 42
AS_OF = date(2026, 7, 15)
"""The reference date of all loaded test data: the same bytes on every day."""


class Dsns(NamedTuple):
    """
    One database, as the service logs in, and as the superuser.
    """

    owner: str
    superuser: str


def small(dsn: str) -> Database:
    """
    A database with a pool for a test.
    """
    return Database(DatabaseConfig(dsn=dsn, min_pool_size=1, max_pool_size=4))


@pytest.fixture(scope="session")
def owner(server: Cluster, background_loop: BackgroundLoop) -> str:
    """
    A login role that owns AVA's databases and is bound by row-level security.
    """

    async def make() -> None:
        async with server.connect() as con:
            for role in ("ava_account", "ava_operator"):
                await con.execute(f"create role {role} nologin")
        await server.create_role(OWNER, can_create_roles=True, member_of=("ava_account", "ava_operator"))

    background_loop.run(make())
    return OWNER


@pytest.fixture(scope="session")
def migrated_template(server: Cluster, databases: Databases, owner: str) -> str:
    """
    AVA's schema, empty.
    """

    async def build(dsn: str) -> None:
        name = "ava_migrated"
        async with server.connect() as con:
            await con.execute(f"alter database {name} owner to {owner}")
        async with small(server.dsn(user=owner, database=name)) as db:
            await migrate(db)

    return databases.template("ava_migrated", build)


@pytest.fixture(scope="session")
def loaded_template(server: Cluster, databases: Databases, owner: str) -> str:
    """
    AVA's schema with 5 accounts and 2,000 trades.
    """

    async def build(dsn: str) -> None:
        name = "ava_loaded"
        async with server.connect() as con:
            await con.execute(f"alter database {name} owner to {owner}")
        async with small(server.dsn(user=owner, database=name)) as db:
            await migrate(db)
            await load(db, scale=0.002, seed=SEED, as_of=AS_OF)

    return databases.template("ava_loaded", build)


@pytest.fixture
def bare(server: Cluster, databases: Databases, owner: str) -> Iterator[Dsns]:
    """
    An empty database that the owner may fill.
    """
    with databases.fresh(owner=owner) as name:
        yield Dsns(server.dsn(user=owner, database=name), server.dsn(database=name))


@pytest.fixture
def migrated(server: Cluster, databases: Databases, migrated_template: str, owner: str) -> Iterator[Dsns]:
    """
    A database of this test's alone, with AVA's schema.
    """
    with databases.fresh(migrated_template, owner) as name:
        yield Dsns(server.dsn(user=owner, database=name), server.dsn(database=name))


@pytest.fixture
def loaded(server: Cluster, databases: Databases, loaded_template: str, owner: str) -> Iterator[Dsns]:
    """
    A database of this test's alone, with AVA's schema and generated data (SEED, AS_OF).
    """
    with databases.fresh(loaded_template, owner) as name:
        yield Dsns(server.dsn(user=owner, database=name), server.dsn(database=name))


@pytest.fixture
async def streamed(pg_version: int) -> AsyncIterator[tuple[Dsns, Cluster, Cluster]]:
    """
    AVA's schema on a primary of this test's alone, the primary, and its standby, which has the schema.
    """
    async with AsyncExitStack() as stack:
        primary = await stack.enter_async_context(throwaway(binaries_or_skip(pg_version)))
        async with primary.connect() as con:
            for role in ("ava_account", "ava_operator"):
                await con.execute(f"create role {role} nologin")
        async with small(primary.dsn()) as db:
            await migrate(db)
        standby = await stack.enter_async_context(standby_of(primary))
        await until_replayed(primary, standby)
        yield Dsns(primary.dsn(), primary.dsn()), primary, standby


@pytest.fixture
async def migrated_db(migrated: Dsns) -> AsyncIterator[Database]:
    """
    `migrated`, connected as the owner.
    """
    async with small(migrated.owner) as db:
        yield db


@pytest.fixture
async def loaded_db(loaded: Dsns) -> AsyncIterator[Database]:
    """
    `loaded`, connected as the owner.
    """
    async with small(loaded.owner) as db:
        yield db
