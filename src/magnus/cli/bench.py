"""Runs a load test, or compares two that were saved, and says what came of it."""

from __future__ import annotations

import json
import re
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from magnus.cli import render
from magnus.cli.answer import Answer, ExitCode, Failure, Table
from magnus.config import DatabaseConfig
from magnus.errors import ConfigError, MagnusError
from magnus.loadtest import Load, Pacer, Target, report, run
from magnus.loadtest.runner import runner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from magnus.loadtest import Result

_RATE: Final = re.compile(r"(poisson +)?(\d+(?:\.\d+)?)(?:\.\.(\d+(?:\.\d+)?))?(?:/s)?")
_THRESHOLD: Final = re.compile(
    r"(p50|p90|p95|p99|p999|mean|longest|errors|rate)\s*(<=|<|>=|>)\s*(\d+(?:\.\d+)?)\s*(us|ms|s|/s|%)?"
)
_NOTED: Final = 12
_UNITS: Final = {"us": 0.001, "ms": 1.0, "s": 1000.0, None: 1.0}


def bench(
    address: str | None,
    environ: Mapping[str, str],
    *,
    workload: str,
    rate: str | None,
    seconds: float,
    warm_up: float | None,
    clients: int,
    processes: int,
    connections: int,
    pool: str,
    seed: int,
    think: float,
    thresholds: Sequence[str],
    options: Mapping[str, str],
    save: str | None,
    html: str | None,
) -> Answer | Failure:
    """
    Run one load test.

    Raises:
        ConfigError: an argument, the workload or the target is impossible.
    """
    checks = [threshold(text) for text in thresholds]
    pacer = None if rate is None else pacer_of(rate, seconds)
    target = Target(address or _dsn(environ), connections, pool, options)
    load = Load(workload, target, seconds, clients, pacer, processes, seed, think)
    try:
        with render.watching(f"{workload}, {seconds:g} s") as shown:
            samples = runner(run(load, shown))
    except (MagnusError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError, RuntimeError) as error:
        if isinstance(error, ConfigError):
            raise
        is_told = isinstance(error, (MagnusError, RuntimeError, asyncpg.PostgresError))
        told = str(error) if is_told else type(error).__name__
        return Failure("bench", ExitCode.UNREACHABLE, told, "is the target there? magnus ping, or curl")
    found = samples.result(warm_up=samples.steady_after() if warm_up is None else warm_up)
    document = {**found.as_dict(), "run": described(load, rate)}
    verdicts = [verdict(check, found) for check in checks]
    document["thresholds"] = [
        {"check": text, "measured": measured, "is_met": is_met} for text, measured, is_met in verdicts
    ]
    write(save, json.dumps(document, indent=2) + "\n")
    write(html, report.page(document))
    exit_code = ExitCode.DONE if all(is_met for _, _, is_met in verdicts) else ExitCode.NO
    return Answer("bench", document, _lines(found, verdicts), [_table(found)], exit_code=exit_code)


def described(load: Load, rate: str | None) -> dict[str, Any]:
    """
    Return what was run, without any secret of its target.
    """
    is_url = load.target.address.startswith(("http://", "https://"))
    shown = load.target.address if is_url else DatabaseConfig(dsn=load.target.address).safe_dsn
    options = dict(load.target.options)
    if "from" in options:
        options["from"] = DatabaseConfig(dsn=options["from"]).safe_dsn
    return {
        "workload": load.workload, "target": shown, "model": _model(load, rate),
        "seconds": load.seconds, "clients": load.clients, "processes": load.processes, "seed": load.seed,
        "pool": "" if is_url else load.target.pool, "connections": load.target.connections,
        "magnus": metadata.version("magnus-db"),
        **options,
    }  # fmt: skip


def _model(load: Load, rate: str | None) -> str:
    if rate is not None:
        return f"open, {rate}"
    return f"closed, thinking {load.think:g} s" if load.think else "closed"


def _dsn(environ: Mapping[str, str]) -> str:
    return DatabaseConfig.from_environ(environ).dsn


