"""Two servers with the same bytes of data: one as initdb leaves it, one with the plan applied; and the hiccups."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import asyncpg

from ava import migrations
from ava.data import load as loading
from magnus import Database, DatabaseConfig
from magnus.embedded import Binaries, Cluster, throwaway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from ava.proof.script import Script

DATABASE = "ava"
# As initdb leaves them; the cluster's own defaults would be a head start.
STOCK = {"fsync": "on", "full_page_writes": "on", "shared_preload_libraries": ""}
MEMORY = "4GB"
_PATIENCE = 20.0
_SEED = 42


@contextlib.contextmanager
def pair() -> Iterator[tuple[Cluster, Cluster]]:
    binaries = Binaries.bundled()
    with contextlib.ExitStack() as stack:
        found = [throwaway(binaries, max_connections=100, settings=STOCK) for _ in range(2)]
        for cluster in found:
            stack.callback(cluster.discard_blocking)
        yield found[0], found[1]


async def fill(cluster: Cluster, scale: float) -> None:
    await cluster.create_database(DATABASE)
    config = DatabaseConfig(dsn=cluster.dsn(database=DATABASE), min_pool_size=1, slow_log="off")
    async with Database(config) as db:
        await migrations.migrate(db)
        await loading.load(db, scale=scale, seed=_SEED)
    async with cluster.connect(database=DATABASE) as con:
        await con.execute("VACUUM ANALYZE")
        await con.execute("CHECKPOINT")


def copy(source: Cluster, target: Cluster) -> None:
    """
    Copy the data of a stopped cluster, owners and modes too.
    """
    subprocess.run([shutil.which("cp") or "cp", "-a", os.fspath(source.data), os.fspath(target.data)], check=True)  # noqa: S603  # folders of our own


async def tune(cluster: Cluster) -> list[dict[str, Any]]:
    """
    Carry out the statements of `magnus plan`'s plan, restart, and return its changes of settings.
    """
    plan = await asyncio.to_thread(planned, cluster.dsn(database=DATABASE))
    settings = [change for change in plan["changes"] if change["kind"] == "setting"]
    others = [change for change in plan["changes"] if change["kind"] != "setting"]
    for changes in (settings, others):  # extensions and tables need the libraries that the restart loads
        for change in changes:
            async with cluster.connect(database=change["database"] or DATABASE) as con:
                for statement in change["sql"]:
                    await con.execute(statement)
        await restart(cluster)
    return settings


def proposed(dsn: str) -> list[str]:
    """
    Return the indexes that `magnus indexes` would make after what this server has been asked.
    """
    return [change["name"] for change in planned(dsn, "indexes")["changes"]]


def planned(dsn: str, *words: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        program = Path(sys.executable).with_name("magnus")
        command: list[str | Path] = [program, "-d", dsn, *(words or ("plan", "--memory", MEMORY)), "--out", path]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)  # noqa: S603  # ours
        if done.returncode:
            raise RuntimeError(done.stderr)
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"changes": []}
        return found


async def restart(cluster: Cluster) -> None:
    await cluster.stop()
    await cluster.start()


async def hiccups(cluster: Cluster, script: Script, began: float) -> list[float]:
    """
    Carry out the script's hiccups from `began` on; returns when each restarted server accepted connections again.
    """
    events = [(at, "restart") for at in script.restarts] + [(at, "kill") for at in script.kills]
    events.append((script.stall[0], "stall"))
    back = []
    for at, what in sorted(events):
        await asyncio.sleep(max(0.0, began + at - time.monotonic()))
        if what == "restart":
            await restart(cluster)
            back.append(time.monotonic())
        elif what == "kill":
            with contextlib.suppress(asyncpg.PostgresError, OSError):
                async with cluster.connect(database=DATABASE) as con:
                    await con.execute(_KILL, DATABASE)
        else:
            async with stalled(cluster):
                await asyncio.sleep(script.stall[1])
    return back


@contextlib.asynccontextmanager
async def stalled(cluster: Cluster) -> AsyncIterator[None]:
    """
    Stop the whole server (SIGSTOP) as long as the block lasts: it accepts connections, and says nothing.
    """
    async with cluster.connect() as con:
        rows = await con.fetch("SELECT pid FROM pg_stat_activity")
        pids = [row["pid"] for row in rows if row["pid"] != con.get_server_pid()]
        if cluster.pid is not None:
            pids.insert(0, cluster.pid)
        try:
            _signal(pids, signal.SIGSTOP)
            yield
        finally:
            _signal(pids, signal.SIGCONT)


def _signal(pids: Sequence[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


_KILL = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = $1 AND pid <> pg_backend_pid() AND backend_type = 'client backend'
    ORDER BY state = 'active' DESC, random() LIMIT 1
"""


class Process:
    """
    One side in a process of its own, asked by lines of JSON.
    """

    def __init__(self, kind: str, dsn: str) -> None:
        self._kind = kind
        self._dsn = dsn

    async def __aenter__(self) -> Self:
        self._child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ava.proof", self._kind, stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, limit=2**26,
        )  # fmt: skip
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._input, self._output = self._child.stdin, self._child.stdout
        try:
            self._write(self._dsn)
            self.ready = await self._answer()
        except BaseException as error:
            await self.__aexit__(type(error))
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """
        End it: at once when something went wrong here, else as its own shutdown goes.
        """
        self._input.close()
        try:
            if kind is None:
                await asyncio.wait_for(self._child.wait(), _PATIENCE)
        except TimeoutError:
            pass  # it is killed
        finally:
            if self._child.returncode is None:
                self._child.kill()
                await self._child.wait()

    def _write(self, line: str) -> None:
        self._input.write(line.encode() + b"\n")

    async def _answer(self) -> dict[str, Any]:
        line = await asyncio.wait_for(self._output.readline(), 180)
        if not line:
            raise RuntimeError(f"the process of {self._kind} ended ({self._child.returncode})")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise RuntimeError(found["error"])
        return found

    async def ask(self, phase: str, **options: Any) -> dict[str, Any]:
        self._write(json.dumps({"phase": phase, **options}))
        return await self._answer()
