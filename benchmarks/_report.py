"""What every benchmark prints and saves: the machine, tables, goals with their verdict; it measures nothing itself."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import platform
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

T = TypeVar("T")

_PACKAGES = ("magnus-db", "asyncpg", "uvloop", "psycopg", "psycopg-pool", "SQLAlchemy")
_LABEL = 46


class Absent(Exception):  # it is an answer, not a failure
    """
    This cannot be measured here; the text says why.
    """


def installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """
    Return uvloop's when it is installed.
    """
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def run(work: Coroutine[Any, Any, T]) -> T:
    """
    Run `work` on a loop of the kind that `environment` reports.
    """
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(work)


async def environment(dsn: str | None) -> dict[str, str]:
    """
    Return what a reader must know to compare: versions, loop, cores, and how busy the machine was at the start.
    """
    found = {"python": platform.python_version(), "loop": type(asyncio.get_running_loop()).__module__.split(".")[0]}
    found |= {package: version for package in _PACKAGES if (version := installed(package))}
    if dsn is not None:
        con = await asyncpg.connect(dsn)
        try:
            found["PostgreSQL"] = (await con.fetchval("show server_version")).split()[0]
        finally:
            await con.close()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found |= {"cores": f"{usable} ({platform.machine()})", "load before": f"{os.getloadavg()[0]:.1f}"}
    return found


def arguments(description: str, **defaults: float) -> argparse.Namespace:
    """
    Read the command line: --quick, --json, --seed, and one number for each of `defaults`.

    Numbers that were not given are the default, or the namespace's `quick_<name>` default under --quick.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a smoke run of seconds; its figures mean nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single measurement to FILE")
    parser.add_argument("--seed", type=int, default=1, help="of the order in which cases run (default: 1)")
    names = [name for name in defaults if not name.startswith("quick_")]
    for name in names:
        kind = type(defaults[name])
        parser.add_argument(f"--{name}", type=kind, metavar="N", help=f"default: {defaults[name]}")
    found = parser.parse_args()
    for name in names:
        if getattr(found, name) is None:
            setattr(found, name, defaults.get(f"quick_{name}", defaults[name]) if found.quick else defaults[name])
    return found


@dataclass(frozen=True, slots=True)
class Column:
    """
    A heading and how numbers below it are written.
    """

    heading: str
    spec: str = ",.0f"

    @property
    def width(self) -> int:
        return max(len(self.heading) + 2, 14 if ".." in self.heading else 10)

    def write(self, cell: object) -> str:
        if cell is None:
            return "-"
        if isinstance(cell, tuple):
            return "..".join(self.write(part) for part in cell)
        return format(cell, self.spec) if isinstance(cell, int | float) else str(cell)


@dataclass(frozen=True, slots=True)
class Row:
    """
    One line of a table. `cells` may be empty; then `note` says why nothing was measured. `raw` is for the JSON only.
    """

    name: str
    cells: tuple[object, ...] = ()
    note: str = ""
    raw: object = None


class Report:
    """
    Prints as it goes; `save` writes the same, and the single measurements, as JSON.
    """

    def __init__(self, title: str, options: argparse.Namespace, facts: dict[str, str]) -> None:
        self._path: Path | None = options.json
        self._is_quick: bool = options.quick
        shown = {name: str(value) if name == "json" else value for name, value in vars(options).items()}
        self._found: dict[str, Any] = {
            "title": title, "environment": facts, "options": shown, "tables": [], "goals": [],
        }  # fmt: skip
        print(f"== {title}")
        print("   " + ", ".join(f"{name} {value}" for name, value in facts.items()))
        if self._is_quick:
            print("   --quick: a smoke run; its figures mean nothing")

    def table(self, title: str, columns: Sequence[Column], rows: Sequence[Row]) -> None:
        """
        Print a table, the first column being the rows' names.
        """
        print(f"\n{title}")
        print(" " * _LABEL + "".join(column.heading.rjust(column.width) for column in columns))
        for row in rows:
            cells = "".join(
                column.write(cell).rjust(column.width) for column, cell in zip(columns, row.cells, strict=False)
            )
            note = f"  {row.note}" if row.note else ""
            print(f"{row.name:{_LABEL}}{cells}{note}".rstrip())
        self._found["tables"].append({
            "title": title,
            "columns": [column.heading for column in columns],
            "rows": [
                {
                    "name": row.name,
                    "note": row.note,
                    "cells": {c.heading: cell for c, cell in zip(columns, row.cells, strict=False)},
                    "shown": [column.write(cell) for column, cell in zip(columns, row.cells, strict=False)],
                    "raw": row.raw,
                }
                for row in rows
            ],
        })
        sys.stdout.flush()

    def note(self, text: str) -> None:
        print(f"   {text}")

    def goal(
        self, claim: str, measured: float | None, *, least: float | None = None, most: float | None = None
    ) -> None:
        """
        Print whether `measured` is at least `least` and at most `most`; None could not be measured.

        A smoke run gives no verdict.
        """
        is_met = None
        if measured is not None and not self._is_quick:
            is_met = (least or -math.inf) <= measured <= (math.inf if most is None else most)
        bound = f"at least {least:g}" if least is not None else f"at most {most:g}"
        figure = "not measured" if measured is None else f"{measured:.2f}"
        verdict = {None: "?", True: "met", False: "MISSED"}[is_met]
        print(f"   {verdict:8}{claim}: {figure} ({bound})")
        self._found["goals"].append({
            "claim": claim, "measured": measured, "least": least, "most": most, "is_met": is_met,
        })  # fmt: skip

    def save(self) -> None:
        if self._path is not None:
            self._path.write_text(json.dumps(self._found, indent=1, default=str) + "\n")
            print(f"\n{self._path} written")


def quantile(values: Sequence[float], share: float) -> float:
    """
    Return the value that `share` of `values` do not exceed (nearest rank). `values` must not be empty.
    """
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
