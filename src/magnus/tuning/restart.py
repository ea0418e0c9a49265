"""A restart under the dead-man's eye, as the run that asked for it sees it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import asyncpg

from magnus.errors import ApplyFailed
from magnus.tuning import guard, ledger
from magnus.tuning.change import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from magnus.tuning.journal import Entry, Journal
    from magnus.tuning.reach import Reach
    from magnus.tuning.service import Service
    from magnus.tuning.session import Session

_POLL: Final = 0.05
_VERDICTS: Final = frozenset({"restarted", "restored", "stuck"})


async def restart(
    session: Session, journal: Journal, run: str, how: Service, names: Sequence[str], timeout: float
) -> None:
    """
    Restart the server under the dead-man's eye, and open the session anew.

    Raises:
        ApplyFailed: it did not come up; the dead-man put the settings back, or could not.
    """
    orders = orders_for(session, journal, run, how, timeout)
    entry = journal.write("restart", run, orders=orders.to_json(), settings=list(names))
    try:
        await session.con.execute("CHECKPOINT")
    except asyncpg.InsufficientPrivilegeError:
        session.tell("note: this role may not CHECKPOINT (pg_checkpoint), so stopping takes as long as it takes")
    await session.close()
    session.tell(f"restarting for {', '.join(names)}: {how.words}")
    verdict = await asyncio.to_thread(guarded, orders, session.reach, journal, entry.seq)
    await settle(session, journal, verdict)


async def settle(session: Session, journal: Journal, verdict: Entry) -> None:
    """
    Go on after the dead-man's verdict.

    Raises:
        ApplyFailed: unless the server is up with the new settings.
    """
    made = standing(journal, verdict.run)
    if verdict.kind == "stuck":
        raise ApplyFailed(
            f"the server does not start, neither with the new settings ({verdict.data['why']}) nor with the old ones "
            f"({verdict.data['problem']}); the old ones are in place",
            applied=made,
        )
    await session.reopen()
    if verdict.kind == "restored":
        raise ApplyFailed(
            f"the server did not start with the new settings ({verdict.data['why']}); the old ones were put back and "
            "it serves again",
            applied=made,
            is_settled=True,
        )


def standing(journal: Journal, run: str) -> tuple[str, ...]:
    """
    Return the ids of a run's changes that stand, as far as the journal knows.
    """
    found = next((r for r in ledger.fold(journal.entries) if r.id == run), None)
    return () if found is None else tuple(made.id for made in found.made if made.stand is ledger.Stand.DONE)


def orders_for(session: Session, journal: Journal, name: str, how: Service, timeout: float) -> guard.Orders:
    """
    Return what the dead-man needs to know of a run.
    """
    run = next(r for r in ledger.fold(journal.entries) if r.id == name)
    ours = {made.change["name"]: made.change["after"] for made in run.made if made.change["kind"] == Kind.SETTING}
    site = session.site
    assert site is not None, "a restart is only planned for a server on this machine"
    assert run.begun.data["auto_conf"] is not None, "what lies on this machine was read"
    return guard.Orders(
        run=run.id,
        ids=tuple(made.id for made in run.made if made.change["kind"] == Kind.SETTING),
        service=how,
        before=run.begun.data["auto_conf"],
        ours=ours,
        timeout=timeout,
        old_pid=site.pid,
        folder=str(journal.folder),
        system_identifier=journal.system_identifier,
        author=journal.author,
    )


def guarded(orders: guard.Orders, reach: Reach, journal: Journal, after: int) -> Entry:
    """
    Start the dead-man and wait for its verdict in the journal; when it was killed, do its work here.
    """
    child = guard.spawn(orders, reach)
    while True:
        if verdict := verdict_after(journal, orders.run, after):
            child.wait()
            return verdict
        if child.poll() is not None:
            if verdict := verdict_after(journal, orders.run, after):
                return verdict
            guard.carry_out(orders, reach)
        time.sleep(_POLL)


def verdict_after(journal: Journal, run: str, after: int) -> Entry | None:
    """
    Return the dead-man's verdict on a run's restart, if it is in the journal by now.
    """
    kinds = {"restarted", "restored", "stuck"}
    return next((e for e in journal.reread() if e.seq > after and e.run == run and e.kind in kinds), None)
