"""The two ways to a server of the tests: directly, and through a PgBouncer in transaction mode.

A test that takes `target`, or a fixture that does, runs once by each way, so that the public API is held to the same
words behind a pooler. What is refused there is marked, and the mark is a claim that is checked: the refusal must come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from magnus import ConfigError, NeedsSession
from tests.pgbouncer import pgbouncer

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from magnus.embedded import Cluster
    from tests.pgbouncer import Pooler
    from tests.servers import BackgroundLoop, Databases

WAYS: Final = ("direct", "pooler")
SERVER_CONNECTIONS: Final = 20


def pytest_configure(config: pytest.Config) -> None:
    """
    Name the mark.
    """
    config.addinivalue_line(
        "markers",
        "behind_pooler(refuses, because): through a pooler the test must end with NeedsSession of this feature, or "
        "ConfigError of this field",
    )


def way_of(item: pytest.Item) -> str:
    """
    By which way a test goes.
    """
    callspec = getattr(item, "callspec", None)
    return "direct" if callspec is None else str(callspec.params.get("way", "direct"))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """
    Demand of a test that is marked that it is refused as its mark says, when it goes through the pooler.
    """
    mark = pyfuncitem.get_closest_marker("behind_pooler")
    if mark is None or way_of(pyfuncitem) == "direct":
        return (yield)
    wanted = mark.kwargs["refuses"]
    assert mark.kwargs["because"]
    with pytest.raises((NeedsSession, ConfigError)) as caught:
        yield
    found = caught.value
    assert wanted == (found.feature if isinstance(found, NeedsSession) else found.field)
    return True


@pytest.fixture(scope="session")
def shared_pooler(server: Cluster, background_loop: BackgroundLoop) -> Iterator[Pooler]:
    """
    One PgBouncer before the session's server, for whichever database.
    """
    around = pgbouncer(server, default_pool_size=SERVER_CONNECTIONS, server_login_retry=1)
    found = background_loop.run(around.__aenter__())
    yield found
    background_loop.run(around.__aexit__(None, None, None))


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """
    "direct" or "pooler".
    """
    found: str = request.param
    return found


@pytest.fixture(scope="session")
def pooled_database(databases: Databases, background_loop: BackgroundLoop, server: Cluster) -> Iterator[str]:
    """
    The database of all tests that go through the pooler; its sessions have the limits that docs/pgbouncer.md gives to
    the role.
    """
    with databases.fresh() as name:
        background_loop.run(_limit(server, name))
        yield name


@pytest.fixture
def emptied(pooled_database: str, background_loop: BackgroundLoop, server: Cluster) -> str:
    """
    That database without what the test before left, but for its idle sessions, which are the pooler's.
    """
    background_loop.run(_empty(server, pooled_database))
    return pooled_database


@pytest.fixture
def target(way: str, request: pytest.FixtureRequest, dsn: str, database: str) -> dict[str, Any]:
    """
    What a `DatabaseConfig` needs to reach `database` by this way.
    """
    if way == "direct":
        return {"dsn": dsn}
    pooler: Pooler = request.getfixturevalue("shared_pooler")
    return {"dsn": pooler.dsn(database), "pooler": "transaction", "direct_dsn": dsn}


async def _limit(server: Cluster, database: str) -> None:
    limits = {"statement_timeout": "30s", "idle_in_transaction_session_timeout": "60s"}
    async with server.connect(database=database) as con:
        for name, value in limits.items():
            await con.execute(f"ALTER DATABASE {database} SET {name} = '{value}'")


async def _empty(server: Cluster, database: str) -> None:
    async with server.connect(database=database) as con:
        await con.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND state <> 'idle'"
        )
        await con.execute(
            "DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC;"
            "CREATE EXTENSION pg_stat_statements"
        )
