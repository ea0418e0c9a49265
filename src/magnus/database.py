"""The facade that a service holds: pool, limits, retries, transactions, health and figures behind one object.

It decides nothing itself: lanes and slots are the pool's, limits the session's, repeats the retry policy's.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self
from weakref import WeakKeyDictionary

from magnus import lanes
from magnus._backoff import Budget
from magnus._beside import Questions, Turn
from magnus._clock import MonotonicClock
from magnus._console import Console
from magnus._control import INCURABLE, Control, ProbeState
from magnus._driver import PoolClosed
from magnus._execution import Execution
from magnus._figures import Distributions, QueryStats, pool_figures
from magnus._fleet import Fleet
from magnus._learning import Learner
from magnus._pooled import PooledExecution, look, terms_behind
from magnus._pooler import advice, misjudged
from magnus._terms import Terms
from magnus._units import GIVE_BACK, Units
from magnus.cache import KeyedExecution, QueryCache, checks_of, is_loading, loading
from magnus.cache import Watcher as CacheWatcher
from magnus.config import DatabaseConfig
from magnus.connection import Acquisition, Connection
from magnus.errors import ConfigError, ConnectError
from magnus.observe import ConnectRecovered, GuardsMissing, PoolerMisjudged, PoolWarmed, WarmupFailed
from magnus.pool import Pool, watch_forks
from magnus.replicas import NotedExecution, Replicas
from magnus.retry import Retrier, RetryPolicy
from magnus.session import TransactionMode, checked, window
from magnus.slowlog import SlowLog
from magnus.transaction import Transaction, around, on_lease

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
    from types import TracebackType

    import asyncpg

    from magnus._clock import Clock
    from magnus.lanes import QueryPriority
    from magnus.observe import Ended, Event, Observer, Watcher

__all__ = ["Database", "ProbeState", "get_database", "set_database"]

_CLOCK: Final = MonotonicClock()
_READING_LIMIT: Final = 2.0


class Database(Units):
    """
    One database: `async with Database(config) as db`, or `connect` and `close`.

    It holds a pool, never a connection, so any number of tasks may share it. Every method that takes `priority` works
    in that lane, else in the lane of the enclosing scope, else NORMAL; a scope can only lower. `timeout` (seconds) is
    for all of a call: waiting for a connection, the statement, its rows; without it the lane's limit holds, and the
    deadline of an enclosing scope always does.

    Raises (every method that works on the server):
        QueryTimeout: the limit was reached while the statement ran.
        PoolTimeout: it was reached while waiting for a connection.
        NestedAcquire: the task holds a connection already, and waiting for another would never end.
        Overloaded: too many wait in the lane already.
        WrongProcess, WrongLoop: it was connected before a fork, or on another event loop.
        PoolClosed: the database is not connected, or is draining.
        asyncpg.PostgresError: the server refused; the driver's own exception.

    Cancelled, a statement is cancelled on the server too and its connection goes back; a COMMIT under way is not
    cancelled (see `Transaction`).
    """

    def __init__(
        self, config: DatabaseConfig, *, observers: Sequence[Observer] = (), replicas: Sequence[str] | None = None
    ) -> None:
        """
        Set up, and connect to nothing. `replicas`, when given, are in place of those of `config`.

        Raises:
            ConfigError: a replica's connection string is impossible.
        """
        self._config = config = config if replicas is None else config.replace(replicas=tuple(replicas))
        self._observers = tuple(observers)
        self._watchers: tuple[Watcher, ...] = ()
        self._reported: list[object] = []
        self._pool: Pool | None = None
        self._control: Control | None = None
        self._is_draining = False
        self._has_served = False
        self._stats = QueryStats(config.slow_query_threshold)
        self._clock: Clock = _CLOCK
        self._turn = turn = Turn()
        self._slow_log: SlowLog | None = None
        if config.slow_log != "off":
            self._slow_log = SlowLog(config, notify=self._notify, clock=self._clock, turn=turn)
        self._questions = Questions(config, "catalogue", turn=turn)
        self._fleet: Fleet | None = None
        # Behind a pooler there is no session to reset, so nothing need be known of what statements leave there.
        is_smart = config.reset == "smart" and not config.is_pooled
        self._learner = Learner(self._questions.ask) if is_smart else None
        self._execution: type[Execution] = PooledExecution if config.is_pooled else Execution
        self._console = Console(config) if config.is_pooled else None
        self._is_looked_at = False
        self._looking: asyncio.Task[None] | None = None
        self._cache = QueryCache(config.cache_bytes, now=self._clock.now, is_writing=self._is_writing)
        if config.cache_notify:
            self._cache.watcher = CacheWatcher(
                config, changed=self._cache.changed, lost=self._cache.clear, clock=self._clock
            )
        super().__init__(
            Terms.of(
                config,
                stats=self._stats,
                notify=self._notify,
                clock=self._clock,
                make_transaction=on_lease,
                knowledge=None if self._learner is None else self._learner.knowledge,
                slow=None if self._slow_log is None else self._slow_log.saw,
                committed=self._cache.committed,
                watched=self._ended,
            ),
            Retrier(RetryPolicy.of(config), notify=self._notify, clock=self._clock, budget=self._may_repeat),
            self._take,
            self._open_pool,
            self._lend,
        )
        self._budget = Budget()
        self._replicas: Replicas | None = None
        if config.replicas:
            self._replicas = found = Replicas(config, lambda: self._terms, self._notify, self._clock)
            found.must_be_primary = is_loading  # what is kept for others must be as new as the primary is
            # On this object alone, so that a database without standbys does not even ask whether it has any.
            self._one = partial(found.one, self._one)  # type: ignore[method-assign]
            self._long = partial(found.written, self._long)  # type: ignore[method-assign]
            self._begin_once = partial(found.begin, self._begin_once)  # type: ignore[method-assign]
        self._gate = asyncio.Lock()

    def __repr__(self) -> str:
        state = "draining" if self._is_draining else "connected" if self.is_connected else "not connected"
        return f"<magnus.Database {self._config.safe_dsn} {state}>"

    # --- life

    @property
    def config(self) -> DatabaseConfig:
        return self._config

    @property
    def is_connected(self) -> bool:
        """
        Whether `connect` has returned and `close` has not; the server may be away all the same, see `health`.
        """
        return self._pool is not None

    @property
    def is_draining(self) -> bool:
        """
        Whether `close` was called: work under way is finished, no new work is taken.
        """
        return self._is_draining

    async def connect(self, *, wait: bool = True) -> None:
        """
        Open the control connection, start the pool and open `min_pool_size` connections. Does nothing when connected.

        With `wait=False` an unreachable server is no error: the pool goes on trying, callers wait within their limits,
        and `health` says how it stands. That is for services whose readiness reports it.

        Raises:
            ConnectError: the server cannot be reached; whatever `wait` is, when it refused the user or the database.
            ConfigError: the target cannot be read, or `pooler` is not what stands between.
        """
        async with self._gate:
            if self._pool is None:
                await self._open(wait=wait)

    async def _open(self, *, wait: bool) -> None:
        pool = Pool(self._config, notify=self._heard, clock=self._clock)
        pool.tap(self._took if self._watchers else None)
        self._turn.reset()
        fleet = self._fleet_of(pool)
        control = Control(
            self._config,
            notify=self._notify,
            clock=self._clock,
            snapshot=pool.snapshot,
            refused=pool.refused,
            purpose=str if fleet is None else fleet.purpose,
            look=None if fleet is None else fleet.read,
        )
        is_open = False
        try:
            is_up = await control.check()
            error = control.last_error
            if not is_up and error is not None and (wait or error.reason in INCURABLE):
                raise error
            if is_up:
                await self._look(control)
                await control.look_around()
            await pool.open()
            if is_up:
                await pool.warmup(self._config.min_pool_size)
            is_open = True
        finally:
            if not is_open:
                await control.close()
                await pool.close(0.0)
        self._pool, self._control, self._fleet = pool, control, fleet
        self._is_draining = self._has_served = False
        control.start()
        if self._console is not None:
            watch_forks(self._console)
            self._console.start()
        if self._replicas is not None:
            watch_forks(self._replicas)
            await self._replicas.open()
        if self._slow_log is not None:
            watch_forks(self._slow_log)
            self._slow_log.start()
        if self._learner is not None:
            self._learner.knowledge.doubted()  # whatever was known is from before
            watch_forks(self._learner)
            watch_forks(self._questions)
            self._learner.start()
        self._cache.open()

    def _fleet_of(self, pool: Pool) -> Fleet | None:
        """
        Return what sees the other instances; None where the control connection is a pooler's, on any of its sessions.
        """
        if self._config.is_pooled and not self._config.direct_dsn:
            return None
        fleet = Fleet(self._config, notify=self._notify, clock=self._clock, size=lambda: pool.sizes, limit=pool.limit)
        if fleet.is_sharing:
            pool.limit(1)  # until the share is known
        return fleet

    async def _look(self, control: Control) -> None:
        """
        Find out whether `pooler` is what stands between, and under which limits statements begin there.

        Raises:
            ConfigError: it is not.
            ConnectError: the pooler cannot be reached.
        """
        config = self._config
        if not config.is_pooled and await control.has_own_session():
            self._is_looked_at = True
            return
        sight = await look(config)
        wrong = misjudged(config.pooler, sight)
        if wrong is not None:
            raise wrong
        self._is_looked_at = True
        if config.is_pooled:
            self._terms = terms_behind(self._terms, config, sight.statement_timeout)
            missing = advice(config, sight)
            if missing is not None:
                self._notify(GuardsMissing(missing))

    async def _look_late(self, control: Control) -> None:
        try:
            await self._look(control)
        except ConfigError as error:
            self._notify(PoolerMisjudged(str(error)))
        except ConnectError:
            self._is_looked_at = False  # at the next recovery

    async def close(self, timeout: float = 10.0) -> None:
        """
        Drain: refuse new work at once, wait `timeout` seconds for work under way, end the rest. Harmless when closed.
        """
        pool, control = self._pool, self._control
        if pool is None or control is None:
            return
        self._is_draining = True
        if self._looking is not None:
            self._looking.cancel()
        try:
            await pool.close(timeout)
        finally:
            if self._learner is not None:
                await self._learner.close()  # first: what the log still writes may wait for its turn
            if self._slow_log is not None:
                await self._slow_log.close()
            if self._console is not None:
                await self._console.close()
            if self._replicas is not None:
                await self._replicas.close()
            await self._cache.close()
            pool.tap(None)  # what it did not tell yet is told
            self._pool = self._control = self._fleet = None
            await control.close()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def warmup_pool(self, target_connections: int = 10) -> int:
        """
        Open and prove connections until `target_connections` (at most `max_pool_size`) are ready; return how many are.

        With `reset="smart"` it also waits, two seconds at most, for the first reading of the catalogue: until then
        every lease is reset in full.

        A server that does not answer is no error: the event `database_warmup_failed` says it, else
        `database_pool_warmed`.

        Raises:
            ConfigError: the target is no whole number of at least 0.
            PoolClosed: the database is not connected.
        """
        if type(target_connections) is not int or target_connections < 0:
            raise ConfigError("target_connections", target_connections, "must be a whole number of at least 0")
        pool = self._open_pool()
        wanted = min(target_connections, pool.snapshot().max)
        ready = await pool.warmup(wanted)
        if ready and self._learner is not None:
            await self._learner.tried(_READING_LIMIT)
        if ready >= wanted:
            self._notify(PoolWarmed(connections=ready, pool_size=pool.snapshot().size))
        else:
            error = pool.last_connect_error or ConnectError("the connections were lost again", reason="unreachable")
            self._notify(WarmupFailed(ready, wanted, type(error).__name__, str(error)))
        return ready

    # --- operation

    def resize(self, min_size: int, max_size: int) -> None:
        """
        Put other pool sizes in force until it is closed; the lanes' caps follow.

        Connections above the new maximum are closed: idle ones now, the others when they come back.

        Raises:
            ConfigError: a size is impossible.
            PoolClosed: the database is not connected.
        """
        self._config.replace(min_pool_size=min_size, max_pool_size=max_size)
        self._open_pool().resize(min_size, max_size)

    async def pause(self, timeout: float = 10.0) -> bool:
        """
        Hand out no connection until `resume`, and wait `timeout` seconds for those that are out to come back.

        Callers queue meanwhile, within their limits. Returns whether nothing is out any more; when not, the database
        is paused all the same.

        Raises:
            PoolClosed: the database is not connected.
        """
        return await self._open_pool().pause(timeout)

    def resume(self) -> None:
        """
        Hand out connections again, to those who wait first. Harmless when not paused.

        Raises:
            PoolClosed: the database is not connected.
        """
        self._open_pool().resume()

    def expire(self, within: float = 0.0) -> None:
        """
        Replace all connections, after a change of credentials or of the server's address: at once, or spread over
        `within` seconds, each after its replacement is there. Leases are not disturbed.

        Raises:
            PoolClosed: the database is not connected.
        """
        self._open_pool().expire(within)

    # --- cached answers

    @property
    def cache(self) -> QueryCache:
        """
        What `cached` functions keep of this database.
        """
        return self._cache

    def invalidate(self, *tags: str) -> None:
        """
        Drop what `cached` functions keep under these tags, at once: after a write outside any transaction. Inside one
        it is `Transaction.invalidate`, which waits for COMMIT.
        """
        self._cache.invalidate(*tags)

    def _is_writing(self) -> bool:
        """
        Say whether the running code is inside a transaction that may write, begun by the layer or by hand.
        """
        ours = around(self._terms)
        return any(ours) or (self._pool is not None and self._pool.transactions_of_task() > len(ours))

    # --- connections and transactions

    def acquire(self, *, priority: QueryPriority | None = None, timeout: float | None = None) -> Acquisition:
        """
        Lease a connection: `async with db.acquire() as con`, or await it and `release` it.

        `timeout` is for the waiting only. Statements on the connection have the limit of its lane.
        """
        return Acquisition(partial(self._acquire, priority, None if timeout is None else checked(timeout)))

    async def release(self, connection: Connection) -> None:
        """
        Give a leased connection back; its session is reset. A second time does nothing.
        """
        await connection.give_back()

    def transaction(
        self,
        *,
        isolation: str | None = None,
        readonly: bool = False,
        deferrable: bool = False,
        priority: QueryPriority | None = None,
        timeout: float | None = None,
        settings: Mapping[str, str] | None = None,
        xid: bool = False,
    ) -> Transaction:
        """
        Return a transaction on a connection of its own: `async with db.transaction() as tx`.

        `timeout` is for the whole of it (without: `transaction_timeout`, or the lane's limit when that is larger);
        each statement has the lane's limit. `settings` are in force until it ends; "role" among them is the role that
        it runs as. BEGIN and settings go with the first statement and take no round trip. With `xid`
        the server is asked for the transaction's id before COMMIT, which takes one; `OutcomeUnknown` then carries it.
        The block runs once; see `run_in_transaction` for one that may run again.

        Raises:
            ConfigError: a name, a value or the isolation level is impossible.
        """
        mode = TransactionMode.of(isolation, readonly, deferrable, settings)
        limit = None if timeout is None else checked(timeout)
        return Transaction(partial(self._begin, mode, priority, limit), GIVE_BACK, wants_xid=xid)

    @asynccontextmanager
    async def cursor(
        self,
        query: str,
        *args: Any,
        prefetch: int | None = None,
        priority: QueryPriority | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[AsyncIterator[asyncpg.Record]]:
        """
        Iterate over a large result, `prefetch` rows a round trip, in a transaction of its own:
        `async with db.cursor(…) as rows: async for row in rows: …`.

        `timeout` is for the whole of it, as for `transaction`; each round trip has the lane's limit.
        """
        async with self.transaction(priority=priority, timeout=timeout) as transaction:
            yield aiter(transaction.cursor(query, *args, prefetch=prefetch))

    # --- standbys

    @contextmanager
    def reads_after(self, key: str | None = None, *, token: str | None = None) -> Iterator[None]:
        """
        Let reads inside see what was written inside, or anywhere under the same `key` in this process (an account's),
        and what `token` names; inside another such scope also what that must see. Without one a read sees all that was
        written by this process.

        A `token` that is none is ignored, with the event `database_read_token_ignored`; one of a place that nobody
        wrote sends reads to the primary. Without standbys every read sees everything.
        """
        if self._replicas is None:
            yield
        else:
            with self._replicas.scope(key, token):
                yield

    @contextmanager
    def reads_on_primary(self) -> Iterator[None]:
        """
        Let no standby answer what is read inside, whatever it has replayed: for whom a password, a token or a right may
        have been taken away a moment ago, by anybody. What is written inside is written for the scopes around it.
        """
        if self._replicas is None:
            yield
        else:
            with self._replicas.at_primary():
                yield

    async def read_token(self) -> str | None:
        """
        Return what a reader elsewhere must pass to `reads_after` to see what was written in this scope; None when
        nothing was, or nobody is behind.

        Raises:
            Exception: the primary does not say where it stands.
        """
        return None if self._replicas is None else await self._replicas.token()

    # --- health and figures

    async def health_check(self) -> bool:
        """
        Ask the server for an answer on the control connection, bounded in time; False when there is none.
        """
        return self._control is not None and await self._control.check()

    @property
    def health(self) -> ProbeState:
        """
        What the probes found so far; nothing is sent.
        """
        if self._pool is None or self._control is None:
            return ProbeState(is_ok=False, last_ok=None, failures=0, is_warm=False, no_handoff_since=None)
        pool, verdicts = self._pool.snapshot(), self._control.verdicts
        self._has_served = self._has_served or pool.idle + pool.acquired >= min(1, pool.min)
        return ProbeState(
            is_ok=verdicts.is_ok,
            last_ok=verdicts.last_ok,
            failures=verdicts.failures,
            is_warm=self._has_served,
            no_handoff_since=pool.is_full_since,
            cause=verdicts.cause,
            failed_total=verdicts.failed_total,
            connect_failing_since=pool.failing_since,
        )

    def get_stats(self) -> dict[str, Any]:
        """
        Return all figures as a plain dict, ready for JSON: `query_stats`, `pool_stats`; `prepared_statements` while
        connected, `slow_log` where it is on, `cache` once a cached function was called, `replicas` and `pooler` where
        there are some.
        """
        pool = None if self._pool is None else self._pool.snapshot()
        is_connected = self._pool is not None and self._control is not None and self._control.verdicts.is_ok
        found = {
            "query_stats": {**self._stats.snapshot(), **self._retrier.figures()},
            "pool_stats": pool_figures(pool, is_connected=is_connected, max_size=self._config.max_pool_size),
        }
        fleet = None if self._fleet is None else self._fleet.figures()
        if fleet is not None:
            found["fleet"] = fleet
        if self._replicas is not None:
            found["replicas"] = self._replicas.figures()
        if self._console is not None:
            found["pooler"] = self._console.figures()
        if self._pool is not None and not self._config.is_pooled:  # behind a pooler none are kept
            found["prepared_statements"] = self._pool.statements()
        if self._slow_log is not None:
            found["slow_log"] = self._slow_log.snapshot()
        cache = self._cache.snapshot()
        return found if cache is None else {**found, "cache": cache}

    def distributions(self, bounds: Sequence[float]) -> Distributions:
        """
        Return how long statements, waits for a connection, its use and its opening took, since the start.

        `bounds` are ascending seconds; each count is of durations up to its bound.
        """
        pool, statements = self._pool, self._stats.durations(bounds)
        if pool is None:
            return Distributions(statements, {}, {}, None)
        return Distributions(statements, pool.waits(bounds), pool.uses(bounds), pool.connects(bounds))

    def add_observer(self, observer: Observer) -> None:
        """
        Tell `observer` of every event from now on.
        """
        self._observers = (*self._observers, observer)

    def remove_observer(self, observer: Observer) -> None:
        """
        Tell `observer` no more. An unknown one is ignored.
        """
        self._observers = tuple(other for other in self._observers if other != observer)
        self._reported = [other for other in self._reported if other != observer]

    def watch(self, watcher: Watcher) -> None:
        """
        Tell `watcher` of every statement and lease from now on. Without one nothing is paid for that.
        """
        self._set_watchers(*self._watchers, watcher)

    def unwatch(self, watcher: Watcher) -> None:
        """
        Tell `watcher` no more. An unknown one is ignored.
        """
        self._set_watchers(*(other for other in self._watchers if other is not watcher))

    def _set_watchers(self, *watchers: Watcher) -> None:
        self._watchers = watchers
        self._stats.watch(is_watched=bool(watchers))
        if self._pool is not None:
            self._pool.tap(self._took if watchers else None)

    def _ended(self, statement: Ended) -> None:
        for watcher in self._watchers:
            try:
                watcher.ended(statement)
            except Exception as error:  # noqa: BLE001  # as an observer's
                self._report(watcher, "a statement", error)

    def _took(self, what: str, lane: QueryPriority | None, seconds: list[float]) -> None:
        for watcher in self._watchers:
            try:
                watcher.took(what, lane, seconds)
            except Exception as error:  # noqa: BLE001  # as an observer's
                self._report(watcher, what, error)

    def _notify(self, event: Event) -> None:
        for observer in self._observers:
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001  # whatever it raises must not disturb what it observes
                self._report(observer, event.name, error)

    def _heard(self, event: Event) -> None:
        """
        Tell an event of the pool's; when it found the server again, the control connection need not wait.
        """
        if isinstance(event, ConnectRecovered) and self._control is not None:
            self._control.wake()
            if not self._is_looked_at:
                self._is_looked_at = True
                self._looking = asyncio.get_running_loop().create_task(self._look_late(self._control))
        self._notify(event)

    def _report(self, observer: object, what: str, error: Exception) -> None:
        if observer not in self._reported:
            self._reported.append(observer)
            message = f"an observer failed on {what}; further failures of it are not reported"
            asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})

    def _may_repeat(self, now: float) -> bool:
        units = self._stats.successful + self._stats.failed
        size = self._config.max_pool_size if self._pool is None else self._pool.snapshot().max
        return self._budget.take(now, units=units, size=size)

    # --- leases

    def _open_pool(self) -> Pool:
        if self._pool is None:
            raise PoolClosed("the database is not connected")
        return self._pool

    async def _take(self, lane: QueryPriority, deadline: float, *, is_named: bool) -> Execution:
        pool = self._open_pool()
        wanted = self._terms.limits[lane].server
        lease = await pool.acquire(lane, deadline, is_named=is_named, wanted=wanted)
        return self._execution(pool, lease, self._terms)

    async def _lend(self, lane: QueryPriority, deadline: float, *, is_named: bool, inside: int = 2) -> Execution:
        """
        Take a lease for user code, which may keep it: it is watched. `inside`: see `Pool.hold`.
        """
        pool = self._open_pool()
        wanted = self._terms.limits[lane].server
        lease = await pool.acquire(lane, deadline, is_named=is_named, wanted=wanted)
        pool.hold(lease, inside)
        reading = loading.get()
        if reading is not None and not self._config.is_pooled:
            return KeyedExecution(pool, lease, self._terms, reading)
        if self._replicas is not None:
            return NotedExecution(pool, lease, self._terms, self._replicas.reader())
        execution = self._execution(pool, lease, self._terms)
        if reading is not None and isinstance(execution, PooledExecution):
            execution.checks = checks_of(reading)
        return execution

    async def _acquire(self, priority: QueryPriority | None, timeout: float | None) -> Connection:
        lane = lanes.resolve(priority)
        span = window(self._terms.limits[lane], timeout, now=self._clock.now())
        execution = await self._lend(lane, span.deadline, is_named=lanes.is_named(priority))
        execution.asked_at = span.started
        return Connection(execution)


# --- the process-wide database ---------------------------------------------------------------------------------------

_installed: WeakKeyDictionary[asyncio.AbstractEventLoop, Database] = WeakKeyDictionary()
_opening: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[Database]] = WeakKeyDictionary()


async def get_database() -> Database:
    """
    Return the database of this process and event loop: the one installed, else one from the environment, connected.

    A server that cannot be reached is no error here: `health` and readiness report it. Callers at the same time share
    one start; a start that failed is tried again by the next call.

    Raises:
        ConfigError: a variable of the environment is impossible.
        ConnectError: the server refused the user or the database.
    """
    loop = asyncio.get_running_loop()
    installed = _installed.get(loop)
    if installed is not None:
        return installed
    task = _opening.get(loop)
    if task is None:
        task = _opening[loop] = loop.create_task(_from_environ())
        task.add_done_callback(lambda _: _opening.pop(loop, None))
    return await asyncio.shield(task)


def set_database(database: Database | None) -> None:
    """
    Install what `get_database` returns on the running event loop; None takes it away. Neither connects nor closes.
    """
    loop = asyncio.get_running_loop()
    if database is None:
        _installed.pop(loop, None)
    else:
        _installed[loop] = database


async def _from_environ() -> Database:
    database = Database(DatabaseConfig.from_environ(os.environ))
    await database.connect(wait=False)
    set_database(database)
    return database
