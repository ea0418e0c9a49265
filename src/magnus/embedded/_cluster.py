"""A local PostgreSQL: started, stopped and reached here, for coroutines and for everybody else."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

import asyncpg

from magnus.embedded import _conf, _postmaster, _roles, _server
from magnus.embedded._errors import ClusterError, from_os_error
from magnus.embedded._folder import Folder
from magnus.embedded._offload import in_thread
from magnus.embedded._owner import Address, Owner, Spec
from magnus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
    from pathlib import Path

    from magnus.embedded._binaries import Binaries

_MAX_PORT = 65_535


class Cluster:
    """
    A PostgreSQL server with its data in one folder.

    Start and stop it with `async with cluster:` or `with cluster:`, or by the methods; each exists for coroutines and,
    ending in `_blocking`, for everybody else. It is stopped at the interpreter's exit at the latest. When this process
    is killed, the server goes on until the next start in the same folder, which ends it and begins anew.

    Whoever may enter the private folder of the unix socket (this account, the server's, root) is trusted there; the
    loopback port asks for a password (scram-sha-256).
    """

    def __init__(
        self,
        folder: Path,
        binaries: Binaries,
        *,
        port: int | None = None,
        max_connections: int = 100,
        settings: Mapping[str, str] | None = None,
        is_durable: bool = True,
        is_throwaway: bool = False,
        can_share: bool = False,
        start_timeout: float = 120.0,
        stop_timeout: float = 10.0,
    ) -> None:
        """
        Describe the cluster; nothing is started or written.

        Args:
            folder: Absolute. Made at the first start; PostgreSQL's data lie in `data` inside it.
            binaries: The programs. Their major version must be that of existing data.
            port: Loopback port. None: that of the last run when it is free, else any.
            max_connections: The setting of that name.
            settings: More settings; they win over the cluster's own, and ALTER SYSTEM over both.
            is_durable: False switches fsync off: a power cut may destroy the data, a killed process does not.
            is_throwaway: Leaving the `with` block, or the interpreter's exit, removes the folder.
            can_share: When another process holds the folder, use its server instead of refusing.
            start_timeout: Seconds until it must accept connections, crash recovery included.
            stop_timeout: Seconds for an orderly stop; then it is stopped the hard way.

        Raises:
            ConfigError: naming the argument or setting.
        """
        if not folder.is_absolute():
            raise ConfigError("folder", str(folder), "must be an absolute path")
        if port is not None and not 0 < port <= _MAX_PORT:
            raise ConfigError("port", port, f"must be between 1 and {_MAX_PORT}")
        if max_connections < 1:
            raise ConfigError("max_connections", max_connections, "must be at least 1")
        _conf.check(settings or {})
        basis = _conf.DEFAULTS if is_durable else {**_conf.DEFAULTS, **_conf.THROWAWAY}
        self._spec = Spec(
            folder=Folder(folder),
            binaries=binaries,
            settings={**basis, "max_connections": str(max_connections), **(settings or {})},
            port=port,
            is_durable=is_durable,
            is_throwaway=is_throwaway,
            can_share=can_share,
            start_timeout=start_timeout,
            stop_timeout=stop_timeout,
        )
        self._abort = threading.Event()
        self._owner = Owner(self._spec, self._abort)
        self._busy = threading.Lock()

    def __repr__(self) -> str:
        pid = self.pid
        state = f"pid {pid}" if pid else "stopped"
        return f"<Cluster PostgreSQL {self.binaries.release} in {self.folder}: {state}>"

    @property
    def binaries(self) -> Binaries:
        """
        The programs, as given; the server may run from a copy.
        """
        return self._spec.binaries

    @property
    def folder(self) -> Path:
        """
        Where everything of this cluster lies.
        """
        return self._spec.folder.root

    @property
    def data(self) -> Path:
        """
        PostgreSQL's data folder.
        """
        return self._spec.folder.data

    @property
    def log(self) -> Path:
        """
        The server's log.
        """
        return self._spec.folder.log

    @property
    def password_file(self) -> Path:
        """
        Holds the superuser's password; only its owner can read it.
        """
        return self._spec.folder.password

    @property
    def pid(self) -> int | None:
        """
        The postmaster's process id, None when there is none.
        """
        found = _postmaster.running(self.data)
        return found.pid if found else None

    @property
    def is_running(self) -> bool:
        """
        Whether the server's process lives at this moment.
        """
        return self.pid is not None

    @property
    def is_shared(self) -> bool:
        """
        Whether the server is another process's (`can_share`).
        """
        return self._owner.is_shared

    @property
    def port(self) -> int:
        """
        The loopback port; that of the last run while stopped.
        """
        return self._address().port

    @property
    def socket_folder(self) -> Path:
        """
        The folder of the unix socket.
        """
        return self._address().sockets

    def password(self, user: str = _server.SUPERUSER) -> str:
        """
        The password of the superuser or of a role made by this cluster. Every role has its own.
        """
        return _roles.password_of(self._spec.folder.secret(), user)

    def dsn(self, *, user: str = _server.SUPERUSER, database: str = "postgres", is_tcp: bool = False) -> str:
        """
        A connection URI: by the unix socket and without a secret, or by the loopback port with the password.

        Raises:
            ClusterError: this object never started the cluster.
        """
        address = self._address()
        who, where = quote(user, safe=""), quote(database, safe="")
        if is_tcp:
            password = quote(self.password(user), safe="")
            return f"postgresql://{who}:{password}@{_server.HOST}:{address.port}/{where}"
        return f"postgresql://{who}@/{where}?host={quote(os.fspath(address.sockets))}&port={address.port}"

    def _address(self) -> Address:
        if self._owner.address is None:
            raise ClusterError(f"the cluster in {self.folder} was not started", reason="start")
        return self._owner.address

    async def start(self) -> None:
        """
        Start the server, making its data folder at the first time; about a second. Does nothing when it runs already.

        Cancelled, it ends what it has started and then passes the cancellation on.

        Raises:
            ClusterError: one clear line, and the server's last words below it.
        """
        if self._owner.is_started:
            return
        try:
            await in_thread(self.start_blocking, abort=self._abort)
        except asyncio.CancelledError:
            await in_thread(self.stop_blocking, abort=self._abort)
            raise

    async def stop(self) -> None:
        """
        Stop the server, bounded by `stop_timeout` and some seconds. Data stay. Finishes even when cancelled.

        Raises:
            ClusterError: it would not end even when killed.
        """
        await in_thread(self.stop_blocking, abort=self._abort)

    async def restart(self) -> None:
        """
        Stop and start, at the same address unless another program takes the port in between.
        """
        await self.stop()
        await self.start()

    async def discard(self) -> None:
        """
        Stop the server and delete the folder with everything in it. Finishes even when cancelled.
        """
        await in_thread(self.discard_blocking, abort=self._abort)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await in_thread(self._leave, abort=self._abort)
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await in_thread(self._leave, abort=self._abort)

    def hold(self) -> None:
        """
        Make the folder and keep other processes out of it, without starting anything; `start` does this anyway.

        Raises:
            ClusterError: another process holds it.
        """
        with self._exclusively(f"{self.folder} could not be made"):
            self._owner.hold_or_refuse()

    def start_blocking(self) -> None:
        """
        `start` for callers without an event loop.
        """
        with self._exclusively("PostgreSQL could not be started"):
            self._owner.start()
            atexit.unregister(self._at_exit)
            atexit.register(self._at_exit)

    def stop_blocking(self) -> None:
        """
        `stop` for callers without an event loop.
        """
        with self._exclusively("PostgreSQL could not be stopped"):
            self._owner.stop()

    def restart_blocking(self) -> None:
        """
        `restart` for callers without an event loop.
        """
        self.stop_blocking()
        self.start_blocking()

    def discard_blocking(self) -> None:
        """
        `discard` for callers without an event loop.
        """
        with self._exclusively(f"{self.folder} could not be removed"):
            self._owner.discard()
        atexit.unregister(self._at_exit)

    def __enter__(self) -> Self:
        try:
            self.start_blocking()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._spec.is_throwaway:
            self.discard_blocking()
        else:
            self.stop_blocking()

    def _at_exit(self) -> None:
        # A forked copy of this process holds the object, not the server.
        if self._owner.is_held_here:
            self._leave()

    @contextlib.contextmanager
    def _exclusively(self, failure: str) -> Iterator[None]:
        with self._busy:
            try:
                yield
            except OSError as error:
                raise from_os_error(failure, error) from error

    @contextlib.asynccontextmanager
    async def connect(
        self, *, user: str = _server.SUPERUSER, database: str = "postgres"
    ) -> AsyncIterator[asyncpg.Connection]:
        """
        A connection by the unix socket, closed at the end of the block.
        """
        address = self._address()
        # Everything that the driver would otherwise look up in PGPASSFILE or PGSSLMODE is given.
        con = await asyncpg.connect(
            host=os.fspath(address.sockets),
            port=address.port,
            user=user,
            database=database,
            password=self.password(user),
            ssl=False,
            timeout=10.0,
        )
        try:
            yield con
        finally:
            await con.close(timeout=5.0)

    async def create_role(self, name: str, *, can_create_roles: bool = False, member_of: Sequence[str] = ()) -> None:
        """
        Make a login role that is no superuser and is bound by row-level security, with `password(name)`. Repeatable.
        """
        async with self.connect() as con:
            await _roles.ensure_role(
                con, name, password=self.password(name), can_create_roles=can_create_roles, member_of=member_of
            )

    async def create_database(
        self, name: str, *, owner: str | None = None, extensions: Sequence[str] = (), template: str | None = None
    ) -> bool:
        """
        Make a database, and in it the extensions, as superuser. Repeatable: True when the database was made now.

        A template must have no connections at that moment.
        """
        async with self.connect() as con:
            is_new = await _roles.ensure_database(con, name, owner=owner, template=template)
        if extensions:
            async with self.connect(database=name) as con:
                await _roles.ensure_extensions(con, extensions)
        return is_new

    async def drop_database(self, name: str) -> None:
        """
        Drop a database and end its sessions. Repeatable.
        """
        async with self.connect() as con:
            await _roles.remove_database(con, name)

    async def bootstrap(self, name: str) -> bool:
        """
        What an application needs: a role, and a database of the same name that it owns, with pg_stat_statements.

        The role may create roles and read the server's statistics (pg_monitor); it is no superuser. Repeatable: True
        when the database was made now.
        """
        await self.create_role(name, can_create_roles=True, member_of=("pg_monitor",))
        return await self.create_database(name, owner=name, extensions=("pg_stat_statements",))
