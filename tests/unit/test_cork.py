"""What is held back is written with the next write, or not at all."""

from __future__ import annotations

import asyncio

import pytest

from magnus._cork import Corked, Corking


class Inner:
    """A transport that notes each write."""

    def __init__(self):
        self.writes = []

    def write(self, data):
        self.writes.append(bytes(data))

    def is_closing(self):
        return False


def test_nothing_is_between_a_write_and_its_transport():
    """It costs what it costs without a cork."""
    inner = Inner()
    assert Corked(inner).write == inner.write
    assert Corked(inner).is_closing() is False


def test_what_is_held_back_goes_with_the_next_write():
    """In one, before it, and once."""
    inner = Inner()
    corked = Corked(inner)
    corked.hold(b"begin ")
    assert inner.writes == []
    corked.write(memoryview(b"first"))
    corked.write(b"second")
    assert inner.writes == [b"begin first", b"second"]
    assert not corked.take_back()


def test_what_is_taken_back_was_never_written():
    """And what follows goes alone."""
    inner = Inner()
    corked = Corked(inner)
    corked.hold(b"begin ")
    assert corked.take_back()
    corked.write(b"first")
    assert inner.writes == [b"first"]


class Echo(asyncio.Protocol):
    """Answers with what it reads, until its client goes."""

    def __init__(self, gone):
        self.gone = gone

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)

    def connection_lost(self, error):
        self.gone.set()


class Client(asyncio.Protocol):
    """Says something as soon as it is connected, as the driver does, and keeps the answer."""

    def __init__(self):
        self.answer = asyncio.get_running_loop().create_future()
        self.gone = asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport
        transport.hold(b"hello, ")
        transport.write(b"world")

    def data_received(self, data):
        self.answer.set_result(data)

    def connection_lost(self, error):
        self.gone.set()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_a_connection_has_its_protocol_before_anything_arrives(kind, tmp_path):
    """And a corked transport, which the protocol was given too."""
    loop = asyncio.get_running_loop()
    corking, gone = Corking(loop), asyncio.Event()
    if kind == "tcp":
        server = await loop.create_server(lambda: Echo(gone), "127.0.0.1", 0)
        transport, client = await corking.create_connection(Client, *server.sockets[0].getsockname())
    else:
        server = await loop.create_unix_server(lambda: Echo(gone), str(tmp_path / "socket"))
        transport, client = await corking.create_unix_connection(Client, str(tmp_path / "socket"))
    assert isinstance(transport, Corked)
    assert client.transport is transport
    async with asyncio.timeout(10):
        assert await client.answer == b"hello, world"
    assert transport.get_protocol() is client
    assert corking.time() == pytest.approx(loop.time(), abs=5)
    transport.close()
    async with asyncio.timeout(10):
        await client.gone.wait()
        await gone.wait()
    server.close()
    await server.wait_closed()
