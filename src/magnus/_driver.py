"""The one place that knows the driver: its errors as ours, one connection opened and proven, sockets; no policy.

Everything else asks here. Private names of the driver are used only where it has no public ones (the transport of a
connection, the hooks that drop caches), and a contract test holds them in place for each supported version.
"""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import asyncpg

from magnus._cork import Corked, Corking
from magnus._driver_fast import DOUBT, FastConnection
from magnus._effects import FULL_RESET
from magnus._hosts import STAGGER, NoHost, first_of
from magnus._hot import HotStatements
from magnus.errors import ConnectError, DatabaseError, OutcomeUnknown, PoolError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

    Connection = asyncpg.Connection[asyncpg.Record]
    Connect = Callable[..., Awaitable[Connection]]


class PoolClosed(PoolError, asyncpg.InterfaceError):
    """
    The pool is closed, or is closing and takes no new work.
    """


class AlreadyReleased(PoolError, asyncpg.InterfaceError):
    """
    A lease was released or discarded a second time; the second call changed nothing.
    """


class LeaseReclaimed(PoolError, asyncpg.InterfaceError):
    """
    The lease was silent for longer than `leak_limit`, so the pool took it back and terminated its connection.

    Attributes:
        held: Seconds from acquire to that moment.
        acquired_at: Where it was acquired, innermost first.
    """

    def __init__(self, *, held: float, acquired_at: tuple[str, ...]) -> None:
        super().__init__(
            f"the pool took this connection back after {held:.0f} s: nothing had run on it for longer than leak_limit "
            f"(acquired at {' < '.join(acquired_at) or 'an unknown place'})"
        )
        self.held = held
        self.acquired_at = acquired_at


