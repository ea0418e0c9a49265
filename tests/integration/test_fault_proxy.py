from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress

import asyncpg
import pytest

from magnus.testing import COMMIT, Action, Direction, FaultProxy, Shape, socket_of

BOUND = 10.0


@asynccontextmanager
async def echo(on_link=None):
    """
    A proxy before a server that answers every byte with itself.
    """

    async def answer(reader, writer):
        while data := await reader.read(4096):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    async with FaultProxy((address[0], address[1]), on_link=on_link) as proxy:
        yield proxy
    server.close()


async def dial(proxy):
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def asked(proxy, data=b"hello"):
    """
    Open a connection that has proven to work.
    """
    reader, writer = await dial(proxy)
    writer.write(data)
    assert await reader.readexactly(len(data)) == data
    return reader, writer


async def is_silent(reader) -> bool:
    """
    Whether nothing comes, for a while that is ample for an answer.
    """
    try:
        async with asyncio.timeout(0.3):
            await reader.read(1)
    except TimeoutError:
        return True
    return False


async def test_bytes_pass_unchanged_both_ways():
    data = bytes(range(256)) * 1000
    async with echo() as proxy:
        _, writer = await asked(proxy, data)
        assert proxy.links[0].passed == dict.fromkeys(Direction, len(data))
        writer.close()


async def test_the_end_of_a_stream_is_passed_on():
    async with echo() as proxy:
        reader, writer = await asked(proxy)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()


async def test_a_cut_is_a_reset():
    async with echo() as proxy:
        reader, writer = await asked(proxy)
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(BOUND):
                await reader.read()
        writer.close()


@pytest.mark.parametrize("direction", list(Direction))
async def test_a_pattern_cuts_once_and_the_next_connection_is_whole(direction):
    async with echo() as proxy:
        rule = proxy.when(direction, b"two", Action.CUT)
        reader, writer = await asked(proxy, b"one ")
        writer.write(b"two")
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(BOUND):
                await reader.read()
        assert rule.hits == 1
        writer.close()
        _, another = await asked(proxy, b"two")
        another.close()


async def test_a_request_that_is_cut_never_reaches_the_server():
    heard, is_over = bytearray(), asyncio.Event()

    async def note(reader, writer):
        with suppress(ConnectionResetError):
            while data := await reader.read(100):
                heard.extend(data)
        writer.close()
        is_over.set()

    server = await asyncio.start_server(note, "127.0.0.1", 0)
    async with FaultProxy(server.sockets[0].getsockname()) as proxy:
        proxy.when(Direction.REQUEST, COMMIT, Action.CUT)
        _, writer = await dial(proxy)
        writer.write(b"Q" + COMMIT)
        async with asyncio.timeout(BOUND):
            await is_over.wait()
        assert COMMIT not in heard
        writer.close()
    server.close()


async def test_a_pattern_may_be_forwarded_before_the_cut():
    async with echo() as proxy:
        passing = proxy.when(Direction.REQUEST, b"two", Action.PASS, times=None)
        proxy.when(Direction.REPLY, b"two", Action.CUT_AFTER)
        reader, writer = await dial(proxy)
        writer.write(b"two three")
        async with asyncio.timeout(BOUND):
            while True:
                try:
                    if not await reader.read(100):
                        break
                except ConnectionResetError:
                    break
        assert proxy.links == [] or proxy.links[0].is_cut
        assert passing.hits == 1
        writer.close()


async def test_a_black_hole_is_silent_and_keeps_what_was_sent():
    async with echo() as proxy:
        reader, writer = await asked(proxy)
        proxy.hold()
        writer.write(b"again")
        assert await is_silent(reader)
        proxy.release()
        async with asyncio.timeout(BOUND):
            assert await reader.readexactly(5) == b"again"
        writer.close()


async def test_a_pattern_may_open_the_black_hole():
    async with echo() as proxy:
        rule = proxy.when(Direction.REPLY, b"two", Action.HOLD)
        reader, writer = await asked(proxy, b"one")
        writer.write(b"two")
        assert await is_silent(reader)
        assert rule.hits == 1
        assert proxy.links[0].is_held
        proxy.links[0].release()
        async with asyncio.timeout(BOUND):
            assert await reader.readexactly(3) == b"two"
        writer.close()


