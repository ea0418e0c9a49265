"""One instance among those that use the same server: it announces itself, sees the others, and keeps to its share.

The control connection does both, in its own time; no statement waits for it. What cannot be read limits nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from magnus import sql
from magnus._beside import named
from magnus._shares import Ceilings, Sessions, Share, accounts, fitting, pool_share, purpose, tightest
from magnus.observe import FleetOverBudget, FleetUnseen, FleetWithinBudget

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from magnus._clock import Clock
    from magnus._driver import Connection
    from magnus._shares import Account
    from magnus.config import DatabaseConfig
    from magnus.observe import Event

_LIMIT: Final = 2.0
_LOOKS: Final = 3  # for as many a larger share must be allowed before it is taken
_NEVER: Final = "42"  # the class of SQLSTATEs of what no repetition mends: no permission, no such function
_NAMED: Final = "SELECT pg_catalog.set_config('application_name', $1, false)"


def beside(config: DatabaseConfig) -> int:
    """
    Return how many connections an instance has on the server beside its pool, at most: the control connection, one for
    the slow-query log and the catalogue by turns, one that listens, one that asks where the primary stands.
    """
    by_turns = config.slow_log == "table" or (config.reset == "smart" and not config.is_pooled)
    return 1 + by_turns + config.cache_notify + bool(config.replicas)


class Fleet:
    """
    Reads who uses the server whenever it is given a connection, and calls `limit` with the size that the pool may have
    when the instance shares. `size` returns the size that the pool has, and the one that it would have alone.
    """

    def __init__(
        self,
        config: DatabaseConfig,
        *,
        notify: Callable[[Event], None],
        clock: Clock,
        size: Callable[[], tuple[int, int]],
        limit: Callable[[int], None],
    ) -> None:
        self._config = config
        self._notify = notify
        self._clock = clock
        self._size = size
        self._limit = limit
        self._beside = beside(config)
        self._share = Share(_LOOKS * config.health_check_interval)
        self._base: str | None = None
        self._announced: tuple[object, str] | None = None
        self._is_over = False
        self.account: Account | None = None
        self.ceilings: Ceilings | None = None
        self.failure: str | None = None

    @property
    def is_sharing(self) -> bool:
        return self._config.fleet_size > 0

    def purpose(self) -> str:
        """
        Return what the control connection's name says of the instance.
        """
        if self._config.is_pooled:
            return purpose(0, 0, self._beside, is_sharing=False)
        size, wanted = self._size()
        return purpose(size, wanted, self._beside, is_sharing=self.is_sharing)

    async def read(self, con: Connection) -> None:
        """
        Look who is there, keep to the share that follows, and announce it. Never raises; bounded in time.
        """
        try:
            await self._announce(con)
            rows = await con.fetch(sql.text("fleet"), timeout=_LIMIT)
            self._saw([dict(row) for row in rows])
            await self._announce(con)
        except Exception as error:  # noqa: BLE001  # whatever it is, the service goes on with what it has
            self._missed(error)

    async def _announce(self, con: Connection) -> None:
        text = self.purpose()
        if self._announced is None or self._announced[0] is not con:
            self._base = con.get_settings().application_name.rpartition(" (")[0]
            self._announced = (con, "")
        if self._announced[1] != text:
            await con.fetchval(_NAMED, named(self._base or "", text), timeout=_LIMIT)
            self._announced = (con, text)

    def _saw(self, rows: Sequence[Mapping[str, Any]]) -> None:
        first = rows[0]
        ceilings = Ceilings(first["max_connections"], first["reserved"], first["role_limit"], first["database_limit"])
        sessions = [
            Sessions(row["name"], row["database"], row["role"], row["sessions"], row["is_here"], row["is_own"])
            for row in rows
        ]
        found = accounts(ceilings, sessions)
        self.ceilings, self.account, self.failure = ceilings, tightest(found), None
        if self.is_sharing:
            allowed = pool_share(found, self._config.fleet_size, self._beside)
            self._limit(self._share.settle(allowed, self._clock.now()))
        self._judge(self.account, ceilings)

    def _judge(self, account: Account, ceilings: Ceilings) -> None:
        is_over = account.excess > 0
        if is_over == self._is_over:
            return
        self._is_over = is_over
        if not is_over:
            self._notify(FleetWithinBudget(account.instances, account.announced, account.budget))
            return
        self._notify(
            FleetOverBudget(
                instances=account.instances,
                connections=account.announced,
                budget=account.budget,
                limit=account.limit,
                most=ceilings.max_connections if account.limit == "max_connections" else account.most,
                reserved=ceilings.reserved if account.limit == "max_connections" else 0,
                others=account.others,
                advice=_advice(account, self._beside),
            )
        )

    def _missed(self, error: Exception) -> None:
        is_news, self.failure = self.failure is None, type(error).__name__
        if not self.is_sharing:
            return
        if self._share.size is None and str(getattr(error, "sqlstate", "")).startswith(_NEVER):
            self._limit(self._size()[1])  # it will never be known
        if is_news:
            self._notify(FleetUnseen(self.failure, self._size()[0]))

    def figures(self) -> dict[str, Any] | None:
        """
        Return what was seen last, ready for JSON; None before anything was.
        """
        account, ceilings = self.account, self.ceilings
        if account is None or ceilings is None:
            return None if self.failure is None else {"state": "unseen", "reason": self.failure}
        size, wanted = self._size()
        return {
            "state": "unseen" if self.failure else "over" if account.excess > 0 else "within",
            "reason": self.failure,
            "instances": account.instances,
            "sharing": account.sharing,
            "connections": account.announced,
            "budget": account.budget,
            "limit": account.limit,
            "max_connections": ceilings.max_connections,
            "reserved": ceilings.reserved,
            "others": account.others,
            "fleet_size": self._config.fleet_size,
            "pool_size": size,
            "max_pool_size": wanted,
            "beside": self._beside,
        }


def _advice(account: Account, beside: int) -> str:
    size = fitting(account, beside)
    smaller = f"set max_pool_size to {size} at most, or fleet_size to share them" if size else "fewer instances"
    return f"{smaller}; or put a pooler in front"
