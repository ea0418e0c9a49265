"""What users hold of a lease: the driver's Connection methods, each statement within its lane's limit."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

from magnus._cursors import CursorFactory, PreparedStatement
from magnus._rows import mapper
from magnus.session import TransactionMode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
    from types import TracebackType

    import asyncpg

    from magnus._execution import Execution
    from magnus.transaction import Transaction

T = TypeVar("T")


class Connection:
    """
    A leased connection. Its methods are those of `asyncpg.Connection`, with these differences.

    A statement without `timeout` has the limit of its lane; a deadline of the enclosing scope, or of the transaction,
    may end it earlier. `QueryTimeout` is raised at a limit; the server holds a limit of its own just above. `fetch`
    and `fetchrow` take `row=`. `transaction()` checks what COMMIT is answered with. What is not listed here (type
    codecs, listeners, settings) is passed to the driver.

    Raises:
        asyncpg.InterfaceError: the connection was released, by any method.
    """

    __slots__ = ("_execution",)

    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        execution = self._check(name)
        found = getattr(execution.raw, name)
        refused = None if execution.trace is None else execution.trace.touched(name)
        return found if refused is None else partial(_refuse, refused)

    def __repr__(self) -> str:
        if self._execution.is_released:
            return f"<magnus.{type(self).__name__} [released]>"
        return f"<magnus.{type(self).__name__} {self._execution.lane} of {self._execution.raw!r}>"

    def _check(self, name: str) -> Execution:
        """
        Return what runs statements, for a call of the method `name`.
        """
        execution = self._execution
        if not execution.is_usable():
            execution.check(name)
        return execution

    def _run(
        self, method: str, text: str, args: tuple[Any, ...], timeout: float | None, **options: Any
    ) -> Awaitable[Any]:
        execution = self._check(method)
        call, span = getattr(execution.raw, method), execution.window(timeout)
        if execution.session.present == span.server:
            return execution.run(call, text, args, span, options, span.started)
        return execution.run_settled(call, text, args, span, options)

    async def give_back(self) -> None:
        """
        Return the connection to its pool; a second time does nothing.
        """
        await self._execution.give_back()

    # --- queries

    @overload
    async def fetch(
        self, query: str, *args: Any, timeout: float | None = ..., record_class: type[asyncpg.Record] | None = ...
    ) -> list[asyncpg.Record]: ...
    @overload
    async def fetch(self, query: str, *args: Any, row: Callable[..., T], timeout: float | None = ...) -> list[T]: ...
    async def fetch(
        self,
        query: str,
        *args: Any,
        row: Callable[..., Any] | None = None,
        timeout: float | None = None,
        record_class: type[asyncpg.Record] | None = None,
    ) -> list[Any]:
        """
        Run a query and return its rows. `row` is what to make of each: a dataclass, a pydantic model, any callable.

        Raises:
            QueryTimeout: the limit was reached.
            asyncpg.PostgresError: the server refused.
        """
        found: list[Any] = await self._run("fetch", query, (query, *args), timeout, record_class=record_class)
        return found if row is None else list(map(mapper(row), found))

    @overload
    async def fetchrow(
        self, query: str, *args: Any, timeout: float | None = ..., record_class: type[asyncpg.Record] | None = ...
    ) -> asyncpg.Record | None: ...
    @overload
    async def fetchrow(
        self, query: str, *args: Any, row: Callable[..., T], timeout: float | None = ...
    ) -> T | None: ...
    async def fetchrow(
        self,
        query: str,
        *args: Any,
        row: Callable[..., Any] | None = None,
        timeout: float | None = None,
        record_class: type[asyncpg.Record] | None = None,
    ) -> Any:
        """
        Run a query and return its first row, None when there is none. `row` and errors as for `fetch`.
        """
        options = {} if record_class is None else {"record_class": record_class}
        found = await self._run("fetchrow", query, (query, *args), timeout, **options)
        return found if row is None or found is None else mapper(row)(found)

    async def fetchval(self, query: str, *args: Any, column: int | str = 0, timeout: float | None = None) -> Any:
        """
        Run a query and return one column of its first row, None when there is none.
        """
        if column == 0:
            return await self._run("fetchval", query, (query, *args), timeout)
        return await self._run("fetchval", query, (query, *args), timeout, column=column)

    async def fetchmany(
        self,
        query: str,
        args: Iterable[Sequence[Any]],
        *,
        timeout: float | None = None,
        record_class: type[asyncpg.Record] | None = None,
    ) -> list[asyncpg.Record]:
        """
        Run a query for each sequence of arguments, atomically, and return all rows.
        """
        found: list[asyncpg.Record] = await self._run(
            "fetchmany", query, (query, args), timeout, record_class=record_class
        )
        return found

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """
        Run a statement, or several when there are no arguments, and return the status of the last.
        """
        status: str = await self._run("execute", query, (query, *args), timeout)
        return status

    async def executemany(self, command: str, args: Iterable[Sequence[Any]], *, timeout: float | None = None) -> None:
        """
        Run a statement for each sequence of arguments, atomically.
        """
        await self._run("executemany", command, (command, args), timeout)

    async def prepare(
        self,
        query: str,
        *,
        name: str | None = None,
        timeout: float | None = None,
        record_class: type[asyncpg.Record] | None = None,
    ) -> PreparedStatement:
        """
        Prepare a statement that lives as long as the lease.
        """
        trace = self._check("prepare").trace
        if name is not None and trace is not None:
            refused = trace.touched("prepare")  # somebody else may choose the same name
            if refused is not None:
                raise refused
        raw = await self._run("prepare", query, (query,), timeout, name=name, record_class=record_class)
        if not self._execution.raw.is_in_transaction():
            # The driver ends its messages without a Sync, which leaves a transaction open with the tables locked.
            await self._execution.send("SELECT 1", query, self._execution.window(timeout))
        return PreparedStatement(self._check, raw, query)

    def cursor(
        self,
        query: str,
        *args: Any,
        prefetch: int | None = None,
        timeout: float | None = None,
        record_class: type[asyncpg.Record] | None = None,
    ) -> CursorFactory:
        """
        Return a cursor, to iterate over (`prefetch` rows at a time) or to await. It needs a transaction around it.

        The limit holds for each round trip, not for the whole.
        """
        raw = self._check("cursor").raw
        return CursorFactory(
            self._check,
            raw.cursor,
            query,
            (query, *args),
            prefetch=prefetch,
            timeout=timeout,
            record_class=record_class,
        )

    # --- COPY

    async def copy_records_to_table(
        self, table_name: str, *, records: Any, timeout: float | None = None, **options: Any
    ) -> str:
        """
        Copy rows (tuples, or an asynchronous iterable of them) into a table, in binary. `options` as the driver takes
        them: `columns`, `schema_name`, `where`.
        """
        where = options.get("where")
        text = f"COPY {table_name} FROM STDIN" + ("" if where is None else f" WHERE {where}")
        return str(await self._run("copy_records_to_table", text, (table_name,), timeout, records=records, **options))

    async def copy_to_table(self, table_name: str, *, source: Any, timeout: float | None = None, **options: Any) -> str:
        """
        Copy a file, a path or an asynchronous iterable of bytes into a table. `options` as the driver takes them.
        """
        where = options.get("where")
        text = f"COPY {table_name} FROM STDIN" + ("" if where is None else f" WHERE {where}")
        return str(await self._run("copy_to_table", text, (table_name,), timeout, source=source, **options))

    async def copy_from_table(
        self, table_name: str, *, output: Any, timeout: float | None = None, **options: Any
    ) -> str:
        """
        Copy a table into a file, a path or a coroutine function that takes bytes. `options` as the driver takes them.
        """
        text = f"COPY {table_name} TO STDOUT"
        return str(await self._run("copy_from_table", text, (table_name,), timeout, output=output, **options))

    async def copy_from_query(
        self, query: str, *args: Any, output: Any, timeout: float | None = None, **options: Any
    ) -> str:
        """
        Copy a query's rows into a file, a path or a coroutine function that takes bytes. `options` as the driver's.
        """
        return str(await self._run("copy_from_query", query, (query, *args), timeout, output=output, **options))

    # --- transactions and state

    def transaction(
        self,
        *,
        isolation: str | None = None,
        readonly: bool = False,
        deferrable: bool = False,
        timeout: float | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> Transaction:
        """
        Return a transaction on this connection, a savepoint when one is open: `async with`, or `start` and `commit`.

        `timeout` is for the whole of it, in seconds. `settings` are in force until it ends; "role" among them is the
        role it runs as.

        Raises:
            ConfigError: a setting or the isolation level is none.
        """
        execution = self._check("transaction")
        mode = TransactionMode.of(isolation, readonly, deferrable, settings)
        return execution.terms.make_transaction(execution, mode, timeout)

    def is_in_transaction(self) -> bool:
        """
        Say whether a transaction is open, a failed one included.
        """
        return self._check("is_in_transaction").raw.is_in_transaction()

    def is_closed(self) -> bool:
        """
        Say whether the connection is gone. A released one cannot be asked.
        """
        if self._execution.is_released:
            self._check("is_closed")
        return self._execution.raw.is_closed()

    async def reset(self, *, timeout: float | None = None) -> None:
        """
        Bring the session back to how it started, as a release does; open transactions are rolled back.
        """
        execution = self._check("reset")
        await execution.raw.reset(timeout=timeout)
        execution.session.reset()
        if execution.trace is not None:
            execution.trace.reset()


class Acquisition:
    """
    A lease to be: await it, or enter it with `async with`, which gives it back at the end.
    """

    __slots__ = ("_acquire", "_connection")

    def __init__(self, acquire: Callable[[], Any]) -> None:
        self._acquire = acquire
        self._connection: Connection | None = None

    def __await__(self) -> Generator[Any, None, Connection]:
        found: Generator[Any, None, Connection] = self._acquire().__await__()
        return found

    async def __aenter__(self) -> Connection:
        self._connection = await self
        self._connection._execution.enter_block()  # noqa: SLF001  # of this module's own
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            await self._connection.give_back()


def _refuse(refused: Exception, *_args: Any, **_options: Any) -> Any:
    """
    Raise it at the call: looking whether there is such a method is no use of it.
    """
    raise refused
