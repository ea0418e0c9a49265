"""WAL and checkpoints: fewer, longer, smaller."""

from __future__ import annotations

from typing import Final

from magnus.tuning.rules.rule import Basis, Better, Keep, Rule, Want
from magnus.tuning.units import GB, MB, shown

_OFTEN: Final = 0.2
_STEP: Final = 256 * MB


def _max_wal_size(basis: Basis) -> Want | Keep | None:
    server = basis.server
    rate, free = server.wal_bytes_per_15min, None if basis.facts.host is None else basis.facts.host.wal_free
    now = server.amount("max_wal_size") or GB
    forced = server.requested_checkpoints
    if rate is None:
        return Keep("2 x the WAL of 15 minutes", "how much WAL is written is not known", "read with pg_monitor")
    wanted = 2 * rate
    if forced is not None and forced > _OFTEN:
        wanted = max(wanted, 2 * now)
    most = max(GB, 0.2 * free) if free is not None else 64 * GB
    value = max(GB, min(-(-wanted // _STEP) * _STEP, most // _STEP * _STEP))
    evidence = {"WAL in 15 minutes": shown(rate)}
    if forced is not None:
        evidence["checkpoints forced by WAL"] = f"{forced:.0%}"
    if free is not None:
        evidence["free for WAL"] = shown(free)
    reason = "a checkpoint comes by time, not because the WAL is full: fewer full pages are written twice"
    cost = f"up to {shown(value)} of disk; crash recovery reads up to as much"
    return Want(value, reason, better=Better.HIGHER, cost=cost, evidence=evidence)


def _min_wal_size(basis: Basis) -> Want | None:
    want = _max_wal_size(basis)
    now = basis.server.amount("max_wal_size") or GB
    most = max(now, want.value) if isinstance(want, Want) and isinstance(want.value, float | int) else now
    reason = "files are kept for the next burst instead of being made anew in it"
    return Want(most // 4 // MB * MB, reason, better=Better.HIGHER, cost=f"{shown(most / 4)} of disk, always")


def _checkpoint_timeout(basis: Basis) -> Want | None:
    del basis
    reason = "every page is written in full once after each checkpoint; 15 minutes instead of 5 means a third of that"
    return Want(900_000, reason, better=Better.HIGHER, cost="crash recovery has up to 15 minutes of WAL to replay")


def _completion_target(basis: Basis) -> Want | None:
    del basis
    return Want("0.9", "a checkpoint's writes are spread over its whole time", better=Better.HIGHER)


def _wal_buffers(basis: Basis) -> Keep | None:
    setting = basis.server.settings["wal_buffers"]
    if setting.source == "default":
        return None
    return Keep("-1", "set by hand; -1 takes 1/32 of shared_buffers, up to 16 MB, by itself", "no gain from a restart")


def _compression(basis: Basis) -> Want | Keep | None:
    setting = basis.server.settings["wal_compression"]
    found = next((name for name in ("lz4", "zstd", "pglz") if name in setting.enumvals), None)
    if found is None or setting.value != "off":
        return None
    reason = f"full pages are most of the WAL after a checkpoint; {found} is the best that this build knows"
    cost = "some CPU on writes" if found != "pglz" else "CPU on writes: pglz is slower than lz4, which this build lacks"
    return Want(found, reason, cost=cost)


RULES: Final = (
    Rule(
        "max_wal_size",
        "2 x the WAL of 15 minutes; doubled when over 20 % of the checkpoints were forced by WAL",
        "PostgreSQL documentation, 'WAL Configuration'; more than a fifth forced means that it is too small",
        _max_wal_size,
        cap="at least 1 GB, at most 20 % of the free space of the WAL's disk",
    ),
    Rule(
        "min_wal_size",
        "1/4 of max_wal_size",
        "a quarter of the peak is kept for the next burst, the rest is given back",
        _min_wal_size,
    ),
    Rule("checkpoint_timeout", "15 min", "PostgreSQL documentation, 'WAL Configuration'", _checkpoint_timeout),
    Rule("checkpoint_completion_target", "0.9", "default since 14, so mostly nothing to do", _completion_target),
    Rule("wal_buffers", "-1", "automatic: 16 MB from 512 MB of shared_buffers on", _wal_buffers, is_planned=False),
    Rule(
        "wal_compression", "the first of lz4, zstd, pglz that this build has", "enumvals of pg_settings", _compression
    ),
)
