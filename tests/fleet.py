"""A fleet of real processes on one server, and who looks at it: what they hold, what the server had to refuse.

`python tests/fleet.py JSON` is one process of it. It says "ready" when it is open, works until its standard input ends
or SIGTERM comes, closes, and says as JSON what became of its statements.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from magnus.embedded import Cluster

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = {"log_connections": "on", "log_line_prefix": "%m [%p] "}
"""Of the server, so that its log tells who came and when."""

_BOUND = 90.0
_HELD = """
SELECT count(*) FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND datname IS NOT NULL
"""
_REFUSED = re.compile(r"FATAL:  (?:sorry, too many clients|remaining connection slots|too many connections for)")
_CAME = re.compile(r"^(\S+ \S+) \S+ \[\d+\] LOG:  connection received", re.MULTILINE)


# --- one process of the fleet


async def _instance(asked: dict[str, Any]) -> dict[str, Any]:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    ended = asyncio.create_task(_end(reader, stop))
    found = await (_plain if asked["kind"] == "asyncpg" else _magnus)(asked, stop)
    ended.cancel()
    return found


async def _end(reader: asyncio.StreamReader, stop: asyncio.Event) -> None:
    await reader.read()
    stop.set()


def _ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


async def _work(run: Callable[[], Any], asked: dict[str, Any], stop: asyncio.Event, done: Counter[str]) -> None:
    while not stop.is_set():
        try:
            await run()
        except Exception as error:  # noqa: BLE001  # counted by kind
            done[f"{type(error).__name__} {getattr(error, 'sqlstate', '') or ''}".strip()] += 1
            await asyncio.sleep(0.05)
        else:
            done["ok"] += 1
        await asyncio.sleep(asked["pause"])


async def _plain(asked: dict[str, Any], stop: asyncio.Event) -> dict[str, Any]:
    done: Counter[str] = Counter()
    while not stop.is_set():
        try:
            pool = await asyncpg.create_pool(
                asked["dsn"], min_size=asked["min"], max_size=asked["max"],
                server_settings={"application_name": "fleet"},
            )  # fmt: skip
        except (asyncpg.PostgresError, OSError) as error:
            done[f"{type(error).__name__} {getattr(error, 'sqlstate', '')} at the start"] += 1
            await asyncio.sleep(0.2)
        else:
            _ready()
            run = partial(pool.execute, "SELECT pg_sleep($1)", asked["sleep"], timeout=30.0)
            await asyncio.gather(*(_work(run, asked, stop, done) for _ in range(asked["workers"])))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(pool.close(), 5.0)
    return dict(done)


async def _magnus(asked: dict[str, Any], stop: asyncio.Event) -> dict[str, Any]:
    from magnus import Database, DatabaseConfig, cached

    @cached(ttl=60.0, tags=["fleet"])
    async def answer(db: Database) -> int:
        return await db.fetchval("SELECT 1")

    done: Counter[str] = Counter()
    config = DatabaseConfig(
        dsn=asked["dsn"],
        application_name="fleet",
        min_pool_size=asked["min"],
        max_pool_size=asked["max"],
        health_check_interval=asked["interval"],
        slow_query_threshold=asked["sleep"] / 2,
        slow_log_rate=5.0,
        cache_notify=asked["listen"],
        fleet_size=asked["fleet_size"],
    )
    events: Counter[str] = Counter()
    sizes: list[int] = []

    def heard(event: Any) -> None:
        events[event.name] += 1
        if event.name == "pool_resized":
            sizes.append(event.max)

    db = Database(config, observers=[heard])
    await db.connect(wait=False)
    _ready()
    if asked["listen"]:
        with contextlib.suppress(TimeoutError):  # nobody was let in; the listener begins all the same
            await answer(db)
    run = partial(db.execute, "SELECT pg_sleep($1)", asked["sleep"])
    await asyncio.gather(*(_work(run, asked, stop, done) for _ in range(asked["workers"])))
    stats = db.get_stats()
    await db.close()
    figures = {name: stats["pool_stats"][name] for name in ("max_size", "connects", "connect_failures")}
    return {**done, "pool": figures, "fleet": stats.get("fleet"), "events": dict(events), "sizes": sizes}


# --- who looks at it


@dataclass
class Instance:
    """
    One process, seen from outside.
    """

    process: asyncio.subprocess.Process

    async def is_ready(self, patience: float) -> bool:
        """
        Wait until it is open; False: it is not within `patience` seconds.
        """
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(patience):
                return await self.process.stdout.readline() == b"ready\n"
        except TimeoutError:
            return False

    async def stop(self) -> dict[str, Any]:
        """
        Let it end in order, and return what it says.
        """
        assert self.process.stdin is not None
        self.process.stdin.close()
        async with asyncio.timeout(_BOUND):
            out, _ = await self.process.communicate()
        lines = out.decode().splitlines()
        found: dict[str, Any] = json.loads(lines[-1]) if self.process.returncode == 0 else {"crashed": 1}
        return found

    async def kill(self) -> None:
        """
        End it without a word (SIGKILL).
        """
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


@dataclass
class Fleet:
    """
    Processes of one kind on one server. `most` is how many connections all of them ever had, by what was seen;
    `late` are processes that were not open within `patience` seconds.
    """

    server: Cluster
    dsn: str
    kind: str = "magnus"
    fleet_size: int = 0
    min: int = 5
    max: int = 30
    workers: int = 8
    sleep: float = 0.05
    pause: float = 0.01
    interval: float = 1.0
    listen: bool = False
    patience: float = _BOUND
    late: int = 0
    instances: list[Instance] = field(default_factory=list)
    said: list[dict[str, Any]] = field(default_factory=list)
    held: int = 0
    most: int = 0

    async def start(self, number: int = 1) -> list[Instance]:
        """
        Start so many processes at once; return them when all are ready, or have had time enough.
        """
        started = await asyncio.gather(*(self._spawn() for _ in range(number)))
        self.instances += started
        ready = await asyncio.gather(*(each.is_ready(self.patience) for each in started))
        self.late += ready.count(False)
        return started

    async def _spawn(self) -> Instance:
        names = ("dsn", "kind", "fleet_size", "min", "max", "workers", "sleep", "pause", "interval", "listen")
        asked = json.dumps({name: getattr(self, name) for name in names})
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, asked, stdin=pipe, stdout=pipe, cwd=ROOT
        )
        return Instance(process)

    async def stop(self, instances: Sequence[Instance] | None = None) -> None:
        """
        Stop these processes, or all; what they say is kept.
        """
        leaving = list(self.instances if instances is None else instances)
        self.said += await asyncio.gather(*(each.stop() for each in leaving))
        self.instances = [each for each in self.instances if each not in leaving]

    async def kill(self, instances: Sequence[Instance]) -> None:
        self.instances = [each for each in self.instances if each not in instances]
        await asyncio.gather(*(each.kill() for each in instances))

    async def replace_all(self, at_once: int) -> None:
        """
        Restart all of them, a few at once, each new one before the old one goes.
        """
        old = list(self.instances)
        for place in range(0, len(old), at_once):
            leaving = old[place : place + at_once]
            await self.start(len(leaving))
            await self.stop(leaving)

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """
        Count the connections, many times a second; processes that are left in the end are killed.
        """
        con = await asyncpg.connect(self.server.dsn())
        watch = asyncio.create_task(self._watch(con))
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            await con.close()
            await self.kill(list(self.instances))

    async def _watch(self, con: asyncpg.Connection[asyncpg.Record]) -> None:
        while True:
            self.held = await con.fetchval(_HELD)
            self.most = max(self.most, self.held)
            await asyncio.sleep(0.01)

    def refused(self) -> int:
        """
        Connections that the server refused because there were too many, by its log.
        """
        return len(_REFUSED.findall(self.server.log.read_text(errors="replace")))

    def came(self) -> list[float]:
        """
        When connections came, in seconds, by the server's log.
        """
        found = _CAME.findall(self.server.log.read_text(errors="replace"))
        return [datetime.strptime(each, "%Y-%m-%d %H:%M:%S.%f").timestamp() for each in found]  # noqa: DTZ007

    def total(self) -> Counter[str]:
        """
        What became of all statements, by kind.
        """
        done: Counter[str] = Counter()
        for said in self.said:
            done.update({name: count for name, count in said.items() if isinstance(count, int)})
        return done


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(_instance(json.loads(sys.argv[1])))) + "\n")
