"""The control connection: probes, the events at the edges of a state, and what becomes of a lost connection."""

import asyncio

import asyncpg
import pytest

from magnus._control import Control, Verdicts
from magnus.errors import ConnectError
from magnus.observe import HealthCheckFailed, HealthCheckRecovered, PoolHighUtilization, PoolUtilizationNormal
from tests.facade_fakes import FakeConnection, ManualClock, config, figures, settle, until


class Watched(FakeConnection):
    """Knows who wants to hear of its end."""

    def __init__(self):
        super().__init__()
        self.on_end = None
        self.asked = asyncio.Event()

    async def execute(self, *args, **kwargs):
        self.asked.set()
        return await super().execute(*args, **kwargs)

    def add_termination_listener(self, listener):
        self.on_end = listener

    async def close(self, *, timeout):
        self.is_terminated = True

    def lose(self):
        self.is_terminated = True
        self.on_end(self)


class Server:
    """Gives connections, or the error it is set to."""

    def __init__(self):
        self.error = None
        self.connections = []

    async def connect(self, **arguments):
        if self.error is not None:
            raise self.error
        self.connections.append(Watched())
        return self.connections[-1]


class Bench:
    """A control connection to a server that does what the test says."""

    def __init__(self, **changes):
        self.server = Server()
        self.events = []
        self.clock = ManualClock()
        self.figures = figures()
        self.refused, self.refused_at = None, 0.0
        self.control = Control(
            config(**changes),
            notify=self.events.append,
            clock=self.clock,
            snapshot=lambda: self.figures,
            refused=lambda since: self.refused if self.refused_at >= since else None,
            connect=self.server.connect,
            purpose=lambda: "seen",
            look=self.look,
        )
        self.looked = []
        self.on_look = None

    async def look(self, con):
        self.looked.append(con)
        if self.on_look is not None:
            await self.on_look(con)


@pytest.fixture
async def bench():
    found = Bench()
    yield found
    await found.control.close()


# --- verdicts


def test_a_state_is_announced_when_it_begins_and_when_it_ends():
    """Not on every probe in between."""
    verdicts = Verdicts()

    assert verdicts.succeeded(1.0) is None
    assert verdicts.failed(2.0, "OSError") == HealthCheckFailed(1, "OSError")
    assert verdicts.failed(3.0, "OSError") is None
    assert (verdicts.is_ok, verdicts.failures, verdicts.last_ok) == (False, 2, 1.0)
    assert verdicts.succeeded(5.0) == HealthCheckRecovered(2, 3.0)
    assert (verdicts.is_ok, verdicts.failures, verdicts.last_ok) == (True, 0, 5.0)


def test_utilization_is_announced_above_nine_tenths_and_at_its_end():
    """27 of 30 is 0.9 and not above it; 28 is."""
    verdicts = Verdicts()

    assert verdicts.used(figures(acquired=27, idle=3)) is None
    assert verdicts.used(figures(acquired=28, idle=2)) == PoolHighUtilization(0.9333, 28, 30, 2)
    assert verdicts.used(figures(acquired=30)) is None
    assert verdicts.used(figures(acquired=27, idle=1)) == PoolUtilizationNormal(0.9, 27, 30, 1)
    assert verdicts.used(figures(acquired=1)) is None


# --- probes


async def test_the_connection_is_opened_once_and_kept(bench):
    """A probe is one round trip."""
    assert await bench.control.check()
    assert await bench.control.check()

    assert [con.sent for con in bench.server.connections] == [["SELECT 1", "SELECT 1"]]


async def test_an_unreachable_server_is_a_verdict_and_no_exception(bench):
    """`last_error` says why, in fixed words."""
    bench.server.error = ConnectionRefusedError(111, "refused")

    assert not await bench.control.check()

    assert bench.control.last_error.reason == "unreachable"
    assert bench.events == [HealthCheckFailed(1, "ConnectionRefusedError")]


