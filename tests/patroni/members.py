"""Three members of Patroni and one etcd on loopback, from the file in deploy/: its places are others, nothing else is.

Each member has an address of its own (127.0.0.11 and on), so that nothing but addresses, ports and folders differs from
three machines. Debian's packages are used; nothing is started that this module does not end.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import httpx2
import yaml

from magnus.embedded import Binaries, _postmaster
from magnus.embedded._account import server_account
from magnus.errors import ConfigError
from tests.pgbouncer import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

SHIPPED = Path(__file__).resolve().parents[2] / "deploy" / "patroni" / "patroni.yml"
VERSION = 15
NAMES = ("db1", "db2", "db3")
APP = "app"
_SECRETS = {
    "PATRONI_SUPERUSER_PASSWORD": "of-the-superuser",
    "PATRONI_REPLICATION_PASSWORD": "of-the-standbys",
    "PATRONI_REWIND_PASSWORD": "of-pg-rewind",
    "PATRONI_RESTAPI_PASSWORD": "of-the-api",
}
_POLL = 0.2  # a question costs a connection
_CLOSE = 0.02  # one over a connection that is open


def missing() -> str | None:
    """
    What is not installed here, and how to install it; None when all of it is.
    """
    absent = [name for name in ("patroni", "etcd", "openssl") if shutil.which(name) is None]
    try:
        Binaries.system(VERSION)
    except ConfigError:
        absent.append(f"PostgreSQL {VERSION}")
    return (
        f'{", ".join(absent)} is not installed; make system-packages DEBIAN="patroni etcd-server"' if absent else None
    )


def merged(shipped: dict[str, Any], places: dict[str, Any]) -> dict[str, Any]:
    """
    Return the shipped configuration with other places.

    Raises:
        KeyError: the shipped file does not have such a place: the test would be of another file.
    """
    found = dict(shipped)
    for name, value in places.items():
        found[name] = merged(shipped[name], value) if isinstance(value, dict) else value
        if name not in shipped:
            raise KeyError(name)
    return found


async def until(is_so: Callable[[], Awaitable[object]], patience: float, what: str) -> float:
    """
    Wait until something is so; return the seconds it took.

    Raises:
        AssertionError: it is not, within `patience` seconds.
    """
    began = time.monotonic()
    while not await is_so():
        if time.monotonic() > began + patience:
            raise AssertionError(f"not within {patience:g} s: {what}")
        await asyncio.sleep(_POLL)
    return time.monotonic() - began


@dataclass
class Member:
    """
    One member: a Patroni and the server that it runs. `pid` and `data` are those of the server.
    """

    name: str
    address: str
    port: int
    api: int
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def pid(self) -> int | None:
        found = _postmaster.running(self.data)
        return found.pid if found else None

    @property
    def log(self) -> str:
        return (self.folder / "patroni.log").read_text(errors="replace")

    def places(self, etcd: str, certificates: Path) -> dict[str, Any]:
        """
        Where things are for this member.
        """
        server, api = f"{self.address}:{self.port}", f"{self.address}:{self.api}"
        return {
            "name": self.name,
            "restapi": {"listen": api, "connect_address": api},
            "etcd3": {"hosts": etcd},
            "postgresql": {
                "listen": server,
                "connect_address": server,
                "data_dir": str(self.data),
                "bin_dir": str(Binaries.system(VERSION).bindir),
                "parameters": {
                    "ssl_cert_file": str(certificates / "server.crt"),
                    "ssl_key_file": str(certificates / "server.key"),
                },
            },
        }

    def start(self) -> None:
        """
        Start Patroni; it does the rest.
        """
        self.process = spawn(self.folder, ["patroni", str(self.folder / "patroni.yml")], "patroni.log", _SECRETS)

    def signal(self, number: signal.Signals) -> None:
        """
        Signal Patroni, not its server.
        """
        assert self.process is not None, "start it first"
        self.process.send_signal(number)

    def kill(self) -> None:
        """
        Kill Patroni and every process of its server, as a machine that loses its power does.
        """
        if self.process is not None:
            self.process.kill()
        while pids := _postmaster.processes_of(self.data):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        if self.process is not None:
            self.process.wait(10)
        self.process = None


def spawn(folder: Path, command: list[str], log: str, environ: dict[str, str]) -> subprocess.Popen[bytes]:
    """
    Start a program under the account that servers run as, at home in its folder.
    """
    known = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder), "LANG": "C.UTF-8", **environ}
    with (folder / log).open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=known,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            **server_account().spawn_arguments(),
        )


@dataclass
class Group:
    """
    All members, and how to reach them; towards `Book` it is what a cluster is: `connect`, `create_database`, `dsn`.
    """

    members: list[Member]
    folder: Path
    http: httpx2.AsyncClient
    tls: ssl.SSLContext
    password: str = "of-the-service"
    programs: dict[str, str] = field(default_factory=dict)

    # --- SQL

    async def session(self, member: Member, **target: Any) -> asyncpg.Connection:
        """
        A connection to one member, as its superuser unless `target` says otherwise.
        """
        known = {"user": "postgres", "password": _SECRETS["PATRONI_SUPERUSER_PASSWORD"], "database": "postgres"}
        return await asyncpg.connect(
            host=member.address, port=member.port, ssl=self.tls, timeout=5, command_timeout=10, **{**known, **target}
        )

    async def ask(self, member: Member, query: str, *args: Any) -> Any:
        """
        Ask one member as its superuser; None where it does not answer.
        """
        with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            con = await self.session(member)
            try:
                return await con.fetchval(query, *args)
            finally:
                con.terminate()
        return None

    @asynccontextmanager
    async def connect(self, database: str) -> AsyncIterator[asyncpg.Connection]:
        """
        A connection of the service's role to the leader.
        """
        con = await self.session(await self.leader(), user=APP, password=self.password, database=database)
        try:
            yield con
        finally:
            con.terminate()

    async def create_database(self, name: str) -> None:
        """
        A database of the service's role on the leader.
        """
        con = await self.session(await self.leader())
        try:
            if not await con.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", APP):
                await con.execute(f"CREATE ROLE {APP} LOGIN PASSWORD '{self.password}'; GRANT pg_monitor TO {APP}")
            await con.execute(f"CREATE DATABASE {name} OWNER {APP}")
        finally:
            con.terminate()

    def dsn(self, database: str) -> str:
        """
        The service's: all members, and whichever takes writes.
        """
        hosts = ",".join(f"{member.address}:{member.port}" for member in self.members)
        return f"{self._uri(hosts, database)}&target_session_attrs=read-write"

    def replicas(self, database: str) -> list[str]:
        """
        Each member as a replica, whatever it is at the moment.
        """
        return [self._uri(f"{member.address}:{member.port}", database) for member in self.members]

    def _uri(self, hosts: str, database: str) -> str:
        verified = f"sslmode=verify-full&sslrootcert={self.folder / 'server.crt'}"
        return f"postgresql://{APP}:{self.password}@{hosts}/{database}?{verified}"

    # --- roles

    async def is_primary(self, member: Member) -> bool:
        return await self.ask(member, "SELECT NOT pg_is_in_recovery()") is True

    async def leader(self, patience: float = 60.0) -> Member:
        """
        The member that Patroni calls the leader, and that takes writes.
        """
        found: list[Member] = []

        async def is_found() -> bool:
            for member in self.members:
                with suppress(httpx2.HTTPError):
                    answer = await self.http.get(f"http://{member.address}:{member.api}/primary")
                    if answer.status_code == 200 and await self.is_primary(member):
                        found.append(member)
            return bool(found)

        await until(is_found, patience, "a leader")
        return found[0]

    async def new_leader(self, old: Member, patience: float = 120.0) -> tuple[Member, float]:
        """
        Wait until another member takes writes; return it, and the moment at which it said so.
        """
        others = [member for member in self.members if member is not old]
        async with asyncio.timeout(patience):
            tasks = [asyncio.create_task(self._promoted(member)) for member in others]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        first = done.pop()
        return others[tasks.index(first)], first.result()

    async def _promoted(self, member: Member) -> float:
        while True:
            with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                con = await self.session(member)
                try:
                    while await con.fetchval("SELECT pg_is_in_recovery()"):  # noqa: ASYNC110  # it tells nobody
                        await asyncio.sleep(_CLOSE)
                    return time.monotonic()
                finally:
                    con.terminate()
            await asyncio.sleep(_POLL)

    async def whole(self, patience: float = 120.0, *, is_synchronous: bool = True) -> float:
        """
        Wait until all others stream from the leader, and Patroni knows one as synchronous; return the seconds it took.
        """
        streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND application_name = ANY($1)"
        roles = ["leader", "replica", "sync_standby" if is_synchronous else "replica"]

        async def is_whole() -> bool:
            for member in self.members:
                if await self.ask(member, streaming, list(NAMES)) == len(self.members) - 1:
                    with suppress(httpx2.HTTPError):
                        answer = await self.http.get(f"http://{member.address}:{member.api}/cluster", timeout=5.0)
                        return sorted(each["role"] for each in answer.json()["members"]) == sorted(roles)
            return False

        return await until(is_whole, patience, "every standby streams")

    # --- Patroni's API

    async def order(self, member: Member, method: str, path: str, body: dict[str, Any]) -> None:
        """
        Ask one member's Patroni for a change, as its documentation says.
        """
        answer = await self.http.request(
            method,
            f"http://{member.address}:{member.api}/{path}",
            json=body,
            auth=("patroni", _SECRETS["PATRONI_RESTAPI_PASSWORD"]),
        )
        if answer.status_code >= 300:
            raise AssertionError(f"{path}: {answer.status_code} {answer.text}")


@asynccontextmanager
async def etcd(folder: Path) -> AsyncIterator[str]:
    """
    One etcd, alone, on loopback; yields its address.
    """
    clients, peers = (f"127.0.0.10:{free_port()}" for _ in range(2))
    command = [
        *("etcd", "--name", "one", "--data-dir", str(folder / "etcd")),
        *("--listen-client-urls", f"http://{clients}", "--advertise-client-urls", f"http://{clients}"),
        *("--listen-peer-urls", f"http://{peers}", "--initial-advertise-peer-urls", f"http://{peers}"),
        *("--initial-cluster", f"one=http://{peers}", "--logger", "zap"),
    ]
    process = spawn(folder, command, "etcd.log", {})
    try:
        yield clients
    finally:
        process.kill()
        process.wait(10)


@asynccontextmanager
async def group(**changes: Any) -> AsyncIterator[Group]:
    """
    Three members, streaming, as long as the block lasts. `changes` are of the shipped file's `bootstrap.dcs`.
    """
    account = server_account()
    folder = Path(tempfile.mkdtemp(prefix="magnus-patroni-"))
    account.own(folder, 0o700)
    shipped = yaml.safe_load(SHIPPED.read_text())
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        certify(folder)
        store = await stack.enter_async_context(etcd(folder))
        http = await stack.enter_async_context(httpx2.AsyncClient(timeout=60.0))
        members = []
        for place, name in enumerate(NAMES, start=11):
            member = Member(name, f"127.0.0.{place}", free_port(), free_port(), folder / name)
            member.folder.mkdir()
            text = yaml.safe_dump(merged(shipped, {**member.places(store, folder), "bootstrap": {"dcs": changes}}))
            (member.folder / "patroni.yml").write_text(text)
            account.own(member.folder / "patroni.yml", 0o600)
            account.own(member.folder, 0o700)
            stack.callback(member.kill)
            members.append(member)
        tls = ssl.create_default_context(cafile=str(folder / "server.crt"))
        found = Group(members, folder, http, tls, programs=versions())
        for member in members:
            member.start()
        try:
            await found.whole()
        except AssertionError as error:
            told = "\n".join(line for member in members for line in member.log.splitlines()[-15:])
            raise AssertionError(f"{error}\n{told}") from error
        yield found


def certify(folder: Path) -> None:
    """
    A key and a certificate for all members, which is its own authority.
    """
    names = ",".join(f"IP:127.0.0.{place}" for place in range(11, 11 + len(NAMES)))
    key, certificate = folder / "server.key", folder / "server.crt"
    command = (
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=members "
        f"-keyout {key} -out {certificate} -addext subjectAltName={names}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    server_account().own(key, 0o600)
    server_account().own(certificate, 0o644)


def versions() -> dict[str, str]:
    """
    What the programs call themselves.
    """
    asked = {"Patroni": ["patroni", "--version"], "etcd": ["etcd", "--version"]}
    told = {
        name: subprocess.run(command, check=True, capture_output=True, text=True).stdout
        for name, command in asked.items()
    }
    numbers = {name: re.search(r"\d+(\.\d+)+", text) for name, text in told.items()}
    return {"PostgreSQL": Binaries.system(VERSION).release} | {
        name: found[0] for name, found in numbers.items() if found
    }