class TransactionEnded(DatabaseError, asyncpg.InterfaceError):
    """
    A transaction was used after its end; nothing was sent.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, phase="ended")


# --- errors of a connect ---------------------------------------------------------------------------------------------

_BY_SQLSTATE: Final = {
    "28": "credentials", "3D000": "database", "55000": "database", "53300": "too_many",
    "57P03": "starting", "57P01": "unreachable", "57P02": "unreachable", "08": "unreachable",
}  # fmt: skip
_PHRASES: Final = {
    "unreachable": "the server cannot be reached",
    "credentials": "the server refused the user or the password",
    "database": "the database does not exist or takes no connections",
    "too_many": "the server has no connection slot left",
    "starting": "the server is starting up, shutting down or recovering",
    "tls": "the encrypted connection could not be agreed",
    "timeout": "the server did not answer in time",
    "read_only": "no server that takes writes was found",
    "pooler": 'a pooler stands between and refuses the settings of a session: set pooler="transaction" '
    "(MAGNUS_POOLER), or connect directly",
    "other": "the connection could not be set up",
}


def connect_error(error: BaseException) -> ConnectError:
    """
    Return why a connection could not be opened, in fixed words: never the text of `error`, which may hold a password.
    """
    sqlstate = next((code for found in chain(error) if (code := sqlstate_of(found))), None)
    reason = _connect_reason(error, sqlstate)
    message = _PHRASES[reason] if sqlstate is None else f"{_PHRASES[reason]} (SQLSTATE {sqlstate})"
    found = ConnectError(message, reason=reason, sqlstate=sqlstate)
    # The driver's complaint about a malformed DSN quotes it; every other one names hosts, users and databases at most.
    found.__cause__ = None if isinstance(error, ValueError) and not isinstance(error, OSError) else error
    return found


_PROTOCOL: Final = "08P01"
_STARTUP: Final = "unsupported startup parameter"  # PgBouncer's words, which it has in one language only


def _connect_reason(error: BaseException, sqlstate: str | None) -> str:
    if sqlstate == _PROTOCOL and any(_STARTUP in str(found) for found in chain(error)):
        return "pooler"
    if sqlstate is not None:
        return _BY_SQLSTATE.get(sqlstate) or _BY_SQLSTATE.get(sqlstate[:2], "other")
    causes = list(chain(error))
    if any(isinstance(found, asyncpg.TargetServerAttributeNotMatched) for found in causes):
        wanted = ("read-write", "primary")
        return "read_only" if any(word in str(found) for found in causes for word in wanted) else "other"
    if any(isinstance(found, ssl.SSLError) or "SSL" in str(found) for found in causes if isinstance(found, OSError)):
        return "tls"
    if any(isinstance(found, TimeoutError) for found in causes):
        return "timeout"
    return "unreachable" if any(isinstance(found, OSError) for found in causes) else "other"


# --- is the connection gone ------------------------------------------------------------------------------------------

_LOST: Final = frozenset({"08000", "08003", "08006", "08007", "57P01", "57P02", "57P05", "25P03", "25P04"})


def is_connection_lost(error: BaseException) -> bool:
    """
    Say whether an error means that its connection must not be used again.

    Causes and contexts are walked, because the server's own code hides behind the error of a context manager's exit.
    A False is no proof of life: ask `is_closed()` of the connection too.
    """
    return any(_says_lost(found) for found in chain(error))


def _says_lost(error: BaseException) -> bool:
    if sqlstate_of(error) in _LOST or isinstance(error, ConnectionError | asyncpg.InternalClientError):
        return True
    return isinstance(error, asyncpg.InterfaceError) and "connection is closed" in str(error)


def lost_track(error: asyncpg.InternalClientError) -> Exception:
    """
    Return what a confused driver's error means, as an error that callers have a rule for: the connection is gone.

    A backend that is terminated leaves the driver in any of several states, and of one it says only that it cannot go
    on, or that it did not expect what it read.
    """
    if is_unfit(error):
        return asyncpg.InterfaceError("connection is closed")  # the driver's words for it; nothing was sent
    return asyncpg.ConnectionDoesNotExistError("the connection was lost while it was in use")


def is_unfit(error: asyncpg.InternalClientError) -> bool:
    """
    Say whether the driver refused before it wrote a byte.
    """
    return str(error).startswith("cannot switch to state")


def sqlstate_of(error: BaseException) -> str | None:
    """
    Return the server's code that an error carries, None when it carries none.
    """
    return cast("str | None", getattr(error, "sqlstate", None))


def is_outdated_plan(error: BaseException) -> bool:
    """
    Say whether a statement failed only because it was prepared before a change of the schema. All connections fail so
    at once, and none a second time.
    """
    return isinstance(error, asyncpg.InvalidCachedStatementError)


def chain(error: BaseException) -> Iterator[BaseException]:
    """
    Walk an error, its causes and its contexts.
    """
    pending, seen = [error], set[int]()
    while pending:
        found = pending.pop()
        if id(found) not in seen:
            seen.add(id(found))
            yield found
            pending += [follow for follow in (found.__context__, found.__cause__) if follow is not None]


# --- one connection --------------------------------------------------------------------------------------------------


class PooledConnection(FastConnection):
    """
    The driver's connection, which shares cache drops with its siblings, resets what RESET ALL leaves behind, and does
    not call a write done that nobody but its server has.
    """

    __slots__ = ("siblings",)

    siblings: Callable[[], Iterable[Connection]]

    def _process_log_message(self, fields: Mapping[str, str], last_query: str) -> None:
        # The server gave up waiting for its standby and is about to report success. What is raised here fails the
        # operation under way, whether it is COMMIT or a statement that commits by itself.
        if fields.get("R") == _WAIT_FOR_STANDBY:
            raise OutcomeUnknown
        super()._process_log_message(fields, last_query)  # type: ignore[misc]  # the stubs leave it out

    def get_reset_query(self) -> str:
        """
        Return the driver's reset plus what it forgets: role and session user, temporary tables, sequence values.

        DISCARD ALL would do, and would also destroy the prepared statements that the driver believes to exist.
        """
        return FULL_RESET

    def _drop_global_statement_cache(self) -> None:
        self._on_all("_drop_local_statement_cache")

    def _drop_global_type_cache(self) -> None:
        self._on_all("_drop_local_type_cache")

    def _on_all(self, method: str) -> None:
        # After DDL the driver drops the caches of every connection of its own pool; this pool is told the same way.
        siblings = self.siblings() if hasattr(self, "siblings") else ()
        for con in {self, *siblings}:
            if not con.is_closed():
                getattr(con, method)()


class SharedConnection(PooledConnection):
    """
    A connection to a pooler in transaction mode: the session behind it is another one with each transaction.
    """

    __slots__ = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Else the driver switches jit off around its questions about types, and on again in somebody else's session.
        self._server_caps = self._server_caps._replace(jit=False)  # type: ignore[has-type]  # the stubs leave it out

    def get_reset_query(self) -> str:
        """
        Return nothing: it would reset whichever session is next.
        """
        return ""

    async def _introspect_types(self, typeoids: Iterable[int], timeout: float | None) -> Any:
        # Compiling the driver's question about types takes seconds on some servers, and answering it milliseconds.
        is_ours = not self.is_in_transaction()
        await self.execute("BEGIN; SET LOCAL jit TO off" if is_ours else "SET LOCAL jit TO off")
        try:
            return await super()._introspect_types(typeoids, timeout)  # type: ignore[misc]  # as above
        finally:
            if is_ours and not self.is_closed():
                await self.execute("COMMIT")


_WAIT_FOR_STANDBY: Final = "SyncRepWaitForLSN"  # where the server warns from; its words are translated, this is not


def begin_with_next(con: Connection, parts: tuple[str, ...]) -> bool:
    """
    Begin a transaction on a connection with its next statement: BEGIN and what is local to it, none of it answered with
    rows. False: this driver cannot, and nothing was done.
    """
    if type(getattr(con, "_transport", None)) is not Corked or not isinstance(con, PooledConnection):
        return False
    con.ahead = parts
    return True


def is_unbegun(con: Connection) -> bool:
    """
    Say whether the open transaction is one whose BEGIN was never sent, and forget that; there is nothing to end then.
    """
    ahead = getattr(con, "ahead", None)
    if ahead is not None:
        con.ahead = None  # type: ignore[attr-defined]  # it has one
    return ahead is not None and ahead is not DOUBT


def may_end(con: Connection) -> None:
    """
    Let COMMIT through whatever became of BEGIN: where none is open there is nothing to commit.
    """
    if getattr(con, "ahead", None) is DOUBT:
        con.ahead = None  # type: ignore[attr-defined]  # as above


def has_timer(con: Connection) -> bool:
    """
    Say whether the driver sets a timer of its own for a statement that is given none.
    """
    return not isinstance(con, PooledConnection) or con._config.command_timeout is not None  # type: ignore[attr-defined]  # noqa: SLF001


async def driver_connect(*, hosts: list[tuple[str, int | None]] | None = None, **arguments: Any) -> Connection:
    """
    Open one connection with the driver. `arguments` are those of `asyncpg.connect`.

    Of several `hosts` the first that is fit is taken, and is the first to be tried the next time.

    Raises:
        Exception: the driver's own; when no host was fit, that of the one whose failure says most.
    """
    if not hosts:
        return await _connect_to(arguments)
    wanted = arguments.pop("target_session_attrs", "any")
    try:
        if wanted == "prefer-standby":
            try:
                return await _connect_first(hosts, {**arguments, "target_session_attrs": "standby"})
            except NoHost:
                wanted = "any"
        return await _connect_first(hosts, {**arguments, "target_session_attrs": wanted})
    except NoHost as missing:
        raise min(missing.errors, key=_tells) from None


def connect_limit(timeout: float, arguments: Mapping[str, Any]) -> float:
    """
    Return the seconds that a connect may take in all: `timeout` for each host, the last of which begins last.
    """
    return timeout + STAGGER * max(len(arguments.get("hosts", ())) - 1, 0)


async def _connect_first(hosts: list[tuple[str, int | None]], arguments: dict[str, Any]) -> Connection:
    tries = [partial(_connect_to, {**arguments, "host": host, "port": port}) for host, port in hosts]
    place, con = await first_of(tries, is_final=_is_final, discard=_terminate)
    hosts.insert(0, hosts.pop(place))
    return con


async def _connect_to(asked: dict[str, Any]) -> Connection:
    arguments = dict(asked)
    kind = SharedConnection if arguments.pop("is_shared", False) else PooledConnection
    if kind is SharedConnection or not hasattr(kind, "ahead"):
        return await _connect_as(kind, arguments)
    loop = asyncio.get_running_loop()
    con = await _connect_as(kind, {"loop": Corking(loop), **arguments})
    if isinstance(con, PooledConnection):
        con._loop = loop  # type: ignore[attr-defined]  # noqa: SLF001  # by which the driver finds the running task
    return con


async def _connect_as(kind: type[PooledConnection], arguments: dict[str, Any]) -> Connection:
    try:
        return await asyncpg.connect(connection_class=kind, **arguments)
    except asyncpg.PostgresError as error:
        # Not every platform can watch a client's socket, and a pooler in between knows few settings.
        settings = arguments.get("server_settings") or {}
        if _CHECK not in settings or _CHECK not in str(error) or error.sqlstate not in _REFUSALS:
            raise
        del settings[_CHECK]  # for good: the settings are shared by all connects of a pool
    return await asyncpg.connect(connection_class=kind, **arguments)


_CHECK: Final = "client_connection_check_interval"
_REFUSALS: Final = frozenset({"22023", "42704", "08P01", "55P02"})
_MOST_TELLING: Final = (
    "credentials", "database", "pooler", "tls", "too_many", "starting", "read_only", "timeout", "unreachable", "other"
)  # fmt: skip


def _tells(error: Exception) -> int:
    return _MOST_TELLING.index(connect_error(error).reason)


def _is_final(error: Exception) -> bool:
    # Not a missing database: a standby that lags does not know one that the primary has had for a moment.
    return connect_error(error).reason in {"credentials", "pooler"}


def _terminate(con: Connection) -> None:
    con.terminate()


def note_release(con: Any) -> None:
    """
    End what was made on a connection during its lease (statements, cursors), and warn of listeners left on it.
    """
    con._on_release()  # noqa: SLF001  # the driver's own pool calls it, and nothing public does the same


async def end_lease(con: Any) -> None:
    """
    Drop listeners and roll back, as the driver does before any reset.
    """
    await con._reset()  # noqa: SLF001  # as above


def queries_count(con: Any) -> int:
    """
    Return how many queries a connection has run.
    """
    count: int = con._protocol.queries_count  # noqa: SLF001  # as above
    return count


_TYPES_IN_USE: Final = """
SELECT 'SELECT ' || string_agg(DISTINCT 'NULL::' || pg_catalog.format_type(t.oid, NULL), ', ')
  FROM pg_catalog.pg_attribute a
  JOIN pg_catalog.pg_class r ON r.oid = a.attrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
 WHERE t.oid >= 16384 AND t.typtype <> 'd' AND a.attnum > 0 AND NOT a.attisdropped
   AND r.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^(pg_|information_schema$)'
   AND pg_catalog.has_schema_privilege(t.typnamespace, 'USAGE') AND pg_catalog.has_type_privilege(t.oid, 'USAGE')
