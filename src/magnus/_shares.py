"""How the instances on one server share its connections: arithmetic over who holds them. Knows no connection.

Theory of operation. An *instance* is one connected `Database`, mostly a process. Its control connection says in its
application_name how many connections there may be of it: `ava (magnus 30+2)` is a pool of at most 30 and two beside it;
`ava (magnus 3/30+2)` has 3 of the 30 that it was given, because it *shares*. Every role may read that of everybody.

What the server has for clients (`max_connections` less what is reserved) less what *others* hold is the *budget*.
Others are sessions that no instance answers for: a group of sessions with an instance's name, role and database are
the instances' own up to what they announce, and strangers' beyond it. What instances announce that do not share is
theirs. The rest is divided by the number of those that share: the highest number that there will ever be (`fleet_size`)
or, when more are there, by these. So nobody need be asked before a connection is opened, and who comes later finds its
share.
A twentieth is kept back: for backends that are still on their way out, and so that an instance too many is let in, is
seen, and makes the shares smaller.

A limit of the role or the database is a budget of the same kind, over the sessions that it counts. The smallest counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_ROOM: Final = 1 / 20
_LEAST: Final = 1
_PURPOSE: Final = re.compile(r"(?P<base>.*) \(magnus (?:(?P<size>\d{1,6})/)?(?P<wanted>\d{1,6})\+(?P<beside>\d{1,2})\)")
_CUT: Final = 60  # bytes from which the name before the purpose may be shortened: 63, less a character


def purpose(size: int, wanted: int, beside: int, *, is_sharing: bool) -> str:
    """
    Return what an instance appends to its control connection's name.
    """
    return f"magnus {size}/{wanted}+{beside}" if is_sharing else f"magnus {wanted}+{beside}"


@dataclass(frozen=True, slots=True)
class Sessions:
    """
    Client sessions that look alike: `count` with this name, in this database, of this role (what tells them apart).

    `is_here` and `is_own` say whether database and role are the reader's.
    """

    name: str
    database: object
    role: object
    count: int
    is_here: bool
    is_own: bool


@dataclass(frozen=True, slots=True)
class Ceilings:
    """
    What the server, the reader's role and its database allow; -1: no limit.
    """

    max_connections: int
    reserved: int
    role: int
    database: int


@dataclass(frozen=True, slots=True)
class Instances:
    """
    Instances that announce the same.
    """

    base: str
    is_cut: bool
    sessions: Sessions
    size: int
    beside: int
    is_sharing: bool

    @classmethod
    def of(cls, sessions: Sessions) -> Instances | None:
        """
        Return the instances whose control connections these are, None when they are none.
        """
        found = _PURPOSE.fullmatch(sessions.name)
        if found is None:
            return None
        size, wanted = found["size"], found["wanted"]
        is_cut = len(sessions.name.encode()) >= _CUT
        size_now = int(wanted if size is None else size)
        return cls(found["base"], is_cut, sessions, size_now, int(found["beside"]), is_sharing=size is not None)

    @property
    def announced(self) -> int:
        """
        Connections that they may open together.
        """
        return self.sessions.count * (self.size + self.beside)

    def owns(self, sessions: Sessions) -> bool:
        """
        Say whether sessions look like theirs.
        """
        if (sessions.database, sessions.role) != (self.sessions.database, self.sessions.role):
            return False
        name, base = sessions.name, self.base
        return name == base or name.startswith(f"{base} (") or (self.is_cut and name.startswith(base))


@dataclass(frozen=True, slots=True)
class Account:
    """
    The connections under one limit.

    Attributes:
        limit: Which it is: "max_connections", "role" or "database".
        most: What it leaves to clients.
        instances: How many there are.
        sharing: How many of them share.
        announced: Connections that all of them may open.
        fixed: Connections that those may open that do not share.
        others: Connections that no instance answers for.
    """

    limit: str
    most: int
    instances: int
    sharing: int
    announced: int
    fixed: int
    others: int

    @property
    def budget(self) -> int:
        """
        Connections that there are for instances.
        """
        return max(0, self.most - self.others)

    @property
    def excess(self) -> int:
        """
        Connections that instances may open and the server does not have.
        """
        return self.announced - self.budget

    @classmethod
    def of(cls, limit: str, most: int, sessions: Sequence[Sessions]) -> Account:
        """
        Draw up the account of a limit that counts these sessions.
        """
        found = [each for each in map(Instances.of, sessions) if each is not None]
        return cls(
            limit=limit,
            most=most,
            instances=sum(each.sessions.count for each in found),
            sharing=sum(each.sessions.count for each in found if each.is_sharing),
            announced=sum(each.announced for each in found),
            fixed=sum(each.announced for each in found if not each.is_sharing),
            others=_others(found, sessions),
        )

    def share(self, fleet_size: int) -> int:
        """
        Return how many connections each instance that shares may have, at most `fleet_size` of them expected.
        """
        kept = ceil(self.most * _ROOM)
        return max(0, self.budget - self.fixed - kept) // max(fleet_size, self.sharing, 1)


def _others(found: Sequence[Instances], sessions: Iterable[Sessions]) -> int:
    answered: dict[tuple[str, object, object], int] = {}
    for each in found:
        key = (each.base, each.sessions.database, each.sessions.role)
        answered[key] = answered.get(key, 0) + each.announced
    strangers = 0
    for group in sessions:
        owners = [each for each in found if each.owns(group)]
        owner = max(owners, key=lambda each: len(each.base), default=None)
        left = group.count
        if owner is not None:
            key = (owner.base, group.database, group.role)
            taken = min(left, answered[key])
            answered[key] -= taken
            left -= taken
        strangers += left
    return strangers


def accounts(ceilings: Ceilings, sessions: Sequence[Sessions]) -> tuple[Account, ...]:
    """
    Return the account of every limit that there is, the server's first.
    """
    found = [Account.of("max_connections", ceilings.max_connections - ceilings.reserved, sessions)]
    if ceilings.role >= 0:
        found.append(Account.of("role", ceilings.role, [each for each in sessions if each.is_own]))
    if ceilings.database >= 0:
        found.append(Account.of("database", ceilings.database, [each for each in sessions if each.is_here]))
    return tuple(found)


def tightest(found: Sequence[Account]) -> Account:
    """
    Return the account that is overdrawn most, or next to being so.
    """
    return max(found, key=lambda account: account.excess)


def pool_share(found: Sequence[Account], fleet_size: int, beside: int) -> int:
    """
    Return the size that the pool of an instance that shares may have, `beside` connections of it not counted. Never
    less than one: an instance without a connection would be of no use.
    """
    return max(_LEAST, min(account.share(fleet_size) for account in found) - beside)


def fitting(account: Account, beside: int) -> int:
    """
    Return the pool size with which all instances would fit, were they alike; 0: none would.
    """
    return max(0, account.budget // max(account.instances, 1) - beside)


class Share:
    """
    The size that is in force. It shrinks at once and grows when a larger one was allowed for `patience` seconds: what
    comes and goes while a new version is rolled out must not open and close everybody's connections.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self.size: int | None = None
        self._since: float | None = None
        self._allowed = 0

    def settle(self, allowed: int, now: float) -> int:
        """
        Take note of what is allowed at a moment; return what is in force from then on.
        """
        if self.size is None or allowed <= self.size:
            self.size, self._since = allowed, None
            return allowed
        if self._since is None:
            self._since, self._allowed = now, allowed
        self._allowed = min(self._allowed, allowed)
        if now - self._since >= self._patience:
            self.size, self._since = self._allowed, None
        return self.size
