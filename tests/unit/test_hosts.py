"""Several hosts: in order, a moment apart, the first that is fit; what is too late is given back."""

import asyncio

import asyncpg
import pytest

from magnus import _driver
from magnus._hosts import NoHost, first_of
from magnus.config import DatabaseConfig


class Host:
    """Answers when it is let, with itself or with its error."""

    def __init__(self, error=None, *, is_open=True):
        self.error = error
        self.gate = asyncio.Event()
        self.asked = asyncio.Event()
        self.was_cancelled = False
        if is_open:
            self.gate.set()

    async def __call__(self):
        self.asked.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        if self.error is not None:
            raise self.error
        return self


async def race(*hosts, stagger=60.0, late=None):
    late = [] if late is None else late
    return await first_of(
        hosts, is_final=lambda e: isinstance(e, PermissionError), discard=late.append, stagger=stagger
    )


async def test_the_first_host_is_taken_and_no_other_is_asked():
    """In the order in which they are named."""
    one, two = Host(), Host()
    assert await race(one, two) == (0, one)
    assert not two.asked.is_set()


async def test_a_host_that_refuses_costs_no_time():
    """The next one is tried at once, whatever the stagger is."""
    assert (await race(Host(OSError()), Host(OSError()), Host()))[0] == 2


async def test_a_silent_host_does_not_keep_the_next_one_waiting():
    """It is tried beside the first, which is given up when the second is fit."""
    silent, fit = Host(is_open=False), Host()
    assert await race(silent, fit, stagger=0.001) == (1, fit)
    await asyncio.sleep(0)
    assert silent.was_cancelled


async def test_a_host_that_answers_late_is_taken_when_nobody_else_was_fit():
    """It is not given up while it may still answer."""
    silent, task_started = Host(is_open=False), asyncio.Event()

    async def refuse():
        task_started.set()
        raise OSError

    task = asyncio.create_task(race(silent, refuse, stagger=0.001))
    await task_started.wait()
    silent.gate.set()
    assert await task == (0, silent)


async def test_what_is_fit_at_the_same_time_is_given_back():
    """Two connections, one is used, one is closed."""
    late, one, two = [], Host(is_open=False), Host(is_open=False)
    task = asyncio.create_task(race(one, two, stagger=0.001, late=late))
    await two.asked.wait()
    one.gate.set()
    two.gate.set()
    assert await task == (0, one)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert late == [two] or two.was_cancelled


async def test_wrong_credentials_end_it():
    """No other host knows another password; trying them all would lock the account."""
    other = Host()
    with pytest.raises(PermissionError):
        await race(Host(PermissionError()), other)
    assert not other.asked.is_set()


async def test_when_none_is_fit_all_errors_are_there():
    """In the order in which they came."""
    first, second = OSError(1), OSError(2)
    with pytest.raises(NoHost) as caught:
        await race(Host(first), Host(second))
    assert caught.value.errors == (first, second)


async def test_cancelled_all_are():
    """Nobody goes on connecting."""
    hosts = [Host(is_open=False), Host(is_open=False)]
    task = asyncio.create_task(race(*hosts, stagger=0.001))
    await hosts[1].asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert all(host.was_cancelled for host in hosts)


# --- with the driver


class Servers:
    """In place of asyncpg.connect: what each host does."""

    def __init__(self, **hosts):
        self.hosts = hosts
        self.asked = []

    async def connect(self, *, host=None, server_settings=None, target_session_attrs=None, **_):
        self.asked.append((host, target_session_attrs, dict(server_settings or {})))
        found = self.hosts[host]
        found = found(target_session_attrs) if callable(found) else found
        if isinstance(found, Exception):
            raise found
        return found


def standby(wanted):
    """A standby is fit for who wants any, or a standby."""
    if wanted in {"any", "standby", "prefer-standby"}:
        return "standby"
    return asyncpg.TargetServerAttributeNotMatched(f"None of the hosts match the target attribute requirement {wanted}")


def primary(wanted):
    return asyncpg.TargetServerAttributeNotMatched("none is standby") if wanted == "standby" else "primary"


@pytest.fixture
def servers(monkeypatch):
    found = Servers()
    monkeypatch.setattr(asyncpg, "connect", found.connect)
    return found


def arguments(dsn, environ=None):
    return DatabaseConfig(dsn=dsn).connect_arguments(environ or {"PGSSLMODE": "disable"})


@pytest.mark.parametrize(
    ("asked", "answer", "hosts"),
    [
        ("", "primary", ["a", "b"]),
        ("?target_session_attrs=any", "standby", ["a"]),
        ("?target_session_attrs=standby", "standby", ["a"]),
        ("?target_session_attrs=prefer-standby", "standby", ["a"]),
    ],
)
async def test_of_several_hosts_one_that_takes_writes_is_wanted(servers, asked, answer, hosts):
    """Unless something else was asked for."""
    servers.hosts = {"a": standby, "b": primary}
    assert await _driver.driver_connect(**arguments(f"postgresql://u@a,b/d{asked}")) == answer
    assert [host for host, _, _ in servers.asked] == hosts


