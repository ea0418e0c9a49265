"""The application: routes, error answers, limits and the database's lifespan, put together. It decides nothing."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse
from fastapi_offline import FastAPIOffline

from ava import housekeeping, problems
from ava.config import Settings
from ava.limits import BodyLimitMiddleware
from ava.routers import accounts, imports, positions, reports, trades
from magnus.fastapi import (
    AdmissionMiddleware,
    Magnus,
    ReadTokenMiddleware,
    RequestIdMiddleware,
    install_error_handlers,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from magnus import DatabaseConfig
    from magnus.observe import Observer

PREFIX: Final = "/api"
_IMPORT: Final = f"{PREFIX}/import"
_ENVELOPE: Final = 64 * 1024  # what a form adds to its file

_DESCRIPTION: Final = """\
Trades, positions and the monthly profit and loss of brokerage accounts.

Send `Authorization: Bearer ava_…`: a token belongs to one account, and nothing of any other can be seen with it.
Money, prices and quantities are strings, so that no digit is lost. What may happen only once carries an
`Idempotency-Key`. Errors are problem details (RFC 9457); 503 comes with `Retry-After` and means that nothing is wrong
with the request: repeat it, with the same key.
"""

_INDEX: Final = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>AVA</title>
<h1>AVA</h1>
<p>A trading backend on Magnus.</p>
<ul>
{links}
</ul>
</html>
"""

_LINKS: Final = {
    "/docs": "API, to try out",
    "/openapi.json": "API, as OpenAPI",
    f"{PREFIX}/health/liveness": "is the process alive",
    f"{PREFIX}/health/readiness": "can it serve",
    f"{PREFIX}/health/stats": "figures of the database layer",
    "/metrics": "the same for Prometheus",
    "/dashboard/": "dashboard: pool, statements, sessions",
}

_TAGS: Final = [
    {"name": "trades", "description": "Orders at the quote, and what was executed."},
    {"name": "positions", "description": "What an account holds, and what it is worth."},
    {"name": "reports", "description": "What was earned, by month."},
    {"name": "imports", "description": "Trades that were executed elsewhere."},
    {"name": "account", "description": "The caller's account."},
    {"name": "health", "description": "For probes and people; no token."},
]


def create_app(
    settings: Settings | None = None, *, config: DatabaseConfig | None = None, observers: Sequence[Observer] = ()
) -> FastAPI:
    """
    Return AVA as an ASGI application; its lifespan opens, warms and drains the database.

    What is not given is read from the environment. The `Magnus` that holds the database is `app.state.magnus`.

    Raises:
        ConfigError: a setting, or an environment variable, has an impossible value.
    """
    settings = Settings.load() if settings is None else settings
    magnus = Magnus(config, warmup=settings.warmup_connections, observers=observers)
    app = FastAPIOffline(  # the page of the API brings its own scripts and styles
        title="AVA",
        version=version("ava-trading"),
        description=_DESCRIPTION,
        openapi_tags=_TAGS,
        lifespan=magnus.lifespan_with(_beside(magnus, settings)),
        redirect_slashes=False,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.magnus = magnus
    app.state.settings = settings
    install_error_handlers(app)
    problems.install_handlers(app)
    _limit(app, settings)
    app.include_router(_api(magnus.router), prefix=PREFIX)
    app.include_router(magnus.metrics)
    app.include_router(magnus.dashboard(token=settings.token_of_dashboard, title="AVA"), prefix="/dashboard")
    app.add_api_route("/", index, include_in_schema=False)
    return app


def _beside(magnus: Magnus, settings: Settings) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """
    Return the lifespan of what runs beside the requests.
    """

    def lifespan(_app: FastAPI) -> AbstractAsyncContextManager[None]:
        return housekeeping.running(
            magnus.database, relay_interval=settings.relay_interval, keep_days=settings.keep_days
        )

    return lifespan


def _limit(app: FastAPI, settings: Settings) -> None:
    """
    The last one added is the first one asked: the id comes before everything that may answer.
    """
    larger = {_IMPORT: settings.import_max_bytes + _ENVELOPE}
    app.add_middleware(ReadTokenMiddleware)
    app.add_middleware(BodyLimitMiddleware, limit=settings.max_body_bytes, larger=larger)
    app.add_middleware(
        AdmissionMiddleware,
        max_in_progress=settings.max_in_progress,
        max_waiting=settings.max_waiting,
        max_wait=settings.max_wait,
    )
    app.add_middleware(RequestIdMiddleware)


def _api(health: APIRouter) -> APIRouter:
    api = APIRouter()
    for module in (trades, positions, reports, imports, accounts):
        api.include_router(module.router)
    api.include_router(health)
    return api


async def index() -> HTMLResponse:
    """
    List what can be opened with a browser.
    """
    links = "\n".join(f'<li><a href="{path}">{path}</a>: {text}' for path, text in _LINKS.items())
    return HTMLResponse(_INDEX.format(links=links))