async def test_a_failed_probe_throws_the_connection_away(bench):
    """The next one opens another."""
    await bench.control.check()
    bench.server.connections[0].replies["SELECT 1"] = asyncpg.InterfaceError("connection is closed")

    assert not await bench.control.check()
    assert await bench.control.check()

    assert bench.server.connections[0].is_terminated
    assert len(bench.server.connections) == 2
    assert [type(event) for event in bench.events] == [HealthCheckFailed, HealthCheckRecovered]


async def test_callers_at_the_same_time_share_a_probe(bench):
    """A thousand readiness requests are one SELECT 1."""
    assert all(await asyncio.gather(*(bench.control.check() for _ in range(1000))))

    assert bench.server.connections[0].sent == ["SELECT 1"]


async def test_a_cancelled_caller_takes_the_probe_from_nobody(bench):
    """The others still get their answer."""
    answer = asyncio.get_running_loop().create_future()
    await bench.control.check()
    bench.server.connections[0].replies["SELECT 1"] = lambda: answer
    first, second = (asyncio.create_task(bench.control.check()) for _ in range(2))
    await settle()

    first.cancel()
    await settle()
    answer.set_result("SELECT 1")

    assert await second
    assert first.cancelled()


async def test_a_lost_connection_is_a_failure_at_once(bench):
    """Nobody has to wait for the next probe to know."""
    await bench.control.check()

    bench.server.connections[0].lose()

    assert not bench.control.verdicts.is_ok
    assert bench.events == [HealthCheckFailed(1, "ConnectionLost")]


async def test_a_lost_connection_is_reopened_without_waiting_for_the_interval():
    """The interval is an hour here; recovery is immediate, though never more than once a second."""
    bench = Bench(health_check_interval=3600.0)
    await bench.control.check()
    bench.control.start()
    await settle()
    bench.clock.advance(0.25)

    bench.server.connections[0].lose()
    await settle()

    assert bench.clock.slept == [0.75]
    assert bench.control.verdicts.is_ok
    assert [type(event) for event in bench.events] == [HealthCheckFailed, HealthCheckRecovered]
    await bench.control.close()


async def test_a_probe_of_somebody_else_that_failed_is_followed_up_without_waiting_for_the_interval():
    """The driver tells nobody of a connection that it ends itself: nothing but the failed probe knows of it."""
    bench = Bench(health_check_interval=3600.0)
    await bench.control.check()
    bench.control.start()
    await settle()
    bench.server.connections[0].replies["SELECT 1"] = asyncpg.InternalClientError("cannot switch to state 12")

    assert not await bench.control.check()
    await settle()

    assert bench.control.verdicts.is_ok
    assert [type(event) for event in bench.events] == [HealthCheckFailed, HealthCheckRecovered]
    await bench.control.close()


async def test_a_server_that_stays_away_is_not_hammered():
    """One probe a second at most, whoever asks first."""
    bench = Bench(health_check_interval=3600.0)
    await bench.control.check()
    bench.control.start()
    bench.server.connections[0].lose()
    bench.server.error = ConnectionRefusedError(111, "refused")

    await settle()
    await settle()

    assert bench.control.verdicts.failures == 2
    assert len(bench.clock.slept) == 1
    await bench.control.close()


async def test_while_the_pool_asks_for_the_server_nobody_else_does():
    """Its refusal counts as a probe that failed, and its success wakes the control connection."""
    bench = Bench(health_check_interval=3600.0)
    await bench.control.check()
    bench.control.start()
    bench.refused, bench.refused_at = ConnectError("starting", reason="starting"), bench.clock.now()
    bench.server.connections[0].lose()

    await settle()
    seen = bench.control.verdicts
    assert (len(bench.server.connections), seen.failures, seen.cause) == (1, 2, "starting")

    bench.refused = None
    bench.control.wake()
    await settle()
    assert seen.is_ok
    await bench.control.close()


