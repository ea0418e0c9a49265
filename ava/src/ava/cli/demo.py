"""`ava demo`: everything at once, with the times of each stage: database, data, server, load, figures, before/after."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from ava.cli import render
from ava.cli.books import LoadOptions, apply_migrations, fill
from ava.cli.exits import Exit
from ava.cli.serve import make_serving, stop, url_of
from ava.cli.source import database
from ava.config import Settings
from ava.serving import listen, raise_file_limit
from ava.tokens import demo_token
from magnus import Database, insight, logs

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from pathlib import Path

    from ava.cli.running import Signals
    from ava.serving import Serving
    from magnus import DatabaseConfig

_POLL: Final = 0.02
_READY: Final = 200
_FLUSH: Final = 0.1
_FLUSHES: Final = 50
_SLOWEST: Final = 5


@dataclass(frozen=True, slots=True)
class Options:
    """
    What `ava demo` was asked for.
    """

    host: str | None
    port: int | None
    data_dir: Path | None
    scale: float
    seed: int
    duration: float
    concurrency: int
    is_once: bool = False
    is_proving: bool = True


async def demo(signals: Signals, environ: Mapping[str, str], options: Options) -> int:
    """
    Run the demonstration; 0 after a clean drain, 1 when the workload saw a broken promise.
    """
    began = time.monotonic()
    logs.configure(level="ERROR")  # the figures are what is to be seen
    raise_file_limit()
    settings = Settings.load(host=options.host, port=options.port)
    with contextlib.closing(listen(settings.host, settings.port)) as sock:
        async with database(environ, options.data_dir, may_attach=False) as config:
            async with Database(config.replace(min_pool_size=1)) as db:
                await apply_migrations(db)
                await fill(db, LoadOptions(options.scale, options.seed))
            serving = make_serving(settings, config, sock)
            return await _Demo(signals, serving, sock, options, config=config, began=began).run()


class _Demo:
    """
    The part with the server up: it runs as a task of this loop, the workload in a process of its own, so that the
    two do not share an event loop.
    """

    def __init__(
        self,
        signals: Signals,
        serving: Serving,
        sock: socket.socket,
        options: Options,
        *,
        config: DatabaseConfig,
        began: float,
    ) -> None:
        self._signals = signals
        self._serving = serving
        self._url = url_of(sock)
        self._options = options
        self._config = config
        self._began = began
        self._is_stopping = asyncio.Event()

    async def run(self) -> int:
        self._signals.on_stop = self._stop
        server = asyncio.create_task(self._serving.run_until_drained())
        try:
            code = await self._show(server)
            if self._options.is_once:
                self._stop()
            is_whole = await server
        finally:
            if not server.done():
                server.cancel()
                await asyncio.wait([server])
        return code if is_whole else Exit.CUT_OFF

    def _stop(self) -> None:
        self._is_stopping.set()
        stop(self._serving)

    async def _show(self, server: asyncio.Task[bool]) -> int:
        async with aiohttp.ClientSession(self._url) as session:
            ready = await self._until_ready(session, server)
            if ready is None:
                return Exit.DONE
            took = time.monotonic() - self._began
            render.line(
                f"first readiness 200 after {took:.1f} s, {ready['pool_size']} connections warm, on {self._url}"
            )
            code = await self._drive()
            if not self._is_stopping.is_set():
                stats = await self._stats(session)
                render.show(render.stats_table(stats))
                await self._show_slow()
                await self._prove()
            if not self._is_stopping.is_set():
                lines = hints(
                    self._url, self._options.seed, is_stopping=self._options.is_once, dsn=self._config.safe_dsn
                )
                for text in lines:
                    render.line(text, stderr=False)
        return code

    async def _stats(self, session: aiohttp.ClientSession) -> dict[str, Any]:
        """
        Return the service's figures once its slow-query log has written what it holds, which takes half a second.
        """
        for _ in range(_FLUSHES):
            async with session.get("/api/health/stats") as response:
                found: dict[str, Any] = await response.json()
            if not found.get("slow_log", {}).get("waiting"):
                break
            await asyncio.sleep(_FLUSH)
        return found

    async def _show_slow(self) -> None:
        """
        Show what the log holds of this run: which statements, from which routes and lines.
        """
        config = self._config.replace(min_pool_size=1, max_pool_size=1, slow_log="off")
        try:
            async with Database(config) as db, db.acquire() as con:
                found = await insight.groups(con, since=time.monotonic() - self._began, limit=_SLOWEST)
        except insight.Unavailable:  # nothing was slow, so there is no table
            found = []
        render.show(render.slow_table(found, config.slow_query_threshold))

    async def _until_ready(self, session: aiohttp.ClientSession, server: asyncio.Task[bool]) -> dict[str, Any] | None:
        """
        Ask until it is ready and return what it says; None when it stops before that.
        """
        while not server.done() and not self._is_stopping.is_set():
            async with session.get("/api/health/readiness") as response:
                if response.status == _READY:
                    found: dict[str, Any] = await response.json()
                    return found
            await asyncio.sleep(_POLL)
        return None

    async def _drive(self) -> int:
        """
        Run `ava drive` until it ends or the demonstration is stopped, and return its exit code.
        """
        options = self._options
        began = time.monotonic()
        code = await self._run(
            "ava.cli", "drive", "--url", self._url, "--seed", str(options.seed), "--duration", f"{options.duration:g}",
            "--concurrency", str(options.concurrency),
        )  # fmt: skip
        if not self._is_stopping.is_set():
            render.line(f"drove the mixed workload in {time.monotonic() - began:.1f} s")
        return code

    async def _prove(self) -> None:
        """
        Show the table before / after in its short form, measured now. Without it the demonstration goes on.
        """
        if not self._options.is_proving:
            return
        began = time.monotonic()
        render.line(
            f"measuring before and after on two servers of its own, half a minute; {self._url} serves meanwhile "
            "(ava demo --no-proof leaves this out)"
        )
        code = await self._run("ava.proof", "short")
        if not self._is_stopping.is_set():
            said = "measured before and after" if code == Exit.DONE else "before and after were not measured"
            render.line(f"{said} in {time.monotonic() - began:.1f} s")

    async def _run(self, module: str, *arguments: str) -> int:
        """
        Run a module in a process of its own until it ends or the demonstration is stopped; 0 when it was stopped.
        """
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, *arguments,
            start_new_session=True,  # Ctrl-C is ours to pass on
        )  # fmt: skip
        ended = asyncio.create_task(child.wait())
        stopping = asyncio.create_task(self._is_stopping.wait())
        try:
            await asyncio.wait([ended, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            if child.returncode is None:
                child.terminate()
            await asyncio.wait([ended])
        return Exit.DONE if self._is_stopping.is_set() else child.returncode or Exit.DONE


def hints(url: str, seed: int, *, is_stopping: bool = False, dsn: str = "") -> list[str]:
    """
    Return what a person can try now, each line ready to be pasted.
    """
    lines = [
        "",
        f"API docs   {url}/docs",
        f"health     curl -i {url}/api/health/liveness",
        f"           curl -i {url}/api/health/readiness",
        f"figures    curl {url}/api/health/stats",
        *([f"slow log   magnus -d '{dsn}' slow"] if dsn and not is_stopping else []),
        f"account 1  curl -H 'Authorization: Bearer {demo_token(seed, 1)}' {url}/api/positions",
    ]
    return lines if is_stopping else [*lines, "", "Serving on; Ctrl-C drains and stops."]
