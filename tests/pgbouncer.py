"""A real PgBouncer of a test's own before a server of the tests: loopback, a free port, an unprivileged account.

Debian's is used (`make system-packages`), or the program that MAGNUS_TEST_PGBOUNCER names. With
MAGNUS_TEST_PGBOUNCER_SETTINGS ("max_prepared_statements=200") its configuration has these lines too, but for one that
`magnus pgbouncer` printed. Without a program the tests are skipped, and fail where CI is set.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from magnus.embedded._account import server_account

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from magnus.embedded import Cluster

PROGRAM = os.environ.get("MAGNUS_TEST_PGBOUNCER") or "pgbouncer"
SETTINGS = os.environ.get("MAGNUS_TEST_PGBOUNCER_SETTINGS", "").split()


def program_or_skip() -> str:
    """
    The program; where it is missing the test is skipped, or fails where CI is set.
    """
    found = shutil.which(PROGRAM) or shutil.which(PROGRAM, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("pgbouncer is not installed; make system-packages")
        pytest.skip("pgbouncer is not installed; make system-packages")
    return found


class Pooler:
    """
    One running PgBouncer.

    Attributes:
        port: On 127.0.0.1.
        folder: Holds its configuration, `pgbouncer.ini`, and its log.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    def dsn(self, database: str, user: str = "postgres") -> str:
        """
        How to reach a database through it.
        """
        return f"postgresql://{user}@127.0.0.1:{self.port}/{quote(database)}"

    @property
    def log(self) -> str:
        """
        What it wrote so far.
        """
        return (self.folder / "pgbouncer.log").read_text()

    async def start(self) -> None:
        """
        Start it, and wait until it listens.
        """
        account = server_account()
        command = [program_or_skip(), str(self.folder / "pgbouncer.ini")]
        with (self.folder / "pgbouncer.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, **account.spawn_arguments()
            )
        async with asyncio.timeout(30):
            while not await self._listens():
                if self._process.poll() is not None:
                    raise AssertionError(self.log)
                await asyncio.sleep(0.02)

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True

    def stop(self, how: int = signal.SIGTERM) -> None:
        """
        End it, and wait for its end.
        """
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(how)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def free_port() -> int:
    """
    A port that nobody listens on at this moment.
    """
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def configuration(server: Cluster, port: int, settings: Mapping[str, object], databases: Mapping[str, str]) -> str:
    """
    The text of `pgbouncer.ini` before `server`: everybody on this machine may come in as anybody.
    """
    target = f"host={server.socket_folder} port={server.port}"
    entries = {**{name: f"{target} {more}" for name, more in databases.items()}, "*": target}
    given = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "any",
        "pool_mode": "transaction",
        "default_pool_size": 5,
        "max_client_conn": 2000,
        "admin_users": "postgres",
        "stats_users": "postgres",
        "log_connections": 0,
        "log_disconnections": 0,
        **dict(line.split("=", 1) for line in SETTINGS),
        **settings,
    }
    if given["auth_type"] == "any":  # it takes the user from the entry
        entries = {name: f"{text} user=postgres" if "user=" not in text else text for name, text in entries.items()}
    lines = ["[databases]", *(f"{name} = {text}" for name, text in entries.items()), "[pgbouncer]"]
    return "\n".join([*lines, *(f"{name} = {value}" for name, value in given.items()), ""])


@asynccontextmanager
async def pgbouncer(
    server: Cluster,
    *,
    databases: Mapping[str, str] | None = None,
    text: str | None = None,
    users: str = "",
    **settings: object,
) -> AsyncIterator[Pooler]:
    """
    A PgBouncer before `server` as long as the block lasts: in transaction mode with five connections for each database
    unless `settings` say otherwise. `databases` are entries of their own; `text` is a whole configuration as
    `magnus pgbouncer` prints it: its port becomes a free one, and its file of users has the lines `users`.
    """
    account = server_account()
    folder = Path(tempfile.mkdtemp(prefix="magnus-pooler-"))
    pooler = Pooler(folder, free_port())
    try:
        ini = folder / "pgbouncer.ini"
        if text is None:
            ini.write_text(configuration(server, pooler.port, settings, databases or {}))
        else:
            listed = folder / "userlist.txt"
            listed.write_text(users)
            account.own(listed, 0o600)
            ini.write_text(
                text.replace("= 6432\n", f"= {pooler.port}\n").replace("/etc/pgbouncer/userlist.txt", str(listed))
            )
        account.own(folder, 0o755)
        account.own(ini, 0o644)
        await pooler.start()
        yield pooler
    finally:
        pooler.stop()
        shutil.rmtree(folder, ignore_errors=True)
