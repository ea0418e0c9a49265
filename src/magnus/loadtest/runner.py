"""Sends a workload's operations when they are due, in one process or in several; it measures and judges nothing."""

from __future__ import annotations

import asyncio
import contextlib
import math
import multiprocessing
import random
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from magnus.errors import ConfigError
from magnus.loadtest._alarm import Alarm
from magnus.loadtest._live import Board, Look, Watch
from magnus.loadtest.samples import Samples
from magnus.loadtest.workload import Refused, Target, Weighted, find

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from multiprocessing.connection import Connection as Pipe

    from magnus.loadtest._pacer import Pacer
    from magnus.loadtest.workload import Client, Workload

_EARLY: Final = 0.5  # seconds between the last process' readiness and the first request
_REPORTED: Final = 0.5
_LAST: Final = 10.0  # seconds that requests under way may take after the end


@dataclass(frozen=True, slots=True)
class Load:
    """
    A run.

    Attributes:
        workload: Its name, see `workload.find`.
        target: Where it goes.
        seconds: How long requests are sent.
        clients: Requests under way at once, at most, in all processes together.
        pacer: When requests are due (open model); None: each client sends its next one when it has its answer (closed).
        think: Seconds that a client of the closed model waits in the mean, at random, before it sends its next one.
        processes: How many share the load.
        seed: The same seed draws the same operations.
        options: The workload's own.
    """

    workload: str
    target: Target
    seconds: float
    clients: int
    pacer: Pacer | None = None
    processes: int = 1
    seed: int = 1
    think: float = 0.0

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ConfigError("duration", self.seconds, "must be above 0")
        if self.clients < 1:
            raise ConfigError("clients", self.clients, "must be at least 1")
        if not 0 <= self.think < math.inf:
            raise ConfigError("think", self.think, "must be at least 0 seconds")
        if self.think and self.pacer is not None:
            raise ConfigError(
                "think", self.think, "belongs to the closed model: a rate says itself when requests are due"
            )
        if not 1 <= self.processes <= self.clients:
            raise ConfigError("processes", self.processes, "must be at least 1, and no more than clients")


async def run(load: Load, on_progress: Callable[[Board], None] | None = None) -> Samples:
    """
    Run a load to its end. `on_progress` gets twice a second what a person may see of it.

    Raises:
        ConfigError: there is no such workload, or its target is impossible.
        RuntimeError: a process died.
    """
    workload = find(load.workload, load.target.options)
    load = replace(load, target=await workload.prepare(load.target) or load.target)
    samples = await (_one(load, 0, None, on_progress) if load.processes == 1 else _several(load, on_progress))
    samples.notes = notes_of(workload)
    return samples


def notes_of(workload: Workload) -> tuple[str, ...]:
    """
    Return what a workload has to say of what it sends, once it is prepared.
    """
    return tuple(getattr(workload, "notes", ()))


async def send(load: Load, client: Client, weights: Mapping[str, float]) -> Samples:
    """
    Send a load of one process through a client that is open already: a slice of a longer experiment.
    """
    return await _Sender(load, 0, client, weights).run(0, time.monotonic())


