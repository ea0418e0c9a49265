"""The planner's prices and parallelism: by the storage as measured or told, and by the CPUs."""

from __future__ import annotations

from typing import Final

from magnus.tuning.facts import Profile, Storage
from magnus.tuning.rules.rule import Basis, Better, Keep, Rule, Want

_ASYNC_IO: Final = 18  # since then the default is 16, and reads ahead are the server's own
_FAST: Final = 0.001


def storage_of(basis: Basis) -> tuple[Storage | None, str]:
    """
    Return what kind of storage the data is on, and how that is known.
    """
    host, server = basis.facts.host, basis.server
    if host is not None and host.storage is not None:
        return host.storage, host.storage_source
    if server.read_latency is not None:
        found = Storage.SSD if server.read_latency < _FAST else Storage.HDD
        return found, f"the server's own reads took {server.read_latency * 1000:.2g} ms"
    return None, ""


def _random_page_cost(basis: Basis) -> Want | Keep | None:
    storage, source = storage_of(basis)
    if storage is None:
        return Keep("1.1", "the storage's speed is neither measured nor told", "tell it: --storage ssd, or hdd")
    is_fast = storage is Storage.SSD
    reason = "a random read costs about as much as the next one" if is_fast else "a random read costs a seek"
    return Want(
        "1.1" if is_fast else "4",
        f"{reason} on this storage",
        better=Better.LOWER if is_fast else Better.EXACT,
        risk="medium",
        cost="plans may change everywhere: look at EXPLAIN of the top queries first",
        evidence={"storage": f"{storage} ({source})"},
    )


def _io_concurrency(basis: Basis) -> Want | Keep | None:
    setting = basis.server.settings["effective_io_concurrency"]
    storage, source = storage_of(basis)
    if setting.max_val == "0":
        return None  # no posix_fadvise on this platform: it must stay 0
    if basis.server.major >= _ASYNC_IO:
        if (setting.amount or 0) >= 16:
            return Keep(
                "200", "18 reads asynchronously by itself; its default of 16 stays until a measurement says more"
            )
        return Want(16, "below the default of 18, whose asynchronous reads it bounds", better=Better.HIGHER)
    if storage is None:
        return Keep("200", "the storage's speed is neither measured nor told", "tell it: --storage ssd, or hdd")
    value = 200 if storage is Storage.SSD else 2
    reason = "how many reads a bitmap scan asks for ahead" + ("; flash serves many at once" if value > 2 else "")
    evidence = {"storage": f"{storage} ({source})"}
    return Want(value, reason, better=Better.HIGHER if value > 2 else Better.EXACT, evidence=evidence)


def _cpus(basis: Basis) -> int | None:
    return None if basis.facts.host is None else basis.facts.host.cpus


_NO_CPUS: Final = Keep("by CPUs", "the CPUs that the server may use are not known", "tell it: --cpus 4 --memory 8GB")


def _parallel_workers(basis: Basis) -> Want | Keep | None:
    cpus = _cpus(basis)
    if cpus is None:
        return _NO_CPUS
    return Want(cpus, f"one worker a CPU; the server may use {cpus}", cost="none while queries are short")


def _per_gather(basis: Basis) -> Want | Keep | None:
    cpus = _cpus(basis)
    if cpus is None:
        return _NO_CPUS
    if basis.facts.workload.profile is Profile.WAREHOUSE:
        value = max(1, min(cpus // 2, 8))
        return Want(
            value, f"half of the {cpus} CPUs for one large query", cost="memory: each worker has its own work_mem"
        )
    return Want(2, "many short queries share the CPUs; one query gets two workers", better=Better.LOWER)


def _worker_processes(basis: Basis) -> Want | Keep | None:
    cpus = _cpus(basis)
    if cpus is None:
        return _NO_CPUS
    now = basis.server.amount("max_worker_processes") or 8
    value = max(now, 8, cpus + _extension_workers(basis))
    reason = "parallel queries and background workers of extensions share these slots; never lowered"
    return Want(value, reason, better=Better.HIGHER, risk="medium", cost="standbys need at least as many, first")


def _extension_workers(basis: Basis) -> int:
    """
    Slots for libraries that may start workers; the logical replication launcher always takes one.
    """
    quiet = {"pg_stat_statements", "auto_explain", "pgaudit", "passwordcheck", "auth_delay", "pg_hint_plan"}
    return 1 + sum(4 if name.startswith("timescaledb") else 1 for name in basis.server.preload if name not in quiet)


def _jit(basis: Basis) -> Want | None:
    if basis.facts.workload.profile is not Profile.OLTP:
        return None
    reason = "compiling costs short queries more than it saves; wrong estimates make it seem worth it"
    return Want("off", reason, cost="long computations run uncompiled: SET jit = on for those")


def _io_method(basis: Basis) -> Keep | None:
    setting = basis.server.settings["io_method"]
    if setting.value == "worker" or "io_uring" in setting.enumvals:
        return None
    return Keep("worker", f"{setting.value} was chosen by hand; worker is the default", "measure before changing it")


RULES: Final = (
    Rule(
        "random_page_cost",
        "1.1 when reads take under 1 ms (measured) or the storage is declared ssd; 4 for hdd",
        "PostgreSQL documentation, 'Query Planning'; the kernel's rotational flag is wrong on virtual disks",
        _random_page_cost,
    ),
    Rule(
        "effective_io_concurrency",
        "to 17: 200 on ssd, 2 on hdd; from 18: at least its default 16",
        "PostgreSQL documentation, 'Resource Consumption'",
        _io_concurrency,
        cap="0 where the platform has no posix_fadvise",
    ),
    Rule("max_parallel_workers", "C", "PostgreSQL documentation, 'Resource Consumption'", _parallel_workers),
    Rule(
        "max_parallel_workers_per_gather",
        "2; warehouse: min(C / 2, 8)",
        "each worker multiplies work_mem",
        _per_gather,
        cap="8",
    ),
    Rule(
        "max_worker_processes",
        "max(present, 8, C + workers of extensions)",
        "never lowered: a standby must have at least as many",
        _worker_processes,
    ),
    Rule("jit", "off for oltp", "PostgreSQL documentation, 'When to JIT?'", _jit),
    Rule(
        "io_method",
        "worker stays",
        "io_uring is blocked in many containers and missing in many builds",
        _io_method,
        is_planned=False,
    ),
)