async def test_without_a_standby_who_prefers_one_takes_the_primary(servers):
    """The second time round any will do."""
    servers.hosts = {"a": OSError(), "b": primary}
    dsn = "postgresql://u@a,b/d?target_session_attrs=prefer-standby"
    assert await _driver.driver_connect(**arguments(dsn)) == "primary"


async def test_a_database_that_a_standby_does_not_know_yet_is_asked_of_the_next_host(servers):
    """One that was created a moment ago; where nobody knows it, that is what is told."""
    servers.hosts = {"a": asyncpg.InvalidCatalogNameError("3D000"), "b": primary}
    assert await _driver.driver_connect(**arguments("postgresql://u@a,b/d")) == "primary"
    servers.hosts["b"] = standby
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await _driver.driver_connect(**arguments("postgresql://u@a,b/d"))


async def test_the_host_that_was_fit_is_tried_first_the_next_time(servers):
    """A standby in front costs one attempt, not one for each connection."""
    servers.hosts = {"a": standby, "b": primary}
    found = arguments("postgresql://u@a,b/d")
    for _ in range(3):
        await _driver.driver_connect(**found)
    assert [host for host, _, _ in servers.asked] == ["a", "b", "b", "b"]


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (asyncpg.CannotConnectNowError("57P03"), standby, "starting"),
        (OSError(), standby, "read_only"),
        (asyncpg.TooManyConnectionsError("53300"), OSError(), "too_many"),
        (asyncpg.InvalidPasswordError("28P01"), primary, "credentials"),
        (OSError(), TimeoutError(), "timeout"),
    ],
)
async def test_when_no_host_is_fit_the_failure_that_says_most_is_told(servers, first, second, reason):
    """Down, starting, full, refused, or read only: they are five different things to do."""
    servers.hosts = {"a": first, "b": second}
    with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.TargetServerAttributeNotMatched)) as caught:
        await _driver.driver_connect(**arguments("postgresql://u@a,b/d"))
    assert _driver.connect_error(caught.value).reason == reason


def test_hosts_of_the_environment_are_several_too():
    """PGHOST and PGPORT, as libpq reads them; one host, or a service file, is the driver's affair."""
    environ = {"PGSSLMODE": "disable", "PGHOST": "a,b", "PGPORT": "1,2"}
    assert arguments("", environ)["hosts"] == [("a", 1), ("b", 2)]
    assert arguments("", {**environ, "PGPORT": "5"})["hosts"] == [("a", 5), ("b", 5)]
    assert arguments("", {**environ, "PGTARGETSESSIONATTRS": "any"})["target_session_attrs"] == "any"
    assert "hosts" not in arguments("", {"PGSSLMODE": "disable", "PGHOST": "a"})
    assert "hosts" not in arguments("service=x", environ)


def test_a_connect_to_several_hosts_may_take_longer():
    """The timeout is for each of them; the last begins last."""
    found = arguments("postgresql://u@a,b,c/d")
    assert _driver.connect_limit(5.0, found) == 5.5
    assert _driver.connect_limit(5.0, arguments("postgresql://u@a/d")) == 5.0


# --- a setting that some servers refuse


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.InvalidParameterValueError('invalid value for parameter "client_connection_check_interval": 500'),
        asyncpg.ProtocolViolationError("unsupported startup parameter: client_connection_check_interval"),
        asyncpg.UndefinedObjectError('unrecognized configuration parameter "client_connection_check_interval"'),
    ],
    ids=["platform", "pooler", "unknown"],
)
async def test_the_check_of_the_clients_socket_is_left_out_where_it_is_refused(servers, error, monkeypatch):
    """Once: the pool's next connections do not ask for it again."""

    async def connect(*, server_settings, **_):
        servers.asked.append("client_connection_check_interval" in server_settings)
        if servers.asked[-1]:
            raise error
        return "connected"

    monkeypatch.setattr(asyncpg, "connect", connect)
    found = arguments("postgresql://u@127.0.0.1/d")
    assert await _driver.driver_connect(**found) == "connected"
    assert await _driver.driver_connect(**found) == "connected"
    assert servers.asked == [True, False, False]


async def test_any_other_refusal_is_raised(servers):
    """A setting of the user's own is not dropped silently."""
    servers.hosts = {None: asyncpg.InvalidParameterValueError('invalid value for parameter "work_mem"')}
    with pytest.raises(asyncpg.InvalidParameterValueError):
        await _driver.driver_connect(**arguments("postgresql://u@127.0.0.1/d"))
    assert len(servers.asked) == 1
