"""What is read through: any connection, the driver's or a leased one."""

from __future__ import annotations

from typing import Any, Protocol


class Source(Protocol):
    """
    The part of a connection that is needed; `Database` has it too.
    """

    async def fetch(self, query: str, *args: Any, timeout: float | None = None) -> list[Any]: ...

    async def fetchrow(self, query: str, *args: Any, timeout: float | None = None) -> Any: ...

    async def fetchval(self, query: str, *args: Any, timeout: float | None = None) -> Any: ...
