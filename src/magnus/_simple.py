"""Rows by the simple protocol on a driver's connection: a pooler's console speaks no other, and the driver drops them.

The driver opens the connection, with its authentication and TLS; only while one question is answered are its messages
read here.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any, Final

from magnus.errors import DatabaseError

if TYPE_CHECKING:
    from magnus._driver import Connection

Row = dict[str, str | None]

_HEAD: Final = struct.Struct("!cI")
_SHORT: Final = struct.Struct("!H")
_LONG: Final = struct.Struct("!i")
_AFTER_NAME: Final = 18  # bytes that describe a column, after its name


class Reading(asyncio.Protocol):
    """
    Messages of one answer in, rows out.

    Attributes:
        done: Is set to the rows when the server is ready for the next question.
        is_over: Whether it is.
    """

    def __init__(self, done: asyncio.Future[list[Row]]) -> None:
        self.done = done
        self.is_over = False
        self._buffer = bytearray()
        self._names: list[str] = []
        self._rows: list[Row] = []
        self._error: DatabaseError | None = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            kind, length = _HEAD.unpack_from(self._buffer)
            if len(self._buffer) <= length:
                return
            body = bytes(self._buffer[_HEAD.size : 1 + length])
            del self._buffer[: 1 + length]
            self._take(kind, body)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(self._error or exc or ConnectionResetError("the connection was closed"))

    def _take(self, kind: bytes, body: bytes) -> None:
        if kind == b"T":
            self._names = _names(body)
        elif kind == b"D":
            self._rows.append(dict(zip(self._names, _values(body), strict=True)))
        elif kind == b"E":
            parts = {part[:1]: part[1:].decode(errors="replace") for part in body.split(b"\0") if part}
            self._error = DatabaseError(parts.get(b"M", "refused"), sqlstate=parts.get(b"C"))
        elif kind == b"Z":
            self.is_over = True
            if self.done.done():
                return
            if self._error is None:
                self.done.set_result(self._rows)
            else:
                self.done.set_exception(self._error)


def _names(body: bytes) -> list[str]:
    (count,) = _SHORT.unpack_from(body)
    at, found = _SHORT.size, []
    for _ in range(count):
        end = body.index(b"\0", at)
        found.append(body[at:end].decode())
        at = end + 1 + _AFTER_NAME
    return found


def _values(body: bytes) -> list[str | None]:
    (count,) = _SHORT.unpack_from(body)
    at, found = _SHORT.size, list[str | None]()
    for _ in range(count):
        (length,) = _LONG.unpack_from(body, at)
        at += _LONG.size
        if length < 0:
            found.append(None)
        else:
            found.append(body[at : at + length].decode())
            at += length
    return found


async def simple_rows(con: Connection, text: str) -> list[Row]:
    """
    Return the rows of one question, values as texts. Nobody else may use the connection meanwhile; when the answer does
    not come whole, cancelled too, it is ended.

    Raises:
        DatabaseError: the question was refused.
        OSError: the connection was lost.
    """
    transport: Any = con._transport  # type: ignore[attr-defined]  # noqa: SLF001  # the driver's own
    reading = Reading(asyncio.get_running_loop().create_future())
    drivers = transport.get_protocol()
    transport.set_protocol(reading)
    try:
        payload = text.encode() + b"\0"
        transport.write(_HEAD.pack(b"Q", 4 + len(payload)) + payload)
        return await reading.done
    finally:
        transport.set_protocol(drivers)
        if not reading.is_over:
            con.terminate()
