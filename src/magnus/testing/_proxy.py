"""A TCP proxy that fails on purpose: it stands between a client and a real server, and breaks what passes.

It knows nothing of PostgreSQL but the first message of a connection that only cancels. A black hole here is silence of
the peer's program, not of the network: the kernel goes on acknowledging, so keepalives stay happy.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from magnus.testing._flow import Action, Direction, Rule, Scanner, Shape

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_CHUNK: Final = 65_536
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s, so that close sends RST
_TURNS: Final = 3
_CANCEL: Final = struct.pack("!ii", 16, 80_877_102)  # the head of a CancelRequest

Upstream = tuple[str, int] | str
"""Where the server is: host and port, or the path of a unix socket."""


class Link:
    """
    One connection through the proxy. Whatever is changed here takes effect with the next chunk.

    Attributes:
        number: 1 for the proxy's first connection.
        shapes: How bytes travel, by direction.
        rules: Of this connection; those of the proxy are looked at after them.
        passed: Bytes forwarded, by direction.
        is_cancel: The client asked for the cancel of another connection's statement.
    """

    def __init__(
        self, proxy: FaultProxy, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._client = (reader, writer)
        self._server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._flow = asyncio.Event()
        self._flow.set()
        self.number = number
        self.shapes = {direction: replace(proxy.shapes[direction]) for direction in Direction}
        self.rules: list[Rule] = []
        self.passed = dict.fromkeys(Direction, 0)
        self.is_cancel = False
        self.is_cut = False

    def __repr__(self) -> str:
        return f"<Link {self.number} {'cut' if self.is_cut else 'held' if self.is_held else 'open'}>"

    @property
    def is_held(self) -> bool:
        return not self._flow.is_set()

    def hold(self) -> None:
        """
        Forward nothing any more, either way, and say nothing: a black hole. What was sent is kept for `release`.
        """
        self._flow.clear()

    def release(self) -> None:
        """
        Forward again, first what was kept.
        """
        self._flow.set()

    def cut(self) -> None:
        """
        End both sides at once with a reset (RST). Bytes on their way are lost.
        """
        self.is_cut = True
        self._flow.set()
        for stream in (self._client, self._server):
            if stream is not None:
                _abort(stream[1])

    # --- inside

    async def run(self) -> None:
        if self._proxy.is_silent:
            await self._swallow(self._client[0])
            return
        try:
            self._server = await self._proxy.dial()
        except OSError:
            self._proxy.refused += 1
            raise
        try:
            await self._both_ways(*self._server)
        finally:
            self._server[1].close()

    async def _swallow(self, reader: asyncio.StreamReader) -> None:
        # The listener accepted and nobody answers, as with a stopped postmaster.
        while await reader.read(_CHUNK):
            pass

    async def _both_ways(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ways = (
            (Direction.REQUEST, self._client[0], writer),
            (Direction.REPLY, reader, self._client[1]),
        )
        tasks = [asyncio.create_task(self._pump(*way)) for way in ways]
        try:
            # The end of one direction is passed on as such; a connection is over when both are.
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _pump(self, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        scanner = Scanner()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_CHUNK):
                if direction is Direction.REQUEST and not self.passed[direction] and data.startswith(_CANCEL):
                    self.is_cancel = True
                    self._proxy.cancels += 1
                if not await self._forward(direction, data, scanner, writer):
                    return
            await self._flow.wait()
            if not writer.is_closing():  # it has no end to write, and uvloop objects
                writer.write_eof()
            return
        # A reset on one side is a reset on the other.
        self.cut()

    async def _forward(self, direction: Direction, data: bytes, scanner: Scanner, writer: asyncio.StreamWriter) -> bool:
        passing, rule = scanner.scan(data, [
            rule for rule in (*self.rules, *self._proxy.rules) if rule.direction is direction and not rule.is_spent
        ])  # fmt: skip
        if not await self._write(direction, data[:passing], writer):
            return False
        if rule is None:
            return True
        if rule.action is Action.HOLD:
            self.hold()
            return await self._write(direction, data[passing:], writer)
        self.cut()
        return False

    async def _write(self, direction: Direction, data: bytes, writer: asyncio.StreamWriter) -> bool:
        shape = self.shapes[direction]
        if not data:
            return not self.is_cut
        if shape.delay:
            await asyncio.sleep(shape.delay)
        for piece in shape.pieces(data):
            await self._flow.wait()
            if self.is_cut:
                return False
            fitting = piece if shape.limit is None else piece[: max(shape.limit - self.passed[direction], 0)]
            writer.write(fitting)
            await writer.drain()
            self.passed[direction] += len(fitting)
            if len(fitting) < len(piece):
                await asyncio.sleep(0)
                self.cut()
                return False
            if shape.rate:
                await asyncio.sleep(len(piece) / shape.rate)
        return True


class FaultProxy:
    """
    `async with FaultProxy(cluster_address) as proxy`, and the client connects to `proxy.port` on 127.0.0.1.

    Attributes:
        upstream: Where connections made from now on lead; a promoted standby takes over by an assignment.
        shapes: What new connections start with, by direction.
        rules: For all connections, those that are open too.
        links: The connections that are open, oldest first.
        accepted: How many connections there were.
        refused: How many of them found no server.
        cancels: How many of them were CancelRequests.
        is_silent: New connections are accepted and never answered.
        on_link: Called with each new `Link` before its first byte, to program it.
    """

    def __init__(self, upstream: Upstream, *, on_link: Callable[[Link], object] | None = None) -> None:
        self.upstream = upstream
        self.shapes = {direction: Shape() for direction in Direction}
        self.rules: list[Rule] = []
        self.links: list[Link] = []
        self.accepted = 0
        self.refused = 0
        self.cancels = 0
        self.is_silent = False
        self.on_link = on_link
        self._server: asyncio.Server | None = None
        self._port = 0
        self._is_stopped = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """
        The port it listens on; the same one after `refuse` and `accept`.
        """
        return self._port

    async def start(self) -> None:
        """
        Listen on a free loopback port.
        """
        await self.accept()

    async def stop(self) -> None:
        """
        Stop listening and cut every connection. Nothing of it is left.
        """
        await self.refuse()
        self._is_stopped = True
        for _ in range(_TURNS):  # a connection that was just accepted becomes a link some turns of the loop later
            await asyncio.sleep(0)
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    async def refuse(self) -> None:
        """
        Stop listening: new connections are refused (ECONNREFUSED). Open ones go on.
        """
        if self._server is not None:
            self._server.close()
            self._server = None
        await asyncio.sleep(0)

    async def accept(self) -> None:
        """
        Listen again.
        """
        self._is_stopped = False
        if self._server is None:
            self._server = await asyncio.start_server(self._on_client, "127.0.0.1", self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """
        End every open connection with a reset.
        """
        for link in list(self.links):
            link.cut()

    def hold(self) -> None:
        """
        Make every open connection a black hole; new ones are accepted and not answered.
        """
        self.is_silent = True
        for link in self.links:
            link.hold()

    def release(self) -> None:
        """
        Undo `hold`. Connections that were accepted meanwhile get a reset, for nobody spoke to them.
        """
        self.is_silent = False
        for link in list(self.links):
            if link.is_held:
                link.release()
            elif link._server is None:  # noqa: SLF001  # its own class
                link.cut()

    def when(
        self,
        direction: Direction,
        pattern: bytes,
        action: Action,
        *,
        times: int | None = 1,
        skip: int = 0,
        heard: Callable[[], object] | None = None,
    ) -> Rule:
        """
        Add a rule for all connections and return it; its `hits` say whether it did anything.
        """
        rule = Rule(direction, pattern, action, times, skip, heard)
        self.rules.append(rule)
        return rule

    def dsn(self, dsn: str) -> str:
        """
        Return `dsn` (a URI) with this proxy in the place of its server; a unix socket's folder in it is dropped.
        """
        parts = urlsplit(dsn)
        query = [(name, value) for name, value in parse_qsl(parts.query) if name not in {"host", "port"}]
        query = [*query, *([] if any(name == "sslmode" for name, _ in query) else [("sslmode", "disable")])]
        where = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{self.port}"
        return urlunsplit((parts.scheme, where, parts.path, urlencode(query), ""))

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """
        Connect to the server, as each new connection does.
        """
        if isinstance(self.upstream, str):
            return await asyncio.open_unix_connection(self.upstream, limit=_CHUNK)
        return await asyncio.open_connection(*self.upstream, limit=_CHUNK)

    async def _on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_stopped:
            _abort(writer)
            return
        self.accepted += 1
        link = Link(self, self.accepted, reader, writer)
        self.links.append(link)
        task = asyncio.current_task()
        assert task is not None, "start_server runs this in a task"
        self._tasks.add(task)
        try:
            if self.on_link is not None:
                self.on_link(link)
            await link.run()
        except OSError:
            link.cut()  # the server refused, or is gone: so is the client's connection
        except asyncio.CancelledError:
            link.cut()  # `stop`; asyncio's own callback would report the cancellation as a failure
        finally:
            writer.close()
            self.links.remove(link)
            self._tasks.discard(task)


def socket_of(folder: Path, port: int) -> str:
    """
    Return the path of a PostgreSQL server's unix socket.
    """
    return str(folder / f".s.PGSQL.{port}")


def _abort(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError, ValueError):  # uvloop's for one that is closed
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
