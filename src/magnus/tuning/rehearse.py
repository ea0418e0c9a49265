"""Brings together what the preflight needs: the files' settings, the machine's memory, and the numbers' own proof."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from magnus.errors import PreflightFailed
from magnus.tuning import autoconf, look, preflight
from magnus.tuning.candidate import candidate
from magnus.tuning.change import Kind
from magnus.tuning.headroom import Memory, shortage, worst
from magnus.tuning.preflight import Report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from magnus.tuning.change import Change
    from magnus.tuning.facts import Server
    from magnus.tuning.session import Session

_TERMS: Final = (
    "max_connections",
    "work_mem",
    "maintenance_work_mem",
    "autovacuum_work_mem",
    "autovacuum_max_workers",
)


async def rehearse(session: Session, changes: Sequence[Change], told_memory: int | None) -> Report:
    """
    Try the changes, as far as what is needed for it is at hand; say what was not tried.

    Raises:
        PreflightFailed: the server would not start with them, or could run out of memory.
    """
    wanted = {change.name: change.after for change in changes if change.kind is Kind.SETTING}
    if not wanted:
        return Report("passed")
    site, server = session.site, session.server
    memory = Memory.here(site.pid, server.shared_memory_size) if site is not None else None
    limit = (memory.limit if memory is not None else None) or told_memory
    if limit is not None:
        prove(server, wanted, server.shared_memory_size or 0, limit)
    if site is None or memory is None:
        return Report("not tried", (_why_not(server),))
    files = await look.file_settings(session.con)
    content = await look.auto_conf(session.con, site)
    if files is None or content is None:
        return Report("not tried", (f"role {server.permissions.role} may not read pg_file_settings",))
    found = candidate(
        [(name, value) for name, value, _ in files],
        wanted,
        entries=autoconf.values(content),
        given=site.given(),
        known=server.settings,
    )
    report = await asyncio.to_thread(preflight.try_out, found, site, memory)
    if report.shared_memory is not None and limit is not None:
        prove(server, wanted, report.shared_memory, limit)
    return report


def _why_not(server: Server) -> str:
    if not server.is_local:
        return f"the programs of {server.host} are not on this machine"
    return "the data folder cannot be read by this account: run as root or as the account that runs PostgreSQL"


def prove(server: Server, wanted: Mapping[str, str | None], shared_memory: int, limit: int) -> None:
    """
    Compare what sessions could need with what there is, when the changes raise it.

    Raises:
        PreflightFailed: it is more; naming the setting.
    """
    now = {name: server.amount(name) for name in _TERMS}
    then = {name: _amount(server, name, wanted) for name in _TERMS}
    if _need(then) <= _need(now):
        return
    reason = shortage(then, shared_memory, limit)
    if reason is not None:
        name = worst([name for name in wanted if then.get(name) != now.get(name)])
        raise PreflightFailed(f"{name} = {wanted.get(name)!r}" if name else "", reason)


def _amount(server: Server, name: str, wanted: Mapping[str, str | None]) -> float | None:
    setting, value = server.settings.get(name), wanted.get(name)
    return server.amount(name) if setting is None or value is None else setting.read(value)


def _need(amounts: Mapping[str, float | None]) -> float:
    own = {name: amount or 0.0 for name, amount in amounts.items()}
    vacuum = own["autovacuum_work_mem"] if own["autovacuum_work_mem"] > 0 else own["maintenance_work_mem"]
    return own["max_connections"] * own["work_mem"] + own["autovacuum_max_workers"] * vacuum
