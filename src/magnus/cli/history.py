"""`magnus history`: what was done to which server, by whom, when and why; read from the journal, without a server."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

from magnus.cli.answer import Answer
from magnus.cli.tuning import columns
from magnus.errors import ConfigError
from magnus.tuning import ledger
from magnus.tuning.journal import Author, Journal, default_folder
from magnus.tuning.ledger import Stand

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from magnus.tuning.ledger import Run


def history(name: str | None, folder: Path | None, environ: Mapping[str, str]) -> Answer:
    """
    List the runs of every journal in the folder, or the changes of one run.

    Raises:
        ConfigError: no such run.
        JournalUnusable, JournalBroken: a journal cannot be read, or was tampered with.
    """
    place = default_folder(environ) if folder is None else folder.expanduser().absolute()
    author = Author.here("", metadata.version("magnus-db"), environ)
    journals = [Journal.open(place, path.stem, author) for path in sorted(place.glob("*.jsonl"))]
    runs = sorted((run for journal in journals for run in ledger.fold(journal.entries)), key=lambda run: run.begun.time)
    torn = [str(journal.path) for journal in journals if journal.torn]
    if name is not None:
        return _one(next((run for run in runs if run.id == name), None), name)
    data = {"journal": str(place), "runs": [_as_json(run) for run in runs], "torn": torn}
    text = [] if runs else [f"No run is in {place}."]
    text += [f"note: {path} has a line that was never finished" for path in torn]
    headings = ("run", "status", "stand", "server", "by", "reason")
    return Answer("history", data, [*text, *(columns([headings, *map(_cells, runs)]) if runs else ())])


def _standing(run: Run) -> int:
    return sum(1 for made in run.made if made.stand is Stand.DONE)


def _cells(run: Run) -> tuple[str, ...]:
    target, author = run.target, run.begun.author
    where = f"{target['cluster_name'] or target['database']} {target['host']}:{target['port']}"
    by = f"{author.actor}@{author.host} as {author.role}"
    return (run.id, run.status, f"{_standing(run)} of {len(run.made)}", where, by, run.begun.data["reason"])


def _as_json(run: Run) -> dict[str, Any]:
    author = run.begun.author
    return {
        "run": run.id,
        "time": run.begun.time,
        "target": dict(run.target),
        "actor": author.actor,
        "role": author.role,
        "host": author.host,
        "version": author.version,
        "reason": run.begun.data["reason"],
        "digest": run.begun.data["digest"],
        "status": run.status,
        "made": len(run.made),
        "standing": _standing(run),
    }


def _one(run: Run | None, name: str) -> Answer:
    if run is None:
        raise ConfigError("RUN", name, "is not in the journal; see: magnus history")
    changes = [
        {"id": m.id, "before": m.change["before"], "after": m.change["after"], "stand": str(m.stand)} for m in run.made
    ]
    rows = [(m.id, m.change["before"] or "-", m.change["after"] or "-", str(m.stand)) for m in run.made]
    text = [f"{run.id}  {run.status}  {run.begun.time}  {run.begun.author.actor}  {run.begun.data['reason']}".rstrip()]
    text += columns([("change", "was", "set to", "stands"), *rows])
    return Answer("history", {**_as_json(run), "changes": changes}, text)
