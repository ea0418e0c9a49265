"""The workload "replay": what pg_stat_statements counted, sent again in the same proportions, with values of pg_stats.

Which statements were one transaction, and in which order they came, is not in those statistics: each is sent alone.
Without `writes` sessions are read-only, so that the server refuses what only seems to be a read.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from magnus.errors import ConfigError
from magnus.loadtest._capture import Mix, arguments, capture
from magnus.loadtest.builtin import OnPool, access, declined, driver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from random import Random

    from magnus.loadtest._capture import Arguments
    from magnus.loadtest.workload import Client, Target

_TOP: Final = 100
_MIX: Final = "mix"
_READ_ONLY: Final = {"default_transaction_read_only": "on"}


class Replay:
    """
    A mix that was counted.

    Options: `from`, the DSN of the database whose statistics are read (else the target's own); `top`, how many of its
    statements, by calls (100); `writes`, "yes" to send also what changes data.
    """

    def __init__(self, options: Mapping[str, str]) -> None:
        unknown = options.keys() - {"from", "top", "writes", _MIX}
        if unknown:
            raise ConfigError("--option", min(unknown), "is none of replay's: from, top, writes")
        self._from = options.get("from", "")
        self._top = _top(options.get("top", str(_TOP)))
        self._writes = _is_writing(options.get("writes", "no"))
        self._mix = Mix.loads(options[_MIX]) if _MIX in options else Mix(())

    @property
    def weights(self) -> Mapping[str, float]:
        return {statement.name: statement.calls for statement in self._mix.statements}

    @property
    def notes(self) -> Sequence[str]:
        """
        What is sent, what is left out and why, and which values are made up.
        """
        return self._mix.notes

    def lane(self, operation: str) -> str:  # noqa: ARG002  # pg_stat_statements knows none
        return ""

    async def prepare(self, target: Target) -> Target:
        """
        Read the mix, once for all processes; it goes on in the target's options.

        Raises:
            ConfigError: it cannot be read, or nothing of it can be sent.
        """
        con = await asyncpg.connect(**driver(target.address))
        try:
            source = await asyncpg.connect(**driver(self._from)) if self._from else con
            try:
                self._mix = await capture(source, con, top=self._top, writes=self._writes)
            finally:
                if source is not con:
                    await source.close()
        finally:
            await con.close()
        return replace(target, options={**target.options, _MIX: self._mix.dumps()})

    @asynccontextmanager
    async def open(self, target: Target, process: int) -> AsyncIterator[Client]:  # noqa: ARG002
        con = await asyncpg.connect(**driver(target.address))
        try:
            draws = {one.name: (one.text, await arguments(con, one)) for one in self._mix.statements}
        finally:
            await con.close()
        settings = dict(target.settings) if self._writes else {**target.settings, **_READ_ONLY}
        async with access(replace(target, settings=settings)) as pool:
            yield _Replaying(pool, draws)


class _Replaying(OnPool):
    def __init__(self, pool: Any, draws: Mapping[str, tuple[str, Arguments]]) -> None:
        super().__init__(pool)
        self._draws = draws

    async def run(self, operation: str, rng: Random) -> None:
        text, draw = self._draws[operation]
        await declined(self._pool.fetch(text, *draw(rng)))


def _top(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise ConfigError("top", text, "must be a whole number from 1 to 10000")
    return int(text)


def _is_writing(text: str) -> bool:
    if text not in {"yes", "no"}:
        raise ConfigError("writes", text, "must be yes or no")
    return text == "yes"
