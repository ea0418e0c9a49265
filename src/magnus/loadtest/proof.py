"""Measures a change against its absence in turns (A B B A …), and says whether it is better, worse or neither.

A machine's speed drifts by more than most changes are worth, so each pair of slices are neighbours in time, every
second pair is turned round, and only the ratios within pairs count. It makes no change itself: a side is entered.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from magnus.errors import ConfigError
from magnus.loadtest._numbers import Comparison, compare, compare_shares
from magnus.loadtest.runner import Load, notes_of, send
from magnus.loadtest.workload import Target, find

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from magnus.loadtest.samples import Result

MEASURES: Final = ("mean", "p50", "p99")
_WARM_UP: Final = 0.2  # of a slice
LEAST_PAIRS: Final = 5


async def _nothing() -> None: ...


@dataclass(frozen=True, slots=True)
class Side:
    """
    One of the two that are compared.

    Attributes:
        target: Where its load goes.
        enter: Awaited before each of its slices; makes the change, or takes it back.
    """

    target: Target
    enter: Callable[[], Awaitable[None]] = _nothing


@dataclass(frozen=True, slots=True)
class Design:
    """
    What is measured, and how often.

    Attributes:
        workload: Its name, see `find`.
        pairs: Slices of each side.
        seconds: Of each slice; the first fifth is warm-up and not counted.
        clients: Requests under way at once; each sends its next when it has its answer.
        by: Which figure decides.
        alpha: Share of verdicts "different" that is accepted when there is no difference.
        seed: Both slices of a pair draw the same operations.
    """

    workload: str
    pairs: int = 10
    seconds: float = 2.0
    clients: int = 8
    by: str = "mean"
    alpha: float = 0.01
    seed: int = 1

    def __post_init__(self) -> None:
        if self.pairs < LEAST_PAIRS:
            raise ConfigError("--pairs", self.pairs, f"must be at least {LEAST_PAIRS}: fewer say nothing at 99 %")
        if self.by not in MEASURES:
            raise ConfigError("--by", self.by, f"must be one of {', '.join(MEASURES)}")


@dataclass(frozen=True, slots=True)
class Proof:
    """
    What came of it.

    Attributes:
        by: The figure that decided.
        comparisons: B against A by each figure; the one of `by` is the verdict, the others are told.
        slices: A's and B's figures, pair by pair: seconds.
        failed: Requests of A and of B that failed.
        requests: Requests of A and of B.
        notes: What the workload says of what it sent.
    """

    by: str
    comparisons: Mapping[str, Comparison]
    slices: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]
    failed: tuple[int, int]
    requests: tuple[int, int]
    notes: tuple[str, ...] = ()

    @property
    def has_more_failures(self) -> bool:
        """
        Whether B fails more often than A, by more than chance.
        """
        (a, b), (all_a, all_b) = self.failed, self.requests
        alpha = self.comparisons[self.by].alpha
        return b * all_a > a * all_b and compare_shares(a, all_a, b, all_b) < alpha

    @property
    def verdict(self) -> str:
        """
        "better", "worse" or "no difference"; more failures are worse, however fast.
        """
        return "worse" if self.has_more_failures else self.comparisons[self.by].verdict

    def as_dict(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict, "by": self.by, "failed": list(self.failed), "requests": list(self.requests),
            "notes": list(self.notes),
            "comparisons": {name: found.as_dict() for name, found in self.comparisons.items()},
            "slices_ms": [
                [{name: round(1000 * value, 4) for name, value in side.items()} for side in pair]
                for pair in self.slices
            ],
        }  # fmt: skip


def turns(pairs: int) -> Iterator[tuple[int, int]]:
    """
    Yield pair and side (0: A, 1: B) in the order A B, B A, A B …, so that a steady drift favours neither.
    """
    for pair in range(pairs):
        for side in (0, 1) if pair % 2 == 0 else (1, 0):
            yield pair, side


async def prove(
    a: Side, b: Side, design: Design, on_progress: Callable[[float, int, int], None] | None = None
) -> Proof:
    """
    Measure both sides in turns. Both are left as their last `enter` made them: the caller takes the change back.

    Raises:
        ConfigError: a side cannot be reached as its target says, or a slice had no answer at all.
    """
    workload = find(design.workload, a.target.options)
    await a.enter()
    prepared = await workload.prepare(a.target)
    if prepared is not None:  # both sides send what was found on the first
        a = replace(a, target=prepared)
        b = replace(b, target=replace(b.target, options=prepared.options))
    sides = (a, b)
    found: list[list[dict[str, float]]] = [[{}, {}] for _ in range(design.pairs)]
    failed, requests = [0, 0], [0, 0]
    async with AsyncExitStack() as stack:
        clients = []
        for side in sides:
            await side.enter()
            if prepared is None:
                await workload.prepare(side.target)
            clients.append(await stack.enter_async_context(workload.open(side.target, 0)))
        loads = [Load(design.workload, side.target, design.seconds, design.clients) for side in sides]
        for number, (pair, turn) in enumerate(turns(design.pairs)):
            await sides[turn].enter()
            load = replace(loads[turn], seed=design.seed + pair)
            samples = await send(load, clients[turn], workload.weights)
            result = samples.result(warm_up=_WARM_UP * design.seconds)
            found[pair][turn] = _figures(result)
            failed[turn] += result.total.failed
            requests[turn] += len(samples.due)
            if on_progress is not None:
                on_progress((number + 1) / (2 * design.pairs), sum(requests), sum(failed))
    pairs = [(first, second) for first, second in found]
    proof = summed_up(pairs, design, failed=(failed[0], failed[1]), requests=(requests[0], requests[1]))
    return replace(proof, notes=notes_of(workload))


def summed_up(
    pairs: Sequence[tuple[Mapping[str, float], Mapping[str, float]]],
    design: Design,
    *,
    failed: tuple[int, int] = (0, 0),
    requests: tuple[int, int] = (0, 0),
) -> Proof:
    """
    Compare slices that were measured.
    """
    comparisons = {
        name: compare([a[name] for a, _ in pairs], [b[name] for _, b in pairs], alpha=design.alpha) for name in MEASURES
    }
    return Proof(design.by, comparisons, pairs, failed, requests)


def _figures(result: Result) -> dict[str, float]:
    if result.total.requests == 0:
        raise ConfigError("--slice", result.seconds, "is too short: no answer came within it")
    return {name: float(getattr(result.total, name)) for name in MEASURES}