class _Sender:
    """
    One process' part of a run.
    """

    def __init__(self, load: Load, part: int, client: Client, weights: Mapping[str, float]) -> None:
        self.samples = Samples(list(weights))
        self._numbers = {name: number for number, name in enumerate(weights)}
        self._draw = Weighted(weights)
        self._rng = random.Random(f"{load.seed} {part}")  # noqa: S311  # reproducible, not secret
        self._client = client
        self._load = load
        self._clients = max(1, load.clients // load.processes)
        self._free = asyncio.Semaphore(self._clients)
        self._started = 0.0

    async def run(self, part: int, begin: float) -> Samples:
        load = self._load
        self._started = begin
        await asyncio.sleep(max(0.0, begin - time.monotonic()))
        if load.pacer is None:
            await asyncio.gather(*(self._closed() for _ in range(self._clients)))
        else:
            arrivals = random.Random(f"{load.seed} {part} arrivals")  # noqa: S311  # as above
            dues = load.pacer.share(part, load.processes).dues(arrivals)
            await self._open(dues, load.pacer.offset(part, load.processes))
        self.samples.seconds = load.seconds
        return self.samples

    def _now(self) -> float:
        return time.monotonic() - self._started

    async def _closed(self) -> None:
        think = self._load.think
        await self._pause(think)  # so that they do not begin as one
        while (now := self._now()) < self._load.seconds:
            await self._send(now)
            await self._pause(think)

    async def _pause(self, think: float) -> None:
        if think:
            left = self._load.seconds - self._now()
            await asyncio.sleep(max(0.0, min(left, self._rng.expovariate(1 / think))))

    async def _open(self, dues: Iterator[float], offset: float) -> None:
        under_way: set[asyncio.Task[None]] = set()
        try:
            with Alarm() as alarm:
                for found in dues:
                    due = found + offset
                    await alarm.until(self._started + due)
                    await self._free.acquire()  # latency counts from `due`, however long this takes
                    task = asyncio.create_task(self._paced(due))
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
        finally:
            if under_way:
                await asyncio.wait(under_way, timeout=_LAST)
            for task in under_way:
                task.cancel()
                self.samples.faults["unanswered"] += 1

    async def _paced(self, due: float) -> None:
        try:
            await self._send(due)
        finally:
            self._free.release()

    async def _send(self, due: float) -> None:
        name = self._draw.draw(self._rng)
        late = self._now() - due
        try:
            await self._client.run(name, self._rng)
        except Refused:
            self.samples.refused[name] += 1
        except Exception as error:  # noqa: BLE001  # a run goes on, and says what failed how often
            self.samples.faults[f"{name}: {type(error).__name__}"] += 1
            self.samples.failed[name] += 1
        self.samples.add(self._numbers[name], due, late, self._now() - due)


async def _one(load: Load, part: int, begin: float | None, on_progress: Callable[[Board], None] | None) -> Samples:
    workload = find(load.workload, load.target.options)
    async with workload.open(load.target, part) as client:
        sender = _Sender(load, part, client, workload.weights)
        begin = time.monotonic() + 0.01 if begin is None else begin
        board, watch = Board(), watch_of(workload, client, sender.samples)

        def tell(seconds: float) -> None:
            assert on_progress is not None
            board.see(_share(load, begin), seconds, [watch.look()])
            on_progress(board)

        teller = None if on_progress is None else asyncio.create_task(_repeat(tell))
        try:
            return await sender.run(part, begin)
        finally:
            if teller is not None:
                teller.cancel()


def watch_of(workload: Workload, client: Client, samples: Samples) -> Watch:
    return Watch(samples, [workload.lane(name) for name in samples.names], getattr(client, "usage", None))


def _share(load: Load, begin: float) -> float:
    return min(1.0, max(0.0, (time.monotonic() - begin) / load.seconds))


async def _repeat(tell: Callable[[float], None]) -> None:
    """
    Call it again and again with the seconds since the call before.
    """
    before = time.monotonic()
    while True:
        await asyncio.sleep(_REPORTED)
        now = time.monotonic()
        tell(now - before)
        before = now


# --- several processes: each opens its client, says so, and all begin at one moment of the machine's monotonic clock


def _child(load: Load, part: int, pipe: Pipe, is_watched: bool) -> None:  # noqa: FBT001  # an argument of a process
    async def work() -> Samples:
        workload = find(load.workload, load.target.options)
        async with workload.open(load.target, part) as client:
            pipe.send("ready")
            begin: float = await asyncio.to_thread(pipe.recv)
            sender = _Sender(load, part, client, workload.weights)
            watch = watch_of(workload, client, sender.samples)
            teller = asyncio.create_task(_repeat(lambda _: pipe.send(watch.look()))) if is_watched else None
            try:
                return await sender.run(part, begin)
            finally:
                if teller is not None:
                    teller.cancel()

    with contextlib.suppress(KeyboardInterrupt):
        try:
            found: Any = runner(work())
        except Exception as error:  # noqa: BLE001  # the parent raises it
            found = f"{type(error).__name__}: {error}"
        pipe.send(found)


def runner(work: Any) -> Any:
    """
    Run a coroutine on the fastest event loop that is installed.
    """
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


async def _several(load: Load, on_progress: Callable[[Board], None] | None) -> Samples:
    context = multiprocessing.get_context("spawn")
    children = []
    try:
        for part in range(load.processes):
            ours, theirs = context.Pipe()
            arguments = (load, part, theirs, on_progress is not None)
            process = context.Process(target=_child, args=arguments, daemon=True)
            process.start()
            theirs.close()
            children.append((process, ours))
        for process, pipe in children:
            word = await _received(process, pipe)
            if word != "ready":
                raise RuntimeError(f"a process of the load test failed: {word}")
        begin = time.monotonic() + _EARLY
        for _, pipe in children:
            pipe.send(begin)
        looks: dict[int, Look] = {}
        waiting = asyncio.gather(*(_last(number, *child, looks) for number, child in enumerate(children)))
        board, before = Board(), begin
        while not waiting.done():
            await asyncio.wait({waiting}, timeout=_REPORTED)
            if on_progress is not None and len(looks) == load.processes:
                now = time.monotonic()
                board.see(_share(load, begin), now - before, looks.values())
                before = now
                looks.clear()
                on_progress(board)
        parts = waiting.result()
        for found in parts:
            if isinstance(found, str):
                raise RuntimeError(f"a process of the load test failed: {found}")  # noqa: TRY004  # its text is an error
        return Samples.merged(parts)
    finally:
        for process, pipe in children:
            pipe.close()
            process.terminate()
            process.join()


async def _last(number: int, process: Any, pipe: Pipe, looks: dict[int, Look]) -> Any:
    """
    Return what a process sends at its end; what it sends before goes into `looks`.
    """
    while isinstance(found := await _received(process, pipe), Look):
        looks[number] = found
    return found


async def _received(process: Any, pipe: Pipe) -> Any:
    try:
        return await asyncio.to_thread(pipe.recv)
    except EOFError:
        raise RuntimeError(f"a process of the load test died (exit code {process.exitcode})") from None
