"""A real streaming standby beside a cluster of one's own, asynchronous or synchronous; it injects no fault.

Only `initdb` and `postgres` are certain to be there, so the base backup is the server's own (`pg_backup_start`), with
the files copied here.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from magnus.embedded import ClusterError, throwaway
from magnus.embedded._account import server_account

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from magnus.embedded import Cluster

_PATIENCE: Final = 30.0
_POLL: Final = 0.02
_NOT_COPIED: Final = ("postmaster.pid", "postmaster.opts", "pg_internal.init")
_EMPTIED: Final = ("pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans")


@asynccontextmanager
async def standby_of(
    primary: Cluster, *, is_synchronous: bool = False, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Cluster]:
    """
    Build a hot standby that streams from `primary`; it lasts as long as the block.

    It takes about a second. With `is_synchronous` every COMMIT on the primary waits for it, until `release_commits` or
    the end of the block. Afterwards its data are gone, and a primary that still runs has forgotten it.

    Raises:
        ClusterError: it did not begin to stream.
    """
    name = f"standby_{secrets.token_hex(4)}"
    source = f"host={primary.socket_folder} port={primary.port} user=postgres application_name={name}"
    standby = throwaway(
        primary.binaries,
        settings={
            "hot_standby": "on",
            "primary_conninfo": source,
            "primary_slot_name": name,
            "wal_receiver_status_interval": "1s",
            "wal_retrieve_retry_interval": "200ms",
            "recovery_target_timeline": "latest",
            **(settings or {}),
        },
    )
    try:
        await _base_backup(primary, standby, slot=name)
        await standby.start()
        await _until_streaming(primary, name)
        if is_synchronous:
            await require(primary, name)
        yield standby
    finally:
        await standby.discard()
        if primary.is_running:
            await _forget(primary, name, is_synchronous=is_synchronous)


async def _forget(primary: Cluster, name: str, *, is_synchronous: bool) -> None:
    if is_synchronous:
        await release_commits(primary)
    async with primary.connect() as con:
        is_used = "SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1 AND active)"
        await _until_row(primary, is_used, name)
        drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1"
        await con.execute(drop, name)


async def require(primary: Cluster, *names: str) -> None:
    """
    Make every COMMIT on `primary` wait for one of these standbys (their `application_name`); none: for nobody.
    """
    async with primary.connect() as con:
        value = ", ".join(f'"{name}"' for name in names)
        await con.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{value}'")
        await con.execute("SELECT pg_reload_conf()")
    if names:
        await _until_row(
            primary, "SELECT 1 FROM pg_stat_replication WHERE application_name = ANY($1) AND sync_state = 'sync'", names
        )
    else:
        await _until_row(primary, "SELECT 1 WHERE current_setting('synchronous_standby_names') = ''")


async def release_commits(primary: Cluster) -> None:
    """
    Let COMMIT wait for no standby any more; those that wait go on.
    """
    await require(primary)


async def standby_name(standby: Cluster) -> str:
    """
    Return the name by which its primary knows a standby.
    """
    async with standby.connect() as con:
        return str(await con.fetchval("SELECT current_setting('primary_slot_name')"))


async def until_replayed(primary: Cluster, standby: Cluster) -> None:
    """
    Wait until the standby has replayed all that the primary has written so far.
    """
    async with primary.connect() as con:
        # What was inserted and not flushed is not sent either, for up to 15 s: a transaction of our own flushes it.
        await con.execute("BEGIN; SET LOCAL synchronous_commit = local; SELECT pg_current_xact_id(); COMMIT")
        position = await con.fetchval("SELECT pg_current_wal_flush_lsn()::text")
    await _until_row(standby, "SELECT 1 WHERE pg_last_wal_replay_lsn() >= $1::text::pg_lsn", position)


async def _base_backup(primary: Cluster, standby: Cluster, *, slot: str) -> None:
    async with primary.connect() as con:
        await con.execute("SELECT pg_create_physical_replication_slot($1, true)", slot)
        await con.execute("SELECT pg_backup_start($1, true)", slot)
        await asyncio.to_thread(_copy, primary.data, standby.data)
        stop = await con.fetchrow("SELECT labelfile, spcmapfile FROM pg_backup_stop(false)")
    assert stop is not None, "the server answers with one row"
    await asyncio.to_thread(_finish, standby, str(stop["labelfile"]))


def _copy(source: Path, target: Path) -> None:
    def skipped(folder: str, names: list[str]) -> list[str]:
        is_emptied = os.path.relpath(folder, source) in _EMPTIED
        return [name for name in names if is_emptied or name in _NOT_COPIED]

    def copied(path: str, to: str) -> Any:
        try:
            return shutil.copyfile(path, to)
        except FileNotFoundError:
            return to  # the server removes files meanwhile; recovery knows

    shutil.copytree(source, target, ignore=skipped, copy_function=copied)


def _finish(standby: Cluster, label: str) -> None:
    (standby.data / "backup_label").write_text(label)
    (standby.data / "standby.signal").touch()
    account = server_account()
    for path in (standby.data, *standby.data.rglob("*")):
        account.own(path, 0o700 if path.is_dir() else 0o600)


async def _until_streaming(primary: Cluster, name: str) -> None:
    query = "SELECT 1 FROM pg_stat_replication WHERE application_name = $1 AND state = 'streaming'"
    await _until_row(primary, query, name)


async def _until_row(cluster: Cluster, query: str, *args: object) -> None:
    try:
        async with asyncio.timeout(_PATIENCE), cluster.connect() as con:
            while await con.fetchval(query, *args) is None:  # noqa: ASYNC110  # the server tells nobody
                await asyncio.sleep(_POLL)
    except TimeoutError:
        raise ClusterError(f"{cluster!r}: not within {_PATIENCE:g} s: {query}", reason="timeout") from None
