"""`ava serve`: the HTTP API on one port, over one database, until somebody says stop."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ava.cli import render
from ava.cli.books import apply_migrations
from ava.cli.exits import Exit
from ava.cli.source import database
from ava.config import Settings
from ava.main import create_app
from ava.serving import Serving, listen, raise_file_limit
from magnus import Database, logs

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from pathlib import Path

    from ava.cli.running import Signals
    from magnus import DatabaseConfig


@dataclass(frozen=True, slots=True)
class Options:
    """
    What `ava serve` was asked for.
    """

    host: str | None
    port: int | None
    data_dir: Path | None
    is_migrating: bool = True
    notice: float = 0.5
    grace: float = 10.0


async def serve(signals: Signals, environ: Mapping[str, str], options: Options) -> int:
    """
    Serve until stopped; 0 when every request in flight was answered, 130 when a second signal cut them off.
    """
    logs.configure()
    raise_file_limit()
    settings = Settings.load(host=options.host, port=options.port)
    with contextlib.closing(listen(settings.host, settings.port)) as sock:
        async with database(environ, options.data_dir, may_attach=False) as config:
            if options.is_migrating:
                async with Database(config.replace(min_pool_size=1)) as db:
                    await apply_migrations(db)
            serving = make_serving(settings, config, sock, notice=options.notice, grace=options.grace)
            signals.on_stop = lambda: stop(serving)
            render.line(f"AVA answers on {url_of(sock)} (API: {url_of(sock)}/docs); Ctrl-C drains and stops it")
            is_whole = await serving.run_until_drained()
    return Exit.DONE if is_whole else Exit.CUT_OFF


def stop(serving: Serving) -> None:
    """
    Drain, and say so.
    """
    render.line("stopping now" if serving.is_draining else "draining; a second signal stops at once")
    serving.drain()


def make_serving(
    settings: Settings, config: DatabaseConfig, sock: socket.socket, *, notice: float = 0.5, grace: float = 10.0
) -> Serving:
    """
    Return AVA over a database, ready to be served on a listening socket.
    """
    app = create_app(settings, config=config)
    return Serving(app, sock, announce=app.state.magnus.begin_drain, notice=notice, grace=grace)


def url_of(sock: socket.socket) -> str:
    """
    Return the address that a client on this machine uses.
    """
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # it is what was asked for
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
