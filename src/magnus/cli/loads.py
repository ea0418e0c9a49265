"""The arguments of the commands that send load; what they do is in a module of each."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from magnus.cli.options import FromShared, carry_out, positive, span
from magnus.errors import ConfigError

if TYPE_CHECKING:
    from magnus.cli.answer import Answer, Failure


def bench(
    target: Annotated[str | None, Parameter(help="A DSN, or a service's URL; else --dsn and the environment.")] = None,
    *,
    workload: Annotated[
        str, Parameter(name=["--workload", "-w"], help="select, tpcb, replay, ava, or a FILE.sql.")
    ] = "select",
    rate: Annotated[
        str | None,
        Parameter(help='Open model: 2000/s, or a ramp 100..2000/s; "poisson 2000/s" at random. Else closed.'),
    ] = None,
    duration: Annotated[str, Parameter(help="How long requests are sent: 30s, 5m.")] = "30s",
    warmup: Annotated[str | None, Parameter(help="What to leave out at the start; else it is found.")] = None,
    clients: Annotated[int, Parameter(help="Requests under way at once, at most.")] = 32,
    think: Annotated[
        str | None, Parameter(help="Closed model: how long a client waits before its next request, in the mean.")
    ] = None,
    processes: Annotated[int, Parameter(help="Processes that share the load.")] = 1,
    connections: Annotated[int, Parameter(help="Connections of each process.")] = 10,
    pool: Annotated[str, Parameter(help="magnus, asyncpg, or none: bare connections, as pgbench has.")] = "magnus",
    seed: Annotated[int, Parameter(help="The same seed draws the same operations.")] = 1,
    threshold: Annotated[tuple[str, ...], Parameter(help="Exit 1 unless met: 'p99<50ms', 'errors<1%'.")] = (),
    option: Annotated[tuple[str, ...], Parameter(help="NAME=VALUE of the workload: scale=10.")] = (),
    writes: Annotated[bool, Parameter(help="Let replay send also what changes data; on a clone.", negative="")] = False,
    save: Annotated[str | None, Parameter(help="Write the result to this file, as JSON.")] = None,
    html: Annotated[str | None, Parameter(help="Write the result to this file, as a page with plots.")] = None,
    compare: Annotated[
        tuple[str, str] | None,
        Parameter(help="Run nothing; compare two saved results. Exit 1 when the second is worse."),
    ] = None,
    shared: FromShared,
) -> int:
    """
    Load a database or a service, and say how long what took. Times count from when a request was due.

    Example: magnus bench postgresql://localhost/test -w tpcb --rate 500/s --duration 20s --threshold 'p99<50ms'
    Example: magnus bench postgresql://localhost/clone -w replay --clients 8
    Example: magnus bench --compare monday.json tuesday.json
    """
    from magnus.cli.bench import bench as call
    from magnus.cli.compare import compare as call_compare
    from magnus.cli.words import options

    if writes and workload != "replay":
        return carry_out("bench", lambda: refused("--writes", workload, "is of the workload replay alone"), shared)
    if compare is not None:
        return carry_out("bench", lambda: call_compare(*compare), shared)
    return carry_out("bench", lambda: call(
        target or shared.dsn, os.environ, workload=workload, rate=rate, seconds=span("--duration", duration) or 0.0,
        warm_up=span("--warmup", warmup), clients=clients, processes=processes, connections=connections, pool=pool,
        seed=seed, think=span("--think", think) or 0.0, thresholds=threshold, save=save, html=html,
        options={**options(option), **({"writes": "yes"} if writes else {})},
    ), shared)  # fmt: skip


def prove(
    target: Annotated[str | None, Parameter(help="A DSN; else --dsn and the environment.")] = None,
    *,
    workload: Annotated[
        str, Parameter(name=["--workload", "-w"], help="select, tpcb, replay, ava, or a FILE.sql.")
    ] = "select",
    settings: Annotated[
        tuple[str, ...], Parameter(help="NAME=VALUE of PostgreSQL, for B's sessions: work_mem=16MB.", negative="")
    ] = (),
    index: Annotated[str | None, Parameter(help="CREATE INDEX …, in a copy beside a clone that nobody uses.")] = None,
    a: Annotated[
        tuple[str, ...], Parameter(help="NAME=VALUE of side A: dsn, pool, connections, reset …", negative="")
    ] = (),
    b: Annotated[tuple[str, ...], Parameter(help="The same of side B.", negative="")] = (),
    pairs: Annotated[int, Parameter(help="Slices of each side, in the order A B B A …")] = 10,
    slice_: Annotated[str, Parameter(name="--slice", help="How long one is; its first fifth is warm-up.")] = "2s",
    clients: Annotated[int, Parameter(help="Requests under way at once.")] = 8,
    connections: Annotated[int, Parameter(help="Connections of each side.")] = 8,
    by: Annotated[str, Parameter(help="What decides: mean, p50 or p99.")] = "mean",
    seed: Annotated[int, Parameter(help="The same seed draws the same operations.")] = 1,
    option: Annotated[tuple[str, ...], Parameter(help="NAME=VALUE of the workload: scale=10.", negative="")] = (),
    save: Annotated[str | None, Parameter(help="Write every slice to this file, as JSON.")] = None,
    shared: FromShared,
) -> int:
    """
    Say whether a change is better, worse or neither: measured in turns with its absence, at 99 %. It takes it back.

    Exit codes: 0 better or no difference, 1 worse.

    Example: magnus prove postgresql://localhost/test -w mix.sql --settings work_mem=32MB
    """
    from magnus.cli.prove import Wish, call
    from magnus.cli.words import options
    from magnus.loadtest import Design

    def work() -> Answer | Failure:
        seconds = span("--slice", slice_) or 0.0
        design = Design(workload, pairs, seconds, positive("--clients", clients), by=by, seed=seed)
        wish = Wish(
            options(a), options(b), options(settings), index, options(option),
            positive("--connections", connections), save,
        )  # fmt: skip
        return call(target or shared.dsn, os.environ, wish, design)

    return carry_out("prove", work, shared)


def refused(name: str, value: object, reason: str) -> Answer:
    """
    Refuse an argument.
    """
    raise ConfigError(name, value, reason)


COMMANDS: Final = (bench, prove)