HAVING count(DISTINCT t.oid) <= 500
"""


class Opener:
    """
    Opens connections that are ready: types known, hot statements prepared, socket guarded, proven idle outside any
    transaction.

    `arguments` are the driver's, and are set before the first connection. The text that names the types in use is
    asked once and kept until `forget_types`.

    Attributes:
        hot: What each connection prepares.
    """

    def __init__(self, siblings: Callable[[], Iterable[Connection]], connect: Connect = driver_connect) -> None:
        self.arguments: dict[str, Any] = {}
        self.hot = HotStatements()
        self._siblings = siblings
        self._connect = connect
        self._types: str | None = None
        self._is_typed = False

    def forget_types(self) -> None:
        """
        Ask again for the types in use, after the schema may have changed.
        """
        self._is_typed = False

    async def open(self) -> Connection:
        """
        Open one connection. The caller bounds the time; cancelled or failed half-way, nothing stays open.

        Raises:
            Exception: whatever the driver raises; `connect_error` names it.
        """
        con = await self._connect(**self.arguments)
        is_ready = False
        try:
            if isinstance(con, PooledConnection):
                con.siblings = self._siblings
            guard_socket(con)
            await self._learn_types(con)
            await self.hot.prepare_on(con)
            # A simple query ends whatever introspection left open; the server's answer to it carries the state.
            await con.execute("SELECT 1")
            if con.is_in_transaction():
                raise ConnectError("a new connection is inside a transaction")
            is_ready = True
        finally:
            if not is_ready:
                con.terminate()
        return con

    async def _learn_types(self, con: Connection) -> None:
        # The driver asks the catalogue at the first sight of a type; here instead of inside a user's first query.
        if not self._is_typed:
            self._types = await con.fetchval(_TYPES_IN_USE)
            self._is_typed = True
        if self._types is not None:
            try:
                await con.prepare(self._types, name="")
            except asyncpg.PostgresError:
                if con.is_closed():
                    raise
                self._is_typed = False  # a type was dropped or renamed: the next connection asks again


def disown(con: Connection) -> None:
    """
    Make a connection inherited through a fork unusable, without a word to its server and without touching its socket.

    The event loop's selector is shared with the parent: even an orderly close would end the parent's connection, or
    make the parent deaf to it.
    """
    con._aborted = True  # type: ignore[attr-defined]  # noqa: SLF001  # the driver asks this before everything it does


def has_listeners(con: Connection) -> bool:
    """
    Say whether somebody listens on a connection, which is silent for as long as nobody notifies.
    """
    return bool(getattr(con, "_listeners", None))


def is_on_standby(con: Connection) -> bool:
    """
    Say whether the server of a connection last said that it is a standby (from version 14 on it says so by itself).
    """
    return not con.is_closed() and getattr(con.get_settings(), "in_hot_standby", "off") == "on"


def is_read_only_by_default(con: Connection) -> bool:
    """
    Say whether a session's transactions are read only unless they say otherwise (from 14 on the server says so itself).
    """
    return getattr(con.get_settings(), "default_transaction_read_only", "off") == "on"


# --- its socket ------------------------------------------------------------------------------------------------------

# A peer that vanished is noticed within about three seconds, in flight and idle. The driver sets none of these.
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 1), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 2000))


def guard_socket(con: Connection) -> None:
    """
    Switch on keepalive and the bound on unacknowledged data, where the connection has a TCP socket.
    """
    sock = _socket(con)
    if sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def arrival_probe(con: Connection) -> Callable[[], bool]:
    """
    Return a function that says whether unread bytes, or the end of the stream, wait in the kernel.

    An idle connection is silent. When it is not, the event loop has not yet seen why: most often the server's farewell.
    """
    sock = _socket(con)
    if sock is None or sys.platform == "win32":
        return bool
    poller = select.poll()
    poller.register(sock.fileno(), select.POLLIN | getattr(select, "POLLRDHUP", 0))
    return lambda: bool(poller.poll(0))


def _socket(con: Connection) -> socket.socket | None:
    transport = getattr(con, "_transport", None)
    return None if transport is None else transport.get_extra_info("socket")


def ends_of(con: Connection) -> tuple[str, int | None, int | None]:
    """
    Return where a connection ends: the other end's IP and port, and the own port. With a unix socket its folder, and
    None for both ports.
    """
    sock = _socket(con)
    name = None if sock is None else sock.getpeername()
    if sock is not None and isinstance(name, tuple):
        return str(name[0]), int(name[1]), int(sock.getsockname()[1])
    return (str(name).rpartition("/")[0] or "/" if name else ""), None, None
