"""An application on a real server: health through outages, lanes, transactions, shutdown, and no secret anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import httpx2
import pytest
from fastapi import Depends, FastAPI, Request
from starlette.testclient import TestClient

from magnus.config import DatabaseConfig
from magnus.database import get_database
from magnus.embedded import throwaway
from magnus.errors import ConnectError
from magnus.fastapi import (
    AdmissionMiddleware,
    Db,
    Magnus,
    Problem,
    RequestIdMiddleware,
    Tx,
    install_error_handlers,
    lane,
    problem_response,
)
from magnus.observe import Event, HealthCheckRecovered, PoolWarmed, WarmupFailed
from tests.servers import binaries_or_skip

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from magnus.embedded import Cluster

CANARY = "hunter2canary"
LIMIT = 60.0

SERVICE = """
from fastapi import FastAPI
from magnus import logs
from magnus.fastapi import AdmissionMiddleware, Db, Magnus, RequestIdMiddleware, install_error_handlers, lane

logs.configure()
magnus = Magnus(warmup=3)
app = FastAPI(lifespan=magnus.lifespan)
app.add_middleware(AdmissionMiddleware)
app.add_middleware(RequestIdMiddleware)
install_error_handlers(app)
app.include_router(magnus.router, prefix="/api")

@app.get("/api/limit", dependencies=[lane("high")])
async def limit(db: Db) -> str:
    return await db.fetchval("SELECT current_setting('statement_timeout')")

@app.get("/api/boom")
async def boom(db: Db) -> None:
    raise RuntimeError(f"at {db.config.dsn}")