async def test_new_connections_of_a_silent_proxy_are_accepted_and_not_answered():
    async with echo() as proxy:
        proxy.is_silent = True
        reader, writer = await dial(proxy)
        writer.write(b"hello")
        assert await is_silent(reader)
        proxy.release()
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(BOUND):
                await reader.read()
        writer.close()


async def test_a_proxy_that_refuses_is_not_listening_and_comes_back_at_its_port():
    async with echo() as proxy:
        _, open_one = await asked(proxy)
        port = proxy.port
        await proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await dial(proxy)
        assert len(proxy.links) == 1
        await proxy.accept()
        assert proxy.port == port
        _, writer = await asked(proxy)
        writer.close()
        open_one.close()


async def test_slices_arrive_in_pieces_of_that_size():
    async with echo() as proxy:
        proxy.shapes[Direction.REPLY] = Shape(slice=1, delay=0.02)
        data = b"0123456789"
        reader, writer = await dial(proxy)
        writer.write(data)
        assert await reader.readexactly(len(data)) == data
        writer.close()


async def test_a_delay_and_a_rate_take_their_time():
    async with echo() as proxy:
        proxy.shapes[Direction.REQUEST] = Shape(delay=0.2)
        proxy.shapes[Direction.REPLY] = Shape(rate=10_000.0, slice=500)
        began = time.monotonic()
        _, writer = await asked(proxy, b"x" * 2000)
        # Never earlier than the physics allow; how much later is the machine's business.
        assert time.monotonic() - began >= 0.2 + 1500 / 10_000
        writer.close()


async def test_a_limit_cuts_after_that_many_bytes():
    async with echo() as proxy:
        proxy.shapes[Direction.REPLY] = Shape(limit=3)
        reader, writer = await dial(proxy)
        writer.write(b"hello")
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            async with asyncio.timeout(BOUND):
                await reader.readexactly(5)
        writer.close()


async def test_each_connection_can_be_programmed_by_itself():
    def program(link):
        if link.number == 2:
            link.shapes[Direction.REQUEST] = Shape(limit=0)

    async with echo(program) as proxy:
        _, first = await asked(proxy)
        reader, second = await dial(proxy)
        second.write(b"hello")
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(BOUND):
                await reader.read()
        _, third = await asked(proxy)
        for writer in (first, second, third):
            writer.close()


async def test_a_server_that_is_gone_is_a_reset_for_the_client():
    async with FaultProxy("/nonexistent/socket") as proxy:
        reader, writer = await dial(proxy)
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(BOUND):
                await reader.read()
        writer.close()


async def test_it_stands_before_postgresql_and_counts_cancels(server, dsn):
    async with FaultProxy(socket_of(server.socket_folder, server.port)) as proxy:
        con = await asyncpg.connect(proxy.dsn(dsn))
        with pytest.raises(TimeoutError):
            await con.execute("SELECT pg_sleep(30)", timeout=0.2)
        assert await con.fetchval("SELECT 1") == 1
        assert (proxy.accepted, proxy.cancels) == (2, 1)
        await con.close()


async def test_the_reply_to_commit_is_cut_after_the_server_has_stored_it(server, dsn):
    async with FaultProxy(socket_of(server.socket_folder, server.port)) as proxy:
        con, direct = await asyncpg.connect(proxy.dsn(dsn)), await asyncpg.connect(dsn)
        await con.execute("CREATE TABLE t (n int)")
        for direction, stored in ((Direction.REPLY, 1), (Direction.REQUEST, 1)):
            rule = proxy.when(direction, COMMIT, Action.CUT)
            await con.execute("BEGIN; INSERT INTO t VALUES (1)")
            with pytest.raises((OSError, asyncpg.PostgresConnectionError)):
                await con.execute("COMMIT")
            assert rule.hits == 1
            assert await direct.fetchval("SELECT count(*) FROM t") == stored
            con.terminate()
            con = await asyncpg.connect(proxy.dsn(dsn))
        await con.close()
        await direct.close()


@pytest.mark.parametrize("password", ["", ":p%40ss"])
async def test_a_dsn_is_led_through_the_proxy(password):
    async with echo() as proxy:
        found = proxy.dsn(f"postgresql://me{password}@/db?host=%2Ftmp&port=1&application_name=x")
        assert found == f"postgresql://me{password}@127.0.0.1:{proxy.port}/db?application_name=x&sslmode=disable"
