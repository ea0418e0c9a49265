"""Figures -> tables, lines and JSON for a person or a program; the only module of the command line that prints."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.console import Console, Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from ava.audit import AuditReport
    from ava.workload.tally import Figures, Result
    from magnus.insight import Group as SlowGroup

FORMAT_VERSION: Final = "1.0"
_PLAIN_WIDTH: Final = 120
_POOL_KEYS: Final = ("size", "free", "used", "max_size", "waiting")
_LANE_KEYS: Final[Mapping[str, str]] = {
    "waiting": "waiting",
    "acquired": "served",
    "timeouts": "timeouts",
    "rejected": "refused",
    "wait_p50_ms": "p50 ms",
    "wait_p95_ms": "p95 ms",
    "wait_p99_ms": "p99 ms",
}
_QUERY_KEYS: Final = ("total", "successful", "failed", "slow_queries", "avg_time_ms")


class PatientConsole(Console):
    """
    A console whose reader may go away: what is printed after that goes nowhere. Rich would end the process, and with
    it a service in the middle of its requests.
    """

    def on_broken_pipe(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)


def console(*, stderr: bool = False) -> Console:
    """
    Return a console: results go to standard output, chatter to standard error. Colour only on a terminal.
    """
    stream = sys.stderr if stderr else sys.stdout
    return PatientConsole(stderr=stderr, highlight=False, width=None if stream.isatty() else _PLAIN_WIDTH)


def line(text: str, *, stderr: bool = True) -> None:
    """
    Print one line as it is: no wrapping, no markup.
    """
    console(stderr=stderr).print(Text(text), soft_wrap=True)


def error(text: str) -> None:
    """
    Print why a command failed.
    """
    line(f"ava: {text}")


def show(found: RenderableType) -> None:
    """
    Print a result for a person.
    """
    console().print(found)


def as_json(command: str, exit_code: int, found: Mapping[str, Any]) -> None:
    """
    Print a result for a program.
    """
    status = "ok" if exit_code == 0 else "failed"
    document = {"format_version": FORMAT_VERSION, "command": command, "status": status, "exit_code": exit_code, **found}
    sys.stdout.write(json.dumps(document, indent=2, default=str) + "\n")


def result_document(result: Result) -> dict[str, Any]:
    """
    Return a run's figures as plain data.
    """
    return dataclasses.asdict(result)


def result_table(result: Result) -> Group:
    """
    Return a run's figures as a table and the lines under it.
    """
    table = _table(f"{result.requests:,} requests in {result.seconds:.1f} s: {result.per_second:,.0f} a second")
    table.add_column("operation")
    for name in ("requests", "p50 ms", "p95 ms", "p99 ms", "max ms", "failed"):
        table.add_column(name, justify="right")
    for figures in result.operations:
        table.add_row(*_cells(figures))
    table.add_section()
    table.add_row(*_cells(result.total), style="bold")
    return Group(table, *(Text(text) for text in summary(result)))


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)


def _cells(figures: Figures) -> list[str]:
    latencies = (figures.p50_ms, figures.p95_ms, figures.p99_ms, figures.max_ms)
    return [
        figures.operation,
        f"{figures.requests:,}",
        *(f"{value:,.1f}" for value in latencies),
        f"{figures.failed:,}",
    ]


def summary(result: Result) -> list[str]:
    """
    Return what the table does not show, a line each.
    """
    statuses = ", ".join(f"{count:,} x {status}" for status, count in result.statuses.items()) or "none"
    lines = [
        f"answers   {statuses}",
        f"repeats   {result.repeats:,} requests sent twice with one Idempotency-Key, all answered as the first time"
        if "unequal repeat" not in result.failures
        else f"repeats   {result.failures['unequal repeat']:,} of {result.repeats:,} were answered differently",
        f"refused   {result.refused:,} orders by the trading rules (no cash, no holdings)",
    ]
    if result.retries or result.shed:
        lines.append(f"overload  {result.retries:,} answers 503 tried again, {result.shed:,} requests given up")
    lines.extend(f"FAILED    {count:,} x {reason}" for reason, count in result.failures.items())
    return lines


def progress_line(result: Result, share: float) -> str:
    """
    Return one line of plain progress.
    """
    failed = sum(result.failures.values())
    return (
        f"progress: {share:4.0%}, {result.seconds:.1f} s, {result.requests:,} requests, {result.per_second:,.0f} /s, "
        f"p95 {result.total.p95_ms:,.0f} ms, {result.retries:,} retried, {failed:,} failed"
    )


def live_view(result: Result, share: float) -> Group:
    """
    Return what a terminal shows while a run goes on.
    """
    bar = Table.grid(padding=(0, 1))
    bar.add_row(ProgressBar(total=1.0, completed=share, width=40), f"{share:4.0%}")
    return Group(bar, result_table(result))


def audit_lines(report: AuditReport) -> list[str]:
    """
    Return an audit's verdict, what it looked at, and the mismatches it lists.
    """
    looked = ("accounts", "trades", "lots", "positions", "movements", "orders", "imports")
    counts = ", ".join(f"{getattr(report, name):,} {name}" for name in looked)
    verdict = "clean" if report.is_clean else f"{report.mismatch_count:,} mismatches"
    lines = [f"audit {verdict}: {counts}, in {report.elapsed:.1f} s"]
    lines.extend(
        f"{one.check}: account {one.account_id}, {one.subject}: expected {one.expected}, found {one.found}"
        for one in report.mismatches
    )
    if (hidden := report.mismatch_count - len(report.mismatches)) > 0:
        lines.append(f"and {hidden:,} more")
    return lines


def stats_table(stats: Mapping[str, Any]) -> Group:
    """
    Return /api/health/stats as tables: queries, the pool, its lanes.
    """
    queries: Mapping[str, Any] = stats.get("query_stats", {})
    pool: Mapping[str, Any] = stats.get("pool_stats", {})
    lanes: Mapping[str, Mapping[str, Any]] = pool.get("lanes", {})
    parts = [_figures_table("queries", queries, _QUERY_KEYS), _figures_table("pool", pool, _POOL_KEYS)]
    if lanes:
        parts.append(_lanes_table(lanes))
    return Group(*parts)


def slow_table(found: Sequence[SlowGroup], threshold: float) -> RenderableType:
    """
    Return the slow-query log's kinds of statements: how often, how long, and who ran them.
    """
    if not found:
        return Text(f"no statement took longer than {threshold * 1000:g} ms")
    table = _table(f"statements over {threshold * 1000:g} ms, from slow_query_log")
    for name in ("count", "mean ms", "p95 ms"):
        table.add_column(name, justify="right")
    for name in ("route", "caller", "statement"):
        table.add_column(name)
    for group in found:
        figures = (f"{group.occurrences:,}", f"{group.avg_ms:,.1f}", f"{group.p95_ms:,.1f}")
        names = (group.route or "", _line_of(group.caller), group.signature or group.query)
        table.add_row(*figures, *map(Text, names))
    return table


def _line_of(caller: str | None) -> str:
    """
    Return "module:line" of a caller, without its package.
    """
    module, _, rest = (caller or "").partition(":")
    return f"{module.rpartition('.')[2]}:{rest.rpartition(':')[2]}" if rest else ""


def _figures_table(title: str, figures: Mapping[str, Any], first: tuple[str, ...]) -> Table:
    table = _table(title)
    names = [name for name in first if name in figures]
    for name in names:
        table.add_column(name, justify="right")
    table.add_row(*(_figure(figures[name]) for name in names))
    return table


def _lanes_table(lanes: Mapping[str, Mapping[str, Any]]) -> Table:
    keys = [key for key in _LANE_KEYS if any(key in lane for lane in lanes.values())]
    table = _table("lanes, and the wait for a connection")
    table.add_column("lane")
    for key in keys:
        table.add_column(_LANE_KEYS[key], justify="right")
    for name, lane in lanes.items():
        table.add_row(name, *(_figure(lane.get(key, "")) for key in keys))
    return table


def _figure(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.1f}"
        case _:
            return str(value)
