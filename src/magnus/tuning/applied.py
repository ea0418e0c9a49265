"""What of our own changes stands on a server by now, for the checks: read from the journal, without a right to act."""

from __future__ import annotations

from typing import TYPE_CHECKING

from magnus.tuning import ledger, plan
from magnus.tuning.change import Kind
from magnus.tuning.checks import Missing
from magnus.tuning.journal import Author, Journal, JournalBroken, JournalUnusable
from magnus.tuning.ledger import Stand

if TYPE_CHECKING:
    from pathlib import Path

    from magnus.tuning.change import Change
    from magnus.tuning.checks import Row
    from magnus.tuning.facts import Server


def rows(folder: Path, server: Server) -> tuple[Row, ...] | Missing:
    """
    Return each change that was made and not taken back, the last on each thing, with what is there now.
    """
    try:
        journal = Journal.open(folder, server.system_identifier, Author("", server.permissions.role, "", ""))
    except (JournalUnusable, JournalBroken) as error:
        return Missing(f"what was applied is not known: {error}")
    runs = ledger.of_target(ledger.fold(journal.entries), server.host, server.data_directory, server.port)
    found: dict[str, Row] = {}
    for run in runs:
        changes = {change.id: change for change in plan.Plan.from_json(run.begun.data["plan"]).changes}
        for made in run.made:
            if made.stand is Stand.DONE and made.id in changes and _is_seen(changes[made.id], server):
                found[made.id] = _row(changes[made.id], run.id, server)
            elif made.stand is Stand.UNDONE:
                found.pop(made.id, None)
    return tuple(found.values())


def _is_seen(change: Change, server: Server) -> bool:
    """
    What lies in another database than the session's, and indexes, are not looked at here.
    """
    return change.kind is not Kind.INDEX and change.database in {None, server.database}


def _row(change: Change, run: str, server: Server) -> Row:
    row = {"id": change.id, "name": change.name, "quick_win": change.quick_win, "after": change.after, "run": run}
    return {**row, "now": change.after if _stands(change, server) else plan.current(change, server)}


def _stands(change: Change, server: Server) -> bool:
    """
    In force, or in the file and waiting for the restart that the operator chose not to ask for yet.
    """
    setting = server.settings.get(change.name)
    if change.kind is Kind.SETTING and setting is not None and setting.pending_restart:
        return True
    return plan.state_of(change, server) is plan.State.DONE
