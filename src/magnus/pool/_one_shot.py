"""The driver's methods that run one statement, each on a lease of its own; where leases come from, a subclass says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class OneShots:
    """
    Base of the pool that `create_pool` makes, which overrides `_once`.
    """

    async def _once(self, method: str, *args: Any, **options: Any) -> Any:
        raise NotImplementedError

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """
        As the connection's method of that name, on a connection of its own; so are all below.
        """
        return str(await self._once("execute", query, *args, timeout=timeout))

    async def executemany(self, command: str, args: Iterable[Sequence[Any]], *, timeout: float | None = None) -> None:
        await self._once("executemany", command, args, timeout=timeout)

    async def fetch(
        self, query: str, *args: Any, timeout: float | None = None, record_class: type[Any] | None = None
    ) -> list[Any]:
        found: list[Any] = await self._once("fetch", query, *args, timeout=timeout, record_class=record_class)
        return found

    async def fetchval(self, query: str, *args: Any, column: int | str = 0, timeout: float | None = None) -> Any:
        return await self._once("fetchval", query, *args, column=column, timeout=timeout)

    async def fetchrow(
        self, query: str, *args: Any, timeout: float | None = None, record_class: type[Any] | None = None
    ) -> Any:
        return await self._once("fetchrow", query, *args, timeout=timeout, record_class=record_class)

    async def fetchmany(
        self,
        query: str,
        args: Iterable[Sequence[Any]],
        *,
        timeout: float | None = None,
        record_class: type[Any] | None = None,
    ) -> list[Any]:
        found: list[Any] = await self._once("fetchmany", query, args, timeout=timeout, record_class=record_class)
        return found

    async def copy_from_table(self, table_name: str, *, output: Any, **options: Any) -> str:
        return str(await self._once("copy_from_table", table_name, output=output, **options))

    async def copy_from_query(self, query: str, *args: Any, output: Any, **options: Any) -> str:
        return str(await self._once("copy_from_query", query, *args, output=output, **options))

    async def copy_to_table(self, table_name: str, *, source: Any, **options: Any) -> str:
        return str(await self._once("copy_to_table", table_name, source=source, **options))

    async def copy_records_to_table(self, table_name: str, *, records: Any, **options: Any) -> str:
        return str(await self._once("copy_records_to_table", table_name, records=records, **options))
