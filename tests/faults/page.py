"""The campaign's results as a page: pieces that were played at different times are put together; it plays nothing."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.faults.stage import Row

DOCS = Path(__file__).resolve().parents[2] / "docs"
KEPT, PAGE = DOCS / "faults.json", DOCS / "faults.md"
_INTRO = """# Faults, and how the layer stood them

`make faults` plays them on real servers, switches each protection off, and writes this page. What each verdict means,
and how to play one of them: [Break it on purpose](testing-faults.md).
"""
_COLUMNS = (
    "fault", "PostgreSQL", "standby", "cycles", "acknowledged", "unknown", "lost", "doubled", "longest call", "verdict",
    "measured",
)  # fmt: skip


def merged(kept: dict[str, Any], rows: Sequence[Row], mutants: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """
    Return what was kept with what was played now in the place of what it replaces, in the order of the catalogue.
    """
    found = {_key(row): row for row in [*kept.get("faults", []), *(row.as_dict() for row in rows)]}
    return {
        "faults": sorted(found.values(), key=lambda row: (-row["pg"], row["fault"])),
        "mutants": list(mutants) or kept.get("mutants", []),
        "on": {
            "asyncpg": version("asyncpg"),
            "Python": platform.python_version(),
            "kernel": platform.release(),
            "processors": os.cpu_count(),
        },
    }


def _key(row: dict[str, Any]) -> tuple[int, int, str, str]:
    return row["pg"], row["fault"], row["name"], row["mode"]


def page(kept: dict[str, Any]) -> str:
    """
    Return the page in Markdown.
    """
    rows, mutants = kept["faults"], kept["mutants"]
    on = "; ".join(f"{name} {value}" for name, value in kept["on"].items())
    servers = ", ".join(sorted({row["server"] for row in rows}, reverse=True))
    lost = sum(row["lost"] for row in rows if row["mode"] != "async")
    window = sum(row["lost"] for row in rows if row["mode"] == "async")
    acknowledged, doubled = (sum(row[name] for row in rows) for name in ("acknowledged", "doubled"))
    stood = sum(row["verdict"] == "stood" for row in rows)
    caught = sum(mutant["caught"] for mutant in mutants)
    totals = f"""- Played on PostgreSQL {servers}; {on}.
- {acknowledged} units acknowledged: {lost} lost, {doubled} doubled. Asynchronous standbys lost {window} more at their
  promotions, which no client can prevent.
- {stood} of {len(rows)} faults stood; {caught} of {len(mutants)} mutants caught."""
    return "\n".join([
        _INTRO,
        totals,
        "",
        _line(_COLUMNS),
        _line(["---"] * len(_COLUMNS)),
        *(_line(_cells(row)) for row in rows),
        "",
        "## Protections switched off",
        "",
        "Each one is switched off in turn; the fault beside it must notice.",
        "",
        _line(("protection", "noticed by", "result")),
        _line(["---"] * 3),
        *(_line((each["protection"], each["by"], "caught" if each["caught"] else "SURVIVED")) for each in mutants),
        "",
    ])


def _cells(row: dict[str, Any]) -> list[str]:
    told = [f"{name}: {shown(value, row['bounds'].get(name))}" for name, value in row["figures"].items()]
    counts = ("cycles", "acknowledged", "unknown", "lost", "doubled")
    return [
        f"{row['fault']} {row['name']}",
        row["server"],
        {"single": ""}.get(row["mode"], row["mode"]),
        *(str(row[name]) for name in counts),
        f"{row['longest']:.2f} s",
        row["verdict"],
        "; ".join([*told, *([row["note"]] if row["note"] else []), *row["failures"], *row["late"]]),
    ]


def shown(value: object, bound: float | None) -> str:
    """
    Return a figure as text, with the bound it had to keep.
    """
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items())
    return str(value) if bound is None else f"{value} (at most {bound:g})"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(' '.join(cell.split()).replace('|', '/') for cell in cells)} |"


def write(rows: Sequence[Row], mutants: Sequence[dict[str, Any]], *, kept: Path = KEPT, to: Path = PAGE) -> None:
    """
    Keep the results beside the page, and write the page.
    """
    result = merged(json.loads(kept.read_text()) if kept.exists() else {}, rows, mutants)
    kept.write_text(json.dumps(result, indent=1) + "\n")
    to.write_text(page(result))
