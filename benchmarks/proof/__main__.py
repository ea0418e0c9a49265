"""The mission's table, measured: a service as it was before, and with everything applied, in turns on one machine.

    python benchmarks/proof [--short] [--rounds N] [--out benchmarks/results/proof.json]

Every round is saved when it is over; a run that was stopped goes on where it was when it is started again with the
same script. What is measured, how often and under which hiccups is in ava.proof.script.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import functools
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from _report import environment  # noqa: E402
from page import page  # noqa: E402

from ava.proof.figures import markdown, table  # noqa: E402
from ava.proof.rounds import plain, prove  # noqa: E402
from ava.proof.script import FULL, SHORT, Script  # noqa: E402

RESULTS = HERE.parent / "results"


async def measured(script: Script, out: Path) -> dict[str, Any]:
    def save(document: dict[str, Any]) -> None:
        out.write_text(json.dumps(document, indent=1) + "\n")

    say = functools.partial(print, flush=True)
    return await prove(script, say, document=resumed(script, out), save=save, describe=described)


async def described(dsn: str) -> dict[str, str]:
    return {**await environment(dsn), "platform": platform.platform(), **host()}


def resumed(script: Script, out: Path) -> dict[str, Any]:
    """
    Return what an earlier run with the same script has measured, else nothing.
    """
    wanted = plain(script)
    try:
        found: dict[str, Any] = json.loads(out.read_text())
    except (OSError, ValueError):
        found = {}
    if found.get("script") == wanted and len(found.get("rounds", [])) < script.rounds:
        return found
    return {"script": wanted, "rounds": []}


def host() -> dict[str, str]:
    found = {}
    for name, key, path in (("cpu", "model name", "/proc/cpuinfo"), ("memory", "MemTotal", "/proc/meminfo")):
        try:
            lines = Path(path).read_text().splitlines()
        except OSError:
            continue
        found[name] = next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--short", action="store_true", help="one round of seconds; shows, proves nothing")
    parser.add_argument("--rounds", type=int, help=f"default: {FULL.rounds}")
    parser.add_argument("--page", action="store_true", help="only write docs/benchmarks.md from --out again")
    parser.add_argument("--out", type=Path, help="where every figure is saved")
    options = parser.parse_args()
    script = SHORT if options.short else FULL
    if options.page:
        document = json.loads((options.out or RESULTS / "proof.json").read_text())
        (HERE.parent.parent / "docs" / "benchmarks.md").write_text(page(document))
        return
    if options.rounds:
        script = dataclasses.replace(script, rounds=options.rounds)
    out = options.out or RESULTS / ("proof-short.json" if options.short else "proof.json")
    out.parent.mkdir(exist_ok=True)
    began = time.monotonic()
    document = asyncio.run(measured(script, out))
    for line in table(document):
        print(line)
    out.with_suffix(".md").write_text(markdown(document))
    if script == FULL:
        (HERE.parent.parent / "docs" / "benchmarks.md").write_text(page(document))
    print(f"{time.monotonic() - began:.0f} s; every figure is in {out}, the table in {out.with_suffix('.md')}")


if __name__ == "__main__":
    main()
