"""The port, its errors, and the drain of a served application."""

from __future__ import annotations

import asyncio
import os
import resource
import socket

import aiohttp
import pytest

from ava.serving import ListenError, Serving, listen, listener_pid, listening_inodes, raise_file_limit

TCP_LINES = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0 0 10 0
   1: 0100007F:1F41 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1 0 100 0 0 10 0
   2: 0100007F:1F40 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 333 1 0 20 4 30 10 -1
""".splitlines()


@pytest.fixture
def sock():
    with listen("127.0.0.1", 0) as found:
        yield found


class App:
    """
    An ASGI application whose request to /slow waits for `release`.
    """

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.release = asyncio.Event()
        self.is_ended = False

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["path"] == "/slow":
            self.arrived.set()
            await self.release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def _lifespan(self, receive, send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.is_ended = True
        await send({"type": "lifespan.shutdown.complete"})


class Served:
    """
    An application that is being served, and a client for it.
    """

    def __init__(self, sock, *, notice: float = 0.0, grace: float = 10.0) -> None:
        self.app = App()
        self.announced = 0
        self.serving = Serving(self.app, sock, announce=self.announce, notice=notice, grace=grace)
        self.url = "http://{}:{}".format(*sock.getsockname())

    def announce(self) -> None:
        self.announced += 1

    async def __aenter__(self):
        self.task = asyncio.create_task(self.serving.run_until_drained())
        self.client = aiohttp.ClientSession(self.url)
        assert await self.get("/") == 200
        return self

    async def __aexit__(self, *error) -> None:
        self.app.release.set()
        await self.client.close()
        if not self.task.done():
            self.serving.drain()
            self.serving.drain()
        await self.task

    async def get(self, path: str) -> int:
        async with self.client.get(path) as response:
            await response.read()
            return response.status


# --- the port


def test_a_free_port_is_taken_and_listens_at_once(sock):
    """Port 0 is any free port, and a client connects before anything serves."""
    with socket.create_connection(sock.getsockname(), timeout=5) as client:
        assert client.getpeername() == sock.getsockname()


def test_a_taken_port_is_one_clear_line_with_the_process(sock):
    """It says which port, which process, and which option to use."""
    port = sock.getsockname()[1]
    with pytest.raises(ListenError) as caught:
        listen("127.0.0.1", port)
    assert str(caught.value) == (
        f"port {port} is already in use by process {os.getpid()}; stop it or choose another with --port"
    )


def test_a_port_is_free_again_when_its_server_is_gone(sock):
    """A restart does not wait for old connections to time out."""
    address = sock.getsockname()
    with socket.create_connection(address, timeout=5):
        accepted = None
        while accepted is None:
            try:
                accepted, _ = sock.accept()
            except BlockingIOError:
                continue
        accepted.close()
    sock.close()
    listen(*address).close()


@pytest.mark.parametrize(
    ("host", "words"),
    [("192.0.2.1", "not an address of this machine"), ("no.such.host.invalid", "cannot resolve"), ("a" * 70, "cannot")],
)
def test_a_host_that_cannot_be_listened_on_is_named(host, words):
    """The line names the option."""
    with pytest.raises(ListenError, match=f"{words}.*--host"):
        listen(host, 0)


def test_only_listening_sockets_of_the_port_are_found():
    """Neither another port nor an established connection counts."""
    assert list(listening_inodes(TCP_LINES, 8000)) == ["111"]
    assert list(listening_inodes(TCP_LINES, 9)) == []
    assert list(listening_inodes(["garbage", ""], 8000)) == []


def test_an_unseen_owner_is_none(tmp_path):
    """Without /proc, or without a right to look, there is no process to name."""
    assert listener_pid(8000, tmp_path) is None


def test_the_file_limit_is_raised_to_what_is_allowed():
    """The soft limit becomes the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
        assert raise_file_limit() == hard
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- the drain


async def test_a_drain_announces_first_and_serves_on_for_the_notice(sock):
    """Between the announcement and the closing of the port new requests are served."""
    async with Served(sock, notice=60.0) as served:
        served.serving.drain()
        assert served.announced == 1
        assert await served.get("/") == 200
        assert not served.task.done()


async def test_requests_in_flight_finish_and_then_the_lifespan_ends(sock):
    """The port closes, the answer still comes, and the stop is a clean one."""
    async with Served(sock) as served:
        slow = asyncio.create_task(served.get("/slow"))
        await served.app.arrived.wait()
        served.serving.drain()
        while served.serving.servers[0].is_serving():  # noqa: ASYNC110  # uvicorn has no event for it
            await asyncio.sleep(0)
        assert not served.app.is_ended
        served.app.release.set()
        assert await slow == 200
        assert await served.task is True
        assert served.app.is_ended


async def test_a_second_call_cuts_requests_short_and_still_ends_the_lifespan(sock):
    """Whoever asks twice does not wait, and the pool is closed all the same."""
    async with Served(sock, grace=60.0) as served:
        slow = asyncio.create_task(served.get("/slow"))
        await served.app.arrived.wait()
        served.serving.drain()
        served.serving.drain()
        assert await served.task is False
        assert served.app.is_ended
        assert served.announced == 1
        assert await slow == 500


async def test_requests_that_outlast_the_grace_are_cut_off(sock):
    """A drain ends, whatever a request does."""
    async with Served(sock, grace=1.0) as served:
        slow = asyncio.create_task(served.get("/slow"))
        await served.app.arrived.wait()
        served.serving.drain()
        assert await served.task is True
        assert served.app.is_ended
        assert await slow == 500
