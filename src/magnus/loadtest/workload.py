"""What a load test asks for: weighted operations on a target, found by name, in a file of SQL, or in another package.

Packages register theirs under the entry point group `magnus.workloads`; AVA's is "ava". It knows no pacing.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from dataclasses import dataclass, field
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any, Final, Protocol

from magnus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from random import Random

GROUP: Final = "magnus.workloads"


class Refused(Exception):
    """
    The target said no as it may (shed, overloaded, no cash): neither a success nor a fault. The text is a fixed word.
    """


class Client(Protocol):
    """
    One process' access to the target, open for the whole run.
    """

    async def run(self, operation: str, rng: Random) -> None:
        """
        Do one operation.

        Raises:
            Refused: the target declined.
            Exception: it failed; its type is counted.
        """


class Workload(Protocol):
    """
    Operations and their weights, and how to reach what they are for.
    """

    @property
    def weights(self) -> Mapping[str, float]:
        """
        Operations and their parts of the whole.
        """

    def lane(self, operation: str) -> str:
        """
        Return the lane that the operation runs in, "" when there is none.
        """

    async def prepare(self, target: Target) -> Target | None:
        """
        Make what the operations need, once before all processes; harmless when it is there. A target that is returned
        is opened instead: what was found out goes to all processes in its options.
        """

    def open(self, target: Target, process: int) -> AbstractAsyncContextManager[Client]:
        """
        Open the access of process number `process`.
        """


@dataclass(frozen=True, slots=True)
class Target:
    """
    Where the load goes.

    Attributes:
        address: A DSN, or the URL of a service.
        connections: Of each process.
        pool: "magnus", "asyncpg" or "none" (bare connections): which pool a database workload uses.
        options: The workload's own.
        settings: Of the server, for each session of a database workload.
        config: Fields of `DatabaseConfig`, as the environment would have them (MAGNUS_RESET).
    """

    address: str
    connections: int = 10
    pool: str = "magnus"
    options: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, str] = field(default_factory=dict)


class Weighted:
    """
    Draws operations in proportion to their weights.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._names = list(weights)
        self._cumulated = list(itertools.accumulate(weights.values()))
        if not self._names or min(weights.values()) < 0 or self._cumulated[-1] <= 0:
            raise ConfigError("weights", dict(weights), "must not be negative, nor all 0")

    def draw(self, rng: Random) -> str:
        point = rng.random() * self._cumulated[-1]
        return self._names[min(bisect_right(self._cumulated, point), len(self._names) - 1)]


def names() -> Sequence[str]:
    """
    Return the workloads that can be named.
    """
    return sorted({*_BUILT_IN, *(entry.name for entry in metadata.entry_points(group=GROUP))})


def find(name: str, options: Mapping[str, str]) -> Workload:
    """
    Return a workload by its name, or the one in a file that ends in .sql.

    Raises:
        ConfigError: there is none of that name, the file cannot be read, or an option is impossible.
    """
    if name.endswith(".sql"):
        from magnus.loadtest.sqlfile import SqlFile

        return SqlFile.read(name)
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        kind: Any = getattr(import_module(f"magnus.loadtest.{module}"), attribute)
        made: Workload = kind(options)
        return made
    for entry in metadata.entry_points(group=GROUP):
        if entry.name == name:
            found: Workload = entry.load()(options)
            return found
    raise ConfigError("workload", name, f"is none of {', '.join(names())}, nor a file that ends in .sql")


_BUILT_IN: Final = {"tpcb": "builtin:TpcB", "select": "builtin:Select", "replay": "replay:Replay"}
