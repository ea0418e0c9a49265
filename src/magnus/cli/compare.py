"""Compares two load tests that were saved, and says whether the second is worse; it runs nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from magnus.cli.answer import Answer, ExitCode, Table
from magnus.errors import ConfigError
from magnus.loadtest import Comparison, compare_apart, compare_shares, stretches

_ALPHA: Final = 0.01
_SAME: Final = ("workload", "model", "clients", "processes", "pool", "connections", "magnus")


def compare(first: str, second: str) -> Answer:
    """
    Judge the second run against the first: the mean, the 99th percentile, and the share of failures.

    Raises:
        ConfigError: a file cannot be read, is no saved result, or was too short a run.
    """
    a, b = _read(first), _read(second)
    try:
        found = {name: compare_apart(_course(a, at), _course(b, at), alpha=_ALPHA) for name, at in _PLACES.items()}
    except ValueError as error:
        raise ConfigError("--compare", f"{first} {second}", f"cannot be: {error}") from None
    shares = [(run["total"]["failed"], run["total"]["requests"]) for run in (a, b)]
    chance = compare_shares(*shares[0], *shares[1])
    has_more_failures = chance < _ALPHA and _share(*shares[1]) > _share(*shares[0])
    is_worse = has_more_failures or any(row.verdict == "worse" for row in found.values())
    notes = _notes(a, b)
    document = {
        "first": first, "second": second, "is_worse": is_worse,
        **{name: row.as_dict() for name, row in found.items()},
        "failures": {
            "first": _share(*shares[0]), "second": _share(*shares[1]), "p": chance, "is_more": has_more_failures
        },
        "notes": notes,
    }  # fmt: skip
    lines = [f"{name:<5} {sentence(row)}" for name, row in found.items()]
    lines.append(
        f"fails {_share(*shares[0]):.3%} -> {_share(*shares[1]):.3%}" + (": more" if has_more_failures else "")
    )
    exit_code = ExitCode.NO if is_worse else ExitCode.DONE
    return Answer(
        "bench", document, [*lines, *(f"note: {note}" for note in notes)], [_table(a, b)], exit_code=exit_code
    )


_PLACES: Final = {"mean": 4, "p99": 3}


def sentence(found: Comparison) -> str:
    """
    Return a comparison in words: verdict, change with its interval, chance and effect size.
    """
    low, middle, high = (100 * (value - 1) for value in (found.ratio.low, found.ratio.estimate, found.ratio.high))
    return (
        f"{found.verdict}: {middle:+.1f} % ({low:+.1f} to {high:+.1f} at {1 - found.alpha:.0%}), p {found.p:.2g}, "
        f"effect {found.effect:+.1f}, n {found.pairs}"
    )


def _read(path: str) -> dict[str, Any]:
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError("--compare", path, f"cannot be read ({error.strerror})") from None
    except ValueError:
        found = None
    if not isinstance(found, dict) or not {"total", "operations", "course"} <= found.keys():
        raise ConfigError("--compare", path, "is no result of magnus bench --save")
    if any(len(point) < 5 for point in found["course"]):
        raise ConfigError("--compare", path, "is of an earlier version, without means by second: run it again")
    return found


def _course(run: dict[str, Any], place: int) -> list[float]:
    return stretches([(point[1], point[place]) for point in run["course"] if point[place]])


def _share(failed: int, requests: int) -> float:
    return failed / requests if requests else 0.0


def _notes(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    first, second = a.get("run", {}), b.get("run", {})
    notes = [
        f"{name} was {first.get(name)}, then {second.get(name)}"
        for name in _SAME
        if first.get(name) != second.get(name)
    ]
    if not (a.get("generator_has_kept_up") and b.get("generator_has_kept_up")):
        notes.append("the generator did not keep up, and its own delay is in the times")
    return [*notes, "two runs apart cannot tell a change from another hour of the machine; magnus prove can"]


def _table(a: dict[str, Any], b: dict[str, Any]) -> Table:
    rows = []
    after = {row["name"]: row for row in (*b["operations"], b["total"])}
    for before in (*a["operations"], a["total"]):
        now = after.get(before["name"])
        if now is None:
            continue
        cells: list[object] = [before["name"], before["requests"], now["requests"]]
        for name in ("mean_ms", "p50_ms", "p99_ms"):
            cells += [before[name], now[name]]
        rows.append(tuple(cells))
    return Table(("operation", "requests", "then", "mean ms", "then", "p50", "then", "p99", "then"), rows)
