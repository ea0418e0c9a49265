"""Who reads the catalogue, and when."""

import asyncio

import pytest

from magnus._learning import Learner

ROW = {
    "safe_functions": ["now"], "unsafe_functions": [], "unreadable": [], "places": [], "silent": [], "relations": [],
    "bodies": [["a.f", "SELECT 1"], ["a.g", "SET a = 1"], ["a.h", "LISTEN b"]],
}  # fmt: skip


class Server:
    """Answers when it is told to."""

    def __init__(self):
        self.asked = asyncio.Queue()
        self.answers = asyncio.Queue()

    async def ask(self, sql, *arguments):
        assert "pg_catalog.pg_proc" in sql
        assert len(arguments) == 2
        await self.asked.put(1)
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
async def server():
    """A fake server."""
    return Server()


async def settle(condition):
    for _ in range(100):
        if condition():
            return True
        await asyncio.sleep(0)
    return False


async def test_it_is_read_at_the_start_and_when_the_schema_changed(server):
    """Until then nothing is known; the first danger is the reason."""
    learner = Learner(server.ask)
    knowledge = learner.knowledge
    learner.start()
    learner.start()
    await server.asked.get()
    assert knowledge.catalogue is None
    await server.answers.put(ROW)
    assert await settle(lambda: knowledge.catalogue is not None)
    assert knowledge.catalogue.danger == "function a.g can change the session: SET"
    knowledge.changing()
    knowledge.changed()
    await server.asked.get()
    await server.answers.put(ROW | {"bodies": []})
    assert await settle(lambda: knowledge.catalogue is not None)
    assert knowledge.catalogue.danger is None
    assert server.asked.empty()
    await learner.close()
    await learner.close()


async def test_a_change_during_the_reading_is_read_again(server):
    """What was read before it is thrown away."""
    learner = Learner(server.ask)
    learner.start()
    await server.asked.get()
    learner.knowledge.doubted()
    await server.answers.put(ROW)
    await server.asked.get()
    assert learner.knowledge.catalogue is None
    await server.answers.put(ROW)
    assert await settle(lambda: learner.knowledge.catalogue is not None)
    await learner.close()


async def test_a_failed_reading_is_tried_again(server):
    """Until it succeeds nothing is known, and nothing is raised."""
    learner = Learner(server.ask, pause=0.0)
    learner.start()
    await server.answers.put(OSError("gone"))
    await server.answers.put(ROW)
    await server.asked.get()
    await server.asked.get()
    assert await settle(lambda: learner.knowledge.catalogue is not None)
    assert learner.failures == 1
    await learner.close()


async def test_it_is_read_again_now_and_then(server):
    """Others change the schema too."""
    learner = Learner(server.ask, interval=0.0)
    learner.start()
    for _ in range(3):
        await server.answers.put(ROW)
        await server.asked.get()
    await learner.close()
    assert learner.knowledge.catalogue is not None


@pytest.mark.parametrize("answer", [ROW, OSError("gone")], ids=["read", "failed"])
async def test_who_wants_to_start_warm_waits_for_the_first_reading(server, answer):
    """However it ends; and no longer than they said."""
    learner = Learner(server.ask)
    await learner.tried(0.0)
    learner.start()
    waiting = asyncio.create_task(learner.tried(60.0))
    await server.asked.get()
    assert not waiting.done()

    await server.answers.put(answer)

    await waiting
    await learner.close()
