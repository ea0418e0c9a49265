"""The driver's errors in our words, and what is done to one connection."""

from __future__ import annotations

import asyncio
import socket
import ssl

import asyncpg
import pytest

from magnus._driver import (
    AlreadyReleased,
    Opener,
    PoolClosed,
    arrival_probe,
    connect_error,
    guard_socket,
    is_connection_lost,
)
from magnus.errors import ConnectError, PoolError
from tests.unit.pool.fake_driver import FakeConnection, FakeDriver


@pytest.mark.parametrize(
    ("error", "reason", "sqlstate"),
    [
        (ConnectionRefusedError("x"), "unreachable", None),
        (FileNotFoundError("no socket"), "unreachable", None),
        (socket.gaierror(-2, "unknown"), "unreachable", None),
        (asyncpg.ConnectionDoesNotExistError("x"), "unreachable", "08003"),
        (asyncpg.AdminShutdownError("x"), "unreachable", "57P01"),
        (asyncpg.InvalidPasswordError("x"), "credentials", "28P01"),
        (asyncpg.InvalidAuthorizationSpecificationError("x"), "credentials", "28000"),
        (asyncpg.InvalidCatalogNameError("x"), "database", "3D000"),
        (asyncpg.TooManyConnectionsError("x"), "too_many", "53300"),
        (asyncpg.CannotConnectNowError("x"), "starting", "57P03"),
        (ssl.SSLCertVerificationError("x"), "tls", None),
        (ConnectionError("server rejected SSL upgrade"), "tls", None),
        (TimeoutError(), "timeout", None),
        (asyncpg.UndefinedFunctionError("x"), "other", "42883"),
        (asyncpg.InternalClientError("x"), "other", None),
        (ValueError("could not parse"), "other", None),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, BaseException) else str(each),
)
def test_a_failed_connect_has_a_fixed_reason(error, reason, sqlstate):
    """One word for each kind of failure."""
    found = connect_error(error)

    assert isinstance(found, ConnectError)
    assert (found.reason, found.sqlstate, found.phase) == (reason, sqlstate, "connect")


def test_the_reason_is_found_behind_another_error():
    """The driver wraps what the server said."""
    outer = ConnectionError("could not connect")
    outer.__cause__ = asyncpg.TooManyConnectionsError("sorry")

    assert connect_error(outer).reason == "too_many"


def test_no_secret_reaches_the_text():
    """Neither password nor DSN, whatever the driver says; a complaint that quotes the DSN is not chained."""
    dsn = "postgresql://user:se#cret@host/db"

    found = connect_error(ValueError(f"invalid port in {dsn}"))

    assert "cret" not in str(found)
    assert found.__cause__ is None


def raised(error: BaseException, *, cause: BaseException | None = None, context: BaseException | None = None):
    error.__cause__, error.__context__ = cause, context
    return error


@pytest.mark.parametrize(
    ("error", "is_lost"),
    [
        (asyncpg.ConnectionDoesNotExistError("x"), True),
        (asyncpg.AdminShutdownError("x"), True),
        (ConnectionResetError(), True),
        (BrokenPipeError(), True),
        (asyncpg.InterfaceError("connection is closed"), True),
        (asyncpg.InterfaceError("cannot call Transaction.__aexit__(): the underlying connection is closed"), True),
        (asyncpg.InternalClientError("cannot switch to state 15"), True),
        (raised(asyncpg.InterfaceError("masked"), context=asyncpg.AdminShutdownError("x")), True),
        (raised(RuntimeError("mine"), cause=raised(ValueError(), cause=ConnectionResetError())), True),
        (asyncpg.UniqueViolationError("x"), False),
        (asyncpg.QueryCanceledError("x"), False),
        (asyncpg.SerializationError("x"), False),
        (asyncpg.InterfaceError("cannot perform operation: another operation is in progress"), False),
        (TimeoutError(), False),
        (ValueError(), False),
    ],
    ids=repr,
)
def test_a_lost_connection_is_recognised_by_what_hides_behind_the_error(error, is_lost):
    """Causes and contexts are walked."""
    assert is_connection_lost(error) is is_lost


def test_an_error_that_is_its_own_context_ends_the_walk():
    """Chains can be circular."""
    first, second = ValueError(), KeyError()
    first.__context__, second.__context__ = second, first

    assert not is_connection_lost(first)


@pytest.mark.parametrize("kind", [PoolClosed, AlreadyReleased])
def test_misuse_is_a_pool_error_and_the_driver_s_interface_error(kind):
    """Code written for asyncpg catches it."""
    error = kind("closed")

    assert isinstance(error, PoolError)
    assert isinstance(error, asyncpg.InterfaceError)
    assert str(error) == "closed"


@pytest.mark.parametrize(
    "name", ["_drop_local_statement_cache", "_drop_global_statement_cache", "_drop_local_type_cache",
             "_drop_global_type_cache"],
)  # fmt: skip
def test_the_driver_still_has_the_hooks_that_are_overridden(name):
    """A new version that renames them fails here, not in production."""
    assert callable(getattr(asyncpg.Connection, name))
    assert "_transport" in asyncpg.Connection.__slots__


class Tried(Exception):
    pass


async def test_a_connection_that_cannot_be_set_up_is_terminated():
    """Nothing half-open is left behind."""
    driver = FakeDriver()
    made = FakeConnection()

    async def refuse():
        raise Tried

    made.on_execute = refuse

    async def connect(**_arguments):
        return made

    with pytest.raises(Tried):
        await Opener(list, connect).open()

    assert made.is_closed()
    assert driver.opened == []


async def test_a_cancelled_set_up_terminates_the_connection():
    """At any await."""
    made, asked = FakeConnection(), asyncio.Event()

    async def hang():
        asked.set()
        await asyncio.Event().wait()

    made.on_execute = hang

    async def connect(**_arguments):
        return made

    opening = asyncio.create_task(Opener(list, connect).open())
    await asked.wait()
    opening.cancel()

    with pytest.raises(asyncio.CancelledError):
        await opening
    assert made.is_closed()


async def test_a_new_connection_inside_a_transaction_is_refused():
    """Proven idle, or not served."""
    made = FakeConnection()
    made.is_in_block = True

    async def connect(**_arguments):
        return made

    with pytest.raises(ConnectError, match="transaction"):
        await Opener(list, connect).open()

    assert made.is_closed()


class Wire:
    """
    A connection that has nothing but a socket.
    """

    def __init__(self, sock: socket.socket | None) -> None:
        self._transport = self
        self._sock = sock

    def get_extra_info(self, name):
        assert name == "socket"
        return self._sock


def test_tcp_sockets_are_guarded():
    """A peer that vanished is noticed within seconds."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        guard_socket(Wire(sock))

        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2000


def test_unix_sockets_and_none_are_left_alone():
    """The kernel tells at once when the other side is gone."""
    near, far = socket.socketpair()
    with near, far:
        guard_socket(Wire(near))
        guard_socket(Wire(None))

        assert near.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


def test_the_probe_sees_unread_bytes_and_the_end_of_the_stream():
    """Without reading them."""
    near, far = socket.socketpair()
    with near:
        has_arrived = arrival_probe(Wire(near))
        assert has_arrived() is False

        far.send(b"farewell")
        assert has_arrived() is True
        near.recv(100)
        assert has_arrived() is False

        far.close()
        assert has_arrived() is True


def test_a_connection_without_a_socket_is_never_suspicious():
    """Nothing can be said, nothing is said."""
    assert arrival_probe(Wire(None))() is False
