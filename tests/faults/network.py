"""A network that really drops packets: a namespace of its own behind a pair of virtual cards. Needs root and `ip`.

The server is reached through a relay inside the namespace. When the card there goes down nobody is told: packets go
nowhere, no reset comes, as when a switch loses its power.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from magnus.testing import socket_of
from tests.faults.stage import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from tests.faults.stage import Stage

RELAY = """
import asyncio, sys
async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()
async def serve(reader, writer):
    up = await asyncio.open_unix_connection(sys.argv[3])
    await asyncio.gather(pump(reader, up[1]), pump(up[0], writer))
async def main():
    server = await asyncio.start_server(serve, sys.argv[1], int(sys.argv[2]))
    print("ready", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
PORT = 6543


def _ip(*words: str) -> bool:
    return subprocess.run(["ip", *words], capture_output=True, check=False).returncode == 0


class Network:
    """
    The cards and the namespace; names carry this process's id, so that two campaigns do not meet.
    """

    def __init__(self) -> None:
        number = os.getpid() % 16_000
        self.name = f"flt{number}"
        self.ours, self.theirs = f"fa{number}", f"fb{number}"
        net = f"10.{200 + number % 50}.{number // 64 % 250}"
        low = number % 64 * 4
        self.here, self.there = f"{net}.{low + 1}", f"{net}.{low + 2}"

    def build(self) -> bool:
        return all((
            _ip("netns", "add", self.name),
            _ip("link", "add", self.ours, "type", "veth", "peer", "name", self.theirs),
            _ip("link", "set", self.theirs, "netns", self.name),
            _ip("addr", "add", f"{self.here}/30", "dev", self.ours),
            _ip("link", "set", self.ours, "up"),
            _ip("-n", self.name, "addr", "add", f"{self.there}/30", "dev", self.theirs),
            _ip("-n", self.name, "link", "set", self.theirs, "up"),
        ))

    def remove(self) -> None:
        _ip("link", "del", self.ours)
        _ip("netns", "del", self.name)

    def sever(self) -> None:
        """
        Drop everything from now on.
        """
        assert _ip("-n", self.name, "link", "set", self.theirs, "down")

    @asynccontextmanager
    async def healed(self) -> AsyncIterator[None]:
        """
        Whatever is severed inside is whole again afterwards.
        """
        try:
            yield
        finally:
            assert _ip("-n", self.name, "link", "set", self.theirs, "up")
            await self.until_reachable()

    async def until_reachable(self) -> None:
        """
        Wait until the relay answers; addresses have to be resolved anew after the card was down.
        """
        async with asyncio.timeout(30.0):
            while True:
                try:
                    _, writer = await asyncio.open_connection(self.there, PORT)
                except OSError:
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    return


async def severed(stage: Stage) -> AbstractAsyncContextManager[tuple[str, Network]] | None:
    """
    A database of the stage's server behind such a network; None where it cannot be had.
    """
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return None
    network = Network()
    if not network.build():
        network.remove()
        return None
    return _behind(stage, network)


@asynccontextmanager
async def _behind(stage: Stage, network: Network) -> Any:
    path = socket_of(stage.cluster.socket_folder, stage.cluster.port)
    command = ["ip", "netns", "exec", network.name, sys.executable, "-c", RELAY, network.there, str(PORT), path]
    relay = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    try:
        assert relay.stdout is not None
        async with asyncio.timeout(20.0):
            assert await relay.stdout.readline() == b"ready\n"
        await network.until_reachable()
        book = await stage.book()
        yield f"postgresql://postgres@{network.there}:{PORT}/{book.name}?sslmode=disable", network
    finally:
        relay.kill()
        await relay.wait()
        network.remove()