def pacer_of(text: str, seconds: float) -> Pacer:
    """
    Read "2000", "2000/s", or a ramp "100..2000/s"; "poisson 2000/s" for one that comes at random.

    Raises:
        ConfigError: it is none of them.
    """
    found = _RATE.fullmatch(text.strip())
    if found is None:
        raise ConfigError("--rate", text, 'must be like "2000/s", "100..2000/s" for a ramp, or "poisson 2000/s"')
    first, last = float(found[2]), float(found[3] or found[2])
    return Pacer(first, last, seconds, is_random=found[1] is not None)


Check = tuple[str, str, str, float, str | None]


def threshold(text: str) -> Check:
    """
    Read "p99<50ms", "errors<1%", "rate>1000/s".

    Raises:
        ConfigError: it is no threshold.
    """
    found = _THRESHOLD.fullmatch(text.strip())
    if found is None:
        raise ConfigError("--threshold", text, 'must be like "p99<50ms", "errors<0.1%" or "rate>1000/s"')
    name, sign, value, unit = found[1], found[2], float(found[3]), found[4]
    wanted = {"errors": ("%",), "rate": ("/s", None)}.get(name, ("us", "ms", "s"))
    if unit not in wanted:
        raise ConfigError("--threshold", text, f"needs a unit of {', '.join(str(unit) for unit in wanted if unit)}")
    return text, name, sign, value * (_UNITS[unit] if unit in _UNITS and name not in {"errors", "rate"} else 1.0), unit


def verdict(check: Check, found: Result) -> tuple[str, float | None, bool]:
    """
    Return the check, what was measured (ms, %, a second), and whether it is met; nothing measured meets nothing.
    """
    text, name, sign, limit, _ = check
    total = found.total
    if name == "errors":
        measured = 100 * total.failed / total.requests if total.requests else None
    elif name == "rate":
        measured = found.per_second
    else:
        measured = 1000 * float(getattr(total, name)) if total.requests else None
    if measured is None:
        return text, None, False
    is_met = {"<": measured < limit, "<=": measured <= limit, ">": measured > limit, ">=": measured >= limit}[sign]
    return text, round(measured, 4), is_met


def _lines(found: Result, verdicts: Sequence[tuple[str, float | None, bool]]) -> list[str]:
    lines = [
        f"{found.per_second:,.1f} a second over {found.seconds:.1f} s ({found.warm_up:.1f} s of warm-up left out)",
        f"the generator was late by {1000 * found.late_p99:.2f} ms (p99)"
        + ("" if found.has_kept_up else ": it did not keep up, and its delay is in the times"),
    ]
    lines += [f"{'ok   ' if is_met else 'NOT  '}{text}  ({measured})" for text, measured, is_met in verdicts]
    lines += [f"failed  {name}  {count:,} times" for name, count in found.failures.items()]
    return [*lines, *told_of(found.notes)]


def told_of(notes: Sequence[str]) -> list[str]:
    """
    Return the first of a workload's notes, for a person; all of them are in the JSON.
    """
    rest = len(notes) - _NOTED
    return [*notes[:_NOTED], *([f"and {rest} more: --output-format json"] if rest > 0 else [])]


def _table(found: Result) -> Table:
    heads = ("operation", "requests", "failed", "refused", "mean ms", "p50", "p95", "p99", "p99.9", "longest")
    rows = [
        (
            row.name,
            row.requests,
            row.failed,
            row.refused,
            *(_ms(value) for value in (row.mean, row.p50, row.p95, row.p99, row.p999, row.longest)),
        )
        for row in (*found.operations, found.total)
    ]
    return Table(heads, rows)


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)


def write(path: str | None, text: str) -> None:
    """
    Write a result to the file that was asked for, if one was.

    Raises:
        ConfigError: it cannot be written.
    """
    if path is None:
        return
    try:
        Path(path).write_text(text)
    except OSError as error:
        raise ConfigError("file", path, f"cannot be written ({error.strerror})") from None
