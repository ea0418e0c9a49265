"""The database of an application: opened, warmed, watched and drained by its lifespan."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from magnus import health, logs
from magnus.config import DatabaseConfig
from magnus.database import Database, set_database
from magnus.observe import HealthCheckRecovered
from magnus.web.health import health_router
from magnus.web.metrics import metrics_router

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from fastapi import APIRouter, FastAPI

    from magnus.observe import Event, Observer
    from magnus.web.dashboard import Recorder, Server

    Lifespan = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any] | None]]


class Magnus:
    """
    The data layer wired into an application by `FastAPI(lifespan=magnus.lifespan)` and `include_router(magnus.router)`.

    Without `config` the environment is read when the database is first needed. `warmup` connections are opened and
    proven before the first request; a server that cannot be reached does not keep the service from starting, readiness
    says so until it is there. Events are logged (`logs.log_events`); `observers` are told too.
    """

    def __init__(
        self, config: DatabaseConfig | None = None, *, warmup: int = 10, observers: Sequence[Observer] = ()
    ) -> None:
        self._config = config
        self._warmup = warmup
        self._observers = tuple(observers)
        if not any(isinstance(observer, logs.EventLogger) for observer in observers):
            self._observers += (logs.log_events(),)
        self._database: Database | None = None
        self._is_draining = False
        self._watching: list[tuple[Recorder, Server]] = []
        self.router: APIRouter = health_router(self.report, self.stats)

    @property
    def database(self) -> Database:
        """
        The database, built at first use.

        Raises:
            ConfigError: a setting, or an environment variable, has an impossible value.
        """
        if self._database is None:
            config = DatabaseConfig.from_environ(os.environ) if self._config is None else self._config
            self._database = Database(config, observers=self._observers)
        return self._database

    def report(self) -> health.HealthReport:
        """
        Judge readiness by the snapshots; nothing is opened or waited for.
        """
        return health.readiness(self.database, now=time.monotonic(), is_draining=self._is_draining)

    def stats(self) -> dict[str, Any]:
        return self.database.get_stats()

    @cached_property
    def metrics(self) -> APIRouter:
        """
        The route `GET /metrics` for Prometheus: `app.include_router(magnus.metrics)`. Needs the extra `prometheus`.

        Raises:
            ConfigError: prometheus_client is not installed.
        """
        from magnus.metrics import DatabaseCollector, EventCounts, Exposition, registry_of

        events = EventCounts()
        self._observers += (events,)
        if self._database is not None:
            self._database.add_observer(events)
        return metrics_router(Exposition(registry_of(DatabaseCollector(lambda: self.database, events))).render)

    def dashboard(self, *, token: str | None = None, title: str = "Magnus") -> APIRouter:
        """
        Return the dashboard: `app.include_router(magnus.dashboard(token=…), prefix="/dashboard")`, before it starts.

        It is read only and shows statements, sessions and events of everybody. Without a `token` (which the page asks
        for) only requests of this machine to its own loopback address are answered.

        Raises:
            ConfigError: the token is too short to be one.
        """
        from magnus.web.dashboard import Recorder, Server, Service, checked_token, dashboard_router

        recorder = Recorder(lambda: self.database)
        server = Server(lambda: self.database.config)
        self._observers += (recorder,)
        if self._database is not None:
            self._database.add_observer(recorder)
        self._watching.append((recorder, server))
        source = Service(recorder, self.stats, self.report, server, title)
        return dashboard_router(source, token=checked_token(token))

    def begin_drain(self) -> None:
        """
        Let readiness answer 503 `draining` from now on, while requests are still served.

        Call it as soon as the process knows that it will stop, so that no new traffic is sent to it.
        """
        self._is_draining = True

    @asynccontextmanager
    async def lifespan(self, _app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        """
        Open the database, make it the process-wide one, serve, drain.
        """
        async with self._running():
            yield {"magnus": self}

    def lifespan_with(self, inner: Lifespan) -> Lifespan:
        """
        Return a lifespan that runs another one inside: it finds the database open, and its state is kept.
        """

        @asynccontextmanager
        async def composed(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
            async with self._running(), inner(app) as state:
                yield {**(state or {}), "magnus": self}

        return composed

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        db = self.database
        self._is_draining = False
        await db.connect(wait=False)
        set_database(db)
        rewarming = _Rewarming(db, self._warmup)
        db.add_observer(rewarming)
        recording = [asyncio.get_running_loop().create_task(recorder.run()) for recorder, _ in self._watching]
        try:
            await db.warmup_pool(self._warmup)
            yield
        finally:
            self.begin_drain()
            for task in recording:
                task.cancel()
            await asyncio.gather(*recording, *(server.close() for _, server in self._watching), return_exceptions=True)
            set_database(None)
            self._database = None
            await rewarming.stop()
            await db.close()


class _Rewarming:
    """
    Warms the pool again when the database has come back, so that the first requests need not.
    """

    def __init__(self, db: Database, connections: int) -> None:
        self._db = db
        self._connections = connections
        self._task: asyncio.Task[int] | None = None

    def __call__(self, event: Event, /) -> None:
        if isinstance(event, HealthCheckRecovered) and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._db.warmup_pool(self._connections))

    async def stop(self) -> None:
        self._db.remove_observer(self)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