"""


# A call in an outage ends at its lane's limit.
PATIENCE = {"MAGNUS_LANE_TIMEOUTS": '{"high": "4s"}'}


class Service:
    """
    The service above under uvicorn, in a process of its own.
    """

    def __init__(self, folder: Path, dsn: str) -> None:
        (folder / "service.py").write_text(SERVICE)
        listener = socket.create_server(("127.0.0.1", 0))
        self.base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._log = folder / "log"
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "DB_", "MAGNUS"))}
        with listener, self._log.open("w") as log:
            run = f"import uvicorn; uvicorn.run('service:app', fd={listener.fileno()}, log_config=None)"
            self.process = subprocess.Popen(
                [sys.executable, "-c", run],
                cwd=folder,
                env={**environ, "DATABASE_URL": dsn, "DB_POOL_MIN": "2", "DB_POOL_MAX": "4", **PATIENCE},
                stdout=log,
                stderr=log,
                pass_fds=[listener.fileno()],
            )

    def log(self) -> str:
        return self._log.read_text()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(LIMIT)

    def discard(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@asynccontextmanager
async def serving(folder: Path, dsn: str) -> AsyncIterator[tuple[Service, httpx2.AsyncClient]]:
    service = Service(folder, dsn)
    try:
        async with httpx2.AsyncClient(base_url=service.base, timeout=LIMIT) as client:
            yield service, client
    except BaseException:
        print(service.log())  # noqa: T201  # pytest shows it with the failure
        raise
    finally:
        service.discard()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """
    Poll, bounded.
    """
    async with asyncio.timeout(LIMIT):
        while not await condition():  # noqa: ASYNC110  # the condition is in another process
            await asyncio.sleep(0.05)


def answers(
    client: httpx2.AsyncClient, path: str, status: int, body: dict[str, Any] | None = None
) -> Callable[[], Any]:
    async def ask() -> bool:
        found = await client.get(path)
        return found.status_code == status and (body is None or found.json() == body)

    return ask


@pytest.fixture
def own_server(pg_version: int) -> Iterator[Cluster]:
    """
    A server that this test may stop.
    """
    with throwaway(binaries_or_skip(pg_version)) as cluster:
        yield cluster


@pytest.mark.one_version
async def test_readiness_follows_the_server_and_liveness_does_not(own_server, tmp_path):
    """Ready; server stopped: 503 database_check_failed; server back: ready by itself. Alive throughout, no secret."""
    dsn = own_server.dsn(is_tcp=True)
    async with serving(tmp_path, dsn) as (service, client):
        await until(lambda: ready(client))
        alive: list[int] = []
        watch = asyncio.create_task(watch_liveness(client, alive))
        found = await client.get("/api/health/readiness")
        assert found.json() == {"status": "ready", "database": "connected", "pool_size": 3, "pool_free": 3}
        assert (await client.get("/api/limit")).json() == "5s"
        stats = (await client.get("/api/health/stats")).json()
        assert stats["query_stats"]["successful"] == 1
        assert (stats["pool_stats"]["connected"], stats["pool_stats"]["max_size"]) == (True, 4)

        await own_server.stop()
        refused = {"status": "not_ready", "reason": "database_check_failed", "cause": "unreachable"}
        await until(answers(client, "/api/health/readiness", 503, refused))
        assert (await client.get("/api/health/stats")).json()["pool_stats"]["connected"] is False
        while_down = await client.get("/api/limit")
        assert while_down.status_code == 503
        assert while_down.headers["retry-after"]

        await own_server.start()
        await until(answers(client, "/api/health/readiness", 200))
        assert (await client.get("/api/limit")).json() == "5s"
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        assert set(alive) == {200}

        boom = await client.get("/api/boom", headers={"X-Request-ID": "boom-1"})
        assert (boom.status_code, boom.json()["request_id"]) == (500, "boom-1")
        assert service.stop() in {0, -signal.SIGTERM}
        log = service.log()
        assert "database_health_check_failed" in log
        assert "database_health_check_recovered" in log
        traceback = next(line for line in log.splitlines() if "RuntimeError" in line)
        assert '"request_id": "boom-1"' in traceback
        secret = own_server.password()
        assert secret in dsn
        assert secret not in log + while_down.text + boom.text


async def ready(client: httpx2.AsyncClient) -> bool:
    with contextlib.suppress(httpx2.ConnectError):
        return (await client.get("/api/health/readiness")).status_code == 200
    return False


async def watch_liveness(client: httpx2.AsyncClient, seen: list[int]) -> None:
    while True:
        seen.append((await client.get("/api/health/liveness")).status_code)
        await asyncio.sleep(0.05)


@pytest.mark.one_version
async def test_a_service_starts_before_its_server(own_server, tmp_path):
    """An unreachable server is an event and a 503, not an exit; the service heals when the server comes."""
    dsn = own_server.dsn()
    await own_server.stop()
    async with serving(tmp_path, dsn) as (service, client):
        await until(lambda: live(client))
        found = await client.get("/api/health/readiness")
        assert (found.status_code, found.json()["reason"]) == (503, "database_check_failed")
        await own_server.start()
        await until(answers(client, "/api/health/readiness", 200))
        assert (await client.get("/api/limit")).json() == "5s"
        assert service.stop() in {0, -signal.SIGTERM}
        assert "database_warmup_failed" in service.log()


async def live(client: httpx2.AsyncClient) -> bool:
    with contextlib.suppress(httpx2.ConnectError):
        return (await client.get("/api/health/liveness")).status_code == 200
    return False


def config_of(dsn: str, **changes: Any) -> DatabaseConfig:
    return DatabaseConfig(dsn=dsn, min_pool_size=1, max_pool_size=4, **changes)


def app_on(magnus: Magnus, **more: Any) -> FastAPI:
    app = FastAPI(lifespan=more.pop("lifespan", magnus.lifespan), **more)
    app.add_middleware(AdmissionMiddleware)
    app.add_middleware(RequestIdMiddleware)
    install_error_handlers(app)
    app.include_router(magnus.router, prefix="/api")
    return app


@pytest.mark.one_version
def test_the_lifespan_opens_warms_installs_and_closes(dsn):
    """Inside, the pool is warm and `get_database` gives it; outside, nothing is left and it may start again."""
    events: list[Event] = []
    magnus = Magnus(config_of(dsn), warmup=3, observers=[events.append])
    app = app_on(magnus)

    @app.get("/same")
    async def same(db: Db) -> bool:
        return db is await get_database() is magnus.database

    for _ in range(2):
        with TestClient(app) as client:
            assert client.get("/same").json() is True
            database = magnus.database
            assert client.get("/api/health/readiness").json()["pool_size"] == 3
        assert not database.is_connected
    assert [event for event in events if isinstance(event, PoolWarmed)] == [PoolWarmed(3, 3)] * 2


@pytest.mark.one_version
def test_without_settings_the_environment_is_read_at_the_start(dsn, monkeypatch):
    """Making a `Magnus` reads nothing; starting reads DATABASE_URL and its kin."""
    magnus = Magnus(warmup=1)
    monkeypatch.setenv("DATABASE_URL", dsn)
    monkeypatch.setenv("DB_POOL_MIN", "1")
    monkeypatch.setenv("DB_POOL_MAX", "7")
    with TestClient(app_on(magnus)) as client:
        assert client.get("/api/health/stats").json()["pool_stats"]["max_size"] == 7


@pytest.mark.one_version
def test_health_never_waits_for_a_connection(dsn):
    """With every connection taken the three routes answer, and a pool that is merely full is ready."""
    magnus = Magnus(DatabaseConfig(dsn=dsn, min_pool_size=1, max_pool_size=1), warmup=1)
    app = app_on(magnus)

    @app.get("/hold")
    async def hold(db: Db) -> list[Any]:
        async with db.acquire():
            transport = httpx2.ASGITransport(app=app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
                found = [await client.get(f"/api/health/{name}") for name in ("liveness", "readiness", "stats")]
        return [response.json() for response in found]

    with TestClient(app) as client:
        alive, verdict, stats = client.get("/hold").json()
    assert alive == {"status": "alive"}
    assert verdict == {"status": "ready", "database": "connected", "pool_size": 1, "pool_free": 0}
    assert stats["pool_stats"]["used"] == 1


@pytest.mark.one_version
def test_begin_drain_flips_readiness_while_requests_are_served(dsn):
    """The service says that it will stop before it does."""
    magnus = Magnus(config_of(dsn), warmup=1)
    app = app_on(magnus)

    @app.get("/one")
    async def one(db: Db) -> int:
        return await db.fetchval("SELECT 1")

    with TestClient(app) as client:
        assert client.get("/api/health/readiness").status_code == 200
        magnus.begin_drain()
        refused = client.get("/api/health/readiness")
        assert (refused.status_code, refused.json()["reason"]) == (503, "draining")
        assert client.get("/one").json() == 1
        assert client.get("/api/health/liveness").status_code == 200


@pytest.mark.one_version
def test_an_inner_lifespan_finds_the_database_open(dsn):
    """It runs inside, its state is kept beside ours, and it ends before the database closes."""
    magnus = Magnus(config_of(dsn), warmup=1)
    seen: list[int] = []

    @asynccontextmanager
    async def inner(_: FastAPI) -> AsyncIterator[dict[str, str]]:
        seen.append(await magnus.database.fetchval("SELECT 1"))
        yield {"mine": "kept"}
        seen.append(await magnus.database.fetchval("SELECT 2"))

    app = app_on(magnus, lifespan=magnus.lifespan_with(inner))

    @app.get("/state")
    async def state(request: Request, db: Db) -> list[Any]:
        return [request.state.mine, await db.fetchval("SELECT 3")]

    with TestClient(app) as client:
        assert client.get("/state").json() == ["kept", 3]
    assert seen == [1, 2]


@pytest.mark.one_version
def test_wrong_credentials_stop_the_start(tcp_dsn):
    """Waiting does not heal them: the start fails, and its error holds no password."""
    magnus = Magnus(config_of(tcp_dsn, password=CANARY))
    with pytest.raises(ConnectError) as caught, TestClient(app_on(magnus)):
        pytest.fail("it started")
    assert caught.value.reason == "credentials"
    assert CANARY not in f"{caught.value!r} {caught.value}"


def test_a_route_works_in_its_lane_on_the_server_too(target):
    """The session's statement_timeout is the lane's limit plus the slack; a default route keeps NORMAL's."""
    app = app_on(Magnus(config_of(**target), warmup=1))

    @app.get("/low", dependencies=[lane("low")])
    async def low(db: Db) -> str:
        return await db.fetchval("SELECT current_setting('statement_timeout')")

    @app.get("/normal")
    async def normal(db: Db) -> str:
        return await db.fetchval("SELECT current_setting('statement_timeout')")

    with TestClient(app) as client:
        assert client.get("/low").json() == "61s"
        assert client.get("/normal").json() == "30s"


