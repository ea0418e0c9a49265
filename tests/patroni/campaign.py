"""Run three members of a real Patroni on the file in deploy/, under load, and see what becomes of the callers.

python -m tests.patroni.campaign                 all of it
python -m tests.patroni.campaign --only 1,2      some of it
python -m tests.patroni.campaign --write         the same, and write docs/patroni.md; what is not played now stays there
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import time
import traceback
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from tests.faults.campaign import HEAD, line, summary
from tests.faults.stage import Row
from tests.patroni import page
from tests.patroni.faults import FAULTS
from tests.patroni.members import VERSION, group, missing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.patroni.members import Group

PATIENCE = 400.0
"""Seconds after which a fault hangs."""


def _show(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def play(found: Group, number: int) -> Row:
    """
    Play one fault. One that cannot be played to its end, or does not end, has failed too.
    """
    began, fault = time.monotonic(), FAULTS[number - 1]
    try:
        async with asyncio.timeout(PATIENCE):
            row = await fault(found)
    except Exception:  # noqa: BLE001  # the others are played all the same
        row = Row(number, fault.__name__, failures=[traceback.format_exc()])
    row.pg, row.server, row.seconds = VERSION, found.programs["PostgreSQL"], time.monotonic() - began
    return row


async def campaign(only: Sequence[int]) -> tuple[list[Row], dict[str, Any]]:
    """
    Play the faults, one after the other, on one group; return their rows, and on what they were played.
    """
    rows, began = [], time.monotonic()
    async with group() as found:
        on = {
            **found.programs,
            "asyncpg": version("asyncpg"),
            "Python": platform.python_version(),
            "kernel": platform.release(),
            "processors": os.cpu_count(),
        }
        _show(f"{'; '.join(f'{name} {value}' for name, value in on.items())}")
        _show(f"three members stream after {time.monotonic() - began:.1f} s\n{HEAD}")
        for number in only or range(1, len(FAULTS) + 1):
            rows.append(await play(found, number))
            _show(line(rows[-1]))
    return rows, on


def _numbers(text: str) -> list[int]:
    try:
        found = [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"numbers with commas between them, not {text!r}") from None
    if unknown := set(found) - set(range(1, len(FAULTS) + 1)):
        raise argparse.ArgumentTypeError(f"no fault {sorted(unknown)}; there are 1 to {len(FAULTS)}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=_numbers, default=[], help="numbers of faults, e.g. 1,2")
    parser.add_argument("--write", action="store_true", help="keep the results and write docs/patroni.md")
    given = parser.parse_args(arguments)
    if reason := missing():
        parser.error(reason)
    rows, on = asyncio.run(campaign(given.only))
    _show(summary(rows, 0, 0))
    if given.write:
        page.write(rows, on)
    return int(any(row.failures or row.late for row in rows))


if __name__ == "__main__":
    sys.exit(main())