async def test_when_the_pool_has_given_up_asking_the_control_connection_asks():
    """A pool that needs no connection knows nothing new of the server."""
    bench = Bench(health_check_interval=3600.0)
    await bench.control.check()
    bench.control.start()
    bench.refused, bench.refused_at = ConnectError("starting", reason="starting"), bench.clock.now() - 60.0
    bench.server.connections[0].lose()

    await settle()

    assert bench.control.verdicts.is_ok
    assert len(bench.server.connections) == 2
    await bench.control.close()


async def test_a_pool_that_is_refused_more_connections_does_not_make_a_living_one_suspect():
    """It may be full, while the server answers."""
    bench = Bench(health_check_interval=0.01)
    await bench.control.check()
    probes = bench.server.connections[0].asked = asyncio.Event()
    bench.refused, bench.refused_at = ConnectError("full", reason="too_many"), bench.clock.now() + 60.0
    bench.control.start()

    await asyncio.wait_for(probes.wait(), 5)

    assert bench.control.verdicts.is_ok
    await bench.control.close()


async def test_a_connection_that_is_replaced_or_closed_is_no_loss(bench):
    """The listener of an old connection says nothing about the present one."""
    await bench.control.check()
    old = bench.server.connections[0]
    old.replies["SELECT 1"] = OSError()
    await bench.control.check()
    await bench.control.check()
    before = list(bench.events)

    old.on_end(old)
    await bench.control.close()
    bench.server.connections[1].on_end(bench.server.connections[1])

    assert bench.events == before


async def test_the_watch_goes_on_until_it_is_closed():
    """Probes at the interval, and looks at the pool as often."""
    bench = Bench(health_check_interval=0.01)
    bench.figures = figures(acquired=30)
    seen = asyncio.Event()
    bench.control._notify = lambda event: (bench.events.append(event), seen.set())
    bench.control.start()

    await asyncio.wait_for(seen.wait(), 5)
    await bench.control.close()

    assert bench.events == [PoolHighUtilization(1.0, 30, 30, 0)]
    assert bench.server.connections[0].is_terminated


async def test_it_is_looked_around_after_each_probe_in_the_background():
    """Not by probes that somebody waits for."""
    bench = Bench(health_check_interval=0.01)
    await bench.control.look_around()
    assert await bench.control.check()
    assert bench.looked == []

    bench.control.start()
    await until(lambda: asyncio.sleep(0, len(bench.looked) >= 2))
    assert set(bench.looked) == set(bench.server.connections)
    await bench.control.close()


async def test_a_probe_waits_for_who_looks_around(bench):
    """A connection carries one statement at a time, and a collision would look like an outage."""
    await bench.control.check()
    done = asyncio.Event()
    bench.on_look = lambda _: done.wait()
    looking = asyncio.create_task(bench.control.look_around())
    probing = asyncio.create_task(bench.control.check())
    await settle()
    assert bench.server.connections[0].sent == ["SELECT 1"]

    done.set()
    await looking
    assert await probing
    assert bench.server.connections[0].sent == ["SELECT 1", "SELECT 1"]


async def test_a_connection_lost_while_looking_around_is_a_failure_at_once(bench):
    """The driver may end it without telling anybody."""

    async def lose(con):
        con.is_terminated = True

    await bench.control.check()
    bench.on_look = lose
    await bench.control.look_around()
    assert bench.events == [HealthCheckFailed(1, "ConnectionLost")]
    assert not bench.control.verdicts.is_ok

    assert await bench.control.check()
    assert len(bench.server.connections) == 2


async def test_no_error_of_a_connect_keeps_the_text_of_the_dsn(bench):
    """The driver quotes a malformed DSN; what is raised and told does not."""
    bench.server.error = ValueError("invalid DSN: postgresql://user:hunter2@")

    await bench.control.check()

    error = bench.control.last_error
    assert "hunter2" not in str(error) + repr(error.__cause__) + repr(bench.events)
    assert error.__suppress_context__ or error.__context__ is None
