"""`magnus activity`: sessions and who blocks whom, now; and, on confirmation, the end of one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from magnus import insight
from magnus.cli.answer import Answer, ExitCode, Failure, Table
from magnus.cli.words import short, time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from magnus._driver import Connection
    from magnus.insight import Blocker, Session

_WIDTH: Final = 160


async def frames(con: Connection, *, show_idle: bool, interval: float | None) -> AsyncIterator[Answer]:
    """
    Yield what goes on: once, or again and again every `interval` seconds.
    """
    while True:
        yield _answer(await insight.sessions(con), show_idle=show_idle)
        if interval is None:
            return
        await asyncio.sleep(interval)


def _answer(found: Sequence[Session], *, show_idle: bool) -> Answer:
    tree = insight.blocking_tree(found)
    blocking = {pid for blocker in tree for pid in _pids(blocker)}
    shown = [session for session in found if show_idle or session.state != "idle" or session.pid in blocking]
    states = {
        name: sum(session.state == name for session in found) for name in ("active", "idle in transaction", "idle")
    }
    waiting = sum(bool(session.blocked_by) for session in found)
    data = {
        "sessions": [session.as_dict() for session in shown],
        "blocking": [blocker.as_dict() for blocker in tree],
        "counts": {**{name.replace(" ", "_"): times for name, times in states.items()}, "waiting": waiting},
    }
    text = [
        f"{len(found)} sessions: " + ", ".join(f"{times} {name}" for name, times in states.items())
        + f", {waiting} waiting for a lock",
    ]  # fmt: skip
    if tree:
        text += ["", "who blocks whom:", *(line for blocker in tree for line in lines(blocker))]
    return Answer("activity", data, text, [table(shown)] if shown else [])


def _pids(blocker: Blocker) -> list[int]:
    return [blocker.session.pid, *(pid for waiter in blocker.waiters for pid in _pids(waiter))]


def lines(blocker: Blocker, before: str = "  ", own: str = "") -> list[str]:
    """
    Return a tree of blockers as lines, each waiter under who it waits for.
    """
    session = blocker.session
    what = f"waits {time(session.query_seconds)} for {session.waits_for}" if session.waits_for else _doing(session)
    found = [f"{before}{own}{session.pid} {session.role or ''} {what}: {short(session.query, _WIDTH)}"]
    inner = before + {"": "", "├─ ": "│  ", "└─ ": "   "}[own]
    for number, waiter in enumerate(blocker.waiters, 1):
        found += lines(waiter, inner, "└─ " if number == len(blocker.waiters) else "├─ ")
    return found


def _doing(session: Session) -> str:
    return f"{session.state or session.backend_type} {time(session.state_seconds)}".strip()


def table(found: Sequence[Session]) -> Table:
    """
    Return sessions as rows, the longest at work first.
    """
    ordered = sorted(found, key=lambda s: (s.state == "idle", -(s.transaction_seconds or 0.0), s.pid))
    headings = ("pid", "application", "role", "state", "for", "transaction", "wait", "query")
    rows = [
        (
            session.pid,
            session.application,
            session.role or "",
            session.state or session.backend_type,
            time(session.state_seconds),
            time(session.transaction_seconds),
            session.wait or "",
            short(session.query, _WIDTH),
        )
        for session in ordered
    ]
    return Table(headings, rows, right=(0, 4, 5), is_cut=True)


async def describe(con: Connection, pid: int) -> str | None:
    """
    Return in a line what a session is and does, None when there is none.
    """
    for session in await insight.sessions(con):
        if session.pid == pid:
            who = f"{session.application or session.backend_type} of {session.role}"
            return f"session {pid}, {who}, {_doing(session)}: {short(session.query, _WIDTH)}"
    return None


async def end(con: Connection, pid: int, *, whole_session: bool) -> Answer | Failure:
    """
    Cancel what a session runs, or end it.

    Raises:
        Unavailable: this role may not.
    """
    word = "terminated" if whole_session else "cancelled"
    if not await insight.end(con, pid, whole_session=whole_session):
        return Failure("activity", ExitCode.REFUSED, f"session {pid} is gone", "look again: magnus activity")
    return Answer("activity", {"pid": pid, "done": word}, [f"session {pid}: {word}"])
