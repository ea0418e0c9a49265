"""A question on a connection of its own: what is opened for it is closed, however it ends."""

import asyncio

import pytest

from magnus import _driver
from magnus._beside import Questions
from magnus.errors import ConnectError
from tests.facade_fakes import FakeConnection, config, settle


class Answering(FakeConnection):
    """Has one row, or what the test says in place of it."""

    def __init__(self):
        super().__init__()
        self.is_closed_in_order = False

    async def fetchrow(self, query, *args, timeout=None):
        reply = await self.execute(query, *args, timeout=timeout)
        return None if reply == "NOTHING" else {"a": reply}

    async def close(self, *, timeout):
        self.is_closed_in_order = True


class Server:
    """Remembers what it was asked to open."""

    def __init__(self):
        self.arguments = []
        self.connections = []
        self.error = None

    async def connect(self, **arguments):
        if self.error is not None:
            raise self.error
        self.arguments.append(arguments)
        self.connections.append(Answering())
        return self.connections[-1]


@pytest.fixture
def server():
    return Server()


async def test_each_question_has_a_connection_of_its_own(server):
    """It is bounded in time, and closed in order after the answer."""
    questions = Questions(config(), "catalogue", server.connect)

    assert await questions.ask("SELECT") == {"a": "SELECT"}
    assert await questions.ask("SHOW x") == {"a": "SHOW"}

    assert [con.sent for con in server.connections] == [["SELECT"], ["SHOW x"]]
    assert all(con.is_closed_in_order and con.is_terminated for con in server.connections)
    assert all(con.timeouts[0] is not None for con in server.connections)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("ava_trading_platform", "ava_trading_platform (catalogue)"),
        ("é" * 40, "é" * 25 + " (catalogue)"),
    ],
    ids=["short", "long"],
)
async def test_a_person_recognises_it_by_its_name(server, name, shown):
    """Also when the service's own name fills what the server keeps of one."""
    await Questions(config(application_name=name), "catalogue", server.connect).ask("SELECT")

    found = server.arguments[0]["server_settings"]["application_name"]
    assert found == shown
    assert len(found.encode()) <= 63


async def test_a_failed_question_leaves_no_connection_behind(server):
    """An error of the server's, and an answer without a row."""

    async def broken(**_):
        con = Answering()
        con.replies = {"A": OSError("gone"), "B": "NOTHING"}
        server.connections.append(con)
        return con

    questions = Questions(config(), "catalogue", broken)
    with pytest.raises(OSError, match="gone"):
        await questions.ask("A")
    with pytest.raises(LookupError):
        await questions.ask("B")

    assert all(con.is_terminated for con in server.connections)


async def test_a_server_that_is_away_is_named_as_such(server):
    """In fixed words, as every connect."""
    server.error = ConnectionRefusedError(111, "refused")

    with pytest.raises(ConnectError) as caught:
        await Questions(config(), "catalogue", server.connect).ask("SELECT")

    assert caught.value.reason == "unreachable"


async def test_a_cancelled_question_ends_its_connection_at_once(server):
    """Nobody waits for an answer that nobody wants."""
    con = Answering()
    con.replies["SELECT"] = asyncio.get_running_loop().create_future

    async def connect(**_):
        return con

    task = asyncio.create_task(Questions(config(), "catalogue", connect).ask("SELECT"))
    await settle()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert task.cancelled()
    assert con.is_terminated


async def test_a_child_process_lets_go_of_it(monkeypatch):
    """Without a word to the parent's server."""
    con, disowned = Answering(), []
    con.replies["SELECT"] = asyncio.get_running_loop().create_future
    monkeypatch.setattr(_driver, "disown", disowned.append)

    async def connect(**_):
        return con

    questions = Questions(config(), "catalogue", connect)
    questions.forked()
    task = asyncio.create_task(questions.ask("SELECT"))
    await settle()
    questions.forked()

    assert disowned == [con]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
