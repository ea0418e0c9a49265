"""From rounds to the table before / after: medians, intervals, whether a promise is kept, and why when not. Pure."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from magnus.loadtest import compare, interval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LANES = ("critical", "high", "normal", "low")
OPERATIONS = {
    "positions": "positions", "trades": "a page of trades", "report": "a month's report", "buy": "a purchase",
    "sell": "a sale",
}  # fmt: skip
Row = tuple[str, str, str, str, str, str]


def values(document: dict[str, Any], side: str, get: Callable[[dict[str, Any]], float]) -> list[float]:
    return [get(found[side]) for found in document["rounds"]]


def shown(found: Sequence[float], spec: str, unit: str) -> str:
    """
    Return a median, and between which bounds all that can be said of it lies when there are several rounds.
    """
    one = interval(found)
    text = f"{one.estimate:{spec}}{unit}"
    return text if len(found) < 3 else f"{text} ({one.low:{spec}}..{one.high:{spec}})"


def change(before: Sequence[float], after: Sequence[float]) -> float:
    """
    Return by which share less, by medians.
    """
    base = statistics.median(before)
    return 0.0 if base == 0 else 1 - statistics.median(after) / base


def rows(document: dict[str, Any]) -> list[Row]:
    """
    Return: what, the promise, before, after, how much less, the verdict.
    """
    found = [
        lower(document, "First request latency", "60-80 % lower", 0.60, lambda side: side["first_ms"], ".1f", " ms"),
        answered(document, "busy", lower(document, "Average query time", "30-40 % lower", 0.30, busy, ".2f", " ms")),
        *contributions(document),
        answered(document, "load", lower(document, "  in the calm load", "", None, calm, ".2f", " ms")),
        *(lower(document, f"  calm, {words}", "", None, one(name), ".2f", " ms") for name, words in OPERATIONS.items()),
        utilisation(document),
        lower(
            document, "Connection failures / hour", "80 % lower", 0.80,
            lambda side: side["hiccups"]["failed"], ".0f", "",
        ),
        visibility(document),
    ]  # fmt: skip
    found += [lower(document, f"p99 under overload, {lane}", "", None, lane_p99(lane), ".1f", " ms") for lane in LANES]
    found += [
        lower(document, "Recovery after a restart", "", None, recovery, ".3f", " s"),
        lower(document, "Memory of the process", "", None, lambda side: side["busy"]["rss_mb"], ".0f", " MB"),
        lower(document, "Connections open", "", None, lambda side: side["busy"]["connections"], ".1f", ""),
        lower(document, "Time from start to ready", "", None, lambda side: side["ready_ms"], ".0f", " ms"),
    ]
    return found


def answered(document: dict[str, Any], load: str, row: Row) -> Row:
    """
    Return a row of a load, and say so when requests failed in it: their times are no times of answers.
    """
    failed = {
        name: sum(found[side][load]["failed"] for found in document["rounds"])
        for name, side in (("before", "before"), ("after", "settings"))
    }
    words = ", ".join(f"{count} {name}" for name, count in failed.items() if count)
    return (*row[:-1], f"{row[-1]}; FAILED requests: {words}".removeprefix("; ")) if words else row


def busy(side: dict[str, Any]) -> float:
    found: float = side["busy"]["mean_ms"]
    return found


def calm(side: dict[str, Any]) -> float:
    found: float = side["load"]["mean_ms"]
    return found


def one(operation: str) -> Callable[[dict[str, Any]], float]:
    def get(side: dict[str, Any]) -> float:
        found: float = side["load"]["operations_ms"].get(operation, 0.0)
        return found

    return get


def lane_p99(lane: str) -> Callable[[dict[str, Any]], float]:
    def get(side: dict[str, Any]) -> float:
        found: float = side["overload"]["p99_by_lane_ms"].get(lane, 0.0)
        return found

    return get


def recovery(side: dict[str, Any]) -> float:
    waits: list[float] = side["hiccups"]["recovery_s"]
    return statistics.median(waits)


def lower(  # noqa: PLR0917  # a row of a table, told in its order
    document: dict[str, Any], name: str, promise: str, least: float | None,
    get: Callable[[dict[str, Any]], float], spec: str, unit: str,
) -> Row:  # fmt: skip
    before, after = values(document, "before", get), values(document, "settings", get)
    if statistics.median(before) < 0.01 * statistics.median(after):  # nothing is done at all: a ratio says nothing
        return name, promise, shown(before, spec, unit), shown(after, spec, unit), "", ""
    less = change(before, after)
    verdict = "" if least is None else "met" if less >= least else f"NOT met: {100 * less:.0f} % of {100 * least:.0f} %"
    measured = f"{100 * less:.0f} % lower" if less >= 0 else f"{-100 * less:.0f} % higher"
    return name, promise, shown(before, spec, unit), shown(after, spec, unit), measured, verdict


def contributions(document: dict[str, Any]) -> list[Row]:
    """
    Return what the pool did on the same stock server, and what the settings did beside it; with intervals of ratios.
    """
    found = []
    steps = (("of it the pool", "before", "pool"), ("of it the settings", "pool", "settings"))
    for name, first, second in steps:
        a, b = (values(document, side, busy) for side in (first, second))
        verdict = ""
        if len(a) >= 3:
            ratio = compare(a, b, alpha=0.05)
            low, high = (100 * (1 - bound) for bound in (ratio.ratio.high, ratio.ratio.low))
            verdict = f"{ratio.verdict} ({low:+.0f}..{high:+.0f} % at 95 %)"
        less = change(a, b)
        measured = f"{100 * less:.0f} % lower" if less >= 0 else f"{-100 * less:.0f} % higher"
        found.append((f"  {name}", "", shown(a, ".2f", " ms"), shown(b, ".2f", " ms"), measured, verdict))
    proposed = document.get("indexes")
    if proposed is not None:
        words = "nothing to make" if not proposed else "not made: " + ", ".join(proposed)
        found.append(("  of it indexes", "", "", "", f"{len(proposed)} proposed by magnus indexes", words))
    return found


def utilisation(document: dict[str, Any]) -> Row:
    before, after = (
        values(document, side, lambda found: 100 * found["busy"]["utilisation"]) for side in ("before", "settings")
    )
    now = statistics.median(after)
    verdict = "met" if 30 <= now <= 60 else f"NOT met: {'below' if now < 30 else 'above'} 30-60 %"
    if now < 30:
        held = statistics.median(values(document, "settings", lambda found: found["busy"]["connections"]))
        verdict += f"; {held * now / 100:.1f} of {held:.0f} are in use: fewer would do"
    less = f"{statistics.median(before):.0f} % -> {now:.0f} %"
    return (
        "Pool utilisation (in use / open)",
        "30-60 %",
        shown(before, ".0f", " %"),
        shown(after, ".0f", " %"),
        less,
        verdict,
    )


def visibility(document: dict[str, Any]) -> Row:
    def share(side: dict[str, Any]) -> float:
        found: int = side["found"]
        return 100 * found / int(side["slow"])

    before, after = values(document, "before", share), values(document, "settings", share)
    verdict = "met" if min(after) == 100 else "NOT met"
    return "Slow statements found", "full", shown(before, ".0f", " %"), shown(after, ".0f", " %"), "", verdict


HEADS = ("Metric", "Promised", "Before", "After", "Change", "Target")


def table(document: dict[str, Any]) -> list[str]:
    cells = [HEADS, *rows(document)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(HEADS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def markdown(document: dict[str, Any]) -> str:
    head = f"| {' | '.join(HEADS)} |\n|{'---|' * len(HEADS)}\n"
    body = "".join(f"| {' | '.join(cell.strip() for cell in row)} |\n" for row in rows(document))
    return head + body
