"""Play every fault of the catalogue against the layer, on real servers, and print who stood.

python -m tests.faults.campaign                 all faults, in full
python -m tests.faults.campaign --short         the same in the form that the test suite runs
python -m tests.faults.campaign --only 1,2      some of them
python -m tests.faults.campaign --pg 18         one version of PostgreSQL
python -m tests.faults.campaign --write         the same, and write docs/faults.md; what is not played now stays there
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
import traceback
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magnus.embedded import throwaway
from magnus.errors import ConfigError
from tests.faults import detection, durability, overload, page
from tests.faults.mutants import MUTANTS, hunt
from tests.faults.stage import Row, Stage
from tests.servers import find_binaries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from magnus.embedded import Cluster


async def absent(number: int, name: str, _stage: Stage) -> Row:
    """
    A fault of what the layer does not do.
    """
    return Row(number, name, note="the layer reads from no standby")


FAULTS: tuple[tuple[int, Any], ...] = (
    (1, durability.commit_reply_cut),
    (2, durability.commit_request_cut),
    (3, durability.async_loss),
    (4, durability.sync_crash),
    (5, durability.sync_cancel),
    (7, partial(durability.zombie, is_synchronous=True)),
    (7, partial(durability.zombie, is_synchronous=False)),
    (8, durability.swallowed),
    (9, durability.client_killed),
    (11, detection.half_open),
    (11, detection.black_hole),
    (12, detection.first_host_silent),
    (13, detection.refusals),
    (14, detection.terminated),
    (15, detection.backend_stopped),
    (16, detection.server_stopped),
    (17, detection.backend_killed),
    (18, detection.read_only_node),
    (19, partial(absent, 19, "reads that follow one's own writes on a standby")),
    (20, partial(absent, 20, "position from another timeline")),
    (21, detection.slow_lines),
    (22, detection.immediate_restart),
    (22, detection.outage),
    (23, detection.client_dies),
    (24, overload.flood),
    (25, overload.row_lock),
    (26, overload.brown_out_named),
    (26, overload.brown_out_unnamed),
    (26, overload.everything_fails),
    (27, overload.cancel_storm),
    (28, overload.drain),
)


def _show(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def play(stage: Stage, number: int, fault: Any) -> Row:
    """
    Play one fault. One that cannot be played to its end has failed too.
    """
    began = time.monotonic()
    try:
        row: Row = await fault(stage)
    except Exception:  # noqa: BLE001  # the campaign goes on, and says what happened
        name = getattr(fault, "__name__", None) or fault.func.__name__
        row = Row(number, name.replace("_", " "), failures=[traceback.format_exc()])
    row.pg, row.seconds = stage.pg, time.monotonic() - began
    return row


async def campaign(pg: int, only: Sequence[int], *, is_short: bool, show: Any = _show) -> list[Row]:
    """
    Play the faults on one version.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        async with throwaway(find_binaries(pg), max_connections=200) as cluster:
            stage = Stage(cluster, Path(folder), pg, is_short=is_short)
            server = await _version(cluster)
            for number, fault in FAULTS:
                if not only or number in only:
                    rows.append(await play(stage, number, fault))
                    rows[-1].server = server
                    show(line(rows[-1]))
    return rows


async def _version(cluster: Cluster) -> str:
    async with cluster.connect() as con:
        return str(await con.fetchval("SHOW server_version")).split()[0]


async def hunt_all(pg: int, *, show: Any = _show) -> list[dict[str, Any]]:
    """
    Switch every protection off in turn; return which were noticed by a fault, and by what.
    """
    found = []
    with tempfile.TemporaryDirectory() as folder:
        async with throwaway(find_binaries(pg), max_connections=200) as cluster:
            stage = Stage(cluster, Path(folder), pg, is_short=True)
            for mutant in MUTANTS:
                is_caught, by, seconds = await hunt(stage, mutant)
                found.append({"protection": mutant.protection, "caught": is_caught, "by": by})
                show(f"{'caught  ' if is_caught else 'SURVIVED'} {seconds:>5.1f}s  {mutant.protection}\n       {by}")
    return found


HEAD = (
    f"{'fault':<48} {'pg':>2} {'mode':<6} {'cycles':>6} {'acked':>6} {'unkn.':>5} {'lost':>4} {'dbl':>3} "
    f"{'longest':>8} {'took':>6}  verdict"
)


def line(row: Row) -> str:
    text = (
        f"{row.fault:>2} {row.name:<45} {row.pg:>2} {row.mode:<6} {row.cycles:>6} {row.acknowledged:>6} "
        f"{row.unknown:>5} {row.lost:>4} {row.doubled:>3} {row.longest:>7.2f}s {row.seconds:>5.1f}s  {row.verdict}"
    )
    told = (f"{name}: {page.shown(value, row.bounds.get(name))}" for name, value in row.figures.items())
    more = [*told, *([row.note] if row.note else [])]
    below = [*more, *(f"! {each}" for each in (*row.failures, *row.late))]
    return "\n".join([text, *(f"       {each}" for each in below)])


def _numbers(text: str) -> list[int]:
    known = {number for number, _ in FAULTS} | {10}
    try:
        found = [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"numbers with commas between them, not {text!r}") from None
    if unknown := set(found) - known:
        raise argparse.ArgumentTypeError(f"no fault {sorted(unknown)}; there are {sorted(known)}")
    return found


def _versions(text: str) -> list[int]:
    try:
        found = [int(version) for version in text.split(",")]
        for version in found:
            find_binaries(version)
    except (ValueError, ConfigError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="fewer cycles")
    parser.add_argument("--only", type=_numbers, default=[], help="numbers of faults, e.g. 1,2; 10 is the mutants")
    parser.add_argument("--pg", type=_versions, default="18,15", help="versions of PostgreSQL")
    parser.add_argument("--json", type=Path, help="write the table there too")
    parser.add_argument("--write", action="store_true", help="write docs/faults.md, and docs/faults.json beside it")
    given = parser.parse_args(arguments)
    if given.write and given.short:
        parser.error("the page is of the full form: --write without --short")
    _show(HEAD)
    rows: list[Row] = []
    for pg in given.pg:
        rows += asyncio.run(campaign(pg, given.only, is_short=given.short))
    mutants = asyncio.run(hunt_all(given.pg[0])) if not given.only or 10 in given.only else []
    caught, total = sum(mutant["caught"] for mutant in mutants), len(mutants)
    _show(summary(rows, caught, total))
    if given.json:
        given.json.write_text(json.dumps(page.merged({}, rows, mutants), indent=1))
    if given.write:
        page.write(rows, mutants)
    return int(any(row.failures or row.late for row in rows) or caught < total)


def summary(rows: Sequence[Row], caught: int, total: int) -> str:
    verdicts = Counter(row.verdict for row in rows)
    told = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
    acknowledged, doubled = (sum(getattr(row, name) for row in rows) for name in ("acknowledged", "doubled"))
    lost = sum(row.lost for row in rows if row.mode != "async")
    window = sum(row.lost for row in rows if row.mode == "async")
    text = f"{len(rows)} faults: {told or 'none'}; acknowledged {acknowledged}, lost {lost}, doubled {doubled}"
    text += f"; lost by asynchronous standbys, as reported above: {window}" if window else ""
    return text + (f"; mutants caught {caught} of {total}" if total else "")


if __name__ == "__main__":
    sys.exit(main())
