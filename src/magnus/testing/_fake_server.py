"""A server that refuses everybody with one SQLSTATE, as PostgreSQL does while it starts, or when it is full."""

from __future__ import annotations

import asyncio
import struct
from typing import Final, Self

_SSL_REQUEST: Final = 80_877_103
_GSS_REQUEST: Final = 80_877_104
_HEAD: Final = 8


class RefusingServer:
    """
    `async with RefusingServer("57P03") as server`: it listens on `server.port` of 127.0.0.1.

    Attributes:
        sqlstate: What it answers.
        asked: How many connections asked it.
        port: Where it listens.
    """

    def __init__(self, sqlstate: str, message: str = "refused on purpose") -> None:
        if len(sqlstate) != 5:
            raise ValueError(f"an SQLSTATE has five characters: {sqlstate!r}")
        self.sqlstate = sqlstate
        self.asked = 0
        self.port = 0
        self._message = message
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._on_client, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._server is not None:
            self._server.close()

    async def _on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            length, code = struct.unpack("!ii", await reader.readexactly(_HEAD))
            while code in {_SSL_REQUEST, _GSS_REQUEST}:
                writer.write(b"N")
                length, code = struct.unpack("!ii", await reader.readexactly(_HEAD))
            await reader.readexactly(length - _HEAD)
            self.asked += 1
            writer.write(self._refusal())
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # it went away by itself
        finally:
            writer.close()

    def _refusal(self) -> bytes:
        fields = (("S", "FATAL"), ("V", "FATAL"), ("C", self.sqlstate), ("M", self._message))
        body = b"".join(f"{name}{text}\0".encode() for name, text in fields) + b"\0"
        return b"E" + struct.pack("!i", len(body) + 4) + body
