"""One instance among others, on a control connection that answers what a test says; no server."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import asyncpg
import pytest

from magnus._beside import Turn
from magnus._fleet import Fleet, beside
from magnus.config import DatabaseConfig
from magnus.errors import ConfigError
from magnus.observe import FleetOverBudget, FleetUnseen, FleetWithinBudget
from tests.facade_fakes import ManualClock, settle


class Control:
    """Knows its name, and who else is there."""

    def __init__(self, name="ava (magnus 30+2)"):
        self.name = name
        self.named = []
        self.others = {}
        self.max_connections = 100
        self.error = None
        self.read = 0

    def get_settings(self):
        return SimpleNamespace(application_name=self.name)

    async def fetchval(self, query, name, timeout):
        assert timeout
        self.name = name
        self.named.append(name)

    async def fetch(self, query, timeout):
        assert timeout
        self.read += 1
        if self.error is not None:
            raise self.error
        constant = {
            "database": 5, "role": 10, "is_here": True, "is_own": True, "role_limit": -1, "database_limit": -1,
            "max_connections": self.max_connections, "reserved": 3,
        }  # fmt: skip
        return [{"name": name, "sessions": count} | constant for name, count in {self.name: 1, **self.others}.items()]


class Bench:
    """A fleet's member whose pool has a size."""

    def __init__(self, **changes):
        self.config = DatabaseConfig(**{"application_name": "ava"} | changes)
        self.events = []
        self.clock = ManualClock()
        self.size = self.wanted = self.config.max_pool_size
        self.con = Control()
        self.fleet = Fleet(
            self.config,
            notify=self.events.append,
            clock=self.clock,
            size=lambda: (self.size, self.wanted),
            limit=self.limit,
        )

    def limit(self, most):
        self.size = min(most, self.wanted)

    async def read(self):
        await self.fleet.read(self.con)


async def test_the_warning_comes_once_with_the_numbers_and_ends_once():
    """Not at every look."""
    bench = Bench()
    await bench.read()
    assert bench.events == []

    bench.con.others = {"desk (magnus 20+2)": 3, "psql": 4}
    await bench.read()
    await bench.read()
    assert bench.events == [
        FleetOverBudget(
            instances=4, connections=98, budget=93, limit="max_connections", most=100, reserved=3, others=4,
            advice="set max_pool_size to 21 at most, or fleet_size to share them; or put a pooler in front",
        )
    ]  # fmt: skip

    bench.con.others = {}
    await bench.read()
    assert bench.events[1:] == [FleetWithinBudget(instances=1, connections=32, budget=97)]
    assert bench.fleet.figures()["state"] == "within"


async def test_without_fleet_size_nothing_is_limited():
    """It warns, and that is all."""
    bench = Bench()
    bench.con.others = {"desk (magnus 30+2)": 50}
    await bench.read()
    assert bench.size == 30
    assert bench.fleet.figures()["state"] == "over"


async def test_who_shares_has_its_share_and_says_so():
    """At the first look, and again whenever it changes."""
    bench = Bench(fleet_size=10)
    await bench.read()
    assert bench.size == (97 - 5) // 10 - 2
    assert bench.con.name == "ava (magnus 7/30+2)"

    bench.con.others = {"psql": 30}
    await bench.read()
    assert bench.size == (97 - 30 - 5) // 10 - 2
    assert bench.con.named[-1] == "ava (magnus 4/30+2)"


async def test_a_share_grows_when_three_looks_allowed_it():
    """The looks are `health_check_interval` apart."""
    bench = Bench(fleet_size=10, health_check_interval=5.0)
    bench.con.others = {"psql": 30}
    await bench.read()
    bench.con.others = {}
    for _ in range(3):
        bench.clock.advance(5.0)
        await bench.read()
        assert bench.size == 4
    bench.clock.advance(5.0)
    await bench.read()
    assert bench.size == 7


async def test_another_connection_is_told_again():
    """A control connection that was lost takes its name with it."""
    bench = Bench(fleet_size=10)
    await bench.read()
    bench.con = Control("ava (magnus 30/30+2)")
    await bench.read()
    assert bench.con.name == "ava (magnus 7/30+2)"


@pytest.mark.parametrize(
    "error", [TimeoutError(), asyncpg.QueryCanceledError("limit"), asyncpg.ConnectionDoesNotExistError("gone")]
)
async def test_what_cannot_be_read_now_changes_nothing(error):
    """The size stays, it is told once, and the next look may see again."""
    bench = Bench(fleet_size=10)
    await bench.read()
    before = len(bench.events)
    bench.con.error = error
    await bench.read()
    await bench.read()
    assert bench.size == 7
    assert bench.events[before:] == [FleetUnseen(type(error).__name__, 7)]
    assert bench.fleet.figures() | {"state": "unseen", "reason": type(error).__name__} == bench.fleet.figures()

    bench.con.error = None
    await bench.read()
    assert bench.fleet.figures()["state"] == "within"


async def test_what_can_never_be_read_limits_nobody():
    """A role without the right to look has the pool that it was given."""
    bench = Bench(fleet_size=10)
    bench.size = 1  # as before the first look
    bench.con.error = asyncpg.InsufficientPrivilegeError("permission denied for function pg_stat_get_activity")
    await bench.read()
    assert bench.size == 30
    assert bench.events == [FleetUnseen("InsufficientPrivilegeError", 30)]
    assert bench.fleet.figures() == {"state": "unseen", "reason": "InsufficientPrivilegeError"}


async def test_before_the_first_look_there_are_no_figures():
    """Rather than zeros."""
    assert Bench().fleet.figures() is None


def test_what_is_beside_the_pool_is_what_is_switched_on():
    """The control connection; one by turns; one that listens; one that asks where the primary stands."""
    assert beside(DatabaseConfig()) == 2
    assert beside(DatabaseConfig(slow_log="off", reset="always")) == 1
    assert beside(DatabaseConfig(slow_log="off")) == 2
    assert beside(DatabaseConfig(cache_notify=True, replicas=["host=b"])) == 4


def test_behind_a_pooler_its_pool_is_the_limit():
    """Its clients' connections are not the server's."""
    with pytest.raises(ConfigError, match="default_pool_size"):
        DatabaseConfig(pooler="transaction", fleet_size=3)


# --- one at a time


async def test_a_turn_has_one_holder_and_the_others_come_in_order():
    """Who holds it hears that it is wanted."""
    turn, seen, heard = Turn(), [], []

    async def hold(name):
        await turn.take()
        seen.append(name)
        await asyncio.sleep(0)
        turn.give()

    await turn.take(lambda: heard.append("wanted"))
    assert not turn.is_wanted
    tasks = [asyncio.create_task(hold(name)) for name in "ab"]
    await settle()
    assert (seen, heard, turn.is_wanted) == ([], ["wanted"] * 2, True)

    turn.give()
    await asyncio.gather(*tasks)
    assert seen == ["a", "b"]
    assert heard == ["wanted"] * 2


async def test_who_goes_away_wants_no_turn():
    """A cancelled one is not waited for."""
    turn = Turn()
    await turn.take()
    waiting = asyncio.create_task(turn.take())
    await settle()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not turn.is_wanted
    turn.give()
    await turn.take()
