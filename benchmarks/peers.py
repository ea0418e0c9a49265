"""Measures the pool beside its peers and writes docs/peers.md from what was measured; `--page` writes the page alone.

Each script runs by itself and leaves its JSON, every single measurement included, in `benchmarks/results`; name some to
measure those again. The page says nothing that is not in these files.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE: Final = Path(__file__).parent
RESULTS: Final = HERE / "results"
PAGE: Final = HERE.parent / "docs" / "peers.md"
SCRIPTS: Final = (
    "bench_pool", "bench_lanes", "bench_waiters", "bench_warm", "bench_limits", "bench_slow_log", "bench_observers",
    "bench_outage", "bench_generator",
)  # fmt: skip
_HEAD: Final = """\
# Beside its peers

What the pool costs and saves beside asyncpg's, psycopg's, SQLAlchemy's and bare connections in a queue, in the same
run and in turns. `python benchmarks/peers.py` (`make peers`) measures it on your machine and writes this page; nobody
edits it. Goals that were missed are there like those that were met. Times are noisy: read ratios, and the interval
beside them.
"""
_WORDS: Final = {True: "met", False: "**missed**", None: "not judged"}


def page(results: Path = RESULTS) -> str:
    """
    Return the page that these results make; a script that has none is named.
    """
    parts = [_HEAD]
    for name in SCRIPTS:
        file = results / f"{name}.json"
        parts.extend(
            section(name, json.loads(file.read_text())) if file.exists() else [f"\n## {name}\n\nNot measured.\n"]
        )
    return "".join(parts)


def section(name: str, found: dict[str, Any]) -> Iterator[str]:
    """
    Return what one script found: with what, its tables, its goals.
    """
    yield f"\n## {name}\n\n"
    yield ", ".join(f"{key} {value}" for key, value in found["environment"].items()) + ".\n"
    if found["options"].get("quick"):
        yield "\n**A smoke run: its figures mean nothing.**\n"
    for table in found["tables"]:
        yield f"\n{table['title']}\n\n| | {' | '.join(table['columns'])} |\n|{'---|' * (1 + len(table['columns']))}\n"
        for row in table["rows"]:
            cells = row["shown"] or [row["note"]]
            yield f"| {row['name']} | {' | '.join(cells + [''] * (len(table['columns']) - len(cells)))} |\n"
    if found["goals"]:
        yield "\n| goal | measured | bound | |\n|---|---|---|---|\n"
    for goal in found["goals"]:
        bound = f"at least {goal['least']:.4g}" if goal["least"] is not None else f"at most {goal['most']:.4g}"
        measured = "-" if goal["measured"] is None else f"{goal['measured']:.2f}"
        yield f"| {goal['claim']} | {measured} | {bound} | {_WORDS[goal['is_met']]} |\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scripts", nargs="*", metavar="SCRIPT", help=f"of {', '.join(SCRIPTS)}; default: all")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page")
    options = parser.parse_args()
    if unknown := set(options.scripts) - set(SCRIPTS):
        parser.error(f"no such script: {', '.join(sorted(unknown))}")
    RESULTS.mkdir(exist_ok=True)
    for name in () if options.page else options.scripts or SCRIPTS:
        subprocess.run([sys.executable, HERE / f"{name}.py", "--json", RESULTS / f"{name}.json"], check=True)
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
