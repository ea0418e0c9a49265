"""The dashboard that runs by itself: any server's statements, sessions and slow log on one page."""

from __future__ import annotations

import secrets
import socket
from typing import TYPE_CHECKING, Final

from magnus.cli import render
from magnus.cli.answer import Answer, ExitCode, Failure
from magnus.config import DatabaseConfig
from magnus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

_PREFIX: Final = "/dashboard"


def serve(dsn: str | None, environ: Mapping[str, str], *, host: str, port: int, token: str | None) -> Answer | Failure:
    """
    Serve until interrupted. On an address that others reach, a token is made when none is given.

    Raises:
        ConfigError: the target, a variable or the token is impossible; FastAPI or uvicorn is not installed.
    """
    try:
        import uvicorn
        from fastapi import FastAPI
        from fastapi.responses import RedirectResponse

        from magnus.web.dashboard import Alone, Server, checked_token, dashboard_router, is_loopback
    except ImportError as error:
        raise ConfigError("dashboard", error.name, "is not installed: pip install 'magnus-db[dashboard]'") from None
    config = DatabaseConfig.from_environ(environ, **({} if dsn is None else {"dsn": dsn}))
    if token is None and not is_loopback(host):
        token = secrets.token_urlsafe(24)
        render.note(f"token of this dashboard: {token}")
    server = Server(lambda: config)
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.include_router(dashboard_router(Alone(server, config.safe_dsn), token=checked_token(token)), prefix=_PREFIX)
    app.add_api_route("/", lambda: RedirectResponse(f"{_PREFIX}/"))
    try:
        listener = _listen(host, port)
    except (OSError, OverflowError) as error:
        advice = "choose another with --port, 0 for a free one"
        return Failure(
            "dashboard",
            ExitCode.USAGE,
            f"cannot listen on {host}:{port} ({getattr(error, 'strerror', None) or error})",
            advice,
        )
    with listener:
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{listener.getsockname()[1]}/"
        render.note(f"{config.safe_dsn} on {url}; Ctrl-C stops it")
        uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).run(sockets=[listener])
    return Answer("dashboard", {"url": url})


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener
