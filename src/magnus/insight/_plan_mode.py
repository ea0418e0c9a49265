"""Whether a statement should be planned for each call (custom) or once for all (generic), measured with its values.

The server guesses this from costs after five calls (`plan_cache_mode = auto`). Where the guess is wrong, a generic plan
is many times slower for some values, or planning takes longer than running.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_MODES: Final = ("force_custom_plan", "force_generic_plan")
_MUCH: Final = 1.5
_LITTLE: Final = 0.8


@dataclass(frozen=True, slots=True)
class PlanMode:
    """
    What was measured of one statement.

    Attributes:
        custom: Median seconds of one call with a plan of its own, by sample.
        generic: The same with the one plan for all.
        advice: The value of `plan_cache_mode` to run it under: "force_custom_plan", "force_generic_plan" or "auto".
    """

    custom: tuple[float, ...]
    generic: tuple[float, ...]
    advice: str


async def plan_mode(con: Any, statement: str, samples: Sequence[Sequence[Any]], *, rounds: int = 7) -> PlanMode:
    """
    Run a statement that only reads with each sample of its arguments, under both modes in turn, and compare.

    It runs in a read-only transaction of its own, `2 * rounds + 2` times for each sample; take samples as they are in
    production, rare values and frequent ones. The advice is put into force where the statement runs:
    `db.transaction(settings={"plan_cache_mode": …})`, or for a role with ALTER ROLE … SET.

    Raises:
        ValueError: there is no sample.
        asyncpg.PostgresError: the server refused; the driver's own exception.
    """
    if not samples:
        raise ValueError("plan_mode needs at least one sample of the statement's arguments")
    taken: dict[str, list[list[float]]] = {mode: [[] for _ in samples] for mode in _MODES}
    async with con.transaction(readonly=True):
        prepared = await con.prepare(statement)
        for number in range(rounds + 1):
            for mode in _MODES:
                await con.execute(f"SET LOCAL plan_cache_mode TO {mode}")
                for place, sample in enumerate(samples):
                    began = time.perf_counter()
                    await prepared.fetch(*sample)
                    if number:  # the first one reads what the others find in memory
                        taken[mode][place].append(time.perf_counter() - began)
    custom, generic = (tuple(map(statistics.median, taken[mode])) for mode in _MODES)
    return PlanMode(custom, generic, advice(custom, generic))


def advice(custom: Sequence[float], generic: Sequence[float]) -> str:
    """
    Return the mode for these times by sample: custom when one sample is half as slow again with the plan for all,
    generic when all of them together are a fifth faster with it, else the server's own guess.
    """
    if any(slow > _MUCH * own for own, slow in zip(custom, generic, strict=True)):
        return "force_custom_plan"
    return "force_generic_plan" if sum(generic) <= _LITTLE * sum(custom) else "auto"
