"""One standby: a pool, and a connection beside it on which it says how far it has come; not who is to read there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from magnus import _driver
from magnus._beside import open_beside
from magnus._execution import Execution
from magnus._routing import Position, Primary, Standing
from magnus._statements import Statements
from magnus._whereabouts import ANSWER
from magnus.observe import ReplicaLost, ReplicaReady
from magnus.pool import Pool
from magnus.retry import Retrier, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from magnus._clock import Clock
    from magnus._driver import Connection
    from magnus._terms import Terms
    from magnus.config import DatabaseConfig
    from magnus.lanes import QueryPriority
    from magnus.observe import Event

_SMOOTH: Final = 0.2
_STANDING: Final = """
SELECT pg_catalog.pg_is_in_recovery() AS is_standby,
       (pg_catalog.pg_last_wal_replay_lsn() - '0/0'::pg_catalog.pg_lsn)::pg_catalog.int8 AS lsn,
       greatest((SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()),
                (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()),
                (SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver)) AS timeline,
       extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp())::float8 AS age
"""


class Replica:
    """
    One standby: a pool, and a connection beside it on which it says how far it has come.

    Attributes:
        standing: What it last said; None while it is not to be asked.
        reader: Runs statements on it.
    """

    def __init__(
        self, config: DatabaseConfig, terms: Callable[[], Terms], notify: Callable[[Event], None], clock: Clock
    ) -> None:
        self.config = config
        self.standing: Standing | None = None
        self.pool: Pool | None = None
        self.reads = self.failed = self.busy = 0
        self._terms = terms
        self._notify = notify
        self._clock = clock
        self._latency = 0.001
        self._con: Connection | None = None
        self._is_told = False
        self.reader = self._make_reader()

    @property
    def name(self) -> str:
        return self.config.safe_dsn

    def _make_reader(self) -> Statements:
        retrier = Retrier(RetryPolicy(1, 0.0, 1.0), notify=self._notify, clock=self._clock)
        return Statements(self._terms(), retrier, self._take, self._open_pool)

    def _open_pool(self) -> Pool:
        if self.pool is None:
            raise _driver.PoolClosed("the replica is away")
        return self.pool

    async def _take(self, lane: QueryPriority, deadline: float, *, is_named: bool) -> Execution:
        terms = self._terms()
        wanted = terms.reading[lane].server
        lease = await self._open_pool().acquire(lane, deadline, is_named=is_named, wanted=wanted)
        return Execution(self._open_pool(), lease, terms)

    async def lend(self, lane: QueryPriority, deadline: float, *, is_named: bool) -> Execution:
        """
        Take a lease for user code, which is watched.
        """
        pool = self._open_pool()
        lease = await pool.acquire(lane, deadline, is_named=is_named, wanted=self._terms().limits[lane].server)
        pool.hold(lease, inside=2)
        return Execution(pool, lease, self._terms())

    async def look(self) -> None:
        """
        Ask how far it has come. When it does not say, it is passed over, and whoever waits for it is released.
        """
        try:
            async with asyncio.timeout(None if self._con is None else ANSWER):
                if self._con is None or self._con.is_closed():
                    self._con = await open_beside(self.config, _driver.driver_connect, "replica")
                asked_at = self._clock.now()
                row = await self._con.fetchrow(_STANDING)
        except Exception as error:  # noqa: BLE001  # whatever it is, it does not answer
            self._lose(type(error).__name__)
            return
        if row is None or not row["is_standby"]:
            self._pass_over("promoted")
            return
        now = self._clock.now()
        self._latency += _SMOOTH * (now - asked_at - self._latency)
        if self.pool is None:
            self.pool = Pool(self.config, notify=self._notify, clock=self._clock)
            await self.pool.open()
            self.reader = self._make_reader()
        position = Position(row["timeline"], row["lsn"])
        self.standing = Standing(position, row["age"], asked_at, self._latency)
        if not self._is_told:
            self._is_told = True
            self._notify(ReplicaReady(self.name))

    def suspect(self) -> None:
        """
        Pass it over until it has said again how far it has come: a read failed there.
        """
        self.failed += 1
        self.standing = None

    def _pass_over(self, reason: str) -> None:
        self.standing = None
        if self._is_told:
            self._is_told = False
            self._notify(ReplicaLost(self.name, reason))

    def _lose(self, reason: str) -> None:
        self._pass_over(reason)
        con, self._con = self._con, None
        if con is not None:
            con.terminate()
        pool, self.pool = self.pool, None
        if pool is not None:
            pool.terminate()  # reads under way fail at once, and are asked of the primary

    def disowned(self) -> Connection | None:
        """
        Pass it over for ever, in a child process; return the connection that is the parent's.
        """
        con, self._con, self.standing = self._con, None, None
        return con

    async def close(self) -> None:
        """
        Let go of everything.
        """
        self.standing = None
        con, self._con = self._con, None
        if con is not None:
            con.terminate()
        pool, self.pool = self.pool, None
        if pool is not None:
            await pool.close(0.0)

    def figures(self, primary: Primary | None) -> dict[str, Any]:
        """
        Return its figures, ready for JSON.
        """
        found = self.standing
        behind = None if found is None or primary is None else max(primary.position.lsn - found.replayed.lsn, 0)
        return {
            "target": self.name,
            "usable": found is not None,
            "behind_bytes": behind,
            "latency_ms": round(self._latency * 1000, 3),
            "reads": self.reads,
            "failed": self.failed,
        }
