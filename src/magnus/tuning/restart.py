"""A restart under the dead-man's eye, as the run that asked for it sees it."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import TYPE_CHECKING, Final

import asyncpg

from magnus.errors import ApplyFailed
from magnus.tuning import guard, ledger

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from magnus.tuning.journal import Entry, Journal
    from magnus.tuning.reach import Reach
    from magnus.tuning.service import Service
    from magnus.tuning.session import Session

_POLL: Final = 0.05


async def restart(session: Session, journal: Journal, given: guard.Orders, names: Sequence[str]) -> None:
    """
    Restart the server under the dead-man's eye, and open the session anew.

    Raises:
        ApplyFailed: it did not come up; the dead-man put the settings back, or could not.
    """
    entry = journal.write("restart", given.run, orders=given.to_json(), settings=list(names))
    try:
        await session.con.execute("CHECKPOINT")
    except asyncpg.InsufficientPrivilegeError:
        session.tell("note: this role may not CHECKPOINT (pg_checkpoint), so stopping takes as long as it takes")
    await session.close()
    session.tell(f"restarting for {', '.join(names)}: {given.service.words}")
    verdict = await asyncio.to_thread(guarded, given, session.reach, journal, entry.seq)
    await settle(session, journal, verdict)


async def settle(session: Session, journal: Journal, verdict: Entry) -> None:
    """
    Go on after the dead-man's verdict.

    Raises:
        ApplyFailed: unless the server is up with the new settings.
    """
    made = ledger.standing(ledger.fold(journal.entries), verdict.run)
    if verdict.kind == "stuck":
        raise ApplyFailed(
            f"the server does not start, neither with the new settings ({verdict.data['why']}) nor with the old ones "
            f"({verdict.data['problem']}); the old ones are in place",
            applied=made,
            is_settled=True,
        )
    await session.reopen()
    if verdict.kind == "restored":
        raise ApplyFailed(
            f"the server did not start with the new settings ({verdict.data['why']}); the old ones were put back and "
            "it serves again",
            applied=made,
            is_settled=True,
        )


def orders(
    session: Session,
    journal: Journal,
    run: str,
    how: Service,
    *,
    before: bytes,
    names: Iterable[str],
    keys: Iterable[str],
    timeout: float,
    is_rollback: bool = False,
) -> guard.Orders:
    """
    Return what the dead-man needs to know. `keys` name the changes ("RUN|ID") that stand or fall with the restart.
    """
    site = session.site
    assert site is not None, "a restart is only planned for a server on this machine"
    return guard.Orders(
        run=run,
        keys=tuple(keys),
        is_rollback=is_rollback,
        service=how,
        before=base64.b64encode(before).decode(),
        names=tuple(names),
        timeout=timeout,
        old_pid=site.pid,
        folder=str(journal.folder),
        system_identifier=journal.system_identifier,
        author=journal.author,
    )


def guarded(given: guard.Orders, reach: Reach, journal: Journal, after: int) -> Entry:
    """
    Start the dead-man and wait for its verdict in the journal; when it was killed, do its work here.
    """
    child = guard.spawn(given, reach)
    while True:
        if verdict := guard.verdict_after(journal, given.run, after):
            child.wait()
            return verdict
        if child.poll() is not None:
            if verdict := guard.verdict_after(journal, given.run, after):
                return verdict
            guard.carry_out(given, reach)
        time.sleep(_POLL)
