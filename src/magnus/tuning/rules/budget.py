"""The memory budget: how much each part of the server may take so that the worst case stays below the limit; pure.

Formulas, with M the limit, N the sessions, all in bytes:

    reserve R            = clamp(M / 10, 512 MB, 8 GB)                    the system and its page cache
    shared_buffers       = M / 4, 15 % of M under 1 GB
    maintenance_work_mem = min(M / 16, 1 GB)
    autovacuum_work_mem  = min(maintenance_work_mem, M / 20 / autovacuum_max_workers)
    W                    = M - shared memory - R - workers x autovacuum_work_mem - N x 8 MB
    work_mem             = clamp(W / (N x 4), 4 MB, cap of the profile)   4: two nodes x hash_mem_multiplier 2

When work_mem would fall below 4 MB, shared_buffers gives way down to 15 % of M. When that does not suffice either, the
sessions do not fit the machine: nothing that takes memory is raised, and `fitting_sessions` says how many would fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from magnus.tuning.facts import Profile
from magnus.tuning.units import GB, MB

if TYPE_CHECKING:
    from collections.abc import Mapping

    from magnus.tuning.facts import Facts, Server

SESSION: Final = 8 * MB
"""Private memory of a session apart from work_mem; 1 to 2 MB were measured on a small catalogue, 5 to 10 are usual."""
NODES: Final = 2
_LEAST_WORK_MEM: Final = 4 * MB
_WEEK: Final = 7 * 86_400
# Shared memory beside shared_buffers: 3 % for the descriptors of buffers, the rest by what `postgres -C
# shared_memory_size` says of 15 and 18 from 128 MB to 64 GB; a little more than those, never less.
_PER_BUFFER: Final = 1.031
_FIXED: Final = 24 * MB
_PER_CONNECTION: Final = MB // 10
_MOST_WORK_MEM: Final[Mapping[Profile, int]] = MappingProxyType({
    Profile.OLTP: 64 * MB,
    Profile.MIXED: 64 * MB,
    Profile.WAREHOUSE: 256 * MB,
})


@dataclass(frozen=True, slots=True)
class Demand:
    """
    The settings that take memory: the values that a worst case is computed from.

    `autovacuum_work_mem` is what a worker really takes: maintenance_work_mem when that setting is -1.
    """

    shared_buffers: float
    work_mem: float
    autovacuum_work_mem: float


@dataclass(frozen=True, slots=True)
class Budget:
    """
    The right values for one server, and the worst cases before and after.

    Attributes:
        sessions: N, and where it comes from.
        fits: Whether the sessions fit; else `values` holds what is there now, or less.
        fitting_sessions: The most sessions that would fit.
        shared_rest: Shared memory beside the buffers, as measured beyond the estimate.
    """

    limit: int
    reserve: int
    sessions: int
    sessions_source: str
    workers: int
    hash_multiplier: float
    max_connections: int
    shared_rest: int
    now: Demand
    values: Demand
    maintenance_work_mem: int
    effective_cache_size: int
    fits: bool
    fitting_sessions: int

    def shared(self, shared_buffers: float) -> int:
        """
        Return the whole shared memory that the server would take.
        """
        fixed = _FIXED + self.max_connections * _PER_CONNECTION + self.shared_rest
        return int(shared_buffers * _PER_BUFFER) + fixed

    def terms(self, demand: Demand) -> tuple[tuple[str, int], ...]:
        """
        Return the worst case term by term, without what is kept free for the system.
        """
        nodes = NODES * self.hash_multiplier
        return (
            ("shared memory", self.shared(demand.shared_buffers)),
            (f"{self.sessions} sessions x 8 MB", self.sessions * SESSION),
            (
                f"{self.sessions} sessions x {NODES} nodes x hash_mem_multiplier {self.hash_multiplier:g} x work_mem",
                int(self.sessions * nodes * demand.work_mem),
            ),
            (f"{self.workers} autovacuum workers", int(self.workers * demand.autovacuum_work_mem)),
        )

    def need(self, demand: Demand) -> int:
        """
        Return the worst case, without what is kept free for the system.
        """
        return sum(size for _, size in self.terms(demand))


def budget_of(facts: Facts) -> Budget | None:
    """
    Compute the budget. None: the memory that the server may use is not known.
    """
    host, server = facts.host, facts.server
    if host is None or host.memory is None or host.memory <= 0:
        return None
    return _Computation(facts, host.memory, server).result()


def sessions_of(facts: Facts) -> tuple[int, str]:
    """
    Return N, the sessions to count with, and where it comes from.
    """
    most = max(1, int(facts.server.amount("max_connections") or 100))
    pooler = facts.pooler
    if pooler is not None and pooler.limit is not None and pooler.limit < most:
        return max(1, pooler.limit), f"{pooler.kind} opens at most {pooler.limit}"
    return most, "max_connections"


class _Computation:
    """
    One budget in the making; every method is a line of the module's table.
    """

    def __init__(self, facts: Facts, limit: int, server: Server) -> None:
        self.facts = facts
        self.server = server
        self.limit = limit
        self.reserve = min(max(limit // 10, 512 * MB), 8 * GB)
        self.sessions, self.source = sessions_of(facts)
        self.workers = max(1, int(server.amount("autovacuum_max_workers") or 3))
        self.multiplier = server.amount("hash_mem_multiplier") or 2.0
        self.max_connections = int(server.amount("max_connections") or 100)
        self.now = _demand_now(server)
        self.shared_rest = self._shared_rest()
        self.maintenance = min(self.limit // 16, GB)
        if self._is_fixed("autovacuum_work_mem") and (server.amount("autovacuum_work_mem") or -1) < 0:
            # Every worker takes maintenance_work_mem, and nothing can be done about that: it is not raised.
            self.maintenance = min(self.maintenance, int(self.now.autovacuum_work_mem))
        self.cap = _MOST_WORK_MEM[facts.workload.profile]
        if facts.workload.profile is Profile.WAREHOUSE and self.limit >= 64 * GB:
            self.cap = GB

    def result(self) -> Budget:
        values = self._values()
        fits = values is not None
        kept = values or self._not_above_now()
        return self._budget(kept, fits=fits)

    def _budget(self, values: Demand, *, fits: bool) -> Budget:
        cache = min(self.limit * 3 // 4, self.limit - self.reserve - self.sessions * SESSION)
        return Budget(
            limit=self.limit,
            reserve=self.reserve,
            sessions=self.sessions,
            sessions_source=self.source,
            workers=self.workers,
            hash_multiplier=self.multiplier,
            max_connections=self.max_connections,
            shared_rest=self.shared_rest,
            now=self.now,
            values=values,
            maintenance_work_mem=self.maintenance,
            effective_cache_size=int(max(_whole(cache), values.shared_buffers)),
            fits=fits,
            fitting_sessions=self._fitting_sessions(),
        )

    def _values(self) -> Demand | None:
        """
        The values of the table; None when not even the least of them fits.
        """
        autovacuum = self._autovacuum()
        wanted, least = self._shared_buffers()
        room = self._room(wanted, autovacuum)
        if room < self._least_need():
            missing = self._least_need() - room
            wanted = max(_whole(wanted - missing / _PER_BUFFER), least)
            room = self._room(wanted, autovacuum)
        if room < self._least_need():
            return None
        return Demand(wanted, self._work_mem(room), autovacuum)

    def _work_mem(self, room: float) -> float:
        """
        Rounded to a whole megabyte, upwards too where that costs the reserve less than a twentieth.
        """
        now = self.now.work_mem
        if self._is_fixed("work_mem"):  # `room` was found to be enough
            return now
        share = self.sessions * NODES * self.multiplier
        exact = min(max(room / share, _LEAST_WORK_MEM), self.cap)
        rounded = round(exact / MB) * MB
        if rounded > exact and (rounded - exact) * share > self.reserve / 20:
            rounded = _whole(exact)
        rounded = max(rounded, _LEAST_WORK_MEM)
        # What is already higher and has room is left alone.
        return now if rounded < now and now * share <= room else rounded

    def _shared_buffers(self) -> tuple[float, float]:
        """
        The wanted value, and the least that would do.
        """
        now, limit = self.now.shared_buffers, self.limit
        if self._is_fixed("shared_buffers"):
            return now, now
        least = _whole(limit * 0.15)
        wanted: float = _whole(limit * 0.25) if limit >= GB else least
        size, age = self.server.data_size, self.server.stats_age
        if size is not None and age is not None and age >= _WEEK:  # a young database has yet to grow
            wanted = max(min(wanted, _whole(size * 1.2)), min(wanted, 128 * MB))
        if wanted * 0.95 < now <= limit * 0.4:
            wanted = now
        return wanted, min(least, wanted)

    def _autovacuum(self) -> float:
        if self._is_fixed("autovacuum_work_mem"):
            return self.now.autovacuum_work_mem
        return max(_whole(min(self.maintenance, self.limit / 20 / self.workers)), MB)

    def _not_above_now(self) -> Demand:
        """
        What is there now, less where it is more than the table allows.
        """
        now = self.now
        buffers: float = now.shared_buffers
        if buffers > self.limit * 0.4 and not self._is_fixed("shared_buffers"):
            buffers = max(_whole(self.limit * 0.25), 16 * MB)
        work_mem = now.work_mem if self._is_fixed("work_mem") else min(now.work_mem, _LEAST_WORK_MEM)
        autovacuum = min(now.autovacuum_work_mem, self._autovacuum())
        return Demand(min(buffers, now.shared_buffers), work_mem, autovacuum)

    def _room(self, shared_buffers: float, autovacuum: float) -> float:
        fixed = _FIXED + self.max_connections * _PER_CONNECTION + self.shared_rest
        shared = shared_buffers * _PER_BUFFER + fixed
        return self.limit - shared - self.reserve - self.workers * autovacuum - self.sessions * SESSION

    def _least_need(self) -> float:
        least = self.now.work_mem if self._is_fixed("work_mem") else _LEAST_WORK_MEM
        return self.sessions * NODES * self.multiplier * least

    def _fitting_sessions(self) -> int:
        least = self._shared_buffers()[1]
        room = self._room(least, self._autovacuum()) + self.sessions * SESSION
        each = SESSION + self._least_need() / self.sessions
        return max(0, int(room / each))

    def _shared_rest(self) -> int:
        measured = self.server.shared_memory_size
        if measured is None:
            return 0
        usual = self.now.shared_buffers * _PER_BUFFER + _FIXED + self.max_connections * _PER_CONNECTION
        return max(0, int(measured - usual))

    def _is_fixed(self, name: str) -> bool:
        setting = self.server.settings.get(name)
        return setting is None or setting.is_outranked or setting.source in {"database", "user", "database user"}


def _demand_now(server: Server) -> Demand:
    maintenance = server.amount("maintenance_work_mem") or 64 * MB
    autovacuum = server.amount("autovacuum_work_mem")
    return Demand(
        shared_buffers=server.amount("shared_buffers") or 128 * MB,
        work_mem=server.amount("work_mem") or _LEAST_WORK_MEM,
        autovacuum_work_mem=maintenance if autovacuum is None or autovacuum < 0 else autovacuum,
    )


def _whole(size: float) -> int:
    """
    Whole megabytes, not above.
    """
    return int(size // MB) * MB