@pytest.mark.one_version
def test_a_deadline_of_a_route_ends_its_query_with_a_problem(target):
    """A slow query in a lane with a timeout is 503 query-timeout with Retry-After, and holds no SQL."""
    app = app_on(Magnus(config_of(**target), warmup=1))

    @app.get("/slow", dependencies=[lane("high", timeout=0.2)])
    async def slow(db: Db) -> None:
        await db.fetchval(f"SELECT pg_sleep(60) /* {CANARY} */")

    with TestClient(app) as client:
        found = client.get("/slow")
    assert (found.status_code, found.headers["retry-after"]) == (503, "1")
    assert found.json()["type"] == "urn:magnus:problem:query-timeout"
    assert CANARY not in found.text
    assert "pg_sleep" not in found.text


@pytest.fixture
async def things(dsn: str) -> str:
    con = await asyncpg.connect(dsn)
    await con.execute("CREATE TABLE things (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    await con.close()
    return dsn


async def count(dsn: str) -> int:
    con = await asyncpg.connect(dsn)
    try:
        return await con.fetchval("SELECT count(*) FROM things")
    finally:
        await con.close()


@pytest.mark.one_version
async def test_a_transaction_of_a_route_is_committed_before_the_response(things):
    """When the caller reads 201 the row is there; an error in the handler or at COMMIT leaves nothing."""
    app = app_on(Magnus(config_of(things), warmup=1))

    @app.post("/things/{number}", status_code=201)
    async def add(number: int, tx: Tx) -> None:
        await tx.execute("INSERT INTO things VALUES ($1)", number)
        if number < 0:
            raise Problem(409, type="negative")

    @app.exception_handler(asyncpg.UniqueViolationError)
    async def conflict(_: Request, __: Exception) -> Any:
        return problem_response(Problem(409, type="exists"))

    with TestClient(app) as client:
        statuses = await asyncio.to_thread(lambda: [client.post(f"/things/{n}").status_code for n in (1, -1, 1, 2)])
    assert statuses == [201, 409, 409, 201]
    assert await count(things) == 2


async def test_a_lost_connection_is_503_and_the_next_request_is_served(target):
    """A session that is ended under a query gives a problem that a caller may repeat; the pool goes on."""
    app = app_on(Magnus(config_of(**target), warmup=1))

    @app.api_route("/die", methods=["GET", "POST"])
    async def die(db: Db) -> None:
        async with db.acquire() as con:
            await con.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    @app.get("/one")
    async def one(db: Db) -> int:
        return await db.fetchval("SELECT 1")

    def drive() -> list[tuple[int, str]]:
        with TestClient(app) as client:
            found = [client.get("/die"), client.post("/die")]
            assert client.get("/one").json() == 1
        return [(response.status_code, response.json()["type"].rpartition(":")[2]) for response in found]

    assert await asyncio.to_thread(drive) == [(503, "database-unavailable"), (503, "outcome-unknown")]


@pytest.mark.one_version
async def test_events_of_an_outage_reach_the_observers(own_server):
    """Warm-up fails without a server; when it comes back the pool is warmed again without a request."""
    events: asyncio.Queue[Event] = asyncio.Queue()
    dsn = own_server.dsn()
    await own_server.stop()
    magnus = Magnus(config_of(dsn, health_check_interval=0.1), warmup=2, observers=[events.put_nowait])
    async with magnus.lifespan(FastAPI()), asyncio.timeout(LIMIT):
        while not isinstance(event := await events.get(), WarmupFailed):
            assert not isinstance(event, PoolWarmed)
        await own_server.start()
        while not isinstance(await events.get(), HealthCheckRecovered):
            continue
        while not isinstance(event := await events.get(), PoolWarmed):
            continue
        assert event.connections == 2


@pytest.mark.one_version
def test_a_dependency_of_the_application_may_use_the_database(target):
    """`Db` works in dependencies of one's own, with yield and at request scope."""

    async def one(db: Db) -> AsyncIterator[int]:
        yield await db.fetchval("SELECT 1")

    app = app_on(Magnus(config_of(**target), warmup=1))

    @app.get("/")
    async def handler(found: int = Depends(one)) -> int:  # a name of this function
        return found

    with TestClient(app) as client:
        assert client.get("/").json() == 1
