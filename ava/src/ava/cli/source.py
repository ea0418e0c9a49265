"""Which database a command works on: the one that DATABASE_URL names, else AVA's own PostgreSQL on this machine."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from ava.cli import render
from ava.cli.exits import CommandError, Exit
from ava.cli.progress import stage
from magnus import ConnectError, DatabaseConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from magnus.embedded import Cluster

NAME: Final = "ava"
"""The embedded cluster, its role and its database."""


@contextlib.asynccontextmanager
async def database(
    environ: Mapping[str, str], data_dir: Path | None = None, *, may_attach: bool = True
) -> AsyncIterator[DatabaseConfig]:
    """
    Give a database for the length of the block; the embedded server is started before and stopped after it.

    With `may_attach` a cluster that another `ava` holds is used and left running.

    Raises:
        CommandError: `data_dir` is given for a database that is not the embedded one.
        ConfigError: the environment has an impossible value.
        ClusterError: the embedded server cannot be started.
    """
    if environ.get("MAGNUS_DSN") or environ.get("DATABASE_URL"):
        if data_dir is not None:
            raise CommandError("--data-dir is for the embedded PostgreSQL, but DATABASE_URL names a server")
        config = DatabaseConfig.from_environ(environ)
        with named(config.safe_dsn):
            yield config
        return
    async with _embedded(environ, data_dir, may_attach=may_attach) as config:
        yield config


@contextlib.contextmanager
def named(target: str) -> Iterator[None]:
    """
    Say which database it was that could not be reached.
    """
    try:
        yield
    except ConnectError as error:
        raise CommandError(f"{error}: {target}", Exit.DATABASE) from error


@contextlib.asynccontextmanager
async def _embedded(
    environ: Mapping[str, str], data_dir: Path | None, *, may_attach: bool
) -> AsyncIterator[DatabaseConfig]:
    from magnus.embedded import ClusterError

    cluster = _cluster(environ, data_dir)
    try:
        with stage(f"PostgreSQL {cluster.binaries.release} started"):
            await cluster.start()
    except ClusterError as error:
        if error.reason != "in_use" or not may_attach:
            raise
        dsn = running_dsn(cluster)
        render.line(f"using the PostgreSQL that process {error.pid} has started")
        yield DatabaseConfig.from_environ(environ, dsn=dsn)
        return
    try:
        await cluster.bootstrap(NAME)
        yield DatabaseConfig.from_environ(environ, dsn=cluster.dsn(user=NAME, database=NAME))
    finally:
        await cluster.stop()


def _cluster(environ: Mapping[str, str], data_dir: Path | None) -> Cluster:
    from magnus.embedded import Binaries, Cluster, persistent

    if data_dir is None:
        return persistent(NAME, environ=environ)
    return Cluster(data_dir.absolute(), Binaries.bundled())


def running_dsn(cluster: Cluster) -> str:
    """
    Return the DSN of a cluster that another process has started, as its postmaster wrote its address down.

    Raises:
        CommandError: it is just starting or stopping.
    """
    try:
        # Line 4 is the port, line 5 the folder of the socket (src/include/utils/pidfile.h).
        written, sockets = (cluster.data / "postmaster.pid").read_text().splitlines()[3:5]
        port = int(written)
    except (OSError, ValueError):
        raise CommandError(
            f"the PostgreSQL in {cluster.folder} is just starting or stopping; try again", Exit.DATABASE
        ) from None
    return f"postgresql://{NAME}@/{NAME}?host={quote(sockets.strip(), safe='')}&port={port}"
