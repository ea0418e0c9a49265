"""Fair throughput: many short rounds, every case once in each, in shuffled order, compared pair by pair in its round.

A machine's speed drifts by more than the differences that are looked for, so cases measured one after the other
cannot be compared. Here each ratio is taken between two neighbours in time, and the same case run twice (the A/A row)
shows what the method itself cannot resolve.
"""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from _report import Absent, Column, Row, quantile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence


class Subject(Protocol):
    """
    Something that is opened once and closed at the end.
    """

    async def setup(self) -> None: ...

    async def teardown(self) -> None: ...


@dataclass
class Case:
    """
    A row: one operation of a subject, done by `workers` tasks without a pause. It is told the worker's number.
    """

    name: str
    subject: Subject
    one_operation: Callable[[int], Awaitable[object]] | None
    workers: int = 32
    note: str = ""
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.rates)

    def ratios(self, base: Case) -> list[float]:
        return [mine / other for mine, other in zip(self.rates, base.rates, strict=True)]


@asynccontextmanager
async def opened(subjects: Sequence[Subject]) -> AsyncIterator[Mapping[Subject, str]]:
    """
    Set all subjects up; yields those that are absent, with the reason. Everything is torn down at the end.
    """
    absent: dict[Subject, str] = {}
    present: list[Subject] = []
    try:
        for subject in subjects:
            try:
                await subject.setup()
            except Absent as reason:
                absent[subject] = str(reason)
            else:
                present.append(subject)
        yield absent
    finally:
        for subject in reversed(present):
            await subject.teardown()


async def measure(
    cases: Sequence[Case], *, rounds: int, seconds: float, seed: int, absent: Mapping[Subject, str]
) -> None:
    """
    Run every case whose subject is there `rounds` times for `seconds`, each time after a short warm-up.
    """
    present = [case for case in cases if case.subject not in absent and case.one_operation is not None]
    order = random.Random(seed)
    for case in present:
        await _rate(case, seconds)
    gc.collect()
    gc.freeze()  # what lives through the whole run would slow each collection between the cases
    try:
        for _ in range(rounds):
            for case in order.sample(present, len(present)):
                await _rate(case, seconds / 5)
                gc.collect()
                rate, cpu = await _rate(case, seconds)
                case.rates.append(rate)
                case.cpu.append(cpu)
    finally:
        gc.unfreeze()


async def _rate(case: Case, seconds: float) -> tuple[float, float]:
    """
    Return operations per second, until the last worker has come home, and this process's CPU seconds for each.
    """
    operation = case.one_operation
    assert operation is not None
    clock = time.perf_counter
    begin, cpu = clock(), time.process_time()
    end = begin + seconds

    async def work(number: int) -> int:
        count = 0
        while True:  # at least once: the machine may stand still for longer than a short round
            await operation(number)
            count += 1
            if clock() >= end:
                return count

    counts = await asyncio.gather(*(work(number) for number in range(case.workers)))
    total = sum(counts)
    return total / (clock() - begin), (time.process_time() - cpu) / total


def columns(bases: Sequence[Case]) -> list[Column]:
    heads = [Column("per s"), Column("worst"), Column("us each", ".1f"), Column("client cpu us", ".1f")]
    for base in bases:
        heads += [Column(f"x {base.name}", ".2f"), Column("5%..95%", ".2f")]
    return heads


def rows(cases: Sequence[Case], bases: Sequence[Case], absent: Mapping[Subject, str]) -> list[Row]:
    """
    Return a line for each case: median and worst rate, time of one, and ratios to each base in the same round.
    """
    return [_row(case, bases, absent.get(case.subject)) for case in cases]


def _row(case: Case, bases: Sequence[Case], missing: str | None) -> Row:
    if missing is not None or not case.rates:
        return Row(case.name, note=f"not measured: {missing or 'there is no such operation'}")
    cells: list[object] = [case.median, min(case.rates), 1e6 / case.median, 1e6 * statistics.median(case.cpu)]
    for base in bases:
        if not base.rates or base is case:
            cells += [None, None]
            continue
        found = case.ratios(base)
        cells += [statistics.median(found), (quantile(found, 0.05), quantile(found, 0.95))]
    return Row(case.name, tuple(cells), case.note, raw={"per_second": case.rates, "client_cpu_seconds": case.cpu})


def ratio(case: Case, base: Case) -> float | None:
    """
    Return the median of the rounds' ratios, None when one of both was not measured.
    """
    return statistics.median(case.ratios(base)) if case.rates and base.rates else None
