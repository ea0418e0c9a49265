"""A load test's result as a page that stands by itself: tables, and plots drawn as SVG. It measures nothing."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_WIDTH: Final = 860
_HEIGHT: Final = 220
_EDGE: Final = 56
_STYLE: Final = """
body{font:15px/1.45 system-ui,sans-serif;max-width:920px;margin:24px auto;padding:0 16px;color:#1c2733;background:#fff}
table{border-collapse:collapse;width:100%}th,td{text-align:right;padding:4px 8px;border-bottom:1px solid #d5dde5}
th:first-child,td:first-child{text-align:left}svg{width:100%;height:auto}.soft{color:#5b6b7b}.bad{color:#b3261e}
"""


def page(document: Mapping[str, Any]) -> str:
    """
    Return the page of one result, as `Result.as_dict` beside a "run" that describes it.
    """
    rows = [document["total"], *document["operations"]]
    course = document["course"]
    late = document["generator_late_p99_ms"]
    note = (
        f"<p class='soft'>The generator was late by {late:.1f} ms at most in 99 of 100 requests.</p>"
        if document["generator_has_kept_up"]
        else f"<p class='bad'>The generator did not keep up: {late:.1f} ms late (p99), which is in the times.</p>"
    )
    counts = [("requests", "#1971c2", [(at, count) for at, count, *_ in course])]
    times = [
        ("p50", "#2f9e44", [(at, p50) for at, _, p50, *_ in course]),
        ("p99", "#c2255c", [(at, p99) for at, _, _, p99, *_ in course]),
    ]
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>magnus bench</title>"
        f"<style>{_STYLE}</style><h1>magnus bench</h1>{_described(document.get('run', {}))}{note}"
        f"<h2>Figures</h2>{_table(rows)}"
        f"<h2>Requests a second</h2>{plot(counts, '')}<h2>Latency</h2>{plot(times, 'ms')}"
        f"{_failures(document['failures'])}</html>\n"
    )


def _described(run: Mapping[str, Any]) -> str:
    rows = "".join(f"<tr><td>{escape(str(key))}</td><td>{escape(str(value))}</td></tr>" for key, value in run.items())
    return f"<table>{rows}</table>" if rows else ""


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    heads = (
        "requests",
        "failed",
        "refused",
        "mean_ms",
        "p50_ms",
        "p90_ms",
        "p95_ms",
        "p99_ms",
        "p999_ms",
        "longest_ms",
    )
    head = "".join(f"<th>{name.removesuffix('_ms')}{' ms' if name.endswith('_ms') else ''}</th>" for name in heads)
    body = "".join(
        f"<tr><td>{escape(row['name'])}</td>{''.join(f'<td>{_shown(row[name])}</td>' for name in heads)}</tr>"
        for row in rows
    )
    return f"<table><tr><th>operation</th>{head}</tr>{body}</table>"


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _failures(found: Mapping[str, int]) -> str:
    if not found:
        return ""
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{count:,}</td></tr>" for name, count in found.items())
    return f"<h2>Failures</h2><table>{rows}</table>"


def plot(lines: Sequence[tuple[str, str, Sequence[tuple[float, float | None]]]], unit: str) -> str:
    """
    Return lines over seconds as SVG: name, colour, points.
    """
    points = [(x, y) for _, _, line in lines for x, y in line if y is not None]
    if len(points) < 2:
        return "<p class='soft'>Too short to draw.</p>"
    last, top = max(x for x, _ in points) or 1.0, max(y for _, y in points) or 1.0

    def place(x: float, y: float) -> str:
        return f"{_EDGE + (_WIDTH - _EDGE - 10) * x / last:.1f},{_HEIGHT - 24 - (_HEIGHT - 40) * y / top:.1f}"

    drawn = "".join(
        f"<polyline fill='none' stroke='{colour}' stroke-width='1.5' "
        f"points='{' '.join(place(x, y) for x, y in line if y is not None)}'/>"
        for _, colour, line in lines
    )
    marks = "".join(
        f"<text x='{_EDGE - 6}' y='{_HEIGHT - 20 - (_HEIGHT - 40) * part:.0f}' text-anchor='end'>"
        f"{top * part:,.4g}</text>"
        for part in (0, 0.5, 1)
    )
    legend = "".join(
        f"<text x='{_EDGE + 90 * index}' y='12' fill='{colour}'>{escape(name)}{f' ({unit})' if unit else ''}</text>"
        for index, (name, colour, _) in enumerate(lines)
    )
    return (
        f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' role='img' font-size='11' fill='#5b6b7b'>{legend}{marks}"
        f"<text x='{_WIDTH - 10}' y='{_HEIGHT - 6}' text-anchor='end'>{last:g} s</text>{drawn}</svg>"
    )
